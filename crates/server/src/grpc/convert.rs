//! Between the messages of gRPC and the requests and responses of [`kserve`](crate::kserve).

use bantam_text::Cancel;
use serde_json::{Number, Value};
use tonic::{Code, Status};

use crate::body_limits::BodyLimits;
use crate::error::{ApiError, ErrorKind};
use crate::grpc::inference::infer_parameter::ParameterChoice;
use crate::grpc::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::grpc::inference::model_infer_response::InferOutputTensor;
use crate::grpc::inference::{
    DataType, InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
};
use crate::kserve::VERSION;
use crate::kserve::generation::{self, Generation};
use crate::kserve::outputs::OutputTensor;
use crate::kserve::question::Fields;
use crate::kserve::tensor::{Datatype, Tensor, bad, text_element};
use crate::state::ServerState;

/// What every response to a request says.
#[derive(Clone)]
pub(super) struct Head {
    id: String,
    model: String,
}

/// Inputs, outputs or parameters of a request at most: there are not so many names.
const MAX_PARTS: usize = 256;

/// Refuses a message that became much larger when it was read than the bytes it came in, so that it
/// does not wait for its turn in memory.
pub(super) fn check_size(request: &ModelInferRequest, limits: &BodyLimits) -> Result<(), ApiError> {
    let ModelInferRequest { inputs, outputs, parameters, raw_input_contents, .. } = request;
    let of_inputs: usize = inputs.iter().map(|input| input.parameters.len()).sum();
    let of_outputs: usize = outputs.iter().map(|output| output.parameters.len()).sum();
    for (what, count) in [
        ("inputs", inputs.len()),
        ("outputs", outputs.len()),
        ("parameters", parameters.len() + of_inputs + of_outputs),
        ("raw_input_contents", raw_input_contents.len()),
    ] {
        if count > MAX_PARTS {
            let message = format!("{count} {what}, expected at most {MAX_PARTS}");
            return Err(ApiError::bad_request(message).param(what));
        }
    }
    let shapes = inputs.iter().map(|input| input.shape.len());
    let contents = inputs.iter().filter_map(|input| input.contents.as_ref()).map(num_elements);
    limits.check_values(shapes.chain(contents).sum())
}

fn num_elements(contents: &InferTensorContents) -> usize {
    let InferTensorContents {
        bool_contents,
        int_contents,
        int64_contents,
        uint_contents,
        uint64_contents,
        fp32_contents,
        fp64_contents,
        bytes_contents,
    } = contents;
    [
        bool_contents.len(),
        int_contents.len(),
        int64_contents.len(),
        uint_contents.len(),
        uint64_contents.len(),
        fp32_contents.len(),
        fp64_contents.len(),
        bytes_contents.len(),
    ]
    .iter()
    .sum()
}

/// Checks a request; whether to stream comes along.
pub(super) fn prepare(
    state: &ServerState,
    request: ModelInferRequest,
    can_stream: bool,
    cancel: &Cancel,
) -> Result<(Head, Generation, bool), ApiError> {
    let model = generation::model(state, &request.model_name, &request.model_version)?;
    let mut given = Fields::default();
    for (name, value) in request.parameters {
        given.add(&name, parameter(&name, value)?)?;
    }
    let rows =
        request.inputs.iter().any(|input| input.name == "text_input" && input.shape.len() > 1);
    read_inputs(state, request.inputs, &request.raw_input_contents, &mut given)?;
    let names: Vec<&str> = request.outputs.iter().map(output_name).collect::<Result<_, _>>()?;
    let question = given.into_question()?;
    let stream = question.stream.unwrap_or(false);
    if stream && !can_stream {
        let message = "stream is true, but ModelInfer has one response; call ModelStreamInfer";
        return Err(ApiError::bad_request(message).param("stream"));
    }
    let generation = Generation::prepare(state, model, question, &names, stream, rows, cancel)?;
    Ok((Head { id: request.id, model: model.name().to_owned() }, generation, stream))
}

fn parameter(name: &str, parameter: InferParameter) -> Result<Value, ApiError> {
    let value = parameter.parameter_choice.and_then(|choice| {
        Some(match choice {
            ParameterChoice::BoolParam(flag) => flag.into(),
            ParameterChoice::Int64Param(number) => number.into(),
            ParameterChoice::StringParam(text) => text.into(),
            ParameterChoice::DoubleParam(number) => Number::from_f64(number)?.into(),
            ParameterChoice::Uint64Param(number) => number.into(),
        })
    });
    value.ok_or_else(|| {
        let name: String = name.chars().take(64).collect();
        ApiError::bad_request(format!("the parameter {name} has no value")).param(name)
    })
}

fn output_name(output: &InferRequestedOutputTensor) -> Result<&str, ApiError> {
    match output.parameters.keys().next() {
        Some(_) => Err(bad(&output.name, "has parameters; outputs have none here")),
        None => Ok(&output.name),
    }
}

fn read_inputs(
    state: &ServerState,
    inputs: Vec<InferInputTensor>,
    raw: &[Vec<u8>],
    given: &mut Fields,
) -> Result<(), ApiError> {
    if !raw.is_empty() && raw.len() != inputs.len() {
        let (got, expected) = (raw.len(), inputs.len());
        let message = format!(
            "raw_input_contents has {got} entries, expected one for each of {expected} inputs"
        );
        return Err(ApiError::bad_request(message).param("raw_input_contents"));
    }
    for (index, input) in inputs.into_iter().enumerate() {
        let InferInputTensor { name, datatype, shape, parameters, contents } = input;
        if !parameters.is_empty() {
            return Err(bad(&name, "has parameters; send its elements, shared memory is not read"));
        }
        let datatype = Datatype::parse(&datatype, &name)?;
        let elements = match (contents, raw.get(index)) {
            (None, Some(bytes)) => {
                Tensor::elements_of_bytes(&name, datatype, bytes, state.body_limits.values)?
            }
            (Some(contents), None) => elements(&name, datatype, contents)?,
            (Some(_), Some(_)) => {
                return Err(bad(&name, "has contents beside raw_input_contents; send one of them"));
            }
            (None, None) => return Err(bad(&name, "has no contents")),
        };
        given.add_tensor(Tensor::new(&name, &shape, elements)?)?;
    }
    Ok(())
}

/// The elements in the list for their type.
fn elements(
    name: &str,
    datatype: Datatype,
    contents: InferTensorContents,
) -> Result<Vec<Value>, ApiError> {
    fn values<T: Into<Value>>(list: Vec<T>) -> Result<Vec<Value>, ApiError> {
        Ok(list.into_iter().map(Into::into).collect())
    }
    let number = |number: f64| {
        let number = Number::from_f64(number).map(Value::from);
        number.ok_or_else(|| bad(name, "has an element that is not a number"))
    };
    match datatype {
        Datatype::Bool => values(contents.bool_contents),
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => values(contents.int_contents),
        Datatype::Int64 => values(contents.int64_contents),
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => values(contents.uint_contents),
        Datatype::Uint64 => values(contents.uint64_contents),
        Datatype::Fp32 => contents.fp32_contents.into_iter().map(|x| number(x.into())).collect(),
        Datatype::Fp64 => contents.fp64_contents.into_iter().map(number).collect(),
        Datatype::Bytes => {
            contents.bytes_contents.iter().map(|text| text_element(name, text)).collect()
        }
    }
}

/// A response; `is_last` of a stream.
pub(super) fn response(
    head: &Head,
    outputs: Vec<OutputTensor>,
    is_last: Option<bool>,
) -> ModelInferResponse {
    let mut response = ModelInferResponse {
        model_name: head.model.clone(),
        model_version: VERSION.to_owned(),
        id: head.id.clone(),
        ..ModelInferResponse::default()
    };
    if let Some(is_last) = is_last {
        let choice = Some(ParameterChoice::BoolParam(is_last));
        let parameter = InferParameter { parameter_choice: choice };
        response.parameters.insert("triton_final_response".to_owned(), parameter);
    }
    for OutputTensor { name, shape, elements } in outputs {
        response.raw_output_contents.push(elements.to_bytes());
        response.outputs.push(InferOutputTensor {
            name: name.to_owned(),
            datatype: elements.datatype().name().to_owned(),
            // Sizes are those of vectors.
            shape: shape.into_iter().map(|size| size as i64).collect(),
            ..InferOutputTensor::default()
        });
    }
    response
}

/// An error as gRPC says it.
pub(super) fn status(error: &ApiError) -> Status {
    let code = match error.kind {
        ErrorKind::BadRequest | ErrorKind::UnsupportedMediaType => Code::InvalidArgument,
        ErrorKind::Unauthorized => Code::Unauthenticated,
        ErrorKind::Forbidden => Code::PermissionDenied,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::MethodNotAllowed => Code::Unimplemented,
        ErrorKind::Timeout => Code::DeadlineExceeded,
        ErrorKind::TooLarge | ErrorKind::Overloaded => Code::ResourceExhausted,
        ErrorKind::Unprocessable => Code::FailedPrecondition,
        ErrorKind::Internal => Code::Internal,
        ErrorKind::Unavailable => Code::Unavailable,
    };
    Status::new(code, &error.message)
}

/// A type in the configuration of a model.
pub(super) fn config_type(datatype: Datatype) -> i32 {
    DataType::from_str_name(&datatype.config_name()).unwrap_or_default().into()
}
