//! The softmax of a row of logits, in f64: what predictions are scored and compared by.

/// The softmax of a row of logits `[V]`, in the form that its uses need.
///
/// ```
/// use bantam_numerics::Softmax;
/// let even = Softmax::new(&[0.5, 0.5]).expect("numbers");
/// let sure = Softmax::new(&[9.0, 0.0]).expect("numbers");
/// assert!((even.nll(1) - 2f64.ln()).abs() < 1e-12);
/// assert_eq!(sure.top, 0);
/// let (kl, _) = even.divergence(&sure);
/// assert!(kl > 3.0);
/// ```
#[derive(Clone, Debug)]
pub struct Softmax<'a> {
    logits: &'a [f32],
    /// log Σ exp(l).
    log_sum: f64,
    /// The largest logit and the lowest id that has it.
    pub top: usize,
}

impl<'a> Softmax<'a> {
    /// Takes a row; none if a logit is NaN or +∞, or all are −∞.
    #[must_use]
    pub fn new(logits: &'a [f32]) -> Option<Self> {
        let (mut top, mut max) = (0, f32::NEG_INFINITY);
        for (token, &logit) in logits.iter().enumerate() {
            if logit > max {
                (top, max) = (token, logit);
            }
        }
        let max = f64::from(max);
        let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum();
        let log_sum = max + sum.ln();
        log_sum.is_finite().then_some(Self { logits, log_sum, top })
    }

    /// −log p of a token, nats.
    ///
    /// # Panics
    /// If the row has no such token.
    #[must_use]
    pub fn nll(&self, token: usize) -> f64 {
        self.log_sum - f64::from(self.logits[token])
    }

    /// KL(self ‖ other) = Σ p (log p − log q), nats, which rounding may leave a hair below zero; and
    /// max |Δlogit|.
    #[must_use]
    pub fn divergence(&self, other: &Self) -> (f64, f32) {
        let (mut kl, mut max_delta) = (0.0, 0f32);
        for (&a, &b) in self.logits.iter().zip(other.logits) {
            let log_p = f64::from(a) - self.log_sum;
            let p = log_p.exp();
            // A token that is excluded has p = 0 and adds nothing.
            if p > 0.0 {
                kl += p * (log_p - (f64::from(b) - other.log_sum));
            }
            if a != b {
                max_delta = max_delta.max((a - b).abs());
            }
        }
        (kl, max_delta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_logits_neither_overflow_nor_vanish() {
        let row = [1e30, 0.0, f32::NEG_INFINITY];
        let softmax = Softmax::new(&row).unwrap();
        assert_eq!(softmax.nll(0), 0.0);
        assert_eq!(softmax.nll(2), f64::INFINITY);
        assert!(Softmax::new(&[0.0, f32::NAN]).is_none());
        assert!(Softmax::new(&[0.0, f32::INFINITY]).is_none());
        assert!(Softmax::new(&[f32::NEG_INFINITY]).is_none());
    }

    #[test]
    fn nll_is_that_of_the_textbook() {
        // p = 1/6, 2/6, 3/6, whatever is added to all logits.
        let row = [1f32, 2.0, 3.0].map(|w| w.ln() + 7.0);
        let softmax = Softmax::new(&row).unwrap();
        for (token, p) in [(0, 1.0 / 6.0), (1, 1.0 / 3.0), (2, 0.5f64)] {
            assert!((softmax.nll(token) + p.ln()).abs() < 1e-6);
        }
    }
}
