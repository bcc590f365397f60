//! Numbers at the edge of what a request or a model can hold: whatever they are, there is a token or
//! an error, and the engine goes on.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bantam_backend::Batch;
use bantam_engine::{
    BeamRequest, Closed, ConstraintError, Engine, EngineError, EngineHandle, EngineOptions, Event,
    EventSink, Executor, HandleOptions, Health, Limits, Request, Sampler, SamplingContext,
    SamplingError, SamplingParams, TokenConstraint, TokenLogprobs, TokenMask, beam_search, best_of,
    event_channel, uniform,
};
use bantam_model::ModelError;
use common::{Fault, Hashing, alone, block_on, collect, engine, greedy, limits, run, submit};
use proptest::prelude::*;

/// Any f32 at all, and those that break arithmetic more often than chance would give them.
fn any_f32() -> impl Strategy<Value = f32> {
    let edges = [
        0.0,
        -0.0,
        1.0,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        f32::from_bits(1),
        1e-38,
        -3e38,
        f32::EPSILON,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ];
    prop_oneof![
        2 => any::<u32>().prop_map(f32::from_bits),
        2 => proptest::sample::select(edges.to_vec()),
        1 => -30f32..30.0,
    ]
}

/// Parameters of any bits; most are out of range.
fn any_params() -> impl Strategy<Value = SamplingParams> {
    let numbers = proptest::array::uniform7(any_f32());
    let lists = (
        proptest::collection::vec((0u32..40, any_f32()), 0..4),
        proptest::collection::vec(proptest::collection::vec(0u32..40, 0..3), 0..3),
    );
    (numbers, lists, prop_oneof![Just(0), 0usize..40, Just(usize::MAX)], any::<u64>()).prop_map(
        |(n, (logit_bias, bad_words), top_k, seed)| SamplingParams {
            temperature: n[0],
            top_k,
            top_p: n[1],
            min_p: n[2],
            typical_p: n[3],
            repetition_penalty: n[4],
            presence_penalty: n[5],
            frequency_penalty: n[6],
            logit_bias,
            bad_words,
            seed,
        },
    )
}

/// Parameters within their ranges, most of them at an end of it.
fn extreme_params() -> impl Strategy<Value = SamplingParams> {
    let tiny = f32::from_bits(1);
    let within = |low: f32, usual: f32, high: f32| {
        prop_oneof![Just(low), Just(usual), Just(high), low..=high]
    };
    let numbers = (
        prop_oneof![Just(0.0), Just(tiny), within(f32::MIN_POSITIVE, 1.0, 100.0)],
        within(tiny, 1.0, 1.0),
        within(0.0, 0.0, 1.0),
        within(tiny, 1.0, 1.0),
        within(0.01, 1.0, 100.0),
        within(-2.0, 0.0, 2.0),
        within(-2.0, 0.0, 2.0),
    );
    let bias = prop_oneof![Just(f32::NEG_INFINITY), within(-100.0, 0.0, 100.0)];
    let lists = (
        proptest::collection::vec((0u32..40, bias), 0..4),
        proptest::collection::vec(proptest::collection::vec(0u32..40, 1..3), 0..3),
    );
    (numbers, lists, prop_oneof![Just(0), 0usize..40, Just(usize::MAX)], any::<u64>()).prop_map(
        |(n, (logit_bias, bad_words), top_k, seed)| SamplingParams {
            temperature: n.0,
            top_p: n.1,
            min_p: n.2,
            typical_p: n.3,
            repetition_penalty: n.4,
            presence_penalty: n.5,
            frequency_penalty: n.6,
            top_k,
            logit_bias,
            bad_words,
            seed,
        },
    )
}

/// Whether a token may be chosen at all.
fn eligible(token: u32, logits: &[f32], params: &SamplingParams, c: &SamplingContext<'_>) -> bool {
    let excluded = c.excluded.contains(&token)
        || c.allowed.is_some_and(|allowed| !allowed.contains(token))
        || params.logit_bias.contains(&(token, f32::NEG_INFINITY))
        || params.bad_words.iter().any(|word| {
            let (last, beginning) = word.split_last().unwrap();
            *last == token && c.tokens.ends_with(beginning)
        });
    logits.get(token as usize).is_some_and(|&logit| logit > f32::NEG_INFINITY) && !excluded
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_sampler_is_total(
        params in extreme_params(),
        logits in proptest::collection::vec(any_f32(), 0..40),
        finite_only: bool,
        tokens in proptest::collection::vec(0u32..45, 0..60),
        num_prompt in 0usize..70,
        excluded in proptest::collection::vec(0u32..45, 0..3),
        mask: Option<[u32; 2]>,
    ) {
        let finite = |logit: &f32| if *logit < f32::INFINITY { *logit } else { f32::MAX };
        let logits: Vec<f32> =
            if finite_only { logits.iter().map(finite).collect() } else { logits };
        let allowed = mask.as_ref().map(|words| TokenMask::new(words));
        let context = SamplingContext { tokens: &tokens, num_prompt, excluded: &excluded, allowed };
        let some = (0..40).any(|token| eligible(token, &logits, &params, &context));
        match Sampler::new(params.clone()).unwrap().choose(&logits, &context) {
            Ok(token) => prop_assert!(eligible(token, &logits, &params, &context), "{token}"),
            Err(SamplingError::NotFinite { value, .. }) => {
                prop_assert!(!finite_only && (value.is_nan() || value == f32::INFINITY));
            }
            Err(SamplingError::NoCandidate { .. }) => prop_assert!(!some),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn parameters_of_any_bits_are_refused_by_name_or_work(
        params in any_params(),
        logits in proptest::collection::vec(any_f32(), 1..40),
        tokens in proptest::collection::vec(0u32..45, 0..60),
    ) {
        match Sampler::new(params.clone()) {
            Ok(mut sampler) => drop(sampler.sample(&logits, &tokens, tokens.len())),
            Err(SamplingError::Parameter { name, expected, .. }) => {
                prop_assert!(!name.is_empty() && expected.contains(char::is_numeric));
            }
            Err(error) => prop_assert!(error.to_string().contains("bad_words"), "{error}"),
        }
    }

    #[test]
    fn log_probabilities_are_numbers_whatever_the_logits(
        logits in proptest::collection::vec(any_f32(), 0..60),
        chosen in 0u32..70,
        num_top in 0usize..70,
    ) {
        let scores = TokenLogprobs::new(&logits, chosen, num_top);
        prop_assert!(scores.chosen <= 0.0, "{}", scores.chosen);
        prop_assert_eq!(scores.top.len(), num_top.min(logits.len()));
        prop_assert!(scores.top.iter().all(|(_, logprob)| *logprob <= 0.0), "{:?}", scores.top);
        prop_assert!(scores.top.is_sorted_by(|a, b| a.1 >= b.1), "{:?}", scores.top);
    }
}

/// Returns logits of any bits, a different row for each position.
struct Wild {
    limits: Limits,
    seed: u64,
    /// Leaves out NaN and infinities.
    finite: bool,
}

impl Executor for Wild {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn forward(&mut self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
        let number = |row: usize, token: usize| {
            let random = uniform(self.seed.wrapping_add(token as u64), row);
            let number = f32::from_bits((random * f64::from(u32::MAX)) as u32);
            if number.is_finite() || !self.finite { number } else { f32::MAX }
        };
        let position = |row: &u32| batch.positions[*row as usize] as usize;
        let rows = batch.logit_rows.iter().map(position);
        let vocab = self.limits.vocab_size;
        Ok(rows
            .flat_map(|row| (0..vocab).map(move |token| (row, token)))
            .map(|(row, token)| number(row, token))
            .collect())
    }
}

/// A request whose every number may be at its end.
fn extreme_request() -> impl Strategy<Value = Request> {
    let count = || prop_oneof![Just(None), (0usize..70).prop_map(Some), Just(Some(usize::MAX))];
    let tokens = |most| proptest::collection::vec(0u32..34, 0..most);
    let counts = (count(), count(), count(), count());
    let lists = (tokens(70), tokens(5), tokens(3));
    let deadlines = prop_oneof![
        Just(None),
        Just(Some(Duration::ZERO)),
        Just(Some(Duration::MAX)),
        Just(Some(Duration::from_millis(1))),
    ];
    let priorities = prop_oneof![Just(i32::MIN), Just(0), Just(i32::MAX)];
    (extreme_params(), counts, lists, deadlines, priorities, any::<bool>(), any::<u64>()).prop_map(
        |(sampling, counts, lists, deadline, priority, ignore_eos, salt)| Request {
            prompt: lists.0,
            sampling,
            max_tokens: counts.0,
            min_tokens: counts.1.unwrap_or(0),
            stop_tokens: lists.1,
            eos_tokens: lists.2,
            ignore_eos,
            priority,
            deadline,
            salt,
            logprobs: counts.2,
            prompt_logprobs: counts.3,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn an_engine_survives_every_request(
        requests in proptest::collection::vec(extreme_request(), 1..8),
        seed: u64,
        finite: bool,
    ) {
        let mut engine =
            Engine::new(Box::new(Wild { limits: limits(), seed, finite }), EngineOptions::default())
                .unwrap();
        let mut accepted = Vec::new();
        for request in requests {
            let (sender, events) = event_channel();
            match engine.submit(request, Box::new(sender)) {
                Ok(()) => accepted.push(events),
                Err(EngineError::Model(_) | EngineError::Batch(_)) => prop_assert!(false),
                Err(_) => {}
            }
        }
        let reports = run(&mut engine);
        prop_assert!(reports.iter().all(|report| report.failure.is_none()));
        for events in accepted {
            let ended = collect(events).1.pop();
            let complete = matches!(ended, Some(Event::Finished { .. } | Event::Failed(_)));
            prop_assert!(complete);
        }
        prop_assert_eq!(engine.block_usage().referenced, 0);
    }

    #[test]
    fn searches_survive_every_number(
        seed: u64,
        finite: bool,
        width in 1usize..40,
        stop_tokens in proptest::collection::vec(0u32..32, 0..40),
        length_penalty in prop_oneof![
            -10.0..=10.0, Just(f64::MAX), Just(f64::MIN_POSITIVE), Just(f64::NAN), Just(-1e300),
        ],
        sampling in extreme_params(),
    ) {
        let engine = EngineHandle::spawn(HandleOptions::default(), move || {
            Ok(Wild { limits: limits(), seed, finite })
        }).unwrap();
        let request = BeamRequest {
            max_tokens: Some(4), stop_tokens, length_penalty, ..BeamRequest::new(vec![1, 2], width)
        };
        for beam in block_on(beam_search(&engine, &request)).into_iter().flatten() {
            prop_assert!(!beam.score.is_nan() && !beam.logprob.is_nan());
        }
        let sample = Request { sampling, max_tokens: Some(4), ..Request::new(vec![1, 2]) };
        for answer in block_on(best_of(&engine, sample.samples(3), 2)).into_iter().flatten() {
            prop_assert!(!answer.mean_logprob().is_nan());
        }
        prop_assert_eq!(engine.health(), Health::Ready);
    }
}

#[test]
fn a_search_with_many_stop_tokens_takes_little_memory() {
    let limits = Limits { vocab_size: 20_000, context: 4096, num_blocks: 4096, ..limits() };
    let wild = Wild { limits, seed: 3, finite: true };
    let engine = EngineHandle::spawn(HandleOptions::default(), move || Ok(wild)).unwrap();
    let request = |stop_tokens| BeamRequest {
        max_tokens: Some(3),
        stop_tokens,
        ..BeamRequest::new(vec![1; 8], 128)
    };
    assert!(block_on(beam_search(&engine, &request((0..1024).collect()))).is_ok());
    let refused = block_on(beam_search(&engine, &request((0..20_000).collect()))).unwrap_err();
    assert!(refused.to_string().contains("stop_tokens has 20000 entries, expected at most 1024"));
}

#[test]
fn what_would_take_memory_without_end_is_refused_with_what_would_not() {
    let limits =
        Limits { vocab_size: 50_000, context: 8192, num_blocks: 4096, block_tokens: 4, ..limits() };
    let ok = Request::new(vec![1; 8]);
    let biased = |n| SamplingParams { logit_bias: vec![(1, 1.0); n], ..SamplingParams::default() };
    let cases = [
        (Request { logprobs: Some(1000), ..ok.clone() }, "logprobs is 1000, expected at most 128"),
        (
            Request { prompt_logprobs: Some(50_000), ..Request::new(vec![1; 4096]) },
            "prompt_logprobs is 50000, expected at most 256 for 4096 tokens",
        ),
        (Request { sampling: biased(50_001), ..ok.clone() }, "logit_bias has 50001 entries"),
        (Request { stop_tokens: vec![1; 1025], ..ok.clone() }, "stop_tokens has 1025 entries"),
    ];
    for (request, expected) in cases {
        let message = request.validate(&limits).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    Request { logprobs: Some(1000), max_tokens: Some(100), ..ok }.validate(&limits).unwrap();
    let words = SamplingParams { bad_words: vec![vec![1]; 4097], ..SamplingParams::default() };
    assert!(words.validate().unwrap_err().to_string().contains("expected at most 4096"));
}

/// A reader that panics when it is told, asked or dropped.
struct Explosive {
    fuse: When,
    told: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Started,
    Token,
    Asked,
    Last,
    Dropped,
}

impl EventSink for Explosive {
    fn send(&mut self, event: Event) -> Result<(), Closed> {
        self.told += 1;
        let now = match event {
            Event::Started { .. } => When::Started,
            Event::Token { .. } if self.told == 3 => When::Token,
            Event::Finished { .. } | Event::Failed(_) => When::Last,
            _ => return Ok(()),
        };
        assert!(now != self.fuse, "boom");
        Ok(())
    }

    fn is_closed(&self) -> bool {
        assert!(self.fuse != When::Asked || self.told < 3, "boom");
        false
    }
}

impl Drop for Explosive {
    fn drop(&mut self) {
        assert!(self.fuse != When::Dropped, "boom");
    }
}

/// A constraint whose end is a panic.
struct PanicsAtTheEnd(Arc<AtomicUsize>);

impl TokenConstraint for PanicsAtTheEnd {
    fn allowed(&mut self) -> Result<TokenMask<'_>, ConstraintError> {
        Ok(TokenMask::new(&[u32::MAX]))
    }

    fn accept(&mut self, _: u32) -> Result<(), ConstraintError> {
        Ok(())
    }
}

impl Drop for PanicsAtTheEnd {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("boom");
    }
}

#[test]
fn whatever_panics_in_one_request_ends_that_request_only() {
    let request = greedy(vec![1, 2, 3], 8);
    let expected = alone(&request, &limits()).0;
    for fuse in [When::Started, When::Token, When::Asked, When::Last, When::Dropped] {
        let mut engine = engine(Hashing::new(limits()), EngineOptions::default());
        let before = submit(&mut engine, request.clone());
        engine.submit(request.clone(), Box::new(Explosive { fuse, told: 0 })).unwrap();
        let after = submit(&mut engine, request.clone());
        let reports = run(&mut engine);
        assert!(reports.iter().all(|report| report.failure.is_none()), "{fuse:?}");
        assert_eq!((&collect(before).0, &collect(after).0), (&expected, &expected), "{fuse:?}");
        assert_eq!(engine.block_usage().referenced, 0);
        let ended_well = engine.metrics().finished_length;
        let spoilt = matches!(fuse, When::Last | When::Dropped);
        assert_eq!(ended_well, if spoilt { 3 } else { 2 }, "{fuse:?}");
    }
    let mut engine = engine(Hashing::new(limits()), EngineOptions::default());
    let dropped = Arc::new(AtomicUsize::new(0));
    let fuse = Box::new(PanicsAtTheEnd(Arc::clone(&dropped)));
    let broken = submit(&mut engine, request.clone().constrained(fuse));
    let beside = submit(&mut engine, request);
    run(&mut engine);
    assert_eq!((collect(broken).0, collect(beside).0), (expected.clone(), expected));
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

/// The token on which [`Poisonable`] fails.
const POISON: u32 = 31;

/// Fails on every batch that holds a certain token.
struct Poisonable {
    inner: Hashing,
    fault: Fault,
}

impl Executor for Poisonable {
    fn limits(&self) -> Limits {
        self.inner.limits
    }

    fn forward(&mut self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
        let fault = batch.tokens.contains(&POISON).then_some(self.fault);
        self.inner.before = Box::new(move |_| fault);
        self.inner.forward(batch)
    }
}

#[test]
fn a_request_that_breaks_the_executor_takes_no_other_with_it() {
    for fault in [Fault::Error, Fault::Panic] {
        let poisonable = Poisonable { inner: Hashing::new(limits()), fault };
        let mut engine = Engine::new(Box::new(poisonable), EngineOptions::default()).unwrap();
        let request = greedy(vec![1, 2, 3], 8);
        let expected = alone(&request, &limits()).0;
        // More in a row than panics are forgiven.
        for _ in 0..5 {
            let healthy =
                [submit(&mut engine, request.clone()), submit(&mut engine, request.clone())];
            let poisoned = submit(&mut engine, greedy(vec![4, POISON, 5], 8));
            run(&mut engine);
            for healthy in healthy {
                assert_eq!(collect(healthy).0, expected);
            }
            assert!(matches!(collect(poisoned).1.last(), Some(Event::Failed(_))));
            let alone = submit(&mut engine, greedy(vec![POISON], 8));
            run(&mut engine);
            assert!(matches!(collect(alone).1.last(), Some(Event::Failed(_))));
        }
        assert_eq!(engine.block_usage().referenced, 0);
        assert_eq!(engine.metrics().failed, 10);
    }
}
