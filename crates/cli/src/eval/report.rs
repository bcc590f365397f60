//! Answers as a table and as JSON.

use std::collections::{BTreeMap, BTreeSet};

use bantam_checkpoint::printable;
use bantam_eval::choice::{Accuracy, Form, ItemSet, Outcome, Paired, Tally, loss_percent};
use bantam_eval::{Align, Table};
use serde_json::{Value, json};

use super::EvalArgs;
use super::answers::{AnswerSheet, Candidate};
use crate::architecture::number as short_number;
use crate::device::Device;
use crate::output::{self, mebibytes, significant};

/// What came out, for every model.
pub(super) struct Report<'a> {
    set: &'a ItemSet,
    form: Form,
    shots: usize,
    context: usize,
    num_asked: usize,
    /// The baseline first, if there is one.
    has_baseline: bool,
    models: Vec<Line>,
}

/// One model.
struct Line {
    name: String,
    format: String,
    weight_bytes: u64,
    answers: BTreeMap<usize, Outcome>,
    tally: Tally,
    /// Beside the baseline.
    paired: Option<Paired>,
    loss: Option<f64>,
}

impl<'a> Report<'a> {
    /// Of the answers to the items that were asked; a results file may know more.
    pub(super) fn new(
        args: &EvalArgs,
        set: &'a ItemSet,
        asked: &BTreeSet<usize>,
        context: usize,
        candidates: &[Candidate],
        sheets: Vec<AnswerSheet>,
        device: &Device,
    ) -> anyhow::Result<Self> {
        let (form, has_baseline) = (args.form(), args.against.is_some());
        let mut models: Vec<Line> = Vec::new();
        for (candidate, sheet) in candidates.iter().zip(sheets) {
            let mut answers = sheet.answers;
            answers.retain(|item, _| asked.contains(item));
            let tally = Tally::new(set, form, None, answers.values());
            let baseline = models.first().filter(|_| has_baseline);
            models.push(Line {
                name: candidate.model.name.clone(),
                format: candidate.format.to_string(),
                weight_bytes: candidate.weight_bytes(device)?,
                paired: baseline.map(|baseline| Paired::new(set, &baseline.answers, &answers)),
                loss: baseline.and_then(|baseline| {
                    // Of an interrupted run, only what both answered.
                    let known = baseline.answers.values().filter(|o| answers.contains_key(&o.item));
                    let original = Tally::new(set, form, None, known).accuracy;
                    loss_percent(original.value(), tally.accuracy.value())
                }),
                answers,
                tally,
            });
        }
        let (shots, num_asked) = (args.shots(), asked.len());
        Ok(Self { set, form, shots, context, num_asked, has_baseline, models })
    }

    pub(super) fn print(&self, args: &EvalArgs) -> anyhow::Result<()> {
        if args.json {
            return output::print_json(&self.as_json(args));
        }
        let mut text = String::new();
        if args.questions.by_subject {
            text += &format!("{}\n", self.by_subject());
        }
        text += &format!("{}{}\n", self.table(), self.note(args));
        Ok(output::print(&text)?)
    }

    fn table(&self) -> Table {
        use Align::{Left, Right};
        let mut columns = vec![
            ("model", Left),
            ("format", Left),
            ("weights (MiB)", Right),
            ("questions", Right),
            ("accuracy (%)", Right),
            ("±", Right),
        ];
        if self.form == Form::Texts {
            columns.extend([("by length (%)", Right), ("±", Right)]);
        }
        if self.has_baseline {
            columns.extend([
                ("loss (%)", Right),
                ("lost", Right),
                ("gained", Right),
                ("p", Right),
                ("KL (nats/token)", Right),
                ("top-1 agreement (%)", Right),
            ]);
        }
        let mut table = Table::new(columns);
        for line in &self.models {
            let tally = &line.tally;
            let mut row = vec![
                printable(&line.name).to_string(),
                line.format.clone(),
                mebibytes(line.weight_bytes),
                tally.accuracy.total.to_string(),
            ];
            row.extend(percent(tally.accuracy));
            row.extend(tally.normalized.iter().flat_map(|&normalized| percent(normalized)));
            row.extend(line.paired.iter().flat_map(|paired| {
                [
                    line.loss.map_or(String::new(), |loss| format!("{loss:.2}")),
                    paired.lost.to_string(),
                    paired.gained.to_string(),
                    significant(paired.mcnemar_p()),
                ]
            }));
            row.extend(tally.divergence.iter().flat_map(|divergence| {
                let agreement = 100.0 * divergence.top1_agreement();
                [significant(divergence.kl_mean()), format!("{agreement:.2}")]
            }));
            table.row(row);
        }
        table
    }

    /// Accuracy of each model in each subject.
    fn by_subject(&self) -> Table {
        let models = self
            .models
            .iter()
            .map(|line| (format!("{}@{} (%)", printable(&line.name), line.format), Align::Right));
        let first = [("subject".to_owned(), Align::Left), ("questions".to_owned(), Align::Right)];
        let mut table = Table::new(first.into_iter().chain(models));
        for subject in self.set.subjects() {
            let of_subject: Vec<Accuracy> =
                self.models.iter().map(|line| self.accuracy(line, subject)).collect();
            let most = of_subject.iter().map(|accuracy| accuracy.total).max().unwrap_or(0);
            if most == 0 {
                continue;
            }
            let cells = of_subject.iter().map(|&accuracy| percent(accuracy).join(" ± "));
            let name = if subject.is_empty() { "(none)".to_owned() } else { subject.to_owned() };
            let row = [printable(name).to_string(), most.to_string()];
            table.row(row.into_iter().chain(cells));
        }
        table
    }

    fn accuracy(&self, line: &Line, subject: &str) -> Accuracy {
        Tally::new(self.set, self.form, Some(subject), line.answers.values()).accuracy
    }

    /// What was asked and how, and what did not fit.
    fn note(&self, args: &EvalArgs) -> String {
        let Self { num_asked, form, shots, context, .. } = self;
        let of = if *num_asked < self.set.items.len() {
            format!(" of {}", self.set.items.len())
        } else {
            String::new()
        };
        let task = printable(args.task.to_string()).to_string();
        let mut note = format!(
            "{task}: {num_asked}{of} questions, --form {form}, --shots {shots}, context {context}"
        );
        let truncated = self.models.iter().map(|line| line.tally.truncated).max().unwrap_or(0);
        if truncated > 0 {
            note += &format!("; {truncated} did not fit it and were cut");
        }
        note
    }

    fn as_json(&self, args: &EvalArgs) -> Value {
        let (baseline, models) = self.models.split_at(usize::from(self.has_baseline));
        let models: Vec<Value> = models.iter().map(|line| self.line_as_json(line)).collect();
        json!({
            "task": args.task.to_string(),
            "form": self.form.to_string(),
            "shots": self.shots,
            "context": self.context,
            "questions": self.num_asked,
            "against": baseline.first().map(|line| self.line_as_json(line)),
            "models": models,
        })
    }

    fn line_as_json(&self, line: &Line) -> Value {
        let tally = &line.tally;
        let mut value = json!({
            "model": line.name,
            "dtype": line.format,
            "weight_bytes": line.weight_bytes,
            "answered": tally.accuracy.total,
            "truncated": tally.truncated,
            "accuracy": tally.accuracy.value(),
            "accuracy_standard_error": tally.accuracy.standard_error(),
        });
        if let Some(normalized) = tally.normalized {
            value["accuracy_by_length"] = normalized.value().into();
            value["accuracy_by_length_standard_error"] = normalized.standard_error().into();
        }
        if let Some(paired) = line.paired {
            value["loss_percent"] = line.loss.into();
            value["lost"] = paired.lost.into();
            value["gained"] = paired.gained.into();
            value["difference"] = paired.difference().into();
            value["difference_standard_error"] = paired.standard_error().into();
            value["mcnemar_p"] = paired.mcnemar_p().into();
        }
        if let Some(divergence) = tally.divergence {
            value["kl_mean"] = divergence.kl_mean().into();
            value["top1_agreement"] = divergence.top1_agreement().into();
            value["max_logit_delta"] = short_number(divergence.max_logit_delta);
        }
        let subjects = self.set.subjects().into_iter().filter_map(|subject| {
            let accuracy = self.accuracy(line, subject);
            (accuracy.total > 0).then(|| {
                json!({
                    "subject": subject,
                    "answered": accuracy.total,
                    "accuracy": accuracy.value(),
                    "accuracy_standard_error": accuracy.standard_error(),
                })
            })
        });
        value["subjects"] = subjects.collect();
        value
    }
}

/// A share and its standard error, in percent; blanks for nothing.
fn percent(accuracy: Accuracy) -> [String; 2] {
    let cell =
        |value: f64| if value.is_nan() { String::new() } else { format!("{:.2}", 100.0 * value) };
    [cell(accuracy.value()), cell(accuracy.standard_error())]
}
