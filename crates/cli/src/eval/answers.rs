//! Who is asked, and what was answered so far.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use bantam_eval::choice::{Encoder, ItemSet, Outcome, Question, ResultsFile, ResultsHeader};
use bantam_eval::{EvalError, Fingerprint};
use bantam_model::LoadOptions;
use bantam_text::Tokenizer;

use super::EvalArgs;
use crate::device::Device;
use crate::format::Format;
use crate::model_arg::{ModelArg, OpenModel, UnreadArgs};
use crate::output;

/// Bytes of each tensor that tell its weights from others.
const SAMPLED_BYTES: usize = 256;

/// A model that is asked.
pub(super) struct Candidate {
    pub(super) model: OpenModel,
    pub(super) format: Format,
    pub(super) tokenizer: Arc<Tokenizer>,
    /// What is asked, in its tokens.
    pub(super) questions: Arc<Vec<Question>>,
}

impl Candidate {
    pub(super) fn open(
        arg: &ModelArg,
        default: Format,
        unread: &UnreadArgs,
    ) -> anyhow::Result<Self> {
        let model = OpenModel::open(&arg.name, unread)?;
        let tokenizer = Arc::new(model.tokenizer()?);
        let format = arg.format_or(default);
        Ok(Self { model, format, tokenizer, questions: Arc::default() })
    }

    /// `MODEL@FORMAT`.
    pub(super) fn name(&self) -> String {
        format!("{}@{}", self.model.name, self.format)
    }

    /// Bytes of its weights in memory.
    pub(super) fn weight_bytes(&self, device: &Device) -> anyhow::Result<u64> {
        let options = LoadOptions { memory_budget: None, ..self.format.load_options(None, 1) };
        Ok(self.model.plan(device, &options)?.weights_bytes)
    }

    /// Puts items into its tokens, by so many threads, with a progress bar.
    pub(super) fn encode(
        &mut self,
        set: &ItemSet,
        items: &[usize],
        encoder: &Encoder<'_>,
        threads: usize,
    ) -> anyhow::Result<()> {
        let what = format!("tokenizing for {}", self.model.name);
        let bar = output::progress_bar(items.len() as u64, &what);
        let encode = |items: &[usize]| -> Result<Vec<Question>, EvalError> {
            let questions = items.iter().map(|&item| {
                bar.inc(1);
                encoder.encode(set, item)
            });
            questions.collect()
        };
        let share = items.len().div_ceil(threads).max(1);
        let parts: Result<Vec<_>, EvalError> = thread::scope(|scope| {
            let parts: Vec<_> =
                items.chunks(share).map(|part| scope.spawn(|| encode(part))).collect();
            let parts = parts.into_iter();
            parts.map(|part| part.join().expect("encoding never panics")).collect()
        });
        bar.finish_and_clear();
        self.questions = Arc::new(parts?.concat());
        Ok(())
    }

    /// A hash of its configuration and the beginning of each of its tensors.
    fn weights(&self) -> anyhow::Result<Fingerprint> {
        let mut fingerprint = Fingerprint::default();
        fingerprint.add(self.model.checkpoint.config().to_string().as_bytes());
        for tensor in self.model.checkpoint.tensors() {
            fingerprint.add(tensor.name.as_bytes());
            fingerprint.add(&tensor.read_beginning(SAMPLED_BYTES)?);
        }
        Ok(fingerprint)
    }
}

/// What a model answered, by item.
#[derive(Default)]
pub(super) struct AnswerSheet {
    pub(super) answers: BTreeMap<usize, Outcome>,
    file: Option<ResultsFile>,
}

impl AnswerSheet {
    /// Opens the file of a model in the folder of `--results`, which is made if need be.
    pub(super) fn open(
        folder: &Path,
        args: &EvalArgs,
        set: &ItemSet,
        context: usize,
        candidate: &Candidate,
        against: Option<&Candidate>,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("--results {}: not a folder", folder.display()))?;
        let header = ResultsHeader {
            bantam_results: ResultsHeader::VERSION,
            task: args.task.to_string(),
            items: set.fingerprint().to_string(),
            form: args.form().to_string(),
            shots: args.shots(),
            context,
            model: candidate.name(),
            weights: candidate.weights()?.to_string(),
            against: against
                .map(|other| {
                    Ok::<_, anyhow::Error>(format!("{} {}", other.name(), other.weights()?))
                })
                .transpose()?,
        };
        let against = against.map_or(String::new(), |other| format!(".against.{}", other.name()));
        let ResultsHeader { task, form, shots, model, .. } = &header;
        let name = format!("{task}-{form}-{shots}.{model}{against}.jsonl");
        let (file, answers) = ResultsFile::open(&folder.join(as_file_name(&name)), &header, set)?;
        Ok(Self { answers, file: Some(file) })
    }

    /// Keeps an outcome, unless the item was answered before.
    pub(super) fn keep(&mut self, outcome: Outcome) -> anyhow::Result<()> {
        if self.answers.contains_key(&outcome.item) {
            return Ok(());
        }
        if let Some(file) = &mut self.file {
            file.append(&outcome)?;
        }
        self.answers.insert(outcome.item, outcome);
        Ok(())
    }
}

/// A name as one component of a path.
fn as_file_name(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "._-@+".contains(c);
    name.trim_start_matches('.').chars().map(|c| if plain(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models_make_names_of_files() {
        assert_eq!(as_file_name("mmlu.org/model@int8+fp8.jsonl"), "mmlu.org_model@int8+fp8.jsonl");
        assert_eq!(as_file_name("../../x y"), "_.._x_y");
    }
}
