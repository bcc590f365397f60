//! Whether a value satisfies a schema, and whether what is written for one can satisfy another.

use serde_json::Value;

use super::decimal::Decimal;
use super::document::{Node, Position};
use super::expand::Expander;
use super::form::{Alternative, Form, NumberForm, ObjectForm};
use super::text;

/// Objects within each other that are compared.
const MAX_COMPARED: usize = 4;

impl<'a> Expander<'a> {
    /// Whether a value satisfies all schemas of a position, as the standard has it: what an object
    /// does not list may be there.
    pub(super) fn accepts(&self, position: &[Node<'a>], value: &Value) -> Result<bool, String> {
        for alternative in self.expand(position)? {
            if self.form_accepts(&alternative.form, value)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn form_accepts(&self, form: &Form<'a>, value: &Value) -> Result<bool, String> {
        let within = |count: usize, min: u64, max: Option<u64>| {
            count as u64 >= min && max.is_none_or(|max| count as u64 <= max)
        };
        match (form, value) {
            (Form::Constant(known), value) => Ok(same(known, value)),
            (Form::Number(form), Value::Number(number)) => {
                let Some(number) = Decimal::exact(number) else {
                    return Err(format!("{number} has too many digits to be compared"));
                };
                Ok(number_accepts(form, number))
            }
            (Form::Text(form), Value::String(text)) => {
                Ok(within(text.chars().count(), form.min, form.max)
                    && !form.excluded.contains(&text.as_str())
                    && form.formats.iter().try_fold(true, |fits, format| {
                        let pattern = format!("^(?:{})$", format.pattern);
                        Ok::<_, String>(fits && text::matches(&pattern, text)?)
                    })?
                    && form.patterns.iter().try_fold(true, |fits, (pattern, wanted)| {
                        Ok::<_, String>(fits && text::matches(pattern, text)? == *wanted)
                    })?)
            }
            (Form::List(form), Value::Array(items)) => {
                let repeats = |at: usize| items[..at].iter().any(|item| same(item, &items[at]));
                if !within(items.len(), form.min, form.max)
                    || (form.unique && (0..items.len()).any(repeats))
                {
                    return Ok(false);
                }
                for (at, item) in items.iter().enumerate() {
                    if !self.accepts(form.item(at), item)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Form::Object(form), Value::Object(fields)) => {
                if !within(fields.len(), form.min, form.max)
                    || !form.required.iter().all(|name| fields.contains_key(*name))
                {
                    return Ok(false);
                }
                for (name, value) in fields {
                    let position = form.property(name, &text::matches)?;
                    if !self.accepts(&position, value)?
                        || !self.accepts(&form.names, &Value::from(name.as_str()))?
                    {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Whether nothing that is written for a form satisfies one of these alternatives. It may say
    /// no where it does not know.
    pub(super) fn never_both(
        &self,
        form: &Form<'a>,
        others: &[Alternative<'a>],
    ) -> Result<bool, String> {
        for other in others {
            let apart = match (form, &other.form) {
                (Form::Constant(value), other) => !self.form_accepts(other, value)?,
                (one, Form::Constant(value)) => !self.form_accepts(one, value)?,
                (Form::Number(a), Form::Number(b)) => {
                    let beyond = |min: &NumberForm<'_>, max: &NumberForm<'_>| {
                        let (Some(min), Some(max)) = (min.min, max.max) else { return false };
                        min.value > max.value
                            || (min.value == max.value && (min.exclusive || max.exclusive))
                    };
                    beyond(a, b) || beyond(b, a)
                }
                (Form::Text(a), Form::Text(b)) => beyond(a.min, b.max) || beyond(b.min, a.max),
                (Form::List(a), Form::List(b)) => beyond(a.min, b.max) || beyond(b.min, a.max),
                (Form::Object(a), Form::Object(b)) => self.objects_apart(a, b)?,
                _ => true,
            };
            if !apart {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether no object that is written for `a` satisfies `b`.
    fn objects_apart(&self, a: &ObjectForm<'a>, b: &ObjectForm<'a>) -> Result<bool, String> {
        // Objects within objects may go on for ever.
        if self.comparing.get() > MAX_COMPARED {
            return Ok(false);
        }
        self.comparing.set(self.comparing.get() + 1);
        let apart = self.properties_apart(a, b);
        self.comparing.set(self.comparing.get() - 1);
        apart
    }

    fn properties_apart(&self, a: &ObjectForm<'a>, b: &ObjectForm<'a>) -> Result<bool, String> {
        for name in &b.required {
            // Nothing that is not listed is written into a closed object.
            let known = a.declares(name) || !a.patterns.is_empty() || a.required.contains(name);
            if !known && !a.is_open() {
                return Ok(true);
            }
        }
        for name in &a.required {
            let ours: Position<'a> = a.property(name, &text::matches)?;
            let theirs = self.expand(&b.property(name, &text::matches)?)?;
            let mut apart = true;
            for alternative in self.expand(&ours)? {
                apart &= self.never_both(&alternative.form, &theirs)?;
            }
            if apart {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn beyond(min: u64, max: Option<u64>) -> bool {
    max.is_some_and(|max| min > max)
}

fn number_accepts(form: &NumberForm<'_>, number: Decimal) -> bool {
    let excluded = |value: &&Value| value.as_number().and_then(Decimal::exact) == Some(number);
    (!form.integer || number.is_integer())
        && (!form.broken || !number.is_integer())
        && form.min.is_none_or(|min| number > min.value || (number == min.value && !min.exclusive))
        && form.max.is_none_or(|max| number < max.value || (number == max.value && !max.exclusive))
        && form.multiples.iter().all(|multiple| number.is_multiple_of(*multiple))
        && !form.excluded.iter().any(excluded)
}

/// Whether two values are equal, numbers by their size.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || Decimal::exact(a).is_some_and(|number| Decimal::exact(b) == Some(number))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => one == other,
    }
}
