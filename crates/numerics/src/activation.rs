//! How a linear layer reads its input: the formats of activations, and their rounding.
//!
//! Source: the activation quantizers of W8A8 recipes. `s = amax/127` or `amax/448` of the row
//! (dynamic, per token), or a calibrated scale (static, per tensor); then `q = round(x/s)`, to
//! nearest even, saturating.

use crate::float8::{E4M3_MAX, e4m3_to_f32, f32_to_e4m3};
use half::bf16;
use std::fmt;

/// The precision in which a linear layer reads its input. The op that produces the input rounds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActivationFormat {
    /// As computed.
    F32,
    /// Rounded to nearest even bf16.
    BF16,
    /// Signed 8-bit integers, one scale a row.
    Int8,
    /// E4M3 floats, one scale a row.
    Fp8,
    /// E4M3 floats, one scale for each [`SCALE_BLOCK`](Self::SCALE_BLOCK) channels of a row.
    Fp8Blocks,
}

impl ActivationFormat {
    /// Every format.
    pub const ALL: [Self; 5] = [Self::F32, Self::BF16, Self::Int8, Self::Fp8, Self::Fp8Blocks];
    /// Channels that share a scale in [`Fp8Blocks`](Self::Fp8Blocks).
    pub const SCALE_BLOCK: usize = 128;

    /// Whether codes stand for numbers by a scale.
    #[must_use]
    pub fn is_scaled(self) -> bool {
        self.largest_code().is_some()
    }

    /// The code that the largest magnitude of a row takes; none for formats without scales.
    #[must_use]
    pub fn largest_code(self) -> Option<f32> {
        match self {
            Self::F32 | Self::BF16 => None,
            Self::Int8 => Some(127.0),
            Self::Fp8 | Self::Fp8Blocks => Some(E4M3_MAX),
        }
    }

    /// Channels that share a scale in a row of `k`, at least one.
    #[must_use]
    pub fn scale_block(self, k: usize) -> usize {
        if self == Self::Fp8Blocks { Self::SCALE_BLOCK } else { k.max(1) }
    }

    /// Scales of a row of `k` channels.
    #[must_use]
    pub fn scales(self, k: usize) -> usize {
        if self.is_scaled() { k.div_ceil(self.scale_block(k)) } else { 0 }
    }

    /// Bytes that a back end takes for one number at most; E4M3 may be kept as the bf16 it is exact
    /// in.
    #[must_use]
    pub fn element_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::BF16 | Self::Fp8 | Self::Fp8Blocks => 2,
            Self::Int8 => 1,
        }
    }

    /// The code nearest to a number in units of its scale, as a number.
    #[must_use]
    pub fn round(self, x: f32) -> f32 {
        match self {
            Self::F32 => x,
            Self::BF16 => bf16::from_f32(x).to_f32(),
            Self::Int8 => x.round_ties_even().clamp(-128.0, 127.0),
            Self::Fp8 | Self::Fp8Blocks => e4m3_to_f32(f32_to_e4m3(x)),
        }
    }

    /// Rounds one row as a linear layer reads it, with a static scale or with its own.
    ///
    /// A block of zeros, or of numbers too small for a normal scale, takes the scale 1. One that
    /// holds a NaN or an infinity takes NaN, so that whatever is computed from it says so.
    ///
    /// ```
    /// use bantam_numerics::ActivationFormat;
    /// let row = ActivationFormat::Int8.quantize(&[1.0, -2.0, 0.5], None);
    /// assert_eq!(row.codes, [64.0, -127.0, 32.0]); // 63.5 and 31.75, ties to even
    /// assert_eq!(row.scales, [2.0 / 127.0]);
    /// ```
    #[must_use]
    pub fn quantize(self, x: &[f32], scale: Option<f32>) -> ActivationRow {
        let Some(largest_code) = self.largest_code() else {
            let codes = x.iter().map(|&v| self.round(v)).collect();
            return ActivationRow { format: self, codes, scales: Vec::new() };
        };
        let (mut codes, mut scales) = (Vec::with_capacity(x.len()), Vec::new());
        for block in x.chunks(self.scale_block(x.len())) {
            let largest = block.iter().fold(0f32, |largest, v| largest.max(v.abs()));
            let own = normal_scale(largest / largest_code);
            let finite = block.iter().all(|v| v.is_finite());
            let scale = if finite { scale.unwrap_or(own) } else { f32::NAN };
            codes.extend(block.iter().map(|v| self.round(v / scale)));
            scales.push(scale);
        }
        ActivationRow { format: self, codes, scales }
    }
}

/// A scale that can be divided by: 1 in place of zero and subnormal numbers.
#[must_use]
pub fn normal_scale(scale: f32) -> f32 {
    if scale < f32::MIN_POSITIVE { 1.0 } else { scale }
}

impl fmt::Display for ActivationFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::BF16 => "bf16",
            Self::Int8 => "int8",
            Self::Fp8 => "fp8",
            Self::Fp8Blocks => "fp8-blocks",
        })
    }
}

/// One row as a linear layer reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct ActivationRow {
    /// How it is rounded.
    pub format: ActivationFormat,
    /// The codes as numbers, `[K]`: integers for INT8.
    pub codes: Vec<f32>,
    /// One for each block of channels; none for formats without scales.
    pub scales: Vec<f32>,
}

impl ActivationRow {
    /// The scale of channel `k`; 1 for formats without scales.
    ///
    /// # Panics
    /// If there is no such channel.
    #[must_use]
    pub fn scale(&self, k: usize) -> f32 {
        if self.scales.is_empty() {
            return 1.0;
        }
        self.scales[k / self.format.scale_block(self.codes.len())]
    }

    /// What the codes stand for, `[K]`.
    #[must_use]
    pub fn decode(&self) -> Vec<f32> {
        self.codes.iter().enumerate().map(|(k, code)| code * self.scale(k)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rounding_is_within_half_a_step(
            x in proptest::collection::vec(-9f32..9.0, 1..300), scale in 0.03f32..1.0,
        ) {
            for format in ActivationFormat::ALL {
                for scale in [None, Some(scale)] {
                    let row = format.quantize(&x, scale);
                    prop_assert_eq!(row.scales.len(), format.scales(x.len()));
                    for (k, (got, want)) in row.decode().into_iter().zip(&x).enumerate() {
                        // Beyond the largest code a static scale saturates.
                        let reach = format.largest_code().map_or(f32::MAX, |code| code * row.scale(k));
                        let below = if format == ActivationFormat::Int8 { row.scale(k) } else { 0.0 };
                        let want = want.clamp(-reach - below, reach);
                        let half_step = match format {
                            ActivationFormat::F32 => 0.0,
                            ActivationFormat::BF16 => want.abs() / 256.0,
                            ActivationFormat::Int8 => row.scale(k) * 0.501,
                            ActivationFormat::Fp8 | ActivationFormat::Fp8Blocks => {
                                want.abs() / 15.9 + row.scale(k) / 1023.0
                            }
                        };
                        prop_assert!((got - want).abs() <= half_step, "{format} {got} {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn zeros_stay_zeros_and_what_is_not_finite_shows() {
        for format in [ActivationFormat::Int8, ActivationFormat::Fp8, ActivationFormat::Fp8Blocks] {
            assert_eq!(format.quantize(&[0.0, -0.0, 1e-44], None).decode(), [0.0; 3]);
            for bad in [f32::NAN, f32::INFINITY] {
                let row = format.quantize(&[0.0, bad, 1.0], Some(0.5));
                assert!(row.decode().iter().all(|v| v.is_nan()), "{row:?}");
            }
        }
    }
}
