//! The OpenAI API.

pub(crate) mod ask;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod fields;
pub(crate) mod logprobs;
mod messages;
pub(crate) mod models;
pub(crate) mod refused;
pub(crate) mod reply;
pub(crate) mod sampling;
pub(crate) mod sse;
mod structured;
pub(crate) mod tokenize;
mod tools;
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
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
}
