//! The functions that a model may or must call.

use bantam_text::{GrammarSpec, Tool, ToolChoice, ToolFormat};
use serde_json::json;

use crate::error::ApiError;

/// A function that a request offers to the model.
#[derive(Clone, Debug)]
pub(crate) struct OfferedTool {
    pub(crate) tool: Tool,
    /// Arguments of a call satisfy the schema even if no call is required.
    pub(crate) strict: bool,
}

/// Whether functions are called, in no protocol's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum CallRule {
    /// No calls: the model is not told about the functions either.
    Never,
    /// The model decides.
    #[default]
    Auto,
    /// One or more.
    Required,
    /// One call of the function of this name.
    Named(String),
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
    /// How these functions may be called; `parallel` if several times in one answer.
    ///
    /// # Errors
    /// If a call is required but nothing is offered, a name is bad or unknown, or parameters are no
    /// schema.
    pub(crate) fn new(
        offered: Vec<OfferedTool>,
        rule: Option<CallRule>,
        parallel: bool,
        format: &ToolFormat,
    ) -> Result<Self, ApiError> {
        let choice = match rule {
            None if offered.is_empty() => return Ok(Self::default()),
            Some(CallRule::Never) => return Ok(Self::default()),
            None | Some(CallRule::Auto) => ToolChoice::Auto,
            Some(CallRule::Required) => ToolChoice::Required,
            Some(CallRule::Named(name)) => ToolChoice::Named(name),
        };
        if offered.is_empty() {
            let message = "tool_choice is set without tools; give tools, or leave it out";
            return Err(ApiError::bad_request(message).param("tool_choice"));
        }
        let strict: Vec<bool> = offered.iter().map(|offered| offered.strict).collect();
        let tools: Vec<Tool> = offered.into_iter().map(|offered| offered.tool).collect();
        for (n, tool) in tools.iter().enumerate() {
            check_name(&tool.function.name, n)?;
        }
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

fn check_name(name: &str, n: usize) -> Result<(), ApiError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        let message = format!(
            "tools[{n}].function.name is {name:?}, expected 1 to 64 letters, digits, _, - or ."
        );
        return Err(ApiError::bad_request(message).param(format!("tools[{n}].function.name")));
    }
    Ok(())
}
