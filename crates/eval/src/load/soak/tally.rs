//! What clients have seen so far.

use std::collections::BTreeMap;
use std::time::Duration;

use super::checks::Findings;
use super::heard::Heard;
use super::memory::Sample;
use super::work::Work;

/// Counts and times of all clients.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) findings: Findings,
    /// Complete answers, and of what kind.
    pub(super) answered: usize,
    pub(super) kinds: BTreeMap<String, usize>,
    pub(super) repeated: usize,
    /// Requests that clients broke off: before the first text of a stream or in it, and without a
    /// stream.
    pub(super) cancelled: usize,
    /// Malformed requests that were refused, by what is wrong with them.
    pub(super) refused: BTreeMap<&'static str, usize>,
    /// Times that a request was turned away with 429.
    pub(super) turned_away: usize,
    /// Requests turned away that did not come again, because the time was over.
    pub(super) given_up: usize,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    /// Seconds: to the first text of streams, between pieces of text, and to the end.
    pub(super) first_token: Vec<f64>,
    pub(super) inter_token: Vec<f64>,
    pub(super) end_to_end: Vec<f64>,
    /// Memory of the server, in the order of time.
    pub(super) resident: Vec<Sample>,
    pub(super) most_running: u64,
    pub(super) most_waiting: u64,
    pub(super) most_blocks: u64,
}

impl Tally {
    /// Counts an answer.
    pub(super) fn answered(&mut self, work: &Work, heard: &Heard) {
        self.answered += 1;
        *self.kinds.entry(work.kind()).or_default() += 1;
        self.repeated += usize::from(work.repeats.is_some());
        if let Some(usage) = heard.usage {
            self.input_tokens += usage.prompt_tokens as u64;
            self.output_tokens += usage.completion_tokens as u64;
        }
    }

    /// Counts the times of an answer under load.
    pub(super) fn timed(&mut self, work: &Work, heard: &Heard) {
        self.end_to_end.push(heard.end.as_secs_f64());
        // Pieces of two answers come in between each other.
        if work.stream && work.n == 1 {
            let gaps = heard.arrivals.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
            self.inter_token.extend(gaps.map(|gap| gap.as_secs_f64()));
            self.first_token.extend(heard.arrivals.first().map(Duration::as_secs_f64));
        }
    }
}
