//! Answers of a given form: `response_format` and `structured_outputs`.

use bantam_text::GrammarSpec;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::ApiError;

/// The form of the answer, as OpenAI has it.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ResponseFormat {
    /// Any text.
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that satisfies a schema.
    JsonSchema { json_schema: JsonSchemaFormat },
}

/// A JSON schema with its name.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JsonSchemaFormat {
    /// Any name.
    #[expect(dead_code, reason = "a label without effect, as OpenAI has it")]
    name: Option<String>,
    /// What the answer is for.
    #[expect(dead_code, reason = "a label without effect: the model sees what the messages say")]
    description: Option<String>,
    /// The schema; a keyword that cannot be enforced is refused.
    #[schema(value_type = Object)]
    schema: Value,
    /// Always so: the answer satisfies the schema in any case.
    #[expect(dead_code, reason = "a schema is always enforced")]
    strict: Option<bool>,
}

/// The form of the answer, as vLLM has it: exactly one of these.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StructuredOutputs {
    /// A JSON schema, as an object or as text.
    #[schema(value_type = Option<Object>)]
    pub(crate) json: Option<Value>,
    /// A regular expression that matches the whole answer.
    pub(crate) regex: Option<String>,
    /// The answer is one of these texts.
    pub(crate) choice: Option<Vec<String>>,
    /// A grammar in the Lark dialect of llguidance, beginning at the rule `start`.
    pub(crate) grammar: Option<String>,
    /// Any JSON object, if true.
    pub(crate) json_object: Option<bool>,
}

impl ResponseFormat {
    /// The grammar of the answer, if its form is limited.
    pub(crate) fn into_spec(self) -> Option<GrammarSpec> {
        match self {
            Self::Text => None,
            Self::JsonObject => Some(GrammarSpec::JsonObject),
            Self::JsonSchema { json_schema } => Some(GrammarSpec::JsonSchema(json_schema.schema)),
        }
    }
}

impl StructuredOutputs {
    /// The grammar of the answer.
    pub(crate) fn into_spec(self) -> Result<GrammarSpec, ApiError> {
        let Self { json, regex, choice, grammar, json_object } = self;
        let json = json.map(schema).transpose()?;
        let all = [
            json.map(GrammarSpec::JsonSchema),
            regex.map(GrammarSpec::Regex),
            choice.map(GrammarSpec::Choice),
            grammar.map(GrammarSpec::Lark),
            json_object.filter(|&on| on).map(|_| GrammarSpec::JsonObject),
        ];
        let mut given = all.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(spec), None) => Ok(spec),
            (first, _) => {
                let got = if first.is_none() { "none" } else { "several" };
                let message = format!(
                    "structured_outputs has {got} of json, regex, choice, grammar and \
                     json_object, expected exactly one"
                );
                Err(ApiError::bad_request(message).param("structured_outputs"))
            }
        }
    }
}

/// A schema that may be written as text.
fn schema(json: Value) -> Result<Value, ApiError> {
    let Value::String(text) = json else { return Ok(json) };
    serde_json::from_str(&text).map_err(|error| {
        let message = format!("structured_outputs.json is text that is not JSON: {error}");
        ApiError::bad_request(message).param("structured_outputs.json")
    })
}
