//! Messages in blocks become the turns that templates see.

use bantam_text::{Message, ToolCall};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::request::fields;

/// A message of the conversation.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = MessagesParam)]
pub(crate) struct MessageParam {
    /// `user`, `assistant` or `system`.
    role: String,
    /// A text, or blocks.
    #[schema(value_type = Content)]
    content: Value,
}

/// A text, or blocks. For the schema: blocks are read one by one.
#[derive(ToSchema)]
#[schema(as = MessagesContent)]
#[expect(dead_code, reason = "for the schema only")]
#[serde(untagged)]
pub(crate) enum Content {
    Text(String),
    Blocks(Vec<Block>),
}

/// A block of a message.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = MessagesBlock)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Block {
    /// A text; several are lines of one.
    Text { text: String },
    /// A call that the model made.
    ToolUse {
        /// The name by which its result refers to it.
        id: String,
        name: String,
        /// The arguments: a JSON object.
        #[schema(value_type = Object)]
        input: Value,
    },
    /// What a function gave back.
    ToolResult {
        /// The call that it answers.
        tool_use_id: String,
        /// A text, or blocks of text; nothing if not set.
        #[schema(value_type = Option<SystemContent>)]
        content: Option<Value>,
        /// The call failed: the model sees `Error: ` before the text.
        is_error: Option<bool>,
    },
    /// What the model thought before it spoke, for templates that show it.
    Thinking { thinking: String },
    /// What nobody may read.
    RedactedThinking {},
}

/// A text, or blocks of text. For the schema: blocks are read one by one.
#[derive(ToSchema)]
#[schema(as = MessagesTextContent)]
#[expect(dead_code, reason = "for the schema only")]
#[serde(untagged)]
pub(crate) enum SystemContent {
    Text(String),
    Blocks(Vec<TextBlock>),
}

/// A block of text. For the schema.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the schema only")]
#[schema(as = MessagesTextBlock)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum TextBlock {
    /// A text; several are lines of one.
    Text { text: String },
}

/// The conversation, and whether its last message is to be continued.
pub(crate) fn read(
    messages: &Value,
    system: Option<Value>,
) -> Result<(Vec<Message>, bool), ApiError> {
    let list = messages.as_array().filter(|list| !list.is_empty()).ok_or_else(|| {
        ApiError::bad_request("messages is not a list of one message or more").param("messages")
    })?;
    let mut turns = Vec::new();
    if let Some(system) = system {
        turns.push(Message::new("system", text(system, "system")?));
    }
    for (n, message) in list.iter().enumerate() {
        let place = format!("messages[{n}]");
        let MessageParam { role, content } =
            fields::parse(message).map_err(|error| error.within(&place))?;
        let place = format!("{place}.content");
        match role.as_str() {
            "system" => turns.push(Message::new("system", text(content, &place)?)),
            "user" => user_turns(content, &place, &mut turns)?,
            "assistant" => turns.push(assistant_turn(content, &place)?),
            _ => {
                let (place, role) =
                    (format!("messages[{n}].role"), role.chars().take(64).collect::<String>());
                let message = format!("{place} is {role:?}, expected user, assistant or system");
                return Err(ApiError::bad_request(message).param(place));
            }
        }
    }
    let last = turns.last().filter(|message| message.role == "assistant");
    if last.is_some_and(|message| !message.tool_calls.is_empty()) {
        let message = "the last message calls tools; send a message of the user with their results";
        return Err(ApiError::bad_request(message).param("messages"));
    }
    let continues = last.is_some();
    Ok((turns, continues))
}

/// The blocks of a content, each with its place; a text is a block of it.
fn blocks(content: Value, place: &str) -> Result<Vec<(Block, String)>, ApiError> {
    let blocks = match content {
        Value::String(text) => return Ok(vec![(Block::Text { text }, place.to_owned())]),
        Value::Array(blocks) => blocks,
        _ => {
            let message = format!("{place} is neither a text nor a list of blocks");
            return Err(ApiError::bad_request(message).param(place));
        }
    };
    let read = |(n, block): (usize, &Value)| {
        let place = format!("{place}[{n}]");
        let block = fields::parse(block).map_err(|error| error.within(&place))?;
        Ok((block, place))
    };
    blocks.iter().enumerate().map(read).collect()
}

/// What a user says, and what functions gave back, in their order.
fn user_turns(content: Value, place: &str, turns: &mut Vec<Message>) -> Result<(), ApiError> {
    let mut lines: Vec<String> = Vec::new();
    let first = turns.len();
    for (block, place) in blocks(content, place)? {
        match block {
            Block::Text { text } => lines.push(text),
            Block::ToolResult { tool_use_id, content, is_error } => {
                if !lines.is_empty() {
                    turns.push(Message::new("user", std::mem::take(&mut lines).join("\n")));
                }
                let content = content.unwrap_or_else(|| Value::from(""));
                let said = text(content, &format!("{place}.content"))?;
                let said = if is_error == Some(true) { format!("Error: {said}") } else { said };
                turns.push(Message {
                    tool_call_id: Some(tool_use_id),
                    ..Message::new("tool", said)
                });
            }
            _ => return Err(misplaced(&place, "user")),
        }
    }
    if !lines.is_empty() {
        turns.push(Message::new("user", lines.join("\n")));
    }
    if turns.len() == first {
        let message = format!("{place} has no block; expected one or more");
        return Err(ApiError::bad_request(message).param(place));
    }
    Ok(())
}

fn assistant_turn(content: Value, place: &str) -> Result<Message, ApiError> {
    let (mut lines, mut calls, mut thoughts) = (Vec::new(), Vec::new(), Vec::new());
    for (block, place) in blocks(content, place)? {
        match block {
            Block::Text { text } => lines.push(text),
            Block::ToolUse { id, name, input } if input.is_object() => {
                calls.push(ToolCall::new(id, name, input));
            }
            Block::ToolUse { .. } => {
                let place = format!("{place}.input");
                let message = format!("{place} is not a JSON object");
                return Err(ApiError::bad_request(message).param(place));
            }
            Block::Thinking { thinking } => thoughts.push(thinking),
            Block::RedactedThinking {} => {}
            Block::ToolResult { .. } => return Err(misplaced(&place, "assistant")),
        }
    }
    Ok(Message {
        content: (!lines.is_empty() || calls.is_empty()).then(|| lines.join("\n")),
        tool_calls: calls,
        reasoning_content: (!thoughts.is_empty()).then(|| thoughts.join("\n")),
        ..Message::new("assistant", "")
    })
}

/// A text, or the lines that blocks of text are.
fn text(content: Value, place: &str) -> Result<String, ApiError> {
    let lines = blocks(content, place)?.into_iter().map(|(block, place)| match block {
        Block::Text { text } => Ok(text),
        _ => Err(misplaced(&place, "text")),
    });
    Ok(lines.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

fn misplaced(place: &str, of: &str) -> ApiError {
    let message = format!("{place} is of a type that has no place in a message of {of}");
    ApiError::bad_request(message).param(place)
}
