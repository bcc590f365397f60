//! Messages as OpenAI writes them, and as templates see them.

use bantam_text::Message;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::openai::field_sets;
use crate::openai::tools::CallField;
use crate::request::fields;

/// Who may speak. Templates do not know `developer`; it is OpenAI's new name of `system`.
const ROLES: [(&str, &str); 5] = [
    ("system", "system"),
    ("developer", "system"),
    ("user", "user"),
    ("assistant", "assistant"),
    ("tool", "tool"),
];

/// A message of the conversation.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct ChatMessage {
    /// `system` (or `developer`), `user`, `assistant` or `tool`.
    role: String,
    /// A text, or a list of parts of type `text`, which are joined. Only beside calls it may be
    /// missing.
    #[schema(value_type = Option<Content>)]
    content: Option<Value>,
    /// The name of the speaker, for templates that show it.
    name: Option<String>,
    /// The functions that the assistant called.
    tool_calls: Option<Vec<CallField>>,
    /// The call that a message of the role `tool` answers.
    tool_call_id: Option<String>,
}

/// What is said: a text, or texts in parts. For the schema; the checks say more than serde could.
#[derive(ToSchema)]
#[schema(as = Content)]
#[expect(dead_code, reason = "for the schema only")]
#[serde(untagged)]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<ContentPart>),
}

/// A part of a message.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the schema only")]
pub(crate) struct ContentPart {
    /// `text`.
    r#type: String,
    text: String,
}

/// The messages of a body, as templates see them.
pub(crate) fn read(messages: &Value) -> Result<Vec<Message>, ApiError> {
    let list = messages.as_array().filter(|list| !list.is_empty()).ok_or_else(|| {
        ApiError::bad_request("messages is not a list of one message or more").param("messages")
    })?;
    list.iter()
        .enumerate()
        .map(|(n, message)| read_one(message, &format!("messages[{n}]")))
        .collect()
}

fn read_one(message: &Value, place: &str) -> Result<Message, ApiError> {
    let refuse = |field: &str, problem: String| {
        let place = format!("{place}{field}");
        Err(ApiError::bad_request(format!("{place} {problem}")).param(place))
    };
    let Value::Object(object) = message else {
        return refuse("", "is not an object with role and content".to_owned());
    };
    field_sets::MESSAGE.check(object, &format!("{place}."))?;
    let parsed: ChatMessage = fields::parse(message).map_err(|error| {
        ApiError::bad_request(format!("{place}: {error}")).param(place.to_owned())
    })?;
    let ChatMessage { role, content, name, tool_calls, tool_call_id } = parsed;
    let Some((_, role)) = ROLES.iter().find(|(known, _)| *known == role) else {
        return refuse(
            ".role",
            format!("is {role:?}, expected system, developer, user, assistant or tool"),
        );
    };
    let content = content.map(|content| read_content(content, place)).transpose()?;
    let calls = tool_calls.unwrap_or_default();
    if !calls.is_empty() && *role != "assistant" {
        return refuse(".tool_calls", "stands in a message that is not the assistant's".to_owned());
    }
    if content.is_none() && calls.is_empty() {
        return refuse(".content", "is missing; only beside tool_calls it may be".to_owned());
    }
    if *role == "tool" && tool_call_id.is_none() {
        return refuse(".tool_call_id", "is missing; name the call that is answered".to_owned());
    }
    let calls = calls
        .into_iter()
        .enumerate()
        .map(|(n, call)| call.into_call(&format!("{place}.tool_calls[{n}]")));
    let tool_calls = calls.collect::<Result<Vec<_>, _>>()?;
    Ok(Message { role: (*role).to_owned(), content, tool_calls, tool_call_id, name })
}

fn read_content(content: Value, place: &str) -> Result<String, ApiError> {
    let parts = match content {
        Value::String(text) => return Ok(text),
        Value::Array(parts) => parts,
        _ => {
            let message =
                format!("{place}.content is neither a text nor a list of parts of type text");
            return Err(ApiError::bad_request(message).param(format!("{place}.content")));
        }
    };
    let mut text = String::new();
    for (n, part) in parts.iter().enumerate() {
        let place = format!("{place}.content[{n}]");
        let refuse = |problem: String| {
            Err(ApiError::bad_request(format!("{place} {problem}")).param(place.clone()))
        };
        match (part["type"].as_str(), part["text"].as_str(), part.as_object()) {
            (Some("text"), Some(said), Some(fields)) => {
                if let Some(field) =
                    fields.keys().find(|key| !["type", "text"].contains(&key.as_str()))
                {
                    return refuse(format!(
                        "has the unknown field {field}; the known ones are type and text"
                    ));
                }
                text.push_str(said);
            }
            (Some("text"), None, _) => return refuse("has no text".to_owned()),
            (Some(kind), _, _) => {
                return refuse(format!("has the type {kind:?}, but this model reads text only"));
            }
            (None, _, _) => return refuse("has no type; expected text".to_owned()),
        }
    }
    Ok(text)
}
