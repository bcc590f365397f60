//! Static ranges of activations: one amax for all tokens, from the histogram of magnitudes.
//!
//! Sources: ModelOpt's and TensorRT's calibrators. All of them but [`Calibrator::Max`] clip: the
//! massive activations of language models carry meaning, so look at [`outliers`](crate::outliers)
//! before clipping any.

use bantam_numerics::ActivationFormat;
use rayon::prelude::*;

use crate::{Histogram, InputStatistics, OptimizeError};

/// How a static range is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Calibrator {
    /// The largest magnitude: nothing is clipped.
    Max,
    /// The magnitude that so many percent of the values do not exceed, such as 99.99.
    Percentile(f64),
    /// The range with the least mean squared error.
    Mse,
    /// The range with the least loss of information: KL divergence of the distribution of values
    /// from that of their codes.
    Entropy,
}

/// Levels of one sign that entropy compares with.
const LEVELS: usize = 128;
/// The smallest range that is tried, in bins.
const FIRST: usize = 128;
/// Ranges that are tried at most: more would be finer than the result is.
const CANDIDATES: usize = 2048;

impl Calibrator {
    /// The static scale for activations of a format: the range by its largest code.
    ///
    /// # Errors
    /// If the format has no scales, a percentile is not above 0 and up to 100, or the histogram is
    /// needed and was not collected.
    ///
    /// ```
    /// use bantam_backend::reference::Reference;
    /// use bantam_numerics::ActivationFormat;
    /// use bantam_optimize::{Calibrator, StatisticsCollector, StatisticsOptions};
    /// let mut collector = StatisticsCollector::new(&Reference, 2, StatisticsOptions::default())?;
    /// collector.add(&[1.0, -2.54, 0.5, 0.0])?;
    /// let statistics = collector.finish()?;
    /// let scale = Calibrator::Max.scale(&statistics, ActivationFormat::Int8)?;
    /// assert!((scale - 0.02).abs() < 1e-6);
    /// # Ok::<(), bantam_optimize::OptimizeError>(())
    /// ```
    pub fn scale(
        self,
        statistics: &InputStatistics,
        format: ActivationFormat,
    ) -> Result<f32, OptimizeError> {
        let Some(largest_code) = format.largest_code() else {
            let expected = "int8 or fp8".to_owned();
            let option = "the format of a static range";
            return Err(OptimizeError::Option { option, got: format.to_string(), expected });
        };
        let amax = self.amax(statistics, format)?;
        Ok(bantam_numerics::activation::normal_scale(amax / largest_code))
    }

    /// The static range.
    fn amax(
        self,
        statistics: &InputStatistics,
        format: ActivationFormat,
    ) -> Result<f32, OptimizeError> {
        if self == Self::Max {
            return Ok(statistics.largest());
        }
        let missing = OptimizeError::MissingStatistic {
            algorithm: "this calibrator",
            statistic: "the histogram",
        };
        let histogram = statistics.histogram.as_ref().ok_or(missing)?;
        let amax = match self {
            Self::Max => histogram.range(),
            Self::Percentile(percent) => {
                OptimizeError::check_range("percentile", percent, f64::MIN_POSITIVE..=100.0)?;
                percentile(histogram, percent)
            }
            Self::Mse => least_squares(histogram, format),
            Self::Entropy => least_divergence(histogram),
        };
        // The last bin ends a little beyond the largest value.
        Ok(amax.min(statistics.largest()))
    }
}

/// The first edge that so many percent of the values lie below.
fn percentile(histogram: &Histogram, percent: f64) -> f32 {
    let wanted = (percent / 100.0 * histogram.total() as f64).ceil() as u64;
    let mut below = 0;
    let bins = histogram.counts().iter().take_while(|&&count| {
        below += count;
        below < wanted
    });
    histogram.edge(bins.count() + 1)
}

/// Numbers of bins to try as a range, the whole among them.
fn candidates(histogram: &Histogram) -> Vec<usize> {
    let bins = histogram.counts().len();
    let step = bins.div_ceil(CANDIDATES).max(1);
    (FIRST.min(bins)..bins).step_by(step).chain([bins]).collect()
}

/// The range with the least Σ count·(rounded centre − centre)².
fn least_squares(histogram: &Histogram, format: ActivationFormat) -> f32 {
    let largest_code = format.largest_code().unwrap_or(f32::MAX);
    let error = |bins: &usize| -> f64 {
        let scale = histogram.edge(*bins) / largest_code;
        let terms = histogram.counts().iter().enumerate().filter(|(_, count)| **count > 0);
        let squares = terms.map(|(bin, &count)| {
            let centre = (histogram.edge(bin) + histogram.edge(bin + 1)) / 2.0;
            let error = format.round(centre / scale) * scale - centre;
            count as f64 * f64::from(error).powi(2)
        });
        squares.sum()
    };
    let tried: Vec<(usize, f64)> =
        candidates(histogram).into_par_iter().map(|bins| (bins, error(&bins))).collect();
    let best = tried.iter().min_by(|(_, a), (_, b)| a.total_cmp(b));
    best.map_or(0.0, |(bins, _)| histogram.edge(*bins))
}

/// The range whose clipped distribution P differs least from Q, P as 128 levels can tell it.
///
/// As TensorRT's: values beyond the range join P's last bin; Q spreads each level's count evenly over
/// its bins that hold something. Of equals, the widest range.
fn least_divergence(histogram: &Histogram) -> f32 {
    let mut counts: Vec<f64> = histogram.counts().iter().map(|&count| count as f64).collect();
    if let [zero, first, ..] = counts.as_mut_slice() {
        *zero = *first; // exact zeros say nothing about a range
    }
    let total: f64 = counts.iter().sum();
    let divergence = |bins: usize| -> f64 {
        let beyond: f64 = counts[bins..].iter().sum();
        let mut kl = 0.0;
        for level in 0..LEVELS {
            let of_level = level * bins / LEVELS..(level + 1) * bins / LEVELS;
            let held = counts[of_level.clone()].iter().filter(|&&count| count > 0.0).count();
            let mean = counts[of_level.clone()].iter().sum::<f64>() / held.max(1) as f64;
            for bin in of_level {
                let p = counts[bin] + if bin + 1 == bins { beyond } else { 0.0 };
                let q = if counts[bin] > 0.0 { mean } else { 0.0 };
                if p > 0.0 {
                    // Q's own total lacks what lies beyond.
                    let q = q.max(f64::MIN_POSITIVE) / (total - beyond).max(f64::MIN_POSITIVE);
                    kl += p / total * (p / total / q).ln();
                }
            }
        }
        kl
    };
    let tried: Vec<(usize, f64)> =
        candidates(histogram).into_par_iter().map(|bins| (bins, divergence(bins))).collect();
    let best = tried.iter().rev().min_by(|(_, a), (_, b)| a.total_cmp(b));
    best.map_or(0.0, |(bins, _)| histogram.edge(*bins))
}
