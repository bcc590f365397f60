//! Tools and the choice among them, as `/v1/responses` writes them: flat.

use bantam_text::{Function, Tool as TextTool, ToolKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::request::tools::{CallRule, OfferedTool};

/// What the model may call.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = ResponseTool)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Tool {
    /// A function of the client's.
    Function {
        name: String,
        description: Option<String>,
        /// The JSON schema of the arguments.
        #[schema(value_type = Option<Object>)]
        parameters: Option<Map<String, Value>>,
        /// Arguments satisfy the schema; a `tool_choice` that requires a call enforces that in any
        /// case.
        strict: Option<bool>,
    },
}

/// The choice among the tools.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = ResponseToolChoice)]
#[serde(
    untagged,
    expecting = "expected none, auto, required, or an object of type function or allowed_tools"
)]
pub(crate) enum ToolChoice {
    Mode(ToolMode),
    These(TheseTools),
}

/// `none`: no calls; `auto`: the model decides; `required`: one or more.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = ResponseToolMode)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToolMode {
    None,
    Auto,
    Required,
}

/// Some of the tools.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = ResponseTheseTools)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum TheseTools {
    /// One call of this function.
    Function { name: String },
    /// Calls of these functions only.
    AllowedTools { mode: AllowedMode, tools: Vec<ToolName> },
}

/// `auto`: the model decides; `required`: one call or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ResponseAllowedMode)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AllowedMode {
    Auto,
    Required,
}

/// A tool by its name.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = ResponseToolName)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ToolName {
    Function { name: String },
}

impl Tool {
    /// The function, in no protocol's words.
    pub(crate) fn offered(&self) -> OfferedTool {
        let Self::Function { name, description, parameters, strict } = self.clone();
        let parameters = parameters.map(Value::Object);
        let function = Function { name, description, parameters };
        let tool = TextTool { kind: ToolKind::Function, function };
        OfferedTool { tool, strict: strict == Some(true) }
    }
}

impl ToolChoice {
    /// The same in no protocol's words.
    pub(crate) fn rule(&self) -> CallRule {
        match self.clone() {
            Self::Mode(ToolMode::None) => CallRule::Never,
            Self::Mode(ToolMode::Auto) => CallRule::Auto,
            Self::Mode(ToolMode::Required) => CallRule::Required,
            Self::These(TheseTools::Function { name }) => CallRule::Named(name),
            Self::These(TheseTools::AllowedTools { mode, tools }) => {
                let names = tools.into_iter().map(|ToolName::Function { name }| name).collect();
                CallRule::Among { names, required: mode == AllowedMode::Required }
            }
        }
    }
}
