//! Messages as OpenAI writes them and clients send them back, and as templates see them.

use bantam_text::{Message, ToolCall};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::request::fields;

/// Who may speak. Templates do not know `developer`, OpenAI's new name of `system`, nor `function`,
/// its old name of `tool`.
const ROLES: [(&str, &str); 6] = [
    ("system", "system"),
    ("developer", "system"),
    ("user", "user"),
    ("assistant", "assistant"),
    ("tool", "tool"),
    ("function", "tool"),
];

/// A message of the conversation.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct ChatMessage {
    /// `system` (or `developer`), `user`, `assistant`, `tool`, or `function`, the old name of `tool`.
    role: String,
    /// A text, or a list of parts of type `text`, which are joined by newlines. A message of the
    /// assistant or a tool may have none.
    #[schema(value_type = Option<Content>)]
    content: Option<Value>,
    /// The name of the speaker, for templates that show it.
    name: Option<String>,
    /// The functions that the assistant called.
    tool_calls: Option<Vec<PastCall>>,
    /// The old form of a single call.
    function_call: Option<PastFunction>,
    /// The call that a message of the role `tool` answers.
    tool_call_id: Option<String>,
    /// What the assistant thought before it answered, for templates that show it.
    reasoning_content: Option<String>,
    /// Another name of `reasoning_content`.
    reasoning: Option<String>,
    /// Another name of `reasoning_content`.
    thinking: Option<String>,
    /// Why the assistant did not answer: its content, if it has none.
    refusal: Option<String>,
}

/// What is said: a text, or texts in parts. For the schema; the checks say more than serde could.
#[derive(ToSchema)]
#[schema(as = Content)]
#[expect(dead_code, reason = "for the schema only")]
#[serde(untagged)]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A text among parts, or a part.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the schema only")]
#[serde(untagged)]
pub(crate) enum Part {
    Text(String),
    Part(ContentPart),
}

/// A part of a message.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ContentPart {
    /// A text.
    Text { text: String },
    /// A text, as `/v1/responses` calls it.
    InputText { text: String },
    /// A text of the assistant, as `/v1/responses` calls it.
    OutputText { text: String },
    /// Why the assistant did not answer.
    Refusal { refusal: String },
    /// What the assistant thought before it answered.
    Thinking { thinking: String },
    /// The same by another name.
    Reasoning { text: String },
}

/// The types of parts that have a text.
const PART_TYPES: [&str; 6] =
    ["text", "input_text", "output_text", "refusal", "thinking", "reasoning"];

/// A call that the assistant made.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct PastCall {
    /// The name by which its result refers to it.
    id: Option<String>,
    /// `function`, or `custom`.
    r#type: Option<CallKind>,
    /// Which function was called.
    function: Option<PastFunction>,
    /// Which custom tool was called.
    custom: Option<PastCustom>,
}

/// What was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CallKind {
    Function,
    Custom,
}

/// Which function was called with what.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct PastFunction {
    name: String,
    /// The text of a JSON object, or the object itself; nothing is an empty object.
    #[schema(value_type = Option<Arguments>)]
    arguments: Option<Value>,
}

/// The arguments of a call. For the schema.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the schema only")]
#[serde(untagged)]
pub(crate) enum Arguments {
    Text(String),
    #[schema(value_type = Object)]
    Object(Value),
}

/// Which custom tool was called with what.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct PastCustom {
    name: String,
    /// Any text.
    input: String,
}

/// The messages of a body, as templates see them.
pub(crate) fn read(messages: &Value) -> Result<Vec<Message>, ApiError> {
    let list = messages.as_array().filter(|list| !list.is_empty()).ok_or_else(|| {
        ApiError::bad_request("messages is not a list of one message or more").param("messages")
    })?;
    let mut read: Vec<Message> = Vec::with_capacity(list.len());
    for (n, message) in list.iter().enumerate() {
        let message = read_one(message, n, &read)?;
        read.push(message);
    }
    Ok(read)
}

/// A message; `before` are those before it.
fn read_one(message: &Value, n: usize, before: &[Message]) -> Result<Message, ApiError> {
    let place = format!("messages[{n}]");
    let refuse = |field: &str, problem: String| {
        let place = format!("{place}{field}");
        Err(ApiError::bad_request(format!("{place} {problem}")).param(place))
    };
    if !message.is_object() {
        return refuse("", "is not an object with role and content".to_owned());
    }
    let parsed: ChatMessage = fields::parse(message).map_err(|error| error.within(&place))?;
    let Some((_, role)) = ROLES.iter().find(|(known, _)| *known == parsed.role) else {
        let problem = format!(
            "is {:?}, expected system, developer, user, assistant, tool or function",
            parsed.role
        );
        return refuse(".role", problem);
    };
    let Said { text, thought } = parsed
        .content
        .map_or(Ok(Said::default()), |content| Said::read(content, &format!("{place}.content")))?;
    let content = text.or(parsed.refusal);
    let mut tool_calls = Vec::new();
    for (index, call) in parsed.tool_calls.into_iter().flatten().enumerate() {
        tool_calls.push(call.into_call(n, index, &format!("{place}.tool_calls[{index}]"))?);
    }
    if let Some(call) = parsed.function_call {
        let id = made_up_id(n, tool_calls.len());
        tool_calls.push(call.into_call(id, &format!("{place}.function_call"))?);
    }
    if !tool_calls.is_empty() && *role != "assistant" {
        return refuse(".tool_calls", "stands in a message that is not the assistant's".to_owned());
    }
    let mut tool_call_id = parsed.tool_call_id;
    if parsed.role == "function" {
        // The old form has no ids: the result is that of the last call.
        let last = before.iter().rev().find_map(|message| message.tool_calls.last());
        tool_call_id = tool_call_id.or_else(|| last.map(|call| call.id.clone()));
    } else if *role == "tool" && tool_call_id.is_none() {
        return refuse(".tool_call_id", "is missing; name the call that is answered".to_owned());
    }
    let content = match (content, *role) {
        (None, "system" | "user") => {
            return refuse(".content", "is missing; give a text".to_owned());
        }
        (None, _) if tool_calls.is_empty() => Some(String::new()),
        (content, _) => content,
    };
    let reasoning_content =
        parsed.reasoning_content.or(parsed.reasoning).or(parsed.thinking).or(thought);
    Ok(Message {
        role: (*role).to_owned(),
        content,
        tool_calls,
        tool_call_id,
        name: parsed.name,
        reasoning_content,
    })
}

/// The content of a message.
#[derive(Default)]
struct Said {
    text: Option<String>,
    /// What was thought before.
    thought: Option<String>,
}

impl Said {
    fn read(content: Value, place: &str) -> Result<Self, ApiError> {
        let parts = match content {
            Value::String(text) => return Ok(Self { text: Some(text), thought: None }),
            Value::Array(parts) => parts,
            _ => {
                let message = format!("{place} is neither a text nor a list of parts of type text");
                return Err(ApiError::bad_request(message).param(place));
            }
        };
        let (mut texts, mut thoughts) = (Vec::new(), Vec::new());
        for (n, part) in parts.into_iter().enumerate() {
            match read_part(part, &format!("{place}[{n}]"))? {
                ContentPart::Text { text }
                | ContentPart::InputText { text }
                | ContentPart::OutputText { text }
                | ContentPart::Refusal { refusal: text } => texts.push(text),
                ContentPart::Thinking { thinking: text } | ContentPart::Reasoning { text } => {
                    thoughts.push(text);
                }
            }
        }
        let thought = (!thoughts.is_empty()).then(|| thoughts.join("\n"));
        // Parts that are thoughts alone say nothing.
        let text = (!texts.is_empty() || thought.is_none()).then(|| texts.join("\n"));
        Ok(Self { text, thought })
    }
}

fn read_part(part: Value, place: &str) -> Result<ContentPart, ApiError> {
    let refuse =
        |problem: String| Err(ApiError::bad_request(format!("{place} {problem}")).param(place));
    if let Value::String(text) = part {
        return Ok(ContentPart::Text { text });
    }
    match part["type"].as_str() {
        None => refuse("has no type; expected text".to_owned()),
        Some(kind) if !PART_TYPES.contains(&kind) => {
            let kind: String = kind.chars().take(64).collect();
            refuse(format!("has the type {kind:?}, but this model reads text only"))
        }
        Some(_) => fields::parse(&part).or_else(|_| refuse("has no text".to_owned())),
    }
}

impl PastCall {
    /// The call as templates see it: number `index` of message `n`, which stands at `place`.
    fn into_call(self, n: usize, index: usize, place: &str) -> Result<ToolCall, ApiError> {
        let Self { id, r#type: kind, function, custom } = self;
        let id = id.filter(|id| !id.is_empty()).unwrap_or_else(|| made_up_id(n, index));
        match (kind, function, custom) {
            (None | Some(CallKind::Function), Some(function), None) => {
                function.into_call(id, &format!("{place}.function"))
            }
            // Templates know functions only.
            (None | Some(CallKind::Custom), None, Some(PastCustom { name, input })) => {
                Ok(ToolCall::new(id, name, json!({ "input": input })))
            }
            (kind, ..) => {
                let field = if kind == Some(CallKind::Custom) { "custom" } else { "function" };
                let message = format!("{place} does not have {field}, and that alone");
                Err(ApiError::bad_request(message).param(format!("{place}.{field}")))
            }
        }
    }
}

impl PastFunction {
    fn into_call(self, id: String, place: &str) -> Result<ToolCall, ApiError> {
        let Self { name, arguments } = self;
        let object = match arguments {
            None => Some(json!({})),
            Some(Value::String(text)) if text.trim().is_empty() => Some(json!({})),
            Some(Value::String(text)) => serde_json::from_str(&text).ok().filter(Value::is_object),
            Some(arguments) => Some(arguments).filter(Value::is_object),
        };
        object.map(|arguments| ToolCall::new(id, name, arguments)).ok_or_else(|| {
            let message =
                format!("{place}.arguments is not the text of a JSON object, nor such an object");
            ApiError::bad_request(message).param(format!("{place}.arguments"))
        })
    }
}

/// A name for a call that has none, in the form that all templates take back.
fn made_up_id(message: usize, call: usize) -> String {
    format!("c{:04}{:04}", message % 10_000, call % 10_000)
}
