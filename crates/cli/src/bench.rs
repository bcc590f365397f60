//! `bantam bench`: what the machine can do, how close a model comes, and a server under load
//! or under clients that misbehave.

use anyhow::bail;
use bantam_backend::Backend;
use bantam_checkpoint::printable;
use bantam_cpu::ceilings;
use bantam_eval::{Align, BenchOptions, Ceilings, ModelCost, Speed, Table, Work, bench};
use bantam_model::{Decoder, LoadOptions, OptionNames, Precision};
use bantam_numerics::ActivationFormat;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::bench_serve::{self, ServeArgs};
use crate::bench_soak::{self, SoakArgs};
use crate::device::Device;
use crate::format::Format;
use crate::model_arg::{DeviceArgs, ModelArg, OpenModel, batch_size, positive};
use crate::output;

/// Measure speed, beside what this machine could do at best
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Machine(MachineArgs),
    Model(ModelArgs),
    Serve(ServeArgs),
    Soak(SoakArgs),
}

/// Measure the ceilings of this machine: memory bandwidth and arithmetic
#[derive(Debug, Args)]
struct MachineArgs {
    #[command(flatten)]
    device: DeviceArgs,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Measure prefill and decode of a model, as a share of this machine's limit
///
/// Prompts are random tokens, and choosing tokens is not part of the time. The limit is the slower
/// of reading what a step must read at the measured bandwidth and computing what it must compute at
/// the measured peak.
#[derive(Debug, Args)]
#[command(after_help = MODEL_AFTER_HELP)]
struct ModelArgs {
    /// Alias, Hugging Face folder, .gguf file or hub name, with an optional @FORMAT
    #[arg(value_name = "MODEL[@FORMAT]")]
    model: ModelArg,

    /// Number formats to measure, separated by commas, unless MODEL states one [default:
    /// bf16,int8,int4; a checkpoint that is quantized already keeps its own]
    #[arg(long, value_name = "FORMAT,…", value_delimiter = ',')]
    dtype: Vec<Format>,

    /// Tokens of each prompt
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = positive)]
    prompt_tokens: usize,

    /// Tokens generated for each sequence
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = positive)]
    decode_tokens: usize,

    /// Sequences side by side, several sizes separated by commas
    #[arg(long, value_name = "N,…", default_value = "1", value_delimiter = ',', value_parser = batch_size)]
    batch: Vec<usize>,

    /// Measurements of which the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = positive)]
    repetitions: usize,

    #[command(flatten)]
    device: DeviceArgs,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

const MODEL_AFTER_HELP: &str = "\
Examples:
  bantam bench model smollm2
  bantam bench model smollm2 --dtype int4 --prompt-tokens 512 --decode-tokens 128 --batch 1,16";

pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    match &args.what {
        What::Machine(args) => machine(args),
        What::Model(args) => model(args),
        What::Serve(args) => bench_serve::run(args),
        What::Soak(args) => bench_soak::run(args),
    }
}

/// Measures the ceilings of the device; takes about a second.
pub(crate) fn ceilings(device: &Device) -> Ceilings {
    Ceilings {
        read_bytes_per_second: ceilings::read_bandwidth(device),
        f32_ops_per_second: ceilings::peak_ops(device, ActivationFormat::F32),
        bf16_ops_per_second: ceilings::peak_ops(device, ActivationFormat::BF16),
        int8_ops_per_second: ceilings::peak_ops(device, ActivationFormat::Int8),
    }
}

fn machine(args: &MachineArgs) -> anyhow::Result<()> {
    let device = args.device.open()?;
    let measured = ceilings(&device);
    let name = device.describe();
    if args.json {
        return output::print_json(&json!({ "device": name, "ceilings": measured }));
    }
    let mut table =
        Table::new([("ceiling", Align::Left), ("measured", Align::Right), ("", Align::Left)]);
    let giga = |value: f64| format!("{:.1}", value / 1e9);
    table.row(["memory, reading", &giga(measured.read_bytes_per_second), "GB/s"]);
    table.row(["f32 multiply-add", &giga(measured.f32_ops_per_second), "Gop/s"]);
    table.row(["bf16 dot product", &giga(measured.bf16_ops_per_second), "Gop/s"]);
    table.row(["int8 dot product", &giga(measured.int8_ops_per_second), "Gop/s"]);
    Ok(output::print(&format!("{name}\n{table}"))?)
}

/// Measured speed, and what the measured steps had to do.
pub(crate) struct Measured {
    pub(crate) speed: Speed,
    format: ActivationFormat,
    prefill: Work,
    decode: Work,
}

impl Measured {
    /// Prefill's share of the machine's limit, 0 to 1.
    pub(crate) fn prefill_share(&self, machine: &Ceilings) -> f64 {
        machine.least_seconds(&self.prefill, self.format) / self.speed.prefill_seconds
    }

    /// Decode's share of the machine's limit, 0 to 1.
    pub(crate) fn decode_share(&self, machine: &Ceilings) -> f64 {
        machine.least_seconds(&self.decode, self.format) / self.speed.decode_step_seconds
    }
}

/// Measures one batch size of a loaded model.
pub(crate) fn measure(
    decoder: &mut Decoder<Device>,
    options: &BenchOptions,
    progress: &mut dyn FnMut(),
) -> anyhow::Result<Measured> {
    let cost = ModelCost::of(decoder);
    let middle = options.prompt_tokens as f64 + options.decode_tokens as f64 / 2.0;
    Ok(Measured {
        format: decoder.activation(),
        prefill: cost.prefill(options.batch, options.prompt_tokens),
        decode: cost.decode(options.batch, middle),
        speed: bench(decoder, options, progress)?,
    })
}

fn model(args: &ModelArgs) -> anyhow::Result<()> {
    let model = OpenModel::open(&args.model.name, &args.device.unread)?;
    let device = args.device.open()?;
    let context = args.context(&model)?;
    let largest_batch = args.batch.iter().copied().max().unwrap_or(1);
    let formats = args.formats(&model);
    let sum = "--prompt-tokens plus --decode-tokens of";
    let names = OptionNames { context: sum, ..OptionNames::default() };
    let load_options = formats.iter().map(|&format| {
        let options = format.load_options(Some(context), largest_batch);
        (format, LoadOptions { names, ..options })
    });
    let load_options: Vec<_> = load_options.collect();
    // Everything that can be refused is refused before anything is measured.
    for (_, options) in &load_options {
        model.plan(&device, options)?;
    }
    let before = ceilings(&device);
    let mut lines = Vec::new();
    for (format, load) in load_options {
        let mut decoder = model.load(&device, &load)?;
        for &batch in &args.batch {
            let options = BenchOptions {
                prompt_tokens: args.prompt_tokens,
                decode_tokens: args.decode_tokens,
                batch,
                repetitions: args.repetitions,
            };
            let bar = output::progress_bar(
                args.repetitions as u64 + 1,
                &format!("{format}, batch {batch}"),
            );
            let measured = measure(&mut decoder, &options, &mut || bar.inc(1))?;
            bar.finish_and_clear();
            lines.push((format, decoder.weight_bytes(), measured));
        }
    }
    let machine = before.best_of(ceilings(&device));
    let name = device.describe();
    if args.json {
        let line = |(format, weight_bytes, measured): &(Format, u64, Measured)| {
            json!({
                "dtype": format.to_string(),
                "weight_bytes": weight_bytes,
                "speed": measured.speed,
                "prefill_share": measured.prefill_share(&machine),
                "decode_share": measured.decode_share(&machine),
            })
        };
        return output::print_json(&json!({
            "model": model.name,
            "device": name,
            "ceilings": machine,
            "prompt_tokens": args.prompt_tokens,
            "decode_tokens": args.decode_tokens,
            "results": lines.iter().map(line).collect::<Vec<_>>(),
        }));
    }
    let mut table = Table::new([
        ("format", Align::Left),
        ("batch", Align::Right),
        ("weights (MiB)", Align::Right),
        ("prefill (tok/s)", Align::Right),
        ("of limit (%)", Align::Right),
        ("decode (tok/s)", Align::Right),
        ("of limit (%)", Align::Right),
        ("first token (ms)", Align::Right),
    ]);
    for (format, weight_bytes, measured) in &lines {
        let speed = &measured.speed;
        table.row([
            format.to_string(),
            speed.batch.to_string(),
            output::mebibytes(*weight_bytes),
            format!("{:.0}", speed.prefill_tokens_per_second),
            percent(measured.prefill_share(&machine)),
            format!("{:.1}", speed.decode_tokens_per_second),
            percent(measured.decode_share(&machine)),
            format!("{:.1}", 1e3 * speed.prefill_seconds),
        ]);
    }
    let heading = format!(
        "{} on {name}, prompts of {} tokens, {} tokens generated",
        printable(&model.name),
        args.prompt_tokens,
        args.decode_tokens
    );
    Ok(output::print(&format!("{heading}\n{table}"))?)
}

impl ModelArgs {
    /// The formats that were asked for; else those that most users compare.
    fn formats(&self, model: &OpenModel) -> Vec<Format> {
        let format = |precision| Format { precision, kv: None };
        match (self.model.format, model.arch.quantization.is_some()) {
            (Some(format), _) => vec![format],
            (None, _) if !self.dtype.is_empty() => self.dtype.clone(),
            (None, true) => vec![format(Precision::Bf16)],
            (None, false) => {
                [Precision::Bf16, Precision::Int8, Precision::INT4].map(format).to_vec()
            }
        }
    }

    /// Tokens of a sequence, if the model reaches that far.
    fn context(&self, model: &OpenModel) -> anyhow::Result<usize> {
        let (prompt, decode) = (self.prompt_tokens, self.decode_tokens);
        let (own, context) = (model.arch.sizes.max_positions, prompt.saturating_add(decode));
        if context > own {
            bail!(
                "--prompt-tokens {prompt} and --decode-tokens {decode} make {context}, but {} was \
                 made for {own} tokens; use {own} or fewer together",
                model.name
            );
        }
        Ok(context)
    }
}

/// A share from 0 to 1 in percent.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.0}", 100.0 * share)
}
