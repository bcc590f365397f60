//! What a request took, as OpenAI says it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::request::usage::Usage as Counted;

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Usage {
    /// Tokens of the prompts; each prompt counts once, however many answers it has.
    prompt_tokens: usize,
    /// Tokens chosen, those that ended answers included.
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptTokensDetails,
}

/// Where the prompt came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct PromptTokensDetails {
    /// Tokens that were in the cache already, of the first answer to each prompt.
    cached_tokens: usize,
}

impl From<Counted> for Usage {
    fn from(counted: Counted) -> Self {
        let Counted { prompt_tokens, cached_tokens, completion_tokens } = counted;
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: PromptTokensDetails { cached_tokens },
        }
    }
}
