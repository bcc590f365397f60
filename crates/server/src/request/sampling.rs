//! The fields that chat and completions share: how tokens are chosen, and when an answer ends.

use std::collections::HashSet;
use std::time::Duration;

use bantam_engine::{Request, SamplingParams, Submission};
use bantam_text::{EncodeOptions, Grammar, GrammarSpec};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::ServedModel;
use crate::answer::AnswerOptions;
use crate::error::ApiError;
use crate::request::structured::{ResponseFormat, StructuredOutputs};
use crate::request_id::random;
use crate::state::ServerState;

/// Stop strings at most.
const MAX_STOPS: usize = 16;

/// What a request may take in a server without a limit of its own.
const A_DAY: Duration = Duration::from_hours(24);

/// Answers to one prompt at most.
const MAX_N: usize = 128;

/// How tokens are chosen, and when an answer ends.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub(crate) struct SamplingFields {
    /// The model's name.
    pub(crate) model: String,
    /// Answers to each prompt; 1 to 128, 1 if not set.
    pub(crate) n: Option<usize>,
    /// Answers made for each prompt, of which the `n` of the highest mean log-probability are
    /// returned; `n` if not set. The width of a beam search.
    pub(crate) best_of: Option<usize>,
    /// Searches for the most probable answers instead of drawing them.
    pub(crate) use_beam_search: Option<bool>,
    /// Power of the length by which a beam's log-probability is divided, -10 to 10; 1 if not set. Only
    /// with `use_beam_search`.
    pub(crate) length_penalty: Option<f64>,
    /// The form of the answer: text, any JSON object, or JSON that satisfies a schema.
    pub(crate) response_format: Option<ResponseFormat>,
    /// The form of the answer: one of `json` (a schema), `regex`, `choice` (a list of texts),
    /// `grammar` (Lark) and `json_object`.
    pub(crate) structured_outputs: Option<StructuredOutputs>,
    /// Tells how probable each token of the prompt was, and this many alternatives. Not with
    /// `stream`.
    pub(crate) prompt_logprobs: Option<usize>,
    /// Sends the answer as it is made.
    pub(crate) stream: Option<bool>,
    /// Only with `stream`.
    pub(crate) stream_options: Option<StreamOptions>,
    /// Divides the logits, 0 to 100; 0 always takes the most probable token. 1 if not set.
    pub(crate) temperature: Option<f32>,
    /// Probability that the kept tokens reach together, more than 0 and at most 1.
    pub(crate) top_p: Option<f32>,
    /// Tokens kept, most probable first; 0 or -1 keeps all.
    pub(crate) top_k: Option<i64>,
    /// Probability of a kept token relative to the most probable one, 0 to 1.
    pub(crate) min_p: Option<f32>,
    /// Locally typical sampling, more than 0 and at most 1.
    pub(crate) typical_p: Option<f32>,
    /// Factor against tokens of the prompt and the answer, 0.01 to 100; 1 has no effect.
    pub(crate) repetition_penalty: Option<f32>,
    /// Subtracted from the logit of a token that is in the answer already, -2 to 2.
    pub(crate) presence_penalty: Option<f32>,
    /// Subtracted from a token's logit for each time it is in the answer already, -2 to 2.
    pub(crate) frequency_penalty: Option<f32>,
    /// Added to the logits of tokens: token ids to numbers from -100 to 100.
    #[schema(value_type = Option<std::collections::HashMap<String, f32>>)]
    pub(crate) logit_bias: Option<Map<String, Value>>,
    /// Texts that never appear in the answer, by the tokens that spell them.
    pub(crate) bad_words: Option<Vec<String>>,
    /// Same seed, same answer; drawn if not set.
    pub(crate) seed: Option<i64>,
    /// A text or up to 16: the answer ends before the first that appears.
    pub(crate) stop: Option<OneOrMore>,
    /// Tokens that end the answer, up to 1024.
    pub(crate) stop_token_ids: Option<Vec<u32>>,
    /// Tokens generated before a stop token may be chosen.
    pub(crate) min_tokens: Option<usize>,
    /// Goes on after the model's own end tokens.
    pub(crate) ignore_eos: Option<bool>,
    /// Shows special tokens if false; true if not set.
    pub(crate) skip_special_tokens: Option<bool>,
    /// Requests with a lower number go first; 0 if not set.
    pub(crate) priority: Option<i32>,
    /// Seconds after which the request fails, more than 0 and at most the server's
    /// `--request-timeout`.
    pub(crate) timeout: Option<f64>,
    /// Only requests with the same salt share cached prompts.
    pub(crate) cache_salt: Option<String>,
    /// A name for the log.
    pub(crate) user: Option<String>,
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

/// What the fields ask of the engine, for any prompt.
pub(crate) struct Asked {
    /// A request without prompt.
    pub(crate) request: Request,
    /// The form of the answers.
    pub(crate) grammar: Option<Grammar>,
    /// Answers returned for each prompt.
    pub(crate) n: usize,
    /// Answers made for each prompt.
    pub(crate) best_of: usize,
    /// The length penalty of a beam search; none if answers are drawn.
    pub(crate) beam_search: Option<f64>,
    pub(crate) options: AnswerOptions,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) user: Option<String>,
}

impl Asked {
    /// The requests for the answers to a prompt.
    pub(crate) fn submissions(&self, prompt: Vec<u32>) -> impl Iterator<Item = Submission> + '_ {
        let request = Request { prompt, ..self.request.clone() };
        let samples: Vec<Request> = request.samples(self.best_of).collect();
        samples.into_iter().map(|request| match &self.grammar {
            Some(grammar) => request.constrained(Box::new(grammar.matcher())),
            None => request.into(),
        })
    }
}

impl SamplingFields {
    /// Checks the fields and translates them. `required` is a form that another field asks for, and
    /// which.
    pub(crate) fn asked(
        mut self,
        state: &ServerState,
        model: &ServedModel,
        required: Option<(&'static str, GrammarSpec)>,
    ) -> Result<Asked, ApiError> {
        let (n, best_of) = self.counts()?;
        let stream = self.stream.unwrap_or(false);
        if self.stream_options.is_some() && !stream {
            let message = "stream_options is set without stream; leave it out, or stream";
            return Err(ApiError::bad_request(message).param("stream_options"));
        }
        let grammar = self.grammar(required)?;
        let beam_search = self.beam_search(grammar.is_some())?;
        for (field, set) in [
            ("use_beam_search", beam_search.is_some()),
            ("best_of", best_of > n),
            ("prompt_logprobs", self.prompt_logprobs.is_some()),
        ] {
            if set && stream {
                let message = format!("{field} works on whole answers; leave out it or stream");
                return Err(ApiError::bad_request(message).param(field));
            }
        }
        let grammar = grammar.map(|spec| model.grammar(&spec)).transpose()?;
        let sampling = self.sampling(model)?;
        let deadline = match self.timeout {
            None => state.options.deadline,
            Some(seconds) => Some(deadline(seconds, state.options.deadline)?),
        };
        let request = Request {
            sampling,
            prompt_logprobs: self.prompt_logprobs,
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
            grammar,
            n,
            best_of,
            beam_search,
            options: AnswerOptions { stop_strings, show_special, shown: Vec::new() },
            stream,
            include_usage: self.stream_options.is_some_and(|options| options.include_usage),
            user: self.user,
        })
    }

    /// Answers returned, and answers made.
    fn counts(&self) -> Result<(usize, usize), ApiError> {
        let n = self.n.unwrap_or(1);
        let best_of = self.best_of.unwrap_or(n);
        for (field, got, least) in [("n", n, 1), ("best_of", best_of, n)] {
            if !(least..=MAX_N).contains(&got) {
                let message = format!("{field} is {got}, expected {least} to {MAX_N}");
                return Err(ApiError::bad_request(message).param(field));
            }
        }
        Ok((n, best_of))
    }

    /// The form of the answer: one field may ask for one.
    fn grammar(
        &mut self,
        required: Option<(&'static str, GrammarSpec)>,
    ) -> Result<Option<GrammarSpec>, ApiError> {
        let response_format = self.response_format.take().and_then(ResponseFormat::into_spec);
        let structured = self.structured_outputs.take().map(StructuredOutputs::into_spec);
        let asked: Vec<(&str, GrammarSpec)> = [
            required,
            response_format.map(|spec| ("response_format", spec)),
            structured.transpose()?.map(|spec| ("structured_outputs", spec)),
        ]
        .into_iter()
        .flatten()
        .collect();
        if let [(first, _), (second, _), ..] = &asked[..] {
            let message = format!("{first} and {second} both ask for a form; leave out one");
            return Err(ApiError::bad_request(message).param(*second));
        }
        Ok(asked.into_iter().next().map(|(_, spec)| spec))
    }

    /// The length penalty, if beams are searched.
    fn beam_search(&self, constrained: bool) -> Result<Option<f64>, ApiError> {
        if !self.use_beam_search.unwrap_or(false) {
            let unused = self.length_penalty.filter(|&penalty| penalty != 1.0);
            return unused.map_or(Ok(None), |_| {
                let message = "length_penalty is set without use_beam_search; leave it out";
                Err(ApiError::bad_request(message).param("length_penalty"))
            });
        }
        // A beam search looks at probabilities alone.
        for (field, set) in [
            ("temperature", self.temperature.is_some_and(|t| t != 0.0 && t != 1.0)),
            ("top_p", self.top_p.is_some_and(|p| p != 1.0)),
            ("top_k", self.top_k.is_some_and(|k| k > 0)),
            ("min_p", self.min_p.is_some_and(|p| p != 0.0)),
            ("typical_p", self.typical_p.is_some_and(|p| p != 1.0)),
            ("repetition_penalty", self.repetition_penalty.is_some_and(|p| p != 1.0)),
            ("presence_penalty", self.presence_penalty.is_some_and(|p| p != 0.0)),
            ("frequency_penalty", self.frequency_penalty.is_some_and(|p| p != 0.0)),
            ("logit_bias", self.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty())),
            ("bad_words", self.bad_words.as_ref().is_some_and(|words| !words.is_empty())),
            ("min_tokens", self.min_tokens.is_some_and(|least| least > 0)),
            ("prompt_logprobs", self.prompt_logprobs.is_some()),
            ("stop", self.stop.is_some()),
            ("a required form", constrained),
        ] {
            if set {
                let message = format!("{field} does not work with use_beam_search; leave out one");
                return Err(ApiError::bad_request(message).param("use_beam_search"));
            }
        }
        Ok(Some(self.length_penalty.unwrap_or(1.0)))
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

/// A time that a request may take, in a server where none takes longer than `longest`.
fn deadline(seconds: f64, longest: Option<Duration>) -> Result<Duration, ApiError> {
    let longest = longest.unwrap_or(A_DAY);
    let asked = Duration::try_from_secs_f64(seconds).ok();
    asked.filter(|time| !time.is_zero() && *time <= longest).ok_or_else(|| {
        let most = longest.as_secs_f64();
        let message =
            format!("timeout is {seconds}, expected seconds, more than 0 and at most {most}");
        ApiError::bad_request(message).param("timeout")
    })
}

fn logit_bias(biases: Option<&Map<String, Value>>) -> Result<Vec<(u32, f32)>, ApiError> {
    let read = |(token, bias): (&String, &Value)| {
        let id = token.parse().ok();
        // Infinity excludes a token, and JSON has none: a huge number must not become one.
        let (least, most) = (f64::from(f32::MIN), f64::from(f32::MAX));
        let bias = bias.as_f64().map(|bias| bias.clamp(least, most) as f32);
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
    let mut known = HashSet::new();
    let mut spellings: Vec<Vec<u32>> = Vec::new();
    for word in words {
        for text in [word.clone(), format!(" {word}")] {
            let spelling = model.tokenizer().encode(&text, EncodeOptions::default())?;
            if !spelling.is_empty() && known.insert(spelling.clone()) {
                spellings.push(spelling);
            }
        }
    }
    Ok(spellings)
}
