//! One accepted request, from the queue to its end.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::cache::{BlockTable, PagedCache};
use crate::isolation::{Panicked, discard, isolated};
use crate::sampler::check_logits;
use crate::{
    ConstraintError, Event, EventSink, FinishReason, Limits, RequestFailure, Sampler,
    SamplingContext, SamplingError, Submission, TokenConstraint, TokenLogprobs, TokenMask, Usage,
};

/// Who goes first: the lower priority number, then the earlier arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) priority: i32,
    pub(crate) arrival: u64,
}

/// A place in the queue, given back when dropped.
#[derive(Debug)]
pub(crate) struct QueueSlot(Arc<AtomicUsize>);

impl QueueSlot {
    /// `number` places, if at most `limit` are taken then; otherwise none.
    pub(crate) fn take(taken: &Arc<AtomicUsize>, number: usize, limit: usize) -> Option<Vec<Self>> {
        let add = |count: usize| count.checked_add(number).filter(|&count| count <= limit);
        taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).ok()?;
        Some((0..number).map(|_| Self(Arc::clone(taken))).collect())
    }
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The way back to whoever asked: whatever happens, it ends with `Finished` or `Failed`.
pub(crate) struct Reply(Option<Box<dyn EventSink>>);

impl Reply {
    /// Delivers an event. A reader that is gone is noticed at the top of the next step. May panic.
    fn send(&mut self, event: Event) {
        if let Some(sink) = &mut self.0 {
            let _ = sink.send(event);
        }
    }

    /// Delivers the last event.
    fn end(&mut self, event: Event) {
        let _: Result<(), Panicked> = isolated(|| {
            self.send(event);
            Ok(())
        });
        self.close();
    }

    /// Delivers nothing more.
    fn close(&mut self) {
        discard(self.0.take());
    }

    fn is_closed(&self) -> bool {
        self.0.as_ref().is_none_or(|sink| sink.is_closed())
    }

    fn is_satisfied(&self) -> bool {
        self.0.as_ref().is_some_and(|sink| sink.is_satisfied())
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.end(Event::Failed(RequestFailure::Stopped));
    }
}

/// A validated request and how far it has come. Between steps there is always something pending.
pub(crate) struct Sequence {
    pub(crate) rank: Rank,
    /// Prompt and generated tokens.
    pub(crate) tokens: Vec<u32>,
    /// How many tokens the cache holds.
    pub(crate) num_computed: usize,
    /// How many tokens this step computes.
    pub(crate) num_scheduled: usize,
    pub(crate) table: BlockTable,
    pub(crate) salt: u64,
    pub(crate) reply: Reply,
    pub(crate) submitted: Instant,
    num_prompt: usize,
    min_tokens: usize,
    /// Tokens, prompt included, after which the answer ends.
    max_len: usize,
    /// Ascending.
    stop_tokens: Vec<u32>,
    sampler: Sampler,
    constraint: Option<Box<dyn TokenConstraint>>,
    logprobs: Option<usize>,
    /// Alternatives reported with each token of the prompt.
    prompt_logprobs: usize,
    /// The first so many tokens of the prompt need no score any more.
    num_scored: usize,
    deadline: Option<Duration>,
    /// Prefix hits of the first admission; none while it has never run.
    cached_tokens: Option<usize>,
    last_token: Option<Instant>,
    slot: Option<QueueSlot>,
}

impl Sequence {
    /// A sequence for a submission that [`Submission::validate`] has accepted.
    pub(crate) fn new(
        submission: Submission,
        limits: &Limits,
        sink: Box<dyn EventSink>,
        slot: Option<QueueSlot>,
    ) -> Result<Self, SamplingError> {
        let Submission { request, mut constraint } = submission;
        let num_prompt = request.prompt.len();
        let max_tokens = request.max_tokens.unwrap_or(limits.room(num_prompt));
        if let Some(constraint) = &mut constraint {
            // One that panics here fails at its first token.
            let _: Result<(), Panicked> = isolated(|| {
                constraint.begin(max_tokens);
                Ok(())
            });
        }
        let mut stop_tokens = request.stop_tokens;
        if !request.ignore_eos {
            stop_tokens.extend(request.eos_tokens);
        }
        stop_tokens.sort_unstable();
        stop_tokens.dedup();
        Ok(Self {
            rank: Rank { priority: request.priority, arrival: 0 },
            tokens: request.prompt,
            num_computed: 0,
            num_scheduled: 0,
            table: BlockTable::default(),
            salt: request.salt,
            sampler: Sampler::new(request.sampling)?,
            reply: Reply(Some(sink)),
            submitted: Instant::now(),
            num_prompt,
            min_tokens: request.min_tokens,
            max_len: num_prompt + max_tokens,
            stop_tokens,
            constraint,
            logprobs: request.logprobs,
            prompt_logprobs: request.prompt_logprobs.unwrap_or(0),
            // Nothing comes before the first token, so it has no score.
            num_scored: if request.prompt_logprobs.is_some() { 1 } else { num_prompt },
            deadline: request.deadline,
            cached_tokens: None,
            last_token: None,
            slot,
        })
    }

    /// How many tokens have to be computed to go on: all, since the answer's last is not among them
    /// yet; or, if there is no answer, all but the last of the prompt.
    pub(crate) fn goal(&self) -> usize {
        self.tokens.len().min(self.max_len - 1).max(1)
    }

    /// Tokens that are not computed yet.
    pub(crate) fn num_pending(&self) -> usize {
        self.goal() - self.num_computed
    }

    /// The tokens that may come from the cache: those whose logits are not wanted.
    pub(crate) fn beginning(&self) -> &[u32] {
        let known =
            if self.num_scored < self.num_prompt { self.num_scored } else { self.tokens.len() };
        &self.tokens[..known - 1]
    }

    /// How many tokens can be computed next if logits of `rows` of them can.
    pub(crate) fn num_within(&self, rows: usize) -> usize {
        let without_logits = self.beginning().len().saturating_sub(self.num_computed);
        self.num_pending().min(without_logits + rows)
    }

    /// The positions of this step whose logits are wanted.
    pub(crate) fn logit_positions(&self) -> Range<usize> {
        let end = (self.num_computed + self.num_scheduled).min(self.max_len - 1);
        self.beginning().len().max(self.num_computed).min(end)..end
    }

    /// Whether `other` goes first and is about to compute a block that this sequence could have
    /// from it.
    pub(crate) fn profits_from(&self, other: &Self, cache: &PagedCache) -> bool {
        let (own, others) = (self.beginning(), other.beginning());
        if other.salt != self.salt || other.rank > self.rank || others.len() <= other.num_computed {
            return false;
        }
        let shared = own.iter().zip(others).take_while(|(a, b)| a == b).count();
        cache.shareable(shared) > other.num_computed
    }

    /// Whether this step computes all that is pending.
    pub(crate) fn catches_up(&self) -> bool {
        self.num_scheduled == self.num_pending()
    }

    /// Whether a token can be chosen then: always, if more than the scores of the prompt are wanted.
    pub(crate) fn chooses(&self) -> bool {
        self.catches_up() && self.tokens.len() < self.max_len
    }

    /// Why it ends, if the reader is gone. May panic.
    pub(crate) fn abandoned(&self) -> Option<FinishReason> {
        let reason = || match self.reply.is_satisfied() {
            true => FinishReason::Stop,
            false => FinishReason::Cancelled,
        };
        self.reply.is_closed().then(reason)
    }

    /// What is wrong, if the deadline has passed at `now`.
    pub(crate) fn past_deadline(&self, now: Instant) -> Option<RequestFailure> {
        let limit = self.deadline.filter(|&limit| now - self.submitted >= limit)?;
        Some(RequestFailure::Deadline { limit, generated: self.num_generated() })
    }

    /// Notes the first admission; the time it took, and nothing at later ones.
    pub(crate) fn start(&mut self, now: Instant) -> Option<Started> {
        if self.cached_tokens.is_some() {
            return None;
        }
        let (cached_tokens, queue_time) = (self.num_computed, now - self.submitted);
        self.cached_tokens = Some(cached_tokens);
        self.slot = None;
        let told: Result<(), Panicked> = isolated(|| {
            self.reply.send(Event::Started { cached_tokens, queue_time });
            Ok(())
        });
        if told.is_err() {
            // As if the reader were gone, which ends the request.
            self.reply.close();
        }
        Some(Started { prompt_tokens: self.num_prompt, cached_tokens, queue_time })
    }

    /// Delivers the scores of the next tokens of the prompt, which these rows of logits, `[V]` each,
    /// are for.
    pub(crate) fn score<'a>(
        &mut self,
        rows: impl Iterator<Item = &'a [f32]>,
    ) -> Result<(), SamplingError> {
        let scores: Result<Vec<_>, _> = rows
            .zip(self.num_scored..)
            .map(|(logits, position)| {
                check_logits(logits, position)?;
                Ok(TokenLogprobs::new(logits, self.tokens[position], self.prompt_logprobs))
            })
            .collect();
        let scores = scores?;
        self.num_scored += scores.len();
        if !scores.is_empty() {
            self.reply.send(Event::PromptLogprobs(scores));
        }
        Ok(())
    }

    /// Chooses the next token from its `logits: [V]` and delivers it; the time since the token
    /// before, or none if it is the first.
    pub(crate) fn choose(
        &mut self,
        logits: &[f32],
        now: Instant,
    ) -> Result<Option<Duration>, RequestFailure> {
        let num_generated = self.num_generated();
        let constraint = self.constraint.as_mut();
        let allowed = constraint.map(|c| isolated(|| c.allowed())).transpose()?;
        if allowed.is_some_and(|allowed| allowed.tokens().next().is_none()) {
            let reason = format!("it allows no token after {num_generated} generated ones");
            return Err(ConstraintError { reason }.into());
        }
        let early = num_generated < self.min_tokens && !must_stop(allowed, &self.stop_tokens);
        let context = SamplingContext {
            tokens: &self.tokens,
            num_prompt: self.num_prompt,
            excluded: if early { &self.stop_tokens } else { &[] },
            allowed,
        };
        let token = self.sampler.choose(logits, &context)?;
        if let Some(constraint) =
            self.constraint.as_mut().filter(|_| !stops(&self.stop_tokens, token))
        {
            isolated(|| constraint.accept(token))?;
        }
        self.tokens.push(token);
        let logprobs = self.logprobs.map(|top| TokenLogprobs::new(logits, token, top));
        self.reply.send(Event::Token { token, logprobs });
        Ok(self.last_token.replace(now).map(|before| now - before))
    }

    /// Why the answer ends with the token chosen last, if it does.
    pub(crate) fn finish_reason(&self) -> Option<FinishReason> {
        let last = self.tokens.last().filter(|_| self.num_generated() > 0);
        if last.is_some_and(|&last| stops(&self.stop_tokens, last)) {
            Some(FinishReason::Stop)
        } else {
            (self.tokens.len() >= self.max_len).then_some(FinishReason::Length)
        }
    }

    /// Delivers the end of a complete answer.
    pub(crate) fn finish(&mut self, reason: FinishReason) {
        let usage = Usage {
            prompt_tokens: self.num_prompt,
            cached_tokens: self.cached_tokens.unwrap_or(0),
            generated_tokens: self.num_generated(),
        };
        self.reply.end(Event::Finished { reason, usage });
    }

    /// Delivers the end of an answer that will not be complete.
    pub(crate) fn fail(&mut self, failure: RequestFailure) {
        self.reply.end(Event::Failed(failure));
    }

    fn num_generated(&self) -> usize {
        self.tokens.len() - self.num_prompt
    }
}

/// Whether a token ends the answer.
fn stops(stop_tokens: &[u32], token: u32) -> bool {
    stop_tokens.binary_search(&token).is_ok()
}

/// Whether a constraint leaves nothing but the end.
fn must_stop(allowed: Option<TokenMask<'_>>, stop_tokens: &[u32]) -> bool {
    allowed.is_some_and(|mask| mask.tokens().all(|token| stops(stop_tokens, token)))
}

impl Drop for Sequence {
    fn drop(&mut self) {
        discard(self.constraint.take());
    }
}

/// What is known when a request leaves the queue.
pub(crate) struct Started {
    pub(crate) prompt_tokens: usize,
    pub(crate) cached_tokens: usize,
    pub(crate) queue_time: Duration,
}
