//! `/tokenize` and `/detokenize`, as vLLM has them.

use axum::Json;
use axum::extract::State;
use bantam_text::{Cancel, EncodeBounds, EncodeOptions};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::body::JsonBytes;
use crate::error::ApiError;
use crate::openai::field_sets;
use crate::openai::messages::{self, ChatMessage};
use crate::openai::tools::ToolField;
use crate::openapi::ErrorResponse;
use crate::request::conversation::TemplateFields;
use crate::request::fields;
use crate::request::tools::ToolUse;
use crate::state::{AppState, ServerState};

/// The longest text that `/tokenize` takes: a few seconds' work, more than the longest context in
/// use.
const LONGEST_TEXT_BYTES: usize = 2 << 20;

/// A text, or a conversation.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct TokenizeFields {
    /// The model's name; may be left out where one is served.
    model: Option<String>,
    /// A text; or leave it out and give `messages`.
    prompt: Option<String>,
    /// A conversation, which the model's chat template makes a text.
    #[schema(value_type = Option<Vec<ChatMessage>>)]
    messages: Option<Value>,
    /// Functions that the chat template tells the model about.
    tools: Option<Vec<ToolField>>,
    /// Adds what the tokenizer puts around every text; true for a prompt and false for messages if
    /// not set.
    add_special_tokens: Option<bool>,
    /// Shows the text of each token as well.
    return_token_strs: Option<bool>,
}

/// All fields of a request.
#[derive(ToSchema)]
pub(crate) struct TokenizeRequest {
    #[serde(flatten)]
    own: TokenizeFields,
    #[serde(flatten)]
    template: TemplateFields,
}

/// Its tokens.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TokenizeResponse {
    /// How many they are.
    count: usize,
    /// Tokens of a request at most.
    max_model_len: usize,
    /// Their ids.
    tokens: Vec<u32>,
    /// Their texts, if asked; bytes that are no whole characters are shown as U+FFFD.
    token_strs: Option<Vec<String>>,
}

/// Tokens.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct DetokenizeRequest {
    /// The model's name; may be left out where one is served.
    model: Option<String>,
    /// Ids of tokens.
    tokens: Vec<u32>,
}

/// Their text.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct DetokenizeResponse {
    /// The text, special tokens included.
    prompt: String,
}

/// Text to tokens.
#[utoipa::path(
    post,
    path = "/tokenize",
    operation_id = "tokenize",
    tag = "Tokens",
    request_body = TokenizeRequest,
    responses(
        (status = 200, description = "The tokens", body = TokenizeResponse),
        (status = "default", description = "Why not", body = ErrorResponse)
    )
)]
pub(crate) async fn tokenize(
    State(state): State<AppState>,
    JsonBytes(bytes): JsonBytes,
) -> Result<Json<TokenizeResponse>, ApiError> {
    state
        .prepare(move |state, cancel| TokenizeRequest::read(&bytes)?.answer(state, cancel))
        .await
        .map(Json)
}

/// Tokens to text.
#[utoipa::path(
    post,
    path = "/detokenize",
    operation_id = "detokenize",
    tag = "Tokens",
    request_body = DetokenizeRequest,
    responses(
        (status = 200, description = "The text", body = DetokenizeResponse),
        (status = "default", description = "Why not", body = ErrorResponse)
    )
)]
pub(crate) async fn detokenize(
    State(state): State<AppState>,
    JsonBytes(bytes): JsonBytes,
) -> Result<Json<DetokenizeResponse>, ApiError> {
    let prepared = state.prepare(move |state, _| {
        let body = fields::read(&bytes, &field_sets::DETOKENIZE)?;
        let DetokenizeRequest { model, tokens } = fields::parse(&body)?;
        let prompt = state.model_or_only(model.as_deref())?.tokenizer().decode(&tokens, false);
        Ok(DetokenizeResponse { prompt })
    });
    prepared.await.map(Json)
}

impl TokenizeRequest {
    fn read(bytes: &[u8]) -> Result<Self, ApiError> {
        let body = fields::read(bytes, &field_sets::TOKENIZE)?;
        Ok(Self { own: fields::parse(&body)?, template: fields::parse(&body)? })
    }

    fn answer(self, state: &ServerState, cancel: &Cancel) -> Result<TokenizeResponse, ApiError> {
        let Self { own, template } = self;
        let model = state.model_or_only(own.model.as_deref())?;
        let tokenizer = model.tokenizer();
        let tokens = match (own.prompt, own.messages) {
            (Some(prompt), None) => {
                let add_special = own.add_special_tokens.unwrap_or(true);
                if prompt.len() > LONGEST_TEXT_BYTES {
                    let message = format!(
                        "prompt has {} bytes, expected at most {LONGEST_TEXT_BYTES}; send it in parts",
                        prompt.len()
                    );
                    return Err(ApiError::bad_request(message).param("prompt"));
                }
                // Longer than the context is allowed here: to know by how much is a reason to ask.
                let bounds = EncodeBounds { max_tokens: usize::MAX, cancel };
                let options = EncodeOptions { add_special, parse_special: true };
                tokenizer.encode_within(&prompt, options, bounds)?
            }
            (None, Some(messages)) => {
                let messages = messages::read(&messages)?;
                let offered = own.tools.into_iter().flatten().map(ToolField::offered).collect();
                let tools = ToolUse::new(offered, None, true, model.tool_format())?;
                let add_special = own.add_special_tokens.unwrap_or(false);
                template.encode(model, &messages, &tools.tools, add_special, cancel)?
            }
            _ => {
                let message = "expected one of prompt and messages";
                return Err(ApiError::bad_request(message).param("prompt"));
            }
        };
        let text = |&token: &u32| {
            let bytes = tokenizer.token_bytes(token).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let shown = own.return_token_strs.unwrap_or(false);
        Ok(TokenizeResponse {
            count: tokens.len(),
            max_model_len: model.context(),
            token_strs: shown.then(|| tokens.iter().map(text).collect()),
            tokens,
        })
    }
}
