//! `bantam eval`: what models can do, and how far they are from another.

mod answers;
mod perplexity;
mod questions;
mod report;
mod task;

use std::path::PathBuf;

use bantam_eval::choice::{Form, MAX_SHOTS};
use clap::Args;

use crate::format::Format;
use crate::model_arg::{DeviceArgs, ModelArg};
use task::Task;

/// Measure perplexity or answers to questions, and the distance to another model or format
///
/// Models may be given as MODEL@FORMAT to compare number formats of one model. With --against, all
/// models are in memory together and see the text or the questions side by side.
///
/// Tasks:
///   perplexity   exp of the mean negative log-likelihood per token of a text
///   mmlu         57 subjects of knowledge; give the folder with --data
///   everyday     24 easy questions that come with bantam: a smoke test and not a benchmark
///   FILE.jsonl   your own questions, a line each, such as
///                {"question": "...", "choices": ["...", "..."], "answer": 0} or
///                {"context": "...", "choices": ["...", "..."], "answer": "B"}, with an optional
///                "subject"
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = AFTER_HELP)]
pub(crate) struct EvalArgs {
    /// Aliases, folders, .gguf files or hub names, each with an optional @FORMAT
    #[arg(required = true, value_name = "MODEL[@FORMAT]")]
    models: Vec<ModelArg>,

    /// What to measure: perplexity, mmlu, everyday, or a file of questions with choices
    #[arg(long, value_name = "TASK", default_value = "perplexity")]
    task: Task,

    /// Also measure KL divergence and what else changed from this model
    #[arg(long, value_name = "MODEL[@FORMAT]")]
    against: Option<ModelArg>,

    /// Number format of models given without one: f32, bf16, int8, int4 or fp8-wo
    /// (weights only), fp8, w8a8 or w4a8 (activations too), with +int8 or +fp8 for the key/value
    /// cache
    #[arg(long, value_name = "FORMAT", default_value = "bf16")]
    dtype: Format,

    /// Number format of the model of --against
    #[arg(long, value_name = "FORMAT", default_value = "f32")]
    against_dtype: Format,

    /// Use only the first N tokens of the text, or N of the questions, drawn at random but always
    /// the same (a larger N adds to them)
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Tokens that a model sees at once [default: for a text 2048, or the context if that is
    /// shorter; for questions the context]
    #[arg(long, value_name = "N")]
    window: Option<usize>,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    questions: QuestionArgs,

    #[command(flatten)]
    device: DeviceArgs,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// For perplexity.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of perplexity")]
struct TextArgs {
    /// UTF-8 text to score [default: a text of some 5,000 words that comes with bantam]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,

    /// Tokens from one window to the next; less than the window scores every token with more
    /// context [default: the window]
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
}

/// For questions.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of questions")]
struct QuestionArgs {
    /// MMLU: a name on the hub, such as cais/mmlu, or a folder with test/SUBJECT_test.csv and
    /// dev/SUBJECT_dev.csv as in the original release, or with test.jsonl and dev.jsonl and a field
    /// "subject"
    #[arg(long, value_name = "DIR|NAME")]
    data: Option<PathBuf>,

    /// Examples with answers before each question, 0 to 5 [default: 5 for mmlu, else 0]
    #[arg(long, value_name = "N", value_parser = parse_shots)]
    shots: Option<usize>,

    /// File of questions that the examples are taken from, the first of the same subject; mmlu
    /// brings its own
    #[arg(long, value_name = "FILE")]
    examples: Option<PathBuf>,

    /// How to ask, and what counts as the answer: letters (log-likelihood of A, B, … after the list
    /// of choices; lm-eval's MMLU), texts (log-likelihood of each choice's text, also divided by its
    /// length; lm-eval's ARC and HellaSwag) or greedy (the letter that the model writes; NVIDIA's
    /// MMLU) [default: letters for mmlu, else texts]
    #[arg(long, value_name = "FORM")]
    form: Option<Form>,

    /// Folder to keep every answer in, a file for each model; the same command again goes on where
    /// it stopped
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,

    /// Print a table of accuracy by subject too
    #[arg(long)]
    by_subject: bool,
}

const AFTER_HELP: &str = "\
Examples:
  bantam eval smollm2                                  perplexity on the text that comes with bantam
  bantam eval smollm2@int8 smollm2@int4 --against smollm2
  bantam eval ./original ./quantized --text wiki.txt --window 1024 --stride 512
  bantam eval smollm2@int4 --against smollm2 --limit 512 --json
  bantam eval smollm2 --task everyday                  a first try at questions
  bantam eval ./quantized --against ./original --task mmlu --data ./mmlu --results ./results
  bantam eval smollm2 --task mmlu --data ./mmlu --form greedy --limit 500 --by-subject
  bantam eval smollm2 --task arc_easy.jsonl --examples arc_train.jsonl --shots 2

For questions, ± is the standard error of the accuracy. With --against, 'loss' is what is lost of
that model's accuracy in percent of it; 'lost' and 'gained' count answers that were right and are
wrong, and the reverse; p is the chance of so uneven a split between equally good models (McNemar).";

fn parse_shots(text: &str) -> Result<usize, String> {
    let shots = text.parse().ok().filter(|&shots| shots <= MAX_SHOTS);
    shots.ok_or_else(|| format!("expected 0 to {MAX_SHOTS}"))
}

pub(crate) fn run(args: &EvalArgs) -> anyhow::Result<()> {
    args.refuse_options_of_others()?;
    match args.task {
        Task::Perplexity => perplexity::run(args),
        Task::Mmlu | Task::Everyday | Task::File(_) => questions::run(args),
    }
}
