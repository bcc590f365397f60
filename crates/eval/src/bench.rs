//! How fast a model runs: prefill and decode, one number each.
//!
//! Prompts and continuations are random tokens, and no time is spent on choosing tokens: what is
//! measured is the model. Each repetition begins with an empty cache; the median of several counts,
//! after one that only warms up.

use std::time::Instant;

use bantam_backend::Batch;
use bantam_engine::{Executor, Limits};
use serde::Serialize;

use crate::EvalError;

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BenchOptions {
    /// Tokens of each prompt.
    pub prompt_tokens: usize,
    /// Tokens generated for each sequence.
    pub decode_tokens: usize,
    /// Sequences side by side.
    pub batch: usize,
    /// Measurements of which the median counts.
    pub repetitions: usize,
}

/// Measured speed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Speed {
    /// Sequences side by side.
    pub batch: usize,
    /// Seconds from the start until every sequence's first logits: the time to first token.
    pub prefill_seconds: f64,
    /// Prompt tokens of all sequences per second.
    pub prefill_tokens_per_second: f64,
    /// Seconds of a decode step, which brings one token for every sequence.
    pub decode_step_seconds: f64,
    /// Generated tokens of all sequences per second.
    pub decode_tokens_per_second: f64,
}

/// Measures a model. `progress` is called after each repetition, the first one included.
///
/// # Errors
/// If the sequences do not fit the cache or a step, or the model fails.
pub fn bench(
    executor: &mut dyn Executor,
    options: &BenchOptions,
    progress: &mut dyn FnMut(),
) -> Result<Speed, EvalError> {
    let limits = executor.limits();
    let blocks_each = check(options, &limits)?;
    let mut runs = Vec::new();
    for repetition in 0..=options.repetitions.max(1) {
        let run = measure(executor, options, &limits, blocks_each)?;
        progress();
        if repetition > 0 {
            runs.push(run);
        }
    }
    let prefill_seconds = median(runs.iter().map(|run| run.0));
    let decode_seconds = median(runs.iter().map(|run| run.1));
    let tokens = |each: usize| (options.batch * each) as f64;
    Ok(Speed {
        batch: options.batch,
        prefill_seconds,
        prefill_tokens_per_second: tokens(options.prompt_tokens) / prefill_seconds,
        decode_step_seconds: decode_seconds / options.decode_tokens as f64,
        decode_tokens_per_second: tokens(options.decode_tokens) / decode_seconds,
    })
}

/// The blocks of each sequence, if all fit.
fn check(options: &BenchOptions, limits: &Limits) -> Result<usize, EvalError> {
    let BenchOptions { prompt_tokens, decode_tokens, batch, .. } = *options;
    let positive = [("prompt", prompt_tokens), ("generated", decode_tokens), ("batch", batch)];
    if let Some((what, _)) = positive.iter().find(|(_, n)| *n == 0) {
        return Err(EvalError::NothingToMeasure { what });
    }
    let tokens = prompt_tokens.saturating_add(decode_tokens);
    let blocks_each = tokens.div_ceil(limits.block_tokens);
    let fitting = limits.num_blocks / blocks_each;
    if batch > fitting {
        return Err(EvalError::CacheTooSmall { batch, tokens, fitting });
    }
    let available = limits.max_sequences.min(limits.max_batch_tokens).min(limits.max_logit_rows);
    if batch > available {
        return Err(EvalError::StepTooSmall { batch, available });
    }
    Ok(blocks_each)
}

/// Seconds of prefill and of all decode steps.
fn measure(
    executor: &mut dyn Executor,
    options: &BenchOptions,
    limits: &Limits,
    blocks_each: usize,
) -> Result<(f64, f64), EvalError> {
    let all_blocks = limits.all_blocks();
    let tables: Vec<&[u32]> = all_blocks.chunks(blocks_each).take(options.batch).collect();
    let token = |sequence: usize, position: usize| {
        (bantam_engine::uniform(sequence as u64, position) * limits.vocab_size as f64) as u32
    };
    let start = Instant::now();
    let mut batch = Batch::default();
    for (sequence, table) in tables.iter().enumerate() {
        let prompt: Vec<u32> = (0..options.prompt_tokens).map(|p| token(sequence, p)).collect();
        for (step, part) in prompt.chunks(limits.max_batch_tokens).enumerate() {
            let first = step * limits.max_batch_tokens;
            // Short prompts share a step.
            if batch.num_tokens() + part.len() > limits.max_batch_tokens {
                executor.forward(&batch)?;
                batch.clear();
            }
            batch.push(part, first, table)?;
            if first + part.len() == prompt.len() {
                batch.logit_rows.push(batch.num_tokens() as u32 - 1);
            }
        }
    }
    executor.forward(&batch)?;
    let prefilled = Instant::now();
    for position in options.prompt_tokens..options.prompt_tokens + options.decode_tokens {
        batch.clear();
        for (sequence, table) in tables.iter().enumerate() {
            batch.push(&[token(sequence, position)], position, table)?;
        }
        batch.want_last_logits();
        executor.forward(&batch)?;
    }
    Ok(((prefilled - start).as_secs_f64(), prefilled.elapsed().as_secs_f64()))
}

/// The middle one; the mean of the middle two of an even number.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }
}
