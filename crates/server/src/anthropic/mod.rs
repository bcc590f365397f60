//! The Messages API of Anthropic, which their clients and coding agents speak.
//!
//! | file | what it decides |
//! |---|---|
//! | `fields` | what a request may say |
//! | `kinds`, `notes` | kinds of objects and fields beside those of the types |
//! | `conversation`, `tools` | parts of it, translated |
//! | `create` | from a request to its answer |
//! | `message`, `events` | what is answered, whole and streamed |
//! | `narrator` | an answer becomes a message |
//! | `error` | errors in this protocol's form |

pub(crate) mod conversation;
pub(crate) mod create;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod fields;
mod kinds;
pub(crate) mod message;
mod narrator;
pub(crate) mod notes;
pub(crate) mod tools;

use axum::Router;
use axum::routing::post;

use crate::state::AppState;

/// The routes of this protocol.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/messages", post(create::create))
        .route("/v1/messages/count_tokens", post(create::count))
}

/// Whether a path is one of this protocol, errors included.
pub(crate) fn is_path(path: &str) -> bool {
    path == "/v1/messages" || path.starts_with("/v1/messages/")
}
