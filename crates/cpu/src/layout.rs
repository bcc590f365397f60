//! Weights in the order that the micro-kernel reads them.
//!
//! Output features are cut into *panels* of 16, one for each lane. Within a panel, the input
//! features advance in *quads* of four, so that one quad of any format is whole bytes and whole
//! pairs: f32 stores 4 × 16 values; bf16 and INT8 store pairs `[2][16 columns][2 k]`; INT4 stores
//! 32 bytes, byte j being `column j/2, k = j%2` in its low nibble and `k = 2 + j%2` in its high one.
//! Missing columns and k are zeros, so no kernel has a tail along either.
//!
//! An integer format's scales lie beside as f16 ratios `[panel][group][16]` to a power of two for
//! each channel, which holds any f16 or bf16 scale of a row exactly.

use crate::aligned::AlignedBytes;
use crate::simd::LANES;
use bantam_numerics::float8::e4m3_to_f32;
use bantam_numerics::{ActivationFormat, GroupAffine, PackedWeight, WeightData};
use half::{bf16, f16};

/// Input features that one step of a panel covers.
pub(crate) const QUAD: usize = 4;

/// How a panel stores its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PanelFormat {
    F32,
    Bf16,
    Int8,
    Fp8,
    Int4,
}

impl PanelFormat {
    /// Bytes of one quad of a panel.
    pub(crate) const fn quad_bytes(self) -> usize {
        match self {
            Self::F32 => QUAD * LANES * 4,
            Self::Bf16 => QUAD * LANES * 2,
            Self::Int8 | Self::Fp8 => QUAD * LANES,
            Self::Int4 => QUAD * LANES / 2,
        }
    }
}

/// Where element (column, k) of a quad of pairs lies, `column < 16`, `k < 4`.
pub(crate) const fn pair_index(column: usize, k: usize) -> usize {
    (k / 2) * 2 * LANES + 2 * column + k % 2
}

/// A linear layer's weight on the CPU.
#[derive(Debug)]
pub struct CpuWeight {
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) format: PanelFormat,
    pub(crate) activation: ActivationFormat,
    /// `[panels][quads]` of the format.
    pub(crate) data: AlignedBytes,
    /// One factor for each channel, `[panels·16]`; none where every factor is one.
    pub(crate) factors: Option<Vec<f32>>,
    /// Scales of groups smaller than K.
    pub(crate) groups: Option<GroupScales>,
}

/// Scales and offsets of the groups along K, as f16 multiples of the channel's factor.
#[derive(Debug)]
pub(crate) struct GroupScales {
    /// Quads in a group.
    pub(crate) quads: usize,
    /// `[panels][groups][16]`.
    pub(crate) ratios: Vec<u16>,
    /// `[panels][groups][16]`; none for symmetric formats.
    pub(crate) offsets: Option<Vec<u16>>,
}

impl CpuWeight {
    /// Panels of 16 output features.
    pub(crate) fn panels(&self) -> usize {
        self.n.div_ceil(LANES)
    }

    /// Quads of input features.
    pub(crate) fn quads(&self) -> usize {
        self.k.div_ceil(QUAD)
    }

    /// Bytes of one panel.
    pub(crate) fn panel_bytes(&self) -> usize {
        self.quads() * self.format.quad_bytes()
    }

    /// Bytes that one pass over the weight reads.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let groups = self.groups.as_ref().map_or(0, |groups| {
            2 * (groups.ratios.len() + groups.offsets.as_ref().map_or(0, Vec::len))
        });
        self.data.len() + 4 * self.factors.as_ref().map_or(0, Vec::len) + groups
    }

    /// Repacks a weight. The group size must be a multiple of four.
    pub(crate) fn new(weight: PackedWeight) -> Self {
        let PackedWeight { n, k, data } = weight;
        let activation = match data {
            WeightData::F32(_) => ActivationFormat::F32,
            _ => ActivationFormat::BF16,
        };
        let mut packed = Self {
            n,
            k,
            format: PanelFormat::F32,
            activation,
            data: AlignedBytes::default(),
            factors: None,
            groups: None,
        };
        match data {
            WeightData::F32(values) => {
                packed.fill(PanelFormat::F32, |bytes, column, i, row, k| {
                    let at = 4 * (i * LANES + column);
                    bytes[at..at + 4].copy_from_slice(&values[row + k].to_le_bytes());
                });
            }
            WeightData::BF16(values) => {
                packed.fill(PanelFormat::Bf16, |bytes, column, i, row, k| {
                    let at = 2 * pair_index(column, i);
                    bytes[at..at + 2].copy_from_slice(&values[row + k].to_le_bytes());
                });
            }
            WeightData::Int8 { levels, affine } => {
                packed.fill(PanelFormat::Int8, |bytes, column, i, row, k| {
                    bytes[pair_index(column, i)] = levels[row + k] as u8;
                });
                packed.scale(&affine);
            }
            WeightData::Int4 { nibbles, affine } => {
                let row_bytes = k.div_ceil(2);
                packed.fill(PanelFormat::Int4, |bytes, column, i, row, k_at| {
                    let byte = nibbles[row / k * row_bytes + k_at / 2];
                    let nibble = if k_at % 2 == 0 { byte & 0xf } else { byte >> 4 };
                    let cell = &mut bytes[pair_index(column, i % 2)];
                    *cell = if i < 2 { *cell & 0xf0 | nibble } else { *cell & 0xf | nibble << 4 };
                });
                packed.scale(&affine);
            }
        }
        packed
    }

    /// Lays out the panels: `put(quad, column, i, n·K, k)` writes weight (n, k) into its quad.
    fn fill(&mut self, format: PanelFormat, put: impl Fn(&mut [u8], usize, usize, usize, usize)) {
        self.format = format;
        let quad_bytes = format.quad_bytes();
        // A missing nibble must decode to level zero, which is stored as eight.
        let empty = if format == PanelFormat::Int4 { 0x88 } else { 0 };
        self.data = AlignedBytes::filled(self.panels() * self.panel_bytes(), empty);
        let quads = self.quads();
        for (at, bytes) in self.data.bytes_mut().chunks_exact_mut(quad_bytes).enumerate() {
            let (panel, quad) = (at / quads, at % quads);
            for column in 0..LANES.min(self.n - panel * LANES) {
                let row = (panel * LANES + column) * self.k;
                for i in 0..QUAD.min(self.k - quad * QUAD) {
                    put(bytes, column, i, row, quad * QUAD + i);
                }
            }
        }
    }

    fn scale(&mut self, affine: &GroupAffine) {
        let groups = self.k / affine.group;
        let mut factors = vec![0.0; self.panels() * LANES];
        if groups == 1 && affine.offsets.is_none() {
            factors[..self.n].copy_from_slice(&affine.scales);
            self.factors = Some(factors);
            return;
        }
        let mut ratios = vec![0; self.panels() * groups * LANES];
        let mut offsets = affine.offsets.as_ref().map(|_| ratios.clone());
        for (n, factor) in factors.iter_mut().enumerate().take(self.n) {
            let row = n * groups..(n + 1) * groups;
            let row_offsets = affine.offsets.as_ref().map(|offsets| &offsets[row.clone()]);
            let largest = affine.scales[row.clone()]
                .iter()
                .chain(row_offsets.into_iter().flatten())
                .fold(0f32, |largest, v| largest.max(v.abs()));
            *factor = power_of_two_near(largest);
            for g in 0..groups {
                let at = (n / LANES * groups + g) * LANES + n % LANES;
                let ratio = |value: f32| f16::from_f32(value / *factor).to_bits();
                ratios[at] = ratio(affine.scales[n * groups + g]);
                if let (Some(out), Some(from)) = (&mut offsets, row_offsets) {
                    out[at] = ratio(from[g]);
                }
            }
        }
        self.factors = Some(factors);
        self.groups = Some(GroupScales { quads: affine.group / QUAD, ratios, offsets });
    }

    /// Decodes row `n` into `out: [K]`; the embedding lookup.
    pub(crate) fn decode_row(&self, n: usize, out: &mut [f32]) {
        let (panel, column) = (n / LANES, n % LANES);
        let bytes = &self.data.bytes()[panel * self.panel_bytes()..][..self.panel_bytes()];
        let factor = self.factors.as_ref().map_or(1.0, |factors| factors[n]);
        let num_groups = self.groups.as_ref().map_or(1, |groups| self.quads() / groups.quads);
        for (k, out) in out.iter_mut().enumerate() {
            let quad = &bytes[k / QUAD * self.format.quad_bytes()..][..self.format.quad_bytes()];
            let i = k % QUAD;
            let level = match self.format {
                PanelFormat::F32 => {
                    let at = 4 * (i * LANES + column);
                    f32::from_le_bytes([quad[at], quad[at + 1], quad[at + 2], quad[at + 3]])
                }
                PanelFormat::Bf16 => {
                    let at = 2 * pair_index(column, i);
                    bf16::from_le_bytes([quad[at], quad[at + 1]]).to_f32()
                }
                PanelFormat::Int8 => f32::from(quad[pair_index(column, i)] as i8),
                PanelFormat::Fp8 => e4m3_to_f32(quad[pair_index(column, i)]),
                PanelFormat::Int4 => {
                    let byte = quad[pair_index(column, i % 2)];
                    f32::from(if i < 2 { byte & 0xf } else { byte >> 4 }) - 8.0
                }
            };
            *out = match &self.groups {
                None => level * factor,
                Some(groups) => {
                    let g = k / QUAD / groups.quads;
                    let at = (panel * num_groups + g) * LANES + column;
                    let widen = |bits: u16| f16::from_bits(bits).to_f32();
                    let offset = groups.offsets.as_ref().map_or(0.0, |offsets| widen(offsets[at]));
                    (level * widen(groups.ratios[at]) + offset) * factor
                }
            };
        }
    }
}

/// The largest power of two not above `value`; one for zero.
fn power_of_two_near(value: f32) -> f32 {
    let bits = value.to_bits() & 0x7f80_0000;
    if bits == 0 { 1.0 } else { f32::from_bits(bits) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bantam_numerics::{QuantScheme, quantize};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_row_is_found_again(n in 1usize..40, groups in 1usize..5, seed: u32) {
            let schemes = [
                QuantScheme::F32,
                QuantScheme::BF16,
                QuantScheme::INT8,
                QuantScheme::int4(32, true),
                QuantScheme::int4(32, false),
            ];
            for scheme in schemes {
                let odd = usize::from(scheme.to_string().len() < 5 && seed % 2 == 1);
                let k = 32 * groups + odd;
                let value = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) ^ seed) as f32 / 2e9 - 1.0;
                let values: Vec<f32> = (0..n * k).map(value).collect();
                let packed = quantize(&values, n, k, scheme).unwrap();
                let weight = CpuWeight::new(packed.clone());
                let (mut got, mut want) = (vec![0.0; k], vec![0.0; k]);
                for row in 0..n {
                    weight.decode_row(row, &mut got);
                    packed.decode_row(row, &mut want);
                    for (got, want) in got.iter().zip(&want) {
                        prop_assert!((got - want).abs() <= 1e-6 * want.abs().max(0.1), "{scheme}");
                    }
                }
            }
        }
    }
}
