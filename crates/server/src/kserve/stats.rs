//! Inference statistics, as Triton counts them.

use axum::Json;
use axum::extract::{Path, State};
use bantam_engine::{Histogram, Metrics};
use serde::Serialize;
use serde_json::{Value, json};

use crate::ServedModel;
use crate::error::ApiError;
use crate::kserve::generation;
use crate::kserve::{ModelPath, VERSION};
use crate::state::AppState;

/// How often something happened, and how long it took together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Duration {
    pub(crate) count: u64,
    /// Nanoseconds.
    pub(crate) ns: u64,
}

impl Duration {
    fn of(seconds: &Histogram) -> Self {
        Self { count: seconds.count(), ns: (seconds.sum() * 1e9) as u64 }
    }
}

/// What the engine of a model counted. Times that it does not measure are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statistics {
    /// Milliseconds since 1970; 0 if there was none.
    pub(crate) last_inference: u64,
    /// Answers completed.
    pub(crate) inference_count: u64,
    /// Steps of the engine.
    pub(crate) execution_count: u64,
    pub(crate) success: Duration,
    pub(crate) fail: Duration,
    /// Until the first step.
    pub(crate) queue: Duration,
    /// The model's part of steps.
    pub(crate) compute_infer: Duration,
}

impl Statistics {
    pub(crate) fn of(model: &ServedModel) -> Self {
        let metrics: Metrics = model.engine().metrics();
        let success = Duration::of(&metrics.request_seconds);
        let compute_infer = Duration::of(&metrics.forward_seconds);
        Self {
            last_inference: model.last_asked(),
            inference_count: success.count,
            execution_count: compute_infer.count,
            success,
            fail: Duration { count: metrics.failed, ns: 0 },
            queue: Duration::of(&metrics.queue_seconds),
            compute_infer,
        }
    }
}

fn said(model: &ServedModel) -> Value {
    let statistics = Statistics::of(model);
    let unmeasured = Duration::default();
    json!({
        "name": model.name(),
        "version": VERSION,
        "last_inference": statistics.last_inference,
        "inference_count": statistics.inference_count,
        "execution_count": statistics.execution_count,
        "inference_stats": {
            "success": statistics.success,
            "fail": statistics.fail,
            "queue": statistics.queue,
            "compute_input": unmeasured,
            "compute_infer": statistics.compute_infer,
            "compute_output": unmeasured,
            "cache_hit": unmeasured,
            "cache_miss": unmeasured,
        },
        "batch_stats": [],
    })
}

/// What the engine of a model counted and measured.
#[utoipa::path(
    get,
    path = "/v2/models/{model}/stats",
    operation_id = "kserve_stats",
    tag = "KServe",
    params(("model" = String, Path, description = "The model's name")),
    responses((status = 200, description = "Statistics as Triton has them", body = Object))
)]
pub(crate) async fn one(
    State(state): State<AppState>,
    Path(ModelPath { model, version }): Path<ModelPath>,
) -> Result<Json<Value>, ApiError> {
    let model = generation::model(&state, &model, &version)?;
    Ok(Json(json!({ "model_stats": [said(model)] })))
}

/// What the engines of all models counted and measured.
#[utoipa::path(
    get,
    path = "/v2/models/stats",
    operation_id = "kserve_all_stats",
    tag = "KServe",
    responses((status = 200, description = "Statistics as Triton has them", body = Object))
)]
pub(crate) async fn all(State(state): State<AppState>) -> Json<Value> {
    Json(json!({ "model_stats": state.models.iter().map(said).collect::<Vec<_>>() }))
}
