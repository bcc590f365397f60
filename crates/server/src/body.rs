//! Reads the body of a request: of a kind that is read here, no larger and no slower than allowed.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderName, header};
use futures_util::StreamExt;
use tokio::time;

use crate::activity::Activity;
use crate::body_limits::JsonCount;
use crate::error::{ApiError, ErrorKind};
use crate::state::{AppState, Place};

/// Bytes of JSON at the beginning of a body of `/infer`; tensors as bytes follow.
pub(crate) const JSON_LENGTH: HeaderName =
    HeaderName::from_static("inference-header-content-length");

/// The body of a request for work, parsed off the threads that serve connections.
pub struct JsonBytes(pub Bytes);

impl FromRequest<AppState> for JsonBytes {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        read(request, state).await.map(Self)
    }
}

/// Refuses a body that is not what `route` reads, by what its headers say.
///
/// Any web page can send texts and forms anywhere without asking, but not these kinds.
pub(crate) fn check_kind(route: &str, headers: &HeaderMap) -> Result<(), ApiError> {
    let unsupported = |message: String| ApiError::new(ErrorKind::UnsupportedMediaType, message);
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    if let Some(encoding) = encodings.find(|encoding| *encoding != "identity") {
        let message = format!("bodies of encoding {encoding:?} are not read; do not compress");
        return Err(unsupported(message).code("unsupported_encoding"));
    }
    let (is_kserve, is_infer) = (route.starts_with("/v2/"), route.ends_with("/infer"));
    let Some(kind) = headers.get(header::CONTENT_TYPE) else {
        if is_kserve && is_triton_client(headers) {
            return Ok(());
        }
        let message = "there is no content type; send the header Content-Type: application/json";
        return Err(unsupported(message.to_owned()));
    };
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    let kind = kind.trim().to_ascii_lowercase();
    let is_json =
        kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"));
    if is_json || (is_infer && kind == "application/octet-stream") {
        return Ok(());
    }
    let or_bytes =
        if is_infer { ", or application/octet-stream with tensors as bytes" } else { "" };
    let kind: String = kind.chars().take(64).collect();
    Err(unsupported(format!(
        "the content type {kind:?} is not read; send JSON with the header Content-Type: \
         application/json{or_bytes}"
    )))
}

/// Whether Triton's Python client sent this, which names no content type. A page can send neither
/// of its headers without asking before.
fn is_triton_client(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    headers.contains_key(JSON_LENGTH)
        || agent.is_some_and(|agent| agent.starts_with("python/gevent-http-client"))
}

/// The whole body of a request for work, which then takes its place among those under way.
///
/// # Errors
/// If it is too large, too slow or breaks off, and if there is no place.
pub async fn read(request: Request, state: &AppState) -> Result<Bytes, ApiError> {
    let place = request.extensions().get::<Arc<Place>>().cloned();
    let bytes = read_free(request, state).await?;
    place.map_or(Ok(()), |place| place.take(state))?;
    Ok(bytes)
}

/// The whole body of a request that costs no work.
///
/// # Errors
/// If it is larger than [`max_body_bytes`](crate::ServerOptions::max_body_bytes) or would become too
/// large, takes longer than [`body_timeout`](crate::ServerOptions::body_timeout), or breaks off.
pub(crate) async fn read_free(request: Request, state: &AppState) -> Result<Bytes, ApiError> {
    let (parts, body) = request.into_parts();
    let activity = parts.extensions.get::<Arc<Activity>>();
    let json_length = json_length(&parts.headers)?;
    let timeout = state.options.body_timeout;
    activity.inspect(|activity| activity.sending(true));
    let collected = time::timeout(timeout, collect(body, json_length, state)).await;
    activity.inspect(|activity| activity.sending(false));
    collected.unwrap_or_else(|_| {
        let message = format!("the body did not arrive within {} s", timeout.as_secs_f64());
        Err(ApiError::new(ErrorKind::Timeout, message))
    })
}

/// How much of a body is JSON, if its headers say so.
pub(crate) fn json_length(headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
    let Some(value) = headers.get(JSON_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|value| value.trim().parse().ok());
    length.map(Some).ok_or_else(|| {
        let message = format!("the header {JSON_LENGTH} has {value:?}, expected bytes of JSON");
        ApiError::bad_request(message)
    })
}

async fn collect(
    body: Body,
    json_length: Option<usize>,
    state: &AppState,
) -> Result<Bytes, ApiError> {
    let limits = &state.body_limits;
    let promised = hyper::body::Body::size_hint(&body).lower();
    limits.check_bytes(promised)?;
    let mut arriving = state.body_room.arriving(promised as usize);
    let mut count = JsonCount::default();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|error| ApiError::bad_request(format!("the body broke off: {error}")))?;
        let before = arriving.len();
        limits.check_bytes((before + chunk.len()) as u64)?;
        let json = json_length.map_or(chunk.len(), |length| length.saturating_sub(before));
        count.add(&chunk[..json.min(chunk.len())], limits)?;
        arriving.push(&chunk)?;
    }
    Ok(arriving.complete(&count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_of_kinds_that_pages_must_ask_for() {
        let taken = |route: &str, headers: &[(&'static str, &str)]| {
            let all = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            check_kind(route, &all.collect()).is_ok()
        };
        let (chat, infer) = ("/v1/chat/completions", "/v2/models/{model}/infer");
        let kind = "content-type";
        for json in ["application/json", "Application/JSON; charset=utf-8", "application/ld+json"] {
            assert!(taken(chat, &[(kind, json)]) && taken(infer, &[(kind, json)]), "{json}");
        }
        for other in [
            "text/plain",
            "text/json",
            "application/x-www-form-urlencoded",
            "json",
            "",
            "multipart/form-data; boundary=application/json",
            "text/plain;application/json",
        ] {
            assert!(!taken(chat, &[(kind, other)]) && !taken(infer, &[(kind, other)]), "{other}");
        }
        assert!(!taken(chat, &[]) && !taken(infer, &[]));
        assert!(taken(infer, &[("inference-header-content-length", "9")]));
        assert!(taken(infer, &[("user-agent", "python/gevent-http-client-2.6.1")]));
        assert!(!taken(chat, &[("user-agent", "python/gevent-http-client-2.6.1")]));
        let bytes = [(kind, "application/octet-stream")];
        assert!(taken(infer, &bytes) && !taken(chat, &bytes));
        let json = (kind, "application/json");
        assert!(taken(chat, &[json, ("content-encoding", "identity")]));
        for encoding in ["gzip", "br", "identity, gzip", ""] {
            assert!(!taken(chat, &[json, ("content-encoding", encoding)]), "{encoding}");
        }
    }
}
