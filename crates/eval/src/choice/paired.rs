//! Two models on the same items.

use std::collections::BTreeMap;

use super::item::ItemSet;
use super::outcome::Outcome;

/// What a smaller model lost of its original's accuracy, in percent of it: `100·(a − b)/a`, as in
/// NVIDIA's tables of MMLU loss. None if the original has none.
///
/// ```
/// use bantam_eval::choice::loss_percent;
/// let falcon_180b_int8 = loss_percent(0.704, 0.686).unwrap();
/// assert_eq!(format!("{falcon_180b_int8:.2}"), "2.56");
/// assert_eq!(loss_percent(0.0, 0.5), None);
/// ```
#[must_use]
pub fn loss_percent(original: f64, model: f64) -> Option<f64> {
    (original > 0.0).then(|| 100.0 * (original - model) / original)
}

/// What changed for items that two models answered.
///
/// Accuracies of a model and its original hide changes that cancel out; these counts do not, and
/// they say how well the difference is known.
///
/// ```
/// use bantam_eval::choice::Paired;
/// let paired = Paired { lost: 9, gained: 1, total: 100 };
/// assert_eq!(paired.difference(), -0.08);
/// assert!((paired.mcnemar_p() - 22.0 / 1024.0).abs() < 1e-12); // 2·(1 + 10)/2¹⁰
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paired {
    /// Right from the original, wrong from the model.
    pub lost: usize,
    /// Wrong from the original, right from the model.
    pub gained: usize,
    /// Items that both answered.
    pub total: usize,
}

impl Paired {
    /// Counts the items that both answered.
    #[must_use]
    pub fn new(
        set: &ItemSet,
        original: &BTreeMap<usize, Outcome>,
        model: &BTreeMap<usize, Outcome>,
    ) -> Self {
        let is_right =
            |outcome: &Outcome| outcome.answer.choice() == Some(set.items[outcome.item].answer);
        let mut paired = Self::default();
        for (item, after) in model {
            let Some(before) = original.get(item) else { continue };
            let (before, after) = (is_right(before), is_right(after));
            paired.lost += usize::from(before && !after);
            paired.gained += usize::from(!before && after);
            paired.total += 1;
        }
        paired
    }

    /// Accuracy of the model less that of the original, -1 to 1.
    #[must_use]
    pub fn difference(&self) -> f64 {
        (self.gained as f64 - self.lost as f64) / self.total as f64
    }

    /// Of the difference: √(b + c − (b − c)²/n)/n with b lost and c gained.
    #[must_use]
    pub fn standard_error(&self) -> f64 {
        let (b, c, n) = (self.lost as f64, self.gained as f64, self.total as f64);
        (b + c - (b - c).powi(2) / n).max(0.0).sqrt() / n
    }

    /// How likely a split at least this uneven is if the model were as good as the original:
    /// McNemar's exact test, the two-sided binomial test of lost against gained.
    #[must_use]
    pub fn mcnemar_p(&self) -> f64 {
        let changed = self.lost + self.gained;
        let fewer = self.lost.min(self.gained);
        // ln C(n, k) − n ln 2, from k = 0 on: 2⁻ⁿ alone would vanish for n > 1074.
        let mut log_term = -(changed as f64) * std::f64::consts::LN_2;
        let mut tail = log_term.exp();
        for k in 1..=fewer {
            log_term += ((changed - k + 1) as f64 / k as f64).ln();
            tail += log_term.exp();
        }
        (2.0 * tail).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_that_of_the_published_tables() {
        // Falcon-180B, Falcon-40B, Llama-2-70B, MPT-30B: FP16, then FP8, INT8 SmoothQuant, INT4 AWQ.
        for (original, models, losses) in [
            (70.4, [70.3, 68.6, 69.8], ["0.14", "2.56", "0.85"]),
            (56.1, [55.6, 54.7, 55.5], ["0.89", "2.50", "1.07"]),
            (69.1, [68.5, 67.2, 68.4], ["0.87", "2.75", "1.01"]),
            (47.5, [47.4, 46.8, 46.5], ["0.21", "1.47", "2.11"]),
        ] {
            for (model, loss) in models.into_iter().zip(losses) {
                assert_eq!(format!("{:.2}", loss_percent(original, model).unwrap()), loss);
            }
        }
    }

    #[test]
    fn mcnemar_is_the_binomial_test() {
        let p = |lost, gained| Paired { lost, gained, total: 20_000 }.mcnemar_p();
        assert_eq!(p(0, 0), 1.0);
        assert_eq!(p(1, 0), 1.0);
        assert_eq!(p(0, 5), 2.0 / 32.0);
        assert_eq!(p(7, 7), 1.0);
        assert!((p(3, 9) - 2.0 * (1.0 + 12.0 + 66.0 + 220.0) / 4096.0).abs() < 1e-12);
        // Beside the normal approximation, with its correction for continuity.
        let z = (5200.0f64 - 4800.0 - 1.0) / 10_000f64.sqrt();
        assert!((p(4800, 5200) - 2.0 * (1.0 - normal_cdf(z))).abs() < 1e-6);
        assert!(p(10_000, 0) >= 0.0);
    }

    /// Φ(z) by the trapezoid rule.
    fn normal_cdf(z: f64) -> f64 {
        let (steps, density) = (100_000, |x: f64| (-x * x / 2.0).exp());
        let h = z / f64::from(steps);
        let inner: f64 = (1..steps).map(|i| density(f64::from(i) * h)).sum();
        0.5 + h * (inner + (density(0.0) + density(z)) / 2.0) / (2.0 * std::f64::consts::PI).sqrt()
    }

    #[test]
    fn the_error_is_that_of_paired_differences() {
        // 100 differences: 9 of −1, 1 of +1, 90 of 0.
        let paired = Paired { lost: 9, gained: 1, total: 100 };
        let mean: f64 = -0.08;
        let variance =
            (9.0 * (-1.0 - mean).powi(2) + (1.0 - mean).powi(2) + 90.0 * mean.powi(2)) / 100.0;
        assert!((paired.standard_error() - (variance / 100.0).sqrt()).abs() < 1e-12);
    }
}
