//! Which task, and which options belong to it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::bail;
use bantam_checkpoint::fetch::{DataSet, Locations};
use bantam_eval::EVERYDAY_QUESTIONS;
use bantam_eval::choice::{Form, ItemSet, MAX_SHOTS};

use super::{EvalArgs, QuestionArgs};
use crate::fetching;

/// What `--task` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Perplexity,
    Mmlu,
    Everyday,
    File(PathBuf),
}

impl FromStr for Task {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "perplexity" => Ok(Self::Perplexity),
            "mmlu" => Ok(Self::Mmlu),
            "everyday" => Ok(Self::Everyday),
            file if Path::new(file).extension().is_some_and(|e| e == "jsonl" || e == "json") => {
                Ok(Self::File(file.into()))
            }
            _ => {
                Err("expected perplexity, mmlu, everyday, or a file whose name ends in .jsonl"
                    .into())
            }
        }
    }
}

impl fmt::Display for Task {
    /// The name in results; a file without its folder.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Perplexity => f.write_str("perplexity"),
            Self::Mmlu => f.write_str("mmlu"),
            Self::Everyday => f.write_str("everyday"),
            Self::File(path) => path.file_stem().unwrap_or_default().to_string_lossy().fmt(f),
        }
    }
}

impl Task {
    /// How its questions are put if nothing else is asked for.
    fn form(&self) -> Form {
        if *self == Self::Mmlu { Form::Letters } else { Form::Texts }
    }
}

impl EvalArgs {
    /// Refuses options that the task would not look at.
    pub(super) fn refuse_options_of_others(&self) -> anyhow::Result<()> {
        let QuestionArgs { data, shots, examples, form, results, by_subject } = &self.questions;
        let of_questions = [
            ("--data", data.is_some()),
            ("--shots", shots.is_some()),
            ("--examples", examples.is_some()),
            ("--form", form.is_some()),
            ("--results", results.is_some()),
            ("--by-subject", *by_subject),
        ];
        let of_text =
            [("--text", self.text.text.is_some()), ("--stride", self.text.stride.is_some())];
        let given = |options: &[(&'static str, bool)]| {
            options.iter().find(|(_, given)| *given).map(|&(name, _)| name)
        };
        match &self.task {
            Task::Perplexity => {
                if let Some(option) = given(&of_questions) {
                    bail!("{option} is for questions; add --task mmlu, everyday or FILE.jsonl");
                }
            }
            task => {
                if let Some(option) = given(&of_text) {
                    bail!("{option} is for --task perplexity, not for {task}");
                }
                if *task != Task::Mmlu && data.is_some() {
                    bail!("--data is the folder of --task mmlu; {task} needs none");
                }
                if *task == Task::Mmlu && examples.is_some() {
                    bail!("--examples is for other questions; mmlu has its own in dev");
                }
            }
        }
        Ok(())
    }

    /// How questions are put.
    pub(super) fn form(&self) -> Form {
        self.questions.form.unwrap_or_else(|| self.task.form())
    }

    /// Examples before each question.
    pub(super) fn shots(&self) -> usize {
        self.questions.shots.unwrap_or(if self.task == Task::Mmlu { MAX_SHOTS } else { 0 })
    }

    /// Reads the questions of the task.
    pub(super) fn question_set(&self) -> anyhow::Result<ItemSet> {
        let examples = self.questions.examples.as_deref();
        match &self.task {
            Task::Mmlu => {
                let Some(data) = &self.questions.data else {
                    bail!(
                        "--task mmlu needs the questions: --data cais/mmlu fetches them from the hub; \
                         or unpack data.tar of the original release (github.com/hendrycks/test) and \
                         give its folder with --data"
                    );
                };
                if data.is_dir() {
                    return Ok(ItemSet::read_mmlu(data)?);
                }
                let name = data.to_string_lossy();
                let set = DataSet { name: &name, config: "all", splits: &["test", "dev"] };
                let folder = fetching::shown(|progress| {
                    Locations::from_environment()?.data_set(set, progress)
                })?;
                Ok(ItemSet::read_mmlu(&folder)?)
            }
            Task::File(path) => Ok(ItemSet::read_jsonl(path, examples)?),
            Task::Perplexity | Task::Everyday => {
                let mut set = ItemSet::from_jsonl(EVERYDAY_QUESTIONS, "everyday")?;
                if let Some(path) = examples {
                    set.examples = ItemSet::read_jsonl(path, None)?.items;
                }
                Ok(set)
            }
        }
    }
}
