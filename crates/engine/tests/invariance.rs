//! Every answer is the one it would be alone, whatever else the engine does, and no block is lost.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::num::NonZeroUsize;
use std::task::Poll;
use std::time::Duration;

use bantam_engine::{
    EngineOptions, Event, EventReceiver, FinishReason, Limits, PrefillLimit, Request,
    SamplingParams, Submission, TokenLogprobs, Usage,
};
use common::{
    FORM_END, Form, Hashing, alone_in_form, engine, limits, prompt, scores_alone, submit,
};
use proptest::prelude::*;

/// One request of a random load.
#[derive(Clone, Debug)]
struct Arrival {
    at_step: usize,
    cancel_after: Option<usize>,
    request: Request,
    form: Option<Form>,
}

impl Arrival {
    fn submission(&self) -> Submission {
        match &self.form {
            Some(form) => self.request.clone().constrained(Box::new(form.clone())),
            None => self.request.clone().into(),
        }
    }
}

/// Several answers to one prompt, of which the first, which computes the prompt, may be cancelled.
fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
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
    let request = (
        prompt,
        sampling,
        proptest::option::weighted(0.8, 0usize..14),
        0usize..6,
        proptest::option::weighted(0.4, 0usize..4),
        0i32..2,
        0u64..2,
        any::<bool>(),
    )
        .prop_map(
            |(prompt, sampling, max_tokens, min, prompt_logprobs, priority, salt, ignore_eos)| {
                Request {
                    sampling,
                    max_tokens,
                    min_tokens: min.min(max_tokens.unwrap_or(1)),
                    stop_tokens: vec![5],
                    eos_tokens: vec![FORM_END, 7],
                    ignore_eos,
                    priority,
                    salt,
                    prompt_logprobs,
                    ..Request::new(prompt)
                }
            },
        );
    let form = proptest::option::weighted(0.3, (any::<u64>(), 0usize..9))
        .prop_map(|form| form.map(|(seed, length)| Form::new(seed, length)));
    let number = prop_oneof![3 => Just(1usize), 1 => 2usize..5];
    let times = (0usize..30, proptest::option::weighted(0.2, 0usize..12));
    (request, form, number, times).prop_map(|(request, form, number, (at_step, cancel_after))| {
        let ignore_eos = request.ignore_eos && form.is_none();
        let samples = Request { ignore_eos, ..request }.samples(number).collect::<Vec<_>>();
        let arrival = |(n, request)| Arrival {
            at_step,
            cancel_after: cancel_after.filter(|_| n == 0),
            request,
            form: form.clone(),
        };
        samples.into_iter().enumerate().map(arrival).collect()
    })
}

fn any_limits() -> impl Strategy<Value = Limits> {
    let sizes = (1usize..5, 1usize..24, 1usize..7, 1usize..12, 4usize..40);
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

/// All that arrived so far, in the order in which it has to.
#[derive(Debug, Default)]
struct Seen {
    cached_tokens: Option<usize>,
    scores: Vec<TokenLogprobs>,
    tokens: Vec<u32>,
    finished: Option<(FinishReason, Usage)>,
}

impl Seen {
    fn read(receiver: &mut EventReceiver) -> Self {
        let mut seen = Self::default();
        while let Poll::Ready(Some(event)) = receiver.recv_within(Duration::ZERO) {
            assert_eq!(seen.finished, None, "{event:?} after the end");
            match event {
                Event::Started { cached_tokens, .. } => {
                    assert_eq!(seen.cached_tokens.replace(cached_tokens), None);
                }
                Event::PromptLogprobs(scores) => {
                    assert!(seen.cached_tokens.is_some() && seen.tokens.is_empty());
                    assert!(!scores.is_empty());
                    seen.scores.extend(scores);
                }
                Event::Token { token, .. } => {
                    assert!(seen.cached_tokens.is_some());
                    seen.tokens.push(token);
                }
                Event::Finished { reason, usage } => seen.finished = Some((reason, usage)),
                Event::Failed(failure) => panic!("{failure}"),
            }
        }
        seen
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn answers_and_scores_do_not_depend_on_the_load(
        limits in any_limits(),
        options in any_options(),
        arrivals in proptest::collection::vec(arrivals(), 1..12),
    ) {
        let mut arrivals = arrivals.concat();
        arrivals.retain(|arrival| arrival.submission().validate(&limits).is_ok());
        let mut engine = engine(Hashing::new(limits), options);
        let mut receivers: Vec<Option<EventReceiver>> = arrivals.iter().map(|_| None).collect();
        let mut cancelled: Vec<(usize, Seen)> = Vec::new();
        let mut step = 0;
        while step < 50 || !engine.is_idle() {
            for (n, arrival) in arrivals.iter().enumerate() {
                if arrival.at_step == step {
                    receivers[n] = Some(submit(&mut engine, arrival.submission()));
                }
                if arrival.cancel_after.is_some_and(|after| arrival.at_step + after == step) {
                    let mut receiver = receivers[n].take().unwrap();
                    cancelled.push((n, Seen::read(&mut receiver)));
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

        for (arrival, receiver) in arrivals.iter().zip(receivers) {
            let Some(mut receiver) = receiver else { continue };
            let Arrival { request, form, .. } = arrival;
            let (expected, expected_reason) = alone_in_form(request, form.clone(), &limits);
            let seen = Seen::read(&mut receiver);
            prop_assert_eq!(&seen.tokens, &expected);
            prop_assert_eq!(seen.scores, scores_alone(request));
            let (reason, usage) = seen.finished.unwrap();
            let cached_tokens = seen.cached_tokens.unwrap();
            prop_assert_eq!(reason, expected_reason);
            prop_assert!(cached_tokens < request.prompt.len());
            prop_assert_eq!(usage.cached_tokens, cached_tokens);
            prop_assert_eq!(usage.prompt_tokens, request.prompt.len());
            prop_assert_eq!(usage.generated_tokens, expected.len());
        }
        for (n, seen) in cancelled {
            let Arrival { request, form, .. } = &arrivals[n];
            let expected = alone_in_form(request, form.clone(), &limits).0;
            prop_assert!(expected.starts_with(&seen.tokens));
            prop_assert!(scores_alone(request).starts_with(&seen.scores));
        }
        let metrics = engine.metrics();
        let ended = metrics.finished_stop + metrics.finished_length + metrics.cancelled;
        prop_assert_eq!(ended, metrics.requests);
        prop_assert_eq!((metrics.failed, metrics.waiting, metrics.running), (0, 0, 0));
    }
}
