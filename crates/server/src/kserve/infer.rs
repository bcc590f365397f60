//! `/infer`: tensors in, tensors out, as JSON and as bytes.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bantam_text::Cancel;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::body::{self, JSON_LENGTH};
use crate::error::ApiError;
use crate::kserve::described::InferParameters;
use crate::kserve::generation::{self, Generation};
use crate::kserve::outputs::OutputTensor;
use crate::kserve::question::Fields;
use crate::kserve::tensor::{Datatype, Tensor, bad};
use crate::kserve::{ModelPath, VERSION};
use crate::record::Record;
use crate::request::fields;
use crate::state::{AppState, ServerState};

/// The JSON of a request.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InferRequest {
    /// A label that the response has too.
    id: Option<String>,
    /// The model in the path.
    model_name: Option<String>,
    /// The version in the path.
    model_version: Option<String>,
    /// Fields that do not come as tensors, and `binary_data_output`.
    #[serde(default)]
    #[schema(value_type = Option<InferParameters>)]
    parameters: Map<String, Value>,
    /// Fields that come as tensors.
    inputs: Vec<Input>,
    /// The outputs to tell; the text, and what `parameters` ask for, if there are none.
    #[serde(default)]
    outputs: Vec<RequestedOutput>,
}

/// A tensor.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    /// The field.
    name: String,
    shape: Vec<i64>,
    datatype: String,
    /// Its elements; lists within each other, or one.
    #[schema(value_type = Option<Vec<Value>>)]
    data: Option<Value>,
    #[serde(default)]
    parameters: InputParameters,
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct InputParameters {
    /// Bytes of the tensor after the JSON.
    binary_data_size: Option<usize>,
}

/// An output to tell.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RequestedOutput {
    name: String,
    #[serde(default)]
    parameters: OutputParameters,
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OutputParameters {
    /// Sends its elements as bytes after the JSON.
    binary_data: Option<bool>,
    /// Of Triton's classification extension: 0 is all that makes sense for text.
    #[serde(default)]
    classification: u64,
}

/// How to send the outputs.
struct Form {
    id: Option<String>,
    model: String,
    /// Outputs of which the request says whether to send bytes.
    binary: Vec<(String, bool)>,
    /// The others.
    binary_default: bool,
}

/// Continues texts: tensors in, tensors out, as JSON or as bytes.
#[utoipa::path(
    post,
    path = "/v2/models/{model}/infer",
    operation_id = "kserve_infer",
    tag = "KServe",
    params(("model" = String, Path, description = "The model's name")),
    request_body = InferRequest,
    responses((status = 200, description = "Output tensors", body = Object))
)]
pub(crate) async fn infer(
    State(state): State<AppState>,
    Path(path): Path<ModelPath>,
    Extension(record): Extension<Arc<Record>>,
    request: Request,
) -> Result<Response, ApiError> {
    let json_length = body::json_length(request.headers())?;
    let bytes = body::read(request, &state).await?;
    let prepared =
        state.prepare(move |state, cancel| prepare(state, &path, &bytes, json_length, cancel));
    let (form, generation) = prepared.await?;
    let outputs = generation.begin(&state, record).await?.whole().await?;
    form.respond(outputs)
}

fn prepare(
    state: &ServerState,
    path: &ModelPath,
    bytes: &[u8],
    json_length: Option<usize>,
    cancel: &Cancel,
) -> Result<(Form, Generation), ApiError> {
    let model = generation::model(state, &path.model, &path.version)?;
    let length = json_length.unwrap_or(bytes.len());
    let Some((json, binary)) = bytes.split_at_checked(length) else {
        let got = bytes.len();
        let message = format!("the header {JSON_LENGTH} has {length}, but the body {got} bytes");
        return Err(ApiError::bad_request(message));
    };
    let request: InferRequest = fields::parse(&fields::read_any(json)?)?;
    for (field, given, expected) in [
        ("model_name", &request.model_name, model.name()),
        ("model_version", &request.model_version, VERSION),
    ] {
        if given.as_ref().is_some_and(|given| given != expected) {
            let message = format!("{field} is not {expected:?}, which the path asks; leave it out");
            return Err(ApiError::bad_request(message).param(field));
        }
    }
    let mut given = Fields::default();
    let mut binary_default = false;
    for (name, value) in request.parameters {
        match (&name[..], value) {
            ("binary_data_output", Value::Bool(binary)) => binary_default = binary,
            (_, value) => given.add(&name, value)?,
        }
    }
    let rows =
        request.inputs.iter().any(|input| input.name == "text_input" && input.shape.len() > 1);
    read_inputs(state, request.inputs, binary, &mut given)?;
    let question = given.into_question()?;
    if question.stream == Some(true) {
        let message = "stream is true, but /infer has one response; ask /generate_stream";
        return Err(ApiError::bad_request(message).param("stream"));
    }
    if request.outputs.iter().any(|output| output.parameters.classification > 0) {
        let message = "classification is for class labels; texts have none";
        return Err(ApiError::bad_request(message).param("outputs"));
    }
    let names: Vec<&str> = request.outputs.iter().map(|output| &output.name[..]).collect();
    let generation = Generation::prepare(state, model, question, &names, false, rows, cancel)?;
    let said = |output: RequestedOutput| Some((output.name, output.parameters.binary_data?));
    let binary = request.outputs.into_iter().filter_map(said).collect();
    let form = Form { id: request.id, model: model.name().to_owned(), binary, binary_default };
    Ok((form, generation))
}

/// Reads the inputs; those without data are in the bytes, one after another.
fn read_inputs(
    state: &ServerState,
    inputs: Vec<Input>,
    mut bytes: &[u8],
    given: &mut Fields,
) -> Result<(), ApiError> {
    let mut count = 0;
    for Input { name, shape, datatype, data, parameters } in inputs {
        let datatype = Datatype::parse(&datatype, &name)?;
        let elements = match (data, parameters.binary_data_size) {
            (Some(Value::Object(_)), None) => {
                return Err(bad(&name, "has data that is an object, expected a list of elements"));
            }
            (Some(data), None) => Tensor::elements_of_json(&name, datatype, &data)?,
            (None, Some(size)) => {
                let Some((own, rest)) = bytes.split_at_checked(size) else {
                    let left = bytes.len();
                    let problem =
                        format!("has a binary_data_size of {size}, but {left} bytes left");
                    return Err(bad(&name, problem));
                };
                bytes = rest;
                Tensor::elements_of_bytes(&name, datatype, own, state.body_limits.values)?
            }
            (Some(_), Some(_)) => return Err(bad(&name, "has data twice: as JSON and as bytes")),
            (None, None) => {
                return Err(bad(&name, "has no data; send data, or binary_data_size and bytes"));
            }
        };
        count += elements.len();
        state.body_limits.check_values(count)?;
        given.add_tensor(Tensor::new(&name, &shape, elements)?)?;
    }
    if bytes.is_empty() {
        return Ok(());
    }
    let message = format!("{} bytes of the body belong to no tensor", bytes.len());
    Err(ApiError::bad_request(message))
}

impl Form {
    fn is_binary(&self, output: &str) -> bool {
        let said = self.binary.iter().find(|(name, _)| name == output);
        said.map_or(self.binary_default, |(_, binary)| *binary)
    }

    fn respond(self, outputs: Vec<OutputTensor>) -> Result<Response, ApiError> {
        let mut bytes = Vec::new();
        let mut any_binary = false;
        let said = outputs.iter().map(|OutputTensor { name, shape, elements }| {
            let datatype = elements.datatype().name();
            let mut said = json!({ "name": name, "datatype": datatype, "shape": shape });
            if self.is_binary(name) {
                any_binary = true;
                let own = elements.to_bytes();
                said["parameters"] = json!({ "binary_data_size": own.len() });
                bytes.extend(own);
            } else {
                said["data"] = elements.to_json().into();
            }
            said
        });
        let said: Vec<Value> = said.collect();
        let mut json = json!({ "model_name": self.model, "model_version": VERSION });
        if let Some(id) = self.id {
            json["id"] = id.into();
        }
        json["outputs"] = said.into();
        if !any_binary {
            return Ok(Json(json).into_response());
        }
        let json = json.to_string().into_bytes();
        let length = HeaderValue::from(json.len());
        let mut response = [json, bytes].concat().into_response();
        response.headers_mut().insert(JSON_LENGTH, length);
        Ok(response)
    }
}
