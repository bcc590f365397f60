//! Tools: functions that a model may ask its caller to run.
//!
//! [`ToolFormat`] says how a model writes its calls, [`ToolCallParser`] finds them in its answer,
//! and [`ToolFormat::grammar`] makes it call one. How a request uses them:
//!
//! 1. render the prompt with the tools ([`RenderInput`](crate::RenderInput)); a template that does
//!    not know tools gets them in its system message;
//! 2. decode with [`StreamDecoder::showing`](crate::StreamDecoder::showing)
//!    [`ToolFormat::special_tokens`]: in some vocabularies the marks of a call are special tokens,
//!    which a reader does not see but the parser must;
//! 3. pass all text through one [`ToolCallParser`], whether the answer is streamed or not.

mod call_reader;
mod format;
mod grammar;
mod json_scanner;
mod parser;
mod prompt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use format::ToolFormat;
pub use grammar::ToolChoice;
pub use parser::{ToolCallParser, ToolDelta};
pub(crate) use prompt::without_tools;

/// A function that the model may call, as OpenAI's API and chat templates write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Always `function`.
    #[serde(rename = "type", default)]
    pub kind: ToolKind,
    /// The function.
    pub function: Function,
}

/// What a tool is: functions are the only kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToolKind {
    /// A function of the caller.
    #[default]
    Function,
}

/// What the model is told about a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// What it does and when to call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The JSON schema of its arguments, an object; none for a function without arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
}

impl Tool {
    /// A function with its description and the JSON schema of its arguments.
    pub fn new(name: impl Into<String>, description: impl Into<String>, parameters: Value) -> Self {
        let function = Function {
            name: name.into(),
            description: Some(description.into()),
            parameters: Some(parameters),
        };
        Self { kind: ToolKind::Function, function }
    }
}

/// A call that the model made in an earlier turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The name by which its result refers to it.
    pub id: String,
    /// Always `function`.
    #[serde(rename = "type", default)]
    pub kind: ToolKind,
    /// The function called.
    pub function: FunctionCall,
}

/// Which function is called with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCall {
    /// The function's name.
    pub name: String,
    /// The arguments as an object (not as text, which OpenAI's API uses), as templates expect.
    pub arguments: Value,
}

impl ToolCall {
    /// The call of a function with these arguments.
    pub fn new(id: impl Into<String>, name: impl Into<String>, arguments: Value) -> Self {
        let function = FunctionCall { name: name.into(), arguments };
        Self { id: id.into(), kind: ToolKind::Function, function }
    }
}
