//! Makes a model call a function, or call it well: the grammar of its calls.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::format::Style;
use super::{Tool, ToolFormat};
use crate::grammar::{check_schema, quoted};
use crate::{GrammarSpec, TextError};

/// What the model may or must call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// What it likes: the answer is text, calls, or both.
    Auto,
    /// One of the tools, or several.
    Required,
    /// The tool of this name, once.
    Named(String),
}

impl ToolFormat {
    /// The grammar of an answer that calls functions and, unless `choice` is
    /// [`Auto`](ToolChoice::Auto), says nothing else: of `tools`, those that `choice` leaves, with
    /// arguments by their schemas. A tool that is named is called exactly once. Else there may be,
    /// with `parallel`, several calls one after another in the formats that can write them; without
    /// it there is one, or for [`Auto`](ToolChoice::Auto) at most one.
    ///
    /// Text beside calls never holds the mark of a call, so what the parser takes for a call is one
    /// that follows its schema. In a format whose calls need no mark, an answer that begins with a
    /// brace is a call.
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
            ToolChoice::Auto | ToolChoice::Required => tools.iter().collect(),
            ToolChoice::Named(name) => {
                tools.iter().filter(|tool| tool.function.name == *name).take(1).collect()
            }
        };
        if chosen.is_empty() {
            let names: Vec<&str> = tools.iter().map(|tool| tool.function.name.as_str()).collect();
            return Err(invalid(match choice {
                ToolChoice::Auto | ToolChoice::Required => "there are no tools to call".to_owned(),
                ToolChoice::Named(name) => {
                    format!("tool_choice names {name:?}; expected one of {names:?}")
                }
            }));
        }

        let parallel = parallel && !matches!(choice, ToolChoice::Named(_));
        let mut source = match choice {
            ToolChoice::Auto => self.calls_in_text(parallel),
            ToolChoice::Required | ToolChoice::Named(_) => self.calls_alone(parallel),
        };
        source.push_str(&self.after_mark(parallel));
        let bodies: Vec<String> = (0..chosen.len()).map(|index| format!("body_{index}")).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(source, "body: {}", bodies.join(" | "));
        for (body, tool) in bodies.iter().zip(chosen) {
            let name = &tool.function.name;
            let schema = arguments_schema(tool.function.parameters.as_ref())
                .map_err(|problem| invalid(format!("parameters of {name:?}: {problem}")))?;
            let key = self.style.arguments;
            let head = quoted(&format!(r#"{{"name": {}, "{key}": "#, Value::from(name.as_str())));
            let _ = writeln!(source, "{body}: {head} %json {schema} \"}}\"");
        }
        Ok(GrammarSpec::Lark(source))
    }

    /// The grammar of an answer that is a call of one of `tools`, or several with `parallel`, or a text
    /// of the form `form`: any JSON object, or JSON that satisfies a schema.
    ///
    /// # Errors
    /// As [`grammar`](Self::grammar), or a form of another kind.
    pub fn grammar_or_form(
        &self,
        tools: &[Tool],
        parallel: bool,
        form: &GrammarSpec,
    ) -> Result<GrammarSpec, TextError> {
        let invalid = |problem| TextError::InvalidTools { problem };
        let any_object = json!({"type": "object"});
        let schema = match form {
            GrammarSpec::JsonObject => &any_object,
            GrammarSpec::JsonSchema(schema) => schema,
            _ => {
                let problem = "beside tools, a text has the form of a JSON schema or none";
                return Err(invalid(problem.to_owned()));
            }
        };
        check_schema(schema).map_err(invalid)?;
        let GrammarSpec::Lark(calls) = self.grammar(tools, &ToolChoice::Required, parallel)? else {
            return Err(invalid("calls have no rules to stand beside a form".to_owned()));
        };
        let calls = calls.replacen("start:", "calls:", 1);
        Ok(GrammarSpec::Lark(format!("start: calls | form\nform: %json {schema}\n{calls}")))
    }

    /// The rule `start` of an answer that is a call or several.
    fn calls_alone(&self, parallel: bool) -> String {
        let begin = mark(self.begin_token, self.style.begin);
        match *self.style {
            // Calls that no mark ends cannot be told apart: one only.
            Style { bare: true, .. } => "start: body\n".to_owned(),
            Style { list: false, space, .. } if parallel => {
                let space = quoted(space);
                format!("start: {begin} marked ({space} {begin} marked)*\n")
            }
            _ => format!("start: {begin} marked\n"),
        }
    }

    /// The rule `start` of an answer in which calls may stand among text, and what it refers to.
    fn calls_in_text(&self, parallel: bool) -> String {
        let times = if parallel { "*" } else { "?" };
        let mut source = if self.style.bare {
            let more = if parallel { "(lead marked)*" } else { "" };
            // The first text is not what a reader takes for a call without its mark.
            format!(
                "start: body | OPENING? | opening marked {more} TEXT?\n{}\
                 OPENING: /(?s:\\s+|\\s*[^\\s{{].*)/ & TEXT\n",
                self.lead("opening", "OPENING")
            )
        } else {
            format!("start: (lead marked){times} TEXT?\n")
        };
        source.push_str(&self.lead("lead", "TEXT"));
        let begin = quoted(self.style.begin);
        source.push_str("TEXT: /(?s:.+)/ & ~MARKED\n");
        let _ = writeln!(source, "MARKED: /(?s:.*)/ {begin} /(?s:.*)/");
        source
    }

    /// A rule for the text before a call, and the call's mark.
    fn lead(&self, rule: &str, text: &str) -> String {
        match self.begin_token {
            Some(id) => format!("{rule}: {text}? <[{id}]>\n"),
            // One lexeme that ends with the first mark: text and mark apart would be ambiguous.
            None => {
                let mark = quoted(self.style.begin);
                format!("{rule}[suffix={mark}]: {text} | \"\"\n")
            }
        }
    }

    /// The rule `marked`: what follows the mark of a call or of a list of calls.
    fn after_mark(&self, parallel: bool) -> String {
        let Style { list, space, end, .. } = *self.style;
        let space = quoted(space);
        if list {
            let more = if parallel { "(\", \" body)*" } else { "" };
            format!("marked: \"[\" body {more} \"]\"\n")
        } else if end.is_empty() {
            "marked: body\n".to_owned()
        } else {
            format!("marked: {space} body {space} {}\n", mark(self.end_token, end))
        }
    }
}

/// A mark, by its token if it has one.
fn mark(token: Option<u32>, text: &str) -> String {
    match token {
        Some(id) => format!("<[{id}]>"),
        None => quoted(text),
    }
}

/// The schema of a function's arguments, which are always an object.
fn arguments_schema(parameters: Option<&Value>) -> Result<Value, String> {
    let Some(parameters) = parameters else {
        return Ok(json!({"type": "object", "properties": {}, "additionalProperties": false}));
    };
    let mut schema = parameters.clone();
    match schema.get("type") {
        Some(kind) if kind != "object" => {
            return Err(format!("type is {kind}; arguments are an object, so expected \"object\""));
        }
        Some(_) => {}
        None if schema.is_object() => schema["type"] = json!("object"),
        None => return Err(format!("expected an object, got {schema}")),
    }
    check_schema(&schema)?;
    Ok(schema)
}
