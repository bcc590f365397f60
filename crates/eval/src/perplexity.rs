//! Perplexity: how surprised a model is by a text, per token.
//!
//! `NLL(t) = log Σ_v exp(l_v) − l_t` in nats, from the logits `l: [V]` before token t, and
//! `perplexity = exp(Σ NLL / count)`. All sums are f64.

/// The negative log-likelihood of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Perplexity {
    /// Σ NLL over the scored tokens, nats.
    pub nll_sum: f64,
    /// How many tokens were scored.
    pub scored_tokens: usize,
}

impl Perplexity {
    /// Adds a token.
    pub fn add(&mut self, nll: f64) {
        self.nll_sum += nll;
        self.scored_tokens += 1;
    }

    /// Mean NLL, nats per token.
    #[must_use]
    pub fn mean_nll(&self) -> f64 {
        self.nll_sum / self.scored_tokens as f64
    }

    /// `exp(mean NLL)`: 1 for a model that is always certain and right, V for one that guesses.
    ///
    /// ```
    /// use bantam_eval::Perplexity;
    /// let guess_of_two = Perplexity { nll_sum: 3.0 * 2f64.ln(), scored_tokens: 3 };
    /// assert!((guess_of_two.value() - 2.0).abs() < 1e-12);
    /// ```
    #[must_use]
    pub fn value(&self) -> f64 {
        self.mean_nll().exp()
    }
}

/// The softmax of a row of logits `[V]`, in the form that its uses need.
#[derive(Clone, Debug)]
pub(crate) struct Softmax<'a> {
    logits: &'a [f32],
    /// log Σ exp(l).
    log_sum: f64,
    /// The largest logit and the lowest id that has it.
    pub(crate) top: usize,
}

impl<'a> Softmax<'a> {
    /// None if a logit is NaN or +∞, or all are −∞.
    pub(crate) fn new(logits: &'a [f32]) -> Option<Self> {
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

    /// −log p of a token.
    pub(crate) fn nll(&self, token: usize) -> f64 {
        self.log_sum - f64::from(self.logits[token])
    }

    /// KL(self ‖ other) = Σ p (log p − log q), nats; and max |Δlogit|.
    pub(crate) fn divergence(&self, other: &Self) -> (f64, f32) {
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
