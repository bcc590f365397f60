//! Every field of a request is honoured or refused.
//!
//! What is honoured is what the request types have, by their schema; what is refused, and why, is
//! data ([`Refused`]). The reference page of the API is made from the same two.

use bantam_checkpoint::nearest;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::PartialSchema;
use utoipa::openapi::{RefOr, Schema};

use crate::error::ApiError;
use crate::request::lists;

/// The fields of one kind of request.
pub(crate) struct FieldSet {
    /// Fields that do what they say.
    pub(crate) honoured: Vec<Honoured>,
    /// Fields that are known, and refused unless they ask for nothing.
    pub(crate) refused: Vec<&'static Refused>,
}

/// A known field that is refused unless its value asks for nothing.
pub(crate) struct Refused {
    pub(crate) name: &'static str,
    /// Values, as JSON, that change nothing here and are let through; null always is.
    pub(crate) no_effect: &'static [&'static str],
    /// Why, and what to use instead.
    pub(crate) reason: &'static str,
}

impl Refused {
    /// Whether the value changes nothing.
    fn asks_for_nothing(&self, value: &Value) -> bool {
        let same = |text: &&str| serde_json::from_str::<Value>(text).is_ok_and(|v| v == *value);
        self.no_effect.iter().any(same)
    }
}

/// A field that is refused.
pub(crate) const fn refused(
    name: &'static str,
    no_effect: &'static [&'static str],
    reason: &'static str,
) -> Refused {
    Refused { name, no_effect, reason }
}

/// A field that does what it says.
pub(crate) struct Honoured {
    pub(crate) name: String,
    /// What it does, for the reference page.
    #[cfg(test)]
    pub(crate) description: String,
    #[cfg(test)]
    pub(crate) required: bool,
}

/// The fields of a type, as its schema has them.
pub(crate) fn honoured<T: PartialSchema>() -> Vec<Honoured> {
    let RefOr::T(Schema::Object(object)) = T::schema() else { return Vec::new() };
    let described = object.properties.iter().map(|(name, _schema)| Honoured {
        name: name.clone(),
        #[cfg(test)]
        description: description(_schema).unwrap_or_default(),
        #[cfg(test)]
        required: object.required.contains(name),
    });
    described.collect()
}

#[cfg(test)]
fn description(schema: &RefOr<Schema>) -> Option<String> {
    match schema {
        RefOr::Ref(reference) => Some(reference.description.clone()),
        RefOr::T(Schema::Object(object)) => object.description.clone(),
        RefOr::T(Schema::Array(array)) => array.description.clone(),
        // An option is nothing or what it is an option of.
        RefOr::T(Schema::OneOf(one_of)) => {
            one_of.description.clone().or_else(|| one_of.items.iter().find_map(description))
        }
        RefOr::T(Schema::AllOf(all_of)) => all_of.description.clone(),
        RefOr::T(_) => None,
    }
}

impl FieldSet {
    /// Refuses fields that are unknown, and those that are known and ask for what there is not.
    /// `place` is where the object stands: nothing, or the path to it with a dot.
    pub(crate) fn check(&self, object: &Map<String, Value>, place: &str) -> Result<(), ApiError> {
        for (name, value) in object {
            if value.is_null() || self.honoured.iter().any(|field| field.name == *name) {
                continue;
            }
            let Some(refused) = self.refused.iter().find(|field| field.name == name) else {
                return Err(self.unknown(name, place));
            };
            if !refused.asks_for_nothing(value) {
                let message = format!("{place}{name} is not supported: {}", refused.reason);
                let error = ApiError::bad_request(message).param(format!("{place}{name}"));
                return Err(error.code("unsupported_parameter"));
            }
        }
        Ok(())
    }

    fn unknown(&self, name: &str, place: &str) -> ApiError {
        let known = self.honoured.iter().map(|field| field.name.as_str());
        let known = known.chain(self.refused.iter().map(|field| field.name));
        // A name of any length comes from outside: only its beginning is compared and shown.
        let shown: String = name.chars().take(64).collect();
        let nearest = nearest(&shown, known, 1).join("");
        let message = format!("unknown field {place}{shown}; the nearest known one is {nearest}");
        ApiError::bad_request(message).param(format!("{place}{shown}")).code("unknown_parameter")
    }
}

/// A JSON body with these fields.
pub(crate) fn read(bytes: &[u8], fields: &FieldSet) -> Result<Value, ApiError> {
    let value = read_any(bytes)?;
    if let Value::Object(object) = &value {
        fields.check(object, "")?;
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
        if path == "." {
            return ApiError::bad_request(problem);
        }
        ApiError::bad_request(format!("{path}: {problem}")).param(path)
    })
}
