//! Sequences on their way through the models, and what their rows have said so far.

use std::borrow::Cow;
use std::ops::Range;

use bantam_backend::BatchError;
use bantam_engine::Limits;

use super::encode::Query;
use super::steps::{Step, Steps};
use crate::divergence::TokenDivergence;
use crate::parallel::in_parallel;
use crate::{Divergence, EvalError};
use bantam_numerics::Softmax;

/// Sequences that some models run, side by side.
pub(super) struct Pass<'a> {
    /// Places of the models in the list of all.
    pub(super) models: Range<usize>,
    pub(super) steps: Steps<'a>,
    sequences: Vec<Sequence<'a>>,
    asked: Vec<Asked>,
}

/// A question on its way.
struct Asked {
    place: usize,
    rows_left: usize,
    /// Its sequences, which stand together.
    sequences: Range<usize>,
}

struct Sequence<'a> {
    query: Cow<'a, Query>,
    /// Its question, as a place in `Pass::asked`.
    asked: usize,
    /// By each model of the pass.
    findings: Vec<Findings>,
}

/// What the rows of a sequence say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Findings {
    /// Choices, and NLL of their tokens in order.
    pub(super) nlls: Vec<(usize, f64)>,
    pub(super) divergence: Option<Divergence>,
    /// The favourite of the last row.
    pub(super) top: u32,
}

/// What one row says.
struct Row {
    nlls: Vec<(usize, f64)>,
    divergence: Option<TokenDivergence>,
    top: u32,
}

impl<'a> Pass<'a> {
    /// Questions, by their place in the list of all, and their sequences.
    pub(super) fn new(
        models: Range<usize>,
        questions: impl Iterator<Item = (usize, Vec<Cow<'a, Query>>)>,
        limits: Limits,
    ) -> Self {
        let (mut sequences, mut asked): (Vec<Sequence<'a>>, _) = (Vec::new(), Vec::new());
        for (place, queries) in questions {
            let own = sequences.len()..sequences.len() + queries.len();
            let rows_left = queries.iter().map(|query| query.rows().len()).sum();
            let findings = vec![Findings::default(); models.len()];
            let new = queries.into_iter().map(|query| Sequence {
                query,
                asked: asked.len(),
                findings: findings.clone(),
            });
            sequences.extend(new);
            asked.push(Asked { place, rows_left, sequences: own });
        }
        let queries = sequences.iter().map(|sequence| sequence.query.clone()).collect();
        Self { models, steps: Steps::new(queries, limits), sequences, asked }
    }

    /// The tokens of all its steps.
    pub(super) fn num_tokens(&self, limits: Limits) -> Result<usize, BatchError> {
        let queries = self.sequences.iter().map(|sequence| sequence.query.clone()).collect();
        let mut steps = Steps::new(queries, limits);
        let mut tokens = 0;
        while let Some(step) = steps.next_step()? {
            tokens += step.batch.num_tokens();
        }
        Ok(tokens)
    }

    /// Takes the logits `[R, V]` of a step from one of the models, and those of the baseline.
    pub(super) fn read(
        &mut self,
        model: usize,
        step: &Step,
        logits: &[f32],
        baseline: Option<&[f32]>,
        threads: usize,
    ) -> Result<(), EvalError> {
        let vocab_size = logits.len() / step.rows.len().max(1);
        let of_row = |i: usize| i * vocab_size..(i + 1) * vocab_size;
        let read_row = |i: usize| {
            let (sequence, position) = step.rows[i];
            let baseline = baseline.map(|baseline| &baseline[of_row(i)]);
            Row::read(&self.sequences[sequence].query, position, &logits[of_row(i)], baseline)
        };
        // Rows of a sequence come in order, so its sums do not depend on how it was cut.
        let rows = in_parallel(step.rows.len(), threads, &read_row);
        for (row, &(sequence, position)) in rows.into_iter().zip(&step.rows) {
            let row = row.ok_or(EvalError::NotFinite { position })?;
            self.sequences[sequence].findings[model].add(row);
        }
        Ok(())
    }

    /// Notes that all models have run a step; the questions that now have all their rows, as places
    /// in this pass.
    pub(super) fn close(&mut self, step: &Step) -> Vec<usize> {
        let mut closed = Vec::new();
        for &(sequence, _) in &step.rows {
            let asked = self.sequences[sequence].asked;
            self.asked[asked].rows_left -= 1;
            if self.asked[asked].rows_left == 0 {
                closed.push(asked);
            }
        }
        closed
    }

    /// The place of a question in the list of all.
    pub(super) fn place(&self, asked: usize) -> usize {
        self.asked[asked].place
    }

    /// The sequences of a question, and what one of the models made of them.
    pub(super) fn findings(
        &self,
        asked: usize,
        model: usize,
    ) -> impl Iterator<Item = (&Query, &Findings)> {
        let sequences = &self.sequences[self.asked[asked].sequences.clone()];
        sequences.iter().map(move |sequence| (&*sequence.query, &sequence.findings[model]))
    }
}

impl Row {
    /// None if the logits are not numbers.
    fn read(
        query: &Query,
        position: usize,
        logits: &[f32],
        baseline: Option<&[f32]>,
    ) -> Option<Self> {
        let softmax = Softmax::new(logits)?;
        let divergence = match baseline {
            Some(baseline) => Some(TokenDivergence::new(&Softmax::new(baseline)?, &softmax)),
            None => None,
        };
        let targets = query.targets.iter().filter(|target| target.row == position);
        let nlls =
            targets.map(|target| (target.choice, softmax.nll(target.token as usize))).collect();
        Some(Self { nlls, divergence, top: softmax.top as u32 })
    }
}

impl Findings {
    fn add(&mut self, row: Row) {
        self.nlls.extend(row.nlls);
        if let Some(token) = row.divergence {
            self.divergence.get_or_insert_default().add(token);
        }
        self.top = row.top;
    }
}
