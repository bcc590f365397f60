//! The words of JSON Schema: which are enforced, which are comments, and of what type each is.

use serde_json::{Map, Number, Value};

use crate::grammar::limits;

pub(super) const TYPES: [&str; 7] =
    ["null", "boolean", "integer", "number", "string", "array", "object"];

/// Keywords about numbers, strings, arrays and objects.
pub(super) const NUMBER: [&str; 5] =
    ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
pub(super) const TEXT: [&str; 4] = ["minLength", "maxLength", "pattern", "format"];
pub(super) const LIST: [&str; 7] = [
    "items",
    "prefixItems",
    "additionalItems",
    "unevaluatedItems",
    "minItems",
    "maxItems",
    "uniqueItems",
];
pub(super) const OBJECT: [&str; 8] = [
    "properties",
    "patternProperties",
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "required",
    "minProperties",
    "maxProperties",
];

/// Words of the standard that are not enforced, and what to do instead. All other words that are
/// not enforced are comments, as the standard says.
const REFUSED: [(&str, &str); 7] = [
    ("contains", "say with prefixItems and items what the items are"),
    ("minContains", "say with prefixItems and items what the items are"),
    ("maxContains", "say with prefixItems and items what the items are"),
    ("$dynamicRef", "use $ref"),
    ("$recursiveRef", "use $ref"),
    ("extends", "use allOf"),
    ("x-guidance", "JSON is written in one line"),
];

/// Refuses what the standard means to be enforced and is not.
pub(super) fn check(fields: &Map<String, Value>) -> Result<(), String> {
    for (word, instead) in REFUSED {
        if fields.contains_key(word) {
            return Err(format!("unsupported keyword {word:?}; {instead}"));
        }
    }
    Ok(())
}

pub(super) fn text<'a>(keyword: &str, value: &'a Value) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| unexpected(keyword, value, "a text"))
}

pub(super) fn list<'a>(keyword: &str, value: &'a Value) -> Result<&'a [Value], String> {
    Ok(vec(keyword, value)?.as_slice())
}

pub(super) fn vec<'a>(keyword: &str, value: &'a Value) -> Result<&'a Vec<Value>, String> {
    value.as_array().ok_or_else(|| unexpected(keyword, value, "a list"))
}

pub(super) fn object<'a>(
    keyword: &str,
    value: &'a Value,
) -> Result<&'a Map<String, Value>, String> {
    value.as_object().ok_or_else(|| unexpected(keyword, value, "an object"))
}

/// The number of a keyword, unless there is none or a boolean, which draft 4 has for some.
pub(super) fn number<'a>(
    fields: &'a Map<String, Value>,
    keyword: &str,
) -> Result<Option<&'a Number>, String> {
    match fields.get(keyword) {
        None | Some(Value::Bool(_)) => Ok(None),
        Some(Value::Number(number)) => Ok(Some(number)),
        Some(other) => Err(unexpected(keyword, other, "a number")),
    }
}

/// The count of a keyword: a whole number that is not negative, perhaps written as `3.0`.
pub(super) fn count(fields: &Map<String, Value>, keyword: &str) -> Result<Option<u64>, String> {
    let Some(value) = fields.get(keyword) else { return Ok(None) };
    let whole = |number: f64| number.fract() == 0.0 && number >= 0.0;
    let count = value.as_u64().or_else(|| {
        // The largest of these is refused as too large a moment later.
        value.as_f64().filter(|&number| whole(number)).map(|number| number as u64)
    });
    let count = count.ok_or_else(|| unexpected(keyword, value, "a count of 0 or more"))?;
    limits::check_count(keyword, count)?;
    Ok(Some(count))
}

fn unexpected(keyword: &str, value: &Value, expected: &str) -> String {
    format!("{keyword} is {value}; expected {expected}")
}
