//! One request from prompt to finish.

use std::ops::ControlFlow;
use std::time::Instant;

use bantam_backend::Batch;
use bantam_text::{StopStrings, StreamDecoder, Tokenizer};

use crate::request::check_prompt;
use crate::{EngineError, Executor, Sampler, SamplingContext, SamplingParams};

/// What to generate, and when to stop.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateRequest {
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Tokens generated at most; none for as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Tokens that end the answer, usually [`Tokenizer::eos`]; they add nothing to the text.
    pub stop_tokens: Vec<u32>,
    /// Texts that end the answer; the answer ends before them.
    pub stop_strings: Vec<String>,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token or a stop string.
    Stop,
    /// The allowed number of tokens, or the end of the context.
    Length,
    /// The reader asked to stop.
    Cancelled,
}

impl FinishReason {
    /// The name used in JSON: `stop`, `length` or `cancelled`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Where the time went, in seconds of wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Tokens of the prompt that were computed.
    pub prefill_tokens: usize,
    /// From the start until the first token was chosen: the time to first token.
    pub prefill_seconds: f64,
    /// Tokens chosen after the first, one step each.
    pub decode_tokens: usize,
    /// From the first token to the last.
    pub decode_seconds: f64,
}

impl Timings {
    /// Prompt tokens per second; 0 when nothing was measured.
    #[must_use]
    pub fn prefill_rate(&self) -> f64 {
        rate(self.prefill_tokens, self.prefill_seconds)
    }

    /// Generated tokens per second; 0 when nothing was measured.
    #[must_use]
    pub fn decode_rate(&self) -> f64 {
        rate(self.decode_tokens, self.decode_seconds)
    }
}

fn rate(tokens: usize, seconds: f64) -> f64 {
    if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 }
}

/// A finished answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Every token chosen, a stop token included.
    pub tokens: Vec<u32>,
    /// Their text, special tokens left out, cut before a stop string.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Where the time went.
    pub timings: Timings,
}

/// Answers one request, alone.
///
/// `on_text` is called after every step with the text that the step completed. That is often empty:
/// a step may be part of the prompt, end inside a character, or hold back what may become a stop
/// string. Returning [`ControlFlow::Break`] cancels: the answer so far is returned, and `on_text` is
/// not called again.
///
/// # Errors
/// Before any step: a prompt that is empty, too long or not of this vocabulary, or a sampling
/// parameter out of range. Later: a failing device, or logits that are not numbers.
pub fn generate(
    executor: &mut dyn Executor,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    request: &GenerateRequest,
    on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Generation, EngineError> {
    let limits = executor.limits();
    check_prompt(prompt, &limits)?;
    let mut sampler = Sampler::new(request.sampling.clone())?;
    let mut output = Output::new(tokenizer, &request.stop_strings);

    let room = limits.context - prompt.len();
    let max_tokens = request.max_tokens.map_or(room, |asked| asked.min(room));
    let block_table = limits.all_blocks();
    let mut tokens = prompt.to_vec();
    let mut num_computed = 0;
    let mut batch = Batch::default();
    let mut clock = Clock::start();

    // Each step brings num_computed closer to the number of tokens, within the token budget; when
    // it has caught up there are logits to choose the next token from.
    let finish_reason = loop {
        if tokens.len() == prompt.len() + max_tokens {
            break FinishReason::Length;
        }
        let end = tokens.len().min(num_computed + limits.max_batch_tokens);
        batch.clear();
        batch.push(&tokens[num_computed..end], num_computed, &block_table)?;
        let caught_up = end == tokens.len();
        if caught_up {
            batch.want_last_logits();
        }
        let logits = executor.forward(&batch)?;
        num_computed = end;

        let (text, stopped) = if caught_up {
            let context = SamplingContext {
                tokens: &tokens,
                num_prompt: prompt.len(),
                excluded: &[],
                allowed: None,
            };
            let token = sampler.choose(&logits, &context)?;
            tokens.push(token);
            clock.token_chosen();
            let is_stop_token = request.stop_tokens.contains(&token);
            output.push(token, is_stop_token)
        } else {
            (String::new(), false)
        };
        let cancelled = on_text(&text).is_break();
        if stopped {
            break FinishReason::Stop;
        }
        if cancelled {
            break FinishReason::Cancelled;
        }
    };

    let held_back = output.finish();
    if finish_reason != FinishReason::Cancelled && !held_back.is_empty() {
        // Nothing is left to cancel.
        let _ = on_text(&held_back);
    }
    tokens.drain(..prompt.len());
    let timings = clock.timings(num_computed.min(prompt.len()), tokens.len());
    Ok(Generation { tokens, text: output.text, finish_reason, timings })
}

/// The text of an answer while it grows.
struct Output<'t> {
    decoder: StreamDecoder<&'t Tokenizer>,
    stops: StopStrings,
    text: String,
}

impl<'t> Output<'t> {
    fn new(tokenizer: &'t Tokenizer, stop_strings: &[String]) -> Self {
        let stops = StopStrings::new(stop_strings.to_vec());
        Self { decoder: StreamDecoder::new(tokenizer), stops, text: String::new() }
    }

    /// The text that a token completes, and whether the answer is over.
    fn push(&mut self, token: u32, is_stop_token: bool) -> (String, bool) {
        if is_stop_token {
            return (String::new(), true);
        }
        let decoded = self.decoder.push(token);
        let outcome = self.stops.push(&decoded);
        self.text.push_str(&outcome.text);
        (outcome.text, outcome.stop.is_some())
    }

    /// The text held back so far.
    fn finish(&mut self) -> String {
        let decoded = self.decoder.finish();
        let mut text = self.stops.push(&decoded).text;
        text.push_str(&self.stops.finish());
        self.text.push_str(&text);
        text
    }
}

/// Notes when the first and the last token were chosen.
struct Clock {
    start: Instant,
    first: Option<Instant>,
    last: Instant,
}

impl Clock {
    fn start() -> Self {
        let start = Instant::now();
        Self { start, first: None, last: start }
    }

    fn token_chosen(&mut self) {
        self.last = Instant::now();
        self.first.get_or_insert(self.last);
    }

    fn timings(&self, prefill_tokens: usize, generated: usize) -> Timings {
        // A prefill that was cancelled took until now.
        let prefilled = self.first.unwrap_or_else(Instant::now);
        Timings {
            prefill_tokens,
            prefill_seconds: (prefilled - self.start).as_secs_f64(),
            decode_tokens: generated.saturating_sub(1),
            decode_seconds: self.first.map_or(0.0, |first| (self.last - first).as_secs_f64()),
        }
    }
}
