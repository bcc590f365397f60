//! What is kept of each request.

use std::time::Duration;

use super::Failure;

/// A request and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Which request, counted from 0.
    pub request: usize,
    /// When it was sent, from the start of the run.
    pub sent: Duration,
    /// How much later than planned it was sent: what the client itself adds in an open loop.
    pub delay: Duration,
    /// When the answer, or what became of it, was known, from the start of the run.
    pub ended: Duration,
    /// Times that it was turned away (429 or 503) and sent again.
    pub retries: usize,
    /// The answer, or why there is none.
    pub outcome: Result<Answered, Failure>,
}

/// A complete answer. Times count from the moment its request was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// Arrivals of the pieces that carry text, in order; never empty.
    pub chunks: Vec<Duration>,
    /// Arrival of the end of the stream.
    pub end: Duration,
    /// Tokens of the prompt, as the server counts them; 0 if it does not.
    pub input_tokens: usize,
    /// Tokens of the prompt that the server had in its prefix cache; 0 if it does not say.
    pub cached_tokens: usize,
    /// Tokens of the answer, as the server counts them; the number of pieces if it does not.
    pub output_tokens: usize,
    /// Whether the server counted.
    pub counted: bool,
    /// Why the answer ended, such as `stop` or `length`.
    pub finish_reason: String,
}

impl Answered {
    /// Time to first token: until the first piece of text, or the end of an answer without any.
    #[must_use]
    pub fn time_to_first_token(&self) -> Duration {
        self.chunks.first().copied().unwrap_or(self.end)
    }

    /// Inter-token latencies: the gaps between pieces of text. Tokens that come in one piece have
    /// no gap between them.
    pub fn inter_token_latencies(&self) -> impl Iterator<Item = Duration> {
        self.chunks.windows(2).map(|pair| pair[1].saturating_sub(pair[0]))
    }

    /// Time per output token after the first: from the first piece of text to the last, over the
    /// tokens; `None` for a single token.
    #[must_use]
    pub fn time_per_output_token(&self) -> Option<Duration> {
        let gaps = u32::try_from(self.output_tokens.checked_sub(1)?).ok()?;
        let last = self.chunks.last()?;
        (gaps > 0).then(|| last.saturating_sub(self.time_to_first_token()) / gaps)
    }
}

/// Tokens as a server counts them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) input_tokens: usize,
    pub(super) cached_tokens: usize,
    pub(super) output_tokens: usize,
}

/// An answer under way.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    pub(super) chunks: Vec<Duration>,
    pub(super) finish: Option<(Duration, String)>,
    pub(super) usage: Option<Usage>,
    pub(super) end: Duration,
}

impl Timeline {
    /// The answer, if it is complete.
    pub(super) fn answered(mut self) -> Result<Answered, Failure> {
        let Some((at, finish_reason)) = self.finish else {
            let problem = "the stream ended without a finish_reason".to_owned();
            return Err(Failure::Broken { problem });
        };
        // An answer without text has begun when it was known to be over.
        if self.chunks.is_empty() {
            self.chunks.push(at);
        }
        let counted = self.usage.is_some();
        let Usage { input_tokens, cached_tokens, output_tokens } = self.usage.unwrap_or(Usage {
            input_tokens: 0,
            cached_tokens: 0,
            output_tokens: self.chunks.len(),
        });
        Ok(Answered {
            chunks: self.chunks,
            end: self.end,
            input_tokens,
            cached_tokens,
            output_tokens,
            counted,
            finish_reason,
        })
    }
}
