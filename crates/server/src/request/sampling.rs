//! The fields that chat and completions share: how tokens are chosen, and when an answer ends.

use std::collections::HashSet;
use std::time::Duration;

use bantam_engine::{Request, SamplingParams};
use bantam_text::{Cancel, EncodeOptions, GrammarSpec};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::ServedModel;
use crate::answer::AnswerOptions;
use crate::error::ApiError;
use crate::request::allowed::AllowedTokens;
use crate::request::asked::{Asked, StreamUsage, Truncation};
use crate::request::structured::{self, ResponseFormat, StructuredOutputs};
use crate::request::tools::STRICT;
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
    /// The model's name; may be left out where one is served.
    pub(crate) model: Option<String>,
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
    /// `grammar` (Lark, or GBNF) and `json_object`.
    pub(crate) structured_outputs: Option<StructuredOutputs>,
    /// `structured_outputs.json` by its old name.
    #[schema(value_type = Option<Object>)]
    pub(crate) guided_json: Option<Value>,
    /// `structured_outputs.regex` by its old name.
    pub(crate) guided_regex: Option<String>,
    /// `structured_outputs.choice` by its old name.
    pub(crate) guided_choice: Option<Vec<String>>,
    /// `structured_outputs.grammar` by its old name.
    pub(crate) guided_grammar: Option<String>,
    /// `structured_outputs.json` as llama-server calls it.
    #[schema(value_type = Option<Object>)]
    pub(crate) json_schema: Option<Value>,
    /// `structured_outputs.grammar` as llama-server calls it.
    pub(crate) grammar: Option<String>,
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
    /// Only these tokens are chosen.
    pub(crate) allowed_token_ids: Option<Vec<u32>>,
    /// Same seed, same answer: an integer of 64 bits; drawn if not set.
    #[schema(value_type = Option<i64>)]
    pub(crate) seed: Option<Seed>,
    /// A text or up to 16: the answer ends before the first that appears. An empty text is none.
    pub(crate) stop: Option<OneOrMore>,
    /// Ends the answer after its stop string or stop token instead of before it.
    pub(crate) include_stop_str_in_output: Option<bool>,
    /// Tokens that end the answer, up to 1024.
    pub(crate) stop_token_ids: Option<Vec<u32>>,
    /// Tokens generated before a stop token may be chosen.
    pub(crate) min_tokens: Option<usize>,
    /// Goes on after the model's own end tokens.
    pub(crate) ignore_eos: Option<bool>,
    /// Shows special tokens if false; true if not set.
    pub(crate) skip_special_tokens: Option<bool>,
    /// Keeps the last tokens of a prompt, this many; -1 as many as leave room for the answer.
    pub(crate) truncate_prompt_tokens: Option<i64>,
    /// Shows the ids of the tokens of prompt and answer.
    pub(crate) return_token_ids: Option<bool>,
    /// Shows tokens of log-probabilities as `token_id:` and their ids.
    pub(crate) return_tokens_as_token_ids: Option<bool>,
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
pub(crate) struct StreamOptions {
    /// Ends the stream with a chunk that has no choices but the usage.
    pub(crate) include_usage: Option<bool>,
    /// Shows the usage so far in every chunk.
    pub(crate) continuous_usage_stats: Option<bool>,
}

impl StreamOptions {
    fn usage(self) -> StreamUsage {
        let last = self.include_usage.unwrap_or(false);
        match (self.continuous_usage_stats.unwrap_or(false), last) {
            (true, last) => StreamUsage::InEveryChunk { last },
            (false, true) => StreamUsage::AtTheEnd,
            (false, false) => StreamUsage::Nowhere,
        }
    }
}

/// 64 bits, with or without a sign.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged, expecting = "expected an integer of 64 bits")]
pub(crate) enum Seed {
    Signed(i64),
    Unsigned(u64),
}

impl Seed {
    const fn bits(self) -> u64 {
        match self {
            Self::Signed(seed) => seed as u64,
            Self::Unsigned(seed) => seed,
        }
    }
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
            Self::One(text) if text.is_empty() => Vec::new(),
            Self::One(text) => vec![text],
            Self::More(texts) => texts,
        }
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
        cancel: &Cancel,
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
        let compile = |(field, spec): (&str, GrammarSpec)| {
            // What is wrong with a required call is wrong with the tools.
            let field = if ["tool_choice", STRICT].contains(&field) { "tools" } else { field };
            model.grammar(&spec, cancel).map_err(|error| error.param(field))
        };
        let grammar = grammar.map(compile).transpose()?;
        let sampling = self.sampling(model)?;
        let truncation = self.truncate_prompt_tokens.map(truncation).transpose()?;
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
        let allowed =
            self.allowed_token_ids.map(|ids| AllowedTokens::new(&ids, model)).transpose()?;
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
            options: AnswerOptions {
                stop_strings,
                show_special,
                show_stop: self.include_stop_str_in_output.unwrap_or(false),
                shown: Vec::new(),
            },
            allowed,
            truncation,
            token_ids: self.return_token_ids.unwrap_or(false),
            tokens_as_ids: self.return_tokens_as_token_ids.unwrap_or(false),
            stream,
            stream_usage: self.stream_options.map(StreamOptions::usage).unwrap_or_default(),
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
    ) -> Result<Option<(&'static str, GrammarSpec)>, ApiError> {
        let response_format = self.response_format.take().map(ResponseFormat::into_spec);
        let structured = self.structured_outputs.take().map(StructuredOutputs::into_spec);
        let json = |field, value: Option<Value>| {
            let schema = value.map(|value| structured::schema(value, field)).transpose()?;
            Ok::<_, ApiError>(schema.map(|schema| (field, GrammarSpec::JsonSchema(schema))))
        };
        let grammar = |field, source: Option<String>| Some((field, structured::grammar(source?)));
        let guided = |field, spec: Option<GrammarSpec>| Some((field, spec?));
        let asked: Vec<(&'static str, GrammarSpec)> = [
            required,
            response_format.transpose()?.flatten().map(|spec| ("response_format", spec)),
            structured.transpose()?.map(|spec| ("structured_outputs", spec)),
            json("guided_json", self.guided_json.take())?,
            json("json_schema", self.json_schema.take())?,
            guided("guided_regex", self.guided_regex.take().map(GrammarSpec::Regex)),
            guided("guided_choice", self.guided_choice.take().map(GrammarSpec::Choice)),
            grammar("guided_grammar", self.guided_grammar.take()),
            grammar("grammar", self.grammar.take()),
        ]
        .into_iter()
        .flatten()
        .collect();
        if let [(first, _), (second, _), ..] = &asked[..] {
            let message = format!("{first} and {second} both ask for a form; leave out one");
            return Err(ApiError::bad_request(message).param(*second));
        }
        Ok(asked.into_iter().next())
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
            ("allowed_token_ids", self.allowed_token_ids.is_some()),
        ] {
            if set {
                let message = format!("{field} does not work with use_beam_search; leave out one");
                return Err(ApiError::bad_request(message).param("use_beam_search"));
            }
        }
        Ok(Some(self.length_penalty.unwrap_or(1.0)))
    }

    fn sampling(&self, model: &ServedModel) -> Result<SamplingParams, ApiError> {
        // A beam search looks at probabilities as they are.
        let plain = self.use_beam_search == Some(true);
        let default = if plain { SamplingParams::default() } else { model.sampling().clone() };
        let top_k = match self.top_k {
            None => default.top_k,
            Some(-1) => 0,
            Some(k) => usize::try_from(k).map_err(|_| {
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
            seed: self.seed.map_or_else(random, Seed::bits),
        })
    }
}

/// Tokens of an answer at most, as the field of this name says: -1 is as many as fit.
pub(crate) fn longest(tokens: Option<i64>, field: &str) -> Result<Option<usize>, ApiError> {
    let Some(tokens) = tokens.filter(|&tokens| tokens != -1) else { return Ok(None) };
    usize::try_from(tokens).map(Some).map_err(|_| {
        let message = format!("{field} is {tokens}, expected 1 or more, or -1 for as many as fit");
        ApiError::bad_request(message).param(field)
    })
}

fn truncation(tokens: i64) -> Result<Truncation, ApiError> {
    match usize::try_from(tokens) {
        Ok(count @ 1..) => Ok(Truncation::Last(count)),
        Err(_) if tokens == -1 => Ok(Truncation::ToFit),
        _ => {
            let message =
                format!("truncate_prompt_tokens is {tokens}, expected 1 or more, or -1 to fit");
            Err(ApiError::bad_request(message).param("truncate_prompt_tokens"))
        }
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
