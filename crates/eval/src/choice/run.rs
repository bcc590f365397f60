//! Runs models over questions, side by side.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use bantam_engine::{Executor, Limits};
use bantam_text::Tokenizer;

use super::encode::{Query, Question};
use super::form::written_choice;
use super::outcome::{Answer, Outcome};
use super::pass::{Findings, Pass};
use super::steps::Step;
use crate::{Baseline, Divergence, EvalError};

/// A run of models over the same questions; see [`step`](Self::step).
///
/// All models run a step before any runs the next, so the baseline is run once and its logits are
/// kept for one step only. What a model makes of an item does not depend, bit for bit, on what is
/// beside it: executors give a row the same bits in any company.
pub struct ChoiceRun<'a, 'm> {
    models: &'a mut [&'m mut dyn Executor],
    baseline: Baseline,
    questions: &'a [Question],
    tokenizer: &'a Tokenizer,
    threads: usize,
    limits: Limits,
    passes: VecDeque<Pass<'a>>,
    /// For each model, by question: what it began to write, if that says nothing yet.
    begun: Vec<BTreeMap<usize, Begun>>,
    total_tokens: usize,
}

/// A first token that is blank.
struct Begun {
    query: Query,
    divergence: Option<Divergence>,
}

/// What a step brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunStep {
    /// T, tokens run by each model.
    pub num_tokens: usize,
    /// What became known: an outcome for each model and item, once.
    pub answered: Vec<Answered>,
}

/// An outcome, and whose.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// The model's place in the list.
    pub model: usize,
    /// What it made of an item.
    pub outcome: Outcome,
}

impl<'a, 'm> ChoiceRun<'a, 'm> {
    /// A run that has not begun. With [`Baseline::First`] the outcomes of the others say how far
    /// they are from the first. `threads` threads read logits, and do not change the result.
    ///
    /// # Errors
    /// If the vocabularies differ, or a question does not fit the models.
    pub fn new(
        models: &'a mut [&'m mut dyn Executor],
        baseline: Baseline,
        questions: &'a [Question],
        tokenizer: &'a Tokenizer,
        threads: usize,
    ) -> Result<Self, EvalError> {
        let limits = common_limits(models)?;
        questions.iter().try_for_each(|question| check(question, &limits))?;
        let queries = |question: &'a Question| question.queries.iter().map(Cow::Borrowed).collect();
        let asked = questions.iter().map(queries).enumerate();
        let pass = Pass::new(0..models.len(), asked, limits);
        let total_tokens = pass.num_tokens(limits)?;
        Ok(Self {
            begun: models.iter().map(|_| BTreeMap::new()).collect(),
            models,
            baseline,
            questions,
            tokenizer,
            threads,
            limits,
            passes: VecDeque::from([pass]),
            total_tokens,
        })
    }

    /// Tokens that each model runs in all, as far as is known: where models write their answers, a
    /// blank first token calls for a second.
    #[must_use]
    pub fn total_tokens(&self) -> usize {
        self.total_tokens
    }

    /// Runs one step on every model; none once all is answered.
    ///
    /// # Errors
    /// If a model fails or gives logits that are not finite.
    pub fn step(&mut self) -> Result<Option<RunStep>, EvalError> {
        loop {
            let Some(mut pass) = self.passes.pop_front() else { return Ok(None) };
            let Some(step) = pass.steps.next_step()? else {
                self.ask_on(&pass)?;
                continue;
            };
            let answered = self.run(&mut pass, &step)?;
            self.passes.push_front(pass);
            return Ok(Some(RunStep { num_tokens: step.batch.num_tokens(), answered }));
        }
    }

    /// Runs a step of a pass; the answers that it completes.
    fn run(&mut self, pass: &mut Pass<'a>, step: &Step) -> Result<Vec<Answered>, EvalError> {
        let compares = self.baseline == Baseline::First && pass.models.len() > 1;
        let mut baseline = None;
        for (place, model) in pass.models.clone().enumerate() {
            let logits = self.models[model].forward(&step.batch)?;
            pass.read(place, step, &logits, baseline.as_deref(), self.threads)?;
            if compares && place == 0 {
                baseline = Some(logits);
            }
        }
        let mut answered = Vec::new();
        for asked in pass.close(step) {
            for (place, model) in pass.models.clone().enumerate() {
                let outcome = self.outcome(pass, asked, place, model);
                answered.extend(outcome.map(|outcome| Answered { model, outcome }));
            }
        }
        Ok(answered)
    }

    /// What a model made of a question all of whose rows are known; none if it is asked for more.
    fn outcome(
        &mut self,
        pass: &Pass<'a>,
        asked: usize,
        place: usize,
        model: usize,
    ) -> Option<Outcome> {
        let number = pass.place(asked);
        let question = &self.questions[number];
        let mut divergence = merged(pass.findings(asked, place).map(|(_, found)| found));
        let answer = if question.is_written() {
            let (query, found) = pass.findings(asked, place).next()?;
            let before = self.begun[model].remove(&number);
            let mut written = query.tokens[query.first_row + 1..].to_vec();
            written.push(found.top);
            let text = self.tokenizer.decode(&written, true);
            let ended = self.tokenizer.eos().contains(&found.top);
            if before.is_none() && text.trim().is_empty() && !ended {
                let query = query.continued(found.top);
                self.begun[model].insert(number, Begun { query, divergence });
                return None;
            }
            divergence = before.map_or(divergence, |before| before.divergence);
            Answer::Written(written_choice(&text, question.num_choices))
        } else {
            let found = pass.findings(asked, place).map(|(_, found)| found);
            Answer::LogLikelihoods(log_likelihoods(question.num_choices, found))
        };
        let Question { item, truncated, .. } = *question;
        Some(Outcome { item, answer, truncated, divergence })
    }

    /// After a pass: each of its models goes on with what it has begun to write.
    fn ask_on(&mut self, done: &Pass<'a>) -> Result<(), EvalError> {
        for model in done.models.clone() {
            let begun = &self.begun[model];
            if begun.is_empty() {
                continue;
            }
            let asked =
                begun.iter().map(|(&place, begun)| (place, vec![Cow::Owned(begun.query.clone())]));
            let pass = Pass::new(model..model + 1, asked, self.limits);
            self.total_tokens += pass.num_tokens(self.limits)?;
            self.passes.push_back(pass);
        }
        Ok(())
    }
}

/// Σ log p of the tokens of each choice.
fn log_likelihoods<'f>(
    num_choices: usize,
    findings: impl Iterator<Item = &'f Findings>,
) -> Vec<f32> {
    let mut values = vec![0f64; num_choices];
    for &(choice, nll) in findings.flat_map(|found| &found.nlls) {
        values[choice] -= nll;
    }
    // A file cannot hold an infinite number.
    values.into_iter().map(|value| (value as f32).max(f32::MIN)).collect()
}

fn merged<'f>(findings: impl Iterator<Item = &'f Findings>) -> Option<Divergence> {
    let mut all: Option<Divergence> = None;
    for divergence in findings.filter_map(|found| found.divergence.as_ref()) {
        all.get_or_insert_default().merge(divergence);
    }
    all
}

/// What fits every model, whose blocks must be alike to share block tables.
fn common_limits(models: &[&mut dyn Executor]) -> Result<Limits, EvalError> {
    let mut common: Option<Limits> = None;
    for limits in models.iter().map(|model| model.limits()) {
        let Some(least) = &mut common else {
            common = Some(limits);
            continue;
        };
        let (first, other) = (least.vocab_size, limits.vocab_size);
        if first != other {
            return Err(EvalError::Vocabularies { first, other });
        }
        let (first, other) = (least.block_tokens, limits.block_tokens);
        if first != other {
            return Err(EvalError::Blocks { first, other });
        }
        least.context = least.context.min(limits.context);
        least.max_batch_tokens = least.max_batch_tokens.min(limits.max_batch_tokens);
        least.max_sequences = least.max_sequences.min(limits.max_sequences);
        least.max_logit_rows = least.max_logit_rows.min(limits.max_logit_rows);
        least.num_blocks = least.num_blocks.min(limits.num_blocks);
    }
    common.ok_or(EvalError::NothingToMeasure { what: "list of models" })
}

/// Refuses what the models cannot run.
fn check(question: &Question, limits: &Limits) -> Result<(), EvalError> {
    let context = limits.context.min(limits.num_blocks * limits.block_tokens);
    if question.longest() > context {
        let (item, tokens) = (question.item, question.longest());
        return Err(EvalError::QuestionTooLong { item, tokens, context });
    }
    let vocab_size = limits.vocab_size;
    match question.tokens().find(|&token| token as usize >= vocab_size) {
        Some(token) => Err(EvalError::UnknownToken { token, vocab_size }),
        None => Ok(()),
    }
}
