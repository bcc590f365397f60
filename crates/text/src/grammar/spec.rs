//! What an answer has to look like.

use std::fmt::Write as _;

use llguidance::api::TopLevelGrammar;
use llguidance::regex_to_lark;
use serde_json::{Value, json};

use super::gbnf;
use super::limits;
use super::schema::{self, SchemaGrammar};
use crate::TextError;

/// What an answer has to look like. An answer in JSON is written in one line, with at most one
/// space after a comma or colon, so whitespace never goes on for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrammarSpec {
    /// Any JSON object.
    JsonObject,
    /// JSON that satisfies a schema (drafts 4 to 2020-12; references within the schema only).
    ///
    /// Properties come in the order in which the schema lists them. A keyword that cannot be
    /// enforced is an error, never ignored; words that JSON Schema does not know are comments, as
    /// the standard says.
    JsonSchema(Value),
    /// Text that a regular expression matches from beginning to end, in the syntax of the `regex`
    /// crate without look-around, back references and word boundaries. `^` at the very beginning
    /// and `$` at the very end are allowed and change nothing.
    Regex(String),
    /// A context-free grammar in the Lark dialect of `llguidance`, beginning at the rule `start`;
    /// or in the notation of llama.cpp (GBNF) and xgrammar (EBNF), `name ::= …`, beginning at
    /// `root`.
    Lark(String),
    /// One of these texts.
    Choice(Vec<String>),
}

impl GrammarSpec {
    /// What it is called in messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::JsonObject | Self::JsonSchema(_) => "JSON schema",
            Self::Regex(_) => "regular expression",
            Self::Lark(_) => "Lark grammar",
            Self::Choice(_) => "choice",
        }
    }

    /// The form that the library compiles, after what could exhaust it has been refused.
    pub(super) fn lower(&self) -> Result<Lowered, TextError> {
        let refused = |problem| TextError::InvalidGrammar { kind: self.kind(), problem };
        let lark = |source| Lowered { grammar: TopLevelGrammar::from_lark(source), schema: None };
        match self {
            Self::JsonObject => json(&json!({"type": "object"})).map_err(refused),
            Self::JsonSchema(schema) => json(schema).map_err(refused),
            Self::Regex(pattern) => {
                limits::check_regex(pattern).map_err(refused)?;
                let pattern = regex_to_lark(without_anchors(pattern), "");
                Ok(lark(format!("start: TEXT\nTEXT: /{pattern}/")))
            }
            Self::Lark(source) => {
                limits::check_lark(source).map_err(refused)?;
                if gbnf::is_gbnf(source) {
                    let problem = |problem| refused(format!("read as GBNF: {problem}"));
                    return Ok(lark(gbnf::to_lark(source).map_err(problem)?));
                }
                Ok(lark(super::lark::with_schemas(source).map_err(refused)?))
            }
            Self::Choice(choices) => {
                limits::check_choices(choices).map_err(refused)?;
                let mut source = "start: TEXT\nTEXT: ".to_owned();
                for (index, choice) in choices.iter().enumerate() {
                    let separator = if index == 0 { "" } else { "\n    | " };
                    // Writing to a string cannot fail.
                    let _ = write!(source, "{separator}{}", quoted(choice));
                }
                Ok(lark(source))
            }
        }
    }
}

/// What the library compiles, and what is known beside it.
pub(super) struct Lowered {
    pub(super) grammar: TopLevelGrammar,
    /// Of an answer that is JSON from beginning to end.
    pub(super) schema: Option<SchemaGrammar>,
}

fn json(schema: &Value) -> Result<Lowered, String> {
    limits::check_schema(schema)?;
    let compiled = schema::compile(schema, "json_")?;
    let source = format!("start: json_0\n{}", compiled.rules);
    Ok(Lowered { grammar: TopLevelGrammar::from_lark(source), schema: Some(compiled) })
}

/// Refuses a schema that could not be compiled within a grammar.
pub(crate) fn check_schema(schema: &Value) -> Result<(), String> {
    limits::check_schema(schema)?;
    schema::compile(schema, "json_").map(|_| ())
}

/// A literal of the Lark dialect: the same as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A pattern without `^` at its beginning and `$` at its end, which say nothing here. They stay
/// where an alternation would give them a meaning.
fn without_anchors(pattern: &str) -> &str {
    if pattern.contains('|') {
        return pattern;
    }
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    let escapes = |text: &str| text.bytes().rev().take_while(|&byte| byte == b'\\').count();
    match pattern.strip_suffix('$') {
        Some(body) if escapes(body) % 2 == 0 => body,
        _ => pattern,
    }
}
