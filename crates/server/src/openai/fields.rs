//! Reads the fields of a request: each is honoured or refused.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::ApiError;

/// A JSON body.
pub(crate) fn read(bytes: &[u8]) -> Result<Value, ApiError> {
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
