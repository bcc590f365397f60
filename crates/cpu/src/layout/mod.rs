//! Weights in the order that the micro-kernel reads them.
//!
//! Output features are cut into *panels* of 16, one for each lane. Within a panel, the input
//! features advance in *quads* of four, so that one quad of any format is whole bytes and whole
//! pairs: f32 stores 4 × 16 values; bf16 and INT8 store pairs `[2][16 columns][2 k]`; INT4 stores
//! 32 bytes, byte j being `column j/2, k = j%2` in its low nibble and `k = 2 + j%2` in its high one.
//! Missing columns and k are zeros, so no kernel has a tail along either.
//!
//! Integer weights that meet INT8 rows are stored for an integer dot product instead: unsigned bytes
//! `[16 columns][4 k]`, the level plus 128; INT4 as 32 bytes, byte j being `column j/2`, `k = 2·(j%2)`
//! in its low nibble and the next k in its high one, the level plus 8.
//!
//! Scales lie beside them (`scales`).

mod scales;

use crate::aligned::AlignedBytes;
use crate::simd::LANES;
use bantam_numerics::float8::e4m3_to_f32;
use bantam_numerics::{ActivationFormat, PackedWeight, QuantScheme, WeightData, WeightFormat};
use half::bf16;
pub(crate) use scales::GroupScales;
use scales::RowScales;

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
    /// INT8 for integer dot products.
    Int8Quads,
    /// INT4 for integer dot products.
    Int4Quads,
}

impl PanelFormat {
    /// Bytes of one quad of a panel.
    pub(crate) const fn quad_bytes(self) -> usize {
        match self {
            Self::F32 => QUAD * LANES * 4,
            Self::Bf16 => QUAD * LANES * 2,
            Self::Int8 | Self::Fp8 | Self::Int8Quads => QUAD * LANES,
            Self::Int4 | Self::Int4Quads => QUAD * LANES / 2,
        }
    }

    /// The byte of missing columns and k: level zero.
    const fn empty(self) -> u8 {
        match self {
            Self::F32 | Self::Bf16 | Self::Int8 | Self::Fp8 => 0,
            Self::Int8Quads => 0x80,
            Self::Int4 | Self::Int4Quads => 0x88,
        }
    }
}

/// Where element (column, k) of a quad of pairs lies, `column < 16`, `k < 4`.
pub(crate) const fn pair_index(column: usize, k: usize) -> usize {
    (k / 2) * 2 * LANES + 2 * column + k % 2
}

/// Where element (column, k) of a quad of bytes lies, `column < 16`, `k < 4`.
const fn quad_index(column: usize, k: usize) -> usize {
    QUAD * column + k
}

/// Where the nibble of element (column, k) lies: its byte, and by how much it is shifted.
const fn nibble_index(format: PanelFormat, column: usize, k: usize) -> (usize, u32) {
    match format {
        PanelFormat::Int4Quads => (quad_index(column, k) / 2, 4 * (k as u32 % 2)),
        _ => (pair_index(column, k % 2), 4 * (k as u32 / 2)),
    }
}

/// A linear layer's weight on the CPU.
#[derive(Debug)]
pub struct CpuWeight {
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) format: PanelFormat,
    /// What it was before, and what it asks of its input.
    pub(crate) scheme: QuantScheme,
    /// `[panels][quads]` of the format.
    pub(crate) data: AlignedBytes,
    /// One factor for each channel, `[panels·16]`; none where every factor is one.
    pub(crate) factors: Option<Vec<f32>>,
    /// Scales of groups smaller than K.
    pub(crate) groups: Option<GroupScales>,
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
        let groups = self.groups.as_ref().map_or(0, GroupScales::bytes);
        self.data.len() + 4 * self.factors.as_ref().map_or(0, Vec::len) + groups
    }

    /// Groups along K; one where a row shares a scale.
    pub(crate) fn num_groups(&self) -> usize {
        self.groups.as_ref().map_or(1, |groups| groups.count)
    }

    /// Whether a product needs the sum of x over each group.
    pub(crate) fn needs_sums(&self) -> bool {
        matches!(self.format, PanelFormat::Int8Quads | PanelFormat::Int4Quads)
            || self.groups.as_ref().is_some_and(|groups| groups.offsets.is_some())
    }

    /// Repacks a weight. The group size must be a multiple of four.
    pub(crate) fn new(weight: PackedWeight) -> Self {
        let scheme = weight.scheme();
        let PackedWeight { n, k, data, .. } = weight;
        let integer = scheme.activation == ActivationFormat::Int8;
        let format = match scheme.weight {
            WeightFormat::F32 => PanelFormat::F32,
            WeightFormat::BF16 => PanelFormat::Bf16,
            WeightFormat::Int8 { .. } if integer => PanelFormat::Int8Quads,
            WeightFormat::Int8 { .. } => PanelFormat::Int8,
            WeightFormat::Int4 { .. } if integer => PanelFormat::Int4Quads,
            WeightFormat::Int4 { .. } => PanelFormat::Int4,
            WeightFormat::Fp8 { .. } => PanelFormat::Fp8,
        };
        let data_of = AlignedBytes::default();
        let mut packed = Self { n, k, format, scheme, data: data_of, factors: None, groups: None };
        match data {
            WeightData::F32(values) => packed.fill(|quad, column, i, at| {
                let to = 4 * (i * LANES + column);
                quad[to..to + 4].copy_from_slice(&values[at].to_le_bytes());
            }),
            WeightData::BF16(values) => packed.fill(|quad, column, i, at| {
                let to = 2 * pair_index(column, i);
                quad[to..to + 2].copy_from_slice(&values[at].to_le_bytes());
            }),
            WeightData::Int8 { levels, affine } => {
                if integer {
                    packed.fill(|quad, column, i, at| {
                        quad[quad_index(column, i)] = levels[at] as u8 ^ 0x80;
                    });
                } else {
                    packed.fill(|quad, column, i, at| {
                        quad[pair_index(column, i)] = levels[at] as u8;
                    });
                }
                packed.scale(affine.group, &affine.scales, affine.offsets.as_deref());
            }
            WeightData::Int4 { nibbles, affine } => {
                packed.fill(|quad, column, i, at| {
                    let (n, k_at) = (at / k, at % k);
                    let byte = nibbles[n * k.div_ceil(2) + k_at / 2];
                    let nibble = if k_at % 2 == 0 { byte & 0xf } else { byte >> 4 };
                    let (to, shift) = nibble_index(format, column, i);
                    quad[to] = quad[to] & !(0xf << shift) | nibble << shift;
                });
                packed.scale(affine.group, &affine.scales, affine.offsets.as_deref());
            }
            WeightData::Fp8 { codes, block, scales } => {
                packed.fill(|quad, column, i, at| quad[pair_index(column, i)] = codes[at]);
                let (_, along_k) = block.grid(n, k);
                let of_row = |row: usize| &scales[row / block.rows * along_k..][..along_k];
                let by_row: Vec<f32> = (0..n).flat_map(of_row).copied().collect();
                packed.scale(block.columns.min(k), &by_row, None);
            }
        }
        packed
    }

    /// Lays out the panels: `put(quad, column, i, n·K + k)` writes weight (n, k) into its quad.
    fn fill(&mut self, put: impl Fn(&mut [u8], usize, usize, usize)) {
        let quad_bytes = self.format.quad_bytes();
        let bytes = self.panels() * self.panel_bytes();
        self.data = AlignedBytes::filled(bytes, self.format.empty());
        let quads = self.quads();
        for (at, bytes) in self.data.bytes_mut().chunks_exact_mut(quad_bytes).enumerate() {
            let (panel, quad) = (at / quads, at % quads);
            for column in 0..LANES.min(self.n - panel * LANES) {
                let row = (panel * LANES + column) * self.k;
                for i in 0..QUAD.min(self.k - quad * QUAD) {
                    put(bytes, column, i, row + quad * QUAD + i);
                }
            }
        }
    }

    fn scale(&mut self, group: usize, scales: &[f32], offsets: Option<&[f32]>) {
        let rows = RowScales { n: self.n, k: self.k, group, scales, offsets };
        let (factors, groups) = rows.lay_out();
        (self.factors, self.groups) = (Some(factors), groups);
    }

    /// Decodes row `n` into `out: [K]`; the embedding lookup.
    pub(crate) fn decode_row(&self, n: usize, out: &mut [f32]) {
        let (panel, column) = (n / LANES, n % LANES);
        let bytes = &self.data.bytes()[panel * self.panel_bytes()..][..self.panel_bytes()];
        let factor = self.factors.as_ref().map_or(1.0, |factors| factors[n]);
        for (k, out) in out.iter_mut().enumerate() {
            let quad = &bytes[k / QUAD * self.format.quad_bytes()..][..self.format.quad_bytes()];
            let level = self.level(quad, column, k % QUAD);
            *out = match &self.groups {
                None => level * factor,
                Some(groups) => {
                    let g = k / QUAD / groups.quads;
                    let at = (panel * self.num_groups() + g) * LANES + column;
                    let offset = groups.offsets.as_ref().map_or(0.0, |offsets| offsets.get(at));
                    (level * groups.ratios.get(at) + offset) * factor
                }
            };
        }
    }

    /// Element (column, i) of a quad, before its scale.
    fn level(&self, quad: &[u8], column: usize, i: usize) -> f32 {
        match self.format {
            PanelFormat::F32 => {
                let at = 4 * (i * LANES + column);
                f32::from_le_bytes([quad[at], quad[at + 1], quad[at + 2], quad[at + 3]])
            }
            PanelFormat::Bf16 => {
                let at = 2 * pair_index(column, i);
                bf16::from_le_bytes([quad[at], quad[at + 1]]).to_f32()
            }
            PanelFormat::Int8 => f32::from(quad[pair_index(column, i)] as i8),
            PanelFormat::Int8Quads => f32::from(quad[quad_index(column, i)]) - 128.0,
            PanelFormat::Fp8 => e4m3_to_f32(quad[pair_index(column, i)]),
            PanelFormat::Int4 | PanelFormat::Int4Quads => {
                let (at, shift) = nibble_index(self.format, column, i);
                f32::from(quad[at] >> shift & 0xf) - 8.0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bantam_numerics::{QuantScheme, quantize};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_row_is_found_again(n in 1usize..40, groups in 1usize..5, seed: u32) {
            let dense = [
                QuantScheme::F32,
                QuantScheme::BF16,
                QuantScheme::INT8,
                QuantScheme::INT8.with(ActivationFormat::Int8),
                QuantScheme::FP8,
            ];
            let grouped = [(true, ActivationFormat::BF16), (false, ActivationFormat::BF16)];
            let grouped = grouped.into_iter().chain([(false, ActivationFormat::Int8)]);
            let grouped = grouped.map(|(sym, format)| QuantScheme::int4(32, sym).with(format));
            let cases = dense.map(|s| (s, 32 * groups + seed as usize % 2)).into_iter();
            for (scheme, k) in cases.chain(grouped.map(|s| (s, 32 * groups))) {
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
