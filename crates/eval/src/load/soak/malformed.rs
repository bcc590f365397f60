//! Requests that a server must refuse.

use serde_json::{Value, json};

/// Levels of nesting that no honest request has.
const DEEP: usize = 50_000;

/// A request that is wrong in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    /// What is wrong with it.
    pub(super) name: &'static str,
    pub(super) path: &'static str,
    /// None for a request of the wrong method.
    pub(super) body: Option<Vec<u8>>,
}

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// One of each kind.
pub(super) fn all(model: &str) -> Vec<Malformed> {
    let raw = |name, body: Vec<u8>| Malformed { name, path: COMPLETIONS, body: Some(body) };
    let with = |name, path, mut body: Value, fields: Value| {
        if let (Some(body), Value::Object(fields)) = (body.as_object_mut(), fields) {
            body.extend(fields);
        }
        Malformed { name, path, body: Some(body.to_string().into_bytes()) }
    };
    let text = |name, fields| {
        with(name, COMPLETIONS, json!({ "model": model, "prompt": "a", "max_tokens": 4 }), fields)
    };
    let chat = |name, fields| {
        let messages = json!([{ "role": "user", "content": "a" }]);
        with(name, CHAT, json!({ "model": model, "messages": messages, "max_tokens": 4 }), fields)
    };
    let deep = [vec![b'['; DEEP], vec![b']'; DEEP]].concat();
    vec![
        raw("empty body", Vec::new()),
        raw("half a document", br#"{"model": "#.to_vec()),
        raw("not UTF-8", b"{\"model\": \"\xff\xfe\"}".to_vec()),
        raw("deeply nested", deep),
        raw("no object", b"[1, 2, 3]".to_vec()),
        raw("no prompt", json!({ "model": model }).to_string().into_bytes()),
        Malformed { name: "unknown path", path: "/v1/nothing", body: Some(b"{}".to_vec()) },
        Malformed { name: "wrong method", path: COMPLETIONS, body: None },
        text("unknown model", json!({ "model": "no such model" })),
        text("unknown field", json!({ "max_token": 4 })),
        text("wrong type", json!({ "max_tokens": "many" })),
        text("longer than any context", json!({ "min_tokens": 1_000_000_000_000_u64 })),
        text("beyond the vocabulary", json!({ "prompt": [4_000_000_000_u64] })),
        text("no answers", json!({ "n": 0 })),
        text("too many answers", json!({ "n": 100_000 })),
        text("bad temperature", json!({ "temperature": -1 })),
        text("bad top_p", json!({ "top_p": 7.5 })),
        text("bad regular expression", json!({ "structured_outputs": { "regex": "(" } })),
        text("bad grammar", json!({ "structured_outputs": { "grammar": "start: nothing" } })),
        text("refused field", json!({ "suffix": "x" })),
        chat("empty conversation", json!({ "messages": [] })),
        chat("unknown role", json!({ "messages": [{ "role": "nobody", "content": "a" }] })),
        chat("bad schema", json!({ "response_format": { "type": "json_schema" } })),
        chat("tool that is not there", json!({ "tool_choice": { "type": "function" } })),
        chat("line breaks in a name", json!({ "a\nb\r\nc": 1 })),
    ]
}

/// What is wrong with the answer to a malformed request.
pub(super) fn answer_problem(status: u16, body: &[u8]) -> Option<String> {
    if !(400..500).contains(&status) {
        return Some(format!("status {status}, expected 400 to 499"));
    }
    let body = String::from_utf8_lossy(body);
    let value: Value = serde_json::from_str(&body).unwrap_or_default();
    match value["error"]["message"].as_str() {
        None => Some(format!("status {status} without error.message: {body:?}")),
        Some(message) if message.trim().is_empty() => Some(format!("status {status}: no words")),
        Some(message) if message.contains(['\n', '\r']) => {
            Some(format!("status {status}: more than one line: {message:?}"))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_judged() {
        let body = |message: &str| json!({ "error": { "message": message } }).to_string();
        assert_eq!(answer_problem(404, body("no such model").as_bytes()), None);
        assert!(answer_problem(200, body("fine").as_bytes()).is_some());
        assert!(answer_problem(500, body("a fault").as_bytes()).is_some());
        assert!(answer_problem(400, body("two\nlines").as_bytes()).is_some());
        assert!(answer_problem(400, body(" ").as_bytes()).is_some());
        assert!(answer_problem(400, b"plain").is_some());
    }

    #[test]
    fn each_kind_has_its_name() {
        let all = all("tiny");
        let mut names: Vec<&str> = all.iter().map(|one| one.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
    }
}
