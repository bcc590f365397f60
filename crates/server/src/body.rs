//! Reads the body of a request: no larger and no slower than allowed.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;
use tokio::time;

use crate::error::{ApiError, ErrorKind};
use crate::state::AppState;

/// A body that is JSON by its content type; it is parsed off the threads that serve connections.
pub struct JsonBytes(pub Bytes);

impl FromRequest<AppState> for JsonBytes {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            let message = "the content type is not JSON; send the header Content-Type: \
                           application/json";
            return Err(ApiError::new(ErrorKind::UnsupportedMediaType, message));
        }
        read(request.into_body(), state).await.map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = value.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    let (kind, json) = (kind.to_ascii_lowercase(), "application/json");
    kind == json || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// The whole body.
///
/// # Errors
/// If it is larger than [`max_body_bytes`](crate::ServerOptions::max_body_bytes), takes longer than
/// [`read_timeout`](crate::ServerOptions::read_timeout), or breaks off.
pub async fn read(body: Body, state: &AppState) -> Result<Bytes, ApiError> {
    let limit = state.options.max_body_bytes;
    let timeout = state.options.read_timeout;
    time::timeout(timeout, collect(body, limit)).await.unwrap_or_else(|_| {
        let message = format!("the body did not arrive within {} s", timeout.as_secs_f64());
        Err(ApiError::new(ErrorKind::Timeout, message))
    })
}

async fn collect(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let too_large = || {
        let message = format!(
            "the body has more than {limit} bytes, the limit of this server; send less, or serve \
             with a larger --max-body"
        );
        ApiError::new(ErrorKind::TooLarge, message)
    };
    let promised = hyper::body::Body::size_hint(&body).lower();
    if promised > limit as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(promised as usize);
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|error| ApiError::bad_request(format!("the body broke off: {error}")))?;
        if bytes.len() + chunk.len() > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}
