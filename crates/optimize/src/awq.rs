//! AWQ: activation-aware weight quantization (Lin et al. 2023, §3.2).
//!
//! A channel whose inputs are large is multiplied up in the weight and down in the input, so that
//! the rounding of its weights counts less: `x·p` meets `W/p`, with `p = 1/s`. The factors come from
//! a one-dimensional search, `s = X̄^α / W̄^(1−α)` (`duo`, as AutoAWQ and ModelOpt) or `s = X̄^α`
//! (`plain`), X̄ being the mean magnitude of the inputs and W̄ that of the weights as a share of their
//! group's largest.
//!
//! Where the references run the layer for each candidate, the loss here follows from the Gram matrix
//! alone: `tr(Δ·H·Δᵀ)/N` with `Δ = Q(W·s)/s − W`. All linear layers of a site are searched together,
//! so nothing has to be averaged afterwards.

use bantam_backend::Backend;
use rayon::prelude::*;

use crate::channel_factors::{ChannelTies, FACTORS, Join};
use crate::{Gram, InputStatistics, OptimizeError, OutputError, RangeRule, Rounding, WeightMatrix};

/// How to search.
#[derive(Clone, Debug, PartialEq)]
pub struct AwqOptions {
    /// How the weight will be rounded.
    pub rounding: Rounding,
    /// Steps of α from 0 to 1; 20 is AutoAWQ's, 10 ModelOpt's. Every other is tried, and the
    /// neighbours of the best.
    pub steps: usize,
    /// Channels that must share a factor.
    pub ties: Option<ChannelTies>,
    /// Output features that candidates are judged on at most; evenly spread. It bounds the time for
    /// wide layers.
    pub judged_rows: usize,
}

impl AwqOptions {
    /// 20 steps, no ties, 1024 rows.
    #[must_use]
    pub const fn new(rounding: Rounding) -> Self {
        Self { rounding, steps: 20, ties: None, judged_rows: 1024 }
    }
}

/// Which formula a candidate's factors come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AwqFormula {
    /// `s = X̄^α`; with α = 0 no scaling at all.
    Plain,
    /// `s = X̄^α / W̄^(1−α)`.
    Duo,
}

/// A candidate and what it costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AwqTrial {
    /// Where its factors come from.
    pub formula: AwqFormula,
    /// The exponent.
    pub alpha: f32,
    /// Mean squared error of an output.
    pub loss: f64,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Awq {
    /// p = 1/s, what the input's channels are multiplied by, `[K]`; all 1 if no scaling is best.
    /// The weight to round is [`WeightMatrix::for_factors`], its statistics
    /// [`Gram::for_factors`].
    pub factors: Vec<f32>,
    /// The candidate they are of.
    pub best: AwqTrial,
    /// All candidates tried; the first is no scaling.
    pub trials: Vec<AwqTrial>,
}

/// Searches the channel factors of a site.
///
/// # Errors
/// If shapes differ, the format has no scales, or the Gram matrix was not collected.
///
/// ```
/// use bantam_backend::reference::Reference;
/// use bantam_numerics::{Group, WeightFormat};
/// use bantam_optimize::{
///     AwqOptions, Rounding, StatisticsCollector, StatisticsOptions, WeightMatrix, awq,
/// };
/// // The second channel's inputs are a hundred times larger.
/// let mut collector = StatisticsCollector::new(&Reference, 4, StatisticsOptions::default())?;
/// collector.add(&[0.1, 10.0, 0.1, -0.2, -0.1, -12.0, 0.2, 0.1])?;
/// let weight = [0.9, 0.13, -0.7, 0.2];
/// let weight = WeightMatrix::new(&weight, 1, 4)?;
/// let format = WeightFormat::Int4 { group: Group::Of(4), symmetric: true };
/// let options = AwqOptions::new(Rounding::new(format));
/// let found = awq(&Reference, weight, &collector.finish()?, &options)?;
/// assert!(found.best.loss < 0.1 * found.trials[0].loss);
/// assert!(found.factors[1] < found.factors[0]);
/// # Ok::<(), bantam_optimize::OptimizeError>(())
/// ```
pub fn awq<B: Backend>(
    backend: &B,
    weight: WeightMatrix<'_>,
    statistics: &InputStatistics,
    options: &AwqOptions,
) -> Result<Awq, OptimizeError> {
    let gram = statistics.gram()?;
    OptimizeError::check_length("input statistics", statistics.k(), weight.k())?;
    let magnitudes = Magnitudes::new(weight, statistics, options)?;
    let judge = Judge::new(backend, weight, gram, options)?;
    search(judge, &magnitudes, options)
}

/// Tries every other exponent of both formulas, then the neighbours of the best: the loss has one
/// valley.
fn search<B: Backend>(
    mut judge: Judge<'_, B>,
    magnitudes: &Magnitudes,
    options: &AwqOptions,
) -> Result<Awq, OptimizeError> {
    let steps = options.steps.max(1);
    let mut attempt = |formula, i: usize| {
        let alpha = i as f32 / steps as f32;
        let loss = judge.loss(&magnitudes.scales(formula, alpha))?;
        Ok::<_, OptimizeError>((i, AwqTrial { formula, alpha, loss }))
    };
    let both = [AwqFormula::Plain, AwqFormula::Duo].into_iter();
    let coarse = both.flat_map(|formula| (0..=steps).step_by(2).map(move |i| (formula, i)));
    let mut trials = coarse.map(|(f, i)| attempt(f, i)).collect::<Result<Vec<_>, _>>()?;
    let least = |trials: &[(usize, AwqTrial)]| {
        let best = trials.iter().min_by(|(_, a), (_, b)| a.loss.total_cmp(&b.loss));
        *best.expect("no scaling is a candidate")
    };
    let (i, AwqTrial { formula, .. }) = least(&trials);
    for i in [i.checked_sub(1), Some(i + 1)].into_iter().flatten().filter(|i| *i <= steps) {
        trials.push(attempt(formula, i)?);
    }
    let (_, best) = least(&trials);
    let factors = magnitudes.scales(best.formula, best.alpha).iter().map(|s| s.recip()).collect();
    let trials = trials.into_iter().map(|(_, trial)| trial).collect();
    Ok(Awq { factors, best, trials })
}

/// X̄ and W̄.
struct Magnitudes {
    inputs: Vec<f32>,
    weights: Vec<f32>,
}

impl Magnitudes {
    fn new(
        weight: WeightMatrix<'_>,
        statistics: &InputStatistics,
        options: &AwqOptions,
    ) -> Result<Self, OptimizeError> {
        let grid = options.rounding.grid("AWQ", weight.k())?;
        let group = grid.block().columns.min(weight.k());
        let mut weights = vec![0f64; weight.k()];
        for row in weight.values().chunks_exact(weight.k()) {
            for (sums, values) in weights.chunks_mut(group).zip(row.chunks(group)) {
                let largest = values.iter().fold(f32::MIN_POSITIVE, |l, v| l.max(v.abs()));
                sums.iter_mut().zip(values).for_each(|(s, v)| *s += f64::from(v.abs() / largest));
            }
        }
        let rows = weight.n() as f64;
        let mut weights: Vec<f32> = weights.iter().map(|sum| (sum / rows) as f32).collect();
        let mut inputs = statistics.mean_abs.clone();
        if let Some(ties) = &options.ties {
            OptimizeError::check_length("channel ties", ties.class_of().len(), weight.k())?;
            ties.tie(&mut weights, Join::Mean);
            ties.tie(&mut inputs, Join::Mean);
        }
        Ok(Self { inputs, weights })
    }

    /// The factors s on the weight, normalised so that the largest and the smallest are reciprocal;
    /// 1 for channels that no input reached.
    fn scales(&self, formula: AwqFormula, alpha: f32) -> Vec<f32> {
        let scale = |(&x, &w): (&f32, &f32)| {
            let weights = match formula {
                AwqFormula::Plain => 1.0,
                AwqFormula::Duo => w.powf(1.0 - alpha) + 1e-4,
            };
            let scale = (x.powf(alpha) / weights).clamp(*FACTORS.start(), *FACTORS.end());
            (x >= f32::MIN_POSITIVE).then_some(scale)
        };
        let scales: Vec<Option<f32>> = self.inputs.iter().zip(&self.weights).map(scale).collect();
        let live = scales.iter().flatten().copied();
        let largest = live.clone().fold(*FACTORS.start(), f32::max);
        let smallest = live.fold(*FACTORS.end(), f32::min);
        let middle = (largest * smallest).sqrt();
        scales.into_iter().map(|scale| scale.map_or(1.0, |scale| scale / middle)).collect()
    }
}

/// What candidates are judged by.
struct Judge<'a, B: Backend> {
    rows: Vec<f32>,
    k: usize,
    rounding: Rounding,
    importance: Vec<f32>,
    error: OutputError<'a, B>,
}

impl<'a, B: Backend> Judge<'a, B> {
    fn new(
        backend: &'a B,
        weight: WeightMatrix<'_>,
        gram: &Gram,
        options: &AwqOptions,
    ) -> Result<Self, OptimizeError> {
        Ok(Self {
            rows: weight.some_rows(options.judged_rows),
            k: weight.k(),
            rounding: options.rounding,
            importance: gram.diagonal(),
            error: OutputError::new(backend, gram)?,
        })
    }

    fn loss(&mut self, scales: &[f32]) -> Result<f64, OptimizeError> {
        let k = self.k;
        let scaled = self.rows.par_chunks_exact(k);
        let scaled = scaled.flat_map_iter(|row| row.iter().zip(scales).map(|(w, s)| w * s));
        let scaled: Vec<f32> = scaled.collect();
        let scaled = WeightMatrix::new(&scaled, self.rows.len() / k, k)?;
        let grid = self.rounding.grid("AWQ", k)?;
        let weighted = (self.rounding.range == RangeRule::LeastSquares).then(|| {
            let importance = self.importance.iter().zip(scales);
            importance.map(|(h, s)| h / (s * s)).collect::<Vec<f32>>()
        });
        let steps = grid.fit(scaled, weighted.as_deref());
        let mut delta = grid.round_all(scaled, &steps);
        delta.par_chunks_exact_mut(k).zip(self.rows.par_chunks_exact(k)).for_each(
            |(delta, row)| {
                for ((delta, w), s) in delta.iter_mut().zip(row).zip(scales) {
                    *delta = *delta / s - w;
                }
            },
        );
        self.error.mean(&delta)
    }
}
