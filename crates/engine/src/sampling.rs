//! From logits to the next token.
//!
//! Steps in order, the convention of `transformers` (llama.cpp applies the temperature last, so its
//! top-p and min-p see other probabilities):
//!
//! 1. repetition penalty on every token of the context: a positive logit is divided, a negative one
//!    multiplied (Keskar et al., *CTRL*, 2019);
//! 2. temperature 0 ends here with the largest logit, the lowest id on a tie;
//!    any other temperature divides the logits;
//! 3. top-k: the k largest;
//! 4. top-p: of these, the fewest whose probabilities reach p (Holtzman et al., *The Curious Case of
//!    Neural Text Degeneration*, 2020);
//! 5. min-p: of these, the ones at least as probable as min-p times the most probable;
//! 6. one draw from what is left, in proportion to the probabilities.
//!
//! Equal logits are ordered by id, so the result never depends on the order of a sort.

use std::cmp::Ordering;

use crate::generator::uniform;

/// How the next token is chosen.
///
/// ```
/// use bantam_engine::{Sampler, SamplingParams};
/// let greedy = SamplingParams::greedy();
/// assert_eq!(Sampler::new(greedy)?.sample(&[0.5, 2.0, 2.0], &[], 0)?, 1);
///
/// let refused = SamplingParams { top_p: 1.5, ..SamplingParams::default() }.validate();
/// assert_eq!(
///     refused.unwrap_err().to_string(),
///     "top_p is 1.5, expected more than 0 and at most 1; 1 keeps every token"
/// );
/// # Ok::<(), bantam_engine::SamplingError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits: 0 always takes the largest, below 1 sharpens, above 1 flattens.
    pub temperature: f32,
    /// Tokens kept, most probable first; 0 keeps all.
    pub top_k: usize,
    /// Probability that the kept tokens reach together, in (0, 1]; 1 keeps all.
    pub top_p: f32,
    /// Probability of a kept token relative to the most probable one, in [0, 1]; 0 keeps all.
    pub min_p: f32,
    /// Factor against tokens of the context, above 0; 1 has no effect.
    pub repetition_penalty: f32,
    /// Seed of the random numbers; same seed, same tokens.
    pub seed: u64,
}

impl Default for SamplingParams {
    /// Temperature 1, no filter, no penalty, seed 0: the model's own distribution.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

/// Why a token cannot be chosen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// A parameter outside its range.
    #[error("{name} is {got}, expected {expected}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// Its value.
        got: f32,
        /// The range, and a value that works.
        expected: &'static str,
    },
    /// A logit is NaN or infinite.
    #[error(
        "the logit of token {token} at position {position} is {value}; the weights are damaged, or \
         the number format is too narrow for this model: try --dtype f32"
    )]
    NotFinite {
        /// Position of the token to be chosen.
        position: usize,
        /// Id of the first such token.
        token: usize,
        /// NaN or infinity.
        value: f32,
    },
    /// Nothing to choose from.
    #[error("no token can be chosen at position {position}: every logit is -inf")]
    NoCandidate {
        /// Position of the token to be chosen.
        position: usize,
    },
}

impl SamplingParams {
    /// The most probable token, always.
    #[must_use]
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// Names the first parameter outside its range, and a value that works.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let check = |name, got: f32, holds: bool, expected| {
            if holds { Ok(()) } else { Err(SamplingError::Parameter { name, got, expected }) }
        };
        let Self { temperature, top_p, min_p, repetition_penalty, .. } = *self;
        check(
            "temperature",
            temperature,
            temperature.is_finite() && temperature >= 0.0,
            "0 or more; 0 takes the most probable token, 0.7 is a common choice",
        )?;
        check(
            "top_p",
            top_p,
            top_p > 0.0 && top_p <= 1.0,
            "more than 0 and at most 1; 1 keeps every token",
        )?;
        check("min_p", min_p, (0.0..=1.0).contains(&min_p), "0 to 1; 0 keeps every token")?;
        check(
            "repetition_penalty",
            repetition_penalty,
            repetition_penalty.is_finite() && repetition_penalty > 0.0,
            "more than 0; 1 has no effect, 1.1 is a common choice",
        )
    }
}

/// A token that may still be chosen.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    token: u32,
    logit: f32,
    /// Relative to the most probable candidate, whose weight is 1.
    weight: f64,
}

/// More probable first, the lower id first among equals.
fn by_probability(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

/// Chooses tokens; keeps its working memory from one to the next.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplingParams,
    penalised: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler with these parameters.
    ///
    /// # Errors
    /// If a parameter is out of range.
    pub fn new(params: SamplingParams) -> Result<Self, SamplingError> {
        params.validate()?;
        Ok(Self { params, penalised: Vec::new(), candidates: Vec::new() })
    }

    /// The token for `position`, given its `logits: [V]` and all tokens before it.
    ///
    /// # Errors
    /// If a logit is NaN or +∞, or none is above -∞ (which excludes a token).
    pub fn sample(
        &mut self,
        logits: &[f32],
        context: &[u32],
        position: usize,
    ) -> Result<u32, SamplingError> {
        let excluded_or_finite = |v: f32| v < f32::INFINITY; // false for NaN
        if let Some(token) = logits.iter().position(|&v| !excluded_or_finite(v)) {
            return Err(SamplingError::NotFinite { position, token, value: logits[token] });
        }
        let logits = if self.params.repetition_penalty == 1.0 {
            logits
        } else {
            penalise(logits, context, self.params.repetition_penalty, &mut self.penalised);
            &self.penalised
        };
        let (best, &max) = logits
            .iter()
            .enumerate()
            .reduce(|best, next| if next.1 > best.1 { next } else { best })
            .filter(|(_, max)| **max > f32::NEG_INFINITY)
            .ok_or(SamplingError::NoCandidate { position })?;
        if self.params.temperature == 0.0 {
            return Ok(best as u32);
        }
        let weight =
            |logit: f32| (f64::from(logit - max) / f64::from(self.params.temperature)).exp();
        self.candidates.clear();
        self.candidates.extend(
            logits
                .iter()
                .zip(0..)
                .filter(|(l, _)| **l > f32::NEG_INFINITY)
                .map(|(&logit, token)| Candidate { token, logit, weight: weight(logit) }),
        );
        filter(&mut self.candidates, &self.params);
        Ok(draw(&self.candidates, uniform(self.params.seed, position)))
    }
}

/// Copies `logits` with the penalty on every token of `context`, however often it occurs there.
fn penalise(logits: &[f32], context: &[u32], penalty: f32, out: &mut Vec<f32>) {
    out.clear();
    out.extend_from_slice(logits);
    for &token in context {
        // From the original logit, so a second occurrence changes nothing.
        if let Some(&logit) = logits.get(token as usize) {
            out[token as usize] = if logit > 0.0 { logit / penalty } else { logit * penalty };
        }
    }
}

/// Keeps what top-k, top-p and min-p allow. Each keeps the first so many by probability.
fn filter(candidates: &mut Vec<Candidate>, params: &SamplingParams) {
    if params.top_k > 0 && params.top_k < candidates.len() {
        candidates.select_nth_unstable_by(params.top_k - 1, by_probability);
        candidates.truncate(params.top_k);
        // Restores an order that depends on the logits alone.
        candidates.sort_unstable_by(by_probability);
    }
    if params.top_p < 1.0 {
        keep_nucleus(candidates, f64::from(params.top_p));
    }
    if params.min_p > 0.0 {
        let least = f64::from(params.min_p);
        candidates.retain(|candidate| candidate.weight >= least);
    }
}

/// Keeps the fewest most probable candidates that hold `share` of the whole weight.
fn keep_nucleus(candidates: &mut Vec<Candidate>, share: f64) {
    let wanted = share * candidates.iter().map(|candidate| candidate.weight).sum::<f64>();
    let (mut sorted, mut weight) = (0, 0.0);
    // A nucleus is small beside a vocabulary: sort ever longer beginnings until one suffices.
    while sorted < candidates.len() {
        let end = (4 * sorted).max(64).min(candidates.len());
        if end < candidates.len() {
            candidates[sorted..].select_nth_unstable_by(end - sorted, by_probability);
        }
        candidates[sorted..end].sort_unstable_by(by_probability);
        for i in sorted..end {
            weight += candidates[i].weight;
            if weight >= wanted {
                candidates.truncate(i + 1);
                return;
            }
        }
        sorted = end;
    }
}

/// The candidate in whose part of the whole weight the number `u` in [0, 1) falls.
fn draw(candidates: &[Candidate], u: f64) -> u32 {
    let mut left = u * candidates.iter().map(|candidate| candidate.weight).sum::<f64>();
    for candidate in candidates {
        left -= candidate.weight;
        if left < 0.0 {
            return candidate.token;
        }
    }
    // Reached only by rounding: the last that has any weight.
    let last = candidates.iter().rfind(|candidate| candidate.weight > 0.0);
    last.expect("the most probable candidate weighs 1").token
}
