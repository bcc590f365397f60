//! A response, as it is shown and kept.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorKind};
use crate::openai::logprobs::ChatLogprob;
use crate::openai::responses::fields::Truncation;
use crate::request::usage::Usage;

/// What a request was answered with, and what it asked for.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ResponseObject {
    pub(crate) id: String,
    /// `response`.
    pub(crate) object: &'static str,
    /// In seconds since 1970.
    pub(crate) created_at: u64,
    pub(crate) status: Status,
    pub(crate) completed_at: Option<u64>,
    /// Always false.
    pub(crate) background: bool,
    pub(crate) error: Option<Failure>,
    pub(crate) incomplete_details: Option<IncompleteDetails>,
    pub(crate) instructions: Option<String>,
    pub(crate) max_output_tokens: Option<i64>,
    pub(crate) model: String,
    pub(crate) output: Vec<OutputItem>,
    pub(crate) parallel_tool_calls: bool,
    pub(crate) previous_response_id: Option<String>,
    #[schema(value_type = Object)]
    pub(crate) reasoning: Value,
    pub(crate) store: bool,
    pub(crate) temperature: f32,
    #[schema(value_type = Object)]
    pub(crate) text: Value,
    pub(crate) tool_choice: Value,
    #[schema(value_type = Vec<Object>)]
    pub(crate) tools: Vec<Value>,
    pub(crate) top_logprobs: usize,
    pub(crate) top_p: f32,
    pub(crate) truncation: Truncation,
    /// None until the end.
    pub(crate) usage: Option<ResponseUsage>,
    pub(crate) user: Option<String>,
    /// `default`.
    pub(crate) service_tier: &'static str,
    #[schema(value_type = std::collections::HashMap<String, String>)]
    pub(crate) metadata: Map<String, Value>,
}

/// How far a response, or an item of it, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    InProgress,
    Completed,
    Incomplete,
    Failed,
}

/// Why a response is incomplete.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct IncompleteDetails {
    /// `max_output_tokens`: the answer has as many tokens as it may, or as fit.
    pub(crate) reason: &'static str,
}

/// Why a response failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Failure {
    code: &'static str,
    message: String,
}

impl From<&ApiError> for Failure {
    fn from(error: &ApiError) -> Self {
        let code = match error.kind {
            ErrorKind::BadRequest | ErrorKind::Unprocessable => "invalid_prompt",
            ErrorKind::Overloaded => "rate_limit_exceeded",
            _ => "server_error",
        };
        Self { code, message: error.message.clone() }
    }
}

/// What the model said or called.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum OutputItem {
    /// A text.
    Message {
        id: String,
        status: Status,
        /// `assistant`.
        role: &'static str,
        content: Vec<OutputText>,
    },
    /// A call of a function.
    FunctionCall {
        id: String,
        status: Status,
        /// The name by which its output refers to it.
        call_id: String,
        name: String,
        /// JSON, as text.
        arguments: String,
    },
}

/// The text of a message.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct OutputText {
    /// `output_text`.
    r#type: &'static str,
    pub(crate) text: String,
    /// Always empty.
    annotations: [u8; 0],
    /// How probable its tokens were, if asked.
    pub(crate) logprobs: Vec<ChatLogprob>,
}

impl OutputText {
    /// A text that begins.
    pub(crate) const fn new() -> Self {
        Self { r#type: "output_text", text: String::new(), annotations: [], logprobs: Vec::new() }
    }
}

/// What a response took.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct ResponseUsage {
    input_tokens: usize,
    input_tokens_details: InputTokensDetails,
    output_tokens: usize,
    output_tokens_details: OutputTokensDetails,
    total_tokens: usize,
}

/// Where the prompt came from.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
struct InputTokensDetails {
    /// Tokens that were in the cache already.
    cached_tokens: usize,
    /// Always 0: keeping beginnings costs nothing.
    cache_write_tokens: usize,
}

/// What the answer consists of.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
struct OutputTokensDetails {
    /// Always 0: thoughts are part of the text.
    reasoning_tokens: usize,
}

impl From<Usage> for ResponseUsage {
    fn from(usage: Usage) -> Self {
        let cached_tokens = usage.cached_tokens;
        Self {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputTokensDetails { cached_tokens, cache_write_tokens: 0 },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputTokensDetails { reasoning_tokens: 0 },
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
        }
    }
}
