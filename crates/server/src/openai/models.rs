//! Which models there are.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::ServedModel;
use crate::body::JsonBytes;
use crate::error::ApiError;
use crate::openapi::ErrorResponse;
use crate::request::fields;
use crate::state::AppState;

/// A model.
#[derive(Serialize, ToSchema)]
pub(crate) struct Model {
    id: String,
    /// `model`.
    object: &'static str,
    /// When it was loaded, in seconds since 1970.
    created: u64,
    /// `bantam`.
    owned_by: &'static str,
    /// Tokens of a request at most, prompt and answer together.
    max_model_len: usize,
    /// What it is: family, size and number formats.
    description: String,
}

/// All models.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelList {
    /// `list`.
    object: &'static str,
    data: Vec<Model>,
}

impl Model {
    fn new(model: &ServedModel) -> Self {
        Self {
            id: model.name().to_owned(),
            object: "model",
            created: model.created(),
            owned_by: "bantam",
            max_model_len: model.context(),
            description: model.description().to_owned(),
        }
    }
}

/// Every model served here.
#[utoipa::path(
    get,
    path = "/v1/models",
    operation_id = "list_models",
    tag = "OpenAI",
    responses(
        (status = 200, description = "All models", body = ModelList),
        (status = "default", description = "Why not", body = ErrorResponse)
    )
)]
pub(crate) async fn list(State(state): State<AppState>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: state.models.iter().map(Model::new).collect() })
}

/// One model.
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    operation_id = "show_model",
    tag = "OpenAI",
    params(("id" = String, Path, description = "The model's name")),
    responses(
        (status = 200, description = "The model", body = Model),
        (status = "default", description = "Why not", body = ErrorResponse)
    )
)]
pub(crate) async fn show(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<Model>, ApiError> {
    state.model(&id).map(|model| Json(Model::new(model)))
}

/// Refuses: decoders have no embeddings.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    operation_id = "create_embedding",
    tag = "OpenAI",
    request_body = Object,
    responses((status = 400, description = "Decoders have none", body = ErrorResponse))
)]
pub(crate) async fn embeddings(
    State(state): State<AppState>,
    JsonBytes(bytes): JsonBytes,
) -> Result<(), ApiError> {
    let body: Value = fields::read_any(&bytes)?;
    let model = state.model_or_only(body["model"].as_str())?;
    let message = format!(
        "{} is a decoder: it continues text and has no embeddings; ask an encoder model",
        model.name()
    );
    Err(ApiError::bad_request(message).param("model"))
}
