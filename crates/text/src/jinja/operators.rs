//! Python's operators, which a rewritten template calls as filters.

use std::cmp::Ordering;

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, Value};

use super::arguments::Arguments;
use super::filters::{Filter, bytes, undefined};
use super::{MOST_BYTES, fault, methods, printf, python, tests};

/// The operators; no template can write these names.
pub(super) const OPERATORS: &[Filter] = &[
    ("+", &["left", "right"], add),
    ("*", &["left", "right"], multiply),
    ("%", &["left", "right"], modulo),
    ("~", &["left", "right"], concatenate),
    ("in", &["left", "right"], |a| Ok(tests::contains(a.value(1)?, a.value(0)?)?.into())),
    ("not in", &["left", "right"], |a| Ok((!tests::contains(a.value(1)?, a.value(0)?)?).into())),
    ("<", &["left", "right"], |a| Ok(ordering(a)?.is_lt().into())),
    ("<=", &["left", "right"], |a| Ok(ordering(a)?.is_le().into())),
    (">", &["left", "right"], |a| Ok(ordering(a)?.is_gt().into())),
    (">=", &["left", "right"], |a| Ok(ordering(a)?.is_ge().into())),
    ("neg", &["value"], negate),
    ("[:]", &["value", "start", "stop", "step"], slice),
    (".", &["value", "name"], |a| methods::attribute(a.value(0)?, a.text(1)?)),
    ("for", &["value"], each),
];

fn ordering(arguments: &Arguments) -> Result<Ordering, Error> {
    python::compare(arguments.value(0)?, arguments.value(1)?)
}

fn negate(arguments: &Arguments) -> Result<Value, Error> {
    let value = arguments.value(0)?;
    match python::integer(value) {
        Some(whole) => Ok(Value::from(-i128::from(whole))),
        None => Ok((-python::number(value)?).into()),
    }
}

fn add(arguments: &Arguments) -> Result<Value, Error> {
    let (left, right) = (arguments.value(0)?, arguments.value(1)?);
    if let (Some(a), Some(b)) = (left.as_str(), right.as_str()) {
        return Ok(match (left.is_safe(), right.is_safe()) {
            (false, false) => format!("{a}{b}").into(),
            (true, true) => Value::from_safe_string(format!("{a}{b}")),
            (true, false) => Value::from_safe_string(format!("{a}{}", python::escaped(b))),
            (false, true) => Value::from_safe_string(format!("{}{b}", python::escaped(a))),
        });
    }
    let lists = left.kind() == ValueKind::Seq && right.kind() == ValueKind::Seq;
    if lists && left.is_tuple() == right.is_tuple() {
        let items =
            python::items(left)?.into_iter().chain(python::items(right)?).collect::<Vec<_>>();
        return Ok(if left.is_tuple() { Value::from(Tuple::from(items)) } else { items.into() });
    }
    let no_sum = || {
        let (left, right) = (python::type_name(left), python::type_name(right));
        fault(format!("unsupported operand type(s) for +: '{left}' and '{right}'"))
    };
    if left.is_undefined() || right.is_undefined() {
        return Err(undefined(if left.is_undefined() { left } else { right }));
    }
    match (python::integer(left), python::integer(right)) {
        (Some(a), Some(b)) => Ok(Value::from(i128::from(a) + i128::from(b))),
        _ => {
            let (a, b) = (python::number(left), python::number(right));
            Ok((a.map_err(|_| no_sum())? + b.map_err(|_| no_sum())?).into())
        }
    }
}

fn multiply(arguments: &Arguments) -> Result<Value, Error> {
    let (left, right) = (arguments.value(0)?, arguments.value(1)?);
    let is_repeated = |value: &Value| value.as_str().is_some() || value.kind() == ValueKind::Seq;
    let (repeated, times) = if is_repeated(left) { (left, right) } else { (right, left) };
    if is_repeated(repeated) {
        let Some(times) = python::integer(times) else {
            let kind = python::type_name(times);
            return Err(fault(format!("can't multiply sequence by non-int of type '{kind}'")));
        };
        let times = usize::try_from(times).unwrap_or(0);
        if bytes(repeated).saturating_mul(times) > MOST_BYTES {
            return Err(fault(format!("{times} times makes a value that is too long")));
        }
        if let Some(text) = repeated.as_str() {
            return Ok(text.repeat(times).into());
        }
        let items = python::items(repeated)?;
        let items: Vec<Value> = std::iter::repeat_n(items, times).flatten().collect();
        return Ok(if repeated.is_tuple() {
            Value::from(Tuple::from(items))
        } else {
            items.into()
        });
    }
    match (python::integer(left), python::integer(right)) {
        (Some(a), Some(b)) => Ok(Value::from(i128::from(a) * i128::from(b))),
        _ => Ok((python::number(left)? * python::number(right)?).into()),
    }
}

fn modulo(arguments: &Arguments) -> Result<Value, Error> {
    let (left, right) = (arguments.value(0)?, arguments.value(1)?);
    if let Some(pattern) = left.as_str() {
        return printf::printf(pattern, right);
    }
    match (python::integer(left), python::integer(right)) {
        (_, Some(0)) => Err(fault("integer modulo by zero")),
        (Some(a), Some(b)) => {
            let (a, b) = (i128::from(a), i128::from(b));
            Ok(Value::from((a % b + b) % b))
        }
        _ => {
            let (a, b) = (python::number(left)?, python::number(right)?);
            let rest = a % b;
            Ok((if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }).into())
        }
    }
}

fn concatenate(arguments: &Arguments) -> Result<Value, Error> {
    Ok((arguments.printed(0)? + &arguments.printed(1)?).into())
}

/// What a loop goes through.
fn each(arguments: &Arguments) -> Result<Value, Error> {
    let value = arguments.value(0)?;
    if value.is_none() {
        return Err(fault("'NoneType' object is not iterable"));
    }
    Ok(value.clone())
}

/// `value[start:stop:step]`.
fn slice(arguments: &Arguments) -> Result<Value, Error> {
    let value = arguments.value(0)?;
    if value.is_undefined() {
        return Err(undefined(value));
    }
    let is_text = value.as_str().is_some();
    if value.kind() == ValueKind::Map {
        return Err(fault("unhashable type: 'slice'"));
    }
    if !is_text && value.kind() != ValueKind::Seq {
        return Ok(Value::UNDEFINED);
    }
    let letters: Vec<Value> = python::items(value)?;
    let length = letters.len() as i64;
    let step = arguments.integer_or(3, 1)?;
    if step == 0 {
        return Err(fault("slice step cannot be zero"));
    }
    let bound = |index: usize, default: i64| -> Result<i64, Error> {
        let given = arguments.integer_or(index, default)?;
        if arguments.some(index).is_none() {
            return Ok(default);
        }
        let given = if given < 0 { given.saturating_add(length) } else { given };
        Ok(if step > 0 { given.clamp(0, length) } else { given.clamp(-1, length - 1) })
    };
    let (start, stop) = if step > 0 {
        (bound(1, 0)?, bound(2, length)?)
    } else {
        (bound(1, length - 1)?, bound(2, -1)?)
    };
    let mut items = Vec::new();
    let mut at = start;
    while if step > 0 { at < stop } else { at > stop } {
        items.extend(letters.get(at as usize).cloned());
        at = at.saturating_add(step);
    }
    Ok(match () {
        () if is_text => items.iter().filter_map(Value::as_str).collect::<String>().into(),
        () if value.is_tuple() => Value::from(Tuple::from(items)),
        () => items.into(),
    })
}
