//! Tools and calls, as OpenAI writes them.

use bantam_text::{Function, GrammarSpec, Tool, ToolCall, ToolChoice, ToolFormat, ToolKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::request_id::random;

/// A function that the model may call.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolField {
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

/// What a request says about tools.
#[derive(Default)]
pub(crate) struct ToolUse {
    /// Those that the model is told about.
    pub(crate) tools: Vec<Tool>,
    /// How calls are written, if there may be any.
    pub(crate) format: Option<ToolFormat>,
    /// The form of an answer that must be a call, or whose calls must have a form; and what asks
    /// for it.
    pub(crate) grammar: Option<(&'static str, GrammarSpec)>,
    /// Calls after the first are left out.
    pub(crate) only_one: bool,
}

impl ToolUse {
    /// Checks and translates the fields.
    pub(crate) fn new(
        fields: Vec<ToolField>,
        choice: Option<ToolChoiceField>,
        parallel: bool,
        format: &ToolFormat,
    ) -> Result<Self, ApiError> {
        let choice = match choice {
            None if fields.is_empty() => return Ok(Self::default()),
            Some(ToolChoiceField::Mode(ToolMode::None)) => return Ok(Self::default()),
            None | Some(ToolChoiceField::Mode(ToolMode::Auto)) => ToolChoice::Auto,
            Some(ToolChoiceField::Mode(ToolMode::Required)) => ToolChoice::Required,
            Some(ToolChoiceField::Named(named)) => ToolChoice::Named(named.function.name),
        };
        if fields.is_empty() {
            let message = "tool_choice is set without tools; give tools, or leave it out";
            return Err(ApiError::bad_request(message).param("tool_choice"));
        }
        for (n, ToolField { r#type: Kind::Function, function }) in fields.iter().enumerate() {
            function.check_name(n)?;
        }
        let strict: Vec<bool> =
            fields.iter().map(|field| field.function.strict == Some(true)).collect();
        let tools: Vec<Tool> = fields.into_iter().map(ToolField::into_tool).collect();
        let grammar = match choice {
            ToolChoice::Auto if !strict.contains(&true) => None,
            ToolChoice::Auto => {
                let forms: Vec<Tool> =
                    tools.iter().zip(strict).map(|(tool, strict)| form(tool, strict)).collect();
                Some(("a strict tool", format.grammar(&forms, &choice, parallel)))
            }
            _ => Some(("tool_choice", format.grammar(&tools, &choice, parallel))),
        };
        let grammar = grammar.map(|(field, spec)| spec.map(|spec| (field, spec))).transpose();
        let grammar = grammar.map_err(|error| ApiError::from(error).param("tools"))?;
        Ok(Self { tools, format: Some(*format), grammar, only_one: !parallel })
    }
}

/// A tool whose arguments are enforced if it is strict, and any object if not.
fn form(tool: &Tool, strict: bool) -> Tool {
    let mut tool = tool.clone();
    if !strict {
        tool.function.parameters = Some(json!({"type": "object"}));
    }
    tool
}

impl FunctionField {
    fn check_name(&self, n: usize) -> Result<(), ApiError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        let name = &self.name;
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            let message = format!(
                "tools[{n}].function.name is {name:?}, expected 1 to 64 letters, digits, _, - or ."
            );
            return Err(ApiError::bad_request(message).param(format!("tools[{n}].function.name")));
        }
        Ok(())
    }
}

impl ToolField {
    fn into_tool(self) -> Tool {
        let FunctionField { name, description, parameters, .. } = self.function;
        Tool { kind: ToolKind::Function, function: Function { name, description, parameters } }
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
