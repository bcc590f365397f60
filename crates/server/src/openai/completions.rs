//! `/v1/completions`: text goes on.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use bantam_engine::Request;
use bantam_text::{EncodeOptions, Tokenizer};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ServedModel;
use crate::answer::{Part, TextPart};
use crate::body::JsonBytes;
use crate::error::ApiError;
use crate::openai::fields;
use crate::openai::logprobs::CompletionLogprobs;
use crate::openai::reply::{Choice, Kind, Replying};
use crate::openai::sampling::{Asked, SamplingFields};
use crate::openai::usage::Usage;
use crate::record::Record;
use crate::state::{AppState, ServerState};

/// Tokens of an answer if the request does not say, as OpenAI has it.
const DEFAULT_MAX_TOKENS: usize = 16;

const KIND: Kind = Kind { id: "cmpl", whole: "text_completion", chunk: "text_completion" };

/// A text to continue.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct CompletionFields {
    /// A text, a list of texts, the ids of a text's tokens, or a list of such lists.
    prompt: Prompt,
    /// Tokens of each answer at most; 16 if not set.
    max_tokens: Option<usize>,
    /// Begins the answer with the prompt.
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
}

/// A request that is checked and tokenized.
struct Prepared {
    asked: Asked,
    prompts: Vec<PreparedPrompt>,
    echo: bool,
}

struct PreparedPrompt {
    text: String,
    tokens: Vec<u32>,
}

/// Continues texts.
pub(crate) async fn create(
    State(state): State<AppState>,
    Extension(record): Extension<Arc<Record>>,
    JsonBytes(bytes): JsonBytes,
) -> Result<Response, ApiError> {
    let (model, prepared) = state.prepare(move |state| prepare(state, &bytes)).await?;
    let model = state.model(&model)?;
    let Prepared { asked, prompts, echo } = prepared;
    let usage = Usage::of_prompts(prompts.iter().map(|prompt| prompt.tokens.len()).sum());
    record.asked(model.name(), usage.prompt_tokens);
    asked.user.iter().for_each(|user| record.user(user));
    let (mut submissions, mut choices) = (Vec::new(), Vec::new());
    for PreparedPrompt { text, tokens } in prompts {
        let request = Request { prompt: tokens, ..asked.request.clone() };
        for request in request.samples(asked.n) {
            choices.push(Completing {
                index: choices.len(),
                tokenizer: Arc::clone(model.tokenizer()),
                logprobs: asked.request.logprobs.is_some(),
                echo: echo.then(|| text.clone()),
            });
            submissions.push(request.into());
        }
    }
    let answers = model.ask(submissions, &asked.options, &record)?;
    let answers = answers.into_iter().zip(choices).collect();
    let replying = Replying::new(KIND, model.name(), answers, asked.n, usage, record);
    if asked.stream { Ok(replying.stream(asked.include_usage)) } else { replying.whole().await }
}

fn prepare(state: &ServerState, bytes: &[u8]) -> Result<(String, Prepared), ApiError> {
    let body = fields::read(bytes)?;
    let shared: SamplingFields = fields::parse(&body)?;
    let own: CompletionFields = fields::parse(&body)?;
    let model = state.model(&shared.model)?;
    let max_tokens = own.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
    let mut asked = shared.asked(state, model, Some(max_tokens))?;
    asked.request.logprobs = own.logprobs;
    let prompts = own.prompt.prepare(model)?;
    Ok((model.name().to_owned(), Prepared { asked, prompts, echo: own.echo.unwrap_or(false) }))
}

impl Prompt {
    fn prepare(self, model: &ServedModel) -> Result<Vec<PreparedPrompt>, ApiError> {
        let tokenizer = model.tokenizer();
        let encode = |text: String| {
            let options = EncodeOptions { add_special: true, parse_special: true };
            let tokens = tokenizer.encode(&text, options)?;
            Ok(PreparedPrompt { text, tokens })
        };
        let decode =
            |tokens: Vec<u32>| PreparedPrompt { text: tokenizer.decode(&tokens, false), tokens };
        match self {
            Self::Text(text) => Ok(vec![encode(text)?]),
            Self::Texts(texts) => texts.into_iter().map(encode).collect(),
            Self::Tokens(tokens) => Ok(vec![decode(tokens)]),
            Self::TokenLists(lists) => Ok(lists.into_iter().map(decode).collect()),
        }
    }
}

/// An answer on its way.
struct Completing {
    index: usize,
    tokenizer: Arc<Tokenizer>,
    logprobs: bool,
    echo: Option<String>,
}

impl Completing {
    fn choice(&self) -> CompletionChoice {
        let logprobs = self.logprobs.then(CompletionLogprobs::default);
        CompletionChoice { text: String::new(), index: self.index, logprobs, finish_reason: None }
    }
}

impl Choice for Completing {
    type Delta = CompletionChoice;
    type Whole = CompletionChoice;

    fn begin(&mut self) -> Option<CompletionChoice> {
        self.echo.clone().map(|text| CompletionChoice { text, ..self.choice() })
    }

    fn push(&mut self, part: &Part) -> Result<Option<CompletionChoice>, ApiError> {
        let mut choice = self.choice();
        match part {
            Part::Text(TextPart { text, tokens }) => {
                choice.text.clone_from(text);
                if let Some(logprobs) = &mut choice.logprobs {
                    let offset = self.echo.as_ref().map_or(0, |echo| echo.chars().count());
                    logprobs.push(&self.tokenizer, tokens, offset);
                }
            }
            Part::Prompt(_) => return Ok(None),
            Part::End(ending) => choice.finish_reason = Some(ending.reason.name()),
        }
        Ok(Some(choice))
    }

    fn whole(&self) -> CompletionChoice {
        self.choice()
    }

    fn add(whole: &mut CompletionChoice, delta: CompletionChoice) {
        whole.text.push_str(&delta.text);
        whole.finish_reason = delta.finish_reason.or(whole.finish_reason);
        if let (Some(whole), Some(delta)) = (&mut whole.logprobs, delta.logprobs) {
            whole.extend(delta);
        }
    }
}
