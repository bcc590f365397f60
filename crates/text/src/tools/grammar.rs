//! Makes a model call a function: the grammar of its calls.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Tool, ToolFormat};
use crate::grammar::{check_schema, one_line, quoted};
use crate::{GrammarSpec, TextError};

/// What the model must call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// One of the tools, or several.
    Required,
    /// The tool of this name.
    Named(String),
}

impl ToolFormat {
    /// The grammar of an answer that calls functions and says nothing else: of `tools`, those that
    /// `choice` leaves, with arguments by their schemas. With `parallel` there may be several calls,
    /// one after another, in the formats that can write them; else there is exactly one.
    ///
    /// # Errors
    /// No tools, a name that is not among them, or parameters that are no schema.
    ///
    /// ```
    /// use bantam_text::{Tool, ToolChoice, ToolFormat};
    /// use serde_json::json;
    ///
    /// let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    /// let tools = [Tool::new("weather", "The weather of a city", schema)];
    /// let format = ToolFormat::from_template("");
    /// assert!(format.grammar(&tools, &ToolChoice::Required, false).is_ok());
    /// assert!(format.grammar(&tools, &ToolChoice::Named("news".into()), false).is_err());
    /// ```
    pub fn grammar(
        &self,
        tools: &[Tool],
        choice: &ToolChoice,
        parallel: bool,
    ) -> Result<GrammarSpec, TextError> {
        let invalid = |problem| TextError::InvalidTools { problem };
        let chosen: Vec<&Tool> = match choice {
            ToolChoice::Required => tools.iter().collect(),
            ToolChoice::Named(name) => {
                tools.iter().filter(|tool| tool.function.name == *name).take(1).collect()
            }
        };
        if chosen.is_empty() {
            let names: Vec<&str> = tools.iter().map(|tool| tool.function.name.as_str()).collect();
            return Err(invalid(match choice {
                ToolChoice::Required => "a call is required, but there are no tools".to_owned(),
                ToolChoice::Named(name) => {
                    format!("tool_choice names {name:?}; expected one of {names:?}")
                }
            }));
        }

        let style = self.style;
        let mark = |token: Option<u32>, text: &str| match token {
            Some(id) => format!("<[{id}]>"),
            None => quoted(text),
        };
        let [begin, end] = [mark(self.begin_token, style.begin), mark(self.end_token, style.end)];
        let space = quoted(style.space);
        let several = |separator: &str| {
            if parallel { format!("call ({} call)*", quoted(separator)) } else { "call".to_owned() }
        };
        let mut source = if style.list {
            format!("start: {begin} \"[\" {} \"]\"\ncall: body\n", several(", "))
        } else if style.end.is_empty() {
            // Calls that no mark ends cannot be told apart: one only.
            "start: body\n".to_owned()
        } else {
            format!("start: {}\ncall: {begin} {space} body {space} {end}\n", several(style.space))
        };
        let bodies: Vec<String> = (0..chosen.len()).map(|index| format!("body_{index}")).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(source, "body: {}", bodies.join(" | "));
        for (body, tool) in bodies.iter().zip(chosen) {
            let name = &tool.function.name;
            let schema = arguments_schema(tool.function.parameters.as_ref())
                .map_err(|problem| invalid(format!("parameters of {name:?}: {problem}")))?;
            let key = style.arguments;
            let head = quoted(&format!(r#"{{"name": {}, "{key}": "#, Value::from(name.as_str())));
            let _ = writeln!(source, "{body}: {head} %json {} \"}}\"", one_line(&schema));
        }
        Ok(GrammarSpec::Lark(source))
    }
}

/// The schema of a function's arguments, which are always an object.
fn arguments_schema(parameters: Option<&Value>) -> Result<Value, String> {
    let Some(parameters) = parameters else {
        return Ok(json!({"type": "object", "properties": {}, "additionalProperties": false}));
    };
    check_schema(parameters)?;
    let mut schema = parameters.clone();
    match schema.get("type") {
        Some(kind) if kind != "object" => {
            return Err(format!("type is {kind}; arguments are an object, so expected \"object\""));
        }
        Some(_) => {}
        None if schema.is_object() => schema["type"] = json!("object"),
        None => return Err(format!("expected a schema object, got {schema}")),
    }
    Ok(schema)
}
