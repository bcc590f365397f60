//! Tools and calls, as OpenAI writes them.

use bantam_text::{Function, Tool, ToolCall, ToolKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::request::tools::{CallRule, OfferedTool};
use crate::request_id::random;

/// A function that the model may call.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolField {
    #[expect(dead_code, reason = "there is one kind")]
    r#type: Kind,
    function: FunctionField,
}

/// `function`, the only kind there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    #[default]
    Function,
}

/// What the model is told about a function.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct FunctionField {
    name: String,
    description: Option<String>,
    /// The JSON schema of the arguments.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Value>,
    /// Arguments satisfy the schema; a `tool_choice` that requires a call enforces that in any case.
    strict: Option<bool>,
}

/// Whether functions are called.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected none, auto, required, or {\"type\": \"function\", \"function\": \
                 {\"name\": …}}"
)]
pub(crate) enum ToolChoiceField {
    Mode(ToolMode),
    Named(NamedTool),
}

/// `none`: no calls; `auto`: the model decides; `required`: one or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToolMode {
    None,
    Auto,
    Required,
}

/// A call of this function.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedTool {
    #[expect(dead_code, reason = "there is one kind")]
    r#type: Kind,
    function: NamedFunction,
}

#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NamedFunction {
    name: String,
}

impl ToolField {
    /// The function, in no protocol's words.
    pub(crate) fn offered(self) -> OfferedTool {
        let FunctionField { name, description, parameters, strict } = self.function;
        let function = Function { name, description, parameters };
        let tool = Tool { kind: ToolKind::Function, function };
        OfferedTool { tool, strict: strict == Some(true) }
    }
}

impl ToolChoiceField {
    /// The same in no protocol's words.
    pub(crate) fn rule(self) -> CallRule {
        match self {
            Self::Mode(ToolMode::None) => CallRule::Never,
            Self::Mode(ToolMode::Auto) => CallRule::Auto,
            Self::Mode(ToolMode::Required) => CallRule::Required,
            Self::Named(named) => CallRule::Named(named.function.name),
        }
    }
}

/// A call that the model makes or made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallField {
    /// The name by which its result refers to it.
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) r#type: Kind,
    pub(crate) function: CalledFunction,
}

/// Which function is called with what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CalledFunction {
    pub(crate) name: String,
    /// JSON, as text.
    pub(crate) arguments: String,
}

impl CallField {
    /// The call as templates see it; `place` is where it stands.
    pub(crate) fn into_call(self, place: &str) -> Result<ToolCall, ApiError> {
        let Self { id, function: CalledFunction { name, arguments }, .. } = self;
        let parsed: Result<Value, _> = serde_json::from_str(&arguments);
        match parsed {
            Ok(arguments @ Value::Object(_)) => Ok(ToolCall::new(id, name, arguments)),
            _ => {
                let message =
                    format!("{place}.function.arguments is not the text of a JSON object");
                Err(ApiError::bad_request(message).param(format!("{place}.function.arguments")))
            }
        }
    }
}

/// What a call grows by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct CallDelta {
    /// The number of the call in its answer.
    pub(crate) index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) r#type: Option<Kind>,
    pub(crate) function: FunctionDelta,
}

/// What the function of a call grows by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FunctionDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    pub(crate) arguments: String,
}

/// A name for a call: nine letters and digits, the only form that Mistral's templates take back.
pub(crate) fn call_id() -> String {
    let mut rest = random();
    let digit = |_| {
        let digit = (rest % 36) as u32;
        rest /= 36;
        char::from_digit(digit, 36).unwrap_or('0')
    };
    (0..9).map(digit).collect()
}
