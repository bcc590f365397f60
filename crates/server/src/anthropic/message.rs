//! A message, as it is answered.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::request::usage::Usage;

/// What the model says.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = MessagesMessage)]
pub(crate) struct Message {
    pub(crate) id: String,
    /// `message`.
    pub(crate) r#type: &'static str,
    /// `assistant`.
    pub(crate) role: &'static str,
    pub(crate) model: String,
    pub(crate) content: Vec<ContentBlock>,
    /// `end_turn`, `stop_sequence`, `tool_use`, `max_tokens`, or `model_context_window_exceeded` if
    /// there was no room for as many; none until the end.
    pub(crate) stop_reason: Option<&'static str>,
    /// The one of `stop_sequences` that ended the answer.
    pub(crate) stop_sequence: Option<String>,
    pub(crate) usage: MessageUsage,
}

/// A text or a call.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = MessagesContentBlock)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ContentBlock {
    /// A text.
    Text { text: String },
    /// A call of a function.
    ToolUse {
        /// The name by which its result refers to it.
        id: String,
        name: String,
        /// The arguments; empty if the call was cut off.
        #[schema(value_type = Object)]
        input: Value,
    },
}

/// What a message took.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub(crate) struct MessageUsage {
    /// Tokens of the prompt that were computed.
    input_tokens: usize,
    /// Always 0: keeping beginnings costs nothing.
    cache_creation_input_tokens: usize,
    /// Tokens of the prompt that were in the cache already.
    cache_read_input_tokens: usize,
    output_tokens: usize,
}

impl From<Usage> for MessageUsage {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens.saturating_sub(usage.cached_tokens),
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: usage.cached_tokens,
            output_tokens: usage.completion_tokens,
        }
    }
}
