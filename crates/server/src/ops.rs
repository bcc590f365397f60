//! What those who run the server ask: health, metrics, the description of the API.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bantam_engine::Health;
use serde::Serialize;
use utoipa::ToSchema;

use crate::state::{AppState, ServerState};
use crate::{metrics, openapi};

/// Health, metrics, the version and the description.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/health", get(health))
        .route("/live", get(live))
        .route("/ping", get(ping).post(ping))
        .route("/version", get(version))
        .route("/metrics", get(prometheus))
        .route("/openapi.json", get(description))
}

/// How the server is.
#[derive(Serialize, ToSchema)]
pub(crate) struct HealthReport {
    /// Whether every model is ready.
    ready: bool,
    /// Each model.
    models: Vec<ModelHealth>,
}

/// How a model is.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelHealth {
    /// Its name.
    name: String,
    /// `ready`, `draining`, `stalled`, `stopped` or `dead`.
    status: &'static str,
    /// What happened to it, if it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl HealthReport {
    fn new(state: &ServerState) -> Self {
        let models = state.models.iter().map(|model| {
            let health = model.engine().health();
            ModelHealth {
                name: model.name().to_owned(),
                status: status(&health),
                reason: reason(health),
            }
        });
        let models: Vec<ModelHealth> = models.collect();
        Self { ready: models.iter().all(|model| model.status == "ready"), models }
    }
}

const fn status(health: &Health) -> &'static str {
    match health {
        Health::Ready => "ready",
        Health::Draining => "draining",
        Health::Stalled { .. } => "stalled",
        Health::Stopped => "stopped",
        Health::Dead { .. } => "dead",
    }
}

fn reason(health: Health) -> Option<String> {
    match health {
        Health::Ready | Health::Stopped => None,
        Health::Draining => Some("the server is stopping".to_owned()),
        Health::Stalled { since } => {
            Some(format!("a step has taken {:.0} s so far", since.as_secs_f64()))
        }
        Health::Dead { reason } => {
            Some(format!("{reason}; it does not come back by itself: restart the server"))
        }
    }
}

/// Whether every model can answer.
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "health",
    tag = "Operation",
    responses(
        (status = 200, description = "Every model is ready", body = HealthReport),
        (status = 503, description = "One or more are not", body = HealthReport)
    )
)]
pub(crate) async fn health(State(state): State<AppState>) -> Response {
    let report = HealthReport::new(&state);
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

/// Whether the process answers at all.
#[utoipa::path(
    get,
    path = "/live",
    operation_id = "live",
    tag = "Operation",
    responses((status = 200, description = "It does", body = String))
)]
pub(crate) async fn live() -> &'static str {
    "alive\n"
}

/// The release that answers.
#[derive(Serialize, ToSchema)]
pub(crate) struct Version {
    /// By semantic versioning.
    version: &'static str,
}

/// Which release this is.
#[utoipa::path(
    get,
    path = "/version",
    operation_id = "version",
    tag = "Operation",
    responses((status = 200, description = "The release", body = Version))
)]
pub(crate) async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION") })
}

/// The same as `/health`, by the name that SageMaker has for it.
#[utoipa::path(
    get,
    path = "/ping",
    operation_id = "ping",
    tag = "Operation",
    responses(
        (status = 200, description = "Every model is ready", body = HealthReport),
        (status = 503, description = "One or more are not", body = HealthReport)
    )
)]
pub(crate) async fn ping(state: State<AppState>) -> Response {
    health(state).await
}

/// What is counted and measured, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "Operation",
    responses((status = 200, description = "In the text format of Prometheus", body = String))
)]
pub(crate) async fn prometheus(State(state): State<AppState>) -> impl IntoResponse {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics::exposition(&state))
}

/// This description.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    tag = "Operation",
    responses((status = 200, description = "As OpenAPI has it", body = Object))
)]
pub(crate) async fn description() -> impl IntoResponse {
    Json(openapi::description())
}
