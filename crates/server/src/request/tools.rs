//! The functions that a model may or must call.

use bantam_text::{GrammarSpec, Tool, ToolChoice, ToolFormat};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::request_id::random;

/// What asks for a form if no call is required.
pub(crate) const STRICT: &str = "a strict tool";

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
    /// Calls of these functions only, one or more if they are required.
    Among { names: Vec<String>, required: bool },
}

/// The form of an answer, and the field that asks for it.
pub(crate) type AskedForm = (&'static str, GrammarSpec);

/// What a request says about tools.
#[derive(Default)]
pub(crate) struct ToolUse {
    /// Those that the model is told about.
    pub(crate) tools: Vec<Tool>,
    /// Those that it may call, with what their arguments must satisfy.
    pub(crate) callable: Vec<Tool>,
    /// How calls are written, if there may be any.
    pub(crate) format: Option<ToolFormat>,
    /// The form of an answer that must be a call, or whose calls must have a form; and what asks
    /// for it.
    pub(crate) grammar: Option<(&'static str, GrammarSpec)>,
    /// Calls after the first are left out.
    pub(crate) only_one: bool,
    /// The answer is nothing but calls.
    pub(crate) must_call: bool,
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
        let refuse = |message: String| Err(ApiError::bad_request(message).param("tool_choice"));
        let (choice, among) = match rule.unwrap_or_default() {
            CallRule::Never => return Ok(Self::default()),
            CallRule::Auto if offered.is_empty() => return Ok(Self::default()),
            CallRule::Auto => (ToolChoice::Auto, None),
            CallRule::Required => (ToolChoice::Required, None),
            CallRule::Named(name) => (ToolChoice::Named(name), None),
            CallRule::Among { names, required: true } => (ToolChoice::Required, Some(names)),
            CallRule::Among { names, required: false } => (ToolChoice::Auto, Some(names)),
        };
        if offered.is_empty() {
            return refuse("tool_choice is set without tools; give tools, or leave it out".into());
        }
        let known = |name: &String| offered.iter().any(|offered| offered.name() == name);
        if let Some(name) = among.iter().flatten().find(|name| !known(name)) {
            let names: Vec<&str> = offered.iter().map(OfferedTool::name).collect();
            return refuse(format!("tool_choice names {name:?}, expected some of {names:?}"));
        }
        if among.as_ref().is_some_and(Vec::is_empty) {
            return refuse("tool_choice allows no tool; say none".into());
        }
        if let ToolChoice::Named(name) = &choice
            && !known(name)
        {
            let names: Vec<&str> = offered.iter().map(OfferedTool::name).collect();
            return refuse(format!("tool_choice names {name:?}, expected one of {names:?}"));
        }
        for (n, offered) in offered.iter().enumerate() {
            check_name(offered.name(), n)?;
        }
        let callable = |offered: &&OfferedTool| {
            among.as_ref().is_none_or(|names| names.iter().any(|name| name == offered.name()))
        };
        let callable: Vec<&OfferedTool> = offered.iter().filter(callable).collect();
        let free = callable.len() == offered.len() && !callable.iter().any(|tool| tool.strict);
        let must_call = choice != ToolChoice::Auto;
        let (field, forms): (_, Vec<Tool>) = match choice {
            ToolChoice::Auto => {
                let field = if among.is_some() { "tool_choice" } else { STRICT };
                (field, callable.into_iter().map(OfferedTool::form).collect())
            }
            _ => ("tool_choice", callable.into_iter().map(|tool| tool.tool.clone()).collect()),
        };
        let grammar = match choice {
            ToolChoice::Auto if free => None,
            _ => {
                let spec = format.grammar(&forms, &choice, parallel);
                Some((field, spec.map_err(|error| ApiError::from(error).param("tools"))?))
            }
        };
        let tools = offered.into_iter().map(|offered| offered.tool).collect();
        let (format, only_one) = (Some(*format), !parallel);
        Ok(Self { tools, callable: forms, format, grammar, only_one, must_call })
    }

    /// The form of an answer whose text must satisfy `form`: where the model may call tools, it does
    /// that or says such a text; where it must call, there is no text.
    ///
    /// # Errors
    /// If the form is no schema.
    pub(crate) fn beside(&self, form: Option<AskedForm>) -> Result<Option<AskedForm>, ApiError> {
        let (Some((field, form)), Some(format)) = (form.clone(), &self.format) else {
            return Ok(form.or_else(|| self.grammar.clone()));
        };
        if self.must_call {
            return Ok(self.grammar.clone());
        }
        let spec = format.grammar_or_form(&self.callable, !self.only_one, &form);
        Ok(Some((field, spec.map_err(|error| ApiError::from(error).param(field))?)))
    }
}

impl OfferedTool {
    fn name(&self) -> &str {
        &self.tool.function.name
    }

    /// The tool with what its arguments must satisfy: its schema if it is strict, else any object.
    fn form(&self) -> Tool {
        let mut tool = self.tool.clone();
        if !self.strict {
            tool.function.parameters = Some(json!({"type": "object"}));
        }
        tool
    }
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

/// The arguments of a call that stands in a conversation: an object, or the text of one. No text at
/// all is what some clients make of a call without arguments.
pub(crate) fn arguments(value: &Value) -> Option<Value> {
    let parsed = match value {
        Value::String(text) if text.trim().is_empty() => json!({}),
        Value::String(text) => serde_json::from_str(text).ok()?,
        other => other.clone(),
    };
    parsed.is_object().then_some(parsed)
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
