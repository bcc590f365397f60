//! The KServe v2 protocol (Open Inference Protocol) with Triton's extensions.
//!
//! A language model is served under the tensor names of Triton's vLLM and TensorRT-LLM back ends:
//! `text_input` goes in, `text_output` comes out, everything else is optional ([`fields`]).
//!
//! | file | what it decides |
//! |---|---|
//! | `tensor` | elements and shapes, as JSON and as bytes |
//! | `fields` | the names of all inputs and parameters, and what each means |
//! | `described` | the same fields in the description of the API |
//! | `outputs` | the output tensors |
//! | `question` | the fields of a request, in whatever way they came |
//! | `generation` | from a question to its answers |
//! | `infer`, `generate` | the two forms of requests over HTTP |
//! | `metadata`, `stats` | what is told about server and models |

pub(crate) mod described;
pub(crate) mod fields;
pub(crate) mod generate;
pub(crate) mod generation;
pub(crate) mod infer;
pub(crate) mod metadata;
pub(crate) mod outputs;
pub(crate) mod question;
pub(crate) mod stats;
pub(crate) mod tensor;

use axum::Router;
use axum::routing::{MethodRouter, get, post};

use crate::error::ApiError;
use crate::request::sse;
use crate::state::AppState;

/// How streams of Triton's generate extension end.
pub(crate) const STREAM_ENDS: sse::Ends = sse::Ends { well: None, badly: ApiError::kserve };

/// The version that every model has: a server that loads a model once has one of it.
pub(crate) const VERSION: &str = "1";

/// The routes under `/v2`.
pub(crate) fn routes() -> Router<AppState> {
    let of_models: [(&str, MethodRouter<AppState>); 7] = [
        ("", get(metadata::model)),
        ("/ready", get(metadata::model_ready)),
        ("/config", get(metadata::config)),
        ("/stats", get(stats::one)),
        ("/infer", post(infer::infer)),
        ("/generate", post(generate::whole)),
        ("/generate_stream", post(generate::stream)),
    ];
    let mut routes = Router::new()
        .route("/v2", get(metadata::server))
        .route("/v2/health/live", get(metadata::live))
        .route("/v2/health/ready", get(metadata::ready))
        .route("/v2/models/stats", get(stats::all))
        .route("/v2/repository/index", get(metadata::index).post(metadata::index))
        .route("/v2/repository/models/{model}/load", post(metadata::fixed))
        .route("/v2/repository/models/{model}/unload", post(metadata::fixed));
    for (path, methods) in of_models {
        routes = routes
            .route(&format!("/v2/models/{{model}}{path}"), methods.clone())
            .route(&format!("/v2/models/{{model}}/versions/{{version}}{path}"), methods);
    }
    routes
}

/// The model and the version in a path; the latter may be missing.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct ModelPath {
    pub(crate) model: String,
    #[serde(default)]
    pub(crate) version: String,
}
