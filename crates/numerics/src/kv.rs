//! How keys and values are stored in a cache.
//!
//! The 8-bit formats have one scale for each vector, that is for each token and head. It is found when
//! the token is appended: no calibration, and no outlier token can spoil another. Where a checkpoint
//! brings calibrated [`KvRanges`], all vectors of a layer have the scale that follows from them. Scales
//! are f16.

use crate::float8::{E4M3_MAX, e4m3_to_f32, f32_to_e4m3};
use half::{bf16, f16};
use std::fmt;
use std::str::FromStr;

/// The number format of cached keys and values.
///
/// ```
/// use bantam_numerics::KvFormat;
/// assert_eq!("fp8".parse(), Ok(KvFormat::Fp8));
/// assert_eq!(KvFormat::Int8.vector_bytes(64), 64 + 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvFormat {
    /// Full precision.
    F32,
    /// 16 bits.
    BF16,
    /// Signed 8-bit integers, `x = q·s`, s = amax/127 of the vector.
    Int8,
    /// E4M3 floats, `x = q·s`, s = amax/448 of the vector.
    Fp8,
}

impl KvFormat {
    /// All formats, widest first.
    pub const ALL: [Self; 4] = [Self::F32, Self::BF16, Self::Int8, Self::Fp8];

    /// Bytes of one cached number.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::BF16 => 2,
            Self::Int8 | Self::Fp8 => 1,
        }
    }

    /// Whether each vector has a scale.
    #[must_use]
    pub const fn is_scaled(self) -> bool {
        matches!(self, Self::Int8 | Self::Fp8)
    }

    /// Bytes of one key or value of `head_dim` elements, its scale included.
    #[must_use]
    pub const fn vector_bytes(self, head_dim: usize) -> usize {
        head_dim * self.bytes() + if self.is_scaled() { 2 } else { 0 }
    }

    /// The largest magnitude that a code stands for.
    const fn max_code(self) -> f32 {
        match self {
            Self::Int8 => 127.0,
            Self::Fp8 => E4M3_MAX,
            Self::F32 | Self::BF16 => f32::MAX,
        }
    }

    /// The scale of a vector, or that of a calibrated `range` if there is one; rounded up to f16 so
    /// that nothing within the range is clipped. One for formats without scales.
    #[must_use]
    pub fn scale(self, vector: &[f32], range: Option<f32>) -> f16 {
        if !self.is_scaled() {
            return f16::ONE;
        }
        let own_range = || vector.iter().fold(0f32, |amax, v| amax.max(v.abs()));
        let amax = range.unwrap_or_else(own_range);
        let exact = (amax / self.max_code()).clamp(f16::MIN_POSITIVE.to_f32(), f16::MAX.to_f32());
        let nearest = f16::from_f32(exact);
        if nearest.to_f32() < exact { f16::from_bits(nearest.to_bits() + 1) } else { nearest }
    }

    /// The code of an element of a scaled format; `inverse` is one over the scale.
    ///
    /// # Panics
    /// If the format has no codes of one byte.
    #[must_use]
    pub fn encode(self, value: f32, inverse: f32) -> u8 {
        match self {
            // `as` saturates and takes NaN to zero.
            Self::Int8 => (value * inverse).round_ties_even().clamp(-127.0, 127.0) as i8 as u8,
            Self::Fp8 => f32_to_e4m3(value * inverse),
            Self::F32 | Self::BF16 => panic!("{self} numbers are not one byte"),
        }
    }

    /// What a code stands for, before its scale.
    ///
    /// # Panics
    /// As [`encode`](Self::encode).
    #[must_use]
    pub fn decode(self, code: u8) -> f32 {
        match self {
            Self::Int8 => f32::from(code as i8),
            Self::Fp8 => e4m3_to_f32(code),
            Self::F32 | Self::BF16 => panic!("{self} numbers are not one byte"),
        }
    }

    /// Replaces a vector by what a cache of this format would give back; `range` as in
    /// [`scale`](Self::scale).
    pub fn round(self, vector: &mut [f32], range: Option<f32>) {
        match self {
            Self::F32 => {}
            Self::BF16 => vector.iter_mut().for_each(|v| *v = bf16::from_f32(*v).to_f32()),
            Self::Int8 | Self::Fp8 => {
                let scale = self.scale(vector, range).to_f32();
                let inverse = scale.recip();
                for v in vector {
                    *v = self.decode(self.encode(*v, inverse)) * scale;
                }
            }
        }
    }
}

/// The largest magnitudes of a layer's keys and values, as calibration found them: those of keys after
/// rotation. Larger numbers are clipped.
///
/// ```
/// use bantam_numerics::{KvFormat, KvRanges};
/// // Checkpoints hold scales of FP8 codes, whose largest is 448.
/// let ranges = KvRanges::from_scales(KvFormat::Fp8, 0.5, 0.25);
/// assert_eq!(ranges, KvRanges { key: 224.0, value: 112.0 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KvRanges {
    /// Of keys.
    pub key: f32,
    /// Of values.
    pub value: f32,
}

impl KvRanges {
    /// The ranges that scales of an 8-bit format cover.
    #[must_use]
    pub fn from_scales(format: KvFormat, key: f32, value: f32) -> Self {
        Self { key: key * format.max_code(), value: value * format.max_code() }
    }

    /// The scales of keys and values that cover the ranges, as a cache keeps them: a file that holds
    /// these means the same to engines that keep f32. 1 for formats without scales.
    #[must_use]
    pub fn scales(&self, format: KvFormat) -> [f32; 2] {
        [self.key, self.value].map(|range| format.scale(&[], Some(range)).to_f32())
    }
}

impl fmt::Display for KvFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::BF16 => "bf16",
            Self::Int8 => "int8",
            Self::Fp8 => "fp8",
        })
    }
}

/// The text names no cache format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown cache format `{0}`; use f32, bf16, int8 or fp8")]
pub struct UnknownKvFormat(String);

impl FromStr for KvFormat {
    type Err = UnknownKvFormat;

    fn from_str(text: &str) -> Result<Self, UnknownKvFormat> {
        let named = Self::ALL.into_iter().find(|format| format.to_string() == text);
        named.ok_or_else(|| UnknownKvFormat(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rounding_errs_by_half_a_step_at_most(
            vector in prop::collection::vec(-1f32..1.0, 1..80),
            exponent in -20i32..16,
        ) {
            let vector: Vec<f32> = vector.iter().map(|v| v * 2f32.powi(exponent)).collect();
            for format in [KvFormat::Int8, KvFormat::Fp8] {
                let scale = format.scale(&vector, None).to_f32();
                let mut rounded = vector.clone();
                format.round(&mut rounded, None);
                for (got, want) in rounded.iter().zip(&vector) {
                    // Integers are a step apart; E4M3 has 3 bits after the leading one, and its
                    // subnormals are 2^-9 apart.
                    let allowed = match format {
                        KvFormat::Int8 => scale * 0.501,
                        _ => want.abs() / 15.9 + scale / 1000.0,
                    };
                    prop_assert!((got - want).abs() <= allowed, "{} {} {}", format, got, want);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn scales_that_a_file_keeps_come_back(key in 1e-2f32..1e3, value in 1e-2f32..1e3) {
            for format in [KvFormat::Int8, KvFormat::Fp8] {
                let ranges = KvRanges { key, value };
                let [key, value] = ranges.scales(format);
                let read = KvRanges::from_scales(format, key, value);
                prop_assert!(read.key >= ranges.key && read.key <= 1.001 * ranges.key);
                prop_assert_eq!(read.scales(format), [key, value]);
            }
        }
    }

    #[test]
    fn zero_and_damaged_vectors_are_harmless() {
        for format in KvFormat::ALL {
            let mut zeros = [0.0; 4];
            format.round(&mut zeros, None);
            assert_eq!(zeros, [0.0; 4], "{format}");
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        let mut huge = [f32::INFINITY, 1.0];
        KvFormat::Int8.round(&mut huge, None);
        assert!(huge.iter().all(|v| v.is_finite()), "{huge:?}");
    }

    #[test]
    fn a_calibrated_range_is_the_scale_of_all_and_clips_what_is_larger() {
        for format in [KvFormat::Int8, KvFormat::Fp8] {
            let scale = format.scale(&[1e4], Some(2.0));
            assert_eq!(scale, format.scale(&[0.0, -2.0], None), "{format}");
            let mut vector = [1e4, 2.0, -1e4, 0.0];
            format.round(&mut vector, Some(2.0));
            assert!((vector[0] - 2.0).abs() < 0.01, "{format} {vector:?}");
            assert_eq!(vector, [vector[0], vector[0], -vector[0], 0.0], "{format}");
        }
    }
}
