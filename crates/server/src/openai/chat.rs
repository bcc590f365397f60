//! `/v1/chat/completions`: a conversation goes on.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use bantam_text::Cancel;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::body::JsonBytes;
use crate::error::ApiError;
use crate::openai::chat_answer::{ChatChoice, Chatting};
use crate::openai::field_sets;
use crate::openai::messages::{self, ChatMessage};
use crate::openai::reply::{Kind, Reply, Replying};
use crate::openai::tools::{ToolChoiceField, ToolField};
use crate::openapi::ErrorResponse;
use crate::record::Record;
use crate::request::ask::ask;
use crate::request::asked::Asked;
use crate::request::conversation::TemplateFields;
use crate::request::fields;
use crate::request::sampling::{self, SamplingFields};
use crate::request::tools::ToolUse;
use crate::state::{AppState, ServerState};

const KIND: Kind =
    Kind { id: "chatcmpl", whole: "chat.completion", chunk: "chat.completion.chunk" };

/// Alternatives of a token at most, as OpenAI has it.
const MAX_TOP_LOGPROBS: usize = 20;

/// A conversation to continue.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct ChatFields {
    /// The conversation so far: one message or more.
    #[schema(value_type = Vec<ChatMessage>)]
    messages: Value,
    /// Tokens of each answer at most; as many as fit if not set, or -1. More than fit are as many as
    /// fit, and `usage.max_completion_tokens` says how many.
    max_completion_tokens: Option<i64>,
    /// The old name of `max_completion_tokens`.
    max_tokens: Option<i64>,
    /// Tells how probable each token was.
    logprobs: Option<bool>,
    /// Alternatives shown for each token, 0 to 20; only with `logprobs`.
    top_logprobs: Option<usize>,
    /// Functions that the model may call.
    tools: Option<Vec<ToolField>>,
    /// `auto` (the model decides), `none`, `required`, a function by its name, or some by theirs;
    /// `auto` if not set.
    tool_choice: Option<ToolChoiceField>,
    /// Several calls in one answer; true if not set. If false, calls after the first are left out.
    parallel_tool_calls: Option<bool>,
}

/// All fields of a request.
#[derive(ToSchema)]
pub(crate) struct ChatRequest {
    #[serde(flatten)]
    own: ChatFields,
    #[serde(flatten)]
    template: TemplateFields,
    #[serde(flatten)]
    shared: SamplingFields,
}

/// A request that is checked and tokenized.
struct Prepared {
    model: String,
    asked: Asked,
    /// The name that the request has for `max_tokens`.
    max_tokens_field: &'static str,
    prompt: Vec<u32>,
    tools: ToolUse,
}

/// Continues a conversation.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    operation_id = "create_chat_completion",
    tag = "OpenAI",
    request_body = ChatRequest,
    responses(
        (status = 200, description = "The answers; with `stream`, server-sent events of `Reply_ChatDelta`s, then `[DONE]`", body = Reply<ChatChoice>),
        (status = "default", description = "Why not", body = ErrorResponse)
    )
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    Extension(record): Extension<Arc<Record>>,
    JsonBytes(bytes): JsonBytes,
) -> Result<Response, ApiError> {
    let prepared = state
        .prepare(move |state, cancel| ChatRequest::read(&bytes)?.prepare(state, cancel))
        .await?;
    let Prepared { model, asked, max_tokens_field, prompt, tools } = prepared;
    let model = state.model(&model)?;
    let choices = (0..asked.n).map(|index| Chatting::new(index, model, &asked, &prompt, &tools));
    let choices = choices.collect();
    let told = asked.token_ids.then(|| prompt.clone());
    let asking = ask(model, &asked, vec![prompt], &record).await;
    let (answers, usage) = asking.map_err(|error| {
        let error = error.renamed("max_tokens", max_tokens_field);
        if error.is_about_the_prompt() { error.or_param("messages") } else { error }
    })?;
    let replying = Replying::new(KIND, model.name(), choices, answers, asked.n, usage, record);
    replying.telling(told).send(&asked).await
}

impl ChatRequest {
    fn read(bytes: &[u8]) -> Result<Self, ApiError> {
        let body = fields::read(bytes, &field_sets::CHAT)?;
        let (own, template) = (fields::parse(&body)?, fields::parse(&body)?);
        Ok(Self { own, template, shared: fields::parse(&body)? })
    }

    fn prepare(self, state: &ServerState, cancel: &Cancel) -> Result<Prepared, ApiError> {
        let Self { own, template, shared } = self;
        let model = state.model_or_only(shared.model.as_deref())?;
        let messages = messages::read(&own.messages)?;
        let (max_tokens, max_tokens_field) = own.max_tokens()?;
        let logprobs = own.num_logprobs()?;
        let parallel = own.parallel_tool_calls.unwrap_or(true);
        let offered = own.tools.into_iter().flatten().map(ToolField::offered).collect();
        let rule = own.tool_choice.map(ToolChoiceField::rule);
        let tools = ToolUse::new(offered, rule, parallel, model.tool_format())?;
        let mut asked = shared.asked(state, model, tools.grammar.clone(), cancel)?;
        asked.request.max_tokens = sampling::longest(max_tokens, max_tokens_field)?;
        asked.request.logprobs = logprobs;
        if let Some(format) = &tools.format {
            asked.options.shown = format.special_tokens();
        }
        if logprobs.is_some() && asked.beam_search.is_some() {
            let message = "logprobs does not work with use_beam_search; leave out one";
            return Err(ApiError::bad_request(message).param("logprobs"));
        }
        let bound = asked.prompt_bound(model);
        let prompt = template.encode_within(model, &messages, &tools.tools, false, bound, cancel);
        let prompt = prompt.map_err(|error| error.or_param("messages"))?;
        let prompt = asked.truncated(prompt, model.engine().limits());
        let model = model.name().to_owned();
        Ok(Prepared { model, asked, max_tokens_field, prompt, tools })
    }
}

impl ChatFields {
    /// Tokens of each answer at most, and the field that says so.
    fn max_tokens(&self) -> Result<(Option<i64>, &'static str), ApiError> {
        match (self.max_completion_tokens, self.max_tokens) {
            (Some(new), Some(old)) if new != old => {
                let message = format!(
                    "max_completion_tokens is {new} and max_tokens, its old name, {old}; leave out \
                     one"
                );
                Err(ApiError::bad_request(message).param("max_tokens"))
            }
            (None, old) => Ok((old, "max_tokens")),
            (new, _) => Ok((new, "max_completion_tokens")),
        }
    }

    fn num_logprobs(&self) -> Result<Option<usize>, ApiError> {
        check_top_logprobs(self.top_logprobs.unwrap_or(0))?;
        match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (false, Some(1..)) => {
                let message = "top_logprobs is set without logprobs; set logprobs to true";
                Err(ApiError::bad_request(message).param("top_logprobs"))
            }
            (false, _) => Ok(None),
            (true, top) => Ok(Some(top.unwrap_or(0))),
        }
    }
}

/// Refuses more alternatives than are shown.
pub(crate) fn check_top_logprobs(top: usize) -> Result<(), ApiError> {
    if top > MAX_TOP_LOGPROBS {
        let message = format!("top_logprobs is {top}, expected at most {MAX_TOP_LOGPROBS}");
        return Err(ApiError::bad_request(message).param("top_logprobs"));
    }
    Ok(())
}
