//! The description of the API, made from the types that serve it.

use serde::Serialize;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema, openapi};

use crate::kserve::{generate, infer, metadata, stats};
use crate::openai::chat::ChatDelta;
use crate::openai::reply::Reply;
use crate::openai::{chat, completions, models, tokenize};
use crate::ops;

/// The body of an OpenAI error.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorResponse {
    error: ErrorBody,
}

#[derive(Serialize, ToSchema)]
struct ErrorBody {
    /// What is wrong, and what would work.
    message: String,
    /// The kind of error, `invalid_request_error` for example.
    r#type: String,
    /// The field at fault.
    param: Option<String>,
    /// A name for programs, `context_length_exceeded` for example.
    code: Option<String>,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Bantam", description = "Language models over HTTP."),
    paths(
        chat::create,
        completions::create,
        models::list,
        models::show,
        models::embeddings,
        tokenize::tokenize,
        tokenize::detokenize,
        metadata::server,
        metadata::live,
        metadata::ready,
        metadata::model,
        metadata::model_ready,
        metadata::config,
        stats::one,
        stats::all,
        metadata::index,
        infer::infer,
        generate::whole,
        generate::stream,
        ops::health,
        ops::live,
        ops::prometheus,
        ops::description,
    ),
    components(schemas(ErrorResponse, Reply<ChatDelta>)),
    modifiers(&Keys)
)]
struct Description;

/// API keys.
struct Keys;

impl Modify for Keys {
    fn modify(&self, api: &mut openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("Only if the server has API keys."))
            .build();
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("api_key", SecurityScheme::Http(bearer));
    }
}

/// The description of everything the server answers.
pub(crate) fn description() -> openapi::OpenApi {
    Description::openapi()
}
