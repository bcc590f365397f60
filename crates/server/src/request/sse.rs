//! Server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use serde::Serialize;
use serde_json::Value;
use tokio::time;

use crate::error::ApiError;
use crate::record::Record;

/// Time after which a stream that has nothing to say sends a comment, which clients ignore and
/// proxies take for life.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How a protocol ends a stream.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    /// The last event, if all went well.
    pub(crate) well: Option<&'static str>,
    /// The last event, if something failed.
    pub(crate) badly: fn(&ApiError) -> Value,
}

/// An event whose kind stands in a line of its own before it.
pub(crate) trait NamedEvent: Serialize {
    /// What kind of event.
    fn name(&self) -> &'static str;
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
        async move { event }
    });
    respond(events)
}

/// A response that sends events with their names. The last one says how it ended.
pub(crate) fn named<T: NamedEvent + 'static>(
    events: impl Stream<Item = T> + Send + 'static,
    record: Arc<Record>,
) -> Response {
    let events = events.filter_map(move |item| {
        let event = event(&item).map(|data| format!("event: {}\n{data}", item.name()));
        let event = event.map_err(|error| record.failed(&error.message)).ok();
        async move { event }
    });
    respond(events)
}

/// A response that sends these events, and a comment wherever none comes for a while.
pub(crate) fn respond(events: impl Stream<Item = String> + Send + 'static) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        // Otherwise nginx collects events until it has a buffer full.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let events = kept_alive(events, KEEP_ALIVE).map(Ok::<_, Infallible>);
    (headers, Body::from_stream(events)).into_response()
}

/// The events, and a comment after each `period` without one.
fn kept_alive(
    events: impl Stream<Item = String> + Send + 'static,
    period: Duration,
) -> impl Stream<Item = String> + Send + 'static {
    stream::unfold(events.boxed(), move |mut events| async move {
        match time::timeout(period, events.next()).await {
            Ok(event) => Some((event?, events)),
            Err(_) => Some((": keep-alive\n\n".to_owned(), events)),
        }
    })
}

fn event(item: &impl Serialize) -> Result<String, ApiError> {
    let json = serde_json::to_string(item);
    json.map(|json| format!("data: {json}\n\n")).map_err(|error| {
        let message = format!("the answer cannot be written as JSON: {error}");
        ApiError::new(crate::ErrorKind::Internal, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_silent_stream_says_that_it_lives() {
        let waits = [0, 350, 0, 150];
        let events = stream::iter(waits).then(|wait| async move {
            time::sleep(Duration::from_millis(wait)).await;
            "data: x\n\n".to_owned()
        });
        let all: Vec<String> = kept_alive(events, Duration::from_millis(100)).collect().await;
        let comments = |part: &[String]| part.iter().filter(|text| text.starts_with(':')).count();
        // Threads may be late, but never early.
        assert_eq!(comments(&all[..1]), 0);
        assert!((3..=4).contains(&comments(&all[1..5])), "{all:?}");
        assert_eq!(all.len() - comments(&all), waits.len(), "{all:?}");
        assert!(all.last().is_some_and(|last| last == "data: x\n\n"));
    }
}
