//! How long the lists of a request may be.
//!
//! Every entry costs work for every request beside it, and a body has room for millions. Each
//! list has a bound far above what clients send; the message that refuses a longer one says it.

use serde_json::{Map, Value};

use crate::error::ApiError;

/// The bounds of one field.
struct ListBounds {
    field: &'static str,
    /// Entries of a list or an object at most.
    entries: usize,
    /// Bytes of all its texts together at most.
    bytes: usize,
}

const fn list(field: &'static str, entries: usize, bytes: usize) -> ListBounds {
    ListBounds { field, entries, bytes }
}

/// For lists of numbers and objects, whose bytes the body's own limit bounds.
const ANY: usize = usize::MAX;

const BOUNDS: &[ListBounds] = &[
    // Each word is tokenized twice and compared with the end of the answer at every step.
    list("bad_words", 1024, 64 << 10),
    list("stop", 16, 16 << 10),
    list("stop_sequences", 16, 16 << 10),
    list("stop_token_ids", 1024, ANY),
    list("logit_bias", 4096, ANY),
    list("allowed_token_ids", 1 << 18, ANY),
    list("guided_choice", 4096, 1 << 20),
    list("messages", 4096, ANY),
    list("input", 4096, ANY),
    list("tools", 512, ANY),
    list("functions", 512, ANY),
    list("documents", 1024, ANY),
    list("chat_template_kwargs", 64, ANY),
    list("metadata", 64, ANY),
];

/// Parts of the content of one message at most.
const PARTS: ListBounds = list("content", 1024, ANY);

/// Refuses an object with a field that is longer than its bounds.
pub(crate) fn check(body: &Map<String, Value>) -> Result<(), ApiError> {
    for bounds in BOUNDS {
        if let Some(value) = body.get(bounds.field) {
            bounds.check(value, bounds.field)?;
        }
    }
    let messages = body.get("messages").and_then(Value::as_array);
    for (index, message) in messages.into_iter().flatten().enumerate() {
        PARTS.check(&message["content"], &format!("messages[{index}].content"))?;
    }
    Ok(())
}

impl ListBounds {
    /// `place` is where the field stands in the request.
    fn check(&self, value: &Value, place: &str) -> Result<(), ApiError> {
        let (entries, bytes) = match value {
            Value::Array(list) => {
                (list.len(), list.iter().filter_map(Value::as_str).map(str::len).sum())
            }
            Value::Object(object) => (object.len(), 0),
            Value::String(text) if self.bytes != ANY => (1, text.len()),
            _ => return Ok(()),
        };
        let refuse = |got: usize, what: &str, limit: usize| {
            let message = format!("{place} has {got} {what}, expected at most {limit}");
            Err(ApiError::bad_request(message).param(place))
        };
        if entries > self.entries {
            refuse(entries, "entries", self.entries)
        } else if bytes > self.bytes {
            refuse(bytes, "bytes of text", self.bytes)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_list_has_its_bound_and_says_it() {
        for bounds in BOUNDS {
            let longest = Value::Array(vec![json!(1); bounds.entries]);
            let body = |value: Value| Map::from_iter([(bounds.field.to_owned(), value)]);
            check(&body(longest.clone())).unwrap();
            let Value::Array(mut list) = longest else { continue };
            list.push(json!(1));
            let error = check(&body(list.into())).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(bounds.field));
            assert!(error.message.contains(&format!("at most {}", bounds.entries)), "{error:?}");
            if bounds.bytes != ANY {
                let error = check(&body(json!(["x".repeat(bounds.bytes), "y"]))).unwrap_err();
                assert!(error.message.contains(&format!("at most {}", bounds.bytes)), "{error:?}");
            }
        }
        let parts = json!({"messages": [{"content": vec![json!({}); 1025]}]});
        let error = check(parts.as_object().unwrap()).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("messages[0].content"));
    }
}
