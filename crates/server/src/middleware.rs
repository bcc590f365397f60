//! Around every request: its name, its notes, its key, its place, and the form of its errors.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use crate::auth;
use crate::error::{ApiError, ErrorKind};
use crate::record::Record;
use crate::request_id;
use crate::state::AppState;

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

    let (mut response, permit) = match admit(&state, &request) {
        Ok(permit) => (answer(request, next).await, permit),
        Err(error) => (error.into_response(), None),
    };
    if let Some(error) = response.extensions().get::<ApiError>() {
        record.failed(&error.message);
        if speaks_kserve {
            response = error.respond(error.kserve());
        }
    }
    record.responded(response.status().as_u16());
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(request_id::HEADER, id);
    }
    response.map(|inner| {
        let ended = inner.is_end_stream();
        Body::new(ObservedBody { inner, record, ended, _permit: permit })
    })
}

/// Checks the key, and takes a place for what may cost work.
fn admit(state: &AppState, request: &Request) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
    if !auth::is_open(request.uri().path()) {
        state.keys.check(request.headers())?;
    }
    (request.method() == Method::POST).then(|| state.admit()).transpose()
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
    _permit: Option<OwnedSemaphorePermit>,
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
