//! Round-to-nearest quantization: the data-free way from f32 to any [`QuantScheme`].
//!
//! Source: the numerics of integer weight-only formats. Symmetric INT8 is `s = amax/127`, as ModelOpt
//! has it, and FP8 `s = amax/448`; symmetric INT4 is GGML's Q4_0; asymmetric is GGML's Q4_1,
//! `s = (max−min)/15` with the group's minimum on the lowest level.

use crate::activation::normal_scale;
use crate::float8::{E4M3_MAX, f32_to_e4m3};
use crate::scheme::{Group, QuantScheme, ScaleBlock, WeightFormat};
use crate::weight::{GroupAffine, PackedWeight, WeightData, pack_nibbles};
use half::{bf16, f16};

/// Why a weight could not be quantized.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QuantizeError {
    /// The input is not a matrix of the stated shape.
    #[error("weight has {got} values, but [N, K] = [{n}, {k}] needs {}", n * k)]
    Shape {
        /// Values given.
        got: usize,
        /// Output features.
        n: usize,
        /// Input features.
        k: usize,
    },
    /// K is not a whole number of groups.
    #[error(
        "input size {k} is not divisible by the group size {group}; use {}",
        suggested_groups(*k)
    )]
    Group {
        /// Input features.
        k: usize,
        /// The group asked for.
        group: usize,
    },
    /// A weight is NaN or infinite.
    #[error(
        "weight [{row}, {column}] is {value}; the file is damaged or was saved from a diverged run"
    )]
    NonFinite {
        /// Output feature.
        row: usize,
        /// Input feature.
        column: usize,
        /// The value found.
        value: f32,
    },
}

/// Group sizes in common use, largest first.
pub const GROUP_SIZES: [usize; 4] = [128, 64, 32, 16];

fn suggested_groups(k: usize) -> String {
    let fitting: Vec<String> = GROUP_SIZES
        .iter()
        .filter(|&&group| k.is_multiple_of(group))
        .map(ToString::to_string)
        .collect();
    if fitting.is_empty() {
        "a per-channel or 16-bit format for this layer".to_owned()
    } else {
        format!("a group size of {}", fitting.join(" or "))
    }
}

/// Rounds `w: [N, K]` to `scheme`.
///
/// # Errors
/// If the length is not N·K, a value is not finite, or the group does not divide K.
///
/// ```
/// use bantam_numerics::{quantize::quantize, QuantScheme};
/// let w: Vec<f32> = (0..64).map(|i| i as f32 / 64.0).collect();
/// let packed = quantize(&w, 2, 32, QuantScheme::int4(32, false))?;
/// let error = packed.decode().iter().zip(&w).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
/// assert!(error < 0.02); // half a step of (31/64)/15
/// # Ok::<(), bantam_numerics::quantize::QuantizeError>(())
/// ```
pub fn quantize(
    w: &[f32],
    n: usize,
    k: usize,
    scheme: QuantScheme,
) -> Result<PackedWeight, QuantizeError> {
    if w.len() != n * k || w.is_empty() {
        return Err(QuantizeError::Shape { got: w.len(), n, k });
    }
    if let Some(i) = w.iter().position(|v| !v.is_finite()) {
        return Err(QuantizeError::NonFinite { row: i / k, column: i % k, value: w[i] });
    }
    let data = match scheme.weight {
        WeightFormat::F32 => WeightData::F32(w.to_vec()),
        WeightFormat::BF16 => WeightData::BF16(w.iter().map(|&v| bf16::from_f32(v)).collect()),
        WeightFormat::Int8 { group } => {
            let (levels, affine) = round_groups(w, k, group, true, Levels::INT8)?;
            WeightData::Int8 { levels, affine }
        }
        WeightFormat::Int4 { group, symmetric } => {
            let (levels, affine) = round_groups(w, k, group, symmetric, Levels::INT4)?;
            let nibbles = levels.chunks_exact(k).flat_map(pack_nibbles).collect();
            WeightData::Int4 { nibbles, affine }
        }
        WeightFormat::Fp8 { block } => round_blocks(w, n, k, block),
    };
    Ok(PackedWeight { n, k, activation: scheme.activation, data })
}

/// Rounds to E4M3 with `s = amax/448` of each block.
fn round_blocks(w: &[f32], n: usize, k: usize, block: ScaleBlock) -> WeightData {
    let (along_n, along_k) = block.grid(n, k);
    let scale_at = |row: usize, column: usize| row / block.rows * along_k + column / block.columns;
    let mut scales = vec![0f32; along_n * along_k];
    for (row, values) in w.chunks_exact(k).enumerate() {
        for (column, value) in values.iter().enumerate() {
            let largest = &mut scales[scale_at(row, column)];
            *largest = largest.max(value.abs());
        }
    }
    scales.iter_mut().for_each(|largest| *largest = normal_scale(*largest / E4M3_MAX));
    let codes = w.iter().enumerate();
    let codes = codes.map(|(i, v)| f32_to_e4m3(v / scales[scale_at(i / k, i % k)])).collect();
    WeightData::Fp8 { codes, block, scales }
}

/// The levels that an integer format has.
#[derive(Clone, Copy)]
struct Levels {
    min: f32,
    max: f32,
}

impl Levels {
    const INT8: Self = Self { min: -128.0, max: 127.0 };
    const INT4: Self = Self { min: -8.0, max: 7.0 };

    /// The scale of values from `low` to `high` around zero.
    ///
    /// Eight bits give the largest magnitude the level ±127. With four bits a sixteenth of the levels
    /// would then be wasted, so the largest magnitude takes −8, by a negative scale if it is
    /// positive: GGML's Q4_0.
    fn symmetric_scale(self, low: f32, high: f32) -> f32 {
        if self.max > 100.0 {
            high.max(-low) / self.max
        } else if high > -low {
            high / self.min
        } else {
            low / self.min
        }
    }

    /// To the nearest level, ties to even.
    fn round(self, value: f32) -> i8 {
        // Adding 1.5·2²³ leaves no bits for a fraction: rounding without a call, so that the loop
        // over a group becomes vector code.
        const NO_FRACTION: f32 = 12_582_912.0;
        (value.clamp(self.min, self.max) + NO_FRACTION - NO_FRACTION) as i8
    }
}

fn round_groups(
    w: &[f32],
    k: usize,
    group: Group,
    symmetric: bool,
    range: Levels,
) -> Result<(Vec<i8>, GroupAffine), QuantizeError> {
    let size = group.size(k);
    if size == 0 || !k.is_multiple_of(size) {
        return Err(QuantizeError::Group { k, group: size });
    }
    let num_groups = w.len() / size;
    let mut levels = Vec::with_capacity(w.len());
    let mut scales = Vec::with_capacity(num_groups);
    let mut offsets = Vec::with_capacity(if symmetric { 0 } else { num_groups });
    for values in w.chunks_exact(size) {
        let low = values.iter().copied().fold(f32::INFINITY, f32::min);
        let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let span = if symmetric {
            range.symmetric_scale(low, high)
        } else {
            (high - low) / (range.max - range.min)
        };
        // Group scales travel as f16, so that is what the levels must be measured in.
        let scale = match group {
            Group::PerChannel => span,
            Group::Of(_) => storable(span),
        };
        let offset = if symmetric { 0.0 } else { storable(low - range.min * scale) };
        let inverse = if scale == 0.0 { 0.0 } else { scale.recip() };
        levels.extend(values.iter().map(|&v| range.round((v - offset) * inverse)));
        scales.push(scale);
        if !symmetric {
            offsets.push(offset);
        }
    }
    let offsets = (!symmetric).then_some(offsets);
    Ok((levels, GroupAffine { group: size, scales, offsets }))
}

/// A scale or offset as f16 stores it; outside f16's normal range it keeps its own value.
#[must_use]
pub fn storable(value: f32) -> f32 {
    let normal = f32::from(f16::MIN_POSITIVE)..=f32::from(f16::MAX);
    if normal.contains(&value.abs()) { f16::from_f32(value).to_f32() } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matrix(n: usize, k: usize) -> impl Strategy<Value = Vec<f32>> {
        proptest::collection::vec(-3f32..3.0, n * k)
    }

    proptest! {
        #[test]
        fn rounding_stays_within_half_a_step(w in matrix(3, 64), symmetric: bool, g in 0usize..3) {
            let group = [16, 32, 64][g];
            for scheme in [QuantScheme::INT8, QuantScheme::int4(group, symmetric)] {
                let packed = quantize(&w, 3, 64, scheme).unwrap();
                let (WeightData::Int8 { affine, .. } | WeightData::Int4 { affine, .. }) =
                    &packed.data
                else { unreachable!() };
                for (i, (got, want)) in packed.decode().iter().zip(&w).enumerate() {
                    let step = affine.scales[i / affine.group].abs();
                    // Scale and offset as f16 may miss the range's ends by 2^-11 of them, and four
                    // bits around zero reach 7 steps on the side that has not the largest weight.
                    let end = packed.level(i / 64, i % 64) == 7 && affine.offsets.is_none();
                    let allowed = if end { 1.02 } else { 0.52 };
                    prop_assert!((got - want).abs() <= step * allowed, "{scheme} {got} {want} {step}");
                }
            }
        }

        #[test]
        fn stacking_keeps_every_row(a in matrix(2, 32), b in matrix(3, 32), symmetric: bool) {
            let scheme = QuantScheme::int4(16, symmetric);
            let parts =
                vec![quantize(&a, 2, 32, scheme).unwrap(), quantize(&b, 3, 32, scheme).unwrap()];
            let want: Vec<f32> = parts.iter().flat_map(PackedWeight::decode).collect();
            prop_assert_eq!(PackedWeight::stack(parts).unwrap().decode(), want);
        }

        #[test]
        fn rows_can_be_taken_and_stacked_again(w in matrix(6, 32), cut in 1usize..6) {
            let blocks = [ScaleBlock::TENSOR, ScaleBlock { rows: 4, columns: 8 }];
            let fp8 = blocks.map(|block| WeightFormat::Fp8 { block });
            let fp8 = fp8.map(|weight| QuantScheme { weight, ..QuantScheme::FP8 });
            let others = [QuantScheme::F32, QuantScheme::BF16, QuantScheme::INT8];
            let int4 = [true, false].map(|symmetric| QuantScheme::int4(16, symmetric));
            for scheme in fp8.into_iter().chain(others).chain(int4) {
                let whole = quantize(&w, 6, 32, scheme).unwrap();
                let parts = vec![whole.rows(0..cut), whole.rows(cut..6)];
                prop_assert_eq!(PackedWeight::stack(parts).unwrap().decode(), whole.decode());
            }
        }

        #[test]
        fn stacked_fp8_parts_keep_their_scales(
            a in matrix(6, 10), b in matrix(4, 10), rows in 1usize..8, columns in 1usize..12,
        ) {
            let blocks = [ScaleBlock { rows, columns }, ScaleBlock::CHANNEL, ScaleBlock::TENSOR];
            for block in blocks {
                let scheme = QuantScheme { weight: WeightFormat::Fp8 { block }, ..QuantScheme::FP8 };
                let parts =
                    vec![quantize(&a, 6, 10, scheme).unwrap(), quantize(&b, 4, 10, scheme).unwrap()];
                let want: Vec<f32> = parts.iter().flat_map(PackedWeight::decode).collect();
                for (got, want) in want.iter().zip(a.iter().chain(&b)) {
                    // Three bits of mantissa; the smallest numbers of a block have fewer.
                    prop_assert!((got - want).abs() <= want.abs() / 16.0 + 3.0 / 448.0 / 1024.0);
                }
                prop_assert_eq!(PackedWeight::stack(parts).unwrap().decode(), want);
            }
        }
    }

    #[test]
    fn refusals_say_what_would_work() {
        let nan = quantize(&[0.0, f32::NAN], 1, 2, QuantScheme::BF16).unwrap_err();
        assert!(nan.to_string().starts_with("weight [0, 1] is NaN"), "{nan}");
        let group = quantize(&[0.0; 96], 1, 96, QuantScheme::int4(64, true)).unwrap_err();
        assert_eq!(
            group.to_string(),
            "input size 96 is not divisible by the group size 64; use a group size of 32 or 16"
        );
    }

    #[test]
    fn rounding_is_to_nearest_with_ties_to_even() {
        for step in -1300..1300 {
            let value = step as f32 / 8.0;
            let want = value.round_ties_even().clamp(-128.0, 127.0) as i8;
            assert_eq!(Levels::INT8.round(value), want, "{value}");
        }
    }

    #[test]
    fn all_zero_groups_stay_zero() {
        let int4 = [QuantScheme::int4(16, true), QuantScheme::int4(16, false)];
        for scheme in [QuantScheme::INT8].into_iter().chain(int4) {
            let packed = quantize(&[0.0; 32], 2, 16, scheme).unwrap();
            assert_eq!(packed.decode(), [0.0; 32]);
        }
    }
}
