//! What a request took.

use crate::answer::CompleteAnswer;

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Tokens of the prompts; each prompt counts once, however many answers it has.
    pub(crate) prompt_tokens: usize,
    /// Of those, tokens that were in the cache already, by the first answer to each prompt.
    pub(crate) cached_tokens: usize,
    /// Tokens chosen, those that ended answers included.
    pub(crate) completion_tokens: usize,
    /// Tokens that an answer could have, if fewer than the request asks for.
    pub(crate) shortened: Option<usize>,
}

impl Usage {
    /// A request with prompts of this many tokens.
    pub(crate) fn of_prompts(prompt_tokens: usize) -> Self {
        Self { prompt_tokens, ..Self::default() }
    }

    /// Adds an answer that is not returned.
    pub(crate) fn discard(&mut self, answer: &CompleteAnswer) {
        let generated = answer.ending.as_ref().map_or(0, |ending| ending.usage.generated_tokens);
        self.completion_tokens += generated;
    }

    /// Adds an answer; `first` if it is the first to its prompt.
    pub(crate) fn add(&mut self, answer: &bantam_engine::Usage, first: bool) {
        self.completion_tokens += answer.generated_tokens;
        if first {
            self.cached_tokens += answer.cached_tokens;
        }
    }
}
