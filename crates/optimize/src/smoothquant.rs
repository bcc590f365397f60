//! SmoothQuant: part of the activations' spread over channels moves into the weight (Xiao et al.
//! 2022, eq. 4), so that both can be rounded to 8 bits.
//!
//! `x·p` meets `W/p` with `p_k = w_k^(1−α) / a_k^α`, a and w being the largest magnitudes of a channel
//! in inputs and weights. The paper takes α = 0.5 and ModelOpt 1.0 for all layers; here α is searched
//! for each site, no smoothing being a candidate, by running sampled tokens through the kernels.

use bantam_backend::{Backend, LinearInput, QuantizedLinear};
use bantam_numerics::activation::normal_scale;
use bantam_numerics::{ActivationFormat, WeightFormat};

use crate::channel_factors::{ChannelTies, FACTORS, Join};
use crate::{InputStatistics, OptimizeError, Rounding, Trial, WeightMatrix, round_to_nearest};

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
    /// INT8 by output channel and by token, α in steps of 0.05.
    #[must_use]
    pub const fn new() -> Self {
        let group = bantam_numerics::Group::PerChannel;
        Self {
            rounding: Rounding::new(WeightFormat::Int8 { group }),
            activation: ActivationFormat::Int8,
            scale: ActivationScale::PerToken,
            steps: 20,
            ties: None,
        }
    }
}

impl Default for SmoothQuantOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// A candidate and what it costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SmoothQuantTrial {
    /// The exponent; none for no smoothing.
    pub alpha: Option<f32>,
    /// See [`Trial::error`].
    pub error: f64,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq)]
pub struct SmoothQuant {
    /// The rounded weight of `W/p`, with p as channel factors of the input (none without
    /// smoothing) and the static scale if that was asked for. To fold p into the layer before, take
    /// it out of `input`.
    pub linear: QuantizedLinear,
    /// The candidate it is of.
    pub best: SmoothQuantTrial,
    /// All candidates; the first is no smoothing.
    pub trials: Vec<SmoothQuantTrial>,
}

/// Searches α for a site.
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
) -> Result<SmoothQuant, OptimizeError> {
    if !options.activation.is_scaled() {
        let (option, expected) = ("the format of smoothed activations", "int8 or fp8".to_owned());
        return Err(OptimizeError::Option {
            option,
            got: options.activation.to_string(),
            expected,
        });
    }
    let mut trial = Trial::new(backend, weight, statistics)?;
    let magnitudes = Magnitudes::new(weight, statistics, options)?;
    let steps = options.steps.max(1);
    let alphas = (0..=steps).map(|i| Some(i as f32 / steps as f32));
    let mut trials = Vec::new();
    let mut found: Option<(SmoothQuantTrial, QuantizedLinear)> = None;
    for alpha in std::iter::once(None).chain(alphas) {
        let factors = alpha.map(|alpha| magnitudes.factors(alpha));
        let linear = candidate(weight, statistics, options, factors)?;
        let trial = SmoothQuantTrial { alpha, error: trial.error(&linear)? };
        trials.push(trial);
        if found.as_ref().is_none_or(|(best, _)| trial.error < best.error) {
            found = Some((trial, linear));
        }
    }
    let (best, linear) = found.expect("no smoothing is a candidate");
    Ok(SmoothQuant { linear, best, trials })
}

/// The layer with given factors.
fn candidate(
    weight: WeightMatrix<'_>,
    statistics: &InputStatistics,
    options: &SmoothQuantOptions,
    factors: Option<Vec<f32>>,
) -> Result<QuantizedLinear, OptimizeError> {
    let scaled = factors.as_ref().map(|factors| weight.for_factors(factors)).transpose()?;
    let scaled = match &scaled {
        Some(scaled) => WeightMatrix::new(scaled, weight.n(), weight.k())?,
        None => weight,
    };
    let factor = |k: usize| factors.as_ref().map_or(1.0, |factors| factors[k]);
    let importance: Option<Vec<f32>> = statistics.gram().ok().map(|gram| {
        let diagonal = gram.diagonal().into_iter().enumerate();
        diagonal.map(|(k, h)| h * factor(k).powi(2)).collect()
    });
    let weight =
        round_to_nearest(scaled, options.rounding, options.activation, importance.as_deref())?;
    let amax = statistics.amax.iter().enumerate().map(|(k, amax)| amax * factor(k));
    let range = options.activation.largest_code().map(|code| amax.fold(0f32, f32::max) / code);
    let is_static = options.scale == ActivationScale::Static;
    let scale = range.filter(|_| is_static).map(normal_scale);
    let format = options.activation;
    let input = LinearInput { format, scale, channel_factors: factors, order: None };
    Ok(QuantizedLinear { weight, input })
}

/// a and w.
struct Magnitudes {
    inputs: Vec<f32>,
    weights: Vec<f32>,
}

impl Magnitudes {
    fn new(
        weight: WeightMatrix<'_>,
        statistics: &InputStatistics,
        options: &SmoothQuantOptions,
    ) -> Result<Self, OptimizeError> {
        let (mut inputs, mut weights) = (statistics.amax.clone(), weight.channel_amax());
        if let Some(ties) = &options.ties {
            OptimizeError::check_length("channel ties", ties.class_of().len(), weight.k())?;
            ties.tie(&mut inputs, Join::Max);
            ties.tie(&mut weights, Join::Max);
        }
        Ok(Self { inputs, weights })
    }

    /// p; 1 for channels that no input reached or that have no weight.
    fn factors(&self, alpha: f32) -> Vec<f32> {
        let factor = |(&a, &w): (&f32, &f32)| {
            if a < f32::MIN_POSITIVE || w < f32::MIN_POSITIVE {
                return 1.0;
            }
            (w.powf(1.0 - alpha) / a.powf(alpha)).clamp(*FACTORS.start(), *FACTORS.end())
        };
        self.inputs.iter().zip(&self.weights).map(factor).collect()
    }
}
