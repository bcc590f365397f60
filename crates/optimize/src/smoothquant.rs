//! SmoothQuant: part of the activations' spread over channels moves into the weight (Xiao et al.
//! 2022, eq. 4), so that both can be rounded to 8 bits.
//!
//! Factors come from the largest magnitudes of a channel in inputs and weights. The paper takes α = 0.5 and ModelOpt 1.0 for all layers; here α is searched
//! for each site, no smoothing being a candidate, by running sampled tokens through the kernels.

use bantam_backend::{Backend, LinearInput, QuantizedLinear};
use bantam_numerics::activation::normal_scale;
use bantam_numerics::{ActivationFormat, WeightFormat};

use crate::channel_factors::{ChannelTies, Join};
use crate::factor_search::ChannelMagnitudes;
use crate::{
    FactorFormula, FactorSearch, InputStatistics, OptimizeError, RangeRule, Rounding, Trial,
    WeightMatrix, round_to_nearest,
};

/// Where the scales of activations come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationScale {
    /// Each token's own magnitude, found when it runs.
    PerToken,
    /// One calibrated range that holds every value seen.
    Static,
}

/// How to search.
#[derive(Clone, Debug, PartialEq)]
pub struct SmoothQuantOptions {
    /// How the weight is rounded.
    pub rounding: Rounding,
    /// How activations are rounded; a format with scales.
    pub activation: ActivationFormat,
    /// By which scales.
    pub scale: ActivationScale,
    /// Steps of α from 0 to 1.
    pub steps: usize,
    /// Channels that must share a factor.
    pub ties: Option<ChannelTies>,
}

impl SmoothQuantOptions {
    /// INT8 by output channel and by token, α in steps of 0.05. Ranges of candidates reach to the
    /// largest weight: that is quick, and a better range helps all of them alike.
    #[must_use]
    pub const fn new() -> Self {
        let int8 = WeightFormat::Int8 { group: bantam_numerics::Group::PerChannel };
        Self {
            rounding: Rounding { range: RangeRule::Max, ..Rounding::new(int8) },
            activation: ActivationFormat::Int8,
            scale: ActivationScale::PerToken,
            steps: 20,
            ties: None,
        }
    }

    /// The layer that a candidate is judged as: the rounded weight of `W/p` with p as channel factors
    /// of its input, and the static scale if that was asked for.
    ///
    /// # Errors
    /// If there are not K factors, or a group does not divide K.
    pub fn linear(
        &self,
        weight: WeightMatrix<'_>,
        statistics: &InputStatistics,
        factors: &[f32],
    ) -> Result<QuantizedLinear, OptimizeError> {
        let scaled = weight.for_factors(factors)?;
        let scaled = WeightMatrix::new(&scaled, weight.n(), weight.k())?;
        let importance = statistics.mean_square_for(factors);
        let weight = round_to_nearest(scaled, self.rounding, self.activation, Some(&importance))?;
        let amax = statistics.amax.iter().zip(factors).map(|(amax, p)| amax * p);
        let range = self.activation.largest_code().map(|code| amax.fold(0f32, f32::max) / code);
        let scale = range.filter(|_| self.scale == ActivationScale::Static).map(normal_scale);
        let channel_factors = Some(factors.to_vec());
        let input = LinearInput { format: self.activation, scale, channel_factors, order: None };
        Ok(QuantizedLinear { weight, input })
    }
}

impl Default for SmoothQuantOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Searches α for a site; the error is [`Trial::error`].
///
/// # Errors
/// If shapes differ, no rows were sampled, or the back end cannot run the formats together.
///
/// ```
/// use bantam_backend::reference::Reference;
/// use bantam_optimize::{
///     SmoothQuantOptions, StatisticsCollector, StatisticsOptions, WeightMatrix, smoothquant,
/// };
/// let mut collector = StatisticsCollector::new(&Reference, 4, StatisticsOptions::default())?;
/// collector.add(&[0.11, 60.0, 0.13, -0.27, -0.19, -72.0, 0.21, 0.12])?;
/// let weight = [0.9, 0.01, -0.7, 0.2];
/// let weight = WeightMatrix::new(&weight, 1, 4)?;
/// let found =
///     smoothquant(&Reference, weight, &collector.finish()?, &SmoothQuantOptions::default())?;
/// assert!(found.best.error < found.trials[0].error);
/// # Ok::<(), bantam_optimize::OptimizeError>(())
/// ```
pub fn smoothquant<B: Backend>(
    backend: &B,
    weight: WeightMatrix<'_>,
    statistics: &InputStatistics,
    options: &SmoothQuantOptions,
) -> Result<FactorSearch, OptimizeError> {
    if !options.activation.is_scaled() {
        let (option, expected) = ("the format of smoothed activations", "int8 or fp8".to_owned());
        return Err(OptimizeError::Option {
            option,
            got: options.activation.to_string(),
            expected,
        });
    }
    let mut trial = Trial::new(backend, weight, statistics)?;
    let ties = options.ties.as_ref().map(|ties| (ties, Join::Max));
    let magnitudes = ChannelMagnitudes::new(statistics.amax.clone(), weight.channel_amax(), ties)?;
    FactorSearch::run(&magnitudes, &[FactorFormula::Duo], options.steps, |factors| {
        trial.error(&options.linear(weight, statistics, factors)?)
    })
}
