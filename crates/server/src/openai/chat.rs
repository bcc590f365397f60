//! `/v1/chat/completions`: a conversation goes on.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use bantam_text::{EncodeOptions, Message, Tokenizer};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::answer::{Part, TextPart};
use crate::body::JsonBytes;
use crate::error::ApiError;
use crate::openai::fields;
use crate::openai::logprobs::ChatLogprobs;
use crate::openai::reply::{Choice, Kind, Replying};
use crate::openai::sampling::{Asked, SamplingFields};
use crate::openai::usage::Usage;
use crate::record::Record;
use crate::state::{AppState, ServerState};

const KIND: Kind =
    Kind { id: "chatcmpl", whole: "chat.completion", chunk: "chat.completion.chunk" };

/// Alternatives of a token at most, as OpenAI has it.
const MAX_TOP_LOGPROBS: usize = 20;

/// A conversation to continue.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct ChatFields {
    /// The conversation so far.
    messages: Vec<ChatMessage>,
    /// Tokens of each answer at most; as many as fit if not set.
    max_completion_tokens: Option<usize>,
    /// The old name of `max_completion_tokens`.
    max_tokens: Option<usize>,
    /// Tells how probable each token was.
    logprobs: Option<bool>,
    /// Alternatives shown for each token, 0 to 20; only with `logprobs`.
    top_logprobs: Option<usize>,
}

/// A message of the conversation.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct ChatMessage {
    role: String,
    content: Content,
}

/// What is said: a text, or texts in parts.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text, or a list of parts of type text")]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<ContentPart>),
}

/// A part of a message.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ContentPart {
    Text { text: String },
}

impl Content {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Parts(parts) => {
                parts.into_iter().map(|ContentPart::Text { text }| text).collect()
            }
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ChatChoice {
    index: usize,
    message: AnswerMessage,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

/// What the model says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct AnswerMessage {
    role: &'static str,
    content: Option<String>,
}

/// What an answer grows by.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ChatDelta {
    index: usize,
    delta: MessageDelta,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

/// What a message grows by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct MessageDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

/// Continues a conversation.
pub(crate) async fn create(
    State(state): State<AppState>,
    Extension(record): Extension<Arc<Record>>,
    JsonBytes(bytes): JsonBytes,
) -> Result<Response, ApiError> {
    let (model, asked) = state.prepare(move |state| prepare(state, &bytes)).await?;
    let model = state.model(&model)?;
    let usage = Usage::of_prompts(asked.request.prompt.len());
    record.asked(model.name(), usage.prompt_tokens);
    asked.user.iter().for_each(|user| record.user(user));
    let submissions = asked.request.samples(asked.n).map(Into::into).collect();
    let answers = model.ask(submissions, &asked.options, &record)?;
    let answers = answers.into_iter().enumerate().map(|(index, answer)| {
        let tokenizer = Arc::clone(model.tokenizer());
        let logprobs = asked.request.logprobs.is_some();
        (answer, Chatting { index, tokenizer, logprobs })
    });
    let answers = answers.collect();
    let replying = Replying::new(KIND, model.name(), answers, asked.n, usage, record);
    if asked.stream { Ok(replying.stream(asked.include_usage)) } else { replying.whole().await }
}

fn prepare(state: &ServerState, bytes: &[u8]) -> Result<(String, Asked), ApiError> {
    let body = fields::read(bytes)?;
    let shared: SamplingFields = fields::parse(&body)?;
    let own: ChatFields = fields::parse(&body)?;
    let model = state.model(&shared.model)?;
    let max_tokens = own.max_completion_tokens.or(own.max_tokens);
    let mut asked = shared.asked(state, model, max_tokens)?;
    asked.request.logprobs = own.num_logprobs()?;
    let messages: Vec<Message> = own
        .messages
        .into_iter()
        .map(|message| Message { role: message.role, content: message.content.into_text() })
        .collect();
    let prompt = model.chat_template()?.render(&messages, true)?;
    let options = EncodeOptions { add_special: false, parse_special: true };
    asked.request.prompt = model.tokenizer().encode(&prompt, options)?;
    Ok((model.name().to_owned(), asked))
}

impl ChatFields {
    fn num_logprobs(&self) -> Result<Option<usize>, ApiError> {
        match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (false, Some(1..)) => {
                let message = "top_logprobs is set without logprobs; set logprobs to true";
                Err(ApiError::bad_request(message).param("top_logprobs"))
            }
            (_, Some(top)) if top > MAX_TOP_LOGPROBS => {
                let message = format!("top_logprobs is {top}, expected at most {MAX_TOP_LOGPROBS}");
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
}

impl Chatting {
    fn delta(&self, delta: MessageDelta) -> ChatDelta {
        ChatDelta { index: self.index, delta, logprobs: None, finish_reason: None }
    }
}

impl Choice for Chatting {
    type Delta = ChatDelta;
    type Whole = ChatChoice;

    fn begin(&mut self) -> Option<ChatDelta> {
        let delta = MessageDelta { role: Some("assistant"), content: Some(String::new()) };
        Some(self.delta(delta))
    }

    fn push(&mut self, part: &Part) -> Result<Option<ChatDelta>, ApiError> {
        Ok(Some(match part {
            Part::Prompt(_) => return Ok(None),
            Part::Text(TextPart { text, tokens }) => ChatDelta {
                logprobs: self.logprobs.then(|| ChatLogprobs::new(&self.tokenizer, tokens)),
                ..self.delta(MessageDelta { content: Some(text.clone()), role: None })
            },
            Part::End(ending) => ChatDelta {
                finish_reason: Some(ending.reason.name()),
                ..self.delta(MessageDelta::default())
            },
        }))
    }

    fn whole(&self) -> ChatChoice {
        let logprobs = self.logprobs.then(ChatLogprobs::default);
        let message = AnswerMessage::default();
        ChatChoice { index: self.index, message, logprobs, finish_reason: None }
    }

    fn add(whole: &mut ChatChoice, delta: ChatDelta) {
        let ChatDelta { delta, logprobs, finish_reason, .. } = delta;
        whole.message.role = delta.role.unwrap_or(whole.message.role);
        if let Some(text) = delta.content {
            whole.message.content.get_or_insert_default().push_str(&text);
        }
        if let (Some(whole), Some(later)) = (&mut whole.logprobs, logprobs) {
            whole.content.extend(later.content);
        }
        whole.finish_reason = finish_reason.or(whole.finish_reason);
    }
}
