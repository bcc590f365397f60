//! The OpenAI API.

pub(crate) mod chat;
pub(crate) mod chat_answer;
pub(crate) mod completions;
pub(crate) mod field_sets;
pub(crate) mod logprobs;
pub(crate) mod messages;
pub(crate) mod models;
pub(crate) mod notes;
pub(crate) mod reply;
pub(crate) mod responses;
pub(crate) mod tokenize;
pub(crate) mod tools;
mod usage;

use axum::Router;
use axum::routing::{get, post};

use crate::error::ApiError;
use crate::request::sse;
use crate::state::AppState;

/// How streams end.
const STREAM_ENDS: sse::Ends = sse::Ends { well: Some("[DONE]"), badly: ApiError::openai };

/// The routes under `/v1`.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/completions", post(completions::create))
        .route("/v1/responses", post(responses::create::create))
        .route("/v1/responses/input_tokens", post(responses::create::count))
        .route("/v1/responses/{id}", get(responses::kept::show).delete(responses::kept::delete))
        .route("/v1/responses/{id}/input_items", get(responses::kept::input_items))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::show))
        .route("/v1/embeddings", post(models::embeddings))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
}
