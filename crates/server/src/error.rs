//! Every way in which the server refuses, and how each protocol says it.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bantam_checkpoint::printable;
use bantam_engine::{EngineError, RequestFailure, SamplingError, SubmitError};
use bantam_text::TextError;
use serde_json::{Value, json};

/// Bytes of a message at most: it goes into the response and the log.
const MAX_MESSAGE: usize = 2000;

/// What is wrong, by whose fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request cannot be honoured as it is: 400.
    BadRequest,
    /// No key, or a wrong one: 401.
    Unauthorized,
    /// The request was sent to a foreign name, or by a web page that was not let in: 403.
    Forbidden,
    /// No such path or model: 404.
    NotFound,
    /// The path does not have this method: 405.
    MethodNotAllowed,
    /// The request did not arrive, or was not answered, in its time: 408.
    Timeout,
    /// The body is too large: 413.
    TooLarge,
    /// The body is not JSON by its content type, or is compressed: 415.
    UnsupportedMediaType,
    /// The request is well formed, but this model can do nothing with it: 422.
    Unprocessable,
    /// Too many requests: 429.
    Overloaded,
    /// The server's fault: 500.
    Internal,
    /// The server stops, or the model is dead: 503.
    Unavailable,
}

impl ErrorKind {
    /// All kinds, by status.
    pub(crate) const ALL: [Self; 12] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Timeout,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::Unprocessable,
        Self::Overloaded,
        Self::Internal,
        Self::Unavailable,
    ];

    /// When it happens, for the descriptions of the API.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::BadRequest => "the request cannot be honoured as it is; `param` names the field",
            Self::Unauthorized => "no API key, or a wrong one",
            Self::Forbidden => {
                "a server without keys was asked by a foreign name, or by a web page that was not let \
                 in"
            }
            Self::NotFound => "no such path or model",
            Self::MethodNotAllowed => "the path does not have this method",
            Self::Timeout => "the body did not arrive in time, or the `timeout` passed",
            Self::TooLarge => "the body is larger than the server allows, or would become so",
            Self::UnsupportedMediaType => {
                "the body is not JSON by its content type, or is compressed"
            }
            Self::Unprocessable => "this model, or its chat template, cannot do it",
            Self::Overloaded => "too many requests; `Retry-After` says when to come again",
            Self::Internal => "a step of the model failed, or the server has a fault",
            Self::Unavailable => {
                "the server stops, or the model is dead; `Retry-After` says when to \
                 come again"
            }
        }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// `error.type` of the OpenAI API.
    pub(crate) const fn openai_type(self) -> &'static str {
        match self {
            Self::Unauthorized => "authentication_error",
            Self::Forbidden => "permission_error",
            Self::Overloaded => "rate_limit_error",
            Self::Timeout => "timeout_error",
            Self::Internal | Self::Unavailable => "server_error",
            _ => "invalid_request_error",
        }
    }
}

/// Why a request is not answered.
///
/// As a response it is an OpenAI error; under `/v2` the middleware says it as KServe does.
///
/// ```
/// use bantam_server::ApiError;
/// let error = ApiError::bad_request("n is 0, expected 1 or more").param("n");
/// assert_eq!(error.openai()["error"]["param"], "n");
/// assert_eq!(error.kserve()["error"], "n is 0, expected 1 or more");
/// let quoting = ApiError::bad_request("unknown field a\nb");
/// assert_eq!(quoting.to_string(), r"unknown field a\nb");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind of error.
    pub kind: ErrorKind,
    /// What is wrong, and what would work: one line.
    pub message: String,
    /// The field at fault.
    pub param: Option<String>,
    /// A name for programs.
    pub code: Option<&'static str>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// An error that says only what it is, in one line: a message may quote what came from outside,
    /// so control characters are escaped, and a long one is cut.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let mut message = printable(message.into()).to_string();
        if message.len() > MAX_MESSAGE {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE));
            message.push('…');
        }
        Self { kind, message, param: None, code: None, retry_after: None }
    }

    /// The request cannot be honoured as it is.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadRequest, message)
    }

    /// Names the field at fault.
    #[must_use]
    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Calls the field `from`, if it is the one at fault, by the name that the request has for it.
    pub(crate) fn renamed(mut self, from: &str, to: &str) -> Self {
        if self.param.as_deref() == Some(from) {
            self.message = self.message.replacen(from, to, 1);
            self.param = Some(to.to_owned());
        }
        self
    }

    /// A prompt is longer than a context of so many tokens. Client libraries shorten conversations
    /// when they find these words.
    pub(crate) fn context_exceeded(context: usize, problem: &str) -> Self {
        let message =
            format!("This model's maximum context length is {context} tokens. However, {problem}");
        Self::bad_request(message).code("context_length_exceeded")
    }

    /// Whether the prompt is at fault: its length or its tokens.
    pub(crate) fn is_about_the_prompt(&self) -> bool {
        matches!(self.code, Some("context_length_exceeded" | "invalid_prompt"))
    }

    /// Names the field at fault, unless it is known already.
    pub(crate) fn or_param(self, param: &str) -> Self {
        if self.param.is_some() { self } else { self.param(param) }
    }

    /// Says where in a body the object stands that the error is about.
    pub(crate) fn within(mut self, place: &str) -> Self {
        self.message = format!("{place}: {}", self.message);
        self.param = Some(match &self.param {
            Some(field) => format!("{place}.{field}"),
            None => place.to_owned(),
        });
        self
    }

    /// Says `to` for `from` in the path of the field at fault.
    pub(crate) fn moved(mut self, from: &str, to: &str) -> Self {
        if let Some(param) = &mut self.param
            && param.contains(from)
        {
            let moved = param.replacen(from, to, 1);
            self.message = self.message.replacen(param.as_str(), &moved, 1);
            *param = moved;
        }
        self
    }

    /// Adds a name for programs.
    #[must_use]
    pub const fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// Says when to try again.
    #[must_use]
    pub const fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The body of an OpenAI error: `{"error": {"message", "type", "param", "code"}}`.
    #[must_use]
    pub fn openai(&self) -> Value {
        let Self { kind, message, param, code, .. } = self;
        json!({
            "error": { "message": message, "type": kind.openai_type(), "param": param, "code": code }
        })
    }

    /// The body of a KServe error: `{"error": message}`.
    #[must_use]
    pub fn kserve(&self) -> Value {
        json!({ "error": self.message })
    }

    /// The response with this body.
    pub(crate) fn respond(&self, body: Value) -> Response {
        let mut response = (self.kind.status(), Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        match self.kind {
            ErrorKind::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            ErrorKind::UnsupportedMediaType => {
                headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            }
            _ => {}
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.respond(self.openai());
        // For the log, and for protocols that say it otherwise.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let error = in_terms_of_requests(error);
        let refused = Self::bad_request(error.to_string());
        match error {
            EngineError::PromptTooLong { context, .. }
            | EngineError::PromptBeyondContext { context, .. } => {
                Self::context_exceeded(context, &refused.message)
            }
            EngineError::CacheTooSmall { num_blocks, block_tokens, .. } => {
                Self::context_exceeded(num_blocks * block_tokens, &refused.message)
            }
            EngineError::EmptyPrompt | EngineError::UnknownToken { .. } => {
                refused.code("invalid_prompt")
            }
            EngineError::MaxTokens { .. } => refused.param("max_tokens"),
            EngineError::MinTokens { .. } => refused.param("min_tokens"),
            EngineError::ConstrainedWithoutEnd => refused.param("ignore_eos"),
            EngineError::Logprobs { field, .. }
            | EngineError::Alternatives { field, .. }
            | EngineError::TooMany { field, .. } => refused.param(field),
            EngineError::UnknownTokenIn { field, .. } => refused.param(field),
            EngineError::Sampling(SamplingError::Parameter { name, .. }) => refused.param(name),
            EngineError::Sampling(SamplingError::TooManyBadWords { .. }) => {
                refused.param("bad_words")
            }
            EngineError::BadLimits { .. }
            | EngineError::Slowdown { .. }
            | EngineError::Model(_)
            | EngineError::Batch(_) => Self::new(ErrorKind::Internal, refused.message),
            EngineError::Sampling(_) => refused,
        }
    }
}

/// The error with the name that requests have for its field.
fn in_terms_of_requests(error: EngineError) -> EngineError {
    match error {
        EngineError::UnknownTokenIn { field: "stop_tokens", token, vocab_size } => {
            EngineError::UnknownTokenIn { field: "stop_token_ids", token, vocab_size }
        }
        EngineError::TooMany { field: "stop_tokens", got, most } => {
            EngineError::TooMany { field: "stop_token_ids", got, most }
        }
        other => other,
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::Refused(refused) => refused.into(),
            SubmitError::TooMany { .. } => Self::bad_request(message).param("n"),
            SubmitError::Full { retry_after, .. } => Self::new(ErrorKind::Overloaded, message)
                .code("queue_full")
                .retry_after(retry_after),
            SubmitError::Stopping | SubmitError::Dead { .. } => {
                Self::new(ErrorKind::Unavailable, message).retry_after(Duration::from_secs(1))
            }
        }
    }
}

impl From<RequestFailure> for ApiError {
    fn from(failure: RequestFailure) -> Self {
        let kind = match &failure {
            RequestFailure::Deadline { .. } => ErrorKind::Timeout,
            RequestFailure::Sampling(SamplingError::NoCandidate { .. })
            | RequestFailure::Constraint(_) => ErrorKind::BadRequest,
            RequestFailure::Step { .. }
            | RequestFailure::Sampling(_)
            | RequestFailure::Panicked { .. } => ErrorKind::Internal,
            RequestFailure::Stopped | RequestFailure::EngineDead { .. } => ErrorKind::Unavailable,
        };
        Self::new(kind, failure.to_string())
    }
}

impl From<TextError> for ApiError {
    fn from(error: TextError) -> Self {
        if let TextError::TooManyTokens { at_least, limit } = error {
            let problem = format!("the prompt has at least {at_least}; shorten it");
            return Self::context_exceeded(limit, &problem);
        }
        let kind = match &error {
            TextError::ChatTemplateFailed { .. } | TextError::InvalidGrammarVocabulary { .. } => {
                ErrorKind::Unprocessable
            }
            TextError::Encode { .. }
            | TextError::ChatTemplateRefused { .. }
            | TextError::ChatTemplateArgument { .. }
            | TextError::InvalidGrammar { .. }
            | TextError::GrammarWalk { .. }
            | TextError::InvalidTools { .. } => ErrorKind::BadRequest,
            TextError::Cancelled => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        };
        let param = match &error {
            TextError::ChatTemplateFailed { .. } | TextError::ChatTemplateRefused { .. } => {
                Some("messages")
            }
            TextError::ChatTemplateArgument { .. } => Some("chat_template_kwargs"),
            _ => None,
        };
        Self { param: param.map(str::to_owned), ..Self::new(kind, error.to_string()) }
    }
}
