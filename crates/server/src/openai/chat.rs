//! `/v1/chat/completions`: a conversation goes on.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use bantam_text::{Cancel, Tokenizer, ToolCallParser, ToolDelta};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::answer::{AnswerToken, Part};
use crate::body::JsonBytes;
use crate::error::ApiError;
use crate::openai::field_sets;
use crate::openai::logprobs::{ChatLogprobs, PromptLogprobs};
use crate::openai::messages::{self, ChatMessage};
use crate::openai::reply::{Choice, Kind, Reply, Replying};
use crate::openai::tools::{self, CallDelta, CallField, FunctionDelta, ToolChoiceField, ToolField};
use crate::openapi::ErrorResponse;
use crate::record::Record;
use crate::request::ask::ask;
use crate::request::conversation::TemplateFields;
use crate::request::fields;
use crate::request::sampling::{Asked, SamplingFields};
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
    /// Tokens of each answer at most; as many as fit if not set.
    max_completion_tokens: Option<usize>,
    /// The old name of `max_completion_tokens`.
    max_tokens: Option<usize>,
    /// Tells how probable each token was.
    logprobs: Option<bool>,
    /// Alternatives shown for each token, 0 to 20; only with `logprobs`.
    top_logprobs: Option<usize>,
    /// Functions that the model may call.
    tools: Option<Vec<ToolField>>,
    /// `auto` (the model decides), `none`, `required`, or a function by its name; `auto` if not set.
    tool_choice: Option<ToolChoiceField>,
    /// Several calls in one answer; true if not set. If false, calls after the first are left out.
    parallel_tool_calls: Option<bool>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ChatChoice {
    index: usize,
    message: AnswerMessage,
    logprobs: Option<ChatLogprobs>,
    /// `stop`, `length` or `tool_calls`.
    finish_reason: Option<&'static str>,
    /// How probable the tokens of the prompt were, if asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<PromptLogprobs>,
}

/// What the model says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct AnswerMessage {
    role: &'static str,
    /// None if there are calls only.
    content: Option<String>,
    /// Always none.
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallField>,
}

/// What an answer grows by.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ChatDelta {
    index: usize,
    delta: MessageDelta,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<PromptLogprobs>,
}

/// What a message grows by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct MessageDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallDelta>,
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
    let choices = (0..asked.n).map(|index| Chatting {
        index,
        tokenizer: Arc::clone(model.tokenizer()),
        logprobs: asked.request.logprobs.is_some(),
        prompt: prompt.clone(),
        scored: 1,
        tools: tools.format.map(ToolCallParser::new),
        only_one: tools.only_one,
        calls: 0,
    });
    let choices = choices.collect();
    let asking = ask(model, &asked, vec![prompt], &record).await;
    let (answers, usage) = asking.map_err(|error| error.renamed("max_tokens", max_tokens_field))?;
    let replying = Replying::new(KIND, model.name(), choices, answers, asked.n, usage, record);
    replying.send(&asked).await
}

impl ChatRequest {
    fn read(bytes: &[u8]) -> Result<Self, ApiError> {
        let body = fields::read(bytes, &field_sets::CHAT)?;
        let (own, template) = (fields::parse(&body)?, fields::parse(&body)?);
        Ok(Self { own, template, shared: fields::parse(&body)? })
    }

    fn prepare(self, state: &ServerState, cancel: &Cancel) -> Result<Prepared, ApiError> {
        let Self { own, template, shared } = self;
        let model = state.model(&shared.model)?;
        let messages = messages::read(&own.messages)?;
        let (max_tokens, max_tokens_field) = own.max_tokens()?;
        let logprobs = own.num_logprobs()?;
        let parallel = own.parallel_tool_calls.unwrap_or(true);
        let offered = own.tools.into_iter().flatten().map(ToolField::offered).collect();
        let rule = own.tool_choice.map(ToolChoiceField::rule);
        let tools = ToolUse::new(offered, rule, parallel, model.tool_format())?;
        let mut asked = shared.asked(state, model, tools.grammar.clone())?;
        asked.request.max_tokens = max_tokens;
        asked.request.logprobs = logprobs;
        if let Some(format) = &tools.format {
            asked.options.shown = format.special_tokens();
        }
        if logprobs.is_some() && asked.beam_search.is_some() {
            let message = "logprobs does not work with use_beam_search; leave out one";
            return Err(ApiError::bad_request(message).param("logprobs"));
        }
        let prompt = template.encode(model, &messages, &tools.tools, false, cancel)?;
        let model = model.name().to_owned();
        Ok(Prepared { model, asked, max_tokens_field, prompt, tools })
    }
}

impl ChatFields {
    /// Tokens of each answer at most, and the field that says so.
    fn max_tokens(&self) -> Result<(Option<usize>, &'static str), ApiError> {
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
        match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (_, Some(top)) if top > MAX_TOP_LOGPROBS => {
                let message = format!("top_logprobs is {top}, expected at most {MAX_TOP_LOGPROBS}");
                Err(ApiError::bad_request(message).param("top_logprobs"))
            }
            (false, Some(1..)) => {
                let message = "top_logprobs is set without logprobs; set logprobs to true";
                Err(ApiError::bad_request(message).param("top_logprobs"))
            }
            (false, _) => Ok(None),
            (true, top) => Ok(Some(top.unwrap_or(0))),
        }
    }
}

/// An answer on its way.
struct Chatting {
    index: usize,
    tokenizer: Arc<Tokenizer>,
    logprobs: bool,
    prompt: Vec<u32>,
    /// Tokens of the prompt that have their scores; the first has none.
    scored: usize,
    /// Finds calls, if there may be any; none after the end.
    tools: Option<ToolCallParser>,
    /// Calls after the first are left out.
    only_one: bool,
    /// Calls so far.
    calls: usize,
}

impl Chatting {
    fn delta(&self, delta: MessageDelta, tokens: &[AnswerToken]) -> ChatDelta {
        ChatDelta {
            index: self.index,
            delta,
            logprobs: (self.logprobs && !tokens.is_empty())
                .then(|| ChatLogprobs::new(&self.tokenizer, tokens)),
            finish_reason: None,
            prompt_logprobs: None,
        }
    }

    /// The text and calls among what the parser found.
    fn message(&mut self, found: Vec<ToolDelta>) -> MessageDelta {
        let mut message = MessageDelta::default();
        for delta in found {
            let beyond = |index: usize| self.only_one && index > 0;
            match delta {
                ToolDelta::Text(text) => message.content.get_or_insert_default().push_str(&text),
                ToolDelta::Begin { index, name } if !beyond(index) => {
                    self.calls = index + 1;
                    message.tool_calls.push(CallDelta {
                        index,
                        id: Some(tools::call_id()),
                        r#type: Some(tools::Kind::Function),
                        function: FunctionDelta { name: Some(name), arguments: String::new() },
                    });
                }
                ToolDelta::Arguments { index, fragment } if !beyond(index) => {
                    match message.tool_calls.last_mut().filter(|call| call.index == index) {
                        Some(call) => call.function.arguments.push_str(&fragment),
                        None => message.tool_calls.push(CallDelta {
                            index,
                            function: FunctionDelta { name: None, arguments: fragment },
                            ..CallDelta::default()
                        }),
                    }
                }
                ToolDelta::Begin { .. } | ToolDelta::Arguments { .. } | ToolDelta::End { .. } => {}
            }
        }
        message
    }
}

impl Choice for Chatting {
    type Delta = ChatDelta;
    type Whole = ChatChoice;

    fn begin(&mut self) -> Option<ChatDelta> {
        let (role, content) = (Some("assistant"), Some(String::new()));
        Some(self.delta(MessageDelta { role, content, tool_calls: Vec::new() }, &[]))
    }

    fn push(&mut self, part: Part) -> Option<ChatDelta> {
        match part {
            Part::Prompt(scores) => {
                let (first, tokens) = (self.scored == 1, &self.prompt[self.scored..]);
                self.scored += scores.len();
                let scores = PromptLogprobs::new(&self.tokenizer, tokens, &scores, first);
                let delta = self.delta(MessageDelta::default(), &[]);
                Some(ChatDelta { prompt_logprobs: Some(scores), ..delta })
            }
            Part::Text(part) => {
                let message = match &mut self.tools {
                    None => MessageDelta { content: Some(part.text), ..MessageDelta::default() },
                    Some(parser) => {
                        let found = parser.push(&part.text);
                        self.message(found)
                    }
                };
                let delta = self.delta(message, &part.tokens);
                let says_nothing = delta.delta == MessageDelta::default();
                (!says_nothing || delta.logprobs.is_some()).then_some(delta)
            }
            Part::End(ending) => {
                let found = self.tools.take().map(ToolCallParser::finish).unwrap_or_default();
                let message = self.message(found);
                let reason = match ending.reason.name() {
                    "stop" if self.calls > 0 => "tool_calls",
                    name => name,
                };
                Some(ChatDelta { finish_reason: Some(reason), ..self.delta(message, &[]) })
            }
        }
    }

    fn whole(&self) -> ChatChoice {
        ChatChoice {
            index: self.index,
            message: AnswerMessage::default(),
            logprobs: self.logprobs.then(ChatLogprobs::default),
            finish_reason: None,
            prompt_logprobs: None,
        }
    }

    fn add(whole: &mut ChatChoice, delta: ChatDelta) {
        let ChatDelta { delta, logprobs, finish_reason, prompt_logprobs, .. } = delta;
        let message = &mut whole.message;
        message.role = delta.role.unwrap_or(message.role);
        if let Some(text) = delta.content {
            message.content.get_or_insert_default().push_str(&text);
        }
        for CallDelta { index, id, function, .. } in delta.tool_calls {
            message
                .tool_calls
                .resize_with(message.tool_calls.len().max(index + 1), Default::default);
            let call = &mut message.tool_calls[index];
            call.id.extend(id);
            call.function.name.extend(function.name);
            call.function.arguments.push_str(&function.arguments);
        }
        if let (Some(whole), Some(later)) = (&mut whole.logprobs, logprobs) {
            whole.content.extend(later.content);
        }
        if let Some(later) = prompt_logprobs {
            whole.prompt_logprobs.get_or_insert_default().extend(later);
        }
        whole.finish_reason = finish_reason.or(whole.finish_reason);
        if finish_reason.is_some() && !message.tool_calls.is_empty() {
            message.content = message.content.take().filter(|text| !text.is_empty());
        }
    }
}
