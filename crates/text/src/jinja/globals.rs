//! The functions of templates.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::{Enumerator, Object, ObjectRepr, Rest, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::{arguments, fault, python, strftime};

/// The template called `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct RaisedByTemplate(String);

/// Functions of jinja2 that are not here.
pub(super) const UNKNOWN: &[&str] = &["lipsum"];

/// The longest `range`, as in jinja2's sandbox.
const LONGEST_RANGE: i64 = 100_000;

pub(super) fn install(environment: &mut Environment<'static>) {
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_function("range", range);
    environment.add_function("dict", dict);
    environment.add_function("cycler", cycler);
    environment.add_function("joiner", joiner);
}

fn raise_exception(reason: Value) -> Result<Value, Error> {
    let reason = python::display(&reason)?;
    let error = Error::new(ErrorKind::InvalidOperation, reason.clone());
    Err(error.with_source(RaisedByTemplate(reason)))
}

fn strftime_now(format: &str) -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    strftime::strftime(seconds, format)
}

fn range(arguments: Rest<Value>) -> Result<Value, Error> {
    let whole = |value: &Value| {
        python::integer(value).ok_or_else(|| {
            fault(format!("range takes whole numbers, got {}", python::type_name(value)))
        })
    };
    let numbers = arguments.iter().map(whole).collect::<Result<Vec<i64>, Error>>()?;
    let (start, stop, step) = match numbers[..] {
        [stop] => (0, stop, 1),
        [start, stop] => (start, stop, 1),
        [start, stop, step] if step != 0 => (start, stop, step),
        _ => return Err(fault("range takes one to three whole numbers, the third not 0")),
    };
    let distance = if step > 0 { stop.saturating_sub(start) } else { start.saturating_sub(stop) };
    let length = if distance <= 0 { 0 } else { (distance - 1) / step.saturating_abs() + 1 };
    if length > LONGEST_RANGE {
        return Err(fault(format!("range has {length} numbers, expected at most {LONGEST_RANGE}")));
    }
    Ok(Value::from_object(Range { start, stop, step, length }))
}

/// `range(…)`.
#[derive(Debug)]
pub(super) struct Range {
    start: i64,
    stop: i64,
    step: i64,
    length: i64,
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let index = i64::try_from(key.as_usize()?).ok().filter(|index| *index < self.length)?;
        Some(Value::from(self.start + index * self.step))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.length as usize)
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "range({}, {}", self.start, self.stop)?;
        if self.step == 1 { write!(f, ")") } else { write!(f, ", {})", self.step) }
    }
}

fn dict(arguments: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let arguments = arguments.into_values();
    let (positional, named) = arguments::split(&arguments)?;
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    match positional {
        [] => {}
        [from] if from.kind() == minijinja::value::ValueKind::Map => {
            for key in from.try_iter()? {
                let value = from.get_item(&key)?;
                pairs.push((key, value));
            }
        }
        [from] => {
            for pair in python::items(from)? {
                let pair = python::items(&pair)?;
                let [key, value] = &pair[..] else {
                    return Err(fault("dict takes pairs of a key and a value"));
                };
                pairs.push((key.clone(), value.clone()));
            }
        }
        _ => return Err(fault("dict takes one value at most")),
    }
    for key in named.args() {
        pairs.push((Value::from(key), named.peek(key)?));
    }
    Ok(Value::from_pairs(pairs))
}

/// `cycler('a', 'b')`.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    at: Mutex<usize>,
}

fn cycler(items: Rest<Value>) -> Result<Value, Error> {
    if items.is_empty() {
        return Err(fault("cycler needs one value at least"));
    }
    Ok(Value::from_object(Cycler { items: items.to_vec(), at: Mutex::default() }))
}

impl Object for Cycler {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        (key.as_str() == Some("current")).then(|| self.items[*at].clone())
    }

    fn call_method(
        self: &Arc<Self>,
        _state: &mut State<'_, '_>,
        method: &str,
        _arguments: &[Value],
    ) -> Result<Value, Error> {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        match method {
            "next" => {
                let item = self.items[*at].clone();
                *at = (*at + 1) % self.items.len();
                Ok(item)
            }
            "reset" => {
                *at = 0;
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// `joiner(', ')`: nothing the first time, then the separator.
#[derive(Debug)]
struct Joiner {
    separator: String,
    used: Mutex<bool>,
}

fn joiner(separator: Option<String>) -> Value {
    let separator = separator.unwrap_or_else(|| ", ".to_owned());
    Value::from_object(Joiner { separator, used: Mutex::default() })
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(
        self: &Arc<Self>,
        _state: &mut State<'_, '_>,
        _arguments: &[Value],
    ) -> Result<Value, Error> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let text = if std::mem::replace(&mut *used, true) { self.separator.as_str() } else { "" };
        Ok(Value::from(text))
    }
}
