//! The KServe v2 protocol.

use axum::Router;

use crate::state::AppState;

/// The routes under `/v2`.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
}
