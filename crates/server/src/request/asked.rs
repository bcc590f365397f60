//! What a request asks, checked, for any prompt.

use bantam_engine::{Limits, Request, Submission};
use bantam_text::Grammar;

use crate::ServedModel;
use crate::answer::AnswerOptions;
use crate::request::allowed::AllowedTokens;

/// Contexts that a prompt may have before it is shortened: all of it is tokenized.
const MAX_TRUNCATION: usize = 16;

/// What the fields ask of the engine, for any prompt.
pub(crate) struct Asked {
    /// A request without prompt.
    pub(crate) request: Request,
    /// The form of the answers.
    pub(crate) grammar: Option<Grammar>,
    /// Answers returned for each prompt.
    pub(crate) n: usize,
    /// Answers made for each prompt.
    pub(crate) best_of: usize,
    /// The length penalty of a beam search; none if answers are drawn.
    pub(crate) beam_search: Option<f64>,
    pub(crate) options: AnswerOptions,
    /// Only these tokens are chosen.
    pub(crate) allowed: Option<AllowedTokens>,
    pub(crate) truncation: Option<Truncation>,
    pub(crate) token_ids: bool,
    pub(crate) tokens_as_ids: bool,
    pub(crate) stream: bool,
    pub(crate) stream_usage: StreamUsage,
    pub(crate) user: Option<String>,
}

/// Where a stream shows its usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum StreamUsage {
    #[default]
    Nowhere,
    /// In a chunk of its own at the end.
    AtTheEnd,
    /// In every chunk; `last` also in one of its own at the end.
    InEveryChunk { last: bool },
}

/// How much of a prompt is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truncation {
    /// The last tokens, this many.
    Last(usize),
    /// As many as leave room for the answer.
    ToFit,
}

impl Asked {
    /// The request with a prompt. A longest answer beyond the room after it is shortened to the room,
    /// as OpenAI and llama-server do; [`shortened`](Self::shortened) tells.
    pub(crate) fn request_of(&self, prompt: Vec<u32>, limits: &Limits) -> Request {
        let room = limits.room(prompt.len());
        // Without room the engine says what is wrong.
        let fitting = |max_tokens: usize| if room > 0 { max_tokens.min(room) } else { max_tokens };
        let max_tokens = self.request.max_tokens.map(fitting);
        Request { prompt, max_tokens, ..self.request.clone() }
    }

    /// Tokens that the answer to a prompt may have, if the request asks for more.
    pub(crate) fn shortened(&self, prompt: usize, limits: &Limits) -> Option<usize> {
        let room = limits.room(prompt);
        self.request.max_tokens.filter(|&asked| asked > room).map(|_| room)
    }

    /// The requests for the answers to a prompt.
    pub(crate) fn submissions(
        &self,
        prompt: Vec<u32>,
        limits: &Limits,
    ) -> impl Iterator<Item = Submission> + '_ {
        let request = self.request_of(prompt, limits);
        let samples: Vec<Request> = request.samples(self.best_of).collect();
        samples.into_iter().map(|request| match (&self.grammar, &self.allowed) {
            (None, None) => request.into(),
            (Some(grammar), None) => request.constrained(Box::new(grammar.matcher())),
            (None, Some(allowed)) => request.constrained(Box::new(allowed.clone())),
            (Some(grammar), Some(allowed)) => {
                let matcher = Box::new(grammar.matcher());
                request.constrained(Box::new(allowed.clone().within(matcher)))
            }
        })
    }

    /// Tokens of a prompt that are worth reading; a longer one is refused.
    pub(crate) fn prompt_bound(&self, model: &ServedModel) -> usize {
        let times = if self.truncation.is_some() { MAX_TRUNCATION } else { 1 };
        model.context() * times
    }

    /// What is kept of a prompt.
    pub(crate) fn truncated(&self, mut prompt: Vec<u32>, limits: &Limits) -> Vec<u32> {
        let kept = match self.truncation {
            None => return prompt,
            Some(Truncation::Last(count)) => count,
            Some(Truncation::ToFit) => {
                limits.room(self.request.max_tokens.unwrap_or(1).max(1)).max(1)
            }
        };
        let cut = prompt.len().saturating_sub(kept);
        prompt.split_off(cut)
    }
}
