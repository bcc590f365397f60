//! `/v1/completions`: text goes on.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use bantam_text::{Cancel, EncodeOptions, StreamDecoder, Tokenizer};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ServedModel;
use crate::answer::{AnswerToken, Part, StoppedBy};
use crate::body::JsonBytes;
use crate::error::ApiError;
use crate::openai::field_sets;
use crate::openai::logprobs::{CompletionLogprobs, PromptLogprobs, TokenNames};
use crate::openai::reply::{Choice, Kind, Reply, Replying, StopReason};
use crate::openapi::ErrorResponse;
use crate::record::Record;
use crate::request::ask::ask;
use crate::request::asked::Asked;
use crate::request::fields;
use crate::request::sampling::{self, SamplingFields};
use crate::state::{AppState, ServerState};

/// Tokens of an answer if the request does not say, as OpenAI has it.
const DEFAULT_MAX_TOKENS: usize = 16;

/// Prompts of a request at most.
const MAX_PROMPTS: usize = 256;

const KIND: Kind = Kind { id: "cmpl", whole: "text_completion", chunk: "text_completion" };

/// Texts to continue.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct CompletionFields {
    /// A text, a list of up to 256 texts, the ids of a text's tokens, or a list of such lists.
    prompt: Prompt,
    /// Tokens of each answer at most; 16, or as many as fit, if not set; as many as fit if it is -1 or
    /// more than fit. 0 with `echo` only.
    max_tokens: Option<i64>,
    /// Begins the answer with the prompt, with its log-probabilities if `logprobs` is set.
    echo: Option<bool>,
    /// Tells how probable each token was, and this many alternatives.
    logprobs: Option<usize>,
}

/// What to continue.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a text, a list of texts, a list of token ids, or a list of such lists"
)]
pub(crate) enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

/// An answer, or what it grows by.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct CompletionChoice {
    text: String,
    index: usize,
    logprobs: Option<CompletionLogprobs>,
    /// `stop` or `length`, at the end.
    finish_reason: Option<&'static str>,
    /// The stop string, or the id of the stop token, of the request that ended the answer.
    stop_reason: Option<StopReason>,
    /// Its tokens, if asked; one that ended it is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
    /// The tokens of its prompt, if asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<u32>>,
    /// How probable the tokens of the prompt were, if asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<PromptLogprobs>,
}

/// All fields of a request.
#[derive(ToSchema)]
pub(crate) struct CompletionRequest {
    #[serde(flatten)]
    own: CompletionFields,
    #[serde(flatten)]
    shared: SamplingFields,
}

/// A request that is checked and tokenized.
struct Prepared {
    model: String,
    asked: Asked,
    prompts: Vec<PreparedPrompt>,
    echo: bool,
    /// The `prompt_logprobs` of the request; echoes ask the engine for their own.
    scores: bool,
}

/// A prompt as text and as tokens.
#[derive(Clone)]
struct PreparedPrompt {
    text: String,
    tokens: Vec<u32>,
}

/// Continues texts.
#[utoipa::path(
    post,
    path = "/v1/completions",
    operation_id = "create_completion",
    tag = "OpenAI",
    request_body = CompletionRequest,
    responses(
        (status = 200, description = "The answers; with `stream`, server-sent events of the same form, then `[DONE]`", body = Reply<CompletionChoice>),
        (status = "default", description = "Why not", body = ErrorResponse)
    )
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    Extension(record): Extension<Arc<Record>>,
    JsonBytes(bytes): JsonBytes,
) -> Result<Response, ApiError> {
    let prepared = state
        .prepare(move |state, cancel| CompletionRequest::read(&bytes)?.prepare(state, cancel))
        .await?;
    let Prepared { model, asked, prompts, echo, scores } = prepared;
    let model = state.model(&model)?;
    let choices = prompts.iter().flat_map(|prompt| vec![prompt; asked.n]).enumerate();
    let choices = choices.map(|(index, prompt)| Completing {
        index,
        names: TokenNames { tokenizer: Arc::clone(model.tokenizer()), as_ids: asked.tokens_as_ids },
        logprobs: asked.request.logprobs.is_some(),
        token_ids: asked.token_ids,
        begun: false,
        stop_tokens: asked.request.stop_tokens.clone(),
        scores,
        echo,
        prompt: prompt.clone(),
        offsets: if echo { prompt.offsets(model.tokenizer()) } else { Vec::new() },
        scored: 1,
    });
    let choices = choices.collect();
    let prompts = prompts.into_iter().map(|prompt| prompt.tokens).collect();
    let asking = ask(model, &asked, prompts, &record).await;
    let (answers, usage) = asking.map_err(|error| {
        if error.is_about_the_prompt() { error.or_param("prompt") } else { error }
    })?;
    let replying = Replying::new(KIND, model.name(), choices, answers, asked.n, usage, record);
    replying.send(&asked).await
}

impl CompletionRequest {
    fn read(bytes: &[u8]) -> Result<Self, ApiError> {
        let body = fields::read(bytes, &field_sets::COMPLETIONS)?;
        Ok(Self { own: fields::parse(&body)?, shared: fields::parse(&body)? })
    }

    fn prepare(self, state: &ServerState, cancel: &Cancel) -> Result<Prepared, ApiError> {
        let Self { own, shared } = self;
        let model = state.model_or_only(shared.model.as_deref())?;
        let mut asked = shared.asked(state, model, None, cancel)?;
        let echo = own.echo.unwrap_or(false);
        let scores = asked.request.prompt_logprobs.is_some();
        if asked.beam_search.is_some() && (own.logprobs.is_some() || echo) {
            let message = "logprobs and echo do not work with use_beam_search; leave them out";
            return Err(ApiError::bad_request(message).param("use_beam_search"));
        }
        let max_tokens = sampling::longest(own.max_tokens, "max_tokens")?;
        asked.request.max_tokens = max_tokens;
        let mut prompts = own.prompt.prepare(model, asked.prompt_bound(model), cancel)?;
        for prompt in &mut prompts {
            prompt.truncate(&asked, model);
        }
        let as_fits = own.max_tokens == Some(-1);
        asked.request.max_tokens = max_tokens.or_else(|| {
            let longest = prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
            let room = model.engine().limits().room(longest);
            // Without room the engine says what is wrong.
            (room > 0 && !as_fits).then_some(DEFAULT_MAX_TOKENS.min(room))
        });
        asked.request.logprobs = own.logprobs;
        if echo && (own.logprobs.is_some() || own.max_tokens == Some(0)) {
            let asked_for = asked.request.prompt_logprobs.max(own.logprobs).unwrap_or(0);
            asked.request.prompt_logprobs = Some(asked_for);
        }
        Ok(Prepared { model: model.name().to_owned(), asked, prompts, echo, scores })
    }
}

impl Prompt {
    fn prepare(
        self,
        model: &ServedModel,
        max_tokens: usize,
        cancel: &Cancel,
    ) -> Result<Vec<PreparedPrompt>, ApiError> {
        let tokenizer = model.tokenizer();
        let encode = |text: String| {
            let options = EncodeOptions { add_special: true, parse_special: true };
            let tokens = model.encode_within(&text, options, max_tokens, cancel);
            let tokens = tokens.map_err(|error| error.or_param("prompt"))?;
            Ok(PreparedPrompt { text, tokens })
        };
        let decode =
            |tokens: Vec<u32>| PreparedPrompt { text: tokenizer.decode(&tokens, false), tokens };
        let count = match &self {
            Self::Text(_) => 1,
            // An empty list may be of anything: one of token ids comes after one of texts.
            Self::Texts(texts) => texts.len(),
            Self::Tokens(_) => 1,
            Self::TokenLists(lists) => lists.len(),
        };
        if !(1..=MAX_PROMPTS).contains(&count) {
            let message = format!("prompt has {count} prompts, expected 1 to {MAX_PROMPTS}");
            return Err(ApiError::bad_request(message).param("prompt"));
        }
        match self {
            Self::Text(text) => Ok(vec![encode(text)?]),
            Self::Texts(texts) => texts.into_iter().map(encode).collect(),
            Self::Tokens(tokens) => Ok(vec![decode(tokens)]),
            Self::TokenLists(lists) => Ok(lists.into_iter().map(decode).collect()),
        }
    }
}

impl PreparedPrompt {
    /// Keeps what the request keeps of long prompts.
    fn truncate(&mut self, asked: &Asked, model: &ServedModel) {
        let length = self.tokens.len();
        self.tokens = asked.truncated(std::mem::take(&mut self.tokens), model.engine().limits());
        if self.tokens.len() < length {
            self.text = model.tokenizer().decode(&self.tokens, false);
        }
    }

    /// Characters of the text before each token.
    fn offsets(&self, tokenizer: &Tokenizer) -> Vec<usize> {
        // A tokenizer may put a begin token before the text, which the text does not show.
        let shows_special = tokenizer.decode(&self.tokens, false) == self.text;
        let decoder = StreamDecoder::new(tokenizer);
        let mut decoder = if shows_special { decoder.with_special() } else { decoder };
        let length = self.text.chars().count();
        let mut before = 0;
        let offsets = self.tokens.iter().map(|&token| {
            let offset = before.min(length);
            before += decoder.push(token).chars().count();
            offset
        });
        offsets.collect()
    }
}

/// An answer on its way.
struct Completing {
    index: usize,
    names: TokenNames,
    logprobs: bool,
    token_ids: bool,
    /// Something was said, and so the tokens of the prompt.
    begun: bool,
    /// Stop tokens of the request.
    stop_tokens: Vec<u32>,
    /// The request asked for scores of the prompt beside its echo.
    scores: bool,
    /// Begins with the prompt.
    echo: bool,
    prompt: PreparedPrompt,
    /// Characters of an echo before each token of the prompt.
    offsets: Vec<usize>,
    /// Tokens of the prompt that have their scores; the first has none.
    scored: usize,
}

impl Completing {
    /// An empty chunk; the first tells the tokens of the prompt.
    fn next(&mut self) -> CompletionChoice {
        let first = !std::mem::replace(&mut self.begun, true);
        let prompt_token_ids = (first && self.token_ids).then(|| self.prompt.tokens.clone());
        CompletionChoice { prompt_token_ids, ..self.whole() }
    }

    /// Adds how probable tokens of the answer were, if the request asked.
    fn score(&self, choice: &mut CompletionChoice, tokens: &[AnswerToken]) {
        let Some(logprobs) = &mut choice.logprobs else { return };
        let before = if self.echo { self.prompt.text.chars().count() } else { 0 };
        for token in tokens {
            let offset = before + token.offset;
            logprobs.push(&self.names, token.id, token.logprobs.as_ref(), offset);
        }
    }
}

impl Choice for Completing {
    type Delta = CompletionChoice;
    type Whole = CompletionChoice;

    fn begin(&mut self) -> Option<CompletionChoice> {
        if !self.echo {
            return None;
        }
        let mut choice = self.next();
        choice.text.clone_from(&self.prompt.text);
        if let (Some(logprobs), Some(&first)) = (&mut choice.logprobs, self.prompt.tokens.first()) {
            // Nothing stands before the first token that would tell how probable it was.
            logprobs.push(&self.names, first, None, 0);
        }
        Some(choice)
    }

    fn push(&mut self, part: Part) -> Option<CompletionChoice> {
        let mut choice = self.next();
        match part {
            Part::Prompt(scores) => {
                let (first, begin) = (self.scored == 1, self.scored);
                let tokens = &self.prompt.tokens[begin..];
                if let Some(logprobs) = choice.logprobs.as_mut().filter(|_| self.echo) {
                    for ((&token, score), &offset) in
                        tokens.iter().zip(&scores).zip(&self.offsets[begin..])
                    {
                        logprobs.push(&self.names, token, Some(score), offset);
                    }
                }
                choice.prompt_logprobs = self
                    .scores
                    .then(|| PromptLogprobs::new(&self.names.tokenizer, tokens, &scores, first));
                self.scored += scores.len();
            }
            Part::Text(part) => {
                choice.text = part.text;
                if let Some(ids) = &mut choice.token_ids {
                    ids.extend(part.tokens.iter().map(|token| token.id));
                }
                self.score(&mut choice, &part.tokens);
            }
            Part::End(ending) => {
                choice.finish_reason = Some(ending.reason.name());
                choice.stop_reason = StopReason::of(&ending, &self.stop_tokens);
                // Clients that score texts tell the answer from the prompt by counting.
                if let Some(StoppedBy::Token(last)) = ending.stopped_by {
                    choice.token_ids.iter_mut().for_each(|ids| ids.push(last.id));
                    self.score(&mut choice, &[last]);
                }
            }
        }
        Some(choice)
    }

    fn whole(&self) -> CompletionChoice {
        CompletionChoice {
            text: String::new(),
            index: self.index,
            logprobs: self.logprobs.then(CompletionLogprobs::default),
            finish_reason: None,
            stop_reason: None,
            token_ids: self.token_ids.then(Vec::new),
            prompt_token_ids: None,
            prompt_logprobs: None,
        }
    }

    fn add(whole: &mut CompletionChoice, delta: CompletionChoice) {
        whole.text.push_str(&delta.text);
        whole.finish_reason = delta.finish_reason.or(whole.finish_reason);
        whole.stop_reason = delta.stop_reason.or(whole.stop_reason.take());
        whole.prompt_token_ids = delta.prompt_token_ids.or(whole.prompt_token_ids.take());
        if let (Some(whole), Some(later)) = (&mut whole.token_ids, delta.token_ids) {
            whole.extend(later);
        }
        if let (Some(whole), Some(later)) = (&mut whole.logprobs, delta.logprobs) {
            whole.extend(later);
        }
        if let Some(later) = delta.prompt_logprobs {
            whole.prompt_logprobs.get_or_insert_default().extend(later);
        }
    }
}
