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
    /// Tokens that an answer could have, if fewer than the request asks for: the model's context has
    /// no more room.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<usize>,
}

/// Where the prompt came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct PromptTokensDetails {
    /// Tokens that were in the cache already, of the first answer to each prompt.
    cached_tokens: usize,
}

impl From<Counted> for Usage {
    fn from(counted: Counted) -> Self {
        let Counted { prompt_tokens, cached_tokens, completion_tokens, shortened } = counted;
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: PromptTokensDetails { cached_tokens },
            max_completion_tokens: shortened,
        }
    }
}
