//! `tojson`: `json.dumps` with the arguments that `transformers` lets through.

use std::fmt::Write as _;

use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::arguments::Arguments;
use super::globals::Range;
use super::{fault, python};

/// The deepest value that is written.
const DEEPEST: usize = 200;

/// The widest indent; templates indent by a handful of spaces.
const WIDEST_INDENT: i64 = 64;

struct Form {
    ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

/// `json.dumps(x, ensure_ascii, indent, separators, sort_keys)`.
pub(super) fn to_json(arguments: &Arguments) -> Result<Value, Error> {
    let indent = match arguments.some(2) {
        None => None,
        Some(indent) => Some(match indent.as_str() {
            Some(indent) => indent.to_owned(),
            None => " ".repeat(arguments.integer_or(2, 0)?.clamp(0, WIDEST_INDENT) as usize),
        }),
    };
    let (item_separator, key_separator) = match arguments.some(3) {
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
        Some(separators) => match &python::items(separators)?[..] {
            [item, key] => (python::display(item)?, python::display(key)?),
            _ => return Err(fault("tojson: separators are two texts: (', ', ': ')")),
        },
    };
    let form = Form {
        ascii: arguments.flag_or(1, false),
        indent,
        item_separator,
        key_separator,
        sort_keys: arguments.flag_or(4, false),
    };
    let mut text = String::new();
    form.write(arguments.value(0)?, &mut text, 0)?;
    Ok(text.into())
}

impl Form {
    fn write(&self, value: &Value, text: &mut String, depth: usize) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(fault(format!("tojson: a value nests more than {DEEPEST} times")));
        }
        if text.len() > super::MOST_BYTES {
            return Err(fault("tojson makes a text that is too long"));
        }
        match value.kind() {
            ValueKind::None => text.push_str("null"),
            ValueKind::Bool => text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::String => self.quote(value.as_str().unwrap_or_default(), text),
            ValueKind::Number if value.is_integer() => text.push_str(&value.to_string()),
            ValueKind::Number => text.push_str(&float(python::number(value)?)),
            ValueKind::Seq if value.downcast_object_ref::<Range>().is_none() => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list(['[', ']'], items.len(), text, depth, |form, n, text| {
                    form.write(&items[n], text, depth + 1)
                })?;
            }
            ValueKind::Map => {
                let mut entries = Vec::new();
                for [key, value] in super::methods::pairs(value)? {
                    entries.push((key, value));
                }
                if self.sort_keys {
                    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.list(['{', '}'], entries.len(), text, depth, |form, n, text| {
                    let (key, value) = &entries[n];
                    form.quote(&name(key)?, text);
                    text.push_str(&form.key_separator);
                    form.write(value, text, depth + 1)
                })?;
            }
            _ => {
                let kind = python::type_name(value);
                return Err(fault(format!("Object of type {kind} is not JSON serializable")));
            }
        }
        Ok(())
    }

    fn list(
        &self,
        brackets: [char; 2],
        length: usize,
        text: &mut String,
        depth: usize,
        mut item: impl FnMut(&Self, usize, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        text.push(brackets[0]);
        for n in 0..length {
            if n > 0 {
                text.push_str(&self.item_separator);
            }
            self.new_line(text, depth + 1);
            item(self, n, text)?;
        }
        if length > 0 {
            self.new_line(text, depth);
        }
        text.push(brackets[1]);
        Ok(())
    }

    fn new_line(&self, text: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            text.push('\n');
            text.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn quote(&self, content: &str, text: &mut String) {
        text.push('"');
        for letter in content.chars() {
            match letter {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\u{8}' => text.push_str("\\b"),
                '\u{c}' => text.push_str("\\f"),
                '\0'..='\u{1f}' => escape(letter, text),
                _ if self.ascii && !(' '..='~').contains(&letter) => escape(letter, text),
                _ => text.push(letter),
            }
        }
        text.push('"');
    }
}

/// `\u0041`, in two for characters beyond the first plane.
fn escape(letter: char, text: &mut String) {
    let mut units = [0; 2];
    for unit in letter.encode_utf16(&mut units) {
        // Writing into a text cannot fail.
        let _ = write!(text, "\\u{unit:04x}");
    }
}

/// A number, or the words that Python writes and JSON does not know.
fn float(number: f64) -> String {
    match () {
        () if number.is_nan() => "NaN".to_owned(),
        () if number.is_infinite() => {
            if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
        }
        () => python::float(number),
    }
}

/// The key of an object: numbers, truth values and none are written as texts.
fn name(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number if key.is_integer() => Ok(key.to_string()),
        ValueKind::Number => Ok(float(python::number(key)?)),
        _ => Err(fault("tojson: keys must be str, int, float, bool or None")),
    }
}
