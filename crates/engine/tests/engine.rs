//! Many requests at once: every answer is the one it would be alone, and no block is lost.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::num::NonZeroUsize;
use std::task::Poll;
use std::time::Duration;

use bantam_engine::{
    Engine, EngineOptions, Event, EventReceiver, FinishReason, Limits, PrefillLimit, Request,
    RequestFailure, SamplingParams, StepReport, event_channel,
};
use common::{Fault, Hashing, VOCAB, alone, collect, limits};
use proptest::prelude::*;

fn engine(model: Hashing, options: EngineOptions) -> Engine {
    Engine::new(Box::new(model), options).unwrap()
}

fn submit(engine: &mut Engine, request: &Request) -> EventReceiver {
    let (sender, receiver) = event_channel();
    engine.submit(request.clone(), Box::new(sender)).unwrap();
    receiver
}

/// Runs until nothing is left.
fn run(engine: &mut Engine) -> Vec<StepReport> {
    let mut reports = Vec::new();
    while !engine.is_idle() {
        reports.push(engine.step().unwrap());
        assert!(reports.len() < 20_000, "the engine does not finish");
    }
    reports
}

/// A prompt of `len` tokens, the first `shared` of which depend on the group only.
fn prompt(group: u32, shared: usize, len: usize, seed: u32) -> Vec<u32> {
    let token = |i: usize| {
        let own = if i < shared { 0 } else { seed };
        (group * 11 + own * 5 + i as u32 * 3) % VOCAB as u32
    };
    (0..len).map(token).collect()
}

/// One request of a random load.
#[derive(Clone, Debug)]
struct Arrival {
    at_step: usize,
    cancel_after: Option<usize>,
    request: Request,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let prompt = (0u32..3, 0usize..20, 1usize..30, 0u32..3)
        .prop_map(|(group, shared, len, seed)| prompt(group, shared, len, seed));
    let sampling = (any::<u64>(), prop_oneof![Just(0.0f32), Just(1.0)], 0f32..1.5).prop_map(
        |(seed, temperature, presence_penalty)| SamplingParams {
            seed,
            temperature,
            presence_penalty,
            repetition_penalty: 1.1,
            bad_words: vec![vec![3, 4], vec![9]],
            ..SamplingParams::default()
        },
    );
    let lengths = (proptest::option::weighted(0.8, 1usize..14), 0usize..6);
    let times = (0usize..30, proptest::option::weighted(0.2, 0usize..12));
    (prompt, sampling, lengths, times, 0i32..2, 0u64..2, any::<bool>()).prop_map(
        |(
            prompt,
            sampling,
            (max_tokens, min_tokens),
            (at_step, cancel_after),
            priority,
            salt,
            ignore_eos,
        )| {
            let request = Request {
                sampling,
                max_tokens,
                min_tokens: min_tokens.min(max_tokens.unwrap_or(1)),
                stop_tokens: vec![5],
                eos_tokens: vec![6, 7],
                ignore_eos,
                priority,
                salt,
                ..Request::new(prompt)
            };
            Arrival { at_step, cancel_after, request }
        },
    )
}

fn any_limits() -> impl Strategy<Value = Limits> {
    let sizes = (1usize..5, 1usize..24, 1usize..7, 1usize..7, 4usize..40);
    sizes.prop_map(|(block_tokens, max_batch_tokens, max_sequences, max_logit_rows, cached)| {
        Limits {
            // From one request at a time to all at once.
            num_blocks: cached.div_ceil(block_tokens) + 2,
            block_tokens,
            max_batch_tokens,
            max_sequences,
            max_logit_rows,
            ..limits()
        }
    })
}

fn any_options() -> impl Strategy<Value = EngineOptions> {
    let prefill = prop_oneof![
        Just(PrefillLimit::default()),
        (1usize..10).prop_map(|n| PrefillLimit::Tokens(NonZeroUsize::new(n).unwrap())),
    ];
    (prefill, any::<bool>())
        .prop_map(|(prefill, share_prefixes)| EngineOptions { prefill, share_prefixes })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn answers_do_not_depend_on_the_load(
        limits in any_limits(),
        options in any_options(),
        arrivals in proptest::collection::vec(arrival(), 1..14),
    ) {
        let mut arrivals = arrivals;
        arrivals.retain(|arrival| arrival.request.validate(&limits).is_ok());
        let mut engine = engine(Hashing::new(limits), options);
        let mut receivers: Vec<Option<EventReceiver>> = arrivals.iter().map(|_| None).collect();
        let mut cancelled: Vec<(usize, Vec<Event>)> = Vec::new();
        let mut step = 0;
        while step < 50 || !engine.is_idle() {
            for (n, arrival) in arrivals.iter().enumerate() {
                if arrival.at_step == step {
                    receivers[n] = Some(submit(&mut engine, &arrival.request));
                }
                if arrival.cancel_after.is_some_and(|after| arrival.at_step + after == step) {
                    let mut receiver = receivers[n].take().unwrap();
                    let mut seen = Vec::new();
                    while let Poll::Ready(Some(event)) =
                        receiver.recv_within(Duration::ZERO)
                    {
                        seen.push(event);
                    }
                    cancelled.push((n, seen));
                }
            }
            let report = engine.step().unwrap();
            prop_assert_eq!(&report.failure, &None);
            prop_assert!(report.num_tokens > 0 || engine.is_idle(), "nothing happens");
            let usage = engine.block_usage();
            prop_assert_eq!(usage.total(), limits.num_blocks);
            step += 1;
            prop_assert!(step < 20_000, "the engine does not finish");
        }
        prop_assert_eq!(engine.block_usage().referenced, 0);

        for (n, receiver) in receivers.into_iter().enumerate() {
            let Some(receiver) = receiver else { continue };
            let request = &arrivals[n].request;
            let (expected, expected_reason) = alone(request, &limits);
            let (tokens, others) = collect(receiver);
            prop_assert_eq!(&tokens, &expected);
            let [Event::Started { cached_tokens, .. }, Event::Finished { reason, usage }] = others[..]
            else {
                return Err(TestCaseError::fail(format!("{others:?}")));
            };
            prop_assert_eq!(reason, expected_reason);
            prop_assert!(cached_tokens < request.prompt.len());
            prop_assert_eq!(usage.cached_tokens, cached_tokens);
            prop_assert_eq!(usage.prompt_tokens, request.prompt.len());
            prop_assert_eq!(usage.generated_tokens, tokens.len());
        }
        for (n, events) in cancelled {
            let expected = alone(&arrivals[n].request, &limits).0;
            let tokens: Vec<u32> = events
                .iter()
                .filter_map(|event| match event {
                    Event::Token { token, .. } => Some(*token),
                    _ => None,
                })
                .collect();
            prop_assert!(expected.starts_with(&tokens));
        }
        let metrics = engine.metrics();
        let ended = metrics.finished_stop + metrics.finished_length + metrics.cancelled;
        prop_assert_eq!(ended, metrics.requests);
        prop_assert_eq!((metrics.failed, metrics.waiting, metrics.running), (0, 0, 0));
    }
}

fn greedy(prompt: Vec<u32>, max_tokens: usize) -> Request {
    let sampling = SamplingParams::greedy();
    Request { sampling, max_tokens: Some(max_tokens), ..Request::new(prompt) }
}

#[test]
fn running_requests_decode_in_every_step_beside_a_long_prompt() {
    let limits = Limits { context: 2000, num_blocks: 1000, max_batch_tokens: 64, ..limits() };
    let prefill = PrefillLimit::Tokens(NonZeroUsize::new(8).unwrap());
    let mut engine =
        engine(Hashing::new(limits), EngineOptions { prefill, ..EngineOptions::default() });
    let short = [
        submit(&mut engine, &greedy(vec![1; 3], 60)),
        submit(&mut engine, &greedy(vec![2; 3], 60)),
    ];
    engine.step().unwrap();
    let long = submit(&mut engine, &greedy(vec![3; 400], 2));
    for _ in 0..50 {
        let report = engine.step().unwrap();
        assert_eq!((report.decodes, report.prefills, report.num_tokens), (2, 1, 10));
    }
    drop((short, long));
    // Both are cancelled in the middle.
    engine.step().unwrap();
    assert!(engine.is_idle());
    assert_eq!((engine.metrics().cancelled, engine.block_usage().referenced), (3, 0));
}

#[test]
fn without_decoding_requests_a_prompt_gets_the_whole_budget() {
    let mut engine = engine(Hashing::new(limits()), EngineOptions::default());
    let _events = submit(&mut engine, &greedy(vec![1; 40], 1));
    let tokens: Vec<usize> = run(&mut engine).iter().map(|report| report.num_tokens).collect();
    assert_eq!(tokens, [16, 16, 8]);
}

#[test]
fn when_blocks_run_out_the_newest_of_the_lowest_priority_waits() {
    let limits = Limits { num_blocks: 9, max_sequences: 3, ..limits() };
    let mut engine = engine(Hashing::new(limits), EngineOptions::default());
    // The first in rank is the first to need another block.
    let requests = [(1, 1, 4), (0, 2, 6), (1, 3, 5)].map(|(priority, token, length)| Request {
        priority,
        ..greedy(vec![token; length], 29 - length)
    });
    let mut events = requests.clone().map(|request| submit(&mut engine, &request));
    let mut tokens = [(); 3].map(|()| Vec::new());
    let (mut order, mut preempted) = (Vec::new(), 0);
    while !engine.is_idle() {
        let before = tokens.each_ref().map(Vec::len);
        let newly = engine.step().unwrap().preempted;
        for (n, events) in events.iter_mut().enumerate() {
            while let Poll::Ready(Some(event)) = events.recv_within(Duration::ZERO) {
                match event {
                    Event::Token { token, .. } => tokens[n].push(token),
                    Event::Finished { .. } => order.push(n),
                    // A preemption is not an event.
                    other => {
                        assert!(matches!(other, Event::Started { .. }) && tokens[n].is_empty());
                    }
                }
            }
        }
        if newly > 0 && preempted == 0 {
            let gained = [0, 1, 2].map(|n| tokens[n].len() - before[n]);
            assert_eq!(gained, [1, 1, 0], "the worst ranked gives way");
        }
        preempted += newly;
    }
    assert_eq!(order, [1, 0, 2]);
    assert!(preempted > 0 && engine.metrics().preemptions == preempted as u64);
    for (tokens, request) in tokens.iter().zip(&requests) {
        assert_eq!(tokens, &alone(request, &limits).0);
    }
}

#[test]
fn requests_start_by_priority_then_arrival() {
    let limits = Limits { max_sequences: 1, ..limits() };
    let mut engine = engine(Hashing::new(limits), EngineOptions::default());
    let mut events: Vec<EventReceiver> = [(5, 1), (0, 2), (-1, 3), (0, 4)]
        .map(|(priority, token)| {
            submit(&mut engine, &Request { priority, ..greedy(vec![token], 1) })
        })
        .into();
    let mut order = Vec::new();
    while !engine.is_idle() {
        engine.step().unwrap();
        for (n, receiver) in events.iter_mut().enumerate() {
            if receiver.recv_within(Duration::ZERO).is_ready() && !order.contains(&n) {
                order.push(n);
            }
        }
    }
    assert_eq!(order, [2, 1, 3, 0]);
}

#[test]
fn a_shared_beginning_is_computed_once_and_reported() {
    let mut engine = engine(Hashing::new(limits()), EngineOptions::default());
    let (first, second) = (prompt(0, 12, 14, 1), prompt(0, 12, 15, 2));
    let mut computed = Vec::new();
    let mut cached = Vec::new();
    for (prompt, salt) in [(&first, 0), (&second, 0), (&first, 0), (&first, 1)] {
        let request = Request { salt, ..greedy(prompt.clone(), 1) };
        let events = submit(&mut engine, &request);
        computed.push(run(&mut engine).iter().map(|report| report.num_tokens).sum::<usize>());
        let (tokens, others) = collect(events);
        assert_eq!(tokens, alone(&request, &limits()).0);
        let Event::Started { cached_tokens, .. } = others[0] else { panic!("{others:?}") };
        cached.push(cached_tokens);
    }
    assert_eq!(cached, [0, 12, 12, 0]);
    assert_eq!(computed, [14, 3, 2, 14]);
    assert_eq!((engine.metrics().cached_tokens, engine.metrics().prompt_tokens), (24, 57));
}

#[test]
fn a_failing_step_fails_its_batch_only() {
    let limits = Limits { max_sequences: 2, ..limits() };
    for fault in [Fault::Error, Fault::Panic] {
        let model = Hashing::failing(limits, move |step| (step == 3).then_some(fault));
        let mut engine = engine(model, EngineOptions::default());
        // The third has the beginning of the first: nothing of the failed step may be reused.
        let requests = [vec![1; 20], vec![2; 3], vec![1; 20]].map(|prompt| greedy(prompt, 6));
        let events = requests.clone().map(|request| submit(&mut engine, &request));
        let reports = run(&mut engine);
        let failures: Vec<&StepReport> = reports.iter().filter(|r| r.failure.is_some()).collect();
        assert_eq!(failures.len(), 1, "{fault:?}");
        let ends = events.map(collect);
        for (_, others) in &ends[..2] {
            let Some(Event::Failed(RequestFailure::Step { reason })) = others.last() else {
                panic!("{others:?}")
            };
            assert!(reason.contains("injected"), "{reason}");
        }
        assert_eq!(ends[2].0, alone(&requests[2], &limits).0);
        assert_eq!(engine.block_usage().referenced, 0);
        assert_eq!((engine.metrics().failed, engine.metrics().failed_steps), (2, 1));
    }
}

#[test]
fn panics_in_a_row_end_the_engine_and_every_request() {
    let limits = Limits { max_sequences: 1, ..limits() };
    let model = Hashing::failing(limits, |step| (step >= 2).then_some(Fault::Panic));
    let mut engine = engine(model, EngineOptions::default());
    let events: Vec<EventReceiver> =
        (0..5).map(|n| submit(&mut engine, &greedy(vec![n], 9))).collect();
    let dead = loop {
        if let Err(dead) = engine.step() {
            break dead;
        }
    };
    assert!(dead.to_string().contains("injected, 3 times in a row"), "{dead}");
    let ends: Vec<Event> = events.into_iter().map(|e| collect(e).1.pop().unwrap()).collect();
    assert!(ends[..3].iter().all(|e| matches!(e, Event::Failed(RequestFailure::Step { .. }))));
    assert!(
        ends[3..].iter().all(|e| matches!(e, Event::Failed(RequestFailure::EngineDead { .. })))
    );
    assert!(engine.is_idle());
    assert_eq!(engine.block_usage().referenced, 0);
}

#[test]
fn damaged_logits_fail_one_request_and_do_not_enter_the_cache() {
    let model = Hashing::failing(limits(), |step| (step == 1).then_some(Fault::Nan));
    let mut engine = engine(model, EngineOptions::default());
    let request = greedy(vec![1; 9], 3);
    let damaged = submit(&mut engine, &request);
    engine.step().unwrap();
    let again = submit(&mut engine, &request);
    run(&mut engine);
    let (tokens, others) = collect(damaged);
    assert!(tokens.is_empty());
    assert!(matches!(
        others[..],
        [Event::Started { .. }, Event::Failed(RequestFailure::Sampling(_))]
    ));
    assert_eq!(collect(again).0, alone(&request, &limits()).0);
}

#[test]
fn deadlines_end_requests_in_the_queue_and_in_progress() {
    let limits = Limits { max_sequences: 1, ..limits() };
    let model = Hashing::failing(limits, |_| {
        std::thread::sleep(Duration::from_millis(5));
        None
    });
    let mut engine = engine(model, EngineOptions::default());
    let requests = [30, 0]
        .map(|ms| Request { deadline: Some(Duration::from_millis(ms)), ..greedy(vec![1], 60) });
    let [progress, queue] = requests.map(|request| submit(&mut engine, &request));
    run(&mut engine);
    let (tokens, others) = collect(progress);
    assert!((1..=6).contains(&tokens.len()), "{}", tokens.len());
    let Some(Event::Failed(RequestFailure::Deadline { generated, .. })) = others.last() else {
        panic!("{others:?}")
    };
    assert_eq!(*generated, tokens.len());
    let (tokens, others) = collect(queue);
    assert!(tokens.is_empty() && others.len() == 1, "{others:?}");
}

#[test]
fn logprobs_are_those_of_the_model() {
    let mut engine = engine(Hashing::new(limits()), EngineOptions::default());
    let request = Request { logprobs: Some(2), ..greedy(vec![1, 2, 3], 4) };
    let events = submit(&mut engine, &request);
    run(&mut engine);
    let mut count = 0;
    for event in events {
        if let Event::Token { token, logprobs } = event {
            let logprobs = logprobs.unwrap();
            // Greedy takes the most probable.
            assert_eq!(logprobs.top[0], (token, logprobs.chosen));
            assert!(logprobs.chosen < 0.0 && logprobs.top[1].1 < logprobs.chosen);
            count += 1;
        }
    }
    assert_eq!(count, 4);
}

#[test]
fn stop_tokens_end_an_answer_but_not_before_the_least_number() {
    let free = alone(&greedy(vec![4, 5], 8), &limits()).0;
    let stop = Request { stop_tokens: vec![free[2]], ..greedy(vec![4, 5], 8) };
    let eos = Request { eos_tokens: vec![free[2]], ..greedy(vec![4, 5], 8) };
    let ignored = Request { ignore_eos: true, ..eos.clone() };
    let least = Request { min_tokens: 8, ..stop.clone() };
    let end = free.iter().position(|&token| token == free[2]).unwrap() + 1;
    for (request, tokens, reason) in [
        (stop, Some(&free[..end]), FinishReason::Stop),
        (eos, Some(&free[..end]), FinishReason::Stop),
        (ignored, Some(&free[..]), FinishReason::Length),
        (least, None, FinishReason::Length),
    ] {
        let mut engine = engine(Hashing::new(limits()), EngineOptions::default());
        let events = submit(&mut engine, &request);
        run(&mut engine);
        let (got, others) = collect(events);
        match tokens {
            Some(tokens) => assert_eq!(got, tokens),
            None => assert!(got.len() == 8 && !got.contains(&free[2])),
        }
        let Some(Event::Finished { reason: got, .. }) = others.last() else { panic!("{others:?}") };
        assert_eq!(*got, reason);
    }
}

#[test]
fn useless_limits_and_options_are_refused() {
    let refuse = |limits, options| {
        Engine::new(Box::new(Hashing::new(limits)), options).err().unwrap().to_string()
    };
    let none = refuse(Limits { num_blocks: 0, ..limits() }, EngineOptions::default());
    assert!(none.contains("num_blocks is 0, expected 1 or more"), "{none}");
    let prefill = PrefillLimit::Slowdown(1.0);
    let slow = refuse(limits(), EngineOptions { prefill, ..EngineOptions::default() });
    assert!(slow.contains("slowdown is 1"), "{slow}");
}
