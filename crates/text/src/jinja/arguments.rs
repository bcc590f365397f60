//! Arguments by place or by name, as Python binds them.

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};

use super::{fault, python};

/// The arguments of a call, in the order of the parameters.
#[derive(Debug)]
pub(super) struct Arguments {
    name: &'static str,
    parameters: &'static [&'static str],
    values: Vec<Option<Value>>,
}

impl Arguments {
    /// Binds `given` to `parameters`.
    pub(super) fn bind(
        name: &'static str,
        parameters: &'static [&'static str],
        given: &[Value],
    ) -> Result<Self, Error> {
        let (positional, named) = split(given)?;
        if positional.len() > parameters.len() {
            let problem =
                format!("{name} takes {} arguments, got {}", parameters.len(), positional.len());
            return Err(Error::new(ErrorKind::TooManyArguments, problem));
        }
        let mut values: Vec<Option<Value>> = positional.iter().cloned().map(Some).collect();
        values.resize(parameters.len(), None);
        for key in named.args() {
            let Some(place) = parameters.iter().position(|parameter| *parameter == key) else {
                return Err(fault(format!(
                    "{name} has no argument {key:?}, expected {}",
                    parameters.join(", ")
                )));
            };
            if values[place].is_some() {
                return Err(fault(format!("{name} got the argument {key} twice")));
            }
            values[place] = Some(named.peek(key)?);
        }
        Ok(Self { name, parameters, values })
    }

    /// The argument, if it was given.
    pub(super) fn given(&self, index: usize) -> Option<&Value> {
        self.values.get(index).and_then(Option::as_ref)
    }

    /// The argument, which there must be.
    pub(super) fn value(&self, index: usize) -> Result<&Value, Error> {
        self.given(index).ok_or_else(|| {
            let problem = format!("{} needs the argument {}", self.name, self.parameters[index]);
            Error::new(ErrorKind::MissingArgument, problem)
        })
    }

    /// The argument, if it was given and is not none.
    pub(super) fn some(&self, index: usize) -> Option<&Value> {
        self.given(index).filter(|value| !value.is_none())
    }

    /// A text, which there must be.
    pub(super) fn text(&self, index: usize) -> Result<&str, Error> {
        let value = self.value(index)?;
        value.as_str().ok_or_else(|| self.wrong(index, "a text"))
    }

    /// Any value as Python prints it.
    pub(super) fn printed(&self, index: usize) -> Result<String, Error> {
        python::display(self.value(index)?)
    }

    /// A text or its default.
    pub(super) fn text_or<'a>(&'a self, index: usize, default: &'a str) -> Result<&'a str, Error> {
        if self.given(index).is_some() { self.text(index) } else { Ok(default) }
    }

    /// A whole number or its default.
    pub(super) fn integer_or(&self, index: usize, default: i64) -> Result<i64, Error> {
        match self.some(index) {
            None => Ok(default),
            Some(value) => {
                python::integer(value).ok_or_else(|| self.wrong(index, "a whole number"))
            }
        }
    }

    /// Whether the argument counts as true.
    pub(super) fn flag_or(&self, index: usize, default: bool) -> bool {
        self.given(index).map_or(default, Value::is_true)
    }

    fn wrong(&self, index: usize, expected: &str) -> Error {
        let kind = self.given(index).map_or("nothing", python::type_name);
        fault(format!("{}: {} is {kind}, expected {expected}", self.name, self.parameters[index]))
    }
}

/// Arguments by place and by name.
pub(super) fn split(given: &[Value]) -> Result<(&[Value], Kwargs), Error> {
    match given.split_last() {
        Some((last, positional)) if last.is_kwargs() => {
            Ok((positional, Kwargs::try_from(last.clone())?))
        }
        _ => Ok((given, std::iter::empty::<(&str, Value)>().collect())),
    }
}
