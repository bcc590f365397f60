//! Python's `%` on texts.
//!
//! The engine writes numbers; which value a conversion takes, and what it makes of it first, is Python's.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::{fault, python};

/// The widest field: no template pads further.
const WIDEST: i64 = 1 << 12;

/// `pattern % values`: a tuple has a value for each conversion, a dictionary one for each name.
pub(super) fn printf(pattern: &str, values: &Value) -> Result<Value, Error> {
    let given = if values.is_tuple() { python::items(values)? } else { vec![values.clone()] };
    let mut given = given.iter();
    let (mut plain, mut converted) = (String::new(), Vec::new());
    let mut named = false;
    let mut rest = pattern;
    while let Some(start) = rest.find('%') {
        plain.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        let mut value = None;
        if let Some(inner) = rest.strip_prefix('(') {
            let (name, after) =
                inner.split_once(')').ok_or_else(|| fault("incomplete format key"))?;
            if values.kind() != ValueKind::Map {
                return Err(fault("format requires a mapping"));
            }
            let found = values.get_item(&Value::from(name))?;
            if found.is_undefined() {
                return Err(fault(format!("the key {name:?} is not in the mapping")));
            }
            (value, rest, named) = (Some(found), after, true);
        }
        let mut take =
            || given.next().ok_or_else(|| fault("not enough arguments for format string"));
        let mut conversion = String::from("%");
        let mut letters = rest.char_indices();
        let (end, letter) = loop {
            match letters.next() {
                Some((_, '*')) => {
                    let width = python::integer(take()?).ok_or_else(|| fault("* wants int"))?;
                    conversion.push_str(&width.to_string());
                }
                // Lengths of C's numbers, which Python reads and passes over.
                Some((_, 'h' | 'l' | 'L')) => {}
                Some((_, letter)) if matches!(letter, '0'..='9' | '.' | '-' | '+' | '#' | ' ') => {
                    conversion.push(letter);
                }
                Some((at, letter)) => break (at + letter.len_utf8(), letter),
                None => return Err(fault("incomplete format")),
            }
        };
        rest = &rest[end..];
        check_width(&conversion)?;
        if letter == '%' {
            plain.push_str("%%");
            continue;
        }
        let value = match value {
            Some(value) => value,
            None => take()?.clone(),
        };
        let (letter, value) = convert(letter, &value)?;
        plain.push_str(&conversion);
        plain.push(letter);
        converted.push(value);
    }
    plain.push_str(rest);
    let unused = given.next().is_some() && values.kind() != ValueKind::Map && !named;
    let is_list = converted.is_empty() && python::is_list(values);
    if unused && !is_list {
        return Err(fault("not all arguments converted during string formatting"));
    }
    Ok(format(FormatStyle::Printf, &plain, &converted)?.into())
}

/// Refuses widths and precisions that only make long texts.
fn check_width(conversion: &str) -> Result<(), Error> {
    let numbers = conversion.split(|letter: char| !letter.is_ascii_digit());
    let wide = numbers
        .filter(|number| !number.is_empty())
        .any(|number| number.parse::<i64>().map_or(true, |number| number > WIDEST));
    if wide { Err(fault(format!("a field is wider than {WIDEST}"))) } else { Ok(()) }
}

/// The conversion and the value that the engine writes as Python does.
fn convert(letter: char, value: &Value) -> Result<(char, Value), Error> {
    Ok(match letter {
        's' => ('s', python::display(value)?.into()),
        'r' => ('s', python::repr(value)?.into()),
        'a' => ('s', python::ascii(value)?.into()),
        'd' | 'i' | 'u' => {
            let whole = match python::integer(value) {
                Some(_) if value.kind() == ValueKind::Number => value.clone(),
                Some(truth) => truth.into(),
                None if value.is_integer() => value.clone(),
                None => Value::from(python::number(value)?.trunc() as i128),
            };
            ('d', whole)
        }
        'x' | 'X' | 'o' => {
            (letter, python::integer(value).map_or_else(|| value.clone(), Value::from))
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => (letter, python::number(value)?.into()),
        'c' => ('c', value.clone()),
        _ => return Err(fault(format!("unsupported format character {letter:?}"))),
    })
}
