//! What a request took.

use serde::Serialize;
use utoipa::ToSchema;

use crate::answer::CompleteAnswer;

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Usage {
    /// Tokens of the prompts; each prompt counts once, however many answers it has.
    pub(crate) prompt_tokens: usize,
    /// Tokens chosen, those that ended answers included.
    pub(crate) completion_tokens: usize,
    pub(crate) total_tokens: usize,
    pub(crate) prompt_tokens_details: PromptTokensDetails,
}

/// Where the prompt came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct PromptTokensDetails {
    /// Tokens that were in the cache already, of the first answer to each prompt.
    pub(crate) cached_tokens: usize,
}

impl Usage {
    /// A request with prompts of this many tokens.
    pub(crate) fn of_prompts(prompt_tokens: usize) -> Self {
        Self { prompt_tokens, total_tokens: prompt_tokens, ..Self::default() }
    }

    /// Adds an answer that is not returned.
    pub(crate) fn discard(&mut self, answer: &CompleteAnswer) {
        let generated = answer.ending.as_ref().map_or(0, |ending| ending.usage.generated_tokens);
        self.completion_tokens += generated;
        self.total_tokens += generated;
    }

    /// Adds an answer; `first` if it is the first to its prompt.
    pub(crate) fn add(&mut self, answer: &bantam_engine::Usage, first: bool) {
        self.completion_tokens += answer.generated_tokens;
        self.total_tokens += answer.generated_tokens;
        if first {
            self.prompt_tokens_details.cached_tokens += answer.cached_tokens;
        }
    }
}
