//! From a question to its answers as output tensors: all at once, or chunk by chunk.

use std::sync::Arc;

use bantam_engine::RequestFailure;
use bantam_text::{Cancel, EncodeOptions, Tokenizer};
use futures_util::stream::{BoxStream, StreamExt};
use serde_json::Value;

use crate::ServedModel;
use crate::answer::{Answers, Part};
use crate::error::{ApiError, ErrorKind};
use crate::kserve::VERSION;
use crate::kserve::outputs::{OUTPUTS, Output, OutputRow, OutputTensor, Tally, Telling, Told};
use crate::kserve::question::Question;
use crate::openai::field_sets::COMPLETIONS;
use crate::record::Record;
use crate::request::ask::ask;
use crate::request::asked::Asked;
use crate::request::sampling::SamplingFields;
use crate::request::{fields, lists};
use crate::state::{AppState, ServerState};

/// Tokens of an answer if the request does not say, as in the vLLM back end.
const DEFAULT_MAX_TOKENS: u64 = 16;

/// The model of this name, and of this version: there is one.
pub(crate) fn model<'a>(
    state: &'a ServerState,
    name: &str,
    version: &str,
) -> Result<&'a ServedModel, ApiError> {
    let model = state.model(name)?;
    if version.is_empty() || version == VERSION {
        return Ok(model);
    }
    let shown: String = version.chars().take(64).collect();
    let message = format!("the model {name} has the version {VERSION} only, not {shown:?}");
    Err(ApiError::new(ErrorKind::NotFound, message))
}

/// A question that is checked and tokenized.
pub(crate) struct Generation {
    model: String,
    asked: Asked,
    prompts: Vec<(String, Vec<u32>)>,
    /// Whether answers begin with their prompts.
    echo: bool,
    outputs: Vec<&'static OutputRow>,
    /// How the answers lie.
    shape: Vec<usize>,
}

impl Generation {
    /// Checks a question and tokenizes its prompts: not for threads that serve connections.
    ///
    /// `outputs` names what to tell; if it names nothing, the texts and what flags ask for. With
    /// `rows` each prompt has a row of answers.
    pub(crate) fn prepare(
        state: &ServerState,
        model: &ServedModel,
        mut question: Question,
        outputs: &[&str],
        stream: bool,
        rows: bool,
        cancel: &Cancel,
    ) -> Result<Self, ApiError> {
        let outputs = wanted(&question, outputs)?;
        let (logprobs, max_tokens) = completion_fields(&mut question)?;
        question.completions.insert("model".to_owned(), model.name().into());
        question.completions.insert("stream".to_owned(), stream.into());
        lists::check(&question.completions).map_err(|error| question.in_its_words(error))?;
        let mut body = std::mem::take(&mut question.completions);
        let asked = COMPLETIONS
            .check(&mut body)
            .and_then(|()| fields::parse::<SamplingFields>(&Value::Object(body)))
            .and_then(|shared| shared.asked(state, model, None, cancel));
        let mut asked = asked.map_err(|error| question.in_its_words(error))?;
        asked.request.max_tokens = Some(max_tokens);
        asked.request.logprobs = logprobs.or_else(|| {
            let needed = outputs.iter().any(|row| row.output.needs_logprobs());
            (needed && asked.beam_search.is_none()).then_some(0)
        });
        match question.end_token {
            None => {}
            Some(-1) => asked.request.ignore_eos = true,
            Some(token) => asked.request.eos_tokens = vec![end_token(token)?],
        }
        check_logprobs(&asked, &outputs)?;
        let prompts = encode(model, question.prompts, cancel)?;
        let num_answers = prompts.len() * asked.n;
        if stream && num_answers > 1 {
            let message = format!(
                "a stream has one answer, and the request asks for {num_answers}; send one prompt \
                 with n of 1, or do not stream"
            );
            return Err(ApiError::bad_request(message).param("stream"));
        }
        let shape = if rows { vec![prompts.len(), asked.n] } else { vec![num_answers] };
        let echo = !question.exclude_input.unwrap_or(stream);
        Ok(Self { model: model.name().to_owned(), asked, prompts, echo, outputs, shape })
    }

    /// Asks the engine.
    pub(crate) async fn begin(
        self,
        state: &AppState,
        record: Arc<Record>,
    ) -> Result<Answering, ApiError> {
        let Self { model, asked, prompts, echo, outputs, shape } = self;
        let model = state.model(&model)?;
        let (texts, prompts): (Vec<String>, Vec<Vec<u32>>) = prompts.into_iter().unzip();
        let n = asked.n;
        let repeated = |index: usize| index / n;
        let num_answers = texts.len() * n;
        let num_input_tokens =
            (0..num_answers).map(|index| prompts[repeated(index)].len()).collect();
        let begin = |index: usize| {
            Told::beginning(if echo { texts[repeated(index)].clone() } else { String::new() })
        };
        let told = (0..num_answers).map(begin).collect();
        let (answers, _) = ask(model, &asked, prompts, &record).await?;
        let tallies = vec![Tally::default(); num_answers];
        let tokenizer = Arc::clone(model.tokenizer());
        Ok(Answering {
            answers,
            told,
            tallies,
            num_input_tokens,
            outputs,
            shape,
            tokenizer,
            record,
        })
    }
}

/// The outputs to tell: those named, else the texts and what flags ask for.
fn wanted(question: &Question, names: &[&str]) -> Result<Vec<&'static OutputRow>, ApiError> {
    if names.is_empty() {
        let flagged =
            |row: &&OutputRow| row.output == Output::Text || question.outputs.contains(&row.output);
        return Ok(OUTPUTS.iter().filter(flagged).collect());
    }
    let find = |name: &&str| {
        OUTPUTS.iter().find(|row| row.name == *name).ok_or_else(|| {
            let known: Vec<&str> = OUTPUTS.iter().map(|row| row.name).collect();
            let shown: String = name.chars().take(64).collect();
            let message =
                format!("there is no output {shown}, expected some of {}", known.join(", "));
            ApiError::bad_request(message).param("outputs")
        })
    };
    names.iter().map(find).collect()
}

/// The fields of completions that are not shared with chat: log probabilities, and the longest
/// answer.
fn completion_fields(question: &mut Question) -> Result<(Option<usize>, usize), ApiError> {
    let mut number = |name: &str, default: Option<u64>| {
        let Some(value) = question.completions.remove(name) else { return Ok(default) };
        value.as_u64().map(Some).ok_or_else(|| {
            let message = format!("{name} is {value}, expected an integer of 0 or more");
            ApiError::bad_request(message).param(name)
        })
    };
    let logprobs =
        number("logprobs", None)?.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    let max_tokens = number("max_tokens", Some(DEFAULT_MAX_TOKENS))?.unwrap_or_default();
    Ok((logprobs, usize::try_from(max_tokens).unwrap_or(usize::MAX)))
}

fn end_token(token: i64) -> Result<u32, ApiError> {
    u32::try_from(token).map_err(|_| {
        let message = format!("end_id is {token}, expected the id of a token, or -1 for none");
        ApiError::bad_request(message).param("end_id")
    })
}

/// Log probabilities must be shown if they are asked for, and be known if they are to be shown.
fn check_logprobs(asked: &Asked, outputs: &[&OutputRow]) -> Result<(), ApiError> {
    let shown = outputs.iter().any(|row| row.output.needs_logprobs());
    if asked.request.logprobs.is_some() && !shown {
        let message = "logprobs is set but no output shows any; set return_logprobs to true";
        return Err(ApiError::bad_request(message).param("logprobs"));
    }
    let of_tokens =
        |row: &&&OutputRow| matches!(row.output, Output::Logprobs | Output::TokenLogProbs);
    let unknown = outputs.iter().find(of_tokens).map(|row| row.name);
    let unknown = unknown.or(asked.request.logprobs.map(|_| "logprobs"));
    if let (Some(_), Some(name)) = (asked.beam_search, unknown) {
        let message = format!(
            "{name} is not known in a beam search, which tells cumulative_logprob; leave out one"
        );
        return Err(ApiError::bad_request(message).param(name));
    }
    Ok(())
}

fn encode(
    model: &ServedModel,
    prompts: Vec<String>,
    cancel: &Cancel,
) -> Result<Vec<(String, Vec<u32>)>, ApiError> {
    let options = EncodeOptions { add_special: true, parse_special: true };
    let encode = |text: String| {
        let tokens = model.encode(&text, options, cancel)?;
        Ok((text, tokens))
    };
    prompts.into_iter().map(encode).collect()
}

/// Answers under way.
pub(crate) struct Answering {
    answers: Answers,
    /// What is to be told next.
    told: Vec<Told>,
    tallies: Vec<Tally>,
    /// Tokens of the prompt of each answer.
    num_input_tokens: Vec<usize>,
    outputs: Vec<&'static OutputRow>,
    shape: Vec<usize>,
    tokenizer: Arc<Tokenizer>,
    /// What is noted about the request.
    pub(crate) record: Arc<Record>,
}

/// The next of a stream's responses.
pub(crate) struct Chunk {
    pub(crate) outputs: Vec<OutputTensor>,
    /// The last has no text but that of an echo.
    #[cfg_attr(not(feature = "grpc"), expect(dead_code, reason = "events end with their stream"))]
    pub(crate) is_last: bool,
}

impl Answering {
    /// Waits for everything.
    pub(crate) async fn whole(mut self) -> Result<Vec<OutputTensor>, ApiError> {
        while let Some((index, part)) = self.answers.next().await {
            self.add(index, part)?;
        }
        Ok(self.tell())
    }

    /// What comes, as it comes: together it says the same as the whole.
    pub(crate) fn chunks(self) -> BoxStream<'static, Result<Chunk, ApiError>> {
        let chunks = futures_util::stream::unfold(Some(self), |answering| async move {
            let mut answering = answering?;
            let (index, part) = answering.answers.next().await?;
            let is_last = matches!(part, Ok(Part::End(_)));
            if let Err(error) = answering.add(index, part) {
                return Some((Err(error), None));
            }
            let outputs = answering.tell();
            Some((Ok(Chunk { outputs, is_last }), Some(answering)))
        });
        chunks.boxed()
    }

    fn add(&mut self, index: usize, part: Result<Part, RequestFailure>) -> Result<(), ApiError> {
        self.told[index].add(part?, &mut self.tallies[index]);
        Ok(())
    }

    /// Tells what has come since the last time.
    fn tell(&mut self) -> Vec<OutputTensor> {
        let num_answers = self.told.len();
        let told = std::mem::replace(&mut self.told, vec![Told::default(); num_answers]);
        let telling = Telling {
            told: &told,
            tallies: &self.tallies,
            num_input_tokens: &self.num_input_tokens,
            tokenizer: &self.tokenizer,
        };
        self.outputs.iter().map(|row| telling.tensor(row, &self.shape)).collect()
    }
}
