//! Tools and the choice among them, as Anthropic writes them.

use bantam_text::{Function, Tool, ToolKind};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::request::tools::{CallRule, OfferedTool};

/// What the model may call.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = MessagesTool)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ToolParam {
    /// A function of the client's. Tools of no type are of this one.
    Custom {
        name: String,
        description: Option<String>,
        /// The JSON schema of the arguments.
        #[schema(value_type = Object)]
        input_schema: Map<String, Value>,
        /// Arguments satisfy the schema; a `tool_choice` that requires a call enforces that in any
        /// case.
        strict: Option<bool>,
    },
}

/// The choice among the tools.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = MessagesToolChoice)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ToolChoice {
    /// The model decides.
    Auto {
        /// Calls after the first are left out.
        disable_parallel_tool_use: Option<bool>,
    },
    /// One call or more.
    Any {
        /// Calls after the first are left out.
        disable_parallel_tool_use: Option<bool>,
    },
    /// One call of this tool.
    Tool {
        name: String,
        /// So it is in any case.
        disable_parallel_tool_use: Option<bool>,
    },
    /// No calls.
    None {},
}

impl ToolParam {
    /// The function, in no protocol's words.
    pub(crate) fn offered(self) -> OfferedTool {
        let Self::Custom { name, description, input_schema, strict } = self;
        let function =
            Function { name, description, parameters: Some(Value::Object(input_schema)) };
        let tool = Tool { kind: ToolKind::Function, function };
        OfferedTool { tool, strict: strict == Some(true) }
    }
}

impl ToolChoice {
    /// The same in no protocol's words, and whether several calls are wanted.
    pub(crate) fn rule(self) -> (CallRule, bool) {
        let (rule, single) = match self {
            Self::Auto { disable_parallel_tool_use: single } => (CallRule::Auto, single),
            Self::Any { disable_parallel_tool_use: single } => (CallRule::Required, single),
            Self::Tool { name, disable_parallel_tool_use: single } => {
                (CallRule::Named(name), single)
            }
            Self::None {} => (CallRule::Never, None),
        };
        (rule, single != Some(true))
    }
}
