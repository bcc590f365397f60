//! `bantam demo`: the whole of Bantam in a minute, on a model small enough for any machine.

use std::time::Instant;

use anyhow::Context;
use bantam_backend::Backend;
use bantam_engine::{GenerateRequest, SamplingParams};
use bantam_eval::{Align, Baseline, BenchOptions, Ceilings, Convention, EVAL_TEXT, Score, Table};
use bantam_model::{Decoder, Precision};
use bantam_text::Message;
use clap::Args;

use crate::bench::{self, Measured, percent};
use crate::device::Device;
use crate::format::Format;
use crate::inspect::heading;
use crate::interrupt;
use crate::model_arg::{DeviceArgs, OpenModel};
use crate::output::{self, mebibytes, significant};
use crate::run::{Session, encode_chat};
use crate::scoring::{self, ScoredText, SideBySide, StepShape};

/// See it all at once: a model made small, what that cost, and an answer
///
/// Fetches smollm2 (135 M parameters, 94 MB) on the first run, quantizes it in memory, and takes
/// less than two minutes.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    device: DeviceArgs,
}

/// The formats shown: the original first, and last the one that answers.
const FORMATS: [Precision; 4] = [
    Precision::F32,
    Precision::Int8,
    Precision::INT4,
    Precision::Int4 { group: Some(32), symmetric: false },
];
/// Windows short enough that scoring stays quick, and the tokens scored in all.
const WINDOW: usize = 512;
const SCORED_TOKENS: usize = 3072;
/// What is timed for each format.
const SPEED: BenchOptions =
    BenchOptions { prompt_tokens: 256, decode_tokens: 32, batch: 1, repetitions: 3 };
const NOTES: &str = "\
Of limit: decode speed beside reading all weights at the measured bandwidth.
SmolLM2 comes with weights on a 4-bit grid, groups of 32 with offsets: int4-g32 finds that grid
again, while int4 (the largest groups that fit) shows what plain rounding to 4 bits costs.";
const QUESTION: &str = "Why is the sky blue? Answer in two sentences.";
const MAX_ANSWER_TOKENS: usize = 160;

pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let start = Instant::now();
    interrupt::install()?;
    let model = OpenModel::open("smollm2", &args.device.unread)?;
    let tokenizer = model.tokenizer()?;
    let device = args.device.open()?;
    output::print_line(heading(&model))?;
    let machine = bench::ceilings(&device);
    output::print_line(format_args!(
        "on {}: reads {:.1} GB/s, computes {:.0} GFLOP/s in bf16\n",
        device.describe(),
        machine.read_bytes_per_second / 1e9,
        machine.bf16_ops_per_second / 1e9
    ))?;

    let formats = FORMATS.map(|precision| (&model, Format { precision, kv: None }));
    let mut decoders =
        SideBySide::plan(formats, &device, &StepShape::window(WINDOW))?.load(&device)?;
    let text = ScoredText::encode(&tokenizer, EVAL_TEXT, Some(SCORED_TOKENS))?;
    let convention = Convention::new(WINDOW, None, text.bos)?;
    let scores = scoring::score(&mut decoders, Baseline::First, &text.ids, &convention)?;
    let speeds = measure_speed(&mut decoders)?;
    let machine = machine.best_of(bench::ceilings(&device));
    output::print(&table(&decoders, &scores, &speeds, &machine).to_string())?;
    output::print_line(format_args!(
        "Perplexity and KL: the first {} of {} tokens of a text written for this,\n{convention}.\n{NOTES}\n",
        text.ids.len(),
        text.all_tokens
    ))?;

    let decoder = decoders.pop().context("the formats were loaded")?;
    let mut session = Session { model, decoder, request: request(tokenizer.eos()), tokenizer };
    answer(&mut session)?;
    output::print_line(format_args!("\nThat took {:.0} s. Next:", start.elapsed().as_secs_f64()))?;
    output::print_line("  bantam run smollm2 --dtype int4      chat with it")?;
    output::print_line("  bantam --help                        everything else")?;
    Ok(())
}

fn request(stop_tokens: &[u32]) -> GenerateRequest {
    GenerateRequest {
        sampling: SamplingParams::greedy(),
        max_tokens: Some(MAX_ANSWER_TOKENS),
        stop_tokens: stop_tokens.to_vec(),
        stop_strings: Vec::new(),
    }
}

fn measure_speed(decoders: &mut [Decoder<Device>]) -> anyhow::Result<Vec<Measured>> {
    let bar =
        output::progress_bar((decoders.len() * (SPEED.repetitions + 1)) as u64, "measuring speed");
    let speeds = decoders
        .iter_mut()
        .map(|decoder| bench::measure(decoder, &SPEED, &mut || bar.inc(1)))
        .collect();
    bar.finish_and_clear();
    speeds
}

fn table(
    decoders: &[Decoder<Device>],
    scores: &[Score],
    speeds: &[Measured],
    machine: &Ceilings,
) -> Table {
    use Align::{Left, Right};
    let mut table = Table::new([
        ("format", Left),
        ("weights (MiB)", Right),
        ("perplexity", Right),
        ("KL (nats/token)", Right),
        ("prefill (tok/s)", Right),
        ("decode (tok/s)", Right),
        ("of limit (%)", Right),
    ]);
    for ((decoder, score), measured) in decoders.iter().zip(scores).zip(speeds) {
        table.row([
            decoder.options().precision.to_string(),
            mebibytes(decoder.weight_bytes()),
            format!("{:.3}", score.perplexity.value()),
            score.divergence.map_or(String::new(), |divergence| significant(divergence.kl_mean())),
            format!("{:.0}", measured.speed.prefill_tokens_per_second),
            format!("{:.1}", measured.speed.decode_tokens_per_second),
            percent(measured.decode_share(machine)),
        ]);
    }
    table
}

/// Asks the model that is left, the last of [`FORMATS`].
fn answer(session: &mut Session) -> anyhow::Result<()> {
    let message = Message::new("user", QUESTION);
    let prompt = encode_chat(&session.tokenizer, &[message])?;
    let precision = session.decoder.options().precision;
    output::print_line(format_args!("{QUESTION}\n\n{precision} answers:"))?;
    session.stream(&prompt).map(drop)
}
