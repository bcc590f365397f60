//! The OpenAI API.

mod chat;
mod completions;
mod fields;
mod logprobs;
mod models;
mod reply;
mod sampling;
mod sse;
mod usage;

use axum::Router;
use axum::routing::{get, post};

use crate::state::AppState;

/// The routes under `/v1`.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/completions", post(completions::create))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::show))
        .route("/v1/embeddings", post(models::embeddings))
}
