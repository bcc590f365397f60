//! Methods of dictionaries, lists and numbers, and what stands for them where they are not called.

use std::sync::Arc;

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Enumerator, Object, ObjectRepr, Tuple, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::arguments::Arguments;
use super::{fault, filters, python, spend, strings};

/// The keys, values or items of a dictionary: a list that prints under its own name.
#[derive(Debug)]
pub(super) struct View {
    pub(super) name: &'static str,
    pub(super) items: Vec<Value>,
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items.len())
    }
}

/// What `groupby` makes: a tuple of two with names.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) grouper: Value,
    pub(super) list: Vec<Value>,
}

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match (key.as_usize(), key.as_str()) {
            (Some(0), _) | (_, Some("grouper")) => Some(self.grouper.clone()),
            (Some(1), _) | (_, Some("list")) => Some(self.list.clone().into()),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(2)
    }
}

/// A method that is named and not called: it is defined, true, and has no attributes.
#[derive(Debug)]
pub(super) struct Printed(pub(super) String);

impl Object for Printed {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// Whether a value is a [`View`], which has a length.
pub(super) fn is_view(value: &Value) -> bool {
    value.downcast_object_ref::<View>().is_some()
}

const DICTIONARY: &[&str] = &[
    "clear",
    "copy",
    "fromkeys",
    "get",
    "items",
    "keys",
    "pop",
    "popitem",
    "setdefault",
    "update",
    "values",
];
const LIST: &[&str] = &[
    "append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse",
    "sort",
];

/// Methods of Python that templates could call and that are not here.
const MISSING: &[&str] = &[
    "encode",
    "translate",
    "maketrans",
    "fromkeys",
    "bit_length",
    "bit_count",
    "is_integer",
    "as_integer_ratio",
    "conjugate",
    "hex",
    "to_bytes",
    "from_bytes",
];

/// Whether a name is that of a method, which comes before an entry of the same name.
pub(super) fn is_attribute(name: &str) -> bool {
    DICTIONARY.contains(&name)
        || LIST.contains(&name)
        || strings::METHODS.iter().any(|(own, ..)| *own == name)
}

/// Whether a method is Python's and not here.
pub(super) fn is_missing(name: &str) -> bool {
    MISSING.contains(&name)
}

/// What the format of a text asks for and is not here.
pub(super) fn missing_format(text: &Value) -> Option<String> {
    let text = text.as_str().unwrap_or_default();
    let asked = ["!r", "!s", "!a", "%}"].into_iter().find(|part| text.contains(part))?;
    Some(format!("{asked} in a format is not known here"))
}

/// Whether a value has a method of this name.
pub(super) fn has(value: &Value, name: &str) -> bool {
    match value.kind() {
        // The state of a template keeps its own names.
        ValueKind::Map if value.len().is_none() => false,
        ValueKind::Map => DICTIONARY.contains(&name) && !is_namespace(value),
        ValueKind::Seq => LIST.contains(&name),
        ValueKind::String => strings::METHODS.iter().any(|(own, ..)| *own == name),
        _ => false,
    }
}

fn is_namespace(value: &Value) -> bool {
    engine_type(value) == "Namespace"
}

/// The name of the engine's own type of a value, which cannot be named from here.
pub(super) fn engine_type(value: &Value) -> &'static str {
    let name = value.as_object().map_or("", |object| object.type_name());
    name.rsplit("::").next().unwrap_or(name)
}

/// `value.name` where the name is that of a method.
pub(super) fn attribute(value: &Value, name: &str) -> Result<Value, Error> {
    if !has(value, name) {
        return value.get_attr(name);
    }
    let kind = python::type_name(value);
    Ok(Value::from_object(Printed(format!("<built-in method {name} of {kind} object>"))))
}

/// The entries of a dictionary.
pub(super) fn pairs(value: &Value) -> Result<Vec<[Value; 2]>, Error> {
    let pair = |key: Value| {
        let found = value.get_item(&key)?;
        Ok([key, found])
    };
    if value.kind() != ValueKind::Map {
        return Err(fault(format!("'{}' object has no entries", python::type_name(value))));
    }
    value.try_iter()?.map(pair).collect()
}

/// Calls a method of Python on a value.
pub(super) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    given: &[Value],
) -> Result<Value, Error> {
    spend(state, filters::bytes(value) + given.iter().map(filters::bytes).sum::<usize>())?;
    let result = match value.kind() {
        ValueKind::String => text(value, method, given),
        ValueKind::Map => dictionary(value, method, given),
        ValueKind::Seq => list(value, method, given),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }?;
    spend(state, filters::bytes(&result))?;
    Ok(result)
}

fn text(value: &Value, method: &str, given: &[Value]) -> Result<Value, Error> {
    let content = value.as_str().unwrap_or_default();
    if method == "format" {
        return Ok(format(FormatStyle::StrFormat, content, given)?.into());
    }
    let Some(&(name, parameters, work)) = strings::METHODS.iter().find(|(own, ..)| *own == method)
    else {
        return Err(Error::from(ErrorKind::UnknownMethod));
    };
    work(content, &Arguments::bind(name, parameters, given)?)
}

fn dictionary(value: &Value, method: &str, given: &[Value]) -> Result<Value, Error> {
    let nothing = |name| Arguments::bind(name, &[], given);
    let view = |name, items| Ok(Value::from_object(View { name, items }));
    match method {
        "get" => {
            let arguments = Arguments::bind("get", &["key", "default"], given)?;
            let found = value.get_item(arguments.value(0)?)?;
            if !found.is_undefined() {
                return Ok(found);
            }
            Ok(arguments.given(1).cloned().unwrap_or_else(|| Value::from(())))
        }
        "keys" => {
            nothing("keys")?;
            view("dict_keys", value.try_iter()?.collect())
        }
        "values" => {
            nothing("values")?;
            view("dict_values", pairs(value)?.into_iter().map(|[_, value]| value).collect())
        }
        "items" => {
            nothing("items")?;
            let pairs = pairs(value)?.into_iter().map(|pair| Value::from(Tuple::from(pair)));
            view("dict_items", pairs.collect())
        }
        "copy" => {
            nothing("copy")?;
            Ok(Value::from_pairs(pairs(value)?.into_iter().map(|[key, value]| (key, value))))
        }
        _ => Err(unknown_or_unsafe(method, DICTIONARY)),
    }
}

fn list(value: &Value, method: &str, given: &[Value]) -> Result<Value, Error> {
    match method {
        "count" => {
            let arguments = Arguments::bind("count", &["value"], given)?;
            let wanted = arguments.value(0)?;
            let count = value.try_iter()?.filter(|item| python::equal(item, wanted)).count();
            Ok(count.into())
        }
        "index" => {
            let arguments = Arguments::bind("index", &["value"], given)?;
            let wanted = arguments.value(0)?;
            let found = value.try_iter()?.position(|item| python::equal(&item, wanted));
            found.map(Value::from).ok_or_else(|| fault("the value is not in the list"))
        }
        "copy" if !value.is_tuple() => {
            Arguments::bind("copy", &[], given)?;
            Ok(value.try_iter()?.collect::<Vec<_>>().into())
        }
        _ => Err(unknown_or_unsafe(method, LIST)),
    }
}

/// What changes a value is known to Python and refused by its sandbox.
fn unknown_or_unsafe(method: &str, known: &[&str]) -> Error {
    if known.contains(&method) {
        return fault(format!("{method} changes a value, and templates must not"));
    }
    Error::from(ErrorKind::UnknownMethod)
}
