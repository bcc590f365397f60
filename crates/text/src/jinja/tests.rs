//! The tests of templates: `is …`.

use minijinja::value::{ObjectRepr, ValueKind};
use minijinja::{Environment, Error, Value};

use super::methods::{Printed, View};
use super::{fault, filters, python};

/// Tests of the engine that are jinja2's.
const ENGINE: &[&str] = &[
    "boolean",
    "defined",
    "undefined",
    "none",
    "true",
    "false",
    "string",
    "number",
    "integer",
    "float",
    "mapping",
    "lower",
    "upper",
    "eq",
    "equalto",
    "==",
    "ne",
    "!=",
    "escaped",
    "sameas",
];

const OWN: &[&str] = &[
    "callable",
    "divisibleby",
    "even",
    "odd",
    "filter",
    "test",
    "iterable",
    "sequence",
    "in",
    "lt",
    "lessthan",
    "<",
    "le",
    "<=",
    "gt",
    "greaterthan",
    ">",
    "ge",
    ">=",
];

pub(super) fn is_known(name: &str) -> bool {
    ENGINE.contains(&name) || OWN.contains(&name)
}

pub(super) fn install(environment: &mut Environment<'static>) {
    environment.add_test("callable", |value: Value| {
        let is_data = value
            .as_object()
            .is_none_or(|object| matches!(object.repr(), ObjectRepr::Seq | ObjectRepr::Iterable));
        let is_map = value.kind() == ValueKind::Map && value.len().is_some();
        value.is_undefined()
            || value.downcast_object_ref::<Printed>().is_some()
            || !(is_data || is_map)
    });
    environment.add_test("divisibleby", |value: Value, by: Value| {
        remainder(&value, &by).map(|rest| rest == 0)
    });
    environment.add_test("even", |value: Value| remainder(&value, &2.into()).map(|rest| rest == 0));
    environment.add_test("odd", |value: Value| remainder(&value, &2.into()).map(|rest| rest == 1));
    environment.add_test("filter", |name: Value| name.as_str().is_some_and(filters::is_known));
    environment.add_test("test", |name: Value| name.as_str().is_some_and(is_known));
    environment.add_test("iterable", |value: Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_test("sequence", |value: Value| {
        let has_length = value.len().is_some() || value.is_undefined();
        let is_generator = value.kind() == ValueKind::Iterable;
        has_length && !is_generator && value.downcast_object_ref::<View>().is_none()
    });
    environment.add_test("in", |value: Value, container: Value| contains(&container, &value));
    for name in ["lt", "lessthan", "<"] {
        environment.add_test(name, |a: Value, b: Value| python::compare(&a, &b).map(|o| o.is_lt()));
    }
    for name in ["le", "<="] {
        environment.add_test(name, |a: Value, b: Value| python::compare(&a, &b).map(|o| o.is_le()));
    }
    for name in ["gt", "greaterthan", ">"] {
        environment.add_test(name, |a: Value, b: Value| python::compare(&a, &b).map(|o| o.is_gt()));
    }
    for name in ["ge", ">="] {
        environment.add_test(name, |a: Value, b: Value| python::compare(&a, &b).map(|o| o.is_ge()));
    }
}

fn remainder(value: &Value, by: &Value) -> Result<i64, Error> {
    match (python::integer(value), python::integer(by)) {
        (Some(_), Some(0)) => Err(fault("integer modulo by zero")),
        (Some(value), Some(by)) => Ok(value.wrapping_rem_euclid(by)),
        _ => {
            let (value, by) = (python::number(value)?, python::number(by)?);
            // Only whether it is 0 or 1 is asked.
            let rest = value.rem_euclid(by);
            Ok(if rest == 0.0 {
                0
            } else if rest == 1.0 {
                1
            } else {
                2
            })
        }
    }
}

/// `value in container`.
pub(super) fn contains(container: &Value, value: &Value) -> Result<bool, Error> {
    if let Some(text) = container.as_str() {
        let part = value.as_str().ok_or_else(|| {
            let kind = python::type_name(value);
            fault(format!("'in <string>' requires string as left operand, not {kind}"))
        })?;
        return Ok(text.contains(part));
    }
    match container.kind() {
        ValueKind::Undefined => Ok(false),
        ValueKind::Map => Ok(container.try_iter()?.any(|key| python::equal(&key, value))),
        ValueKind::Seq | ValueKind::Iterable => {
            Ok(container.try_iter()?.any(|item| python::equal(&item, value)))
        }
        _ => {
            let kind = python::type_name(container);
            Err(fault(format!("argument of type '{kind}' is not iterable")))
        }
    }
}
