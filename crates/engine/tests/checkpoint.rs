//! The engine on a real network: a tiny checkpoint on the CPU.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

use std::path::Path;

use bantam_backend::Batch;
use bantam_checkpoint::Checkpoint;
use bantam_cpu::{Cpu, CpuOptions};
use bantam_engine::{
    Engine, EngineOptions, Event, EventReceiver, Executor, Limits, Request, SamplingParams,
    TokenLogprobs, event_channel,
};
use bantam_model::{Decoder, LoadOptions, ModelError, Precision};

/// The decoder with fewer blocks than it has, so that sequences have to give theirs back.
struct SmallCache {
    decoder: Decoder<Cpu>,
    num_blocks: usize,
}

impl Executor for SmallCache {
    fn limits(&self) -> Limits {
        Limits { num_blocks: self.num_blocks, ..self.decoder.limits() }
    }

    fn forward(&mut self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
        self.decoder.forward(batch)
    }
}

fn engine(max_batch_tokens: usize, num_blocks: Option<usize>) -> Engine {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/data/tiny/llama-gqa");
    let cpu = Cpu::new(CpuOptions { isa: None, threads: Some(2) }).unwrap();
    let options = LoadOptions {
        precision: Precision::Int8,
        max_batch_tokens,
        max_sequences: 6,
        max_logit_rows: max_batch_tokens,
        ..Default::default()
    };
    let decoder = Decoder::load(cpu, &Checkpoint::open(&path).unwrap(), &options, &|_| {}).unwrap();
    let num_blocks = num_blocks.unwrap_or(decoder.num_blocks());
    let executor = SmallCache { decoder, num_blocks };
    Engine::new(Box::new(executor), EngineOptions::default()).unwrap()
}

fn submit(engine: &mut Engine, request: &Request) -> EventReceiver {
    let (sender, receiver) = event_channel();
    engine.submit(request.clone(), Box::new(sender)).unwrap();
    receiver
}

/// Tokens, and scores of the prompt.
fn answer(events: EventReceiver) -> (Vec<u32>, Vec<TokenLogprobs>) {
    let (mut tokens, mut scores) = (Vec::new(), Vec::new());
    for event in events {
        match event {
            Event::Token { token, .. } => tokens.push(token),
            Event::PromptLogprobs(more) => scores.extend(more),
            _ => {}
        }
    }
    (tokens, scores)
}

#[test]
fn answers_are_the_same_alone_and_under_load() {
    let requests: Vec<Request> = (0..12u32)
        .map(|n| {
            let length = 5 + 7 * (n as usize % 6);
            // Halves of the requests share their beginnings.
            let prompt = (0..length as u32).map(|i| (n % 2 * 50 + i * 7) % 280).collect();
            let sampling = SamplingParams { seed: u64::from(n), ..SamplingParams::default() };
            let prompt_logprobs = n.is_multiple_of(3).then_some(2);
            Request { sampling, max_tokens: Some(30), prompt_logprobs, ..Request::new(prompt) }
        })
        .collect();
    let alone: Vec<_> = requests
        .iter()
        .map(|request| {
            let mut engine = engine(128, None);
            let events = submit(&mut engine, request);
            while !engine.is_idle() {
                engine.step().unwrap();
            }
            answer(events)
        })
        .collect();

    let block_tokens = engine(8, None).limits().block_tokens;
    let two_of_them = 2 * 70usize.div_ceil(block_tokens);
    let mut engine = engine(24, Some(two_of_them));
    let events: Vec<_> = requests.iter().map(|request| submit(&mut engine, request)).collect();
    while !engine.is_idle() {
        assert_eq!(engine.step().unwrap().failure, None);
    }
    for ((events, alone), request) in events.into_iter().zip(alone).zip(&requests) {
        let num_scores = request.prompt_logprobs.map_or(0, |_| request.prompt.len() - 1);
        assert_eq!((alone.0.len(), alone.1.len()), (30, num_scores));
        assert_eq!(answer(events), alone);
    }
    assert_eq!(engine.block_usage().referenced, 0);
    assert!(engine.metrics().cached_tokens > 0, "no prefix was shared");
    assert!(engine.metrics().preemptions > 0, "the cache was large enough for all");
}
