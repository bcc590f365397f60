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
