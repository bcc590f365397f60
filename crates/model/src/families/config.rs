//! Reading `config.json`: typed values, and errors that name the key and the file.

use bantam_checkpoint::python_json;
use bantam_numerics::reference::Activation;
use serde_json::{Map, Value};

use crate::error::ModelError;

/// A Hugging Face configuration, or an object inside it.
#[derive(Clone, Copy)]
pub(crate) struct Config<'a> {
    values: &'a Map<String, Value>,
    file: &'a str,
    model_type: &'a str,
    /// What to write before a key: the path of the object, such as `rope_scaling.`.
    prefix: &'a str,
}

impl<'a> Config<'a> {
    pub(crate) fn new(config: &'a Value, file: &'a str) -> Result<Self, ModelError> {
        let Some(values) = config.as_object() else {
            return Err(ModelError::BadValue {
                file: file.to_owned(),
                key: "(the whole file)".to_owned(),
                got: shown(config),
                expected: "an object".to_owned(),
            });
        };
        match values.get("model_type") {
            Some(Value::String(model_type)) => Ok(Self { values, file, model_type, prefix: "" }),
            other => Err(ModelError::BadValue {
                file: file.to_owned(),
                key: "model_type".to_owned(),
                got: other.map_or_else(|| "missing".to_owned(), shown),
                expected: format!("one of {}", super::model_types_in_words()),
            }),
        }
    }

    pub(crate) fn model_type(&self) -> &'a str {
        self.model_type
    }

    /// The object at `key`, if there is one that is not null.
    pub(crate) fn object(&self, key: &'a str, prefix: &'a str) -> Result<Option<Self>, ModelError> {
        let object = self.optional(key, "an object or null", Value::as_object)?;
        Ok(object.map(|values| Self { values, prefix, ..*self }))
    }

    /// The value at `key` as `read` sees it; none if it is absent or null.
    fn optional<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(self.bad(key, &shown(value), expected)),
            },
        }
    }

    fn required<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, ModelError> {
        self.optional(key, expected, read)?.ok_or_else(|| self.missing(key))
    }

    /// The value at `key`, or what the family's configuration class in `transformers` takes where
    /// the key is absent. Null is a value like others: it is refused unless `read` accepts it.
    fn or_default<T>(
        &self,
        key: &str,
        default: T,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, ModelError> {
        match self.values.get(key) {
            None => Ok(default),
            Some(value) => read(value).ok_or_else(|| self.bad(key, &shown(value), expected)),
        }
    }

    /// Whether the file does not have `key` at all, not even as null.
    pub(crate) fn lacks(&self, key: &str) -> bool {
        !self.values.contains_key(key)
    }

    /// A count; negative numbers and fractions are refused.
    pub(crate) fn count(&self, key: &str) -> Result<usize, ModelError> {
        self.count_or_none(key)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn count_or_none(&self, key: &str) -> Result<Option<usize>, ModelError> {
        self.optional(key, WHOLE_NUMBER, whole_number)
    }

    pub(crate) fn count_or(&self, key: &str, default: usize) -> Result<usize, ModelError> {
        self.or_default(key, default, WHOLE_NUMBER, whole_number)
    }

    pub(crate) fn number(&self, key: &str) -> Result<f64, ModelError> {
        self.required(key, "a number", Value::as_f64)
    }

    pub(crate) fn number_or(&self, key: &str, default: f64) -> Result<f64, ModelError> {
        self.or_default(key, default, "a number", Value::as_f64)
    }

    pub(crate) fn number_or_none(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.optional(key, "a number", Value::as_f64)
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        Ok(self.optional(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        self.optional(key, "a string", Value::as_str)
    }

    /// A list of strings.
    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, ModelError> {
        self.optional(key, "a list of strings", |value| {
            value.as_array()?.iter().map(Value::as_str).collect()
        })
    }

    /// A list of numbers that must be there.
    pub(crate) fn numbers(&self, key: &str) -> Result<Vec<f32>, ModelError> {
        self.required(key, "a list of numbers", |value| {
            let number = |value: &Value| value.as_f64().map(|number| number as f32);
            value.as_array()?.iter().map(number).collect()
        })
    }

    /// The activation function at `key`, or that of this name if the key is absent.
    pub(crate) fn activation(&self, key: &str, default: &'a str) -> Result<Activation, ModelError> {
        const ACTIVATIONS: [(&str, Activation); 6] = [
            ("silu", Activation::Silu),
            ("swish", Activation::Silu),
            ("gelu", Activation::Gelu),
            ("gelu_new", Activation::GeluTanh),
            ("gelu_fast", Activation::GeluTanh),
            ("gelu_pytorch_tanh", Activation::GeluTanh),
        ];
        let name = self.or_default(key, default, "a string", Value::as_str)?;
        let found = ACTIVATIONS.iter().find(|(known, _)| *known == name);
        found.map(|&(_, activation)| activation).ok_or_else(|| {
            let known: Vec<&str> = ACTIVATIONS.iter().map(|(name, _)| *name).collect();
            self.bad(key, &format!("`{name}`"), &format!("one of {}", known.join(", ")))
        })
    }

    pub(crate) fn missing(&self, key: &str) -> ModelError {
        ModelError::MissingKey {
            file: self.file.to_owned(),
            key: format!("{}{key}", self.prefix),
            model_type: self.model_type.to_owned(),
        }
    }

    pub(crate) fn bad(&self, key: &str, got: &str, expected: &str) -> ModelError {
        ModelError::BadValue {
            file: self.file.to_owned(),
            key: format!("{}{key}", self.prefix),
            got: got.to_owned(),
            expected: expected.to_owned(),
        }
    }
}

const WHOLE_NUMBER: &str = "a whole number";

/// A count, which some files write as 2048.0. What no machine can count to becomes the largest
/// number there is; sizes are held against their limits later, with a message that states them.
fn whole_number(value: &Value) -> Option<usize> {
    value.as_f64().filter(|v| *v >= 0.0 && v.fract() == 0.0).map(|v| v as usize)
}

/// A value in an error message: scalars as they are, the rest by kind, so that messages stay short.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => {
            python_json::name_of(value).map_or_else(|| "an object".to_owned(), str::to_owned)
        }
        Value::String(text) if text.len() > 40 => "a long string".to_owned(),
        other => other.to_string(),
    }
}
