//! The settings of a method: a JSON object, read with errors that name file and key.

use std::path::Path;

use bantam_numerics::KvFormat;
use serde_json::Value;

use super::Pattern;
use crate::CheckpointError;

/// A JSON object of a configuration file.
#[derive(Clone, Copy)]
pub(super) struct Settings<'a> {
    file: &'a Path,
    value: &'a Value,
}

impl<'a> Settings<'a> {
    pub(super) fn new(file: &'a Path, value: &'a Value) -> Self {
        Self { file, value }
    }

    pub(super) fn file(&self) -> &'a Path {
        self.file
    }

    /// What stands at a key, null counting as nothing.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    /// The object at a key.
    pub(super) fn object(&self, key: &str) -> Result<Option<Self>, CheckpointError> {
        let value = self.typed(key, "an object", |value| value.is_object().then_some(value))?;
        Ok(value.map(|value| Self { value, ..*self }))
    }

    /// The objects inside this one, in the order of the file.
    pub(super) fn objects(&self) -> impl Iterator<Item = (&'a str, Self)> {
        let entries = self.value.as_object().into_iter().flatten();
        let file = self.file;
        entries.map(move |(key, value)| (key.as_str(), Self { file, value }))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, CheckpointError> {
        self.typed(key, "a string", Value::as_str)
    }

    pub(super) fn integer(&self, key: &str) -> Result<Option<i64>, CheckpointError> {
        self.typed(key, "a whole number", Value::as_i64)
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A list of strings; empty if there is none.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<&'a str>, CheckpointError> {
        let list = |value: &'a Value| value.as_array()?.iter().map(Value::as_str).collect();
        Ok(self.typed(key, "a list of strings", list)?.unwrap_or_default())
    }

    /// The parts of names in a list, as patterns.
    pub(super) fn parts(&self, key: &str) -> Result<Vec<Pattern>, CheckpointError> {
        let parts = self.texts(key)?;
        Ok(parts.into_iter().map(|part| Pattern::Part(part.to_owned())).collect())
    }

    /// The cache format of a `kv_cache_scheme` that is an object of quantization arguments.
    pub(super) fn kv_scheme(&self) -> Result<KvFormat, CheckpointError> {
        let wrong = |what: &str| {
            self.error(format!(
                "kv_cache_scheme with {what} is not supported; supported: 8 bits, type `float` or \
                 `int`, symmetric, one static scale for a layer's keys and one for its values"
            ))
        };
        match self.integer("num_bits")? {
            Some(8) => {}
            bits => return Err(wrong(&format!("num_bits {}", bits.unwrap_or(0)))),
        }
        if self.flag("symmetric")? == Some(false) || self.get("dynamic") == Some(&true.into()) {
            return Err(wrong("dynamic scales or zero points"));
        }
        match self.text("strategy")? {
            None | Some("tensor") => {}
            Some(other) => return Err(wrong(&format!("strategy `{other}`"))),
        }
        match self.text("type")? {
            Some("float") => Ok(KvFormat::Fp8),
            Some("int") => Ok(KvFormat::Int8),
            kind => Err(wrong(&format!("type `{}`", kind.unwrap_or("nothing")))),
        }
    }

    /// An error in this file.
    pub(super) fn error(&self, problem: String) -> CheckpointError {
        CheckpointError::Quantization { file: self.file.to_path_buf(), problem }
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, CheckpointError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || {
            let shown = value.to_string();
            let shown = if shown.len() > 40 { "something long" } else { &shown };
            self.error(format!("quantization setting `{key}` is {shown}, expected {expected}"))
        };
        read(value).map(Some).ok_or_else(wrong)
    }
}
