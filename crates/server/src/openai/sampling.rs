//! The fields that chat and completions share: how tokens are chosen, and when an answer ends.

use std::time::Duration;

use bantam_engine::{Request, SamplingParams};
use bantam_text::EncodeOptions;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::ServedModel;
use crate::answer::AnswerOptions;
use crate::error::ApiError;
use crate::request_id::random;
use crate::state::ServerState;

/// Stop strings at most.
const MAX_STOPS: usize = 16;

/// Answers to one prompt at most.
const MAX_N: usize = 128;

/// How tokens are chosen, and when an answer ends.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub(crate) struct SamplingFields {
    /// The model's name.
    pub(crate) model: String,
    /// Answers to each prompt; 1 to 128, 1 if not set.
    n: Option<usize>,
    /// Sends the answer as it is made.
    pub(crate) stream: Option<bool>,
    /// Only with `stream`.
    pub(crate) stream_options: Option<StreamOptions>,
    /// Divides the logits; 0 always takes the most probable token. 1 if not set.
    temperature: Option<f32>,
    /// Probability that the kept tokens reach together, more than 0 and at most 1.
    top_p: Option<f32>,
    /// Tokens kept, most probable first; 0 or -1 keeps all.
    top_k: Option<i64>,
    /// Probability of a kept token relative to the most probable one, 0 to 1.
    min_p: Option<f32>,
    /// Locally typical sampling, more than 0 and at most 1.
    typical_p: Option<f32>,
    /// Factor against tokens of the prompt and the answer, more than 0; 1 has no effect.
    repetition_penalty: Option<f32>,
    /// Subtracted from the logit of a token that is in the answer already.
    presence_penalty: Option<f32>,
    /// Subtracted from a token's logit for each time it is in the answer already.
    frequency_penalty: Option<f32>,
    /// Added to the logits of tokens: token ids to numbers.
    #[schema(value_type = Option<std::collections::HashMap<String, f32>>)]
    logit_bias: Option<Map<String, Value>>,
    /// Texts that never appear in the answer, by the tokens that spell them.
    bad_words: Option<Vec<String>>,
    /// Same seed, same answer; drawn if not set.
    seed: Option<i64>,
    /// A text or up to 16: the answer ends before the first that appears.
    stop: Option<OneOrMore>,
    /// Tokens that end the answer.
    stop_token_ids: Option<Vec<u32>>,
    /// Tokens generated before a stop token may be chosen.
    min_tokens: Option<usize>,
    /// Goes on after the model's own end tokens.
    ignore_eos: Option<bool>,
    /// Shows special tokens if false; true if not set.
    skip_special_tokens: Option<bool>,
    /// Requests with a lower number go first; 0 if not set.
    priority: Option<i32>,
    /// Seconds after which the request fails.
    timeout: Option<f64>,
    /// Only requests with the same salt share cached prompts.
    cache_salt: Option<String>,
    /// A name for the log.
    user: Option<String>,
}

/// What a stream says besides the answer.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamOptions {
    /// Ends the stream with a chunk that has no choices but the usage.
    #[serde(default)]
    pub(crate) include_usage: bool,
}

/// A text or several.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub(crate) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::More(texts) => texts,
        }
    }
}

/// What the shared fields ask of the engine, for any prompt.
pub(crate) struct Asked {
    /// A request without prompt.
    pub(crate) request: Request,
    pub(crate) n: usize,
    pub(crate) options: AnswerOptions,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) user: Option<String>,
}

impl SamplingFields {
    /// Checks the fields and translates them.
    pub(crate) fn asked(
        self,
        state: &ServerState,
        model: &ServedModel,
        max_tokens: Option<usize>,
    ) -> Result<Asked, ApiError> {
        let n = self.n.unwrap_or(1);
        if !(1..=MAX_N).contains(&n) {
            let message = format!("n is {n}, expected 1 to {MAX_N}");
            return Err(ApiError::bad_request(message).param("n"));
        }
        let stream = self.stream.unwrap_or(false);
        if self.stream_options.is_some() && !stream {
            let message =
                "stream_options is set without stream; set stream to true, or leave it out";
            return Err(ApiError::bad_request(message).param("stream_options"));
        }
        let sampling = self.sampling(model)?;
        let deadline = match self.timeout {
            None => state.options.deadline,
            Some(seconds) => Some(deadline(seconds)?),
        };
        let request = Request {
            sampling,
            max_tokens,
            min_tokens: self.min_tokens.unwrap_or(0),
            stop_tokens: self.stop_token_ids.unwrap_or_default(),
            eos_tokens: model.tokenizer().eos().to_vec(),
            ignore_eos: self.ignore_eos.unwrap_or(false),
            priority: self.priority.unwrap_or(0),
            deadline,
            salt: self.cache_salt.map_or(0, |salt| state.salt(&salt)),
            ..Request::new(Vec::new())
        };
        let stop_strings = self.stop.map(OneOrMore::into_vec).unwrap_or_default();
        if stop_strings.len() > MAX_STOPS {
            let message =
                format!("stop has {} texts, expected at most {MAX_STOPS}", stop_strings.len());
            return Err(ApiError::bad_request(message).param("stop"));
        }
        if stop_strings.iter().any(String::is_empty) {
            let message = "stop has an empty text, which ends nothing; leave it out";
            return Err(ApiError::bad_request(message).param("stop"));
        }
        let show_special = !self.skip_special_tokens.unwrap_or(true);
        Ok(Asked {
            request,
            n,
            options: AnswerOptions { stop_strings, show_special },
            stream,
            include_usage: self.stream_options.is_some_and(|options| options.include_usage),
            user: self.user,
        })
    }

    fn sampling(&self, model: &ServedModel) -> Result<SamplingParams, ApiError> {
        let default = SamplingParams::default();
        let top_k = match self.top_k.unwrap_or(0) {
            -1 => 0,
            k => usize::try_from(k).map_err(|_| {
                let message = format!("top_k is {k}, expected 0 or more; 0 keeps every token");
                ApiError::bad_request(message).param("top_k")
            })?,
        };
        Ok(SamplingParams {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_k,
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            typical_p: self.typical_p.unwrap_or(default.typical_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            logit_bias: logit_bias(self.logit_bias.as_ref())?,
            bad_words: bad_words(model, self.bad_words.as_deref().unwrap_or_default())?,
            seed: self.seed.map_or_else(random, |seed| seed as u64),
        })
    }
}

fn deadline(seconds: f64) -> Result<Duration, ApiError> {
    let duration = Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero());
    duration.ok_or_else(|| {
        let message = format!("timeout is {seconds}, expected seconds, more than 0");
        ApiError::bad_request(message).param("timeout")
    })
}

fn logit_bias(biases: Option<&Map<String, Value>>) -> Result<Vec<(u32, f32)>, ApiError> {
    let read = |(token, bias): (&String, &Value)| {
        let id = token.parse().ok();
        let bias = bias.as_f64().map(|bias| bias as f32);
        id.zip(bias).ok_or_else(|| {
            let message = format!(
                "logit_bias has the entry {token:?}, expected token ids with numbers: \
                 {{\"1234\": -100}}"
            );
            ApiError::bad_request(message).param("logit_bias")
        })
    };
    biases.into_iter().flatten().map(read).collect()
}

/// The tokens that spell each word, at the beginning of a text and after a space.
fn bad_words(model: &ServedModel, words: &[String]) -> Result<Vec<Vec<u32>>, ApiError> {
    let mut spellings: Vec<Vec<u32>> = Vec::new();
    for word in words {
        for text in [word.clone(), format!(" {word}")] {
            let spelling = model.tokenizer().encode(&text, EncodeOptions::default())?;
            if !spelling.is_empty() && !spellings.contains(&spelling) {
                spellings.push(spelling);
            }
        }
    }
    Ok(spellings)
}
