//! How Python prints, compares and counts values.

use std::fmt::Write as _;

use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::fault;
use super::globals::Range;
use super::letters::is_printable;
use super::methods::{Group, Printed, View, engine_type};

/// Nothing that a conversation holds nests this deep.
const DEEPEST_VALUE: usize = 200;

/// `str(value)`.
pub(super) fn display(value: &Value) -> Result<String, Error> {
    match (value.kind(), value.as_str()) {
        (_, Some(text)) => Ok(text.to_owned()),
        (ValueKind::Undefined, _) => Ok(String::new()),
        _ => repr(value),
    }
}

/// `repr(value)`.
pub(super) fn repr(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    write_repr(value, &mut text, 0)?;
    Ok(text)
}

/// `ascii(value)`: its `repr` with escapes for all that is not ASCII.
pub(super) fn ascii(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    for letter in repr(value)?.chars() {
        if letter.is_ascii() { text.push(letter) } else { write_escape(letter, &mut text) }
    }
    Ok(text)
}

fn write_repr(value: &Value, text: &mut String, depth: usize) -> Result<(), Error> {
    if depth > DEEPEST_VALUE {
        return Err(fault(format!("a value nests more than {DEEPEST_VALUE} times")));
    }
    if let Some(printed) = value.downcast_object_ref::<Printed>() {
        text.push_str(&printed.0);
        return Ok(());
    }
    if let Some(view) = value.downcast_object_ref::<View>() {
        text.push_str(view.name);
        text.push_str("([");
        write_items(&view.items, text, depth)?;
        text.push_str("])");
        return Ok(());
    }
    if value.downcast_object_ref::<Range>().is_some() {
        text.push_str(&value.to_string());
        return Ok(());
    }
    if let Some(group) = value.downcast_object_ref::<Group>() {
        text.push('(');
        write_items(&[group.grouper.clone(), group.list.clone().into()], text, depth)?;
        text.push(')');
        return Ok(());
    }
    match (engine_type(value), value.get_attr("name")) {
        ("Loop", _) => {
            let (index, length) = (value.get_attr("index")?, value.get_attr("length")?);
            text.push_str(&format!("<LoopContext {index}/{length}>"));
            return Ok(());
        }
        ("Macro", Ok(name)) => {
            text.push_str(&format!("<Macro {}>", repr(&name)?));
            return Ok(());
        }
        _ => {}
    }
    let named = engine_type(value) == "Namespace";
    text.push_str(if named { "<Namespace " } else { "" });
    write_plain(value, text, depth)?;
    text.push_str(if named { ">" } else { "" });
    Ok(())
}

/// A value of one of Python's own types.
fn write_plain(value: &Value, text: &mut String, depth: usize) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Undefined => text.push_str("Undefined"),
        ValueKind::None => text.push_str("None"),
        ValueKind::String => write_quoted(value.as_str().unwrap_or_default(), text),
        ValueKind::Number if !value.is_integer() => text.push_str(&float(number(value)?)),
        ValueKind::Seq if value.is_tuple() => {
            text.push('(');
            let items: Vec<Value> = value.try_iter()?.collect();
            write_items(&items, text, depth)?;
            text.push_str(if items.len() == 1 { ",)" } else { ")" });
        }
        ValueKind::Seq | ValueKind::Iterable => {
            text.push('[');
            write_items(&value.try_iter()?.collect::<Vec<_>>(), text, depth)?;
            text.push(']');
        }
        ValueKind::Map => {
            text.push('{');
            for (n, key) in value.try_iter()?.enumerate() {
                text.push_str(if n == 0 { "" } else { ", " });
                write_repr(&key, text, depth + 1)?;
                text.push_str(": ");
                write_repr(&value.get_item(&key)?, text, depth + 1)?;
            }
            text.push('}');
        }
        _ => text.push_str(&value.to_string()),
    }
    Ok(())
}

fn write_items(items: &[Value], text: &mut String, depth: usize) -> Result<(), Error> {
    for (n, item) in items.iter().enumerate() {
        text.push_str(if n == 0 { "" } else { ", " });
        write_repr(item, text, depth + 1)?;
    }
    Ok(())
}

/// A text in quotes: single ones, unless it holds them and no double ones.
fn write_quoted(content: &str, text: &mut String) {
    let quote = if content.contains('\'') && !content.contains('"') { '"' } else { '\'' };
    text.push(quote);
    for letter in content.chars() {
        match letter {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\\' => text.push_str("\\\\"),
            _ if letter == quote => {
                text.push('\\');
                text.push(letter);
            }
            _ if is_printable(letter) => text.push(letter),
            _ => write_escape(letter, text),
        }
    }
    text.push(quote);
}

/// A character by its number.
fn write_escape(letter: char, text: &mut String) {
    let code = u32::from(letter);
    // Writing into a text cannot fail.
    let _ = match code {
        0..=0xFF => write!(text, "\\x{code:02x}"),
        0x100..=0xFFFF => write!(text, "\\u{code:04x}"),
        _ => write!(text, "\\U{code:08x}"),
    };
}

/// `repr` of a float: the shortest digits that read back, in exponents beyond 1e16 and below 1e-4.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    let text = number.to_string();
    if text.contains('.') { text } else { format!("{text}.0") }
}

/// The value of a number or of a truth value.
pub(super) fn number(value: &Value) -> Result<f64, Error> {
    let found = match value.kind() {
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        _ => None,
    };
    found.ok_or_else(|| fault(format!("{} is no number", type_name(value))))
}

/// A whole number that fits into 64 bits, or a truth value as one.
pub(super) fn integer(value: &Value) -> Option<i64> {
    match value.kind() {
        ValueKind::Bool => Some(i64::from(value.is_true())),
        ValueKind::Number if value.is_integer() => value.as_i64(),
        _ => None,
    }
}

/// What Python calls the type of a value.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "Undefined",
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        ValueKind::Bytes => "bytes",
        ValueKind::Seq if value.is_tuple() => "tuple",
        ValueKind::Seq => "list",
        ValueKind::Map => "dict",
        _ => "object",
    }
}

/// Whether a value is a text, which is a sequence and no list to Python.
pub(super) fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq) && !value.is_tuple()
}

/// The items of what Python can go through: not of none, which the engine takes for empty.
pub(super) fn items(value: &Value) -> Result<Vec<Value>, Error> {
    if value.is_none() {
        return Err(fault("'NoneType' object is not iterable"));
    }
    Ok(value.try_iter()?.collect())
}

/// Compares two values as `<` does: numbers with numbers, texts with texts, lists item by item.
pub(super) fn compare(left: &Value, right: &Value) -> Result<std::cmp::Ordering, Error> {
    use std::cmp::Ordering;
    let is_number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    if is_number(left) && is_number(right) {
        if let (Some(left), Some(right)) = (integer(left), integer(right)) {
            return Ok(left.cmp(&right));
        }
        return Ok(number(left)?.partial_cmp(&number(right)?).unwrap_or(Ordering::Equal));
    }
    if let (Some(left), Some(right)) = (left.as_str(), right.as_str()) {
        return Ok(left.cmp(right));
    }
    let lists = matches!((left.kind(), right.kind()), (ValueKind::Seq, ValueKind::Seq));
    if lists && left.is_tuple() == right.is_tuple() {
        let (left, right) = (items(left)?, items(right)?);
        for (left, right) in left.iter().zip(&right) {
            if left != right {
                return compare(left, right);
            }
        }
        return Ok(left.len().cmp(&right.len()));
    }
    Err(fault(format!(
        "'<' not supported between instances of '{}' and '{}'",
        type_name(left),
        type_name(right)
    )))
}

/// Whether two values are equal and of types that Python takes for one: `1 == true`, `1 == 1.0`.
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (number(left), number(right)) {
        (Ok(a), Ok(b)) => match (integer(left), integer(right)) {
            (Some(a), Some(b)) => a == b,
            _ => a == b,
        },
        _ => left == right,
    }
}

/// `markupsafe.escape`.
pub(super) fn escaped(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => result.push_str("&amp;"),
            '<' => result.push_str("&lt;"),
            '>' => result.push_str("&gt;"),
            '\'' => result.push_str("&#39;"),
            '"' => result.push_str("&#34;"),
            _ => result.push(letter),
        }
    }
    result
}
