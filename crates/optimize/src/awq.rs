//! AWQ: activation-aware weight quantization (Lin et al. 2023, §3.2).
//!
//! A channel whose inputs are large is multiplied up in the weight and down in the input, so that
//! the rounding of its weights counts less. The magnitudes that factors come from are means: of the
//! inputs, and of the weights as a share of their group's largest.
//!
//! Where the references run the layer for each candidate, the loss here follows from the Gram matrix
//! alone: `tr(Δ·H·Δᵀ)/N` with `Δ = Q(W·s)/s − W`. All linear layers of a site are searched together,
//! so nothing has to be averaged afterwards.

use bantam_backend::Backend;
use rayon::prelude::*;

use crate::channel_factors::{ChannelTies, Join};
use crate::factor_search::ChannelMagnitudes;
use crate::{
    FactorFormula, FactorSearch, Gram, InputStatistics, OptimizeError, OutputError, RangeRule,
    Rounding, WeightMatrix,
};

/// How to search.
#[derive(Clone, Debug, PartialEq)]
pub struct AwqOptions {
    /// How the weight will be rounded.
    pub rounding: Rounding,
    /// Steps of α from 0 to 1; 20 is AutoAWQ's, 10 ModelOpt's.
    pub steps: usize,
    /// Channels that must share a factor.
    pub ties: Option<ChannelTies>,
    /// Output features that candidates are judged on at most; evenly spread. It bounds the time for
    /// wide layers.
    pub judged_rows: usize,
}

/// Enough output features for a mean over them.
pub(crate) const JUDGED_ROWS: usize = 512;

impl AwqOptions {
    /// 20 steps, no ties, 512 rows.
    #[must_use]
    pub const fn new(rounding: Rounding) -> Self {
        Self { rounding, steps: 20, ties: None, judged_rows: JUDGED_ROWS }
    }
}

/// Searches the channel factors of a site; their error is the mean squared error of an output.
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
/// assert!(found.best.error < 0.1 * found.trials[0].error);
/// assert!(found.factors[1] < found.factors[0]);
/// # Ok::<(), bantam_optimize::OptimizeError>(())
/// ```
pub fn awq<B: Backend>(
    backend: &B,
    weight: WeightMatrix<'_>,
    statistics: &InputStatistics,
    options: &AwqOptions,
) -> Result<FactorSearch, OptimizeError> {
    let gram = statistics.gram()?;
    OptimizeError::check_length("input statistics", statistics.k(), weight.k())?;
    let weights = shares_of_groups(weight, options)?;
    let ties = options.ties.as_ref().map(|ties| (ties, Join::Mean));
    let magnitudes = ChannelMagnitudes::new(statistics.mean_abs.clone(), weights, ties)?;
    let mut judge = Judge::new(backend, weight, gram, options)?;
    let formulas = [FactorFormula::Plain, FactorFormula::Duo];
    FactorSearch::run(&magnitudes, &formulas, options.steps, |factors| judge.error(factors))
}

/// The mean magnitude of each channel's weights as a share of the largest of their group, `[K]`.
fn shares_of_groups(
    weight: WeightMatrix<'_>,
    options: &AwqOptions,
) -> Result<Vec<f32>, OptimizeError> {
    let grid = options.rounding.grid("AWQ", weight.k())?;
    let group = grid.block().columns.min(weight.k());
    let mut sums = vec![0f64; weight.k()];
    for row in weight.values().chunks_exact(weight.k()) {
        for (sums, values) in sums.chunks_mut(group).zip(row.chunks(group)) {
            let largest = values.iter().fold(f32::MIN_POSITIVE, |l, v| l.max(v.abs()));
            sums.iter_mut().zip(values).for_each(|(s, v)| *s += f64::from(v.abs() / largest));
        }
    }
    let rows = weight.n() as f64;
    Ok(sums.iter().map(|sum| (sum / rows) as f32).collect())
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

    /// The error of the weight rounded as `W/p` and multiplied by p again.
    fn error(&mut self, factors: &[f32]) -> Result<f64, OptimizeError> {
        let k = self.k;
        let scaled = self.rows.par_chunks_exact(k);
        let scaled = scaled.flat_map_iter(|row| row.iter().zip(factors).map(|(w, p)| w / p));
        let scaled: Vec<f32> = scaled.collect();
        let scaled = WeightMatrix::new(&scaled, self.rows.len() / k, k)?;
        let grid = self.rounding.grid("AWQ", k)?;
        let weighted = (self.rounding.range == RangeRule::LeastSquares).then(|| {
            let importance = self.importance.iter().zip(factors);
            importance.map(|(h, p)| h * (p * p)).collect::<Vec<f32>>()
        });
        let steps = grid.fit(scaled, weighted.as_deref());
        let mut delta = grid.round_all(scaled, &steps);
        delta.par_chunks_exact_mut(k).zip(self.rows.par_chunks_exact(k)).for_each(
            |(delta, row)| {
                for ((delta, w), p) in delta.iter_mut().zip(row).zip(factors) {
                    *delta = *delta * p - w;
                }
            },
        );
        self.error.mean(&delta)
    }
}
