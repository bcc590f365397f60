//! The built-in page.

use axum::Router;

use crate::state::AppState;

/// The page at `/` and its files under `/page/`.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
}
