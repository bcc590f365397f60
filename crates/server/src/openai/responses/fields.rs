//! What a request to `/v1/responses` may say.

use std::collections::HashMap;
use std::sync::LazyLock;

use bantam_text::GrammarSpec;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::openai::responses::items::Input;
use crate::openai::responses::notes::NOTES;
use crate::openai::responses::tools::{Tool, ToolChoice};
use crate::request::conversation::ReasoningEffort;
use crate::request::fields::FieldSet;
use crate::request::sampling::{OneOrMore, Seed};

/// What the prompt is made of, and what the answer may be.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = ResponsePromptFields)]
pub(crate) struct PromptFields {
    /// The model's name; may be missing where one is served.
    pub(crate) model: Option<String>,
    /// What the user says, or the items of the conversation so far.
    #[schema(value_type = Input)]
    pub(crate) input: Value,
    /// A system message before everything else; not carried over to the next response.
    pub(crate) instructions: Option<String>,
    /// Goes on after this response, if the server still keeps it.
    pub(crate) previous_response_id: Option<String>,
    /// Functions that the model may call.
    pub(crate) tools: Option<Vec<Tool>>,
    /// `auto` (the model decides), `none`, `required`, a function by its name, or some of the tools;
    /// `auto` if not set.
    pub(crate) tool_choice: Option<ToolChoice>,
    /// Several calls in one answer; true if not set. If false, calls after the first are left out.
    pub(crate) parallel_tool_calls: Option<bool>,
    /// The form of the text.
    pub(crate) text: Option<TextField>,
    /// How much the model thinks, for chat templates that know it.
    pub(crate) reasoning: Option<ReasoningField>,
    /// What becomes of a conversation that is longer than the context; `disabled` if not set.
    pub(crate) truncation: Option<Truncation>,
}

/// How the answer is made, told and kept.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[schema(as = ResponseAnswerFields)]
pub(crate) struct AnswerFields {
    /// Tokens of the answer at most; as many as fit if not set.
    pub(crate) max_output_tokens: Option<i64>,
    /// Divides the logits; 0 always takes the most probable token. 1 if not set.
    pub(crate) temperature: Option<f32>,
    /// Probability that the kept tokens reach together, more than 0 and at most 1.
    pub(crate) top_p: Option<f32>,
    /// Alternatives shown for each token, 0 to 20.
    pub(crate) top_logprobs: Option<usize>,
    /// What the answer shows besides: `message.output_text.logprobs`. Other names ask for parts that
    /// answers here do not have.
    pub(crate) include: Option<Vec<String>>,
    /// Up to 16 texts of the client's own, shown again in the response.
    pub(crate) metadata: Option<HashMap<String, String>>,
    /// Keeps the response for a while, for `previous_response_id`; true if not set.
    pub(crate) store: Option<bool>,
    /// Sends the answer as it is made, in typed events.
    pub(crate) stream: Option<bool>,
    /// A name for the log.
    pub(crate) user: Option<String>,
    /// Tokens kept, most probable first; 0 or -1 keeps all.
    pub(crate) top_k: Option<i64>,
    /// Probability of a kept token relative to the most probable one, 0 to 1.
    pub(crate) min_p: Option<f32>,
    /// Factor against tokens of the prompt and the answer, more than 0; 1 has no effect.
    pub(crate) repetition_penalty: Option<f32>,
    /// Subtracted from the logit of a token that is in the answer already.
    pub(crate) presence_penalty: Option<f32>,
    /// Subtracted from a token's logit for each time it is in the answer already.
    pub(crate) frequency_penalty: Option<f32>,
    /// Same seed, same answer; drawn if not set.
    #[schema(value_type = Option<i64>)]
    pub(crate) seed: Option<Seed>,
    /// A text or up to 16: the answer ends before the first that appears.
    pub(crate) stop: Option<OneOrMore>,
    /// Goes on after the model's own end tokens.
    pub(crate) ignore_eos: Option<bool>,
    /// Requests with a lower number go first; 0 if not set.
    pub(crate) priority: Option<i32>,
    /// Seconds after which the request fails.
    pub(crate) timeout: Option<f64>,
    /// Only requests with the same salt share cached prompts.
    pub(crate) cache_salt: Option<String>,
}

/// The form of the text.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[schema(as = ResponseText)]
pub(crate) struct TextField {
    /// Any text if not set.
    pub(crate) format: Option<TextFormat>,
}

/// A form.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = ResponseTextFormat)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum TextFormat {
    /// Any text.
    Text {},
    /// Any JSON object.
    JsonObject {},
    /// JSON that satisfies a schema.
    JsonSchema {
        /// A label, shown again in the response.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// A label, shown again: the model sees what the input says.
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// The schema; a keyword that cannot be enforced is refused.
        #[schema(value_type = Object)]
        schema: Map<String, Value>,
        /// Shown again; the text satisfies the schema in any case.
        #[serde(skip_serializing_if = "Option::is_none")]
        strict: Option<bool>,
    },
}

impl TextField {
    /// The grammar of the text, if its form is limited, and the field that says so.
    pub(crate) fn spec(&self) -> Option<(&'static str, GrammarSpec)> {
        let spec = match self.format.as_ref()? {
            TextFormat::Text {} => return None,
            TextFormat::JsonObject {} => GrammarSpec::JsonObject,
            TextFormat::JsonSchema { schema, .. } => {
                GrammarSpec::JsonSchema(Value::Object(schema.clone()))
            }
        };
        Some(("text.format", spec))
    }

    /// What the response shows.
    pub(crate) fn shown(&self) -> Value {
        json!({"format": self.format.as_ref().unwrap_or(&TextFormat::Text {})})
    }
}

/// How much the model thinks.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = ResponseReasoning)]
pub(crate) struct ReasoningField {
    /// The chat template's `reasoning_effort`, where it has it.
    pub(crate) effort: Option<ReasoningEffort>,
}

/// What becomes of a conversation that is longer than the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ResponseTruncation)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Truncation {
    /// The oldest turns are left out.
    Auto,
    /// It is refused.
    #[default]
    Disabled,
}

/// All fields of a request.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the schema only")]
pub(crate) struct CreateResponse {
    #[serde(flatten)]
    prompt: PromptFields,
    #[serde(flatten)]
    answer: AnswerFields,
}

/// `/v1/responses`.
pub(crate) static CREATE: LazyLock<FieldSet> =
    LazyLock::new(|| FieldSet::of::<CreateResponse>(&[&NOTES]));

/// `/v1/responses/input_tokens`.
pub(crate) static COUNT: LazyLock<FieldSet> =
    LazyLock::new(|| FieldSet::of::<PromptFields>(&[&NOTES]));
