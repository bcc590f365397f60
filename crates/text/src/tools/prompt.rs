//! Tools for chat templates that do not know them.

use serde_json::{Value, json};

use super::{Tool, ToolCall};
use crate::Message;

/// The conversation in messages that every template takes: the tools are described in the system
/// message, or without one in the first message; calls and results become text of the assistant and
/// the user, in the Hermes convention. Results in a row share one turn.
pub(crate) fn without_tools(messages: &[Message], tools: &[Tool], system: bool) -> Vec<Message> {
    let mut plain: Vec<Message> = Vec::with_capacity(messages.len() + 1);
    let mut in_results = false;
    for message in messages {
        let content = message.content.clone().unwrap_or_default();
        let is_result = message.role == "tool";
        if is_result {
            let result = format!("<tool_response>\n{content}\n</tool_response>");
            match plain.last_mut().filter(|_| in_results) {
                Some(turn) => append(turn, "\n", &result),
                None => plain.push(Message::new("user", result)),
            }
        } else {
            let mut turn = Message { content: Some(content), ..Message::new(&*message.role, "") };
            turn.name.clone_from(&message.name);
            turn.reasoning_content.clone_from(&message.reasoning_content);
            for call in &message.tool_calls {
                append(&mut turn, "\n", &written(call));
            }
            plain.push(turn);
        }
        in_results = is_result;
    }
    if tools.is_empty() {
        return plain;
    }
    let description = described(tools);
    match plain.first_mut().filter(|first| first.role == "system") {
        Some(first) => append(first, "\n\n", &description),
        None if system => plain.insert(0, Message::new("system", description)),
        None => {
            let asked = plain.first().and_then(|first| first.content.clone()).unwrap_or_default();
            match plain.first_mut() {
                Some(first) => first.content = Some(format!("{description}\n\n{asked}")),
                None => plain.push(Message::new("user", description)),
            }
        }
    }
    plain
}

/// Adds to what a message says, with a separator if it says something.
fn append(message: &mut Message, separator: &str, text: &str) {
    let content = message.content.get_or_insert_default();
    if !content.is_empty() {
        content.push_str(separator);
    }
    content.push_str(text);
}

/// A call as the assistant would have written it.
fn written(call: &ToolCall) -> String {
    let json = spaced(&json!({
        "name": call.function.name,
        "arguments": call.function.arguments,
    }));
    format!("<tool_call>\n{json}\n</tool_call>")
}

/// What the model is told about the tools.
fn described(tools: &[Tool]) -> String {
    let listed: Vec<String> = tools.iter().map(|tool| spaced(&json!(tool))).collect();
    format!(
        "You can call functions. These are the ones there are, one JSON description a line:\n\
         <tools>\n{}\n</tools>\n\
         Call a function when its result helps to answer. A call is written like this, with \
         arguments that follow the function's parameters:\n\
         <tool_call>\n{{\"name\": \"function_name\", \"arguments\": {{\"argument\": \"value\"}}}}\n\
         </tool_call>\n\
         Write nothing after your calls: the results are then given to you between \
         <tool_response> and </tool_response>.",
        listed.join("\n")
    )
}

/// JSON in one line with a space after commas and colons, as models have mostly seen it.
fn spaced(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("[{}]", items.iter().map(spaced).collect::<Vec<_>>().join(", "))
        }
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| {
                format!("{}: {}", Value::from(key.as_str()), spaced(value))
            };
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        _ => value.to_string(),
    }
}
