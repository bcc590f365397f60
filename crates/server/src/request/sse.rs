//! Server-sent events.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use serde::Serialize;
use serde_json::Value;

use crate::error::ApiError;
use crate::record::Record;

/// How a protocol ends a stream.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    /// The last event, if all went well.
    pub(crate) well: Option<&'static str>,
    /// The last event, if something failed.
    pub(crate) badly: fn(&ApiError) -> Value,
}

/// A response that sends each item as an event.
pub(crate) fn response<T: Serialize + 'static>(
    items: impl Stream<Item = Result<T, ApiError>> + Send + 'static,
    record: Arc<Record>,
    ends: Ends,
) -> Response {
    let mut failed = false;
    let events = items.map(Some).chain(stream::once(async { None }));
    let events = events.filter_map(move |item| {
        let event = match item {
            _ if failed => None,
            None => ends.well.map(|last| format!("data: {last}\n\n")),
            Some(item) => {
                let event = item.and_then(|item| event(&item)).unwrap_or_else(|error| {
                    failed = true;
                    record.failed(&error.message);
                    format!("data: {}\n\n", (ends.badly)(&error))
                });
                Some(event)
            }
        };
        async move { event.map(Ok::<_, std::convert::Infallible>) }
    });
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(events)).into_response()
}

fn event(item: &impl Serialize) -> Result<String, ApiError> {
    let json = serde_json::to_string(item);
    json.map(|json| format!("data: {json}\n\n")).map_err(|error| {
        let message = format!("the answer cannot be written as JSON: {error}");
        ApiError::new(crate::ErrorKind::Internal, message)
    })
}
