//! The engine: commands, schedule, run, commit.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use bantam_backend::Batch;

use crate::blocks::BlockUsage;
use crate::cache::PagedCache;
use crate::isolation::{isolated, panic_message};
use crate::scheduler::{Scheduler, StepPlan};
use crate::sequence::{Rank, Sequence};
use crate::{
    EngineError, EventSink, Executor, Limits, Metrics, PrefillLimit, RequestFailure, Submission,
};

/// Panics of the executor in a row after which it must show that it still works, or the engine gives
/// up.
const MAX_PANICS: u32 = 3;

/// How the engine divides its executor among requests. What a step and the cache can hold is the
/// executor's to say: [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EngineOptions {
    /// How much of a prompt may join a step in which others decode.
    pub prefill: PrefillLimit,
    /// Reuse blocks for requests that begin with the same tokens and have the same salt.
    pub share_prefixes: bool,
}

impl Default for EngineOptions {
    /// Prefixes are shared; long prompts at most double the time between the tokens of others.
    fn default() -> Self {
        Self { prefill: PrefillLimit::default(), share_prefixes: true }
    }
}

/// What a step did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepReport {
    /// T, tokens computed; 0 if there was nothing to do.
    pub num_tokens: usize,
    /// Sequences that computed one token.
    pub decodes: usize,
    /// Sequences that computed several.
    pub prefills: usize,
    /// Sequences put back into the queue for lack of blocks.
    pub preempted: usize,
    /// Why the step failed, and with it those requests of its batch that fail alone as well.
    pub failure: Option<String>,
}

/// The engine cannot go on: every request has failed with this reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct EngineDead {
    /// What happened.
    pub reason: String,
}

/// Serves many requests at once on one executor. Single owner, no locks; see
/// [`EngineHandle`](crate::EngineHandle) for the engine on a thread of its own.
///
/// ```
/// use bantam_backend::Batch;
/// use bantam_engine::{
///     Engine, EngineOptions, Event, Executor, Limits, Request, SamplingParams, event_channel,
/// };
/// use bantam_model::ModelError;
///
/// /// Always continues with the number of tokens so far.
/// struct Counting;
/// impl Executor for Counting {
///     fn limits(&self) -> Limits {
///         Limits {
///             vocab_size: 8, context: 8, max_batch_tokens: 4, max_sequences: 2,
///             max_logit_rows: 2, num_blocks: 4, block_tokens: 2,
///         }
///     }
///     fn forward(&mut self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
///         let row = |&row: &u32| {
///             let next = batch.positions[row as usize] + 1;
///             (0..8).map(move |token| if token == next { 1.0 } else { 0.0 })
///         };
///         Ok(batch.logit_rows.iter().flat_map(row).collect())
///     }
/// }
///
/// let mut engine = Engine::new(Box::new(Counting), EngineOptions::default())?;
/// let (sender, events) = event_channel();
/// let sampling = SamplingParams::greedy();
/// let request = Request { sampling, max_tokens: Some(3), ..Request::new(vec![0, 1]) };
/// engine.submit(request, Box::new(sender))?;
/// while !engine.is_idle() {
///     engine.step()?;
/// }
/// let tokens = events.filter_map(|event| match event {
///     Event::Token { token, .. } => Some(token),
///     _ => None,
/// });
/// assert_eq!(tokens.collect::<Vec<_>>(), [2, 3, 4]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Engine {
    executor: Box<dyn Executor>,
    limits: Limits,
    cache: PagedCache,
    scheduler: Scheduler,
    batch: Batch,
    metrics: Metrics,
    panics_in_a_row: u32,
}

impl Engine {
    /// An engine without requests.
    ///
    /// # Errors
    /// If the executor's limits leave no room for a single request.
    pub fn new(executor: Box<dyn Executor>, options: EngineOptions) -> Result<Self, EngineError> {
        let limits = executor.limits();
        limits.validate()?;
        if let PrefillLimit::Slowdown(factor) = options.prefill
            && !(factor > 1.0 && factor.is_finite())
        {
            return Err(EngineError::Slowdown { got: factor });
        }
        let cache = PagedCache::new(&limits, options.share_prefixes);
        Ok(Self {
            metrics: Metrics { blocks: cache.usage(), ..Metrics::default() },
            scheduler: Scheduler::new(&limits, options.prefill),
            cache,
            batch: Batch::default(),
            limits,
            executor,
            panics_in_a_row: 0,
        })
    }

    /// Queues a request; its events go to `sink`.
    ///
    /// # Errors
    /// If the request can never be served; see [`Submission::validate`].
    pub fn submit(
        &mut self,
        submission: impl Into<Submission>,
        sink: Box<dyn EventSink>,
    ) -> Result<(), EngineError> {
        let submission = submission.into();
        submission.validate(&self.limits)?;
        self.enqueue(Sequence::new(submission, &self.limits, sink, None)?);
        Ok(())
    }

    /// Queues a request that is validated already.
    pub(crate) fn enqueue(&mut self, sequence: Sequence) {
        self.metrics.requests += 1;
        self.scheduler.add(sequence);
        self.metrics.waiting = self.scheduler.waiting.len();
    }

    /// Runs one step: every running request comes closer to its next token.
    ///
    /// If the step fails, each request of its batch is computed alone, and only those fail that do
    /// so again: one that breaks the executor takes no other with it. What the step computed is
    /// computed anew, so what the failure left half done is not seen.
    ///
    /// # Errors
    /// If the executor panicked several times in a row, and then on a step of a single token too. All
    /// requests have failed then, and so will every later one: nothing but a new engine helps.
    pub fn step(&mut self) -> Result<StepReport, EngineDead> {
        let begun = Instant::now();
        self.end_abandoned(begun);
        let plan = self.scheduler.schedule(&mut self.cache);
        let mut failure = None;
        if plan.num_tokens() > 0 {
            self.announce_started(begun);
            self.build_batch();
            match self.run() {
                Ok(logits) => {
                    self.commit(&logits);
                    // With choosing and scoring, which others wait for too.
                    let seconds = begun.elapsed().as_secs_f64();
                    self.scheduler.governor.observe(plan.decodes, plan.prefill_tokens, seconds);
                }
                Err(reason) if self.batch.spans.len() > 1 => {
                    self.metrics.failed_steps += 1;
                    self.compute_one_by_one()?;
                    failure = Some(reason);
                }
                Err(reason) => failure = Some(self.fail_batch(reason)?),
            }
        }
        self.measure(&plan, begun);
        let StepPlan { decodes, prefills, preempted, .. } = plan;
        Ok(StepReport { num_tokens: plan.num_tokens(), decodes, prefills, preempted, failure })
    }

    /// Ends requests whose reader is gone or whose deadline has passed.
    fn end_abandoned(&mut self, now: Instant) {
        let Self { scheduler, cache, metrics, .. } = self;
        let mut goes_on = |sequence: &mut Sequence| {
            let abandoned = isolated(|| Ok(sequence.abandoned()));
            let failure = match abandoned {
                Ok(Some(reason)) => {
                    metrics.finished(reason, now - sequence.submitted);
                    None
                }
                Ok(None) => match sequence.past_deadline(now) {
                    None => return true,
                    late => late,
                },
                Err(panicked) => Some(panicked),
            };
            if let Some(failure) = failure {
                sequence.fail(failure);
                metrics.failed += 1;
            }
            cache.release(&mut sequence.table);
            false
        };
        scheduler.running.retain_mut(&mut goes_on);
        scheduler.waiting.retain(|_, sequence| goes_on(sequence));
    }

    /// Tells requests that left the queue for the first time.
    fn announce_started(&mut self, now: Instant) {
        for sequence in &mut self.scheduler.running {
            let Some(started) = sequence.start(now) else { continue };
            self.metrics.queue_seconds.observe(started.queue_time.as_secs_f64());
            self.metrics.prompt_tokens += started.prompt_tokens as u64;
            self.metrics.cached_tokens += started.cached_tokens as u64;
        }
    }

    /// The scheduled tokens as flat arrays, with the rows whose logits are wanted.
    fn build_batch(&mut self) {
        self.batch.clear();
        for sequence in self.scheduler.running.iter().filter(|s| s.num_scheduled > 0) {
            let (start, first_row) = (sequence.num_computed, self.batch.tokens.len());
            let tokens = &sequence.tokens[start..start + sequence.num_scheduled];
            let pushed = self.batch.push(tokens, start, sequence.table.blocks());
            pushed.expect("only sequences with scheduled tokens are pushed");
            let rows = sequence.logit_positions().map(|position| first_row + position - start);
            self.batch.logit_rows.extend(rows.map(|row| row as u32));
        }
    }

    /// Computes what the step planned again, each sequence alone: those that fail are at fault.
    fn compute_one_by_one(&mut self) -> Result<(), EngineDead> {
        let running = self.scheduler.running.iter_mut().filter(|s| s.num_scheduled > 0);
        let planned: Vec<(Rank, usize)> =
            running.map(|s| (s.rank, mem::take(&mut s.num_scheduled))).collect();
        for (rank, num_tokens) in planned {
            let running = self.scheduler.running.iter_mut().find(|s| s.rank == rank);
            let Some(sequence) = running else { continue };
            sequence.num_scheduled = num_tokens;
            self.build_batch();
            match self.run() {
                Ok(logits) => self.commit(&logits),
                Err(reason) => drop(self.fail_batch(reason)?),
            }
        }
        Ok(())
    }

    /// The logits of the batch, `[R, V]`, or why there are none.
    fn run(&mut self) -> Result<Vec<f32>, String> {
        let begun = Instant::now();
        let Self { executor, batch, .. } = self;
        // A step that panicked may have left anything behind, but only in blocks of its own batch,
        // which are given back, and in the executor, whose steps begin anew.
        let outcome = catch_unwind(AssertUnwindSafe(|| executor.forward(batch)));
        let logits = match outcome {
            Ok(Ok(logits)) => logits,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(panic) => {
                self.panics_in_a_row += 1;
                return Err(format!("the executor panicked: {}", panic_message(&*panic)));
            }
        };
        let (got, expected) = (logits.len(), self.batch.logit_rows.len() * self.limits.vocab_size);
        if got != expected {
            return Err(format!("the executor returned {got} logits, expected {expected}"));
        }
        self.panics_in_a_row = 0;
        self.metrics.forward_seconds.observe(begun.elapsed().as_secs_f64());
        Ok(logits)
    }

    /// Notes what was computed, chooses tokens where all is computed, and ends complete answers.
    fn commit(&mut self, logits: &[f32]) {
        let now = Instant::now();
        let mut rest = logits;
        let mut running = mem::take(&mut self.scheduler.running);
        running.retain_mut(|sequence| {
            let rows = sequence.logit_positions().len();
            let (own, others) = rest.split_at(rows * self.limits.vocab_size);
            rest = others;
            let goes_on = self.advance(sequence, own, now);
            if !goes_on {
                self.cache.release(&mut sequence.table);
            }
            goes_on
        });
        self.scheduler.running = running;
    }

    /// Moves one sequence forward by the `logits` that it wanted; whether it goes on.
    fn advance(&mut self, sequence: &mut Sequence, logits: &[f32], now: Instant) -> bool {
        let catches_up = sequence.catches_up();
        let outcome = isolated(|| self.read_logits(sequence, logits, now));
        sequence.num_computed += mem::take(&mut sequence.num_scheduled);
        let computed = sequence.num_computed;
        if let Err(failure) = outcome {
            // What it computed may be damaged: nothing of this step enters the cache.
            sequence.fail(failure);
            self.metrics.failed += 1;
            return false;
        }
        self.cache.commit(&mut sequence.table, sequence.salt, &sequence.tokens[..computed]);
        let reason = if catches_up { sequence.finish_reason() } else { None };
        if let Some(reason) = reason {
            sequence.finish(reason);
            self.metrics.finished(reason, now - sequence.submitted);
        }
        reason.is_none()
    }

    /// Scores the prompt and, if the sequence catches up, chooses its next token.
    fn read_logits(
        &mut self,
        sequence: &mut Sequence,
        logits: &[f32],
        now: Instant,
    ) -> Result<(), RequestFailure> {
        let mut rows = logits.chunks_exact(self.limits.vocab_size);
        let chosen_from = if sequence.chooses() { rows.next_back() } else { None };
        let metrics = &mut self.metrics;
        metrics.scored_tokens += rows.len() as u64;
        sequence.score(rows)?;
        let Some(row) = chosen_from else { return Ok(()) };
        match sequence.choose(row, now)? {
            None => {
                let waited = now - sequence.submitted;
                metrics.first_token_seconds.observe(waited.as_secs_f64());
            }
            Some(waited) => metrics.inter_token_seconds.observe(waited.as_secs_f64()),
        }
        metrics.generated_tokens += 1;
        Ok(())
    }

    /// Fails the requests of the batch, or all if the executor is broken.
    fn fail_batch(&mut self, reason: String) -> Result<String, EngineDead> {
        let Self { scheduler, cache, metrics, .. } = self;
        metrics.failed_steps += 1;
        scheduler.running.retain_mut(|sequence| {
            if sequence.num_scheduled == 0 {
                return true;
            }
            cache.release(&mut sequence.table);
            sequence.fail(RequestFailure::Step { reason: reason.clone() });
            metrics.failed += 1;
            false
        });
        if self.panics_in_a_row < MAX_PANICS || self.executor_works() {
            return Ok(reason);
        }
        let reason = format!("{reason}, {MAX_PANICS} times in a row, and on a single token too");
        self.fail_all(&RequestFailure::EngineDead { reason: reason.clone() });
        Err(EngineDead { reason })
    }

    /// Whether the executor still computes what is known to be right, a token in a block of its own:
    /// requests that make it panic, however many come in a row, are no reason to give up.
    fn executor_works(&mut self) -> bool {
        let Some((mut table, _)) = self.cache.admit(0, &[], 1, 0) else {
            // Other requests hold every block, and their steps will tell.
            return true;
        };
        self.batch.clear();
        let works = self.batch.push(&[0], 0, table.blocks()).is_ok() && {
            self.batch.want_last_logits();
            self.run().is_ok()
        };
        self.cache.release(&mut table);
        works
    }

    /// Ends every request, running or waiting, with this failure.
    pub fn fail_all(&mut self, failure: &RequestFailure) {
        let Self { scheduler, cache, metrics, .. } = self;
        let waiting = mem::take(&mut scheduler.waiting).into_values();
        for mut sequence in scheduler.running.drain(..).chain(waiting) {
            cache.release(&mut sequence.table);
            sequence.fail(failure.clone());
            metrics.failed += 1;
        }
        self.update_gauges();
    }

    /// Measures a step that ends now.
    fn measure(&mut self, plan: &StepPlan, begun: Instant) {
        let metrics = &mut self.metrics;
        metrics.preemptions += plan.preempted as u64;
        metrics.evictions = self.cache.num_evictions();
        if plan.num_tokens() > 0 {
            metrics.computed_tokens += plan.num_tokens() as u64;
            metrics.batch_tokens.observe(plan.num_tokens() as f64);
            metrics.batch_sequences.observe((plan.decodes + plan.prefills) as f64);
            let phase = metrics.step_seconds.phase(plan.decodes, plan.prefills);
            phase.observe(begun.elapsed().as_secs_f64());
        }
        self.update_gauges();
    }

    fn update_gauges(&mut self) {
        self.metrics.waiting = self.scheduler.waiting.len();
        self.metrics.running = self.scheduler.running.len();
        self.metrics.blocks = self.cache.usage();
    }

    /// Whether there is no request, running or waiting.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    /// What a step and the cache can hold.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What was counted and measured until the last step.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How many blocks of the cache are in which state.
    #[must_use]
    pub fn block_usage(&self) -> BlockUsage {
        self.cache.usage()
    }
}
