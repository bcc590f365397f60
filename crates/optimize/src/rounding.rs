//! How weights become codes: the fitting of scales, the rounding to them, and the packing.
//!
//! All algorithms share this: they differ in which weights they round, not in how.

use bantam_numerics::activation::normal_scale;
use bantam_numerics::float8::{E4M3_MAX, f32_to_e4m3};
use bantam_numerics::quantize::storable;
use bantam_numerics::weight::pack_nibbles;
use bantam_numerics::{
    ActivationFormat, GroupAffine, PackedWeight, QuantizeError, ScaleBlock, WeightData,
    WeightFormat, quantize,
};
use half::bf16;
use rayon::prelude::*;

use crate::{OptimizeError, WeightMatrix};

/// Which range of values a scale covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RangeRule {
    /// The largest magnitude takes the largest code: `amax/7`, `amax/127`, `amax/448` (ModelOpt).
    Max,
    /// The codes' whole span covers ±amax: `amax/7.5`, `amax/127.5` (compressed-tensors). As
    /// [`Max`](Self::Max) for FP8 and asymmetric formats.
    FullRange,
    /// Of a row of candidate scales, the one with the least squared error, each channel weighted by
    /// its mean square if that is known.
    LeastSquares,
}

/// The precision in which a file keeps the scales, so that codes are measured in what it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScalePrecision {
    /// f16 for groups, f32 for everything else: what [`PackedWeight`] and ModelOpt keep.
    Packed,
    /// bf16, and for groups a number that f16 holds too: compressed-tensors keeps scales in the
    /// model's type.
    BF16,
}

/// How to round a weight: everything but its values.
///
/// ```
/// use bantam_numerics::{Group, WeightFormat};
/// use bantam_optimize::{RangeRule, Rounding};
/// let int8 = WeightFormat::Int8 { group: Group::PerChannel };
/// assert_eq!(Rounding::new(int8).range, RangeRule::LeastSquares);
/// let like_modelopt = Rounding { range: RangeRule::Max, ..Rounding::new(int8) };
/// assert_eq!(like_modelopt.format, int8);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rounding {
    /// The storage format.
    pub format: WeightFormat,
    /// What scales cover.
    pub range: RangeRule,
    /// How scales are kept.
    pub scales: ScalePrecision,
}

impl Rounding {
    /// The range that measures best for a format, and scales as packed weights keep them.
    #[must_use]
    pub const fn new(format: WeightFormat) -> Self {
        Self { format, range: RangeRule::LeastSquares, scales: ScalePrecision::Packed }
    }

    /// Checks the shape once; what comes after cannot fail.
    pub(crate) fn grid(self, algorithm: &'static str, k: usize) -> Result<Grid, OptimizeError> {
        let (codes, group, symmetric) = match self.format {
            WeightFormat::F32 | WeightFormat::BF16 => {
                return Err(OptimizeError::NoScales { algorithm, format: self.format });
            }
            WeightFormat::Int8 { group } => (Codes::INT8, group, true),
            WeightFormat::Int4 { group, symmetric } => (Codes::INT4, group, symmetric),
            WeightFormat::Fp8 { block } => {
                let (symmetric, half_scales) = (true, false);
                return Ok(Grid {
                    rounding: self,
                    codes: Codes::E4M3,
                    block,
                    symmetric,
                    half_scales,
                });
            }
        };
        let size = group.size(k);
        if size == 0 || !k.is_multiple_of(size) {
            return Err(QuantizeError::Group { k, group: size }.into());
        }
        let (block, half_scales) = (ScaleBlock { rows: 1, columns: size }, size != k);
        Ok(Grid { rounding: self, codes, block, symmetric, half_scales })
    }
}

/// Rounds a weight to nearest: what every other algorithm is better than.
///
/// `importance: [K]` weighs the channels for [`RangeRule::LeastSquares`]; the diagonal of the Gram
/// matrix is the right choice, none means equal weights.
///
/// # Errors
/// If a group does not divide K, or `importance` has another length.
///
/// ```
/// use bantam_numerics::{ActivationFormat, Group, WeightFormat};
/// use bantam_optimize::{Rounding, WeightMatrix, round_to_nearest};
/// let weight = WeightMatrix::new(&[0.7, -0.3, 0.1, 0.0], 1, 4)?;
/// let format = WeightFormat::Int4 { group: Group::Of(4), symmetric: true };
/// let packed = round_to_nearest(weight, Rounding::new(format), ActivationFormat::BF16, None)?;
/// let decoded = packed.decode();
/// let errors = decoded.iter().zip(weight.values()).map(|(a, b)| (a - b).abs());
/// assert!(errors.fold(0.0, f32::max) < 0.051);
/// # Ok::<(), bantam_optimize::OptimizeError>(())
/// ```
pub fn round_to_nearest(
    weight: WeightMatrix<'_>,
    rounding: Rounding,
    activation: ActivationFormat,
    importance: Option<&[f32]>,
) -> Result<PackedWeight, OptimizeError> {
    if let Some(importance) = importance {
        OptimizeError::check_length("channel importance", importance.len(), weight.k())?;
    }
    let format = rounding.format;
    if matches!(format, WeightFormat::F32 | WeightFormat::BF16) {
        let scheme = bantam_numerics::QuantScheme { weight: format, activation };
        return Ok(quantize(weight.values(), weight.n(), weight.k(), scheme)?);
    }
    let grid = rounding.grid("rounding to nearest", weight.k())?;
    let steps = grid.fit(weight, importance);
    Ok(grid.pack(weight, &steps, activation))
}

/// The numbers that a code can stand for, in units of its scale.
#[derive(Clone, Copy, Debug)]
struct Codes {
    lowest: f32,
    highest: f32,
    /// Half the span that covers ±amax in [`RangeRule::FullRange`].
    full: f32,
    float: bool,
    /// Candidates of [`RangeRule::LeastSquares`], as factors on the scale of [`RangeRule::Max`].
    candidates: Candidates,
}

/// `first + i·step` for i below `count`.
#[derive(Clone, Copy, Debug)]
struct Candidates {
    first: f32,
    step: f32,
    count: usize,
}

impl Candidates {
    fn factors(self) -> impl Iterator<Item = f32> {
        (0..self.count).map(move |i| self.first + i as f32 * self.step)
    }
}

/// Adding 1.5·2²³ leaves no bits for a fraction: rounding to nearest even without a call, so that
/// loops become vector code.
const NO_FRACTION: f32 = 12_582_912.0;

impl Codes {
    // Clipping pays more the fewer the levels: the best scales lie in these ranges.
    const INT8: Self = Self {
        lowest: -128.0,
        highest: 127.0,
        full: 127.5,
        float: false,
        candidates: Candidates { first: 0.8, step: 0.02, count: 10 },
    };
    const INT4: Self = Self {
        lowest: -8.0,
        highest: 7.0,
        full: 7.5,
        float: false,
        candidates: Candidates { first: 0.52, step: 0.02, count: 24 },
    };
    // The grid of floats repeats with every factor of two, but for clipping at its ends.
    const E4M3: Self = Self {
        lowest: -E4M3_MAX,
        highest: E4M3_MAX,
        full: E4M3_MAX,
        float: true,
        candidates: Candidates { first: 0.9, step: 0.1, count: 12 },
    };

    /// The code nearest to `x`, ties to even, saturating.
    fn round(self, x: f32) -> f32 {
        let x = x.clamp(self.lowest, self.highest);
        if !self.float {
            return x + NO_FRACTION - NO_FRACTION;
        }
        // Three bits of mantissa: a multiple of 2^(exponent − 3), and subnormals below 2^−6.
        let exponent = (x.to_bits() >> 23 & 0xff).max(127 - 6);
        let no_fraction = f32::from_bits((exponent - 3) << 23) * NO_FRACTION;
        x + no_fraction - no_fraction // never a negative zero
    }
}

/// The map from codes to the weights of a block: `w = code·scale + offset`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    scale: f32,
    offset: f32,
}

/// A [`Rounding`] whose groups divide K.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    rounding: Rounding,
    codes: Codes,
    block: ScaleBlock,
    symmetric: bool,
    /// Whether packed weights keep the scales in f16.
    half_scales: bool,
}

impl Grid {
    /// The weights that share a scale.
    pub(crate) fn block(&self) -> ScaleBlock {
        self.block
    }

    /// Fits the scale of every block, row by row of [`ScaleBlock::grid`].
    pub(crate) fn fit(&self, weight: WeightMatrix<'_>, importance: Option<&[f32]>) -> Vec<Step> {
        let equal = importance.is_none().then(|| vec![1.0; weight.k()]);
        let importance = importance.or(equal.as_deref()).unwrap_or_default();
        let (along_n, along_k) = self.block.grid(weight.n(), weight.k());
        let blocks = (0..along_n * along_k).into_par_iter().with_min_len(64);
        blocks.map(|at| self.fit_block(weight.block(self.block, at), importance)).collect()
    }

    /// Fits one scale to runs of weights, each with its first channel.
    pub(crate) fn fit_block<'a>(
        &self,
        runs: impl Iterator<Item = (usize, &'a [f32])> + Clone,
        importance: &[f32],
    ) -> Step {
        let (low, high) = range(runs.clone().map(|(_, run)| run));
        let full_range = self.symmetric && self.rounding.range == RangeRule::FullRange;
        let reach = if full_range { self.codes.highest / self.codes.full } else { 1.0 };
        let step = self.step_of(low * reach, high * reach);
        if self.rounding.range != RangeRule::LeastSquares {
            return step;
        }
        let error = |step: Step| -> f64 {
            let of_run = |(first, run): (usize, &[f32])| {
                self.squared_error(run, &importance[first..first + run.len()], step)
            };
            runs.clone().map(of_run).sum()
        };
        let (mut best, mut least) = (step, error(step));
        for step in self.steps_within(low, high) {
            let error = error(step);
            if error < least {
                (best, least) = (step, error);
            }
        }
        best
    }

    /// The scales that [`RangeRule::LeastSquares`] tries for a run, [`RangeRule::Max`] first.
    pub(crate) fn candidates(&self, run: &[f32]) -> impl Iterator<Item = Step> {
        let (low, high) = range(std::iter::once(run));
        std::iter::once(self.step_of(low, high)).chain(self.steps_within(low, high))
    }

    fn steps_within(&self, low: f32, high: f32) -> impl Iterator<Item = Step> + use<> {
        let grid = *self;
        self.codes.candidates.factors().map(move |factor| grid.step_of(low * factor, high * factor))
    }

    /// The scale for values from `low` ≤ 0 to `high` ≥ 0, in the precision that it is kept in.
    pub(crate) fn step_of(&self, low: f32, high: f32) -> Step {
        let span = if self.symmetric {
            high.max(-low) / self.codes.highest
        } else {
            (high - low) / (self.codes.highest - self.codes.lowest)
        };
        let kept = match self.rounding.scales {
            ScalePrecision::Packed if self.half_scales => storable(span),
            ScalePrecision::Packed => span,
            ScalePrecision::BF16 => bf16::from_f32(span).to_f32(),
        };
        let scale = normal_scale(kept);
        if self.symmetric {
            return Step { scale, offset: 0.0 };
        }
        // An integer zero point, so that zero is exact and every file format can say it.
        let zero = (self.codes.lowest - low / scale).round_ties_even();
        let zero = zero.clamp(self.codes.lowest, self.codes.highest);
        Step { scale, offset: -zero * scale }
    }

    /// The step of a weight `[N, K]` at a row and channel.
    pub(crate) fn step_at(
        &self,
        steps: &[Step],
        (n, k): (usize, usize),
        row: usize,
        channel: usize,
    ) -> Step {
        let (_, along_k) = self.block.grid(n, k);
        steps[row / self.block.rows * along_k + channel / self.block.columns]
    }

    /// What `value` becomes.
    pub(crate) fn round(&self, value: f32, step: Step) -> f32 {
        self.codes.round((value - step.offset) / step.scale) * step.scale + step.offset
    }

    /// Σ importance·(change)² of a run, in eight partial sums, which become vector code.
    fn squared_error(&self, run: &[f32], importance: &[f32], step: Step) -> f64 {
        const LANES: usize = 8;
        // A reciprocal is quicker than a division and only moves ties, which cost the same.
        let (codes, inverse) = (self.codes, step.scale.recip());
        let error = |value: f32, importance: f32| {
            let code = codes.round((value - step.offset) * inverse);
            let delta = code * step.scale + step.offset - value;
            importance * delta * delta
        };
        let (runs, run_rest) = run.as_chunks::<LANES>();
        let (importances, importance_rest) = importance.as_chunks::<LANES>();
        let mut sums = [0f32; LANES];
        for (run, importance) in runs.iter().zip(importances) {
            for i in 0..LANES {
                sums[i] += error(run[i], importance[i]);
            }
        }
        let rest = run_rest.iter().zip(importance_rest);
        rest.fold(sums.iter().sum::<f32>(), |sum, (&v, &i)| sum + error(v, i)).into()
    }

    /// Rounds every weight, `[N, K]`.
    pub(crate) fn round_all(&self, weight: WeightMatrix<'_>, steps: &[Step]) -> Vec<f32> {
        let mut rounded = vec![0.0; weight.values().len()];
        rounded.par_chunks_exact_mut(weight.k()).enumerate().for_each(|(n, row)| {
            self.each_run(weight, n, steps, |range, step| {
                for (to, &from) in row[range.clone()].iter_mut().zip(&weight.row(n)[range]) {
                    *to = self.round(from, step);
                }
            });
        });
        rounded
    }

    /// Calls `each` with the channels of each block in row `n`, and its step.
    fn each_run(
        &self,
        weight: WeightMatrix<'_>,
        n: usize,
        steps: &[Step],
        mut each: impl FnMut(std::ops::Range<usize>, Step),
    ) {
        let (k, columns) = (weight.k(), self.block.columns.min(weight.k()));
        let (_, along_k) = self.block.grid(weight.n(), k);
        let steps = &steps[n / self.block.rows * along_k..][..along_k];
        for (i, &step) in steps.iter().enumerate() {
            each(i * columns..k.min((i + 1) * columns), step);
        }
    }

    /// Rounds and packs. Weights that are on the grid already keep their codes.
    pub(crate) fn pack(
        &self,
        weight: WeightMatrix<'_>,
        steps: &[Step],
        activation: ActivationFormat,
    ) -> PackedWeight {
        let (n, k) = (weight.n(), weight.k());
        let codes = (0..n).into_par_iter().flat_map_iter(|row| {
            let mut codes = vec![0f32; k];
            self.each_run(weight, row, steps, |range, step| {
                for (to, &from) in codes[range.clone()].iter_mut().zip(&weight.row(row)[range]) {
                    *to = self.codes.round((from - step.offset) / step.scale);
                }
            });
            codes
        });
        let scales = steps.iter().map(|step| step.scale).collect();
        let data = if let WeightFormat::Fp8 { block } = self.rounding.format {
            WeightData::Fp8 { codes: codes.map(f32_to_e4m3).collect(), block, scales }
        } else {
            let offsets = || steps.iter().map(|step| step.offset).collect();
            let offsets = (!self.symmetric).then(offsets);
            let affine = GroupAffine { group: self.block.columns, scales, offsets };
            let levels: Vec<i8> = codes.map(|code| code as i8).collect();
            if matches!(self.rounding.format, WeightFormat::Int4 { .. }) {
                let nibbles = levels.par_chunks_exact(k).flat_map_iter(pack_nibbles).collect();
                WeightData::Int4 { nibbles, affine }
            } else {
                WeightData::Int8 { levels, affine }
            }
        };
        PackedWeight { n, k, activation, data }
    }
}

/// The smallest and the largest of some values and zero.
fn range<'a>(runs: impl Iterator<Item = &'a [f32]>) -> (f32, f32) {
    runs.flatten().fold((0.0, 0.0), |(low, high): (f32, f32), &v| (low.min(v), high.max(v)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bantam_numerics::Group;
    use bantam_numerics::float8::e4m3_to_f32;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn codes_are_those_of_numerics(x in -600f32..600.0, exponent in -24i32..1) {
            let x = x * 2f32.powi(exponent);
            prop_assert_eq!(Codes::E4M3.round(x), e4m3_to_f32(f32_to_e4m3(x)));
            let int8 = x.clamp(-128.0, 127.0).round_ties_even();
            prop_assert_eq!(Codes::INT8.round(x), int8);
            prop_assert_eq!(Codes::INT4.round(x), int8.clamp(-8.0, 7.0));
        }

        #[test]
        fn what_is_on_the_grid_keeps_its_codes(
            w in proptest::collection::vec(-3f32..4.0, 96), symmetric: bool, full: bool,
        ) {
            let int4 = WeightFormat::Int4 { group: Group::Of(16), symmetric };
            let fp8 = WeightFormat::Fp8 { block: ScaleBlock { rows: 2, columns: 12 } };
            let range = if full { RangeRule::FullRange } else { RangeRule::LeastSquares };
            for format in [int4, fp8, WeightFormat::Int8 { group: Group::PerChannel }] {
                let grid = Rounding { range, ..Rounding::new(format) }.grid("test", 32).unwrap();
                let weight = WeightMatrix::new(&w, 3, 32).unwrap();
                let steps = grid.fit(weight, None);
                let packed = grid.pack(weight, &steps, ActivationFormat::BF16);
                let rounded = grid.round_all(weight, &steps);
                prop_assert_eq!(&packed.decode(), &rounded);
                let rounded = WeightMatrix::new(&rounded, 3, 32).unwrap();
                prop_assert_eq!(&packed, &grid.pack(rounded, &steps, ActivationFormat::BF16));
            }
        }
    }
}
