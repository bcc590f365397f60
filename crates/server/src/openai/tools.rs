//! Tools and calls, as OpenAI writes them.

use bantam_text::{Function, Tool, ToolKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::request::tools::{CallRule, OfferedTool};

/// A function that the model may call.
#[derive(Clone, Debug, Deserialize, ToSchema)]
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
struct FunctionField {
    name: String,
    description: Option<String>,
    /// The JSON schema of the arguments.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Map<String, Value>>,
    /// Arguments satisfy the schema; a `tool_choice` that requires a call enforces that in any case.
    strict: Option<bool>,
}

/// Whether functions are called.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected none, auto, required, {\"type\": \"function\", \"function\": {\"name\": \
                 …}}, or {\"type\": \"allowed_tools\", \"allowed_tools\": {\"mode\": auto or \
                 required, \"tools\": […]}}"
)]
pub(crate) enum ToolChoiceField {
    Mode(ToolMode),
    Some(SomeTools),
}

/// `none`: no calls; `auto`: the model decides; `required`, or `any`: one or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToolMode {
    None,
    Auto,
    #[serde(alias = "any")]
    Required,
}

/// Functions that may be called.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum SomeTools {
    /// One call of this function.
    Function { function: NamedFunction },
    /// Calls of these functions only; the model is told about the others all the same.
    AllowedTools { allowed_tools: AllowedTools },
}

/// The name of a function.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct NamedFunction {
    name: String,
}

/// Which functions may be called, and whether one must.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct AllowedTools {
    mode: AllowedMode,
    tools: Vec<NamedTool>,
}

/// `auto`: the model decides; `required`: one or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AllowedMode {
    Auto,
    Required,
}

/// A function by its name.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct NamedTool {
    #[expect(dead_code, reason = "there is one kind")]
    r#type: Kind,
    function: NamedFunction,
}

impl ToolField {
    /// The function, in no protocol's words.
    pub(crate) fn offered(self) -> OfferedTool {
        let FunctionField { name, description, parameters, strict } = self.function;
        let parameters = parameters.map(Value::Object);
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
            Self::Some(SomeTools::Function { function }) => CallRule::Named(function.name),
            Self::Some(SomeTools::AllowedTools { allowed_tools: AllowedTools { mode, tools } }) => {
                let names = tools.into_iter().map(|tool| tool.function.name).collect();
                CallRule::Among { names, required: mode == AllowedMode::Required }
            }
        }
    }
}

/// A call that the model makes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct CallField {
    /// The name by which its result refers to it.
    pub(crate) id: String,
    pub(crate) r#type: Kind,
    pub(crate) function: CalledFunction,
}

/// Which function is called with what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct CalledFunction {
    pub(crate) name: String,
    /// JSON, as text.
    pub(crate) arguments: String,
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
