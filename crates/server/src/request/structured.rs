//! Answers of a given form: `response_format` and `structured_outputs`.

use bantam_text::GrammarSpec;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::ApiError;

/// The form of the answer, as OpenAI has it.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ResponseFormat {
    /// Any text.
    Text,
    /// A JSON object; with a schema, JSON that satisfies it.
    JsonObject {
        #[schema(value_type = Option<Object>)]
        schema: Option<Value>,
    },
    /// JSON that satisfies a schema.
    JsonSchema {
        json_schema: Option<JsonSchemaFormat>,
        /// The schema by itself, as some servers have it.
        #[schema(value_type = Option<Object>)]
        schema: Option<Value>,
    },
    /// What a grammar derives, as `structured_outputs.grammar`.
    Grammar { grammar: String },
}

/// A JSON schema.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct JsonSchemaFormat {
    /// The schema; a keyword that cannot be enforced is refused.
    #[schema(value_type = Object)]
    schema: Value,
}

/// The form of the answer, as vLLM has it: exactly one of these.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct StructuredOutputs {
    /// A JSON schema, as an object or as text.
    #[schema(value_type = Option<Object>)]
    pub(crate) json: Option<Value>,
    /// A regular expression that matches the whole answer.
    pub(crate) regex: Option<String>,
    /// The answer is one of these texts.
    pub(crate) choice: Option<Vec<String>>,
    /// A grammar in the Lark dialect of llguidance, beginning at the rule `start`; or in GBNF, which
    /// writes `::=`, beginning at `root`.
    pub(crate) grammar: Option<String>,
    /// Any JSON object, if true.
    pub(crate) json_object: Option<bool>,
}

impl ResponseFormat {
    /// The grammar of the answer, if its form is limited.
    pub(crate) fn into_spec(self) -> Result<Option<GrammarSpec>, ApiError> {
        Ok(match self {
            Self::Text => None,
            Self::JsonObject { schema: None } => Some(GrammarSpec::JsonObject),
            Self::JsonObject { schema: Some(schema) }
            | Self::JsonSchema { json_schema: None, schema: Some(schema) }
            | Self::JsonSchema { json_schema: Some(JsonSchemaFormat { schema }), schema: None } => {
                Some(GrammarSpec::JsonSchema(schema))
            }
            Self::JsonSchema { json_schema, .. } => {
                let got = if json_schema.is_some() { "two schemas" } else { "no schema" };
                let message =
                    format!("response_format has {got}, expected one in json_schema.schema");
                return Err(ApiError::bad_request(message).param("response_format.json_schema"));
            }
            Self::Grammar { grammar: source } => Some(grammar(source)),
        })
    }
}

impl StructuredOutputs {
    /// The grammar of the answer.
    pub(crate) fn into_spec(self) -> Result<GrammarSpec, ApiError> {
        let Self { json, regex, choice, grammar, json_object } = self;
        let json = json.map(|json| schema(json, "structured_outputs.json")).transpose()?;
        let all = [
            json.map(GrammarSpec::JsonSchema),
            regex.map(GrammarSpec::Regex),
            choice.map(GrammarSpec::Choice),
            grammar.map(self::grammar),
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

/// A grammar, in the notation that its rules give away.
pub(crate) fn grammar(source: String) -> GrammarSpec {
    GrammarSpec::Lark(source)
}

/// A schema of this field, which may be written as text.
pub(crate) fn schema(json: Value, field: &str) -> Result<Value, ApiError> {
    let Value::String(text) = json else { return Ok(json) };
    serde_json::from_str(&text).map_err(|error| {
        let message = format!("{field} is text that is not JSON: {error}");
        ApiError::bad_request(message).param(field)
    })
}
