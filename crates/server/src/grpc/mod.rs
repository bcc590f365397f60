//! The KServe v2 protocol over gRPC: what [`kserve`](crate::kserve) answers over HTTP, on a port of
//! its own.

mod convert;
/// The messages, and the service that answers them. Made from `proto/inference.proto` by
/// `cargo xtask-proto`.
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod inference;
mod service;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use futures_util::stream;
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::ServedModel;
use crate::activity::{Activity, Protocol};
use crate::body_limits::BodyLimits;
use crate::connection::Slots;
use crate::grpc::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use crate::grpc::service::Service;
use crate::state::AppState;

/// Calls of a connection under way at most.
const MAX_CALLS: u32 = 128;

/// Serves until told to stop, and then until the calls under way are over.
pub(crate) async fn serve(
    listener: TcpListener,
    slots: Slots,
    state: AppState,
    stop: impl Future<Output = ()>,
) {
    let context = state.models.iter().map(ServedModel::context).max().unwrap_or_default();
    let limit = BodyLimits::message_bytes(context, state.options.max_body_bytes);
    let service = GrpcInferenceServiceServer::new(Service::new(Arc::clone(&state)))
        .max_decoding_message_size(limit)
        .max_encoding_message_size(usize::MAX);
    let incoming = stream::unfold((listener, slots), async |(listener, slots)| {
        let connection = slots.accept(&listener, Protocol::Http2).await;
        Some((Ok::<_, Infallible>(connection), (listener, slots)))
    });
    let routes = Routes::new(service).into_axum_router();
    let routes = routes.layer(from_fn_with_state(state, observe));
    let server =
        Server::builder().max_concurrent_streams(MAX_CALLS).add_routes(Routes::from(routes));
    // It fails only if its options contradict each other; connections fail by themselves.
    let _ = server.serve_with_incoming_shutdown(incoming, stop).await;
}

/// Refuses calls by foreign names and web pages, and notes that a connection is not idle.
async fn observe(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let answering = request.extensions().get::<Arc<Activity>>().map(Activity::answering);
    if let Err(error) = state.origins.check(request.uri(), request.headers()) {
        return convert::status(&error).into_http();
    }
    let response = next.run(request).await;
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _until_the_end = &answering;
            frame
        }))
    })
}
