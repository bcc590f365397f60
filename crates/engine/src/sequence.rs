//! One accepted request, from the queue to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::cache::BlockTable;
use crate::{
    Event, EventSink, FinishReason, Limits, Request, RequestFailure, Sampler, SamplingContext,
    SamplingError, TokenLogprobs, Usage,
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
    /// A place, if fewer than `limit` are taken.
    pub(crate) fn take(taken: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let add = |count: usize| (count < limit).then_some(count + 1);
        let added = taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        added.ok().map(|_| Self(Arc::clone(taken)))
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
    /// Delivers an event. A reader that is gone is noticed at the top of the next step.
    pub(crate) fn send(&mut self, event: Event) {
        if let Some(sink) = &mut self.0 {
            let _ = sink.send(event);
        }
    }

    /// Delivers the last event.
    fn end(&mut self, event: Event) {
        self.send(event);
        self.0 = None;
    }

    fn is_closed(&self) -> bool {
        self.0.as_ref().is_none_or(|sink| sink.is_closed())
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.end(Event::Failed(RequestFailure::Stopped));
    }
}

/// A validated request and how far it has come. Always `num_computed < tokens.len()` between
/// steps.
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
    stop_tokens: Vec<u32>,
    sampler: Sampler,
    logprobs: Option<usize>,
    deadline: Option<Duration>,
    /// Prefix hits of the first admission; none while it has never run.
    cached_tokens: Option<usize>,
    last_token: Option<Instant>,
    slot: Option<QueueSlot>,
}

impl Sequence {
    /// A sequence for a request that [`Request::validate`] has accepted.
    pub(crate) fn new(
        request: Request,
        limits: &Limits,
        sink: Box<dyn EventSink>,
        slot: Option<QueueSlot>,
    ) -> Result<Self, SamplingError> {
        let num_prompt = request.prompt.len();
        let max_tokens = request.max_tokens.unwrap_or(limits.room(num_prompt));
        let mut stop_tokens = request.stop_tokens;
        if !request.ignore_eos {
            stop_tokens.extend(request.eos_tokens);
        }
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
            logprobs: request.logprobs,
            deadline: request.deadline,
            cached_tokens: None,
            last_token: None,
            slot,
        })
    }

    /// Tokens that are not computed yet.
    pub(crate) fn num_pending(&self) -> usize {
        self.tokens.len() - self.num_computed
    }

    /// Whether this step computes all that is pending, so that a token can be chosen.
    pub(crate) fn catches_up(&self) -> bool {
        self.num_scheduled == self.num_pending()
    }

    /// Whether the reader is gone.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.reply.is_closed()
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
        self.reply.send(Event::Started { cached_tokens, queue_time });
        Some(Started { prompt_tokens: self.num_prompt, cached_tokens, queue_time })
    }

    /// Chooses the next token from its `logits: [V]` and delivers it; the time since the token
    /// before, or none if it is the first.
    pub(crate) fn choose(
        &mut self,
        logits: &[f32],
        now: Instant,
    ) -> Result<Option<Duration>, SamplingError> {
        let early = self.num_generated() < self.min_tokens;
        let context = SamplingContext {
            tokens: &self.tokens,
            num_prompt: self.num_prompt,
            excluded: if early { &self.stop_tokens } else { &[] },
        };
        let token = self.sampler.choose(logits, &context)?;
        self.tokens.push(token);
        let logprobs = self.logprobs.map(|top| TokenLogprobs::new(logits, token, top));
        self.reply.send(Event::Token { token, logprobs });
        Ok(self.last_token.replace(now).map(|before| now - before))
    }

    /// Why the answer ends with the token chosen last, if it does.
    pub(crate) fn finish_reason(&self) -> Option<FinishReason> {
        let last = self.tokens.last().filter(|_| self.num_generated() > 0)?;
        if self.stop_tokens.contains(last) {
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

/// What is known when a request leaves the queue.
pub(crate) struct Started {
    pub(crate) prompt_tokens: usize,
    pub(crate) cached_tokens: usize,
    pub(crate) queue_time: Duration,
}
