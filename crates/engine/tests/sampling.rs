//! Sampling: exact distributions, filters that hold, and randomness that depends on nothing else.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

use std::collections::BTreeSet;

use bantam_engine::{Sampler, SamplingContext, SamplingError, SamplingParams};
use proptest::prelude::*;

const DRAWS: usize = 20_000;

fn sampler(params: SamplingParams) -> Sampler {
    Sampler::new(params).unwrap()
}

/// Draws at positions 0..DRAWS, counted by token.
fn histogram(params: SamplingParams, logits: &[f32]) -> Vec<f64> {
    let mut sampler = sampler(params.clone());
    let mut counts = vec![0.0; logits.len()];
    for position in 0..DRAWS {
        counts[sampler.sample(logits, &[], position).unwrap() as usize] += 1.0;
    }
    counts
}

/// χ² of counts against probabilities; a count where the probability is 0 is infinitely far.
fn chi_square(counts: &[f64], probabilities: &[f64]) -> f64 {
    let cell = |(&count, &p): (&f64, &f64)| {
        let expected = p * DRAWS as f64;
        match (count, expected) {
            (0.0, 0.0) => 0.0,
            _ => (count - expected).powi(2) / expected,
        }
    };
    counts.iter().zip(probabilities).map(cell).sum()
}

fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let weights: Vec<f64> = logits.iter().map(|&l| (f64::from(l) / temperature).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

/// The tokens that the documented filters leave, by the book: sort, cut, cut, cut.
fn allowed(params: &SamplingParams, logits: &[f32]) -> BTreeSet<u32> {
    let probabilities = softmax(logits, f64::from(params.temperature));
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    if params.top_k > 0 {
        order.truncate(params.top_k);
    }
    let total: f64 = order.iter().map(|&token| probabilities[token]).sum();
    let mut reached = 0.0;
    let mut kept = Vec::new();
    for token in order {
        // The rounding of f32 parameters may move the border by one token: leave it in.
        if reached < f64::from(params.top_p) * total * (1.0 + 1e-9) {
            kept.push(token);
        }
        reached += probabilities[token];
    }
    let least = f64::from(params.min_p) * probabilities[kept[0]] * (1.0 - 1e-9);
    kept.into_iter().filter(|&t| probabilities[t] >= least).map(|t| t as u32).collect()
}

#[test]
fn draws_follow_the_softmax() {
    let logits = [1.0, -0.5, 0.25, 2.0, -1.5, 0.0, 1.25, -3.0];
    for temperature in [0.5f32, 1.0, 2.0] {
        let params = SamplingParams { temperature, seed: 11, ..SamplingParams::default() };
        let probabilities = softmax(&logits, f64::from(temperature));
        // 29.9 is exceeded once in 10 000 times by chance (7 degrees of freedom).
        let distance = chi_square(&histogram(params.clone(), &logits), &probabilities);
        assert!(distance < 29.9, "χ² {distance} at temperature {temperature}");
    }
}

#[test]
fn filtered_draws_follow_the_renormalised_softmax() {
    let logits = [1.0, -0.5, 0.25, 2.0, -1.5, 0.0, 1.25, -3.0];
    let params = SamplingParams { top_k: 3, seed: 5, ..SamplingParams::default() };
    let mut expected = softmax(&logits, 1.0);
    for (token, p) in expected.iter_mut().enumerate() {
        *p *= f64::from(u8::from([0, 3, 6].contains(&token)));
    }
    let sum: f64 = expected.iter().sum();
    expected.iter_mut().for_each(|p| *p /= sum);
    let distance = chi_square(&histogram(params.clone(), &logits), &expected);
    assert!(distance < 18.4, "χ² {distance}"); // 2 degrees of freedom
}

#[test]
fn equal_logits_prefer_the_lower_id() {
    let logits = [1.0, 3.0, 3.0, 3.0];
    assert_eq!(sampler(SamplingParams::greedy()).sample(&logits, &[], 0), Ok(1));
    let top_two = SamplingParams { top_k: 2, ..SamplingParams::default() };
    let counts = histogram(top_two, &logits);
    assert!(counts[1] > 0.0 && counts[2] > 0.0);
    assert_eq!((counts[0], counts[3]), (0.0, 0.0));
}

#[test]
fn repetition_penalty_acts_once_on_positive_and_negative_logits() {
    let params = SamplingParams { repetition_penalty: 2.0, ..SamplingParams::greedy() };
    // 3/2 = 1.5 falls below 1.6, however often the token occurs.
    assert_eq!(sampler(params.clone()).sample(&[3.0, 1.6], &[0, 0, 0], 3), Ok(1));
    assert_eq!(sampler(params.clone()).sample(&[3.0, 1.4], &[0, 0, 0], 3), Ok(0));
    // -1 becomes -2, below -1.5.
    assert_eq!(sampler(params.clone()).sample(&[-1.0, -1.5], &[0], 1), Ok(1));
    // A prompt may hold ids past the logits, of a padded vocabulary.
    assert_eq!(sampler(params.clone()).sample(&[3.0, 1.4], &[9], 1), Ok(0));
}

#[test]
fn damaged_logits_are_an_error_and_excluded_ones_are_not() {
    let mut greedy = sampler(SamplingParams::greedy());
    let nan = greedy.sample(&[0.0, f32::NAN], &[], 7).unwrap_err();
    assert!(nan.to_string().starts_with("the logit of token 1 at position 7 is NaN"), "{nan}");
    assert!(greedy.sample(&[f32::INFINITY], &[], 0).is_err());
    let none = SamplingError::NoCandidate { position: 2 };
    assert_eq!(greedy.sample(&[f32::NEG_INFINITY; 3], &[], 2), Err(none.clone()));
    assert_eq!(greedy.sample(&[], &[], 2), Err(none));
    let logits = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
    assert_eq!(histogram(SamplingParams::default(), &logits), [0.0, DRAWS as f64, 0.0]);
}

#[test]
fn a_tiny_temperature_is_greedy_and_never_fails() {
    let params = SamplingParams { temperature: f32::MIN_POSITIVE, ..SamplingParams::default() };
    assert_eq!(histogram(params, &[1.0, 5.0, 4.999]), [0.0, DRAWS as f64, 0.0]);
}

#[test]
fn parameters_out_of_range_are_refused_by_name() {
    let ok = SamplingParams::default();
    let refused = [
        ("temperature", SamplingParams { temperature: -1.0, ..ok.clone() }),
        ("temperature", SamplingParams { temperature: f32::NAN, ..ok.clone() }),
        ("top_p", SamplingParams { top_p: 0.0, ..ok.clone() }),
        ("top_p", SamplingParams { top_p: f32::NAN, ..ok.clone() }),
        ("min_p", SamplingParams { min_p: 1.01, ..ok.clone() }),
        ("repetition_penalty", SamplingParams { repetition_penalty: 0.0, ..ok.clone() }),
        ("typical_p", SamplingParams { typical_p: 0.0, ..ok.clone() }),
        ("presence_penalty", SamplingParams { presence_penalty: f32::NAN, ..ok.clone() }),
        ("frequency_penalty", SamplingParams { frequency_penalty: f32::INFINITY, ..ok.clone() }),
        ("logit_bias", SamplingParams { logit_bias: vec![(0, f32::NAN)], ..ok.clone() }),
        ("bad_words[1]", SamplingParams { bad_words: vec![vec![1], vec![]], ..ok.clone() }),
    ];
    for (name, params) in refused {
        let message = params.validate().unwrap_err().to_string();
        assert!(message.starts_with(name), "{message}");
        assert!(Sampler::new(params).is_err());
    }
}

fn params() -> impl Strategy<Value = SamplingParams> {
    let ranges = (0.1f32..3.0, 0usize..12, 0.05f32..=1.0, 0f32..=1.0, any::<u64>());
    ranges.prop_map(|(temperature, top_k, top_p, min_p, seed)| SamplingParams {
        temperature,
        top_k,
        top_p,
        min_p,
        seed,
        ..SamplingParams::default()
    })
}

proptest! {
    #[test]
    fn only_allowed_tokens_are_chosen(
        params in params(),
        logits in proptest::collection::vec(-8f32..8.0, 1..300),
    ) {
        let allowed = allowed(&params, &logits);
        let mut sampler = sampler(params.clone());
        for position in 0..50 {
            let token = sampler.sample(&logits, &[], position).unwrap();
            prop_assert!(allowed.contains(&token), "{token} is not among {allowed:?}");
        }
    }

    #[test]
    fn a_token_depends_on_seed_and_position_only(
        params in params(),
        logits in proptest::collection::vec(-8f32..8.0, 1..300),
        other in proptest::collection::vec(-8f32..8.0, 1..300),
        position in 0usize..100_000,
    ) {
        let alone = sampler(params.clone()).sample(&logits, &[], position).unwrap();
        let mut used = sampler(params.clone());
        for earlier in 0..5 {
            used.sample(&other, &[], earlier).unwrap();
        }
        prop_assert_eq!(used.sample(&logits, &[], position).unwrap(), alone);
    }
}

/// The greedy choice after these tokens, the first `num_prompt` of which are the prompt.
fn greedy_after(
    params: SamplingParams,
    logits: &[f32],
    tokens: &[u32],
    num_prompt: usize,
    excluded: &[u32],
) -> Result<u32, SamplingError> {
    let context = SamplingContext { tokens, num_prompt, excluded, allowed: None };
    sampler(params).choose(logits, &context)
}

#[test]
fn presence_and_frequency_penalties_count_generated_tokens_only() {
    let presence = SamplingParams { presence_penalty: 1.0, ..SamplingParams::greedy() };
    let frequency = SamplingParams { frequency_penalty: 0.5, ..SamplingParams::greedy() };
    let logits = [3.0, 1.9, 2.1];
    let choose = |params: &SamplingParams, tokens: &[u32], num_prompt| {
        greedy_after(params.clone(), &logits, tokens, num_prompt, &[]).unwrap()
    };
    assert_eq!(choose(&presence, &[0, 0, 0], 3), 0);
    // 3 - 1 = 2 lies below 2.1; a second occurrence does not bring it below 1.9.
    assert_eq!(choose(&presence, &[0, 0, 0], 1), 2);
    assert_eq!(choose(&presence, &[0, 2, 0], 0), 0);
    // 3 - 0.5 stays above, 3 - 2 * 0.5 does not.
    assert_eq!(choose(&frequency, &[0], 0), 0);
    assert_eq!(choose(&frequency, &[0, 0], 0), 2);
    assert_eq!(choose(&frequency, &[0, 0], 1), 0);
    // Ids past the logits are left out.
    assert_eq!(choose(&frequency, &[9, 9], 0), 0);
}

#[test]
fn a_bias_acts_after_the_penalties_and_can_exclude() {
    let bias = |logit_bias: Vec<(u32, f32)>| SamplingParams {
        logit_bias,
        repetition_penalty: 2.0,
        ..SamplingParams::greedy()
    };
    // 4 / 2 + 1.5 = 3.5, not (4 + 1.5) / 2.
    assert_eq!(greedy_after(bias(vec![(0, 1.5)]), &[4.0, 3.0], &[0], 0, &[]), Ok(0));
    assert_eq!(greedy_after(bias(vec![(0, 0.5)]), &[4.0, 3.0], &[0], 0, &[]), Ok(1));
    let excluded = bias(vec![(0, f32::NEG_INFINITY), (7, 1.0)]);
    assert_eq!(greedy_after(excluded, &[4.0, 3.0], &[], 0, &[]), Ok(1));
}

#[test]
fn bad_words_are_never_completed_and_excluded_tokens_never_chosen() {
    let bad = SamplingParams { bad_words: vec![vec![1, 2], vec![3]], ..SamplingParams::greedy() };
    let logits = [0.0, 1.0, 2.0, 3.0];
    let choose =
        |tokens: &[u32], excluded: &[u32]| greedy_after(bad.clone(), &logits, tokens, 0, excluded);
    assert_eq!(choose(&[], &[]), Ok(2));
    assert_eq!(choose(&[1], &[]), Ok(1));
    assert_eq!(choose(&[1, 0], &[]), Ok(2));
    assert_eq!(choose(&[1], &[1]), Ok(0));
    let all = choose(&[1], &[0, 1]).unwrap_err();
    assert!(all.to_string().contains("min_tokens"), "{all}");
}

/// The candidates that typical-p keeps, by the book: Meister et al., equation 5.
fn typical(probabilities: &[f64], share: f64) -> BTreeSet<u32> {
    let entropy: f64 = -probabilities.iter().map(|p| p * p.ln()).sum::<f64>();
    let distance = |token: &usize| (-probabilities[*token].ln() - entropy).abs();
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
    let (mut kept, mut reached) = (BTreeSet::new(), 0.0);
    for token in order {
        kept.insert(token as u32);
        reached += probabilities[token];
        // The rounding of f32 may move the border by one token: leave it in.
        if reached >= share * (1.0 + 1e-6) {
            break;
        }
    }
    kept
}

proptest! {
    #[test]
    fn typical_sampling_keeps_the_typical_set(
        typical_p in 0.05f32..=0.999,
        logits in proptest::collection::vec(-4f32..4.0, 2..30),
    ) {
        let kept = typical(&softmax(&logits, 1.0), f64::from(typical_p));
        let mut sampler = sampler(SamplingParams { typical_p, ..SamplingParams::default() });
        for position in 0..100 {
            let token = sampler.sample(&logits, &[], position).unwrap();
            prop_assert!(kept.contains(&token), "{token} is not among {kept:?}");
        }
    }
}
