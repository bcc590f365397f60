//! What the engine counts and measures.

use std::time::Duration;

use crate::FinishReason;
use crate::blocks::BlockUsage;
use crate::histogram::{COUNTS, Histogram, SECONDS};

/// Counters since the start, the state after the last step, and distributions.
///
/// All times are seconds of wall clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// Requests accepted.
    pub requests: u64,
    /// Requests that ended with a stop token, or whose reader stopped them.
    pub finished_stop: u64,
    /// Requests that ended with the allowed number of tokens.
    pub finished_length: u64,
    /// Requests whose receiver was dropped before the answer was complete.
    pub cancelled: u64,
    /// Requests that failed, those past their deadline included.
    pub failed: u64,
    /// Tokens of the prompts of started requests.
    pub prompt_tokens: u64,
    /// Of these, tokens that were in the cache already: prefix hits.
    pub cached_tokens: u64,
    /// Tokens of prompts whose probability was reported.
    pub scored_tokens: u64,
    /// Tokens chosen.
    pub generated_tokens: u64,
    /// Tokens computed, those computed again after a preemption included.
    pub computed_tokens: u64,
    /// Times that a running request gave its blocks back and was put into the queue again.
    pub preemptions: u64,
    /// Cached blocks that were overwritten.
    pub evictions: u64,
    /// Steps that failed.
    pub failed_steps: u64,

    /// Requests in the queue.
    pub waiting: usize,
    /// Requests that have blocks.
    pub running: usize,
    /// Blocks by state: the use of the cache.
    pub blocks: BlockUsage,

    /// From submission to the first step.
    pub queue_seconds: Histogram,
    /// From submission to the first token.
    pub first_token_seconds: Histogram,
    /// From one token of a request to its next.
    pub inter_token_seconds: Histogram,
    /// From submission to the end, of finished requests.
    pub request_seconds: Histogram,
    /// T, tokens of a step.
    pub batch_tokens: Histogram,
    /// Sequences of a step.
    pub batch_sequences: Histogram,
    /// A whole step, by what it does.
    pub step_seconds: StepSeconds,
    /// The executor's part of a step.
    pub forward_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new(SECONDS);
        Self {
            requests: 0,
            finished_stop: 0,
            finished_length: 0,
            cancelled: 0,
            failed: 0,
            prompt_tokens: 0,
            cached_tokens: 0,
            scored_tokens: 0,
            generated_tokens: 0,
            computed_tokens: 0,
            preemptions: 0,
            evictions: 0,
            failed_steps: 0,
            waiting: 0,
            running: 0,
            blocks: BlockUsage::default(),
            queue_seconds: seconds(),
            first_token_seconds: seconds(),
            inter_token_seconds: seconds(),
            request_seconds: seconds(),
            batch_tokens: Histogram::new(COUNTS),
            batch_sequences: Histogram::new(COUNTS),
            step_seconds: StepSeconds::default(),
            forward_seconds: seconds(),
        }
    }
}

/// Times of steps, by phase: the time between the tokens of an answer is that of `decode` alone, and
/// of `mixed` while others' prompts are computed.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSeconds {
    /// Steps in which every sequence computes one token.
    pub decode: Histogram,
    /// Steps in which every sequence computes a prompt, or a part of it.
    pub prefill: Histogram,
    /// Steps that do both.
    pub mixed: Histogram,
}

impl Default for StepSeconds {
    fn default() -> Self {
        let seconds = || Histogram::new(SECONDS);
        Self { decode: seconds(), prefill: seconds(), mixed: seconds() }
    }
}

impl StepSeconds {
    /// Each phase with its name: `decode`, `prefill` and `mixed`.
    pub fn phases(&self) -> [(&'static str, &Histogram); 3] {
        [("decode", &self.decode), ("prefill", &self.prefill), ("mixed", &self.mixed)]
    }

    /// The phase of a step with this many sequences of each kind.
    pub(crate) fn phase(&mut self, decodes: usize, prefills: usize) -> &mut Histogram {
        match (decodes, prefills) {
            (_, 0) => &mut self.decode,
            (0, _) => &mut self.prefill,
            (_, _) => &mut self.mixed,
        }
    }
}

impl Metrics {
    /// Counts the end of a request this long after its submission.
    pub(crate) fn finished(&mut self, reason: FinishReason, after: Duration) {
        match reason {
            FinishReason::Stop => self.finished_stop += 1,
            FinishReason::Length => self.finished_length += 1,
            FinishReason::Cancelled => {
                self.cancelled += 1;
                return;
            }
        }
        self.request_seconds.observe(after.as_secs_f64());
    }
}
