//! `bantam advise`: which recipe for which work, before anything is quantized.

mod text;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::bail;
use bantam_backend::Backend;
use bantam_checkpoint::printable;
use bantam_optimize::advice::{Advice, Device, Measured, Peaks, Question, Workload, advise};
use bantam_optimize::{KvKind, OptimizeError, Report};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::json;

use crate::bench;
use crate::input::read_text;
use crate::memory;
use crate::model_arg::{DeviceArgs, OpenModel, UnreadArgs, batch_size, positive};
use crate::output;
use crate::quantize::parse_kv;

/// Choose a recipe: memory, speed and loss of each, before anything is quantized
///
/// Speeds are predicted: the time of reading what the work must read and of multiplying what it must
/// multiply, at the share of the device's limits that kernels reach. The limits of this machine are
/// measured now, those of GPUs are published ones. Losses are those that were published or measured
/// for models of the size; --report puts what bantam quantize measured on this very model in their
/// place. Weights are not read.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct AdviseArgs {
    /// Alias, Hugging Face folder, .gguf file or hub name of a model in 16 or 32 bits
    #[arg(value_name = "MODEL")]
    model: String,

    /// Requests side by side
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = batch_size)]
    batch: usize,

    /// Tokens of each prompt (input sequence length)
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = positive)]
    isl: usize,

    /// Tokens of each answer (output sequence length)
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = positive)]
    osl: usize,

    /// Loss of accuracy that is bearable; without it a recipe that loses more must be faster
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    max_loss: Option<f64>,

    /// Where the model will run: this machine, or a GPU by its published figures
    #[arg(long, value_name = "NAME", default_value = CPU, value_parser = device_names())]
    device: String,

    /// Let every recipe have an 8-bit key/value cache: fp8 or int8
    #[arg(long, value_name = "FORMAT", value_parser = parse_kv)]
    kv: Option<KvKind>,

    /// Folder that bantam quantize made of this model: what it measured replaces predictions; may be
    /// repeated
    #[arg(long, value_name = "FOLDER")]
    report: Vec<PathBuf>,

    #[command(flatten)]
    threads: DeviceArgs,

    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  bantam advise smollm2 --batch 16 --isl 1024 --osl 128
  bantam advise ./model --batch 32 --max-loss 1 --device h100
  bantam quantize smollm2 --recipe int8_wo --output ./small
  bantam advise smollm2 --report ./small               measured beside predicted

How to read it: the first row is recommended, with the reason above. A speed-up is that of the whole
work, prompts and answers, over 16 bits. Without --max-loss a speed-up counts in full at very low
loss (to 1 %), nine tenths at low (to 2.5 %), eight tenths at medium (to 6 %) and half at high.";

const CPU: &str = "cpu";

fn device_names() -> PossibleValuesParser {
    PossibleValuesParser::new(std::iter::once(CPU).chain(Device::gpu_names()))
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| "expected 0 or more, such as 1 or 2.5".to_owned())
}

/// What was asked, for those who print the answer.
struct Answer<'a> {
    args: &'a AdviseArgs,
    model: &'a OpenModel,
    device: &'a Device,
    workload: Workload,
    advice: Advice,
}

pub(crate) fn run(args: &AdviseArgs) -> anyhow::Result<()> {
    let model = OpenModel::open(&args.model, &args.threads.unread)?;
    if let Some(quantization) = &model.arch.quantization {
        let (model, method) = (model.name.clone(), quantization.method().to_owned());
        return Err(OptimizeError::AlreadyQuantized { model, method }.into());
    }
    let workload = Workload { batch: args.batch, input_tokens: args.isl, output_tokens: args.osl };
    workload.check(&model.arch)?;
    let measured = args.report.iter().map(|folder| measured(folder, &model));
    let measured = measured.collect::<anyhow::Result<Vec<_>>>()?;
    let device = args.device()?;
    let advice = advise(&Question {
        arch: &model.arch,
        device: &device,
        workload,
        kv: args.kv,
        max_loss: args.max_loss,
        measured: &measured,
    })?;
    let answer = Answer { args, model: &model, device: &device, workload, advice };
    if args.json {
        return output::print_json(&json!({
            "model": model.name,
            "device": device,
            "workload": workload,
            "max_loss": args.max_loss,
            "recommended": answer.advice.recommended().map(|candidate| &candidate.recipe),
            "reason": answer.advice.reason,
            "cache": answer.advice.cache,
            "candidates": answer.advice.candidates,
        }));
    }
    Ok(output::print(&answer.to_string())?)
}

impl AdviseArgs {
    /// The GPU of that name, or this machine, measured in about two seconds.
    fn device(&self) -> anyhow::Result<Device> {
        if let Some(gpu) = Device::gpu(&self.device) {
            return Ok(gpu);
        }
        let cpu = self.threads.open()?;
        let limits = bench::ceilings(&cpu).best_of(bench::ceilings(&cpu));
        let peaks =
            Peaks { bf16: limits.bf16_ops_per_second, int8: limits.int8_ops_per_second, fp8: None };
        Ok(Device::cpu(cpu.describe(), memory::budget(), limits.read_bytes_per_second, peaks))
    }
}

/// What a run of `bantam quantize` measured, if it was on this model.
fn measured(folder: &Path, model: &OpenModel) -> anyhow::Result<Measured> {
    let name = folder.display().to_string();
    let path = folder.join("report.json");
    let Ok(file) = File::open(&path) else {
        bail!("--report {name}: there is no report.json; give a folder that bantam quantize made");
    };
    let text = read_text(file, &path.display().to_string())?;
    let report: Report = match serde_json::from_str(&text) {
        Ok(report) => report,
        Err(error) => bail!("{}: no report of bantam quantize: {error}", path.display()),
    };
    let quantized = OpenModel::open(&name, &UnreadArgs::default())?;
    let shape = |model: &OpenModel| {
        let (sizes, attention) = (model.arch.sizes, &model.arch.attention);
        (sizes, attention.heads, attention.kv_heads, attention.head_dim)
    };
    if shape(&quantized) != shape(model) || report.original_bytes != model.checkpoint.total_bytes()
    {
        bail!(
            "--report {name}: it was made of {}, not of {}; leave it out, or advise on that model",
            printable(&report.model),
            printable(&model.name)
        );
    }
    Ok(Measured { folder: name, arch: quantized.arch, report })
}
