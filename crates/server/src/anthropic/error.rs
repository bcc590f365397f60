//! Errors in the form of the Messages API.

use axum::http::HeaderName;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorKind};

/// The header that carries the request's name back.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// The body of an error.
#[derive(Serialize, ToSchema)]
#[schema(as = MessagesErrorResponse)]
pub(crate) struct ErrorResponse {
    /// `error`.
    r#type: &'static str,
    error: ErrorBody,
    request_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = MessagesErrorBody)]
struct ErrorBody {
    /// The kind of error, `invalid_request_error` for example.
    r#type: String,
    /// What is wrong, and what would work.
    message: String,
}

/// `error.type` of an error.
pub(crate) const fn kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unauthorized => "authentication_error",
        ErrorKind::Forbidden => "permission_error",
        ErrorKind::NotFound => "not_found_error",
        ErrorKind::TooLarge => "request_too_large",
        ErrorKind::Timeout => "timeout_error",
        ErrorKind::Overloaded => "rate_limit_error",
        ErrorKind::Unavailable => "overloaded_error",
        ErrorKind::Internal => "api_error",
        _ => "invalid_request_error",
    }
}

/// An error, told to the request of this name.
pub(crate) fn body(error: &ApiError, request_id: &str) -> Value {
    json!({
        "type": "error",
        "error": { "type": kind(error.kind), "message": error.message },
        "request_id": request_id,
    })
}
