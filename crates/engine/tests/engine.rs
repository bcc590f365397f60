//! Many requests at once: who goes first, what is shared, and what happens when a step fails.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::num::NonZeroUsize;
use std::task::Poll;
use std::time::Duration;

use bantam_engine::{
    Engine, EngineOptions, Event, EventReceiver, FinishReason, Limits, PrefillLimit, Request,
    RequestFailure, StepReport,
};
use common::{Fault, Hashing, alone, collect, engine, greedy, limits, prompt, run, submit};

#[test]
fn running_requests_decode_in_every_step_beside_a_long_prompt() {
    let limits = Limits { context: 2000, num_blocks: 1000, max_batch_tokens: 64, ..limits() };
    let prefill = PrefillLimit::Tokens(NonZeroUsize::new(8).unwrap());
    let mut engine =
        engine(Hashing::new(limits), EngineOptions { prefill, ..EngineOptions::default() });
    let short =
        [submit(&mut engine, greedy(vec![1; 3], 60)), submit(&mut engine, greedy(vec![2; 3], 60))];
    engine.step().unwrap();
    let long = submit(&mut engine, greedy(vec![3; 400], 2));
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
    let _events = submit(&mut engine, greedy(vec![1; 40], 1));
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
    let mut events = requests.clone().map(|request| submit(&mut engine, request.clone()));
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
            submit(&mut engine, Request { priority, ..greedy(vec![token], 1) })
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
        let events = submit(&mut engine, request.clone());
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
fn steps_are_timed_by_what_they_do() {
    let limits = Limits { max_batch_tokens: 8, ..limits() };
    let prefill = PrefillLimit::Tokens(NonZeroUsize::new(4).unwrap());
    let options = EngineOptions { prefill, ..EngineOptions::default() };
    let mut engine = engine(Hashing::new(limits), options);
    let _first = submit(&mut engine, greedy(vec![1; 16], 6));
    engine.step().unwrap();
    engine.step().unwrap();
    let _second = submit(&mut engine, greedy(vec![2; 12], 4));
    run(&mut engine);
    // The first prompt, the second beside the first answer, and the rest of both answers.
    let counts = engine.metrics().step_seconds.phases().map(|(phase, h)| (phase, h.count()));
    assert_eq!(counts, [("decode", 3), ("prefill", 2), ("mixed", 3)]);
    engine.step().unwrap();
    assert_eq!(engine.metrics().batch_tokens.count(), 8, "an empty step counts");
}

#[test]
fn a_step_that_fails_again_for_each_request_fails_its_batch_only() {
    let limits = Limits { max_sequences: 2, ..limits() };
    for fault in [Fault::Error, Fault::Panic] {
        let model = Hashing::failing(limits, move |step| (3..=5).contains(&step).then_some(fault));
        let mut engine = engine(model, EngineOptions::default());
        // The third has the beginning of the first: nothing of the failed step may be reused.
        let requests = [vec![1; 20], vec![2; 3], vec![1; 20]].map(|prompt| greedy(prompt, 6));
        let events = requests.clone().map(|request| submit(&mut engine, request.clone()));
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
        // The batch, then each of its two requests alone.
        assert_eq!((engine.metrics().failed, engine.metrics().failed_steps), (2, 3));
    }
}

#[test]
fn a_step_that_fails_once_costs_no_request() {
    for fault in [Fault::Error, Fault::Panic] {
        let model = Hashing::failing(limits(), move |step| (step == 3).then_some(fault));
        let mut engine = engine(model, EngineOptions::default());
        let requests = [vec![1; 20], vec![2; 3], vec![3; 5]].map(|prompt| greedy(prompt, 6));
        let events = requests.clone().map(|request| submit(&mut engine, request.clone()));
        run(&mut engine);
        for (events, request) in events.into_iter().zip(&requests) {
            assert_eq!(collect(events).0, alone(request, &limits()).0);
        }
        assert_eq!((engine.metrics().failed, engine.metrics().failed_steps), (0, 1));
    }
}

#[test]
fn panics_in_a_row_end_the_engine_and_every_request() {
    let limits = Limits { max_sequences: 1, ..limits() };
    let model = Hashing::failing(limits, |step| (step >= 2).then_some(Fault::Panic));
    let mut engine = engine(model, EngineOptions::default());
    let events: Vec<EventReceiver> =
        (0..5).map(|n| submit(&mut engine, greedy(vec![n], 9))).collect();
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
    let damaged = submit(&mut engine, request.clone());
    engine.step().unwrap();
    let again = submit(&mut engine, request.clone());
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
    let [progress, queue] = requests.map(|request| submit(&mut engine, request.clone()));
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
    let events = submit(&mut engine, request.clone());
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
        let events = submit(&mut engine, request.clone());
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
