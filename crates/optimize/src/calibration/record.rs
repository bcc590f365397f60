//! The records that people train and calibrate with, and the text in them.

use bantam_text::{ChatTemplate, Message};
use serde_json::{Map, Value};

use super::CalibrationText;

/// Fields that hold a text.
const TEXTS: [&str; 2] = ["text", "content"];
/// Fields that hold a conversation: OpenAI's, and ShareGPT's.
const CONVERSATIONS: [&str; 3] = ["messages", "conversations", "conversation"];
/// Fields that hold a question and its answer. Alpaca has an `input` between them.
const PAIRS: [(&str, &str); 7] = [
    ("instruction", "output"),
    ("instruction", "response"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("query", "response"),
    ("input", "output"),
];
/// Who speaks in ShareGPT's files, and the roles that templates know.
const SPEAKERS: [(&str, &str); 6] = [
    ("human", "user"),
    ("gpt", "assistant"),
    ("chatgpt", "assistant"),
    ("model", "assistant"),
    ("observation", "tool"),
    ("function", "tool"),
];

/// The text of a record: a JSON string, or an object with known fields.
pub(super) fn text_of(
    record: &Value,
    template: Option<&ChatTemplate>,
) -> Result<CalibrationText, String> {
    let fields = match record {
        Value::String(text) => return Ok(CalibrationText::plain(text)),
        Value::Object(fields) => fields,
        other => return Err(format!("it is {}; {}", kind(other), expected())),
    };
    if let Some(key) = given(fields, &CONVERSATIONS) {
        return conversation(key, &fields[key], template);
    }
    if let Some(key) = given(fields, &TEXTS) {
        return Ok(CalibrationText::plain(&text_field(key, &fields[key])?));
    }
    let has = |key: &str| fields.get(key).is_some_and(|value| !value.is_null());
    if let Some((question, answer)) = PAIRS.iter().find(|(q, a)| has(q) && has(a)) {
        return pair(fields, question, answer, template);
    }
    let names: Vec<String> = fields.keys().map(|key| format!("`{key}`")).collect();
    let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Err(format!("its fields are {found}; {}", expected()))
}

/// What a record may be, in words.
fn expected() -> String {
    let pairs = PAIRS.map(|(question, answer)| format!("`{question}` and `{answer}`"));
    format!(
        "expected a string, or an object with `text`, `messages`, `conversations`, or {}",
        pairs.join(", or ")
    )
}

/// The first of the fields that is there.
fn given<'k>(fields: &Map<String, Value>, keys: &[&'k str]) -> Option<&'k str> {
    keys.iter().copied().find(|key| fields.get(*key).is_some_and(|value| !value.is_null()))
}

/// What a JSON value is, in words.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A text, or the text parts of one, a line each.
fn text_field(place: &str, value: &Value) -> Result<String, String> {
    let parts = match value {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => parts,
        other => return Err(format!("`{place}` is {}, expected a string", kind(other))),
    };
    let text = |(number, part): (usize, &Value)| match (part.as_str(), part["text"].as_str()) {
        (Some(text), _) | (None, Some(text)) => Ok(text.to_owned()),
        (None, None) => Err(match part["type"].as_str() {
            Some(other) => format!("`{place}[{number}]` is of type {other:?}, expected \"text\""),
            None => format!("`{place}[{number}]` is {}, expected a text part", kind(part)),
        }),
    };
    let texts = parts.iter().enumerate().map(text).collect::<Result<Vec<_>, _>>()?;
    Ok(texts.join("\n"))
}

/// A question and its answer: texts, or the turns of a conversation.
fn pair(
    fields: &Map<String, Value>,
    question: &str,
    answer: &str,
    template: Option<&ChatTemplate>,
) -> Result<CalibrationText, String> {
    if let (Value::Array(before), Value::Array(after)) = (&fields[question], &fields[answer])
        && before.iter().chain(after).all(Value::is_object)
        && before.iter().all(|turn| turn.get("role").is_some())
    {
        let turns = Value::Array(before.iter().chain(after).cloned().collect());
        return conversation(question, &turns, template);
    }
    let mut text = text_field(question, &fields[question])?;
    let input = fields.get("input").filter(|_| question == "instruction");
    for (key, part) in
        input.map(|input| ("input", input)).into_iter().chain([(answer, &fields[answer])])
    {
        let part = if part.is_null() { String::new() } else { text_field(key, part)? };
        if !part.is_empty() {
            text = format!("{text}\n\n{part}");
        }
    }
    Ok(CalibrationText::plain(&format!("{text}\n")))
}

/// A conversation through the model's chat template.
fn conversation(
    key: &str,
    turns: &Value,
    template: Option<&ChatTemplate>,
) -> Result<CalibrationText, String> {
    let Value::Array(turns) = turns else {
        return Err(format!("`{key}` is {}, expected an array of turns", kind(turns)));
    };
    let template = template.ok_or_else(|| {
        format!("it has `{key}`, but the model has no chat template; give `text`")
    })?;
    let message = |(number, turn)| message(&format!("{key}[{number}]"), turn);
    let messages = turns.iter().enumerate().map(message).collect::<Result<Vec<_>, _>>()?;
    let text = template.render_messages(&messages, false).map_err(|error| error.to_string())?;
    Ok(CalibrationText { text, rendered: true })
}

/// A turn, with `role` and `content` or ShareGPT's `from` and `value`.
fn message(place: &str, turn: &Value) -> Result<Message, String> {
    let Value::Object(fields) = turn else {
        return Err(format!("`{place}` is {}, expected an object", kind(turn)));
    };
    let Some(role) = given(fields, &["role", "from"]).and_then(|key| fields[key].as_str()) else {
        return Err(format!("`{place}` does not say who speaks; expected `role` or `from`"));
    };
    let known = SPEAKERS.iter().find(|(speaker, _)| *speaker == role);
    let mut fields = fields.clone();
    fields.insert("role".to_owned(), known.map_or(role, |(_, role)| role).into());
    if let Some(key) = given(&fields, &["content", "value"]) {
        let content = text_field(&format!("{place}.{key}"), &fields[key])?;
        fields.insert("content".to_owned(), content.into());
    }
    serde_json::from_value(Value::Object(fields)).map_err(|error| format!("`{place}`: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";

    fn read(record: Value) -> Result<CalibrationText, String> {
        let template = ChatTemplate::new(TEMPLATE, "", "").unwrap();
        text_of(&record, Some(&template))
    }

    #[test]
    fn every_form_gives_its_text() {
        let plain = [
            (json!("a"), "a"),
            (json!({"text": "a"}), "a"),
            (json!({"text": null, "content": "a", "id": 3}), "a"),
            (json!({"instruction": "a", "input": "", "output": "b"}), "a\n\nb\n"),
            (json!({"instruction": "a", "input": "x", "output": "b"}), "a\n\nx\n\nb\n"),
            (json!({"instruction": "a", "response": "b"}), "a\n\nb\n"),
            (json!({"prompt": "a", "completion": "b"}), "a\n\nb\n"),
            (json!({"question": "a", "answer": "b"}), "a\n\nb\n"),
            (json!({"input": "a", "output": "b"}), "a\n\nb\n"),
            (json!({"text": [{"type": "text", "text": "a"}, "b"]}), "a\nb"),
        ];
        for (record, expected) in plain {
            assert_eq!(read(record.clone()), Ok(CalibrationText::plain(expected)), "{record}");
        }
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "x"}]);
        let user = |content: Value| json!({"role": "user", "content": content});
        let assistant = json!({"role": "assistant", "content": "b"});
        let rendered = [
            (json!({"messages": [user("a".into()), assistant]}), "user: a\nassistant: b\n"),
            (json!({"messages": [user(parts), assistant]}), "user: a\nx\nassistant: b\n"),
            (
                json!({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}),
                "user: a\nassistant: b\n",
            ),
            (
                json!({"prompt": [user("a".into())], "completion": [assistant]}),
                "user: a\nassistant: b\n",
            ),
        ];
        for (record, expected) in rendered {
            let text = CalibrationText { text: expected.to_owned(), rendered: true };
            assert_eq!(read(record.clone()), Ok(text), "{record}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        let image = json!([{"type": "image_url", "image_url": "x"}]);
        let cases = [
            (json!(3), "it is a number; expected a string, or an object with `text`"),
            (json!({}), "its fields are none"),
            (json!({"body": "a", "n": 1}), "its fields are `body`, `n`; expected"),
            (json!({"text": 3}), "`text` is a number, expected a string"),
            (json!({"messages": "a"}), "`messages` is a string, expected an array of turns"),
            (json!({"messages": ["a"]}), "`messages[0]` is a string, expected an object"),
            (json!({"messages": [{"content": "a"}]}), "`messages[0]` does not say who speaks"),
            (
                json!({"messages": [{"role": "user", "content": image}]}),
                "`messages[0].content[0]` is of type \"image_url\"",
            ),
            (json!({"prompt": "a", "completion": 1}), "`completion` is a number"),
        ];
        for (record, expected) in cases {
            let error = read(record.clone()).unwrap_err();
            assert!(error.contains(expected), "{record}: {error}");
        }
        let error = text_of(&json!({"messages": []}), None).unwrap_err();
        assert!(error.contains("no chat template; give `text`"), "{error}");
    }
}
