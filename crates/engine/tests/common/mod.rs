//! A model without weights, whose answers depend on everything the engine could get wrong.

#![allow(dead_code, unreachable_pub)] // each test binary uses its own part

use bantam_backend::Batch;
use bantam_engine::{
    Event, EventReceiver, Executor, FinishReason, Limits, Request, Sampler, SamplingContext,
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
    /// The first row of logits is not a number.
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
        for span in &batch.spans {
            for (row, position) in span.rows.clone().zip(span.start..) {
                let slot = batch.slot(span, position, block_tokens);
                // A step that fails leaves nonsense behind.
                self.slots[slot] =
                    if fault.is_some() { 0 } else { slot_value(batch.tokens[row], position) };
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

/// The answer to a request that has the model for itself, computed without engine and cache.
pub fn alone(request: &Request, limits: &Limits) -> (Vec<u32>, FinishReason) {
    let mut sampler = Sampler::new(request.sampling.clone()).unwrap();
    let mut tokens = request.prompt.clone();
    let num_prompt = tokens.len();
    let max_tokens = request.max_tokens.unwrap_or(limits.room(num_prompt));
    let mut stops = request.stop_tokens.clone();
    if !request.ignore_eos {
        stops.extend(&request.eos_tokens);
    }
    loop {
        let values = tokens.iter().zip(0..).map(|(&token, position)| slot_value(token, position));
        let logits: Vec<f32> = logits(values).collect();
        let early = tokens.len() - num_prompt < request.min_tokens;
        let excluded = if early { &stops[..] } else { &[] };
        let context = SamplingContext { tokens: &tokens, num_prompt, excluded, allowed: None };
        let token = sampler.choose(&logits, &context).unwrap();
        tokens.push(token);
        let generated = tokens.len() - num_prompt;
        if stops.contains(&token) {
            return (tokens.split_off(num_prompt), FinishReason::Stop);
        }
        if generated == max_tokens {
            return (tokens.split_off(num_prompt), FinishReason::Length);
        }
    }
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
