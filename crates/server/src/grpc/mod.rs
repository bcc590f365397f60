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

use futures_util::stream;
use tokio::net::TcpListener;
use tonic::transport::Server;

use crate::connection::Slots;
use crate::grpc::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use crate::grpc::service::Service;
use crate::state::AppState;

/// Serves until told to stop, and then until the calls under way are over.
pub(crate) async fn serve(
    listener: TcpListener,
    slots: Slots,
    state: AppState,
    stop: impl Future<Output = ()>,
) {
    let limit = state.options.max_body_bytes;
    let service = GrpcInferenceServiceServer::new(Service::new(state))
        .max_decoding_message_size(limit)
        .max_encoding_message_size(usize::MAX);
    let incoming = stream::unfold((listener, slots), async |(listener, slots)| {
        let connection = slots.accept(&listener).await;
        Some((Ok::<_, Infallible>(connection), (listener, slots)))
    });
    let server = Server::builder().add_service(service);
    // It fails only if its options contradict each other; connections fail by themselves.
    let _ = server.serve_with_incoming_shutdown(incoming, stop).await;
}
