//! `bantam quantize`: makes a model small, and says what that cost.

mod formats;
mod own_text;
mod page;
mod report;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use bantam_backend::KvFormat;
use bantam_checkpoint::{Checkpoint, Dialect};
use bantam_eval::{Baseline, Convention, EVAL_TEXT};
use bantam_model::Precision;
use bantam_optimize::report::{Accuracy, Report};
use bantam_optimize::{
    Calibration, CalibrationOptions, FormatSearch, GroupChoice, Job, KvKind, OutputFolder,
    Progress, QuantizationPlan, Recipe, Stage, WeightKind, partial_folder,
};
use clap::Args;
use indicatif::ProgressBar;

use self::formats::FormatArgs;
use crate::device::Device;
use crate::format::Format;
use crate::memory::bytes;
use crate::model_arg::{DeviceArgs, OpenModel, UnreadArgs, positive};
use crate::output::{self, mebibytes};
use crate::scoring::{self, ScoredText, SideBySide, StepShape};

/// Make a model small, and show what that cost
///
/// Reads one decoder layer after another from the checkpoint, so that a model may be larger
/// than memory, and writes a Hugging Face folder that bantam, vLLM, SGLang and TensorRT-LLM load.
/// The folder appears when it is complete. With it come report.json and report.html: the error of
/// each layer, and perplexity and KL divergence beside the original on a text that calibration did
/// not see.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct QuantizeArgs {
    /// Alias, Hugging Face folder, .gguf file or hub name of a model in 16 or 32 bits
    #[arg(value_name = "MODEL", required_unless_present_any = ["list", "show"])]
    model: Option<String>,

    /// What to do: a name of --list, or a TOML file such as --show prints
    #[arg(long, short, value_name = "NAME|FILE", required_unless_present_any = ["list", "show"])]
    recipe: Option<String>,

    /// Folder to write; it must not exist
    #[arg(long, short, value_name = "DIR", required_unless_present_any = ["list", "show"])]
    output: Option<PathBuf>,

    /// Format of the checkpoint: compressed-tensors (vLLM, SGLang, transformers) or modelopt
    /// (TensorRT-LLM, vLLM, SGLang)
    #[arg(long, value_name = "FORMAT", default_value = "compressed-tensors")]
    format: DialectArg,

    /// Weights that share a scale, for INT4: 128, 64, 32 or 16, or auto for the largest that divides
    /// each layer
    #[arg(long, value_name = "N|auto", value_parser = parse_group)]
    group: Option<GroupChoice>,

    /// Also calibrate scales for a key/value cache: fp8 or int8
    #[arg(long, value_name = "FORMAT", value_parser = parse_kv)]
    kv: Option<KvKind>,

    #[command(flatten)]
    formats: FormatArgs,

    #[command(flatten)]
    calibration: CalibrationArgs,

    /// Go on where a run that was stopped had come to
    #[arg(long)]
    resume: bool,

    /// Do not compare the result with the original
    #[arg(long)]
    no_eval: bool,

    /// Bytes of an output file at most, such as 5GB
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = bytes)]
    max_shard: u64,

    /// List the recipes that come with bantam
    #[arg(long, exclusive = true)]
    list: bool,

    /// Print a recipe that comes with bantam, to start your own from
    #[arg(long, value_name = "NAME", exclusive = true)]
    show: Option<String>,

    #[command(flatten)]
    device: DeviceArgs,

    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

/// What the layers see.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of calibration")]
struct CalibrationArgs {
    /// Text, or JSON: an array or a value a line, of texts or of objects with "text", "messages",
    /// "conversations", "instruction" and "output", "prompt" and "completion", or "question" and
    /// "answer" [default: text that the model itself writes, by --seed]
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,

    /// Sequences to calibrate with
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = positive)]
    samples: usize,

    /// Tokens of a sequence
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = positive)]
    seq_len: usize,

    /// Make each text a sequence of its own, instead of joining them and cutting to --seq-len
    #[arg(long)]
    unpacked: bool,

    /// Seed of the text that the model writes
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

const AFTER_HELP: &str = "\
Examples:
  bantam quantize smollm2 --recipe int4_awq --output smollm2-awq
  bantam quantize ./model --recipe int8_sq --calibration chats.jsonl --samples 128 -o ./model-int8
  bantam quantize ./model --recipe fp8 --kv fp8 --format modelopt -o ./model-fp8
  bantam quantize ./model --recipe auto --bits 5 -o ./model-5       INT4, INT8 or 16 bits by layer
  bantam quantize --list
  bantam quantize --show int4_awq > mine.toml; bantam quantize ./model --recipe mine.toml -o ./mine
  bantam run ./model-int8                              what was written runs at once";

/// The formats that users name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DialectArg(Dialect);

impl FromStr for DialectArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Dialect::CompressedTensors, Dialect::ModelOpt];
        let found = known.into_iter().find(|dialect| dialect.name() == text).map(Self);
        found.ok_or_else(|| "expected compressed-tensors or modelopt".to_owned())
    }
}

fn parse_group(text: &str) -> Result<GroupChoice, String> {
    if text == "auto" {
        return Ok(GroupChoice::Auto);
    }
    let size = text.parse().ok().filter(|size: &usize| *size > 0 && size.is_multiple_of(4));
    size.map(GroupChoice::Of).ok_or_else(|| "expected a multiple of 4 from 4, or auto".to_owned())
}

/// Reads the format of a calibrated cache.
pub(crate) fn parse_kv(text: &str) -> Result<KvKind, String> {
    match text {
        "fp8" => Ok(KvKind::Fp8),
        "int8" => Ok(KvKind::Int8),
        _ => Err("expected fp8 or int8".to_owned()),
    }
}

/// Work that a run which is stopped loses at most, or that of one layer.
const SAVE_EVERY: Duration = Duration::from_secs(20);
/// Tokens of the text that the result is compared on.
const COMPARED_TOKENS: usize = 4096;
const COMPARED_WINDOW: usize = 1024;

pub(crate) fn run(args: &QuantizeArgs) -> anyhow::Result<()> {
    if args.list {
        return list();
    }
    if let Some(name) = &args.show {
        return match Recipe::built_in_text(name) {
            Some(text) => Ok(output::print(text)?),
            None => bail!("there is no recipe {name}; known are {}", known_recipes()),
        };
    }
    let (Some(model), Some(recipe), Some(folder)) = (&args.model, &args.recipe, &args.output)
    else {
        bail!("MODEL, --recipe and --output are needed");
    };
    quantize(args, model, args.recipe(recipe)?, folder)
}

fn quantize(args: &QuantizeArgs, model: &str, recipe: Recipe, folder: &Path) -> anyhow::Result<()> {
    let model = OpenModel::open(model, &args.device.unread)?;
    let search = FormatSearch::new(&recipe, &model.arch)?;
    let plan = match &search {
        Some(search) => search.plans().next().expect("there is a candidate").clone(),
        None => QuantizationPlan::new(&recipe, &model.arch)?,
    };
    let empty = Calibration::default();
    let job = Job {
        checkpoint: &model.checkpoint,
        arch: &model.arch,
        recipe: &recipe,
        plan: &plan,
        calibration: &empty,
        dialect: args.format.0,
        folder,
        resume: args.resume,
        max_shard_bytes: args.max_shard,
        save_every: SAVE_EVERY,
    };
    // Before a calibration text is written.
    let needs = search.is_some() || plan.needs_calibration();
    let calibration_tokens = if needs { args.calibration.tokens() } else { 0 };
    job.check(calibration_tokens)?;
    for plan in search.iter().flat_map(FormatSearch::plans) {
        Job { plan, ..job }.check(calibration_tokens)?;
    }
    let output = OutputFolder::claim(folder, args.resume)?;
    let result = write(args, &model, &recipe, search, job, &output);
    let report = match result {
        Ok(report) => report,
        Err(error) => {
            drop(output);
            let partial = partial_folder(folder);
            if partial.exists() {
                output::note(&format!(
                    "what was done is kept in {}; add --resume to go on from it",
                    partial.display()
                ));
            }
            return Err(error);
        }
    };
    output.publish()?;
    FormatSearch::forget(&job)?;
    if args.json {
        output::print_json(&report)
    } else {
        Ok(output::print(&report::summary(&report, folder))?)
    }
}

/// Does the work in the output's working folder: everything that belongs there is there afterwards.
fn write(
    args: &QuantizeArgs,
    model: &OpenModel,
    recipe: &Recipe,
    search: Option<FormatSearch>,
    job: Job<'_>,
    output: &OutputFolder,
) -> anyhow::Result<Report> {
    let device = args.device.open()?;
    let needs = search.is_some() || job.plan.needs_calibration();
    let calibration =
        if needs { args.calibration.sequences(model, &device)? } else { Calibration::default() };
    let job = Job { calibration: &calibration, ..job };
    if needs {
        let (sequences, tokens) = (calibration.sequences.len(), calibration.tokens());
        output::note(&format!(
            "calibrating with {sequences} sequences, {tokens} tokens: {}",
            calibration.source
        ));
    }
    let found = search.map(|search| formats::choose(&search, &job, &device)).transpose()?;
    let chosen = found.as_ref().map(|found| QuantizationPlan::new(&found.recipe, &model.arch));
    let chosen = chosen.transpose()?;
    let plan = chosen.as_ref().unwrap_or(job.plan);
    let recipe = found.as_ref().map_or(recipe, |found| &found.recipe);
    let job = Job { recipe, plan, ..job };
    for note in &plan.notes {
        output::note(note);
    }
    output::note(&format!("takes up to {} MiB of memory", mebibytes(job.peak_bytes())));
    let bar = output::progress_bar(1000, "quantizing");
    let result = job.build(output, &device, &mut |progress| show(&bar, progress));
    bar.finish_and_clear();
    let mut report = result?;
    if let Some(found) = &found {
        formats::keep(output.partial(), found, &mut report)?;
    }
    if !args.no_eval {
        let accuracy = compare(model, output.partial(), &device, plan.kv);
        report.accuracy = Some(accuracy.context(
            "the model is quantized, but not compared with the original; add --no-eval to leave \
             that out",
        )?);
    }
    report::write(&report, output.partial())?;
    Ok(report)
}

/// Says where a run has come to.
fn show(bar: &ProgressBar, progress: Progress) {
    let what = match progress.stage {
        Stage::Choosing => "choosing formats of",
        Stage::Calibrating => "calibrating",
        Stage::Quantizing => "quantizing",
        Stage::Propagating => "running",
    };
    bar.set_message(format!("{what} block {} of {}", progress.block + 1, progress.blocks));
    bar.set_position((1000.0 * progress.done) as u64);
}

fn list() -> anyhow::Result<()> {
    for name in Recipe::built_in_names() {
        let recipe = Recipe::built_in(name);
        let about = recipe.map(|recipe| recipe.about).unwrap_or_default();
        output::print_line(format_args!("{name:<10} {about}"))?;
    }
    Ok(())
}

fn known_recipes() -> String {
    Recipe::built_in_names().collect::<Vec<_>>().join(", ")
}

impl QuantizeArgs {
    /// The recipe that was asked for, with the options that change it.
    fn recipe(&self, name: &str) -> anyhow::Result<Recipe> {
        let mut recipe = match Recipe::built_in(name) {
            Some(recipe) => recipe,
            None if Path::new(name).exists() => {
                let text = std::fs::read_to_string(name)
                    .map_err(|error| anyhow::anyhow!("--recipe {name}: {error}"))?;
                Recipe::from_toml(name, &text)?
            }
            None => bail!(
                "--recipe {name}: there is no such file, and the recipes are {}",
                known_recipes()
            ),
        };
        if let Some(group) = self.group {
            let int4 = recipe.rules.iter_mut().filter(|rule| rule.weights == WeightKind::Int4);
            let rules = int4.map(|rule| rule.group = group).count();
            let auto = recipe.auto.iter_mut().map(|auto| auto.group = group).count();
            if rules + auto == 0 {
                bail!("--group is for INT4 weights, but recipe {name} has none; leave it out");
            }
        }
        recipe.kv = self.kv.or(recipe.kv);
        self.formats.change(&mut recipe)?;
        Ok(recipe)
    }
}

impl CalibrationArgs {
    /// Tokens that are asked for.
    fn tokens(&self) -> usize {
        self.samples.saturating_mul(self.seq_len)
    }

    /// Reads the text, or lets the model write it.
    fn sequences(&self, model: &OpenModel, device: &Device) -> anyhow::Result<Calibration> {
        let longest = model.arch.sizes.max_positions;
        if self.seq_len > longest {
            bail!("--seq-len is {}, but the model was made for {longest} tokens", self.seq_len);
        }
        let tokenizer = model.tokenizer()?;
        match &self.calibration {
            Some(path) => {
                let options = CalibrationOptions {
                    samples: self.samples,
                    sequence_tokens: self.seq_len,
                    packed: !self.unpacked,
                };
                Ok(Calibration::from_file(path, &tokenizer, options)?)
            }
            None => own_text::write(model, &tokenizer, device, self),
        }
    }
}

/// The result beside the original, on a text that calibration did not see.
fn compare(
    original: &OpenModel,
    folder: &Path,
    device: &Device,
    kv: Option<KvFormat>,
) -> anyhow::Result<Accuracy> {
    let checkpoint = Checkpoint::open(folder)?;
    let name = folder.display().to_string();
    let quantized = OpenModel::of(name, checkpoint, &UnreadArgs::default())?;
    let text = ScoredText::encode(&original.tokenizer()?, EVAL_TEXT, Some(COMPARED_TOKENS))?;
    let window = COMPARED_WINDOW.min(original.arch.sizes.max_positions);
    let convention = Convention::new(window, None, text.bos)?;
    let formats = [
        (original, Format { precision: Precision::F32, kv: None }),
        (&quantized, Format { precision: Precision::Bf16, kv }),
    ];
    let shape = StepShape::window(window.min(text.ids.len()));
    let mut decoders = SideBySide::plan(formats, device, &shape)?.load(device)?;
    let scores = scoring::score(&mut decoders, Baseline::First, &text.ids, &convention)?;
    let [before, after] = scores.as_slice() else { bail!("two models have two scores") };
    let Some(divergence) = &after.divergence else { bail!("the second is compared to the first") };
    Ok(Accuracy {
        text: format!("bantam-eval, {convention}"),
        tokens: text.ids.len(),
        original_perplexity: before.perplexity.value(),
        quantized_perplexity: after.perplexity.value(),
        kl: divergence.kl_mean(),
        top1_agreement: divergence.top1_agreement(),
    })
}
