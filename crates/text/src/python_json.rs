//! JSON as Python's `json` writes it: `NaN`, `Infinity` and `-Infinity` are numbers there.
//!
//! Configurations of the wild hold them (`"rope_theta": Infinity`, a `NaN` in a key that only training
//! reads). In a [`Value`], which has no such numbers, they are objects of one key, as transformers 5
//! spells them: `{"__float__": "Infinity"}`. Whoever wants a number there finds none and says so;
//! keys that nobody reads do no harm, and [`print()`] writes them as they were.

use std::borrow::Cow;

use serde_json::Value;

/// The key of the object that stands for a number JSON does not have.
const KEY: &str = "__float__";
/// These numbers, the longer name before the one it ends with.
const NAMES: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Reads JSON, with Python's three more numbers and with or without a byte-order mark.
///
/// ```
/// use bantam_text::python_json;
/// let config = python_json::parse(br#"{"a": NaN, "b": [-Infinity, "NaN"], "c": 1}"#)?;
/// assert_eq!(python_json::name_of(&config["a"]), Some("NaN"));
/// assert_eq!(python_json::name_of(&config["b"][0]), Some("-Infinity"));
/// assert_eq!((&config["b"][1], &config["c"]), (&"NaN".into(), &1.into()));
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// # Errors
/// What JSON's own reader says, with line and column.
pub fn parse(text: &[u8]) -> Result<Value, serde_json::Error> {
    let text = text.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(text);
    serde_json::from_slice(text).or_else(|error| match spelt_out(text) {
        Cow::Borrowed(_) => Err(error),
        Cow::Owned(spelt) => serde_json::from_slice(&spelt),
    })
}

/// Writes a value as people read it, these numbers as Python writes them.
///
/// ```
/// use bantam_text::python_json;
/// let text = "{\n  \"a\": NaN,\n  \"b\": [\n    -Infinity\n  ]\n}\n";
/// assert_eq!(python_json::print(&python_json::parse(text.as_bytes())?), text);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[must_use]
pub fn print(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    text + "\n"
}

fn write(value: &Value, depth: usize, text: &mut String) {
    if let Some(name) = name_of(value) {
        return text.push_str(name);
    }
    let line = |depth: usize| format!("\n{}", "  ".repeat(depth));
    match value {
        Value::Array(items) if !items.is_empty() => {
            text.push('[');
            for (i, item) in items.iter().enumerate() {
                text.push_str(if i == 0 { "" } else { "," });
                text.push_str(&line(depth + 1));
                write(item, depth + 1, text);
            }
            text.push_str(&line(depth));
            text.push(']');
        }
        Value::Object(entries) if !entries.is_empty() => {
            text.push('{');
            for (i, (key, item)) in entries.iter().enumerate() {
                text.push_str(if i == 0 { "" } else { "," });
                text.push_str(&line(depth + 1));
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push_str(": ");
                write(item, depth + 1, text);
            }
            text.push_str(&line(depth));
            text.push('}');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

/// The name of one of these numbers.
#[must_use]
pub fn name_of(value: &Value) -> Option<&str> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    object.get(KEY)?.as_str().filter(|name| NAMES.contains(name))
}

/// The text with these numbers as objects; borrowed if there are none.
fn spelt_out(text: &[u8]) -> Cow<'_, [u8]> {
    let mut spelt: Vec<u8> = Vec::new();
    let (mut copied, mut at, mut in_string) = (0, 0, false);
    while at < text.len() {
        match text[at] {
            b'"' => in_string = !in_string,
            b'\\' if in_string => at += 1,
            b'N' | b'I' | b'-' if !in_string => {
                let found = NAMES.iter().find(|name| text[at..].starts_with(name.as_bytes()));
                if let Some(name) = found {
                    spelt.extend_from_slice(&text[copied..at]);
                    spelt.extend_from_slice(format!("{{\"{KEY}\":\"{name}\"}}").as_bytes());
                    at += name.len();
                    copied = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    spelt.extend_from_slice(&text[copied..]);
    Cow::Owned(spelt)
}
