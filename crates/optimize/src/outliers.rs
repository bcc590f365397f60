//! Massive activations: sites where one static range cannot serve all tokens (Sun et al. 2024).
//!
//! A few tokens, the first and delimiters, reach magnitudes a thousand times those of all others,
//! typically in the input of the down projection. A range for all of them leaves ordinary tokens a
//! handful of codes, and a range that clips them loses what attention leans on.

use crate::{InputStatistics, OptimizeError};

/// How a site's inputs may be rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeVerdict {
    /// One static range serves all tokens.
    Static,
    /// Tokens need a scale of their own; where that is not possible, 16 bits.
    PerToken,
}

/// The spread of magnitudes between tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outliers {
    /// The largest magnitude of all tokens.
    pub amax: f32,
    /// The median over tokens of their largest magnitude.
    pub median_token_amax: f32,
    /// What to do.
    pub verdict: RangeVerdict,
}

/// Static ranges may be so many times the median token's. INT8 then leaves that token 16 levels of
/// each sign.
pub const STATIC_RATIO: f32 = 8.0;

impl Outliers {
    /// How many times its own range the median token's codes must cover.
    #[must_use]
    pub fn ratio(&self) -> f32 {
        if self.median_token_amax > 0.0 { self.amax / self.median_token_amax } else { 1.0 }
    }
}

/// Looks for massive activations, in the inputs as they are or multiplied by `factors: [K]`.
///
/// With factors, the median is that of the sampled rows.
///
/// # Errors
/// If there are not K factors, or they are given and no rows were sampled.
///
/// ```
/// use bantam_backend::reference::Reference;
/// use bantam_optimize::{RangeVerdict, StatisticsCollector, StatisticsOptions, outliers};
/// let mut collector = StatisticsCollector::new(&Reference, 2, StatisticsOptions::default())?;
/// collector.add(&[900.0, 1.0, 2.0, -1.0, 1.0, 0.5])?;
/// let found = outliers(&collector.finish()?, None)?;
/// assert_eq!(found.ratio(), 450.0);
/// assert_eq!(found.verdict, RangeVerdict::PerToken);
/// # Ok::<(), bantam_optimize::OptimizeError>(())
/// ```
pub fn outliers(
    statistics: &InputStatistics,
    factors: Option<&[f32]>,
) -> Result<Outliers, OptimizeError> {
    let (amax, median_token_amax) = match factors {
        None => (statistics.largest(), median(statistics.token_amax.clone())),
        Some(factors) => {
            let k = statistics.k();
            OptimizeError::check_length("channel factors", factors.len(), k)?;
            let rows = statistics.sample.even_rows();
            if rows.is_empty() {
                return Err(OptimizeError::MissingStatistic {
                    algorithm: "the search for outliers with channel factors",
                    statistic: "a sample of rows",
                });
            }
            let largest = |row: &[f32]| {
                row.iter().zip(factors).fold(0f32, |largest, (x, p)| largest.max((x * p).abs()))
            };
            let tokens = rows.chunks_exact(k).map(largest).collect();
            (largest(&statistics.amax), median(tokens))
        }
    };
    let mut found = Outliers { amax, median_token_amax, verdict: RangeVerdict::Static };
    if found.ratio() > STATIC_RATIO {
        found.verdict = RangeVerdict::PerToken;
    }
    Ok(found)
}

fn median(mut values: Vec<f32>) -> f32 {
    let middle = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}
