//! What a schema does not accept, for `not`, `if` and `oneOf`: one of its keywords fails.

use serde_json::{Map, Value};

use super::decimal::{Decimal, Rounding};
use super::document::Node;
use super::expand::{Expander, FALSE, any_kind};
use super::form::{Alternative, Bound, Form, ListForm, NumberForm, ObjectForm, TextForm};
use super::keywords::{self, LIST, NUMBER, OBJECT, TEXT};

type Alternatives<'a> = Vec<Alternative<'a>>;

/// All ways not to satisfy a schema. The keywords are about one kind of value each, and other kinds
/// satisfy them, so a value that does not is of that kind.
pub(super) fn fields<'a>(
    expander: &Expander<'a>,
    fields: &'a Map<String, Value>,
) -> Result<Alternatives<'a>, String> {
    keywords::check(fields)?;
    let mut all = Vec::new();
    for (keyword, value) in fields {
        match keyword.as_str() {
            "type" => all.extend(other_types(value)?),
            "const" => all.extend(other_values(std::slice::from_ref(value))?),
            "enum" => all.extend(other_values(keywords::list(keyword, value)?)?),
            "not" => all.extend(expander.node(Node::new(value))?),
            "$ref" => {
                let target = expander.document.resolve(keywords::text(keyword, value)?)?;
                all.extend(expander.node(Node::not(target))?);
            }
            "allOf" => {
                for schema in keywords::list(keyword, value)? {
                    all.extend(expander.node(Node::not(schema))?);
                }
            }
            "anyOf" => {
                let mut none = any_kind();
                for schema in keywords::list(keyword, value)? {
                    none = expander.both(none, expander.node(Node::not(schema))?)?;
                }
                all.extend(none);
            }
            "required" => {
                for name in keywords::list(keyword, value)? {
                    let name = keywords::text(keyword, name)?;
                    let properties = vec![(name, vec![Node::new(&FALSE)])];
                    all.push(object(ObjectForm { properties, ..ObjectForm::default() }));
                }
            }
            "properties" => {
                for (name, schema) in keywords::object(keyword, value)? {
                    let properties = vec![(name.as_str(), vec![Node::not(schema)])];
                    let required = vec![name.as_str()];
                    all.push(object(ObjectForm { properties, required, ..ObjectForm::default() }));
                }
            }
            "pattern" => {
                let patterns = vec![(keywords::text(keyword, value)?, false)];
                all.push(text(TextForm { patterns, ..TextForm::default() }));
            }
            "title" | "description" | "default" | "examples" | "$comment" | "$defs"
            | "definitions" | "$schema" | "$id" => {}
            _ if NUMBER.contains(&keyword.as_str()) => all.extend(outside(fields, keyword)?),
            _ if counts(keyword) => all.extend(uncounted(fields, keyword)?),
            _ if is_enforced(keyword) => {
                return Err(format!(
                    "unsupported keyword {keyword:?} within \"not\", \"if\" or an option of \
                     \"oneOf\" that others overlap; say what is wanted instead"
                ));
            }
            _ => {}
        }
    }
    Ok(all)
}

fn object(form: ObjectForm<'_>) -> Alternative<'_> {
    Alternative::told(Form::Object(form))
}

fn text(form: TextForm<'_>) -> Alternative<'_> {
    Alternative::told(Form::Text(form))
}

fn list(form: ListForm<'_>) -> Alternative<'_> {
    Alternative::told(Form::List(form))
}

/// Whether a keyword is more than a comment.
fn is_enforced(keyword: &str) -> bool {
    let others = ["oneOf", "if", "dependentRequired", "dependentSchemas", "dependencies"];
    TEXT.contains(&keyword)
        || LIST.contains(&keyword)
        || OBJECT.contains(&keyword)
        || others.contains(&keyword)
}

fn other_types(value: &Value) -> Result<Alternatives<'_>, String> {
    let names = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let has = |name: &str| names.iter().any(|known| known == name);
    let all = any_kind().into_iter().filter(|alternative| {
        !has(match &alternative.form {
            Form::Constant(Value::Null) => "null",
            Form::Constant(_) => "boolean",
            Form::Number(_) => "number",
            Form::Text(_) => "string",
            Form::List(_) => "array",
            Form::Object(_) => "object",
        })
    });
    let mut all: Alternatives<'_> =
        all.map(|alternative| Alternative { typed: true, ..alternative }).collect();
    for alternative in &mut all {
        if let Form::Number(form) = &mut alternative.form {
            form.broken = has("integer");
        }
    }
    Ok(all)
}

fn other_values(values: &[Value]) -> Result<Alternatives<'_>, String> {
    let mut all = any_kind();
    all.retain(
        |alternative| !matches!(alternative.form, Form::Constant(known) if values.contains(known)),
    );
    for value in values {
        for alternative in &mut all {
            match (&mut alternative.form, value) {
                (Form::Number(form), Value::Number(_)) => form.excluded.push(value),
                (Form::Text(form), Value::String(text)) => form.excluded.push(text),
                (Form::List(_), Value::Array(_)) | (Form::Object(_), Value::Object(_)) => {
                    return Err(
                        "\"not\" with an array or an object as constant is not supported; \
                                say what is wanted"
                            .to_owned(),
                    );
                }
                _ => {}
            }
        }
    }
    Ok(all)
}

/// Numbers on the other side of a bound.
fn outside<'a>(
    fields: &'a Map<String, Value>,
    keyword: &str,
) -> Result<Option<Alternative<'a>>, String> {
    let Some(number) = keywords::number(fields, keyword)? else { return Ok(None) };
    let beside = |keyword| fields.get(keyword) == Some(&Value::Bool(true));
    let mut form = NumberForm::default();
    let bound = |rounding, exclusive| {
        let exact = Decimal::exact(number).is_some();
        Some(Bound { value: Decimal::rounded(number, rounding), exclusive: exclusive && exact })
    };
    match keyword {
        "minimum" => form.max = bound(Rounding::Down, !beside("exclusiveMinimum")),
        "exclusiveMinimum" => form.max = bound(Rounding::Down, false),
        "maximum" => form.min = bound(Rounding::Up, !beside("exclusiveMaximum")),
        "exclusiveMaximum" => form.min = bound(Rounding::Up, false),
        _ => return Err("\"not\" with multipleOf is not supported; say what is wanted".to_owned()),
    }
    Ok(Some(Alternative::told(Form::Number(form))))
}

/// Whether a keyword limits a length or a count.
fn counts(keyword: &str) -> bool {
    ["Length", "Items", "Properties"].iter().any(|what| {
        let limit = keyword.strip_suffix(what);
        limit == Some("min") || limit == Some("max")
    })
}

/// Values that are shorter or longer than a keyword allows.
fn uncounted<'a>(
    fields: &'a Map<String, Value>,
    keyword: &str,
) -> Result<Option<Alternative<'a>>, String> {
    let Some(count) = keywords::count(fields, keyword)? else { return Ok(None) };
    let (min, max) = if keyword.starts_with("max") {
        (count.saturating_add(1), None)
    } else if let Some(less) = count.checked_sub(1) {
        (0, Some(less))
    } else {
        return Ok(None);
    };
    Ok(Some(match &keyword[3..] {
        "Length" => text(TextForm { min, max, ..TextForm::default() }),
        "Items" => list(ListForm { min, max, ..ListForm::default() }),
        _ => object(ObjectForm { min, max, ..ObjectForm::default() }),
    }))
}
