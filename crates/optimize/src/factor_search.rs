//! The search for the factors on a site's input channels, by which AWQ and SmoothQuant differ only in
//! what they look at and what they judge by.
//!
//! `x·p` meets `W/p`, with `p = 1/s` and s a formula of the magnitudes of each channel and one exponent.

use crate::OptimizeError;
use crate::channel_factors::{ChannelTies, FACTORS, Join};

/// Where a candidate's factors come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactorFormula {
    /// There are none: all are 1.
    None,
    /// `s = x^α` of the inputs' magnitudes.
    Plain,
    /// `s = x^α / w^(1−α)` of the inputs' magnitudes and the weights'.
    Duo,
}

/// A candidate and what it costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FactorTrial {
    /// Where its factors come from.
    pub formula: FactorFormula,
    /// The exponent α.
    pub alpha: f32,
    /// The error that the search judges by.
    pub error: f64,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct FactorSearch {
    /// p = 1/s, what the input's channels are multiplied by, `[K]`. The weight to round is
    /// [`WeightMatrix::for_factors`](crate::WeightMatrix::for_factors), its statistics
    /// [`Gram::for_factors`](crate::Gram::for_factors).
    pub factors: Vec<f32>,
    /// The candidate they are of.
    pub best: FactorTrial,
    /// All candidates tried; the first is no factors.
    pub trials: Vec<FactorTrial>,
}

impl FactorSearch {
    /// Tries no factors, every fourth of `steps` exponents of each formula, then those between the best
    /// and its neighbours: the error has one valley.
    pub(crate) fn run(
        magnitudes: &ChannelMagnitudes,
        formulas: &[FactorFormula],
        steps: usize,
        mut error: impl FnMut(&[f32]) -> Result<f64, OptimizeError>,
    ) -> Result<Self, OptimizeError> {
        let steps = steps.max(1);
        let mut tried = Vec::new();
        let mut attempt = |formula, step: usize| {
            let alpha = step as f32 / steps as f32;
            let error = error(&magnitudes.factors(formula, alpha))?;
            tried.push((step, FactorTrial { formula, alpha, error }));
            let least = tried.iter().min_by(|(_, a), (_, b)| a.error.total_cmp(&b.error));
            Ok::<_, OptimizeError>(*least.expect("one was pushed"))
        };
        let (mut step, mut best) = attempt(FactorFormula::None, 0)?;
        for &formula in formulas {
            for coarse in (0..=steps).step_by(4) {
                (step, best) = attempt(formula, coarse)?;
            }
        }
        for distance in [2, 1] {
            if best.formula == FactorFormula::None {
                break;
            }
            let above = Some(step + distance).filter(|next| *next <= steps);
            let between = [step.checked_sub(distance), above];
            for next in between.into_iter().flatten() {
                (step, best) = attempt(best.formula, next)?;
            }
        }
        let factors = magnitudes.factors(best.formula, best.alpha);
        Ok(Self { factors, best, trials: tried.into_iter().map(|(_, trial)| trial).collect() })
    }
}

/// How large inputs and weights of each channel are, `[K]` both.
pub(crate) struct ChannelMagnitudes {
    inputs: Vec<f32>,
    weights: Vec<f32>,
}

impl ChannelMagnitudes {
    /// Joins those of tied channels.
    pub(crate) fn new(
        mut inputs: Vec<f32>,
        mut weights: Vec<f32>,
        ties: Option<(&ChannelTies, Join)>,
    ) -> Result<Self, OptimizeError> {
        if let Some((ties, join)) = ties {
            OptimizeError::check_length("channel ties", ties.class_of().len(), inputs.len())?;
            ties.tie(&mut inputs, join);
            ties.tie(&mut weights, join);
        }
        Ok(Self { inputs, weights })
    }

    /// p, normalised so that the largest and the smallest are reciprocal; 1 for channels that no input
    /// reached or that have no weight.
    fn factors(&self, formula: FactorFormula, alpha: f32) -> Vec<f32> {
        if formula == FactorFormula::None {
            return vec![1.0; self.inputs.len()];
        }
        let scale = |(&x, &w): (&f32, &f32)| {
            let weight = if formula == FactorFormula::Duo { w.powf(1.0 - alpha) } else { 1.0 };
            let live = x >= f32::MIN_POSITIVE && w >= f32::MIN_POSITIVE;
            live.then(|| (x.powf(alpha) / weight).clamp(*FACTORS.start(), *FACTORS.end()))
        };
        let scales: Vec<Option<f32>> = self.inputs.iter().zip(&self.weights).map(scale).collect();
        let live = scales.iter().flatten().copied();
        let largest = live.clone().fold(*FACTORS.start(), f32::max);
        let smallest = live.fold(*FACTORS.end(), f32::min);
        let middle = (largest * smallest).sqrt();
        scales.into_iter().map(|scale| scale.map_or(1.0, |scale| middle / scale)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_valley_is_found_and_no_factors_come_first() {
        let magnitudes = ChannelMagnitudes::new(vec![1.0, 16.0], vec![1.0, 1.0], None).unwrap();
        // The ratio of the factors is 16^α; the least error is where it is 16^0.65.
        let error = |factors: &[f32]| {
            let alpha = (factors[0] / factors[1]).log(16.0);
            Ok(f64::from((alpha - 0.65).powi(2)))
        };
        let found = FactorSearch::run(&magnitudes, &[FactorFormula::Plain], 20, error).unwrap();
        assert_eq!(found.trials[0].formula, FactorFormula::None);
        assert!((found.best.alpha - 0.65).abs() < 1e-6, "{:?}", found.best);
        assert_eq!(found.trials.len(), 1 + 6 + 2 + 2);
        assert!((found.factors[0] * found.factors[1] - 1.0).abs() < 1e-6, "{:?}", found.factors);
        let none = FactorSearch::run(&magnitudes, &[FactorFormula::Duo], 20, |p| {
            Ok(f64::from((p[0] - 1.0).abs()))
        });
        assert_eq!(none.unwrap().best.formula, FactorFormula::None);
    }
}
