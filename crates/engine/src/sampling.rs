//! How the next token is chosen: the parameters and their ranges.

use std::ops::RangeInclusive;

/// Sequences of tokens that one request may forbid: each is compared before every token.
const MAX_BAD_WORDS: usize = 4096;

/// How the next token is chosen; [`Sampler`](crate::Sampler) has the order of the steps.
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
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits, 0 to 100: 0 always takes the largest, below 1 sharpens, above 1 flattens.
    pub temperature: f32,
    /// Tokens kept, most probable first; 0 keeps all.
    pub top_k: usize,
    /// Probability that the kept tokens reach together, in (0, 1]; 1 keeps all.
    pub top_p: f32,
    /// Probability of a kept token relative to the most probable one, in [0, 1]; 0 keeps all.
    pub min_p: f32,
    /// Probability that the kept tokens of the most expected information reach together, in (0, 1];
    /// 1 keeps all.
    pub typical_p: f32,
    /// Factor against tokens of the context, 0.01 to 100; 1 has no effect.
    pub repetition_penalty: f32,
    /// Subtracted from the logit of a token that was generated before, -2 to 2; 0 has no effect, a
    /// negative value favours repetition.
    pub presence_penalty: f32,
    /// Subtracted from a token's logit once for each time it was generated, -2 to 2; 0 has no effect.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens, -100 to 100; negative infinity excludes one.
    pub logit_bias: Vec<(u32, f32)>,
    /// Sequences of tokens that are never completed, 4096 at most.
    pub bad_words: Vec<Vec<u32>>,
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
            typical_p: 1.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            bad_words: Vec::new(),
            seed: 0,
        }
    }
}

impl SamplingParams {
    /// The same, but what a model's `generation_config.json` states is as it says: `temperature` (0
    /// where `do_sample` is false), `top_k`, `top_p`, `min_p`, `typical_p` and `repetition_penalty`.
    ///
    /// ```
    /// use bantam_engine::SamplingParams;
    /// let config = serde_json::json!({"temperature": 0.6, "top_k": 20, "eos_token_id": 2});
    /// let params = SamplingParams::default().as_stated_by(&config);
    /// assert_eq!((params.temperature, params.top_k, params.top_p), (0.6, 20, 1.0));
    /// let greedy = serde_json::json!({"do_sample": false, "temperature": 0.6});
    /// assert_eq!(SamplingParams::default().as_stated_by(&greedy).temperature, 0.0);
    /// ```
    #[must_use]
    pub fn as_stated_by(self, generation_config: &serde_json::Value) -> Self {
        let number = |key: &str, default: f32| {
            generation_config[key].as_f64().map_or(default, |value| value as f32)
        };
        let greedy = generation_config["do_sample"] == false;
        let top_k = generation_config["top_k"].as_u64().map_or(self.top_k, |k| k as usize);
        Self {
            temperature: if greedy { 0.0 } else { number("temperature", self.temperature) },
            top_k,
            top_p: number("top_p", self.top_p),
            min_p: number("min_p", self.min_p),
            typical_p: number("typical_p", self.typical_p),
            repetition_penalty: number("repetition_penalty", self.repetition_penalty),
            ..self
        }
    }
}

/// Why a token cannot be chosen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// A parameter outside its range.
    #[error("{name} is {}, expected {expected}", in_short(*got))]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// Its value.
        got: f32,
        /// The range, and a value that works.
        expected: &'static str,
    },
    /// A bad word without tokens, which every answer would complete.
    #[error("bad_words[{index}] has no tokens, expected one or more; leave it out")]
    EmptyBadWord {
        /// Its place in the list.
        index: usize,
    },
    /// More bad words than can be looked for before every token.
    #[error("bad_words has {got} sequences of tokens, expected at most {MAX_BAD_WORDS}")]
    TooManyBadWords {
        /// How many.
        got: usize,
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
    #[error(
        "no token can be chosen at position {position}: every logit is -inf, or every token is \
         excluded by logit_bias, bad_words, min_tokens or the constraint; relax these"
    )]
    NoCandidate {
        /// Position of the token to be chosen.
        position: usize,
    },
}

/// A number of any size, without dozens of zeros.
fn in_short(number: f32) -> String {
    let usual = number == 0.0 || (1e-4..1e9).contains(&number.abs()) || !number.is_finite();
    if usual { number.to_string() } else { format!("{number:e}") }
}

impl SamplingParams {
    /// The most probable token, always.
    #[must_use]
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks every range: what [`Sampler`](crate::Sampler) takes, and what makes sense to ask for.
    ///
    /// The ranges of the penalties and of the bias are those of OpenAI's API, which vLLM has too. The
    /// others have no published limit; theirs are wider than what clients send, and end where an
    /// answer no longer depends on the model.
    ///
    /// # Errors
    /// Names the first parameter outside its range, the range, and a value that works.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let check = |name, got: f32, range: RangeInclusive<f32>, expected| {
            // False for NaN.
            let holds = range.contains(&got);
            if holds { Ok(()) } else { Err(SamplingError::Parameter { name, got, expected }) }
        };
        let above_zero = f32::from_bits(1);
        check(
            "temperature",
            self.temperature,
            0.0..=100.0,
            "0 or more, at most 100; 0 takes the most probable token, 0.7 is a common choice",
        )?;
        let share = "more than 0 and at most 1; 1 keeps every token";
        check("top_p", self.top_p, above_zero..=1.0, share)?;
        check("min_p", self.min_p, 0.0..=1.0, "0 to 1; 0 keeps every token")?;
        check("typical_p", self.typical_p, above_zero..=1.0, share)?;
        check(
            "repetition_penalty",
            self.repetition_penalty,
            0.01..=100.0,
            "more than 0, from 0.01 to 100; 1 has no effect, 1.1 is a common choice",
        )?;
        let penalty = "-2 to 2; 0 has no effect";
        check("presence_penalty", self.presence_penalty, -2.0..=2.0, penalty)?;
        check("frequency_penalty", self.frequency_penalty, -2.0..=2.0, penalty)?;
        for &(_, bias) in self.logit_bias.iter().filter(|(_, bias)| *bias != f32::NEG_INFINITY) {
            let expected = "-100 to 100; 0 has no effect, -100 all but excludes a token";
            check("logit_bias", bias, -100.0..=100.0, expected)?;
        }
        let got = self.bad_words.len();
        if got > MAX_BAD_WORDS {
            return Err(SamplingError::TooManyBadWords { got });
        }
        match self.bad_words.iter().position(Vec::is_empty) {
            Some(index) => Err(SamplingError::EmptyBadWord { index }),
            None => Ok(()),
        }
    }
}
