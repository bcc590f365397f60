//! Which sequences compute how many tokens in the next step.
//!
//! One rule: each step lets `num_computed` of every sequence catch up with its number of tokens,
//! within a token budget. Prefill, chunks of it, decode, prefix hits and recomputation differ only
//! in where `num_computed` starts. Budget goes
//!
//! 1. to running sequences that miss one token: they decode, and every one of them does in every
//!    step;
//! 2. to running sequences that miss more, up to the [`PrefillLimit`];
//! 3. to waiting ones, as long as there are blocks for all their tokens.
//!
//! A second budget is that of logit rows: one for each sequence that catches up, and one for each
//! token of a prompt that is to be scored.
//!
//! All in order of rank: (priority, arrival). No sequence overtakes one of better rank on the way out
//! of the queue, and when blocks run out it is the sequence of worst rank that gives its own back and
//! waits again. So the best ranked one always goes on, and every sequence is the best ranked one
//! day.
//!
//! What is being computed is not computed twice: a sequence that begins like a running one stays in
//! the queue until that has computed the blocks they share. Nothing else makes several answers to
//! one prompt cost one prompt, and if the first of them is cancelled, the next takes its place.

use std::collections::BTreeMap;

use crate::cache::PagedCache;
use crate::prefill_limit::PrefillGovernor;
use crate::sequence::{Rank, Sequence};
use crate::{Limits, PrefillLimit};

/// The queue, the running sequences, and the rule.
pub(crate) struct Scheduler {
    pub(crate) waiting: BTreeMap<Rank, Sequence>,
    /// In order of rank; all have blocks.
    pub(crate) running: Vec<Sequence>,
    pub(crate) governor: PrefillGovernor,
    max_batch_tokens: usize,
    max_logit_rows: usize,
    max_sequences: usize,
    num_arrivals: u64,
}

/// What a step does; how many tokens of which sequence is in `Sequence::num_scheduled`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StepPlan {
    /// Sequences that compute one token.
    pub(crate) decodes: usize,
    /// Sequences that compute several.
    pub(crate) prefills: usize,
    /// Tokens of these.
    pub(crate) prefill_tokens: usize,
    /// Sequences put back into the queue.
    pub(crate) preempted: usize,
}

impl StepPlan {
    /// T.
    pub(crate) fn num_tokens(&self) -> usize {
        self.decodes + self.prefill_tokens
    }
}

impl Scheduler {
    pub(crate) fn new(limits: &Limits, prefill: PrefillLimit) -> Self {
        let Limits { max_batch_tokens, max_sequences, max_logit_rows, .. } = *limits;
        Self {
            waiting: BTreeMap::new(),
            running: Vec::new(),
            governor: PrefillGovernor::new(prefill),
            max_batch_tokens,
            max_logit_rows,
            // So that every sequence can decode in every step.
            max_sequences: max_sequences.min(max_logit_rows).min(max_batch_tokens),
            num_arrivals: 0,
        }
    }

    /// Queues a new sequence.
    pub(crate) fn add(&mut self, mut sequence: Sequence) {
        sequence.rank.arrival = self.num_arrivals;
        self.num_arrivals += 1;
        self.waiting.insert(sequence.rank, sequence);
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Plans a step. It has tokens whenever there is anything to do.
    pub(crate) fn schedule(&mut self, cache: &mut PagedCache) -> StepPlan {
        let mut plan = StepPlan::default();
        self.schedule_decodes(cache, &mut plan);
        let budget = self.max_batch_tokens - plan.decodes;
        let mut left = Budget {
            tokens: if plan.decodes > 0 { self.governor.tokens(budget) } else { budget },
            rows: self.max_logit_rows - plan.decodes,
        };
        for sequence in self.running.iter_mut().filter(|s| s.num_scheduled == 0) {
            left.spend(sequence, &mut plan);
        }
        if plan.preempted == 0 {
            self.admit(cache, left, &mut plan);
        }
        plan
    }

    /// One token for each running sequence that misses no more. Takes blocks from the worst ranked
    /// sequences if there are too few.
    fn schedule_decodes(&mut self, cache: &mut PagedCache, plan: &mut StepPlan) {
        for sequence in &mut self.running {
            sequence.num_scheduled = 0;
        }
        let mut next = 0;
        while let Some(sequence) = self.running.get_mut(next) {
            let goal = sequence.goal();
            if sequence.num_pending() > 1 {
                next += 1;
            } else if cache.grow(&mut sequence.table, goal) {
                sequence.num_scheduled = 1;
                plan.decodes += 1;
                next += 1;
            } else if let Some(worst) = self.running.pop() {
                // The worst ranked is this one or one after it: nothing that is planned already.
                self.preempt(worst, cache);
                plan.preempted += 1;
            }
        }
    }

    /// Puts a running sequence back into the queue, before all that arrived later. What it had
    /// computed stays in the prefix cache until the blocks are needed.
    fn preempt(&mut self, mut sequence: Sequence, cache: &mut PagedCache) {
        cache.release(&mut sequence.table);
        sequence.num_computed = 0;
        sequence.num_scheduled = 0;
        self.waiting.insert(sequence.rank, sequence);
    }

    /// Starts waiting sequences with what is left, strictly in order.
    fn admit(&mut self, cache: &mut PagedCache, mut left: Budget, plan: &mut StepPlan) {
        while left.tokens > 0 && self.running.len() < self.max_sequences {
            let Some(entry) = self.waiting.first_entry() else { break };
            let first = entry.get();
            if self.running.iter().any(|other| first.profits_from(other, cache)) {
                break;
            }
            // One block for each running sequence stays free, or it would soon take this one's.
            let reserve = self.running.len();
            let admitted = cache.admit(first.salt, first.beginning(), first.goal(), reserve);
            let Some((table, hits)) = admitted else { break };
            let mut sequence = entry.remove();
            sequence.table = table;
            sequence.num_computed = hits;
            left.spend(&mut sequence, plan);
            let place = self.running.partition_point(|other| other.rank < sequence.rank);
            self.running.insert(place, sequence);
        }
    }
}

/// What is left of a step.
struct Budget {
    tokens: usize,
    /// Rows whose logits can be computed.
    rows: usize,
}

impl Budget {
    /// Schedules as many of the pending tokens as are left.
    fn spend(&mut self, sequence: &mut Sequence, plan: &mut StepPlan) {
        sequence.num_scheduled = sequence.num_within(self.rows).min(self.tokens);
        self.tokens -= sequence.num_scheduled;
        self.rows -= sequence.logit_positions().len();
        plan.prefills += usize::from(sequence.num_scheduled > 0);
        plan.prefill_tokens += sequence.num_scheduled;
    }
}
