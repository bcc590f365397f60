//! From a request to its message, or to the number of tokens that it reads.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};
use bantam_text::{Cancel, GrammarSpec, Message as Turn};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::ServedModel;
use crate::anthropic::conversation;
use crate::anthropic::error::ErrorResponse;
use crate::anthropic::events::Event;
use crate::anthropic::fields::{
    self, AnswerFields, CountTokens, CreateMessage, OutputFormat, PromptFields, Thinking,
};
use crate::anthropic::kinds::KINDS;
use crate::anthropic::message::Message;
use crate::anthropic::narrator::MessageNarrator;
use crate::anthropic::tools::{ToolChoice, ToolParam};
use crate::body::JsonBytes;
use crate::error::ApiError;
use crate::record::Record;
use crate::request;
use crate::request::ask::ask;
use crate::request::asked::Asked;
use crate::request::conversation::TemplateFields;
use crate::request::narration::Narration;
use crate::request::sampling::{OneOrMore, SamplingFields, longest};
use crate::request::speech::Speech;
use crate::request::tools::ToolUse;
use crate::state::{AppState, ServerState};

/// A request that is checked and tokenized.
struct Prepared {
    model: String,
    asked: Asked,
    max_tokens: Option<usize>,
    prompt: Vec<u32>,
    tools: ToolUse,
}

/// Answers a conversation.
#[utoipa::path(
    post,
    path = "/v1/messages",
    operation_id = "create_message",
    tag = "Anthropic",
    request_body = CreateMessage,
    responses(
        (status = 200, content(
            (Message = "application/json"),
            (Event = "text/event-stream"),
        ), description = "The message; with `stream`, its events"),
        (status = "default", description = "Why not", body = ErrorResponse)
    )
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    Extension(record): Extension<Arc<Record>>,
    JsonBytes(bytes): JsonBytes,
) -> Result<Response, ApiError> {
    let prepared = state
        .prepare(move |state, cancel| {
            let body = request::kinds::read(&bytes, &KINDS, &fields::CREATE)?;
            prepare(state, request::fields::parse(&body)?, request::fields::parse(&body)?, cancel)
        })
        .await?;
    let Prepared { model, asked, max_tokens, prompt, tools } = prepared;
    let model = state.model(&model)?;
    let narrator = MessageNarrator::new(model.name(), prompt.len(), max_tokens);
    let asking = ask(model, &asked, vec![prompt], &record).await;
    let (answers, usage) = asking.map_err(in_terms_of_messages)?;
    Narration::new(narrator, Speech::new(&tools), answers, usage, record).send(asked.stream).await
}

/// How many tokens a request reads.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenCount {
    input_tokens: usize,
}

/// Counts the tokens that a message would read.
#[utoipa::path(
    post,
    path = "/v1/messages/count_tokens",
    operation_id = "count_message_tokens",
    tag = "Anthropic",
    request_body = CountTokens,
    responses(
        (status = 200, description = "The number", body = TokenCount),
        (status = "default", description = "Why not", body = ErrorResponse)
    )
)]
pub(crate) async fn count(
    State(state): State<AppState>,
    JsonBytes(bytes): JsonBytes,
) -> Result<Json<TokenCount>, ApiError> {
    let counting = state.prepare(move |state, cancel| {
        let body = request::kinds::read(&bytes, &KINDS, &fields::COUNT)?;
        let fields: PromptFields = request::fields::parse(&body)?;
        let model = state.model_or_only(fields.model.as_deref())?;
        let tools = fields.tool_use(model)?;
        let (template, messages) = fields.conversation()?;
        template.count(model, &messages, &tools.tools, cancel)
    });
    Ok(Json(TokenCount { input_tokens: counting.await? }))
}

fn prepare(
    state: &ServerState,
    prompt: PromptFields,
    answer: AnswerFields,
    cancel: &Cancel,
) -> Result<Prepared, ApiError> {
    let model = state.model_or_only(prompt.model.as_deref())?;
    let max_tokens = longest(Some(answer.max_tokens), "max_tokens")?;
    let tools = prompt.tool_use(model)?;
    let form = prompt.form();
    let grammar = tools.beside(form)?;
    let sampling = answer.sampling();
    let asked = sampling.asked(state, model, grammar, cancel);
    let mut asked = asked.map_err(in_terms_of_messages)?;
    asked.request.max_tokens = max_tokens;
    if let Some(format) = &tools.format {
        asked.options.shown = format.special_tokens();
    }
    let (template, messages) = prompt.conversation()?;
    let tokens = template.encode(model, &messages, &tools.tools, false, cancel)?;
    Ok(Prepared { model: model.name().to_owned(), asked, max_tokens, prompt: tokens, tools })
}

/// The error with the name that messages have for its field.
fn in_terms_of_messages(error: ApiError) -> ApiError {
    error.renamed("stop", "stop_sequences")
}

impl PromptFields {
    fn tool_use(&self, model: &ServedModel) -> Result<ToolUse, ApiError> {
        let offered = self.tools.clone().into_iter().flatten().map(ToolParam::offered).collect();
        let (rule, parallel) = self.tool_choice.clone().map(ToolChoice::rule).unzip();
        ToolUse::new(offered, rule, parallel.unwrap_or(true), model.tool_format())
            .map_err(|error| error.moved(".function.name", ".name"))
    }

    /// The grammar of the text, if its form is limited.
    fn form(&self) -> Option<(&'static str, GrammarSpec)> {
        let OutputFormat::JsonSchema { schema } = self.output_config.as_ref()?.format.as_ref()?;
        Some(("output_config.format", GrammarSpec::JsonSchema(Value::Object(schema.clone()))))
    }

    /// What the chat template is told about thinking.
    fn variables(&self) -> Map<String, Value> {
        let thinks =
            self.thinking.as_ref().map(|thinking| !matches!(thinking, Thinking::Disabled {}));
        let effort = self.output_config.as_ref().and_then(|config| config.effort.as_ref());
        let thinks = thinks.map(|thinks| ("enable_thinking".to_owned(), json!(thinks)));
        let effort = effort.map(|effort| ("reasoning_effort".to_owned(), json!(effort)));
        thinks.into_iter().chain(effort).collect()
    }

    /// The messages, and how a prompt is made of them.
    fn conversation(&self) -> Result<(TemplateFields, Vec<Turn>), ApiError> {
        let (messages, continues) = conversation::read(&self.messages, self.system.clone())?;
        let template = TemplateFields {
            continue_final_message: Some(continues),
            chat_template_kwargs: Some(self.variables()),
            ..TemplateFields::default()
        };
        Ok((template, messages))
    }
}

impl AnswerFields {
    /// How tokens are drawn, in the words of chats.
    fn sampling(self) -> SamplingFields {
        SamplingFields {
            stream: self.stream,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            seed: self.seed,
            stop: self.stop_sequences.filter(|stops| !stops.is_empty()).map(OneOrMore::More),
            ignore_eos: self.ignore_eos,
            priority: self.priority,
            timeout: self.timeout,
            cache_salt: self.cache_salt,
            user: self.metadata.and_then(|metadata| metadata.user_id),
            ..SamplingFields::default()
        }
    }
}
