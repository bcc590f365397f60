//! From a request to its response, or to the number of tokens that it reads.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::{Extension, Json};
use bantam_text::{Cancel, Message};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::ServedModel;
use crate::body::JsonBytes;
use crate::error::{ApiError, ErrorKind};
use crate::openai::chat::check_top_logprobs;
use crate::openai::logprobs::TokenNames;
use crate::openai::responses::events::ResponseEvent;
use crate::openai::responses::fields::{
    self, AnswerFields, CreateResponse, PromptFields, TextField, Truncation,
};
use crate::openai::responses::items;
use crate::openai::responses::kinds::KINDS;
use crate::openai::responses::narrator::{ResponseNarrator, now};
use crate::openai::responses::object::{ResponseObject, Status};
use crate::openai::responses::store::{Keeping, Owner};
use crate::openai::responses::tools::{Tool, ToolChoice};
use crate::openapi::ErrorResponse;
use crate::record::Record;
use crate::request;
use crate::request::ask::ask;
use crate::request::asked::Asked;
use crate::request::conversation::TemplateFields;
use crate::request::narration::Narration;
use crate::request::sampling::{SamplingFields, longest};
use crate::request::speech::Speech;
use crate::request::tools::ToolUse;
use crate::request_id::hexadecimal;
use crate::state::{AppState, ServerState};

/// The name by which `include` asks for log-probabilities.
const LOGPROBS: &str = "message.output_text.logprobs";

/// Names for `include` that ask for parts which answers here do not have.
const ABSENT: [&str; 7] = [
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
];

/// A request that is checked and tokenized.
struct Prepared {
    model: String,
    asked: Asked,
    prompt: Vec<u32>,
    tools: ToolUse,
    response: ResponseObject,
    /// The items of the whole conversation, if the response is to be kept.
    input: Option<String>,
}

/// Answers a conversation.
#[utoipa::path(
    post,
    path = "/v1/responses",
    operation_id = "create_response",
    tag = "OpenAI",
    request_body = CreateResponse,
    responses(
        (status = 200, content(
            (ResponseObject = "application/json"),
            (ResponseEvent = "text/event-stream"),
        ), description = "The response; with `stream`, its events"),
        (status = "default", description = "Why not", body = ErrorResponse)
    )
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    Extension(record): Extension<Arc<Record>>,
    headers: HeaderMap,
    JsonBytes(bytes): JsonBytes,
) -> Result<Response, ApiError> {
    let owner = state.owner(&headers);
    let prepared = state
        .prepare(move |state, cancel| {
            let body = request::kinds::read(&bytes, &KINDS, &fields::CREATE)?;
            let (prompt, answer) = (request::fields::parse(&body)?, request::fields::parse(&body)?);
            prepare(state, prompt, answer, owner, cancel)
        })
        .await?;
    let Prepared { model, asked, prompt, tools, response, input } = prepared;
    let model = state.model(&model)?;
    let (answers, usage) = ask(model, &asked, vec![prompt], &record).await.map_err(|error| {
        let error = error.renamed("max_tokens", "max_output_tokens");
        if error.is_about_the_prompt() { error.or_param("input") } else { error }
    })?;
    let keeping = input.map(|input| Keeping { state: Arc::clone(&state), owner, input });
    let names = TokenNames { tokenizer: Arc::clone(model.tokenizer()), as_ids: false };
    let logprobs = asked.request.logprobs.is_some();
    let narrator = ResponseNarrator::new(response, names, logprobs, keeping);
    Narration::new(narrator, Speech::new(&tools), answers, usage, record).send(asked.stream).await
}

/// How many tokens a request reads.
#[derive(Serialize, ToSchema)]
pub(crate) struct InputTokens {
    /// `response.input_tokens`.
    object: &'static str,
    input_tokens: usize,
}

/// Counts the tokens that a response would read.
#[utoipa::path(
    post,
    path = "/v1/responses/input_tokens",
    operation_id = "count_input_tokens",
    tag = "OpenAI",
    request_body = PromptFields,
    responses(
        (status = 200, description = "The number", body = InputTokens),
        (status = "default", description = "Why not", body = ErrorResponse)
    )
)]
pub(crate) async fn count(
    State(state): State<AppState>,
    headers: HeaderMap,
    JsonBytes(bytes): JsonBytes,
) -> Result<Json<InputTokens>, ApiError> {
    let owner = state.owner(&headers);
    let counting = state.prepare(move |state, cancel| {
        let body = request::kinds::read(&bytes, &KINDS, &fields::COUNT)?;
        let fields: PromptFields = request::fields::parse(&body)?;
        let model = state.model_or_only(fields.model.as_deref())?;
        let tools = fields.tool_use(model)?;
        let items = fields.items(state, owner)?;
        let (template, messages) = fields.conversation(&items)?;
        template.count(model, &messages, &tools.tools, cancel)
    });
    let input_tokens = counting.await?;
    Ok(Json(InputTokens { object: "response.input_tokens", input_tokens }))
}

fn prepare(
    state: &ServerState,
    prompt: PromptFields,
    answer: AnswerFields,
    owner: Owner,
    cancel: &Cancel,
) -> Result<Prepared, ApiError> {
    let model = state.model_or_only(prompt.model.as_deref())?;
    let logprobs = answer.num_logprobs()?;
    answer.check_metadata()?;
    let tools = prompt.tool_use(model)?;
    let form = prompt.text.as_ref().and_then(TextField::spec);
    let grammar = tools.beside(form)?;
    let response = shown(model.name(), &prompt, &answer);
    let max_output_tokens = answer.max_output_tokens;
    let sampling = answer.sampling();
    let mut asked = sampling.asked(state, model, grammar, cancel)?;
    asked.request.max_tokens = longest(max_output_tokens, "max_output_tokens")?;
    asked.request.logprobs = logprobs;
    if let Some(format) = &tools.format {
        asked.options.shown = format.special_tokens();
    }
    let items = prompt.items(state, owner)?;
    let tokens = prompt.prompt(model, &items, &tools, asked.request.max_tokens, cancel)?;
    let input = response.store.then(|| {
        let kept: Vec<Value> = items.into_iter().map(|item| items::kept(item.value)).collect();
        Value::Array(kept).to_string()
    });
    Ok(Prepared { model: model.name().to_owned(), asked, prompt: tokens, tools, response, input })
}

/// An item and where it stands: in the body, or in what is kept.
struct Placed {
    place: String,
    value: Value,
}

impl PromptFields {
    fn tool_use(&self, model: &ServedModel) -> Result<ToolUse, ApiError> {
        let offered = self.tools.iter().flatten().map(Tool::offered).collect();
        let rule = self.tool_choice.as_ref().map(ToolChoice::rule);
        let parallel = self.parallel_tool_calls.unwrap_or(true);
        ToolUse::new(offered, rule, parallel, model.tool_format())
            .map_err(|error| error.moved(".function.name", ".name"))
    }

    /// The items of the conversation: those that are kept, then those of the body.
    fn items(&self, state: &ServerState, owner: Owner) -> Result<Vec<Placed>, ApiError> {
        let mut all = Vec::new();
        if let Some(id) = &self.previous_response_id {
            let kept = state.responses.find(id, owner).ok_or_else(|| not_kept(id))?;
            let earlier = kept.input().into_iter().chain(kept.output());
            all.extend(
                earlier.map(|value| Placed { place: format!("an item before {id}"), value }),
            );
        }
        let new = items::of_input(self.input.clone(), |id| state.responses.item(id, owner))?;
        let new = new.into_iter().enumerate();
        all.extend(new.map(|(n, value)| Placed { place: format!("input[{n}]"), value }));
        Ok(all)
    }

    /// The messages that items make, and how a prompt is made of them.
    fn conversation(&self, items: &[Placed]) -> Result<(TemplateFields, Vec<Message>), ApiError> {
        let placed = items.iter().map(|Placed { place, value }| (place.clone(), value));
        let mut messages = items::messages(placed)?;
        if let Some(instructions) = &self.instructions {
            messages.insert(0, Message::new("system", instructions));
        }
        let template = TemplateFields {
            reasoning_effort: self.reasoning.as_ref().and_then(|reasoning| reasoning.effort),
            ..TemplateFields::default()
        };
        Ok((template, messages))
    }

    /// The tokens of the conversation. With `truncation: auto`, without its oldest turns if
    /// `answer` tokens (a quarter of the context if not set) would not fit after it.
    fn prompt(
        &self,
        model: &ServedModel,
        items: &[Placed],
        tools: &ToolUse,
        answer: Option<usize>,
        cancel: &Cancel,
    ) -> Result<Vec<u32>, ApiError> {
        let (template, messages) = self.conversation(items)?;
        match self.truncation.unwrap_or_default() {
            Truncation::Disabled => template.encode(model, &messages, &tools.tools, false, cancel),
            Truncation::Auto => {
                let answer = answer.unwrap_or(model.context() / 4);
                let room = model.context().saturating_sub(answer);
                template.encode_latest(model, &messages, &tools.tools, room, cancel)
            }
        }
    }
}

/// The error that a response is not kept.
pub(crate) fn not_kept(id: &str) -> ApiError {
    let shown: String = id.chars().take(64).collect();
    let message = format!(
        "the response {shown:?} is not kept here (any more); send the conversation as items of input"
    );
    let error = ApiError::new(ErrorKind::NotFound, message).param("previous_response_id");
    error.code("previous_response_not_found")
}

impl AnswerFields {
    /// Alternatives for each token, if log-probabilities are shown.
    fn num_logprobs(&self) -> Result<Option<usize>, ApiError> {
        let include = self.include.as_deref().unwrap_or_default();
        for (n, name) in include.iter().enumerate() {
            if name != LOGPROBS && !ABSENT.contains(&name.as_str()) {
                let place = format!("include[{n}]");
                let known = ABSENT.join(", ");
                let message = format!("{place} is {name:?}, expected {LOGPROBS}, {known}");
                return Err(ApiError::bad_request(message).param(place));
            }
        }
        let top = self.top_logprobs.unwrap_or(0);
        check_top_logprobs(top)?;
        Ok((top > 0 || include.iter().any(|name| name == LOGPROBS)).then_some(top))
    }

    fn check_metadata(&self) -> Result<(), ApiError> {
        let Some(metadata) = &self.metadata else { return Ok(()) };
        let fits = |(key, value): (&String, &String)| {
            key.chars().count() <= 64 && value.chars().count() <= 512
        };
        if metadata.len() > 16 || !metadata.iter().all(fits) {
            let message = "metadata has more than 16 entries, a name of more than 64 characters, or a \
                           value of more than 512";
            return Err(ApiError::bad_request(message).param("metadata"));
        }
        Ok(())
    }

    /// How tokens are drawn, in the words of chats.
    fn sampling(self) -> SamplingFields {
        SamplingFields {
            stream: self.stream,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed,
            stop: self.stop,
            ignore_eos: self.ignore_eos,
            priority: self.priority,
            timeout: self.timeout,
            cache_salt: self.cache_salt,
            user: self.user,
            ..SamplingFields::default()
        }
    }
}

/// The response before anything is said: what was asked for.
fn shown(model: &str, prompt: &PromptFields, answer: &AnswerFields) -> ResponseObject {
    let metadata = answer.metadata.iter().flatten();
    let metadata: Map<String, Value> =
        metadata.map(|(key, value)| (key.clone(), json!(value))).collect();
    let effort = prompt.reasoning.as_ref().and_then(|reasoning| reasoning.effort);
    ResponseObject {
        id: format!("resp_{}", hexadecimal()),
        object: "response",
        created_at: now(),
        status: Status::InProgress,
        completed_at: None,
        background: false,
        error: None,
        incomplete_details: None,
        instructions: prompt.instructions.clone(),
        max_output_tokens: answer.max_output_tokens,
        model: model.to_owned(),
        output: Vec::new(),
        parallel_tool_calls: prompt.parallel_tool_calls.unwrap_or(true),
        previous_response_id: prompt.previous_response_id.clone(),
        reasoning: json!({"effort": effort, "summary": null}),
        store: answer.store.unwrap_or(true),
        temperature: answer.temperature.unwrap_or(1.0),
        text: prompt.text.clone().unwrap_or_default().shown(),
        tool_choice: prompt
            .tool_choice
            .as_ref()
            .map_or_else(|| json!("auto"), |choice| json!(choice)),
        tools: prompt.tools.iter().flatten().map(|tool| json!(tool)).collect(),
        top_logprobs: answer.top_logprobs.unwrap_or(0),
        top_p: answer.top_p.unwrap_or(1.0),
        truncation: prompt.truncation.unwrap_or_default(),
        usage: None,
        user: answer.user.clone(),
        service_tier: "default",
        metadata,
    }
}
