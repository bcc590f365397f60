//! Objects that are one of several kinds, told apart by their `type`: which kinds are read, which is
//! meant where none is named, and why the others are refused.

use serde_json::Value;

use crate::error::ApiError;
use crate::request::fields::{self, FieldSet};
use crate::request::lists;

/// The kinds of the objects that stand at a place.
pub(crate) struct Kinds {
    /// The place: names of fields, with `[]` for every item of a list. A place that holds a text or
    /// nothing has no kinds.
    pub(crate) place: &'static str,
    /// Those that are read.
    pub(crate) known: &'static [&'static str],
    /// The kind of an object that does not say.
    pub(crate) default: Option<&'static str>,
    /// Those that are refused, and why: the beginnings of their names, since some end in a date.
    pub(crate) refused: &'static [(&'static str, &'static str)],
}

/// A JSON body with objects of these kinds and these fields: what remains of it is honoured.
///
/// # Errors
/// If it holds anything else.
pub(crate) fn read(bytes: &[u8], kinds: &[Kinds], fields: &FieldSet) -> Result<Value, ApiError> {
    let mut body = fields::read_any(bytes)?;
    check(&mut body, kinds)?;
    if let Value::Object(object) = &mut body {
        fields.check(object)?;
        lists::check(object)?;
    }
    Ok(body)
}

/// Checks the kinds of all these places in a body, and names those that are not named.
///
/// # Errors
/// If an object is of no known kind; names the known ones, or says why it is refused.
fn check(body: &mut Value, all: &[Kinds]) -> Result<(), ApiError> {
    all.iter().try_for_each(|kinds| kinds.check_at(body, kinds.place, ""))
}

impl Kinds {
    /// Follows `rest` of the place from a value that stands at `here`.
    fn check_at(&self, value: &mut Value, rest: &str, here: &str) -> Result<(), ApiError> {
        if let Some(rest) = rest.strip_prefix("[]") {
            let Value::Array(items) = value else { return Ok(()) };
            let mut items = items.iter_mut().enumerate();
            return items
                .try_for_each(|(n, item)| self.check_at(item, rest, &format!("{here}[{n}]")));
        }
        let rest = rest.strip_prefix('.').unwrap_or(rest);
        if rest.is_empty() {
            return self.check_one(value, here);
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (field, rest) = rest.split_at(end);
        let Some(value) = value.get_mut(field) else { return Ok(()) };
        let here = if here.is_empty() { field.to_owned() } else { format!("{here}.{field}") };
        self.check_at(value, rest, &here)
    }

    fn check_one(&self, value: &mut Value, here: &str) -> Result<(), ApiError> {
        let known = || self.known.join(", ");
        let refuse =
            |problem: String| Err(ApiError::bad_request(format!("{here} {problem}")).param(here));
        // Reading it says what else is wrong.
        let Value::Object(object) = value else { return Ok(()) };
        let name = match object.get("type") {
            Some(Value::String(name)) => name,
            None | Some(Value::Null) => {
                let Some(default) = self.default else {
                    return refuse(format!("has no type; expected {}", known()));
                };
                object.insert("type".to_owned(), default.into());
                return Ok(());
            }
            Some(_) => return refuse(format!("has a type that is no text; expected {}", known())),
        };
        if self.known.contains(&name.as_str()) {
            return Ok(());
        }
        let shown: String = name.chars().take(64).collect();
        let reason = self.refused.iter().find(|(start, _)| name.starts_with(start));
        refuse(match reason {
            Some((_, reason)) => format!("is of type {shown:?}, which is not supported: {reason}"),
            None => format!("is of type {shown:?}; expected {}", known()),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ALL: [Kinds; 2] = [
        Kinds {
            place: "items[]",
            known: &["text", "call"],
            default: Some("text"),
            refused: &[("search_", "no searching")],
        },
        Kinds { place: "items[].parts[]", known: &["part"], default: None, refused: &[] },
    ];

    #[test]
    fn kinds_are_checked_wherever_they_stand() {
        let mut body =
            json!({"items": [{"parts": [{"type": "part"}]}, {"type": "call", "parts": "x"}]});
        check(&mut body, &ALL).unwrap();
        assert_eq!(body["items"][0]["type"], "text");
        for body in [json!({}), json!({"items": "text"}), json!({"items": [7]})] {
            check(&mut body.clone(), &ALL).unwrap();
        }
        for (body, param, words) in [
            (json!({"items": [{"type": "search_2025"}]}), "items[0]", "no searching"),
            (json!({"items": [{"type": "other"}]}), "items[0]", "text, call"),
            (json!({"items": [{"type": 7}]}), "items[0]", "no text"),
            (json!({"items": [{}, {"parts": [{}]}]}), "items[1].parts[0]", "expected part"),
        ] {
            let error = check(&mut body.clone(), &ALL).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param));
            assert!(error.message.contains(words), "{}", error.message);
        }
    }
}
