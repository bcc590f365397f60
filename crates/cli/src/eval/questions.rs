//! `bantam eval` with questions: from the arguments to answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::bail;
use bantam_engine::Executor;
use bantam_eval::Baseline;
use bantam_eval::choice::{Answered, ChoiceRun, Encoder, ItemSet, Question};

use super::EvalArgs;
use super::answers::{AnswerSheet, Candidate};
use super::report::Report;
use crate::device::Device;
use crate::interrupt;
use crate::output;
use crate::scoring::{SideBySide, StepShape};

/// Models that run side by side, and what they are still asked.
struct Group {
    /// Places in the list of models, ascending: the baseline is the first of all.
    members: Vec<usize>,
    questions: Vec<Question>,
}

pub(super) fn run(args: &EvalArgs) -> anyhow::Result<()> {
    if args.limit == Some(0) {
        bail!("--limit is 0, but at least 1 question is needed");
    }
    interrupt::install()?;
    let set = args.question_set()?;
    let asked = set.sample(args.limit);
    let device = args.device.open()?;
    // Everything that can be refused is refused before the first weight is read.
    let mut candidates = open_all(args)?;
    let context = args.question_context(&candidates)?;
    encode_all(args, &set, &asked, context, &mut candidates, device.threads())?;
    let mut sheets = open_sheets(args, &set, context, &candidates)?;
    let groups = groups(args, &candidates, &sheets);
    let plans = groups
        .iter()
        .map(|group| group.plan(&candidates, &device))
        .collect::<Result<Vec<_>, _>>()?;
    for (group, plan) in groups.iter().zip(&plans) {
        if !interrupt::happened() {
            interrupt::watched(|| group.ask(&candidates, plan, &device, &mut sheets))?;
        }
    }
    let answered = sheets.iter().map(|sheet| answered(&sheet.answers, &asked)).min().unwrap_or(0);
    if interrupt::happened() {
        let hint = match args.questions.results {
            Some(_) => "the same command goes on from here",
            None => "give --results a folder to be able to go on",
        };
        eprintln!("stopped after {answered} of {} questions; {hint}", asked.len());
    }
    let asked: BTreeSet<usize> = asked.into_iter().collect();
    Report::new(args, &set, &asked, context, &candidates, sheets, &device)?.print(args)
}

/// How many of these items have an answer.
fn answered<T>(answers: &BTreeMap<usize, T>, items: &[usize]) -> usize {
    items.iter().filter(|item| answers.contains_key(item)).count()
}

/// The model of `--against`, if there is one, and the others.
fn open_all(args: &EvalArgs) -> anyhow::Result<Vec<Candidate>> {
    let open = |arg, default| Candidate::open(arg, default, &args.device.unread);
    let against = args.against.iter().map(|arg| open(arg, args.against_dtype));
    let models = args.models.iter().map(|arg| open(arg, args.dtype));
    against.chain(models).collect()
}

impl EvalArgs {
    /// Tokens that every model sees at most.
    fn question_context(&self, models: &[Candidate]) -> anyhow::Result<usize> {
        let own = models.iter().map(|c| c.model.arch.sizes.max_positions).min().unwrap_or(0);
        let default = models.iter().map(|c| c.model.arch.default_context()).min().unwrap_or(0);
        let context = self.window.unwrap_or(default);
        if !(2..=own).contains(&context) {
            bail!(
                "--window is {context}, but the context holds 2 to {own} tokens; use --window {own}"
            );
        }
        Ok(context)
    }
}

/// Puts the items into the tokens of each model; models of one name share them.
fn encode_all(
    args: &EvalArgs,
    set: &ItemSet,
    items: &[usize],
    context: usize,
    candidates: &mut [Candidate],
    threads: usize,
) -> anyhow::Result<()> {
    for i in 0..candidates.len() {
        let (before, rest) = candidates.split_at_mut(i);
        let candidate = &mut rest[0];
        if let Some(same) = before.iter().find(|other| other.model.name == candidate.model.name) {
            candidate.questions = Arc::clone(&same.questions);
            continue;
        }
        let tokenizer = Arc::clone(&candidate.tokenizer);
        let (form, shots) = (args.form(), args.shots());
        let encoder = Encoder { tokenizer: &tokenizer, form, shots, context };
        candidate.encode(set, items, &encoder, threads)?;
        if args.against.is_some() && i > 0 && candidate.questions != before[0].questions {
            bail!(
                "--against needs models with one tokenizer, but {} and {} split the questions into \
                 different tokens; evaluate them without --against",
                before[0].model.name,
                candidate.model.name
            );
        }
    }
    Ok(())
}

fn open_sheets(
    args: &EvalArgs,
    set: &ItemSet,
    context: usize,
    candidates: &[Candidate],
) -> anyhow::Result<Vec<AnswerSheet>> {
    let Some(folder) = &args.questions.results else {
        return Ok(candidates.iter().map(|_| AnswerSheet::default()).collect());
    };
    let baseline = args.against.is_some().then(|| &candidates[0]);
    let sheets = candidates.iter().enumerate().map(|(i, candidate)| {
        let against = baseline.filter(|_| i > 0);
        AnswerSheet::open(folder, args, set, context, candidate, against)
    });
    sheets.collect()
}

/// What is left to ask, and of whom: side by side with `--against`, else one after the other.
fn groups(args: &EvalArgs, candidates: &[Candidate], sheets: &[AnswerSheet]) -> Vec<Group> {
    let lacks = |model: usize, item: usize| !sheets[model].answers.contains_key(&item);
    let group = |members: Vec<usize>| {
        let questions = candidates[members[0]].questions.iter();
        let open = questions.filter(|q| members.iter().any(|&model| lacks(model, q.item)));
        Group { questions: open.cloned().collect(), members }
    };
    let is_open = |group: &Group| !group.questions.is_empty();
    let alone = (0..candidates.len()).map(|model| group(vec![model])).filter(is_open);
    let open: Vec<usize> = alone.clone().flat_map(|group| group.members).collect();
    if args.against.is_none() || open.is_empty() || open == [0] {
        return alone.collect();
    }
    // The divergence of the others needs the baseline again, though it may have answered.
    let members: BTreeSet<usize> = open.into_iter().chain([0]).collect();
    vec![group(members.into_iter().collect())]
}

impl Group {
    fn plan<'a>(
        &self,
        candidates: &'a [Candidate],
        device: &Device,
    ) -> anyhow::Result<SideBySide<'a>> {
        let longest = self.questions.iter().map(Question::longest).max().unwrap_or(1);
        let models = self.members.iter().map(|&i| (&candidates[i].model, candidates[i].format));
        SideBySide::plan(models, device, &StepShape::questions(longest))
    }

    /// Asks, with a progress bar, until all is answered or Ctrl-C; answers are kept as they come.
    fn ask(
        &self,
        candidates: &[Candidate],
        plan: &SideBySide<'_>,
        device: &Device,
        sheets: &mut [AnswerSheet],
    ) -> anyhow::Result<()> {
        let mut decoders = plan.load(device)?;
        let mut executors: Vec<&mut dyn Executor> =
            decoders.iter_mut().map(|decoder| decoder as &mut dyn Executor).collect();
        let baseline = if executors.len() > 1 { Baseline::First } else { Baseline::None };
        let tokenizer = &candidates[self.members[0]].tokenizer;
        let mut run =
            ChoiceRun::new(&mut executors, baseline, &self.questions, tokenizer, device.threads())?;
        let names: Vec<String> = self.members.iter().map(|&i| candidates[i].name()).collect();
        let bar = output::progress_bar(run.total_tokens() as u64, &names.join(", "));
        while !interrupt::happened()
            && let Some(step) = run.step()?
        {
            for Answered { model, outcome } in step.answered {
                sheets[self.members[model]].keep(outcome)?;
            }
            bar.set_length(run.total_tokens() as u64);
            bar.inc(step.num_tokens as u64);
        }
        bar.finish_and_clear();
        Ok(())
    }
}
