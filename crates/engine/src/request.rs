//! What is asked of the engine, and why it may be refused.

use std::time::Duration;

use crate::{EngineError, Limits, SamplingParams, sample_seed};

/// Tokens that may end an answer by the wish of its user.
const MAX_STOP_TOKENS: usize = 1024;

/// Alternatives that may be reported with every token, however many tokens there are.
const ALTERNATIVES_OF_EVERY_TOKEN: usize = 20;

/// Alternatives that an answer, or a prompt, may report in all: 8 MiB of them.
const MAX_ALTERNATIVES: usize = 1 << 20;

/// A prompt to continue.
///
/// ```
/// use bantam_engine::{Request, SamplingParams};
/// let request = Request {
///     sampling: SamplingParams::greedy(),
///     max_tokens: Some(32),
///     eos_tokens: vec![2],
///     ..Request::new(vec![1, 504, 3575])
/// };
/// assert_eq!(request.priority, 0);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Tokens to continue.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Tokens generated at most; none for as many as context and cache hold. 0 is for requests that
    /// only want `prompt_logprobs`.
    pub max_tokens: Option<usize>,
    /// Tokens generated before a stop token may be chosen. Where a constraint on the answer allows
    /// nothing but its end, the answer ends all the same.
    pub min_tokens: usize,
    /// Tokens that end the answer, by the wish of the user.
    pub stop_tokens: Vec<u32>,
    /// Tokens that end the answer, by the training of the model.
    pub eos_tokens: Vec<u32>,
    /// Treat `eos_tokens` as any other token.
    pub ignore_eos: bool,
    /// Requests with a lower number go first; equal ones in order of arrival.
    pub priority: i32,
    /// Time from submission after which the request fails; none for no limit.
    pub deadline: Option<Duration>,
    /// Requests share the cache of equal beginnings only if they have the same salt.
    pub salt: u64,
    /// Reports how probable each token was, and this many alternatives; none for no report.
    pub logprobs: Option<usize>,
    /// Reports how probable each token of the prompt was, and this many alternatives; none for no
    /// report. The whole prompt is computed then, whatever the cache holds.
    pub prompt_logprobs: Option<usize>,
}

impl Request {
    /// A request with the model's own distribution and no limit but the context.
    #[must_use]
    pub fn new(prompt: Vec<u32>) -> Self {
        Self {
            prompt,
            sampling: SamplingParams::default(),
            max_tokens: None,
            min_tokens: 0,
            stop_tokens: Vec::new(),
            eos_tokens: Vec::new(),
            ignore_eos: false,
            priority: 0,
            deadline: None,
            salt: 0,
            logprobs: None,
            prompt_logprobs: None,
        }
    }

    /// Checks everything that can be known before the request runs.
    ///
    /// # Errors
    /// Names the first field that cannot be honoured, and a value that can.
    pub fn validate(&self, limits: &Limits) -> Result<(), EngineError> {
        if self.only_scores() {
            check_scored_prompt(&self.prompt, limits)?;
        } else {
            check_prompt(&self.prompt, limits)?;
        }
        self.sampling.validate()?;
        let (prompt, room) = (self.prompt.len(), limits.room(self.prompt.len()));
        let least = usize::from(!self.only_scores());
        if prompt + least > limits.longest_sequence() {
            let Limits { num_blocks, block_tokens, .. } = *limits;
            return Err(EngineError::CacheTooSmall { tokens: prompt, num_blocks, block_tokens });
        }
        if let Some(asked) = self.max_tokens.filter(|&asked| asked < least || asked > room) {
            return Err(EngineError::MaxTokens { asked, prompt, room });
        }
        let max = self.max_tokens.unwrap_or(room);
        if self.min_tokens > max {
            return Err(EngineError::MinTokens { min: self.min_tokens, max });
        }
        let vocab_size = limits.vocab_size;
        for (field, asked) in
            [("logprobs", self.logprobs), ("prompt_logprobs", self.prompt_logprobs)]
        {
            if let Some(asked) = asked.filter(|&asked| asked > vocab_size) {
                return Err(EngineError::Logprobs { field, asked, vocab_size });
            }
        }
        for (field, asked, tokens) in
            [("logprobs", self.logprobs, max), ("prompt_logprobs", self.prompt_logprobs, prompt)]
        {
            let most = (MAX_ALTERNATIVES / tokens.max(1)).max(ALTERNATIVES_OF_EVERY_TOKEN);
            if let Some(asked) = asked.filter(|&asked| asked > most) {
                return Err(EngineError::Alternatives { field, asked, tokens, most });
            }
        }
        let SamplingParams { logit_bias, bad_words, .. } = &self.sampling;
        for (field, got, most) in [
            ("stop_tokens", self.stop_tokens.len(), MAX_STOP_TOKENS),
            ("logit_bias", logit_bias.len(), vocab_size),
        ] {
            if got > most {
                return Err(EngineError::TooMany { field, got, most });
            }
        }
        let biased: Vec<u32> = logit_bias.iter().map(|(token, _)| *token).collect();
        for (field, tokens) in [
            ("stop_tokens", &self.stop_tokens),
            ("eos_tokens", &self.eos_tokens),
            ("logit_bias", &biased),
            ("bad_words", &bad_words.concat()),
        ] {
            if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
                return Err(EngineError::UnknownTokenIn { field, token, vocab_size });
            }
        }
        Ok(())
    }

    /// Whether the request wants nothing but scores of its prompt.
    fn only_scores(&self) -> bool {
        self.max_tokens == Some(0) && self.prompt_logprobs.is_some()
    }

    /// `n` requests for independent answers to this one's prompt; see [`sample_seed`].
    ///
    /// ```
    /// use bantam_engine::Request;
    /// let request = Request::new(vec![1, 2]);
    /// let samples: Vec<Request> = request.samples(3).collect();
    /// assert_eq!(samples[0], request);
    /// assert_ne!(samples[1].sampling.seed, samples[2].sampling.seed);
    /// ```
    pub fn samples(&self, n: usize) -> impl Iterator<Item = Self> + use<'_> {
        (0..n).map(|index| {
            let mut request = self.clone();
            request.sampling.seed = sample_seed(self.sampling.seed, index);
            request
        })
    }
}

impl Limits {
    /// Checks that a request of one token can be served.
    pub(crate) fn validate(&self) -> Result<(), EngineError> {
        let all = [
            ("vocab_size", self.vocab_size, 1),
            ("context", self.context, 2),
            ("max_batch_tokens", self.max_batch_tokens, 1),
            ("max_sequences", self.max_sequences, 1),
            ("max_logit_rows", self.max_logit_rows, 1),
            ("num_blocks", self.num_blocks, 1),
            ("block_tokens", self.block_tokens, 1),
        ];
        match all.into_iter().find(|&(_, got, least)| got < least) {
            Some((limit, got, least)) => Err(EngineError::BadLimits { limit, got, least }),
            None => Ok(()),
        }
    }

    /// Tokens of a sequence that has context and cache for itself. The last token of a sequence is
    /// never computed, so it needs no place in the cache.
    #[must_use]
    pub const fn longest_sequence(&self) -> usize {
        let cached = self.num_blocks * self.block_tokens + 1;
        if cached < self.context { cached } else { self.context }
    }

    /// Tokens that can be generated after a prompt of `prompt` tokens.
    #[must_use]
    pub const fn room(&self, prompt: usize) -> usize {
        self.longest_sequence().saturating_sub(prompt)
    }
}

/// Refuses a prompt that is empty, leaves no room, or is not of this vocabulary.
pub(crate) fn check_prompt(prompt: &[u32], limits: &Limits) -> Result<(), EngineError> {
    let Limits { context, vocab_size, .. } = *limits;
    if prompt.len() >= context {
        return Err(EngineError::PromptTooLong { tokens: prompt.len(), context });
    }
    check_tokens(prompt, vocab_size)
}

/// The same for a prompt that is not continued.
fn check_scored_prompt(prompt: &[u32], limits: &Limits) -> Result<(), EngineError> {
    let Limits { context, vocab_size, .. } = *limits;
    if prompt.len() > context {
        return Err(EngineError::PromptBeyondContext { tokens: prompt.len(), context });
    }
    check_tokens(prompt, vocab_size)
}

fn check_tokens(prompt: &[u32], vocab_size: usize) -> Result<(), EngineError> {
    if prompt.is_empty() {
        return Err(EngineError::EmptyPrompt);
    }
    match prompt.iter().position(|&token| token as usize >= vocab_size) {
        Some(position) => {
            Err(EngineError::UnknownToken { token: prompt[position], position, vocab_size })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        vocab_size: 10,
        context: 100,
        max_batch_tokens: 8,
        max_sequences: 4,
        max_logit_rows: 4,
        num_blocks: 5,
        block_tokens: 4,
    };

    #[test]
    fn what_cannot_be_honoured_is_refused_with_a_value_that_can() {
        let ok = Request::new(vec![1; 10]);
        ok.validate(&LIMITS).unwrap();
        let biased =
            |token| SamplingParams { logit_bias: vec![(token, 1.0)], ..ok.sampling.clone() };
        let banned = SamplingParams { bad_words: vec![vec![3, 11]], ..ok.sampling.clone() };
        let cases = [
            (Request::new(vec![]), "the prompt is empty"),
            (Request::new(vec![1; 100]), "the prompt has 100 tokens, but a context of 100"),
            (Request::new(vec![1; 21]), "5 blocks of 4 tokens, room for 20; shorten it by 1"),
            (Request { max_tokens: Some(0), ..ok.clone() }, "max_tokens is 0, expected 1 to 11"),
            (Request { max_tokens: Some(12), ..ok.clone() }, "max_tokens is 12, expected 1 to 11"),
            (Request { min_tokens: 12, ..ok.clone() }, "min_tokens is 12, expected at most 11"),
            (Request { logprobs: Some(11), ..ok.clone() }, "logprobs is 11, expected at most 10"),
            (Request { stop_tokens: vec![10], ..ok.clone() }, "token 10 in stop_tokens"),
            (Request { eos_tokens: vec![12], ..ok.clone() }, "token 12 in eos_tokens"),
            (Request { sampling: biased(10), ..ok.clone() }, "token 10 in logit_bias"),
            (Request { sampling: banned, ..ok.clone() }, "token 11 in bad_words"),
        ];
        for (request, expected) in cases {
            let message = request.validate(&LIMITS).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
            assert!(!message.contains('\n'));
        }
        // Exactly full: the last token needs no place in the cache.
        Request { max_tokens: Some(11), min_tokens: 11, ..ok }.validate(&LIMITS).unwrap();
        Request::new(vec![1; 20]).validate(&LIMITS).unwrap();
    }
}
