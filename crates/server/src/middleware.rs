//! Around every request: its name, its notes, who may ask, its place, and the form of its errors.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use hyper::body::{Body as _, Frame, SizeHint};

use crate::activity::{Activity, Answering};
use crate::anthropic;
use crate::error::{ApiError, ErrorKind};
use crate::record::Record;
use crate::state::{AppState, Place};
use crate::{auth, body, request_id};

/// Serves one request. Handlers find its [`Record`] as `Extension<Arc<Record>>`.
pub(crate) async fn observe(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = request_id::of(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or("other", |path| path.as_str());
    let observer = Arc::clone(&state.observer);
    let record = Record::new(observer, id.clone(), request.method().as_str(), route);
    request.extensions_mut().insert(Arc::clone(&record));
    let path = request.uri().path();
    let speaks_kserve = path == "/v2" || path.starts_with("/v2/");
    let speaks_anthropic = anthropic::is_path(path);

    let answering = request.extensions().get::<Arc<Activity>>().map(Activity::answering);
    let place = Arc::new(Place::default());
    request.extensions_mut().insert(Arc::clone(&place));
    let origin = request.headers().get(header::ORIGIN).cloned();
    let long = request.body().size_hint().exact().is_none_or(|bytes| bytes > DRAINED_BYTES);

    let preflight = state.origins.preflight(request.method(), request.headers());
    let mut response = match preflight {
        Some(told) => told.unwrap_or_else(IntoResponse::into_response),
        None => match admit(&state, &request) {
            Ok(()) => answer(request, next).await,
            Err(error) => error.into_response(),
        },
    };
    if let Some(error) = response.extensions().get::<ApiError>().cloned() {
        record.failed(&error.message);
        if speaks_kserve {
            response = error.respond(error.kserve());
        } else if speaks_anthropic {
            response = error.respond(anthropic::error::body(&error, &id));
        }
    }
    record.responded(response.status().as_u16());
    if let Ok(id) = HeaderValue::from_str(&id) {
        if speaks_anthropic {
            response.headers_mut().insert(anthropic::error::REQUEST_ID, id.clone());
        }
        response.headers_mut().insert(request_id::HEADER, id);
    }
    state.origins.tell(origin.as_ref(), response.headers_mut());
    // A refusal may come before the rest of a long body, which nobody reads: the connection ends then.
    let refused = long && !response.status().is_success();
    if refused || state.check_running().is_err() {
        // Its next request would find nobody.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response.map(|inner| {
        let ended = inner.is_end_stream();
        Body::new(ObservedBody { inner, record, ended, _place: place, _answering: answering })
    })
}

/// A body that is read to its end even where the request is refused: it has come with its head.
const DRAINED_BYTES: u64 = 4096;

/// Refuses by what the head of a request says, before anything is read or done.
fn admit(state: &AppState, request: &Request) -> Result<(), ApiError> {
    let (path, headers) = (request.uri().path(), request.headers());
    state.origins.check(request.uri(), headers)?;
    if !auth::is_open(path) {
        state.keys.check(headers)?;
    }
    if !watches(path) {
        state.check_running()?;
    }
    let Some(route) = request.extensions().get::<MatchedPath>() else { return Ok(()) };
    if request.method() == Method::POST {
        if !request.body().is_end_stream() {
            body::check_kind(route.as_str(), headers)?;
        }
        state.check_place()?;
    }
    Ok(())
}

/// Paths that are asked how the server is, while it stops as well.
fn watches(path: &str) -> bool {
    matches!(path, "/health" | "/live" | "/ping" | "/metrics" | "/v2/repository/index")
        || path.starts_with("/v2/health/")
        || (path.starts_with("/v2/models/") && path.ends_with("/ready"))
}

/// A fault in a handler costs one request, not the connection.
async fn answer(request: Request, next: Next) -> Response {
    let response = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    response.unwrap_or_else(|_| {
        ApiError::new(ErrorKind::Internal, "the server failed on this request").into_response()
    })
}

/// A body that notes when the client goes away before its end, and keeps the request's place.
struct ObservedBody {
    inner: Body,
    record: Arc<Record>,
    ended: bool,
    _place: Arc<Place>,
    _answering: Option<Answering>,
}

impl hyper::body::Body for ObservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        self.ended |= frame.is_none() || self.inner.is_end_stream();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for ObservedBody {
    fn drop(&mut self) {
        if !self.ended {
            self.record.vanished();
        }
    }
}
