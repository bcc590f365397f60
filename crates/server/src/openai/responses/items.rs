//! Items: what a conversation is made of in `/v1/responses`.

use bantam_text::{Message, ToolCall};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::openai::messages::Arguments;
use crate::request::fields;
use crate::request::tools::arguments;
use crate::request_id::hexadecimal;

/// What a request says. For the schema: items are read one by one.
#[derive(ToSchema)]
#[schema(as = ResponseInput)]
#[expect(dead_code, reason = "for the schema only")]
#[serde(untagged)]
pub(crate) enum Input {
    Text(String),
    Items(Vec<Item>),
}

/// A part of the conversation.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = ResponseItem)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Item {
    /// What somebody says.
    Message {
        /// `system` (or `developer`), `user` or `assistant`.
        role: String,
        /// A text, or parts, which are lines of one text.
        #[schema(value_type = ItemContent)]
        content: Value,
        /// A label without effect.
        #[expect(dead_code, reason = "a label")]
        id: Option<String>,
    },
    /// A call that the model made.
    FunctionCall {
        /// The name by which its output refers to it.
        call_id: String,
        name: String,
        /// The text of a JSON object, or the object itself; no text is an empty object.
        #[schema(value_type = Arguments)]
        arguments: Value,
        /// A label without effect.
        #[expect(dead_code, reason = "a label")]
        id: Option<String>,
    },
    /// What a function gave back.
    FunctionCallOutput {
        /// The call that it answers.
        call_id: String,
        /// A text, or parts, which are lines of one text.
        #[schema(value_type = ItemContent)]
        output: Value,
        /// The function's name, for templates that show it.
        name: Option<String>,
        /// A label without effect.
        #[expect(dead_code, reason = "a label")]
        id: Option<String>,
    },
    /// What the model thought before the next item, for templates that show it.
    Reasoning {
        /// Parts of type `reasoning_text`.
        #[schema(value_type = Option<Vec<Part>>)]
        content: Option<Value>,
        /// A label without effect.
        #[expect(dead_code, reason = "a label")]
        id: Option<String>,
    },
    /// An item of a response that the server keeps.
    #[serde(rename = "item_reference")]
    Reference { id: String },
}

/// A text, or texts in parts. For the schema: parts are read one by one.
#[derive(ToSchema)]
#[schema(as = ResponseItemContent)]
#[expect(dead_code, reason = "for the schema only")]
#[serde(untagged)]
pub(crate) enum ItemContent {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a message, or of what a function gave back.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = ResponsePart)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Part {
    /// A text.
    InputText { text: String },
    /// A text of the assistant.
    OutputText { text: String },
    /// A text, as chats call it.
    Text { text: String },
    /// Why the assistant did not answer.
    Refusal { refusal: String },
    /// What the assistant thought.
    ReasoningText { text: String },
}

/// The items of a body: a text is what the user says. References give way to what `find` finds.
pub(crate) fn of_input(
    input: Value,
    find: impl Fn(&str) -> Option<Value>,
) -> Result<Vec<Value>, ApiError> {
    let items = match input {
        Value::String(text) => {
            return Ok(vec![json!({"type": "message", "role": "user", "content": text})]);
        }
        Value::Array(items) if !items.is_empty() => items,
        _ => {
            let message = "input is neither a text nor a list of one item or more";
            return Err(ApiError::bad_request(message).param("input"));
        }
    };
    let resolved = items.into_iter().enumerate().map(|(n, item)| {
        if item["type"] != "item_reference" {
            return Ok(item);
        }
        let id = item["id"].as_str().unwrap_or_default();
        find(id).ok_or_else(|| {
            let place = format!("input[{n}].id");
            let shown: String = id.chars().take(64).collect();
            let message = format!(
                "{place} is {shown:?}, which is no item that is kept here (any more); send the item \
                 itself"
            );
            ApiError::bad_request(message).param(place)
        })
    });
    resolved.collect()
}

/// The conversation that items make. Calls belong to the message before them, as templates have it.
pub(crate) fn messages<'a>(
    items: impl Iterator<Item = (String, &'a Value)>,
) -> Result<Vec<Message>, ApiError> {
    let mut messages: Vec<Message> = Vec::new();
    let mut thought = None;
    for (place, item) in items {
        let item: Item = fields::parse(item).map_err(|error| error.within(&place))?;
        match item {
            Item::Message { role, content, .. } => {
                let role = known_role(&role, &place)?;
                let said = text(content, &format!("{place}.content"))?;
                let reasoning_content = if role == "assistant" { thought.take() } else { None };
                messages.push(Message { reasoning_content, ..Message::new(role, said) });
            }
            Item::FunctionCall { call_id, name, arguments, .. } => {
                let call = call(call_id, name, &arguments, &place)?;
                match messages.last_mut().filter(|message| message.role == "assistant") {
                    Some(message) => message.tool_calls.push(call),
                    None => messages.push(Message {
                        role: "assistant".to_owned(),
                        tool_calls: vec![call],
                        reasoning_content: thought.take(),
                        ..Message::default()
                    }),
                }
            }
            Item::FunctionCallOutput { call_id, output, name, .. } => messages.push(Message {
                tool_call_id: Some(call_id),
                name,
                ..Message::new("tool", text(output, &format!("{place}.output"))?)
            }),
            Item::Reasoning { content, .. } => {
                let place = format!("{place}.content");
                thought = content.map(|content| text(content, &place)).transpose()?;
            }
            Item::Reference { id } => {
                let shown: String = id.chars().take(64).collect();
                let message = format!(
                    "{place} is a reference to the reference {shown:?}; send the item itself"
                );
                return Err(ApiError::bad_request(message).param(place));
            }
        }
    }
    Ok(messages)
}

fn known_role(role: &str, place: &str) -> Result<&'static str, ApiError> {
    match role {
        // Templates do not know `developer`, OpenAI's new name of `system`.
        "system" | "developer" => Ok("system"),
        "user" => Ok("user"),
        "assistant" => Ok("assistant"),
        _ => {
            let shown: String = role.chars().take(64).collect();
            let message =
                format!("{place}.role is {shown:?}, expected system, developer, user or assistant");
            Err(ApiError::bad_request(message).param(format!("{place}.role")))
        }
    }
}

fn call(id: String, name: String, said: &Value, place: &str) -> Result<ToolCall, ApiError> {
    let arguments = arguments(said).ok_or_else(|| {
        let place = format!("{place}.arguments");
        ApiError::bad_request(format!("{place} is not the text of a JSON object")).param(place)
    })?;
    Ok(ToolCall::new(id, name, arguments))
}

/// A text, or the lines that its parts are.
fn text(content: Value, place: &str) -> Result<String, ApiError> {
    let parts = match content {
        Value::String(text) => return Ok(text),
        Value::Array(parts) => parts,
        _ => {
            let message = format!("{place} is neither a text nor a list of parts");
            return Err(ApiError::bad_request(message).param(place));
        }
    };
    let lines = parts.iter().enumerate().map(|(n, part)| {
        let part: Part =
            fields::parse(part).map_err(|error| error.within(&format!("{place}[{n}]")))?;
        let (Part::InputText { text }
        | Part::OutputText { text }
        | Part::Text { text }
        | Part::Refusal { refusal: text }
        | Part::ReasoningText { text }) = part;
        Ok(text)
    });
    Ok(lines.collect::<Result<Vec<_>, ApiError>>()?.join("\n"))
}

/// An input item as the server keeps and shows it: with a name, and its text in parts.
pub(crate) fn kept(mut item: Value) -> Value {
    let Value::Object(fields) = &mut item else { return item };
    let of_message = fields.get("type").is_none_or(|kind| kind == "message");
    let prefix = if of_message { "msg" } else { "item" };
    fields.entry("id").or_insert_with(|| json!(format!("{prefix}_{}", hexadecimal())));
    if let Some(Value::String(text)) = fields.get("content") {
        let part = match fields.get("role") == Some(&json!("assistant")) {
            true => json!({"type": "output_text", "text": text, "annotations": []}),
            false => json!({"type": "input_text", "text": text}),
        };
        fields.insert("content".to_owned(), json!([part]));
    }
    item
}
