//! How probable a prompt is: every token once, whatever the chunks.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use bantam_engine::{
    EngineOptions, Event, FinishReason, Limits, Request, RequestFailure, TokenLogprobs, Usage,
};
use common::{Fault, Hashing, alone, collect, engine, greedy, limits, run, scores_alone, submit};

fn scoring(prompt: Vec<u32>) -> Request {
    Request { max_tokens: Some(0), prompt_logprobs: Some(2), ..Request::new(prompt) }
}

fn scores(events: &[Event]) -> Vec<TokenLogprobs> {
    let of = |event: &Event| match event {
        Event::PromptLogprobs(scores) => scores.clone(),
        _ => Vec::new(),
    };
    events.iter().flat_map(of).collect()
}

#[test]
fn a_prompt_alone_is_scored_in_steps_of_all_logit_rows() {
    let limits = Limits { max_logit_rows: 6, ..limits() };
    let mut engine = engine(Hashing::new(limits), EngineOptions::default());
    let request = scoring((0..20).collect());
    let receiver = submit(&mut engine, request.clone());
    let reports = run(&mut engine);
    // The last token's logits would be for a token that is not wanted, so it is not computed.
    let computed: Vec<usize> = reports.iter().map(|report| report.num_tokens).collect();
    assert_eq!(computed, [6, 6, 6, 1]);
    let (tokens, events) = collect(receiver);
    assert_eq!((tokens, scores(&events)), (vec![], scores_alone(&request)));
    let usage = Usage { prompt_tokens: 20, cached_tokens: 0, generated_tokens: 0 };
    let finished = Event::Finished { reason: FinishReason::Length, usage };
    assert_eq!(events.last(), Some(&finished));
    assert_eq!(engine.metrics().scored_tokens, 19);
    assert_eq!(engine.block_usage().referenced, 0);
}

#[test]
fn scoring_does_not_keep_others_from_decoding_or_starting() {
    let limits = Limits { max_logit_rows: 4, max_batch_tokens: 32, ..limits() };
    let mut engine = engine(Hashing::new(limits), EngineOptions::default());
    let request = scoring(vec![7; 60]);
    let receiver = submit(&mut engine, request.clone());
    engine.step().unwrap();
    let others = [3, 2, 1].map(|n| greedy(vec![n; 5], 6));
    let receivers = others.clone().map(|other| submit(&mut engine, other));
    for step in 1.. {
        engine.step().unwrap();
        if engine.metrics().finished_length == 3 {
            // Two steps for the prompt, which has no row for its token in the first, and one that
            // measures decoding.
            assert!(step <= 9, "{step} steps for 6 tokens");
            break;
        }
    }
    run(&mut engine);
    for (other, receiver) in others.iter().zip(receivers) {
        assert_eq!(collect(receiver).0, alone(other, &limits).0);
    }
    assert_eq!(scores(&collect(receiver).1), scores_alone(&request));
}

#[test]
fn a_cached_prompt_is_scored_all_the_same() {
    let mut engine = engine(Hashing::new(limits()), EngineOptions::default());
    let prompt: Vec<u32> = (0..17).collect();
    let plain = submit(&mut engine, greedy(prompt.clone(), 2));
    run(&mut engine);
    let request = Request { prompt_logprobs: Some(0), ..greedy(prompt, 3) };
    let scored = submit(&mut engine, request.clone());
    run(&mut engine);
    let (tokens, events) = collect(scored);
    assert_eq!(tokens, alone(&request, &limits()).0);
    assert_eq!(collect(plain).0, tokens[..2]);
    assert_eq!(scores(&events), scores_alone(&request));
    assert!(matches!(events[0], Event::Started { cached_tokens: 0, .. }));
}

#[test]
fn context_and_cache_may_be_full_and_one_token_has_no_score() {
    let small = Limits { num_blocks: 3, ..limits() };
    for (limits, length) in [(limits(), 64), (small, 13), (limits(), 1), (limits(), 2)] {
        let mut engine = engine(Hashing::new(limits), EngineOptions::default());
        let request = scoring(vec![3; length]);
        let receiver = submit(&mut engine, request.clone());
        run(&mut engine);
        let events = collect(receiver).1;
        assert_eq!(scores(&events), scores_alone(&request));
        assert!(matches!(events.last(), Some(Event::Finished { .. })), "{events:?}");
    }
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let small = Limits { num_blocks: 3, ..limits() };
    let nothing = Request { prompt_logprobs: None, ..scoring(vec![1; 4]) };
    let wide = Request { prompt_logprobs: Some(33), ..scoring(vec![1; 4]) };
    let cases = [
        (limits(), scoring(vec![]), "the prompt is empty"),
        (limits(), scoring(vec![1; 65]), "has 65 tokens, but a context holds 64; shorten it by 1"),
        (small, scoring(vec![1; 14]), "the cache has 3 blocks of 4 tokens"),
        (limits(), scoring(vec![99]), "token 99 at position 0"),
        (limits(), nothing, "max_tokens is 0, expected 1 to 60"),
        (limits(), wide, "prompt_logprobs is 33, expected at most 32"),
    ];
    for (limits, request, expected) in cases {
        let message = request.validate(&limits).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn damaged_logits_fail_the_scoring_request() {
    let limits = Limits { max_logit_rows: 9, max_batch_tokens: 6, ..limits() };
    let model = Hashing::failing(limits, |step| (step == 2).then_some(Fault::Nan));
    let mut engine = engine(model, EngineOptions::default());
    let request = scoring(vec![4; 12]);
    let receiver = submit(&mut engine, request.clone());
    engine.step().unwrap();
    let other = scoring((0..9).collect());
    let others = submit(&mut engine, other.clone());
    run(&mut engine);
    let (_, events) = collect(receiver);
    assert_eq!(scores(&events), scores_alone(&request)[..6]);
    assert!(matches!(events.last(), Some(Event::Failed(RequestFailure::Sampling(_)))));
    // The rows after the damaged one are those of the same tokens still.
    assert_eq!(scores(&collect(others).1), scores_alone(&other));
    assert_eq!(engine.block_usage().referenced, 0);
}
