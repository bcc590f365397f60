//! Best-of and beam search, as clients of an engine.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::mpsc::{self, Receiver, Sender};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use bantam_engine::{
    AnswerError, Beam, BeamRequest, EngineHandle, EngineOptions, FinishReason, HandleOptions,
    Request, RequestFailure, SamplingParams, SubmitError, TokenLogprobs, beam_search, best_of,
};
use common::{
    FORM_END, Fault, Form, Hashing, VOCAB, alone, alone_in_form, block_on, greedy, limits,
    logits_after,
};
use proptest::prelude::*;

const LONG: Duration = Duration::from_secs(30);

fn spawn(model: Hashing, options: HandleOptions) -> EngineHandle {
    EngineHandle::spawn(options, move || Ok(model)).unwrap()
}

fn handle() -> EngineHandle {
    spawn(Hashing::new(limits()), HandleOptions::default())
}

/// An engine whose steps begin when they are told to.
fn gated(max_waiting: usize) -> (EngineHandle, Sender<()>) {
    let (open, gate): (_, Receiver<()>) = mpsc::channel();
    let model = Hashing::failing(limits(), move |_| {
        let _ = gate.recv();
        None
    });
    (spawn(model, HandleOptions { max_waiting, ..HandleOptions::default() }), open)
}

/// ln p of every token after these.
fn logprobs_after(tokens: &[u32]) -> Vec<f32> {
    let logits = logits_after(tokens);
    let logprob = |token| TokenLogprobs::new(&logits, token, 0).chosen;
    (0..VOCAB as u32).map(logprob).collect()
}

/// ln p of an answer.
fn logprob_of(prompt: &[u32], answer: &[u32]) -> f64 {
    let mut tokens = prompt.to_vec();
    let mut sum = 0.0;
    for &token in answer {
        sum += f64::from(logprobs_after(&tokens)[token as usize]);
        tokens.push(token);
    }
    sum
}

#[test]
fn the_best_of_several_have_the_highest_mean() {
    let engine = handle();
    let sampling = SamplingParams { seed: 8, ..SamplingParams::default() };
    let request = Request {
        sampling,
        max_tokens: Some(9),
        stop_tokens: vec![3, 4, 5],
        ..Request::new(vec![1, 2, 3])
    };
    let mut expected: Vec<(f64, Vec<u32>)> = request
        .samples(8)
        .map(|sample| {
            let tokens = alone(&sample, &limits()).0;
            (logprob_of(&sample.prompt, &tokens) / tokens.len() as f64, tokens)
        })
        .collect();
    expected.sort_by(|a, b| b.0.total_cmp(&a.0));
    let lengths: Vec<usize> = expected.iter().map(|(_, tokens)| tokens.len()).collect();
    assert!(lengths.iter().any(|&length| length != lengths[0]), "{lengths:?}");

    let answers = block_on(best_of(&engine, request.samples(8), 3)).unwrap();
    assert_eq!(answers.len(), 3);
    for (answer, (mean, tokens)) in answers.iter().zip(&expected) {
        assert_eq!(&answer.tokens, tokens);
        assert!((answer.mean_logprob() - mean).abs() < 1e-12);
        assert_eq!(answer.usage.generated_tokens, tokens.len());
    }
    let all = block_on(best_of(&engine, request.samples(8), 100)).unwrap();
    assert_eq!(all.len(), 8);
}

#[test]
fn best_of_takes_answers_in_a_form() {
    let engine = handle();
    let request = Request { eos_tokens: vec![FORM_END], ..greedy(vec![1, 2, 3], 20) };
    let forms = [1, 2, 3].map(|seed| Form::new(seed, 5));
    let submissions = forms.clone().map(|form| request.clone().constrained(Box::new(form)));
    let answers = block_on(best_of(&engine, submissions, 3)).unwrap();
    let mut expected = forms.map(|form| alone_in_form(&request, Some(form), &limits()).0);
    let mut tokens: Vec<_> = answers.into_iter().map(|answer| answer.tokens).collect();
    expected.sort();
    tokens.sort();
    assert_eq!(tokens, expected);
}

#[test]
fn a_failed_sample_fails_the_whole() {
    let model = Hashing::failing(limits(), |step| (step == 4).then_some(Fault::Nan));
    let engine = spawn(model, HandleOptions::default());
    let samples = greedy(vec![1, 2, 3], 50);
    let failed = block_on(best_of(&engine, samples.samples(3), 1)).unwrap_err();
    assert!(matches!(failed, AnswerError::Failed(RequestFailure::Sampling(_))), "{failed}");
    engine.drain();
    assert!(engine.wait(LONG));
    let metrics = engine.metrics();
    assert_eq!((metrics.failed, metrics.cancelled + metrics.finished_length), (1, 2));
}

/// Beam search by the book: every continuation of every beam by every token, sorted.
fn by_the_book(request: &BeamRequest, max_tokens: usize) -> Vec<Beam> {
    let BeamRequest { width, length_penalty, .. } = *request;
    let stops = |tokens: &[u32]| tokens.last().is_some_and(|t| request.stop_tokens.contains(t));
    let score = |logprob: f64, length: usize| logprob / (length as f64).powf(length_penalty);
    let mut running = vec![(Vec::new(), 0.0)];
    let mut finished: Vec<Beam> = Vec::new();
    for length in 1..=max_tokens {
        let mut all: Vec<(Vec<u32>, f64)> = Vec::new();
        for (tokens, logprob) in &running {
            let next = logprobs_after(&[&request.prompt[..], tokens].concat());
            all.extend((0..VOCAB as u32).map(|token| {
                let mut tokens: Vec<u32> = tokens.clone();
                tokens.push(token);
                (tokens, logprob + f64::from(next[token as usize]))
            }));
        }
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        let ends = |tokens: &[u32]| stops(tokens) || length == max_tokens;
        for (tokens, logprob) in all.iter().take(width).filter(|(tokens, _)| ends(tokens)) {
            let reason = if stops(tokens) { FinishReason::Stop } else { FinishReason::Length };
            finished.push(Beam {
                tokens: tokens.clone(),
                logprob: *logprob,
                score: score(*logprob, length),
                finish_reason: reason,
            });
        }
        finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        finished.truncate(width);
        running = all.into_iter().filter(|(tokens, _)| !ends(tokens)).take(width).collect();
        let worst = finished.last().filter(|_| finished.len() == width);
        let hopeless = |best: f64| worst.is_some_and(|worst| worst.score >= score(best, length));
        if running.first().is_none_or(|(_, logprob)| hopeless(*logprob)) {
            break;
        }
    }
    finished
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_beam_search_finds_what_the_book_says(
        prompt in proptest::collection::vec(0u32..VOCAB as u32, 1..20),
        width in 1usize..7,
        max_tokens in 1usize..12,
        stop_tokens in proptest::collection::vec(0u32..VOCAB as u32, 0..4),
        length_penalty in prop_oneof![Just(0.0), Just(1.0), -1.0..2.5],
        share_prefixes: bool,
    ) {
        let options = EngineOptions { share_prefixes, ..EngineOptions::default() };
        let engine = spawn(
            Hashing::new(limits()),
            HandleOptions { engine: options, max_waiting: 8, ..HandleOptions::default() },
        );
        let request = BeamRequest {
            max_tokens: Some(max_tokens),
            stop_tokens,
            length_penalty,
            ..BeamRequest::new(prompt, width)
        };
        let beams = block_on(beam_search(&engine, &request)).unwrap();
        prop_assert_eq!(&beams, &by_the_book(&request, max_tokens));
        prop_assert!((1..=width).contains(&beams.len()));
        for beam in &beams {
            prop_assert!((beam.logprob - logprob_of(&request.prompt, &beam.tokens)).abs() < 1e-9);
        }
        if width == 1 {
            let greedy = Request {
                stop_tokens: request.stop_tokens.clone(),
                ..greedy(request.prompt.clone(), max_tokens)
            };
            let (tokens, reason) = alone(&greedy, &limits());
            prop_assert_eq!((&beams[0].tokens, beams[0].finish_reason), (&tokens, reason));
        }
    }
}

#[test]
fn a_beam_as_wide_as_the_vocabulary_finds_the_most_probable_pair() {
    let request = BeamRequest {
        max_tokens: Some(2),
        length_penalty: 0.0,
        ..BeamRequest::new(vec![9, 8, 7], VOCAB)
    };
    let beams = block_on(beam_search(&handle(), &request)).unwrap();
    assert_eq!(beams.len(), VOCAB);
    let first = logprobs_after(&request.prompt);
    let mut pairs: Vec<(f64, Vec<u32>)> = Vec::new();
    for (a, &logprob) in (0..).zip(&first) {
        let second = logprobs_after(&[&request.prompt[..], &[a]].concat());
        let sums = second.iter().map(|&second| f64::from(logprob) + f64::from(second));
        pairs.extend(sums.zip(0..).map(|(sum, b)| (sum, vec![a, b])));
    }
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (beam, (logprob, tokens)) in beams.iter().zip(pairs) {
        assert_eq!((beam.logprob, &beam.tokens), (logprob, &tokens));
    }
}

#[test]
fn a_step_of_a_beam_search_recomputes_less_than_a_block() {
    let engine = handle();
    let request = BeamRequest { max_tokens: Some(12), ..BeamRequest::new((0..32).collect(), 3) };
    block_on(beam_search(&engine, &request)).unwrap();
    engine.drain();
    assert!(engine.wait(LONG));
    let block_tokens = limits().block_tokens as u64;
    let computed = engine.metrics().computed_tokens;
    assert!(computed <= 32 + 11 * 3 * block_tokens, "{computed} tokens");
}

#[test]
fn dropping_a_search_cancels_it() {
    let (engine, open) = gated(8);
    let request = BeamRequest { max_tokens: Some(40), ..BeamRequest::new(vec![1, 2, 3], 4) };
    let samples = greedy(vec![1, 2, 3], 40);
    {
        let mut search = pin!(beam_search(&engine, &request));
        let mut best = pin!(best_of(&engine, samples.samples(3), 1));
        block_on(poll_fn(|context| {
            assert!(search.as_mut().poll(context).is_pending());
            assert!(best.as_mut().poll(context).is_pending());
            Poll::Ready(())
        }));
    }
    drop(open);
    engine.drain();
    assert!(engine.wait(LONG));
    // The first step had begun, and may hold one of them or more: none goes on after it.
    let metrics = engine.metrics();
    assert_eq!(metrics.requests, 4);
    assert_eq!((metrics.cancelled + metrics.finished_length, metrics.blocks.referenced), (4, 0));
    assert!(metrics.generated_tokens <= 4, "{}", metrics.generated_tokens);
}

#[test]
fn a_search_waits_in_the_queue_once() {
    let (engine, open) = gated(2);
    let request = BeamRequest { max_tokens: Some(5), ..BeamRequest::new(vec![1, 2, 3], 2) };
    let mut search = pin!(beam_search(&engine, &request));
    let mut go_on = || {
        let pending = poll_fn(|context| Poll::Ready(search.as_mut().poll(context).is_pending()));
        assert!(block_on(pending), "the search is over");
    };
    // Fills the queue while a step is held.
    let fill = || {
        while engine.num_waiting() > 0 {
            thread::yield_now();
        }
        engine.submit_samples(&greedy(vec![7], 3), 2).unwrap()
    };
    go_on();
    let crowd = fill();
    let refused = block_on(beam_search(&engine, &request)).unwrap_err();
    assert!(matches!(refused, AnswerError::Submit(SubmitError::Full { .. })), "{refused}");
    open.send(()).unwrap();
    let more = fill();
    // The first step is done, and the second needs two places where there is none.
    go_on();
    assert_eq!(engine.num_waiting(), 4);
    drop(open);
    assert_eq!(block_on(search).unwrap(), by_the_book(&request, 5));
    drop((crowd, more));
}

#[test]
fn a_search_has_one_deadline() {
    let model = Hashing::failing(limits(), |_| {
        thread::sleep(Duration::from_millis(8));
        None
    });
    let engine = spawn(model, HandleOptions::default());
    let limit = Duration::from_millis(100);
    let request = BeamRequest { deadline: Some(limit), ..BeamRequest::new(vec![1], 2) };
    let failed = block_on(beam_search(&engine, &request)).unwrap_err();
    let AnswerError::Failed(RequestFailure::Deadline { limit: told, generated }) = failed else {
        panic!("{failed}")
    };
    assert_eq!(told, limit);
    assert!((1..=14).contains(&generated), "{generated}");
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let engine = handle();
    let base = BeamRequest::new(vec![1, 2], 2);
    let cases = [
        (BeamRequest::new(vec![1], 0), "width is 0, expected 1 or more"),
        (BeamRequest::new(vec![1], 1000), "1000 answers at once, but at most 256"),
        (BeamRequest::new(vec![], 2), "the prompt is empty"),
        (BeamRequest { length_penalty: f64::NAN, ..base.clone() }, "length_penalty is NaN"),
        (BeamRequest { max_tokens: Some(0), ..base.clone() }, "max_tokens is 0, expected 1 to 62"),
        (BeamRequest { stop_tokens: vec![32], ..base }, "token 32 in stop_tokens"),
    ];
    for (request, expected) in cases {
        let message = block_on(beam_search(&engine, &request)).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(engine.metrics().requests, 0);
}
