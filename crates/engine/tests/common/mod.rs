//! A model without weights, whose answers depend on everything the engine could get wrong.

#![allow(dead_code, unreachable_pub)] // each test binary uses its own part

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use bantam_backend::Batch;
use bantam_engine::{
    ConstraintError, Engine, EngineOptions, Event, EventReceiver, Executor, FinishReason, Limits,
    Request, Sampler, SamplingContext, SamplingParams, StepReport, Submission, TokenConstraint,
    TokenLogprobs, TokenMask, event_channel,
};
use bantam_model::ModelError;

pub const VOCAB: usize = 32;

pub fn limits() -> Limits {
    Limits {
        vocab_size: VOCAB,
        context: 64,
        max_batch_tokens: 16,
        max_sequences: 4,
        max_logit_rows: 4,
        num_blocks: 64,
        block_tokens: 4,
    }
}

/// What goes wrong in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Error,
    Panic,
    /// What the first sequence computes is damaged: its first row of logits is not a number.
    Nan,
}

/// Keeps a hash of (token, position) in each slot of its cache, and makes logits from the hashes of
/// a sequence's slots, read through its block table: a wrong block, position or stale slot changes
/// the answer.
pub struct Hashing {
    pub limits: Limits,
    slots: Vec<u64>,
    num_steps: usize,
    /// Called before each step with its number.
    pub before: Box<dyn FnMut(usize) -> Option<Fault> + Send>,
}

impl Hashing {
    pub fn new(limits: Limits) -> Self {
        let slots = vec![u64::MAX; limits.num_blocks * limits.block_tokens];
        Self { limits, slots, num_steps: 0, before: Box::new(|_| None) }
    }

    pub fn failing(
        limits: Limits,
        before: impl FnMut(usize) -> Option<Fault> + Send + 'static,
    ) -> Self {
        Self { before: Box::new(before), ..Self::new(limits) }
    }

    fn check(&self, batch: &Batch) {
        let Limits { max_batch_tokens, max_sequences, max_logit_rows, .. } = self.limits;
        assert!((1..=max_batch_tokens).contains(&batch.num_tokens()));
        assert!(batch.spans.len() <= max_sequences);
        assert!(batch.logit_rows.len() <= max_logit_rows);
        assert!(batch.logit_rows.is_sorted());
        for (n, span) in batch.spans.iter().enumerate() {
            assert!(span.context() < self.limits.context, "the last token is never computed");
            let written = span.start / self.limits.block_tokens..;
            let written = &batch.table(span)[written];
            for (_, other) in batch.spans.iter().enumerate().filter(|(m, _)| *m != n) {
                let read = batch.table(other);
                assert!(
                    !written.iter().any(|block| read.contains(block)),
                    "a shared block is written"
                );
            }
        }
    }
}

fn mix(a: u64, b: u64) -> u64 {
    let mut z = (a ^ b.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 32)
}

fn slot_value(token: u32, position: usize) -> u64 {
    mix(u64::from(token) + 1, position as u64 + 1)
}

fn logits(values: impl Iterator<Item = u64>) -> impl Iterator<Item = f32> {
    let hash = values.fold(7, mix);
    (0..VOCAB as u64).map(move |token| (mix(hash, token) >> 40) as f32 / (1u64 << 24) as f32 * 6.0)
}

impl Executor for Hashing {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn forward(&mut self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
        self.check(batch);
        self.num_steps += 1;
        let fault = (self.before)(self.num_steps);
        let block_tokens = self.limits.block_tokens;
        let mut out = Vec::new();
        for (n, span) in batch.spans.iter().enumerate() {
            let damaged = fault.is_some_and(|fault| fault != Fault::Nan || n == 0);
            for (row, position) in span.rows.clone().zip(span.start..) {
                let slot = batch.slot(span, position, block_tokens);
                // A step that fails leaves nonsense behind.
                self.slots[slot] =
                    if damaged { 0 } else { slot_value(batch.tokens[row], position) };
            }
            for (row, position) in span.rows.clone().zip(span.start..) {
                if batch.logit_rows.contains(&(row as u32)) {
                    let slots = (0..=position).map(|p| batch.slot(span, p, block_tokens));
                    out.extend(logits(slots.map(|slot| self.slots[slot])));
                }
            }
        }
        match fault {
            Some(Fault::Panic) => panic!("injected"),
            Some(Fault::Error) => Err(ModelError::BadOption {
                option: "--fault".to_owned(),
                got: "injected".to_owned(),
                expected: "none".to_owned(),
            }),
            Some(Fault::Nan) => {
                out[..VOCAB].fill(f32::NAN);
                Ok(out)
            }
            None => Ok(out),
        }
    }
}

/// The logits after these tokens, computed without engine and cache.
pub fn logits_after(tokens: &[u32]) -> Vec<f32> {
    let values = tokens.iter().zip(0..).map(|(&token, position)| slot_value(token, position));
    logits(values).collect()
}

/// A constraint whose every state depends on all tokens accepted so far: one that is asked or told
/// too often, or in the wrong order, allows other tokens.
#[derive(Clone, Debug)]
pub struct Form {
    state: u64,
    mask: [u32; 1],
    accepted: usize,
    /// After so many tokens only the end is allowed.
    length: usize,
}

/// What a [`Form`] allows as its end.
pub const FORM_END: u32 = 6;

impl Form {
    pub fn new(seed: u64, length: usize) -> Self {
        Self { state: seed, mask: [0], accepted: 0, length }
    }
}

impl TokenConstraint for Form {
    fn allowed(&mut self) -> Result<TokenMask<'_>, ConstraintError> {
        // Tokens 1 and 2 are always left.
        let word = (mix(self.state, 3) >> 20) as u32 | 0b110;
        self.mask = [if self.accepted < self.length { word } else { 1 << FORM_END }];
        Ok(TokenMask::new(&self.mask))
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        if !self.allowed()?.contains(token) {
            return Err(ConstraintError { reason: format!("token {token} is not allowed") });
        }
        self.state = mix(self.state, u64::from(token));
        self.accepted += 1;
        Ok(())
    }
}

/// The answer to a request that has the model for itself.
pub fn alone(request: &Request, limits: &Limits) -> (Vec<u32>, FinishReason) {
    alone_in_form(request, None, limits)
}

/// The answer in this form to a request that has the model for itself.
pub fn alone_in_form(
    request: &Request,
    mut form: Option<Form>,
    limits: &Limits,
) -> (Vec<u32>, FinishReason) {
    let mut sampler = Sampler::new(request.sampling.clone()).unwrap();
    let mut tokens = request.prompt.clone();
    let num_prompt = tokens.len();
    let max_tokens = request.max_tokens.unwrap_or(limits.room(num_prompt));
    let mut stops = request.stop_tokens.clone();
    if !request.ignore_eos {
        stops.extend(&request.eos_tokens);
    }
    loop {
        let generated = tokens.len() - num_prompt;
        if tokens[num_prompt..].last().is_some_and(|last| stops.contains(last)) {
            return (tokens.split_off(num_prompt), FinishReason::Stop);
        }
        if generated == max_tokens {
            return (tokens.split_off(num_prompt), FinishReason::Length);
        }
        let ending = form.as_ref().is_some_and(|form| form.accepted == form.length);
        let early = generated < request.min_tokens && !ending;
        let context = SamplingContext {
            tokens: &tokens,
            num_prompt,
            excluded: if early { &stops } else { &[] },
            allowed: form.as_mut().map(|form| form.allowed().unwrap()),
        };
        let token = sampler.choose(&logits_after(&tokens), &context).unwrap();
        if let Some(form) = form.as_mut().filter(|_| !stops.contains(&token)) {
            form.accept(token).unwrap();
        }
        tokens.push(token);
    }
}

/// The scores of a prompt that has the model for itself.
pub fn scores_alone(request: &Request) -> Vec<TokenLogprobs> {
    let Some(top) = request.prompt_logprobs else { return Vec::new() };
    let score =
        |n: usize| TokenLogprobs::new(&logits_after(&request.prompt[..n]), request.prompt[n], top);
    (1..request.prompt.len()).map(score).collect()
}

/// What arrived: tokens, and the events that are not tokens.
pub fn collect(events: EventReceiver) -> (Vec<u32>, Vec<Event>) {
    let (mut tokens, mut others) = (Vec::new(), Vec::new());
    for event in events {
        match event {
            Event::Token { token, .. } => tokens.push(token),
            other => others.push(other),
        }
    }
    (tokens, others)
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Queues a submission in an engine without a thread.
pub fn submit(engine: &mut Engine, submission: impl Into<Submission>) -> EventReceiver {
    let (sender, receiver) = event_channel();
    engine.submit(submission, Box::new(sender)).unwrap();
    receiver
}

/// Runs until nothing is left.
pub fn run(engine: &mut Engine) -> Vec<StepReport> {
    let mut reports = Vec::new();
    while !engine.is_idle() {
        reports.push(engine.step().unwrap());
        assert!(reports.len() < 20_000, "the engine does not finish");
    }
    reports
}

pub fn engine(model: Hashing, options: EngineOptions) -> Engine {
    Engine::new(Box::new(model), options).unwrap()
}

/// A prompt of `len` tokens, the first `shared` of which depend on the group only.
pub fn prompt(group: u32, shared: usize, len: usize, seed: u32) -> Vec<u32> {
    let token = |i: usize| {
        let own = if i < shared { 0 } else { seed };
        (group * 11 + own * 5 + i as u32 * 3) % VOCAB as u32
    };
    (0..len).map(token).collect()
}

pub fn greedy(prompt: Vec<u32>, max_tokens: usize) -> Request {
    let sampling = SamplingParams::greedy();
    Request { sampling, max_tokens: Some(max_tokens), ..Request::new(prompt) }
}
