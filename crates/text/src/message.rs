//! The turns of a conversation.

use serde::{Deserialize, Serialize};

use crate::ToolCall;

/// One turn of a conversation, with the fields that chat templates read.
///
/// ```
/// use bantam_text::{Message, ToolCall};
/// use serde_json::json;
///
/// let question = Message::new("user", "Is it raining in Rome?");
/// let call = ToolCall::new("call_1", "weather", json!({"city": "Rome"}));
/// let asks = Message { tool_calls: vec![call], content: None, ..Message::new("assistant", "") };
/// let result = Message {
///     tool_call_id: Some("call_1".to_owned()),
///     ..Message::new("tool", "sunny")
/// };
/// assert_eq!(serde_json::to_value(&asks).unwrap()["tool_calls"][0]["type"], "function");
/// # let _ = (question, result);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant` or `tool`; the template decides what it accepts.
    pub role: String,
    /// What is said; may be missing beside tool calls.
    #[serde(default)]
    pub content: Option<String>,
    /// The functions that an assistant calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a `tool` message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The name of the speaker, or of the function that a `tool` message answers for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the assistant thought before it answered; templates that do not know it leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
}

impl Message {
    /// What `role` says.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: Some(content.into()), ..Self::default() }
    }
}
