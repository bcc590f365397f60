//! Scoring against models whose probabilities are known.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

use bantam_backend::Batch;
use bantam_engine::{Executor, Limits};
use bantam_eval::{
    Baseline, BenchOptions, Convention, EvalError, Score, bench, evaluate, tokens_to_run,
};
use bantam_model::ModelError;
use proptest::prelude::*;

const VOCAB: usize = 11;

/// A model that looks at the last two tokens it can see, so that a wrong window shows.
#[derive(Clone)]
struct Trigram {
    limits: Limits,
    sharpness: f32,
    cache: Vec<u32>,
    /// Tokens of each step.
    steps: Vec<usize>,
}

impl Trigram {
    fn new(sharpness: f32, rows: usize) -> Self {
        let limits = Limits {
            vocab_size: VOCAB,
            context: 32,
            max_batch_tokens: rows,
            max_sequences: 4,
            max_logit_rows: rows,
            num_blocks: 16,
            block_tokens: 4,
        };
        Self { limits, sharpness, cache: vec![u32::MAX; 64], steps: Vec::new() }
    }

    fn logits(&self, before: Option<u32>, last: u32) -> Vec<f32> {
        let logit = |token: usize| {
            let mixed = token as u32 * 7 + last * 3 + before.map_or(5, |before| before * 2);
            self.sharpness * (mixed % 13) as f32 / 4.0
        };
        (0..VOCAB).map(logit).collect()
    }

    /// NLL of `ids[i]` in a window that begins at `begin`.
    fn nll(&self, ids: &[u32], begin: usize, i: usize) -> f64 {
        let before = (i >= begin + 2).then(|| ids[i - 2]);
        let logits = self.logits(before, ids[i - 1]);
        let sum: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        sum.ln() - f64::from(logits[ids[i] as usize])
    }
}

impl Executor for Trigram {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn forward(&mut self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
        assert!(batch.num_tokens() <= self.limits.max_batch_tokens);
        assert!(batch.logit_rows.len() <= self.limits.max_logit_rows);
        self.steps.push(batch.num_tokens());
        let mut logits = Vec::new();
        for span in &batch.spans {
            for (row, position) in span.rows.clone().zip(span.start..) {
                let slot = batch.slot(span, position, self.limits.block_tokens);
                self.cache[slot] = batch.tokens[row];
                if batch.logit_rows.contains(&(row as u32)) {
                    let before = (position > 0).then(|| {
                        self.cache[batch.slot(span, position - 1, self.limits.block_tokens)]
                    });
                    logits.extend(self.logits(before, batch.tokens[row]));
                }
            }
        }
        Ok(logits)
    }
}

fn score(
    models: &mut [&mut dyn Executor],
    ids: &[u32],
    convention: &Convention,
) -> Result<Vec<Score>, EvalError> {
    let baseline = if models.len() > 1 { Baseline::First } else { Baseline::None };
    evaluate(models, baseline, ids, convention, 2, &mut |_| {})
}

proptest! {
    #[test]
    fn perplexity_is_that_of_the_definition_for_any_chunk(
        ids in proptest::collection::vec(0..VOCAB as u32, 2..100),
        window in 2usize..32,
        stride in 1usize..32,
        rows in 1usize..40,
    ) {
        let convention = Convention::new(window, Some(stride.min(window)), false).unwrap();
        let mut model = Trigram::new(1.0, rows);
        let mut done = Vec::new();
        let scores =
            evaluate(&mut [&mut model], Baseline::None, &ids, &convention, 1, &mut |n| done.push(n));
        let perplexity = scores.unwrap()[0].perplexity;

        let windows = convention.windows(ids.len());
        let scored = || windows.iter().flat_map(|w| w.scored().map(|i| (w.tokens.start, i)));
        let nll: f64 = scored().map(|(begin, i)| model.nll(&ids, begin, i)).sum();
        prop_assert_eq!(perplexity.scored_tokens, scored().count());
        prop_assert!((perplexity.nll_sum - nll).abs() < 1e-5 * nll.max(1.0));
        prop_assert!(done.is_sorted());
        prop_assert_eq!(*done.last().unwrap(), tokens_to_run(&convention, ids.len()));
    }

    #[test]
    fn a_copy_of_the_baseline_does_not_diverge(
        ids in proptest::collection::vec(0..VOCAB as u32, 2..60),
        rows in 1usize..40,
    ) {
        let convention = Convention::new(16, None, false).unwrap();
        let mut models = [1.0, 1.0, 0.5].map(|sharpness| Trigram::new(sharpness, rows));
        let [a, b, c] = &mut models;
        let scores = score(&mut [a, b, c], &ids, &convention).unwrap();
        let [itself, copy, other] = [0, 1, 2].map(|i| scores[i].divergence.unwrap());
        prop_assert_eq!(itself, copy);
        prop_assert_eq!(copy.kl_mean(), 0.0);
        prop_assert_eq!(copy.top1_agreement(), 1.0);
        prop_assert_eq!(scores[0].perplexity, scores[1].perplexity);
        // Half the sharpness keeps the favourite, not the probabilities.
        prop_assert_eq!(other.top1_agreement(), 1.0);
        prop_assert!(other.kl_mean() > 0.01);
        prop_assert!(other.max_logit_delta >= 0.25 && other.max_logit_delta <= 1.5);
    }
}

#[test]
fn what_cannot_be_scored_is_refused_before_any_step() {
    let refuse = |ids: &[u32], window: usize, change: &dyn Fn(&mut Trigram)| {
        let convention = Convention::new(window, None, false).unwrap();
        let (mut first, mut second) = (Trigram::new(1.0, 8), Trigram::new(1.0, 8));
        change(&mut second);
        let error = score(&mut [&mut first, &mut second], ids, &convention).unwrap_err();
        assert!(first.steps.is_empty());
        error.to_string()
    };
    let ids = [1; 40];
    let window = refuse(&ids, 33, &|_| {});
    assert!(window.ends_with("use --window 32"), "{window}");
    let vocabulary = refuse(&ids, 16, &|model| model.limits.vocab_size = 7);
    assert!(vocabulary.contains("11 and 7"), "{vocabulary}");
    assert!(refuse(&[1], 16, &|_| {}).contains("at least 2"));
    assert!(refuse(&[1, 11], 16, &|_| {}).starts_with("token 11"));
}

#[test]
fn logits_that_are_not_numbers_are_named() {
    let mut broken = Trigram::new(f32::NAN, 8);
    let convention = Convention::new(16, None, false).unwrap();
    let error = score(&mut [&mut broken], &[1, 2, 3], &convention).unwrap_err().to_string();
    assert!(error.starts_with("the logits after token 0 are not finite"), "{error}");
}

#[test]
fn the_benchmark_runs_every_token_once_per_repetition() {
    let mut model = Trigram::new(1.0, 8);
    let options = BenchOptions { prompt_tokens: 11, decode_tokens: 5, batch: 3, repetitions: 2 };
    let mut repetitions = 0;
    let speed = bench(&mut model, &options, &mut || repetitions += 1).unwrap();
    assert_eq!(repetitions, 3); // one to warm up
    assert_eq!(model.steps.iter().sum::<usize>(), 3 * 3 * (11 + 5));
    assert!(speed.prefill_tokens_per_second > 0.0 && speed.decode_tokens_per_second > 0.0);

    let too_large = BenchOptions { batch: 5, ..options };
    let error = bench(&mut model, &too_large, &mut || {}).unwrap_err().to_string();
    assert!(error.contains("at most 4"), "{error}");
    for huge in [
        BenchOptions { prompt_tokens: usize::MAX, ..options },
        BenchOptions { batch: usize::MAX, ..options },
    ] {
        let error = bench(&mut model, &huge, &mut || {}).unwrap_err().to_string();
        assert!(error.contains("cache is too small"), "{error}");
    }
    let nothing = BenchOptions { decode_tokens: 0, ..options };
    assert!(bench(&mut model, &nothing, &mut || {}).is_err());
}
