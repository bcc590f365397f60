//! Every field of a request is honoured, without effect, or refused: at every depth.
//!
//! What is honoured is what the request types have, by their schema ([`Shape`]); what has no effect
//! and what is refused, and why, is data ([`Notes`]). The reference page of the API is made from the
//! same, and a test walks the published description and tries every object of it.

use std::fmt;

use bantam_checkpoint::suggestion;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::request::lists;
use crate::request::shape::{self, Shape};

/// The fields of one kind of object.
#[derive(Default)]
pub(crate) struct FieldSet {
    /// Fields that do what they say.
    pub(crate) honoured: Vec<Honoured>,
    /// Fields that are taken and change nothing.
    pub(crate) without_effect: Vec<&'static WithoutEffect>,
    /// Fields that are known, and refused unless they ask for nothing.
    pub(crate) refused: Vec<&'static Refused>,
}

/// A field that does what it says.
pub(crate) struct Honoured {
    pub(crate) name: String,
    /// What is known of its value.
    pub(crate) shape: Shape,
    /// The only text that it may be: it tells one form of an object from others.
    pub(crate) constant: Option<String>,
    /// What it does, for the reference page.
    #[cfg(test)]
    pub(crate) description: String,
    #[cfg(test)]
    pub(crate) required: bool,
}

/// A field that clients send and that changes nothing about the answer.
pub(crate) struct WithoutEffect {
    pub(crate) name: &'static str,
    /// What it may be.
    pub(crate) takes: Takes,
    /// Why it changes nothing.
    #[cfg_attr(not(test), expect(dead_code, reason = "the reference page is made by a test"))]
    pub(crate) reason: &'static str,
}

/// The values that a field without effect may have; null always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    Text,
    Flag,
    Object,
    /// What a client library made of an answer, whatever that is.
    Anything,
}

/// A known field that is refused unless its value asks for nothing.
pub(crate) struct Refused {
    pub(crate) name: &'static str,
    /// Values, as JSON, that change nothing here and are let through; null always is.
    pub(crate) no_effect: &'static [&'static str],
    /// Why, and what to use instead.
    pub(crate) reason: &'static str,
}

/// What is known of fields that an object's type does not have.
pub(crate) struct Notes {
    /// The name of the object's schema.
    pub(crate) of: &'static str,
    pub(crate) without_effect: &'static [WithoutEffect],
    pub(crate) refused: &'static [Refused],
}

/// A field without effect.
pub(crate) const fn without_effect(
    name: &'static str,
    takes: Takes,
    reason: &'static str,
) -> WithoutEffect {
    WithoutEffect { name, takes, reason }
}

/// A field that is refused.
pub(crate) const fn refused(
    name: &'static str,
    no_effect: &'static [&'static str],
    reason: &'static str,
) -> Refused {
    Refused { name, no_effect, reason }
}

/// What others call a field: names too far from ours to be found by their letters.
const OTHER_NAMES: [(&str, &str); 14] = [
    ("n_predict", "max_tokens"),
    ("num_predict", "max_tokens"),
    ("max_new_tokens", "max_tokens"),
    ("max_length", "max_tokens"),
    ("max_output_tokens", "max_tokens"),
    ("repeat_penalty", "repetition_penalty"),
    ("stop_sequences", "stop"),
    ("num_return_sequences", "n"),
    ("n_probs", "logprobs"),
    ("input", "prompt"),
    ("text", "prompt"),
    ("content", "prompt"),
    ("functions", "tools"),
    ("format", "response_format"),
];

impl Takes {
    fn takes(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Flag => value.is_boolean(),
            Self::Object => value.is_object(),
            Self::Anything => true,
        }
    }

    /// What is expected, in words.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Flag => "true or false",
            Self::Object => "an object",
            Self::Anything => "anything",
        }
    }
}

impl Refused {
    /// Whether the value changes nothing.
    fn asks_for_nothing(&self, value: &Value) -> bool {
        let same = |text: &&str| serde_json::from_str::<Value>(text).is_ok_and(|v| v == *value);
        self.no_effect.iter().any(same)
    }
}

/// Where in a body a value stands.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    Body,
    Field(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body => Ok(()),
            Self::Field(Self::Body, name) => f.write_str(name),
            Self::Field(object, name) => write!(f, "{object}.{name}"),
            Self::Item(list, index) => write!(f, "{list}[{index}]"),
        }
    }
}

impl FieldSet {
    /// The fields of a type, by its schema and those within it, and what is noted beside them.
    pub(crate) fn of<T: ToSchema>(notes: &[&'static [Notes]]) -> Self {
        match shape::of::<T>(notes) {
            Shape::Object(fields) => fields,
            _ => Self::default(),
        }
    }

    /// Refuses fields that are unknown, and those that are known and ask for what there is not,
    /// here and in the objects within. What remains has honoured fields with values only.
    pub(crate) fn check(&self, object: &mut Map<String, Value>) -> Result<(), ApiError> {
        self.check_at(object, &Place::Body)
    }

    pub(super) fn check_at(
        &self,
        object: &mut Map<String, Value>,
        place: &Place<'_>,
    ) -> Result<(), ApiError> {
        let mut checked = Ok(());
        object.retain(|name, value| {
            if checked.is_err() || value.is_null() {
                return false;
            }
            let kept = self.check_field(name, value, place);
            kept.unwrap_or_else(|error| {
                checked = Err(error);
                false
            })
        });
        checked
    }

    /// Whether the field does something.
    fn check_field(
        &self,
        name: &str,
        value: &mut Value,
        place: &Place<'_>,
    ) -> Result<bool, ApiError> {
        let here = Place::Field(place, name);
        if let Some(field) = self.honoured.iter().find(|field| field.name == name) {
            field.shape.check(value, &here)?;
            return Ok(true);
        }
        if let Some(field) = self.without_effect.iter().find(|field| field.name == name) {
            if field.takes.takes(value) {
                return Ok(false);
            }
            let message = format!("{here} is not {}", field.takes.name());
            return Err(ApiError::bad_request(message).param(here.to_string()));
        }
        let Some(refused) = self.refused.iter().find(|field| field.name == name) else {
            return Err(self.unknown(name, place));
        };
        if refused.asks_for_nothing(value) {
            return Ok(false);
        }
        let message = format!("{here} is not supported: {}", refused.reason);
        Err(ApiError::bad_request(message).param(here.to_string()).code("unsupported_parameter"))
    }

    fn unknown(&self, name: &str, place: &Place<'_>) -> ApiError {
        // A name of any length comes from outside: only its beginning is compared and shown.
        let shown: String = name.chars().take(64).collect();
        let here = Place::Field(place, &shown);
        let known = || self.honoured.iter().map(|field| field.name.as_str());
        let is_meant =
            |(other, ours): &&(&str, &str)| *other == shown && known().any(|name| name == *ours);
        let meant = OTHER_NAMES.iter().find(is_meant).map(|(_, ours)| *ours);
        let all = known().chain(self.refused.iter().map(|field| field.name));
        let mut message = format!("unknown field {here}");
        match meant.or_else(|| suggestion(&shown, all)) {
            Some(nearest) => {
                message.push_str("; the nearest known one is ");
                message.push_str(nearest);
            }
            None if self.honoured.len() <= 8 => {
                message.push_str("; the known ones are ");
                message.push_str(&known().collect::<Vec<_>>().join(", "));
            }
            None => message.push_str("; /openapi.json lists the known ones"),
        }
        ApiError::bad_request(message).param(here.to_string()).code("unknown_parameter")
    }
}

/// A JSON body with these fields: what remains of it is honoured.
pub(crate) fn read(bytes: &[u8], fields: &FieldSet) -> Result<Value, ApiError> {
    let mut value = read_any(bytes)?;
    if let Value::Object(object) = &mut value {
        fields.check(object)?;
        lists::check(object)?;
    }
    Ok(value)
}

/// A JSON object of which nothing more is asked.
pub(crate) fn read_any(bytes: &[u8]) -> Result<Value, ApiError> {
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| ApiError::bad_request(format!("the body is not JSON: {error}")))?;
    if value.is_object() {
        return Ok(value);
    }
    Err(ApiError::bad_request("the body is not a JSON object; send {\"model\": …, …}"))
}

/// The fields of `T` in a body; others are left to others.
pub(crate) fn parse<T: DeserializeOwned>(body: &Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(body).map_err(|error| {
        let path = error.path().to_string();
        let problem = error.into_inner().to_string();
        let missing =
            problem.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        match (path.as_str(), missing) {
            (".", None) => ApiError::bad_request(problem),
            (".", Some(field)) => ApiError::bad_request(&problem).param(field),
            (_, None) => ApiError::bad_request(format!("{path}: {problem}")).param(path),
            (_, Some(field)) => {
                ApiError::bad_request(format!("{path}: {problem}")).param(format!("{path}.{field}"))
            }
        }
    })
}
