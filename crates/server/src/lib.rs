//! Serves engines over HTTP.
//!
//! The server knows a model by its [`EngineHandle`](bantam_engine::EngineHandle) and its tokenizer
//! ([`ServedModel`]), whatever runs it.
//!
//! # The life of a request
//! 1. the middleware gives it a name, checks its key, and takes a place for it;
//! 2. a handler reads its body and has it prepared off the threads that serve connections
//!    ([`ServerState::prepare`]): every field is checked, the prompt rendered and tokenized;
//! 3. [`ServedModel::ask`] submits it to the engine, which may refuse;
//! 4. an [`Answer`] turns the engine's events into [`Part`]s: text, tokens, the end. A stream sends
//!    them as they come, any other response collects them;
//! 5. when the client goes away the answer is dropped, and the engine gives its blocks back;
//! 6. the last owner of its [`Record`] counts and logs it.
//!
//! # Where to look
//! | file | what it decides |
//! |---|---|
//! | `serve` | listening, stopping |
//! | `connection`, `activity` | how long a connection is waited for, and which is closed for others |
//! | `options`, `state` | what can be chosen, what requests share |
//! | `path` | the paths that clients write for those there are |
//! | `middleware`, `origin`, `auth`, `request_id`, `body`, `body_limits`, `allocator` | what happens around every request |
//! | `preparation` | who prepares, and how many at once |
//! | `record`, `log`, `http_metrics` | what is noted about it |
//! | `served_model`, `answer`, `form` | engine and text, for every protocol |
//! | `error` | all errors, and how each protocol says them |
//! | `request` | what requests of every protocol have in common |
//! | `openai` | the OpenAI API |
//! | `anthropic` | the Messages API of Anthropic |
//! | `kserve` | the KServe v2 protocol |
//! | `grpc` | the same over gRPC, with the feature `grpc` |
//! | `ops`, `metrics` | health, metrics, the description of the API |

mod activity;
mod allocator;
mod answer;
mod anthropic;
mod auth;
mod body;
mod body_limits;
mod connection;
mod error;
mod form;
#[cfg(feature = "grpc")]
pub mod grpc;
mod http_metrics;
mod kserve;
mod log;
mod metrics;
mod middleware;
mod openai;
mod openapi;
mod ops;
mod options;
mod origin;
mod page;
mod path;
mod preparation;
mod record;
#[cfg(test)]
mod reference;
mod request;
mod request_id;
mod serve;
mod served_model;
mod state;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::{from_fn_with_state, map_request_with_state};
use axum::response::{IntoResponse, Response};

pub use answer::{
    Answer, AnswerOptions, AnswerToken, Answers, CompleteAnswer, Ending, Part, StoppedBy, TextPart,
    answers,
};
pub use body::{JsonBytes, read as read_body};
pub use error::{ApiError, ErrorKind};
pub use options::{LogFormat, LogTarget, ServerOptions};
pub use origin::{check_host, check_origin};
pub use record::Record;
pub use serve::{ServeError, Server, Stop, serve};
pub use served_model::ServedModel;
pub use state::{AppState, ServerState};

/// Everything the server answers.
pub fn router(state: AppState) -> Router {
    let routes = Router::new()
        .merge(openai::routes())
        .merge(anthropic::routes())
        .merge(kserve::routes())
        .merge(ops::routes())
        .merge(page::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(state.clone(), middleware::observe))
        .with_state(state.clone());
    // Around the routes, so that it comes before one is chosen.
    Router::new().fallback_service(routes).layer(map_request_with_state(state, path::tidy))
}

async fn not_found(request: Request) -> ApiError {
    let path: String = request.uri().path().chars().take(200).collect();
    let message = format!("there is nothing at {path:?}; /openapi.json lists what there is");
    ApiError::new(ErrorKind::NotFound, message)
}

async fn method_not_allowed(method: Method, request: Request) -> Response {
    if method == Method::OPTIONS {
        // The router adds which methods there are.
        return StatusCode::NO_CONTENT.into_response();
    }
    let (path, other) = (request.uri().path(), if method == Method::POST { "GET" } else { "POST" });
    let message = format!("{path} does not answer to {method}; use {other}");
    ApiError::new(ErrorKind::MethodNotAllowed, message).into_response()
}
