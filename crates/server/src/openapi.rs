//! The description of the API, made from the types that serve it.

use serde::Serialize;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr, ResponseBuilder, Schema};
use utoipa::{Modify, OpenApi, ToSchema, openapi};

use crate::anthropic;
use crate::auth;
use crate::error::ErrorKind;
use crate::kserve::{generate, infer, metadata, stats};
use crate::openai::chat_answer::ChatDelta;
use crate::openai::reply::Reply;
use crate::openai::{chat, completions, models, responses, tokenize};
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

/// The body of a KServe error.
#[derive(Serialize, ToSchema)]
pub(crate) struct KserveError {
    /// What is wrong, and what would work.
    error: String,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Bantam", description = "Language models over HTTP."),
    paths(
        chat::create,
        completions::create,
        responses::create::create,
        responses::create::count,
        responses::kept::show,
        responses::kept::delete,
        responses::kept::input_items,
        anthropic::create::create,
        anthropic::create::count,
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
        ops::ping,
        ops::version,
        ops::prometheus,
        ops::description,
    ),
    components(schemas(ErrorResponse, KserveError, Reply<ChatDelta>)),
    modifiers(&Keys, &Errors, &Streams)
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
        let none = SecurityRequirement::default();
        api.security = Some(vec![none, SecurityRequirement::new("api_key", [""; 0])]);
    }
}

/// The errors of every operation: each kind is a response of its own, in the form of its protocol.
struct Errors;

impl Modify for Errors {
    fn modify(&self, api: &mut openapi::OpenApi) {
        let components = api.components.get_or_insert_default();
        for kind in ErrorKind::ALL {
            for form in [ErrorForm::OpenAi, ErrorForm::Anthropic, ErrorForm::Kserve] {
                let response = ResponseBuilder::new()
                    .description(kind.meaning())
                    .content("application/json", Content::new(Some(form.schema())));
                components.responses.insert(form.name(kind), response.build().into());
            }
        }
        for (path, item) in &mut api.paths.paths {
            let form = ErrorForm::of(path);
            let all = [&mut item.get, &mut item.post, &mut item.delete];
            for operation in all.into_iter().flatten() {
                let has_body = operation.request_body.is_some();
                let kinds =
                    ErrorKind::ALL.into_iter().filter(|kind| happens(*kind, path, has_body));
                let responses = &mut operation.responses.responses;
                responses.remove("default");
                for kind in kinds {
                    let status = kind.status().as_str().to_owned();
                    let error = Ref::from_response_name(form.name(kind));
                    responses.entry(status).or_insert(RefOr::Ref(error));
                }
            }
        }
    }
}

/// Whether an operation can end so.
fn happens(kind: ErrorKind, path: &str, has_body: bool) -> bool {
    match kind {
        ErrorKind::MethodNotAllowed => false,
        ErrorKind::Unauthorized => !auth::is_open(path),
        ErrorKind::NotFound => has_body || path.contains('{'),
        ErrorKind::Forbidden | ErrorKind::Internal | ErrorKind::Unavailable => true,
        // Which items are shown is said in the address.
        ErrorKind::BadRequest => has_body || path.ends_with("/input_items"),
        ErrorKind::Timeout
        | ErrorKind::TooLarge
        | ErrorKind::UnsupportedMediaType
        | ErrorKind::Unprocessable
        | ErrorKind::Overloaded => has_body,
    }
}

/// How a protocol says its errors.
#[derive(Clone, Copy)]
enum ErrorForm {
    OpenAi,
    Anthropic,
    Kserve,
}

impl ErrorForm {
    fn of(path: &str) -> Self {
        if anthropic::is_path(path) {
            Self::Anthropic
        } else if path.starts_with("/v2") {
            Self::Kserve
        } else {
            Self::OpenAi
        }
    }

    fn name(self, kind: ErrorKind) -> String {
        let protocol = match self {
            Self::OpenAi => "OpenAi",
            Self::Anthropic => "Anthropic",
            Self::Kserve => "Kserve",
        };
        format!("{protocol}{kind:?}")
    }

    fn schema(self) -> Ref {
        Ref::from_schema_name(match self {
            Self::OpenAi => ErrorResponse::name(),
            Self::Anthropic => anthropic::error::ErrorResponse::name(),
            Self::Kserve => KserveError::name(),
        })
    }
}

/// What streams send: events whose data are JSON.
struct Streams;

impl Modify for Streams {
    fn modify(&self, api: &mut openapi::OpenApi) {
        let event = |path: &mut openapi::PathItem, schema: Option<RefOr<Schema>>| {
            let responses = &mut path.post.as_mut()?.responses.responses;
            let RefOr::T(response) = responses.get_mut("200")? else { return None };
            let whole = response.content.get("application/json")?.schema.clone();
            let content = Content::new(schema.or(whole));
            response.content.insert("text/event-stream".to_owned(), content)
        };
        let chunk = Ref::from_schema_name("Reply_ChatDelta");
        for (path, schema) in [
            ("/v1/chat/completions", Some(RefOr::Ref(chunk))),
            ("/v1/completions", None),
            ("/v2/models/{model}/generate_stream", None),
        ] {
            api.paths.paths.get_mut(path).and_then(|item| event(item, schema));
        }
    }
}

/// The description of everything the server answers.
pub(crate) fn description() -> openapi::OpenApi {
    Description::openapi()
}
