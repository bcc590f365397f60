//! What is told about the server and its models.

use axum::Json;
use axum::extract::{Path, Request, State};
use serde_json::{Map, Value, json};

use crate::ServedModel;
use crate::body;
use crate::error::{ApiError, ErrorKind};
use crate::kserve::fields::{FIELDS, Meaning};
use crate::kserve::generation;
use crate::kserve::outputs::OUTPUTS;
use crate::kserve::tensor::Datatype;
use crate::kserve::{ModelPath, VERSION};
use crate::state::{AppState, ServerState};

/// The name of the server.
pub(crate) const SERVER: &str = "bantam";

/// Extensions of the protocol, by Triton's names. Models are listed, and stay as they are.
pub(crate) const EXTENSIONS: [&str; 7] = [
    "binary_tensor_data",
    "generate",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
];

/// A tensor that a model takes or gives.
pub(crate) struct TensorMetadata {
    pub(crate) name: &'static str,
    pub(crate) datatype: Datatype,
    pub(crate) shape: Vec<i64>,
    pub(crate) optional: bool,
}

/// The inputs of a language model. Parameters of requests, which Triton reserves, are not inputs.
pub(crate) fn inputs() -> impl Iterator<Item = TensorMetadata> {
    let reserved =
        |name: &str| matches!(name, "priority" | "timeout") || name.starts_with("triton_");
    FIELDS.iter().filter(move |field| !reserved(field.name)).map(|field| {
        let (datatype, size) = field.kind.tensor();
        let optional = field.meaning != Meaning::Prompts;
        TensorMetadata { name: field.name, datatype, shape: vec![size], optional }
    })
}

/// The outputs of a language model.
pub(crate) fn outputs() -> impl Iterator<Item = TensorMetadata> {
    OUTPUTS.iter().map(|row| TensorMetadata {
        name: row.name,
        datatype: row.datatype,
        shape: row.shape.to_vec(),
        optional: row.name != "text_output",
    })
}

/// Name, version and extensions of the server.
#[utoipa::path(
    get,
    path = "/v2",
    operation_id = "kserve_server",
    tag = "KServe",
    responses((status = 200, description = "What it is", body = Object))
)]
pub(crate) async fn server() -> Json<Value> {
    let version = env!("CARGO_PKG_VERSION");
    Json(json!({ "name": SERVER, "version": version, "extensions": EXTENSIONS }))
}

/// Whether the process answers at all.
#[utoipa::path(
    get,
    path = "/v2/health/live",
    operation_id = "kserve_live",
    tag = "KServe",
    responses((status = 200, description = "It does", body = Object))
)]
pub(crate) async fn live() -> Json<Value> {
    Json(json!({ "live": true }))
}

/// Whether every model answers; if not, which does not.
pub(crate) fn check_ready(state: &ServerState) -> Result<(), ApiError> {
    state.models.iter().try_for_each(check_model_ready)
}

/// Whether a model answers.
pub(crate) fn check_model_ready(model: &ServedModel) -> Result<(), ApiError> {
    let health = model.engine().health();
    if health.is_ready() {
        return Ok(());
    }
    let message = format!("the model {} is not ready; /health says why", model.name());
    Err(ApiError::new(ErrorKind::Unavailable, message))
}

/// Whether every model can answer.
#[utoipa::path(
    get,
    path = "/v2/health/ready",
    operation_id = "kserve_ready",
    tag = "KServe",
    responses((status = 200, description = "Every model is ready; 503 if one is not", body = Object))
)]
pub(crate) async fn ready(State(state): State<AppState>) -> Result<Json<Value>, ApiError> {
    check_ready(&state)?;
    Ok(Json(json!({ "ready": true })))
}

/// Whether a model can answer.
#[utoipa::path(
    get,
    path = "/v2/models/{model}/ready",
    operation_id = "kserve_model_ready",
    tag = "KServe",
    params(("model" = String, Path, description = "The model's name")),
    responses((status = 200, description = "It can; 503 if not", body = Object))
)]
pub(crate) async fn model_ready(
    State(state): State<AppState>,
    Path(ModelPath { model, version }): Path<ModelPath>,
) -> Result<Json<Value>, ApiError> {
    let model = generation::model(&state, &model, &version)?;
    check_model_ready(model)?;
    Ok(Json(json!({ "name": model.name(), "ready": true })))
}

/// Inputs and outputs of a model.
#[utoipa::path(
    get,
    path = "/v2/models/{model}",
    operation_id = "kserve_model",
    tag = "KServe",
    params(("model" = String, Path, description = "The model's name")),
    responses((status = 200, description = "Names, types and shapes", body = Object))
)]
pub(crate) async fn model(
    State(state): State<AppState>,
    Path(ModelPath { model, version }): Path<ModelPath>,
) -> Result<Json<Value>, ApiError> {
    let model = generation::model(&state, &model, &version)?;
    let said = |tensor: TensorMetadata| {
        let TensorMetadata { name, datatype, shape, .. } = tensor;
        json!({ "name": name, "datatype": datatype.name(), "shape": shape })
    };
    Ok(Json(json!({
        "name": model.name(),
        "versions": [VERSION],
        "platform": SERVER,
        "inputs": inputs().map(said).collect::<Vec<_>>(),
        "outputs": outputs().map(said).collect::<Vec<_>>(),
    })))
}

/// A model as Triton's configuration describes it.
#[utoipa::path(
    get,
    path = "/v2/models/{model}/config",
    operation_id = "kserve_config",
    tag = "KServe",
    params(("model" = String, Path, description = "The model's name")),
    responses((status = 200, description = "The configuration", body = Object))
)]
pub(crate) async fn config(
    State(state): State<AppState>,
    Path(ModelPath { model, version }): Path<ModelPath>,
) -> Result<Json<Value>, ApiError> {
    let model = generation::model(&state, &model, &version)?;
    let said = |tensor: TensorMetadata| {
        let TensorMetadata { name, datatype, shape, .. } = tensor;
        json!({ "name": name, "data_type": datatype.config_name(), "dims": shape })
    };
    let input = inputs().map(|tensor| {
        let optional = tensor.optional;
        let mut said = said(tensor);
        said["optional"] = optional.into();
        said
    });
    Ok(Json(json!({
        "name": model.name(),
        "platform": "",
        "backend": SERVER,
        "max_batch_size": MAX_BATCH_SIZE,
        "input": input.collect::<Vec<_>>(),
        "output": outputs().map(said).collect::<Vec<_>>(),
        "model_transaction_policy": { "decoupled": true },
        "parameters": {
            "max_model_len": { "string_value": model.context().to_string() },
            "description": { "string_value": model.description() },
        },
    })))
}

/// Of the configuration: the first dimension of tensors is not set aside for batches, since the
/// engine batches by itself.
pub(crate) const MAX_BATCH_SIZE: i32 = 0;

/// A model as the repository index has it.
pub(crate) struct IndexEntry {
    pub(crate) name: String,
    pub(crate) state: &'static str,
    pub(crate) reason: String,
}

/// All models, or those that answer.
pub(crate) fn index_entries(state: &ServerState, only_ready: bool) -> Vec<IndexEntry> {
    let entries = state.models.iter().map(|model| {
        let (state, reason) = match check_model_ready(model) {
            Ok(()) => ("READY", String::new()),
            Err(error) => ("UNAVAILABLE", error.message),
        };
        IndexEntry { name: model.name().to_owned(), state, reason }
    });
    entries.filter(|entry| !only_ready || entry.state == "READY").collect()
}

/// All models, or with `ready` those that can answer.
#[utoipa::path(
    post,
    path = "/v2/repository/index",
    operation_id = "kserve_index",
    tag = "KServe",
    request_body = Object,
    responses((status = 200, description = "The models and their states", body = Object))
)]
pub(crate) async fn index(
    State(state): State<AppState>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let body = body::read_free(request, &state).await?;
    let mut only_ready = false;
    if !body.is_empty() {
        let object: Map<String, Value> = serde_json::from_slice(&body).map_err(|error| {
            ApiError::bad_request(format!("the body is not a JSON object: {error}"))
        })?;
        for (name, value) in object {
            only_ready = match (&name[..], value) {
                ("ready", Value::Bool(ready)) => ready,
                _ => {
                    return Err(ApiError::bad_request("expected nothing but ready: true or false"));
                }
            };
        }
    }
    let entries = index_entries(&state, only_ready).into_iter().map(|entry| {
        let IndexEntry { name, state, reason } = entry;
        json!({ "name": name, "version": VERSION, "state": state, "reason": reason })
    });
    Ok(Json(entries.collect()))
}

/// Loading and unloading: refused.
pub(crate) async fn fixed() -> ApiError {
    ApiError::bad_request(FIXED)
}

/// Why models are neither loaded nor unloaded.
pub(crate) const FIXED: &str =
    "models are chosen when the server starts; start it with the models you need";
