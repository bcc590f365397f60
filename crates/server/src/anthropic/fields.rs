//! What a request to `/v1/messages` may say.

use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::anthropic::conversation::{MessageParam, SystemContent};
use crate::anthropic::notes::NOTES;
use crate::anthropic::tools::{ToolChoice, ToolParam};
use crate::request::fields::FieldSet;
use crate::request::sampling::Seed;

/// What the prompt is made of, and what the answer may be.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = MessagesPromptFields)]
pub(crate) struct PromptFields {
    /// The model's name; may be missing where one is served.
    pub(crate) model: Option<String>,
    /// The conversation so far: one message or more. An answer goes on with the last one if it is
    /// the assistant's.
    #[schema(value_type = Vec<MessageParam>)]
    pub(crate) messages: Value,
    /// A system message before everything else: a text, or blocks of text.
    #[schema(value_type = Option<SystemContent>)]
    pub(crate) system: Option<Value>,
    /// Functions that the model may call.
    pub(crate) tools: Option<Vec<ToolParam>>,
    /// What of them is called; the model decides if not set.
    pub(crate) tool_choice: Option<ToolChoice>,
    /// Whether the model thinks: the chat template's `enable_thinking`, where it has it.
    pub(crate) thinking: Option<Thinking>,
    /// The form of the text, and how much the model thinks.
    pub(crate) output_config: Option<OutputConfig>,
}

/// Whether the model thinks.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = MessagesThinking)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Thinking {
    /// It does.
    Enabled {},
    /// It does as it sees fit.
    Adaptive {},
    /// It does, between calls too.
    BetweenTools {},
    /// It does not.
    Disabled {},
}

/// The form of the text, and how much the model thinks.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = MessagesOutputConfig)]
pub(crate) struct OutputConfig {
    /// The chat template's `reasoning_effort`, where it has it.
    pub(crate) effort: Option<String>,
    /// Any text if not set.
    pub(crate) format: Option<OutputFormat>,
}

/// The form of the text.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = MessagesOutputFormat)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum OutputFormat {
    /// JSON that satisfies a schema.
    JsonSchema {
        /// The schema; a keyword that cannot be enforced is refused.
        #[schema(value_type = Object)]
        schema: Map<String, Value>,
    },
}

/// How the answer is made and told.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = MessagesAnswerFields)]
pub(crate) struct AnswerFields {
    /// Tokens of the answer at most.
    pub(crate) max_tokens: i64,
    /// Divides the logits; 0 always takes the most probable token. 1 if not set.
    pub(crate) temperature: Option<f32>,
    /// Probability that the kept tokens reach together, more than 0 and at most 1.
    pub(crate) top_p: Option<f32>,
    /// Tokens kept, most probable first; 0 or -1 keeps all.
    pub(crate) top_k: Option<i64>,
    /// Up to 16 texts: the answer ends before the first that appears.
    pub(crate) stop_sequences: Option<Vec<String>>,
    /// Sends the answer as it is made, in typed events.
    pub(crate) stream: Option<bool>,
    /// Who asks.
    pub(crate) metadata: Option<Metadata>,
    /// Probability of a kept token relative to the most probable one, 0 to 1.
    pub(crate) min_p: Option<f32>,
    /// Same seed, same answer; drawn if not set.
    #[schema(value_type = Option<i64>)]
    pub(crate) seed: Option<Seed>,
    /// Goes on after the model's own end tokens.
    pub(crate) ignore_eos: Option<bool>,
    /// Requests with a lower number go first; 0 if not set.
    pub(crate) priority: Option<i32>,
    /// Seconds after which the request fails.
    pub(crate) timeout: Option<f64>,
    /// Only requests with the same salt share cached prompts.
    pub(crate) cache_salt: Option<String>,
}

/// Who asks.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = MessagesMetadata)]
pub(crate) struct Metadata {
    /// A name for the log.
    pub(crate) user_id: Option<String>,
}

/// All fields of a request.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the schema only")]
pub(crate) struct CreateMessage {
    #[serde(flatten)]
    prompt: PromptFields,
    #[serde(flatten)]
    answer: AnswerFields,
}

/// All fields of a request to count tokens.
#[derive(ToSchema)]
#[schema(as = CountMessageTokens)]
#[expect(dead_code, reason = "for the schema only")]
pub(crate) struct CountTokens {
    #[serde(flatten)]
    prompt: PromptFields,
}

/// `/v1/messages`.
pub(crate) static CREATE: LazyLock<FieldSet> =
    LazyLock::new(|| FieldSet::of::<CreateMessage>(&[&NOTES]));

/// `/v1/messages/count_tokens`.
pub(crate) static COUNT: LazyLock<FieldSet> =
    LazyLock::new(|| FieldSet::of::<CountTokens>(&[&NOTES]));
