//! How far a model's predictions are from those of another, token by token.
//!
//! These rank number formats with some 500 tokens, where an accuracy benchmark needs thousands of
//! questions: they compare whole distributions instead of single answers.

use serde::{Deserialize, Serialize};

use bantam_numerics::Softmax;

/// The difference of a model from a baseline over a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// Σ KL(p_baseline ‖ p_model), nats.
    pub kl_sum: f64,
    /// Tokens for which both give the highest logit to the same token.
    pub agreeing: usize,
    /// Tokens compared.
    pub compared_tokens: usize,
    /// max |Δlogit| over all tokens and the whole vocabulary.
    pub max_logit_delta: f32,
}

/// [`Divergence`] of a single token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TokenDivergence {
    kl: f64,
    agrees: bool,
    max_logit_delta: f32,
}

impl TokenDivergence {
    pub(crate) fn new(baseline: &Softmax<'_>, model: &Softmax<'_>) -> Self {
        let (kl, max_logit_delta) = baseline.divergence(model);
        // Rounding may leave a hair below zero.
        Self { kl: kl.max(0.0), agrees: baseline.top == model.top, max_logit_delta }
    }
}

impl Divergence {
    pub(crate) fn add(&mut self, token: TokenDivergence) {
        self.kl_sum += token.kl;
        self.agreeing += usize::from(token.agrees);
        self.compared_tokens += 1;
        self.max_logit_delta = self.max_logit_delta.max(token.max_logit_delta);
    }

    /// Adds what was found at other tokens.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.kl_sum += other.kl_sum;
        self.agreeing += other.agreeing;
        self.compared_tokens += other.compared_tokens;
        self.max_logit_delta = self.max_logit_delta.max(other.max_logit_delta);
    }

    /// Counts tokens of the baseline itself, which agrees with itself.
    pub(crate) fn compare_with_itself(&mut self, tokens: usize) {
        self.agreeing += tokens;
        self.compared_tokens += tokens;
    }

    /// Mean KL(p_baseline ‖ p_model), nats per token; 0 for equal predictions.
    #[must_use]
    pub fn kl_mean(&self) -> f64 {
        self.kl_sum / self.compared_tokens as f64
    }

    /// Share of tokens for which both models have the same favourite, 0 to 1.
    #[must_use]
    pub fn top1_agreement(&self) -> f64 {
        self.agreeing as f64 / self.compared_tokens as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compare(baseline: &[f32], model: &[f32]) -> TokenDivergence {
        TokenDivergence::new(&Softmax::new(baseline).unwrap(), &Softmax::new(model).unwrap())
    }

    #[test]
    fn kl_is_that_of_the_textbook() {
        // p = (1/4, 3/4), q = (1/2, 1/2).
        let token = compare(&[0.0, 3f32.ln()], &[5.0, 5.0]);
        let expected = 0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln();
        assert!((token.kl - expected).abs() < 1e-6);
        assert!(!token.agrees);
        assert_eq!(token.max_logit_delta, 5.0);
    }

    proptest! {
        #[test]
        fn kl_is_never_negative_and_blind_to_a_shift(
            rows in proptest::collection::vec((-9f32..9.0, -9f32..9.0), 1..50),
            shift in -4f32..4.0,
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) = rows.into_iter().unzip();
            prop_assert!(compare(&a, &b).kl >= 0.0);
            let shifted: Vec<f32> = a.iter().map(|l| l + shift).collect();
            prop_assert!(compare(&a, &shifted).kl < 1e-6);
            prop_assert!(compare(&a, &a).agrees);
        }
    }
}
