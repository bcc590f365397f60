//! Triton's generate extension: fields in, fields out.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bantam_text::Cancel;
use futures_util::StreamExt;
use serde_json::{Map, Value};

use crate::body;
use crate::error::ApiError;
use crate::kserve::described::GenerateRequest;
use crate::kserve::generation::{self, Answering, Generation};
use crate::kserve::outputs::OutputTensor;
use crate::kserve::question::Fields;
use crate::kserve::{ModelPath, STREAM_ENDS, VERSION};
use crate::record::Record;
use crate::request::{fields, sse};
use crate::state::{AppState, ServerState};

/// What every response says: the model, and the request's id if it has one.
type Head = Map<String, Value>;

/// Continues texts: fields in, fields out.
#[utoipa::path(
    post,
    path = "/v2/models/{model}/generate",
    operation_id = "kserve_generate",
    tag = "KServe",
    params(("model" = String, Path, description = "The model's name")),
    request_body = GenerateRequest,
    responses((status = 200, description = "The outputs", body = Object))
)]
pub(crate) async fn whole(
    State(state): State<AppState>,
    Path(path): Path<ModelPath>,
    Extension(record): Extension<Arc<Record>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, answering, _) = begin(state, path, record, request, false).await?;
    let outputs = answering.whole().await?;
    Ok(Json(said(&head, outputs)).into_response())
}

/// Continues a text: an event for each piece of the answer.
#[utoipa::path(
    post,
    path = "/v2/models/{model}/generate_stream",
    operation_id = "kserve_generate_stream",
    tag = "KServe",
    params(("model" = String, Path, description = "The model's name")),
    request_body = GenerateRequest,
    responses((status = 200, description = "Events with outputs", body = Object))
)]
pub(crate) async fn stream(
    State(state): State<AppState>,
    Path(path): Path<ModelPath>,
    Extension(record): Extension<Arc<Record>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, answering, stream) = begin(state, path, record, request, true).await?;
    let record = Arc::clone(&answering.record);
    let events = if stream {
        let chunks = answering.chunks();
        chunks.map(move |chunk| chunk.map(|chunk| said(&head, chunk.outputs))).boxed()
    } else {
        let whole = async move { Ok(said(&head, answering.whole().await?)) };
        futures_util::stream::once(whole).boxed()
    };
    Ok(sse::response(events, record, STREAM_ENDS))
}

/// Reads and asks; whether to stream comes along.
async fn begin(
    state: AppState,
    path: ModelPath,
    record: Arc<Record>,
    request: Request,
    can_stream: bool,
) -> Result<(Head, Answering, bool), ApiError> {
    let bytes = body::read(request, &state).await?;
    let (head, generation, stream) = state
        .prepare(move |state, cancel| prepare(state, &path, &bytes, can_stream, cancel))
        .await?;
    let answering = generation.begin(&state, record).await?;
    Ok((head, answering, stream))
}

fn prepare(
    state: &ServerState,
    path: &ModelPath,
    bytes: &[u8],
    can_stream: bool,
    cancel: &Cancel,
) -> Result<(Head, Generation, bool), ApiError> {
    let model = generation::model(state, &path.model, &path.version)?;
    let mut head = Head::new();
    let mut given = Fields::default();
    let Value::Object(body) = fields::read_any(bytes)? else {
        return Err(ApiError::bad_request("the body is not a JSON object"));
    };
    for (name, value) in body {
        match (&name[..], value) {
            ("id", Value::String(id)) => drop(head.insert(name, id.into())),
            ("id", Value::Null) => {}
            ("id", _) => return Err(ApiError::bad_request("id is not a text").param("id")),
            ("parameters", Value::Object(parameters)) => given.add_all(parameters)?,
            ("parameters", Value::Null) => {}
            ("parameters", _) => {
                let message = "parameters is not an object; send {\"parameters\": {…}}";
                return Err(ApiError::bad_request(message).param("parameters"));
            }
            (_, value) => given.add(&name, value)?,
        }
    }
    head.insert("model_name".to_owned(), model.name().into());
    head.insert("model_version".to_owned(), VERSION.into());
    let question = given.into_question()?;
    let stream = question.stream.unwrap_or(can_stream);
    if stream && !can_stream {
        let message = "stream is true, but /generate has one response; ask /generate_stream";
        return Err(ApiError::bad_request(message).param("stream"));
    }
    let generation = Generation::prepare(state, model, question, &[], stream, false, cancel)?;
    Ok((head, generation, stream))
}

/// A response: an output of one element is that element, any other a list.
fn said(head: &Head, outputs: Vec<OutputTensor>) -> Value {
    let mut said = head.clone();
    for OutputTensor { name, elements, .. } in outputs {
        let mut elements = elements.to_json();
        let value = if elements.len() == 1 { elements.remove(0) } else { elements.into() };
        said.insert(name.to_owned(), value);
    }
    Value::Object(said)
}
