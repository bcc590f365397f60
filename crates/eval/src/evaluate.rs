//! Runs models over a text, side by side, and scores every token.

use std::ops::Range;

use bantam_backend::Batch;
use bantam_engine::{Executor, Limits};

use crate::divergence::TokenDivergence;
use crate::parallel::in_parallel;
use crate::{Convention, Divergence, EvalError, Perplexity, Window};
use bantam_numerics::Softmax;

/// What a text told about a model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Of the text under this model.
    pub perplexity: Perplexity,
    /// From the baseline, if there is one; zero for the baseline itself.
    pub divergence: Option<Divergence>,
}

/// Which of several models the others are held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// None: perplexities only.
    None,
    /// The first.
    First,
}

/// Scores `ids: [n]` under every model, one result for each.
///
/// All models see a chunk of a window before any sees the next, so that the baseline is run once and
/// no logits are kept: memory is bounded by the rows of one chunk, `[R, V]` for two models.
/// Logits are compared by `threads` threads, which do not change the result.
/// `progress` is called with the number of tokens done after each chunk, of
/// [`tokens_to_run`] in all.
///
/// # Errors
/// If the windows do not fit a context, the vocabularies differ, the text is too short, or a model
/// fails or gives logits that are not finite.
pub fn evaluate(
    models: &mut [&mut dyn Executor],
    baseline: Baseline,
    ids: &[u32],
    convention: &Convention,
    threads: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Score>, EvalError> {
    let rows_at_once = check(models, ids, convention)?;
    let mut scores = vec![Score::default(); models.len()];
    let mut done = 0;
    for window in convention.windows(ids.len()) {
        for chunk in chunks(&window, rows_at_once) {
            let mut baseline_logits = Vec::new();
            for (i, (executor, score)) in models.iter_mut().zip(&mut scores).enumerate() {
                let logits = executor.forward(&chunk.batch(ids, &executor.limits())?)?;
                if chunk.scored.is_empty() {
                    continue;
                }
                let against = match baseline {
                    Baseline::First if i > 0 => Some(baseline_logits.as_slice()),
                    _ => None,
                };
                let targets = &ids[chunk.scored.clone()];
                score_rows(&logits, against, targets, chunk.scored.start, threads, score)?;
                if i == 0 && baseline == Baseline::First {
                    let itself = score.divergence.get_or_insert_default();
                    itself.compare_with_itself(chunk.scored.len());
                    baseline_logits = logits;
                }
            }
            done += chunk.tokens.len();
            progress(done);
        }
    }
    Ok(scores)
}

/// Tokens that each model runs for a text of `num_tokens`: nearly all, and more if windows overlap.
#[must_use]
pub fn tokens_to_run(convention: &Convention, num_tokens: usize) -> usize {
    convention.windows(num_tokens).iter().map(|window| window.tokens.len() - 1).sum()
}

/// Refuses what cannot be scored; the rows that every model can run at once.
fn check(
    models: &[&mut dyn Executor],
    ids: &[u32],
    convention: &Convention,
) -> Result<usize, EvalError> {
    let mut rows = convention.window;
    let mut vocab_size = None;
    for executor in models {
        let limits = executor.limits();
        if convention.window > limits.context && ids.len() > limits.context {
            let Convention { window, .. } = *convention;
            return Err(EvalError::WindowTooLong { window, context: limits.context });
        }
        let first = *vocab_size.get_or_insert(limits.vocab_size);
        if first != limits.vocab_size {
            return Err(EvalError::Vocabularies { first, other: limits.vocab_size });
        }
        if let Some(&token) = ids.iter().find(|&&token| token as usize >= limits.vocab_size) {
            return Err(EvalError::UnknownToken { token, vocab_size: limits.vocab_size });
        }
        rows = rows.min(limits.max_batch_tokens).min(limits.max_logit_rows);
    }
    if ids.len() < 2 {
        return Err(EvalError::TextTooShort { tokens: ids.len() });
    }
    Ok(rows.max(1))
}

/// Tokens of a window that are run in one step.
#[derive(Debug)]
struct Chunk {
    /// As a range of the text.
    tokens: Range<usize>,
    /// Where the window begins in the text.
    window_start: usize,
    /// The tokens of the text that this chunk predicts and that count.
    scored: Range<usize>,
}

fn chunks(window: &Window, rows_at_once: usize) -> impl Iterator<Item = Chunk> + use<> {
    let Window { tokens, first_scored } = window.clone();
    // The last token of a window predicts nothing that is in it.
    let end = tokens.end - 1;
    (tokens.start..end).step_by(rows_at_once).map(move |start| {
        let chunk = start..end.min(start + rows_at_once);
        // Row i predicts token i + 1.
        let scored = first_scored.clamp(chunk.start + 1, chunk.end + 1)..chunk.end + 1;
        Chunk { tokens: chunk, window_start: tokens.start, scored }
    })
}

impl Chunk {
    fn batch(&self, ids: &[u32], limits: &Limits) -> Result<Batch, EvalError> {
        let mut batch = Batch::default();
        let start = self.tokens.start - self.window_start;
        batch.push(&ids[self.tokens.clone()], start, &limits.all_blocks())?;
        let rows = self.scored.start - 1 - self.tokens.start..self.tokens.len();
        batch.logit_rows = rows.map(|row| row as u32).collect();
        Ok(batch)
    }
}

/// Adds the scores of `targets: [R]`, which the rows of `logits: [R, V]` predict.
fn score_rows(
    logits: &[f32],
    baseline: Option<&[f32]>,
    targets: &[u32],
    first_position: usize,
    threads: usize,
    score: &mut Score,
) -> Result<(), EvalError> {
    let vocab_size = logits.len() / targets.len();
    let range = |i: usize| i * vocab_size..(i + 1) * vocab_size;
    let score_token = |i: usize| -> Option<(f64, Option<TokenDivergence>)> {
        let softmax = Softmax::new(&logits[range(i)])?;
        let divergence = match baseline {
            Some(baseline) => {
                let baseline = Softmax::new(&baseline[range(i)])?;
                Some(TokenDivergence::new(&baseline, &softmax))
            }
            None => None,
        };
        Some((softmax.nll(targets[i] as usize), divergence))
    };
    // Added up in the order of the text, so the result does not depend on the number of threads.
    for (i, token) in in_parallel(targets.len(), threads, &score_token).into_iter().enumerate() {
        let position = first_position + i - 1;
        let (nll, divergence) = token.ok_or(EvalError::NotFinite { position })?;
        score.perplexity.add(nll);
        if let Some(divergence) = divergence {
            score.divergence.get_or_insert_default().add(divergence);
        }
    }
    Ok(())
}
