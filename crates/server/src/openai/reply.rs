//! Answers as a response or as a stream: the same chunks, collected or sent.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::response::{IntoResponse, Response};
use bantam_engine::RequestFailure;
use futures_util::stream::{self, Stream, StreamExt};
use serde::Serialize;
use utoipa::ToSchema;

use crate::answer::{Answers, Ending, Part, StoppedBy};
use crate::error::ApiError;
use crate::openai::STREAM_ENDS;
use crate::openai::logprobs::PromptLogprobs;
use crate::openai::usage::Usage;
use crate::record::Record;
use crate::request::asked::{Asked, StreamUsage};
use crate::request::sse;
use crate::request::usage::Usage as Counted;
use crate::request_id::unique;

/// An answer in the form of a protocol: what a stream says about it, and what that adds up to.
pub(crate) trait Choice: Send + 'static {
    /// What a chunk of a stream says.
    type Delta: Serialize + Send;
    /// All of it.
    type Whole: Serialize;

    /// What stands before the first token.
    fn begin(&mut self) -> Option<Self::Delta>;

    /// What a part adds, if it is anything that can be said now.
    fn push(&mut self, part: Part) -> Option<Self::Delta>;

    /// An answer of which nothing is known.
    fn whole(&self) -> Self::Whole;

    /// Adds what a chunk says.
    fn add(whole: &mut Self::Whole, delta: Self::Delta);

    /// What an answer knows of the prompt that the reply tells once, for all answers.
    fn prompt_logprobs(_: &Self::Whole) -> Option<PromptLogprobs> {
        None
    }
}

/// How an endpoint names its replies.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    /// What ids begin with.
    pub(crate) id: &'static str,
    /// `object` of a response.
    pub(crate) whole: &'static str,
    /// `object` of a chunk.
    pub(crate) chunk: &'static str,
}

/// A response, or a chunk of a stream.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Reply<T> {
    /// The same in all chunks.
    pub(crate) id: String,
    pub(crate) object: &'static str,
    /// In seconds since 1970.
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) choices: Vec<T>,
    /// In a stream only if it was asked for: null until the last chunk, which has no choices.
    #[serde(skip_serializing_if = "ShownUsage::is_hidden")]
    #[schema(value_type = Option<Usage>)]
    pub(crate) usage: ShownUsage,
    /// How probable the tokens of the prompt were, if a chat asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt_logprobs: Option<PromptLogprobs>,
    /// The tokens of the prompt, if a chat asked; in a stream in the first chunk only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt_token_ids: Option<Vec<u32>>,
}

/// What ended an answer, if the request named it: a stop string, or the id of a stop token.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum StopReason {
    Text(String),
    Token(u32),
}

impl StopReason {
    /// What ended an answer; `stop_tokens` are those of the request, the model's own are none.
    pub(crate) fn of(ending: &Ending, stop_tokens: &[u32]) -> Option<Self> {
        match ending.stopped_by.as_ref()? {
            StoppedBy::Text(text) => Some(Self::Text(text.clone())),
            StoppedBy::Token(token) => {
                stop_tokens.contains(&token.id).then_some(Self::Token(token.id))
            }
        }
    }
}

/// What a reply says about its usage.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum ShownUsage {
    Hidden,
    Later,
    Now(Usage),
}

impl ShownUsage {
    const fn is_hidden(&self) -> bool {
        matches!(self, Self::Hidden)
    }
}

/// Answers under way, on their way to one client.
pub(crate) struct Replying<C> {
    kind: Kind,
    id: String,
    created: u64,
    model: String,
    choices: Vec<C>,
    /// Answers to each prompt.
    n: usize,
    answers: Answers,
    usage: Counted,
    /// Tokens of each answer that are shown already, until it ends and all are counted.
    running: Vec<usize>,
    /// The tokens of the prompt, if they are to be told.
    prompt: Option<Vec<u32>>,
    record: Arc<Record>,
}

impl<C: Choice> Replying<C> {
    /// Answers and the choices they become; `n` in a row belong to one prompt.
    pub(crate) fn new(
        kind: Kind,
        model: &str,
        choices: Vec<C>,
        answers: Answers,
        n: usize,
        usage: Counted,
        record: Arc<Record>,
    ) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            kind,
            id: unique(kind.id),
            created: now.as_secs(),
            model: model.to_owned(),
            running: vec![0; choices.len()],
            prompt: None,
            choices,
            n,
            answers,
            usage,
            record,
        }
    }

    /// Tells the tokens of the prompt.
    pub(crate) fn telling(self, prompt: Option<Vec<u32>>) -> Self {
        Self { prompt, ..self }
    }

    fn reply<T>(&self, object: &'static str, choices: Vec<T>, usage: ShownUsage) -> Reply<T> {
        let Self { id, created, model, .. } = self;
        Reply {
            id: id.clone(),
            object,
            created: *created,
            model: model.clone(),
            choices,
            usage,
            prompt_logprobs: None,
            prompt_token_ids: None,
        }
    }

    /// A chunk of a stream.
    fn chunk(&self, delta: C::Delta, usage: StreamUsage) -> Reply<C::Delta> {
        let usage = match usage {
            StreamUsage::Nowhere => ShownUsage::Hidden,
            StreamUsage::AtTheEnd => ShownUsage::Later,
            StreamUsage::InEveryChunk { .. } => {
                let mut usage = self.usage;
                usage.completion_tokens += self.running.iter().sum::<usize>();
                ShownUsage::Now(usage.into())
            }
        };
        self.reply(self.kind.chunk, vec![delta], usage)
    }

    /// What the next part adds; none at the end.
    async fn next(&mut self) -> Option<Result<(usize, Option<C::Delta>), ApiError>> {
        let (index, part) = self.answers.next().await?;
        Some(self.take(index, part))
    }

    fn take(
        &mut self,
        index: usize,
        part: Result<Part, RequestFailure>,
    ) -> Result<(usize, Option<C::Delta>), ApiError> {
        let part = part?;
        match &part {
            Part::Prompt(_) => {}
            Part::Text(text) => self.running[index] += text.tokens.len(),
            Part::End(ending) => {
                self.running[index] = 0;
                self.usage.add(&ending.usage, index.is_multiple_of(self.n));
            }
        }
        Ok((index, self.choices[index].push(part)))
    }

    /// Answers, in the way that was asked for.
    pub(crate) async fn send(self, asked: &Asked) -> Result<Response, ApiError> {
        if asked.stream { Ok(self.stream(asked.stream_usage)) } else { self.whole().await }
    }

    /// Waits for everything and answers once.
    async fn whole(mut self) -> Result<Response, ApiError> {
        let mut wholes: Vec<C::Whole> = self.choices.iter().map(C::whole).collect();
        for (whole, choice) in wholes.iter_mut().zip(&mut self.choices) {
            choice.begin().into_iter().for_each(|delta| C::add(whole, delta));
        }
        while let Some(next) = self.next().await {
            let (index, delta) = next?;
            delta.into_iter().for_each(|delta| C::add(&mut wholes[index], delta));
        }
        let prompt_logprobs = wholes.first().and_then(C::prompt_logprobs);
        let reply = self.reply(self.kind.whole, wholes, ShownUsage::Now(self.usage.into()));
        let reply = Reply { prompt_logprobs, prompt_token_ids: self.prompt, ..reply };
        Ok(Json(reply).into_response())
    }

    /// Answers at once, and sends what comes.
    fn stream(mut self, shown: StreamUsage) -> Response {
        let record = Arc::clone(&self.record);
        let first: Vec<C::Delta> = self.choices.iter_mut().filter_map(C::begin).collect();
        let first = first.into_iter().map(|delta| self.chunk(delta, shown));
        let mut first: Vec<Reply<C::Delta>> = first.collect();
        if let Some(chunk) = first.first_mut() {
            chunk.prompt_token_ids = self.prompt.take();
        }
        let last =
            matches!(shown, StreamUsage::AtTheEnd | StreamUsage::InEveryChunk { last: true });
        let rest = stream::unfold(Some(self), move |replying| async move {
            let mut replying = replying?;
            loop {
                match replying.next().await {
                    Some(Ok((_, None))) => {}
                    Some(Ok((_, Some(delta)))) => {
                        return Some((Ok(replying.chunk(delta, shown)), Some(replying)));
                    }
                    Some(Err(error)) => return Some((Err(error), None)),
                    None if last => {
                        let usage = ShownUsage::Now(replying.usage.into());
                        let chunk = replying.kind.chunk;
                        return Some((Ok(replying.reply(chunk, Vec::new(), usage)), None));
                    }
                    None => return None,
                }
            }
        });
        let first = first.into_iter().map(Ok);
        sse::response(boxed(stream::iter(first).chain(rest)), record, STREAM_ENDS)
    }
}

/// Erases a stream's type: its full name is too much for the compiler's messages, and for readers.
fn boxed<T>(stream: impl Stream<Item = T> + Send + 'static) -> stream::BoxStream<'static, T> {
    stream.boxed()
}
