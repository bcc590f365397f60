//! Several answers to one prompt: independent, and the prompt is computed once.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use bantam_engine::{
    EngineHandle, EngineOptions, Event, HandleOptions, Request, RequestFailure, SamplingParams,
    SubmitError, sample_seed,
};
use common::{Fault, Hashing, alone, collect, engine, limits, run, submit};

/// 14 tokens: three blocks of four, and two.
fn request() -> Request {
    let sampling = SamplingParams { seed: 3, ..SamplingParams::default() };
    Request { sampling, max_tokens: Some(5), ..Request::new((0..14).collect()) }
}

/// The `n`-th answer to the request, by a request of its own.
fn separate(n: usize) -> Vec<u32> {
    let sampling = SamplingParams { seed: sample_seed(3, n), ..SamplingParams::default() };
    alone(&Request { sampling, ..request() }, &limits()).0
}

/// A handle to an engine whose steps begin when they are told to.
fn gated(engine: EngineOptions, max_waiting: usize) -> (EngineHandle, Sender<()>) {
    let (open, gate): (_, Receiver<()>) = mpsc::channel();
    let model = Hashing::failing(limits(), move |_| {
        let _ = gate.recv();
        None
    });
    let options = HandleOptions { engine, max_waiting, ..HandleOptions::default() };
    (EngineHandle::spawn(options, move || Ok(model)).unwrap(), open)
}

#[test]
fn answers_are_those_of_separate_requests_and_the_prompt_is_computed_once() {
    for share_prefixes in [true, false] {
        let options = EngineOptions { share_prefixes, ..EngineOptions::default() };
        let (engine, open) = gated(options, 8);
        let receivers = engine.submit_samples(&request(), 6).unwrap();
        drop(open);
        let answers: Vec<Vec<u32>> = receivers.into_iter().map(|r| collect(r).0).collect();
        assert_eq!(answers, (0..6).map(separate).collect::<Vec<_>>());
        assert!(answers[1..].iter().any(|answer| answer != &answers[0]));
        engine.drain();
        assert!(engine.wait(Duration::from_secs(30)));
        let metrics = engine.metrics();
        // Every answer computes its own tokens but the last; and the rest of the last block.
        let prompts = if share_prefixes { 14 + 5 * 2 } else { 6 * 14 };
        assert_eq!(metrics.computed_tokens, prompts + 6 * 4);
        assert_eq!(metrics.cached_tokens, if share_prefixes { 5 * 12 } else { 0 });
        assert_eq!(metrics.blocks.referenced, 0);
    }
}

#[test]
fn when_the_first_is_cancelled_or_fails_another_computes_the_prompt() {
    for cancel in [true, false] {
        // Step 2 of 4 of the prompt is the last of the first answer.
        let fault = move |step| (!cancel && step == 2).then_some(Fault::Error);
        let limits = bantam_engine::Limits { max_batch_tokens: 4, ..limits() };
        let mut engine = engine(Hashing::failing(limits, fault), EngineOptions::default());
        let request = request();
        let mut receivers: Vec<_> =
            request.samples(3).map(|sample| submit(&mut engine, sample)).collect();
        engine.step().unwrap();
        assert_eq!((engine.metrics().running, engine.metrics().waiting), (1, 2));
        if cancel {
            drop(receivers.remove(0));
        }
        run(&mut engine);
        if !cancel {
            let (tokens, others) = collect(receivers.remove(0));
            assert!(tokens.is_empty());
            assert!(matches!(others.last(), Some(Event::Failed(RequestFailure::Step { .. }))));
        }
        for (receiver, n) in receivers.into_iter().zip(1..) {
            assert_eq!(collect(receiver).0, separate(n));
        }
        // The block that the first one completed, the other ten tokens, then two of the third; and
        // four generated tokens of each.
        let lost = if cancel { 0 } else { 4 };
        assert_eq!(engine.metrics().computed_tokens, 4 + lost + 10 + 2 + 2 * 4);
    }
}

#[test]
fn others_wait_for_no_more_than_the_blocks_they_share() {
    let request = |prompt: Vec<u32>| Request { max_tokens: Some(1), ..Request::new(prompt) };
    let long = request((0..20).collect());
    // Four blocks of four are there after the first step, of 16 tokens.
    for (shared, cached_tokens) in [(6, 4), (18, 16)] {
        let mut engine = engine(Hashing::new(limits()), EngineOptions::default());
        let alike = request((0..shared).chain([31; 3]).collect());
        let receivers = [&long, &alike].map(|request| submit(&mut engine, request.clone()));
        engine.step().unwrap();
        assert_eq!(engine.metrics().waiting, 1);
        engine.step().unwrap();
        // The rest of both, or as much as fits.
        assert_eq!((engine.metrics().waiting, engine.metrics().finished_length > 0), (0, true));
        run(&mut engine);
        assert_eq!(engine.metrics().cached_tokens, cached_tokens);
        for (receiver, request) in receivers.into_iter().zip([&long, &alike]) {
            assert_eq!(collect(receiver).0, alone(request, &limits()).0);
        }
    }
}

#[test]
fn places_in_the_queue_are_taken_together_or_not_at_all() {
    let (engine, open) = gated(EngineOptions::default(), 4);
    let mut first = engine.submit(request()).unwrap();
    assert!(matches!(first.recv(), Some(Event::Started { .. })));
    let two = engine.submit_samples(&request(), 2).unwrap();
    let refused = engine.submit_samples(&request(), 3).unwrap_err();
    assert!(matches!(refused, SubmitError::Full { waiting: 2, limit: 4, .. }), "{refused}");
    assert_eq!((engine.num_waiting(), engine.num_rejected()), (2, 3));
    let others = engine.submit_samples(&request(), 2).unwrap();
    let never = engine.submit_samples(&request(), 5).unwrap_err();
    assert_eq!(
        never.to_string(),
        "5 answers at once, but at most 4 requests may wait; ask for fewer"
    );
    // Nothing is made for answers that can never be accepted.
    let huge = engine.submit_samples(&request(), usize::MAX).unwrap_err();
    assert!(matches!(huge, SubmitError::TooMany { asked: usize::MAX, limit: 4 }), "{huge}");
    assert!(engine.submit_samples(&request(), 0).unwrap().is_empty());
    drop(open);
    for receivers in [two, others] {
        for (receiver, n) in receivers.into_iter().zip(0..) {
            assert_eq!(collect(receiver).0, separate(n));
        }
    }
    assert_eq!(engine.num_waiting(), 0);
}
