//! `bantam eval`: what a text says about models, and how far they are from another.

use std::path::{Path, PathBuf};

use anyhow::bail;
use bantam_engine::Executor;
use bantam_eval::{
    Align, Baseline, Convention, DEFAULT_WINDOW, EVAL_TEXT, Score, Table, evaluate, tokens_to_run,
};
use bantam_model::{Decoder, LoadOptions};
use bantam_text::EncodeOptions;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::device::Device;
use crate::format::Format;
use crate::model_arg::{DeviceArgs, ModelArg, OpenModel};
use crate::output::{self, mebibytes, significant};

/// Measure perplexity, and the distance to another model or format
///
/// Models may be given as MODEL@FORMAT to compare number formats of one model. With --against, all
/// models are in memory together and see the text side by side.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct EvalArgs {
    /// Aliases, folders, .gguf files or hub names, each with an optional @FORMAT
    #[arg(required = true, value_name = "MODEL[@FORMAT]")]
    models: Vec<ModelArg>,

    /// What to measure
    #[arg(long, value_enum, default_value_t = Task::Perplexity)]
    task: Task,

    /// UTF-8 text to score [default: a text of some 5,000 words that comes with bantam]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,

    /// Tokens that a model sees at once [default: 2048, or the context if that is shorter]
    #[arg(long, value_name = "N")]
    window: Option<usize>,

    /// Tokens from one window to the next; less than the window scores every token with more
    /// context [default: the window]
    #[arg(long, value_name = "N")]
    stride: Option<usize>,

    /// Also measure KL divergence, top-1 agreement and max |Δlogit| from this model
    #[arg(long, value_name = "MODEL[@FORMAT]")]
    against: Option<ModelArg>,

    /// Number format of models given without one: f32, bf16, int8, int4 (or int4-g32, int4-sym, …),
    /// with +int8 or +fp8 for the key/value cache
    #[arg(long, value_name = "FORMAT", default_value = "bf16")]
    dtype: Format,

    /// Number format of the model of --against
    #[arg(long, value_name = "FORMAT", default_value = "f32")]
    against_dtype: Format,

    /// Use only the first N tokens of the text
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    #[command(flatten)]
    device: DeviceArgs,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  bantam eval smollm2                                  perplexity on the text that comes with bantam
  bantam eval smollm2@int8 smollm2@int4 --against smollm2
  bantam eval ./original ./quantized --text wiki.txt --window 1024 --stride 512
  bantam eval smollm2@int4 --against smollm2 --limit 512 --json";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Task {
    /// exp of the mean negative log-likelihood per token
    Perplexity,
}

/// Tokens of a step. Their logits are in memory at once, for two models.
const ROWS_AT_ONCE: usize = 256;

/// A model that was asked for, opened, and the text in its tokens.
struct Candidate {
    model: OpenModel,
    format: Format,
    ids: Vec<u32>,
    bos: bool,
}

/// A line of the result.
struct Measured {
    name: String,
    format: Format,
    weight_bytes: u64,
    score: Score,
    /// The text's tokens, and how they were cut.
    num_tokens: usize,
    convention: Convention,
}

pub(crate) fn run(args: &EvalArgs) -> anyhow::Result<()> {
    let Task::Perplexity = args.task;
    let text = match &args.text {
        Some(path) => read_text(path)?,
        None => EVAL_TEXT.to_owned(),
    };
    let open = |arg: &ModelArg, default| Candidate::open(arg, default, &text, args.limit);
    // Everything that can be refused is refused before the first weight is read.
    let baseline = args.against.as_ref().map(|arg| open(arg, args.against_dtype)).transpose()?;
    let models =
        args.models.iter().map(|arg| open(arg, args.dtype)).collect::<Result<Vec<_>, _>>()?;
    let all: Vec<Candidate> = baseline.into_iter().chain(models).collect();
    let convention = args.convention(&all)?;

    let device = args.device.open()?;
    for Candidate { model, format, ids, .. } in &all {
        model.plan(&device, &load_options(*format, &convention, ids.len()))?;
    }
    let mut measured = Vec::new();
    if args.against.is_some() {
        measured = compare(&all, &device, &convention)?;
    } else {
        // One after the other, so that only one is in memory.
        for model in &all {
            measured.append(&mut compare(std::slice::from_ref(model), &device, &convention)?);
        }
    }
    let text_name =
        args.text.as_ref().map_or("bantam-eval".to_owned(), |p| p.display().to_string());
    if args.json {
        output::print_json(&as_json(args, &measured, &text_name))
    } else {
        let conventions = conventions(&measured);
        output::print(&format!("{}Text {text_name}: {conventions}\n", as_table(args, &measured)))?;
        Ok(())
    }
}

/// What was scored and how: once if it is the same for all models, which differ in tokenizers only.
fn conventions(measured: &[Measured]) -> String {
    let describe = |m: &Measured| format!("{} tokens, {}", m.num_tokens, m.convention);
    let first = describe(&measured[0]);
    if measured.iter().all(|m| describe(m) == first) {
        return first;
    }
    let lines = measured.iter().map(|m| format!("\n  {}: {}", m.name, describe(m)));
    lines.collect()
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => bail!("--text {}: {error}", path.display()),
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => bail!(
            "--text {}: not UTF-8 at byte {}; convert it first, with iconv for instance",
            path.display(),
            error.utf8_error().valid_up_to()
        ),
    }
}

impl Candidate {
    fn open(
        arg: &ModelArg,
        default: Format,
        text: &str,
        limit: Option<usize>,
    ) -> anyhow::Result<Self> {
        let model = OpenModel::open(&arg.name)?;
        let tokenizer = model.tokenizer()?;
        let options = EncodeOptions { add_special: true, parse_special: false };
        let mut ids = tokenizer.encode(text, options)?;
        ids.truncate(limit.unwrap_or(usize::MAX));
        let bos = tokenizer.bos().is_some() && ids.first().copied() == tokenizer.bos();
        Ok(Self { model, format: arg.format.unwrap_or(default), ids, bos })
    }
}

impl EvalArgs {
    /// One window for all models, whose contexts may differ.
    fn convention(&self, models: &[Candidate]) -> anyhow::Result<Convention> {
        let context = models.iter().map(|c| c.model.arch.sizes.max_positions).min().unwrap_or(0);
        let window = self.window.unwrap_or(DEFAULT_WINDOW.min(context));
        if window > context {
            bail!(
                "--window is {window}, but the context holds {context} tokens; use --window {context}"
            );
        }
        if self.against.is_some() && models.iter().any(|other| other.ids != models[0].ids) {
            bail!(
                "--against needs models with one tokenizer, but {} and another split the text into \
                 different tokens; evaluate them without --against",
                models[0].model.name
            );
        }
        Ok(Convention::new(window, self.stride, models[0].bos)?)
    }
}

/// Scores models side by side; the first is the baseline if there are several.
fn compare(
    models: &[Candidate],
    device: &Device,
    convention: &Convention,
) -> anyhow::Result<Vec<Measured>> {
    let ids = &models[0].ids;
    let load = |candidate: &Candidate| {
        candidate.model.load(device, &load_options(candidate.format, convention, ids.len()))
    };
    let mut decoders = models.iter().map(load).collect::<Result<Vec<_>, _>>()?;
    let baseline = if models.len() > 1 { Baseline::First } else { Baseline::None };
    let scores = score(&mut decoders, baseline, ids, convention)?;
    let measured =
        models.iter().zip(&decoders).zip(scores).map(|((model, decoder), score)| Measured {
            name: model.model.name.clone(),
            format: model.format,
            weight_bytes: decoder.weight_bytes(),
            score,
            num_tokens: model.ids.len(),
            convention: Convention { bos: model.bos, ..*convention },
        });
    Ok(measured.collect())
}

/// [`evaluate`] with a progress bar.
pub(crate) fn score(
    decoders: &mut [Decoder<Device>],
    baseline: Baseline,
    ids: &[u32],
    convention: &Convention,
) -> anyhow::Result<Vec<Score>> {
    let bar = output::progress_bar(tokens_to_run(convention, ids.len()) as u64, "scoring");
    let mut executors: Vec<&mut dyn Executor> =
        decoders.iter_mut().map(|decoder| decoder as &mut dyn Executor).collect();
    let scores = evaluate(&mut executors, baseline, ids, convention, &mut |done| {
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    Ok(scores?)
}

/// What scoring needs: one window in the cache, and the logits of every token.
fn load_options(format: Format, convention: &Convention, num_tokens: usize) -> LoadOptions {
    let rows = ROWS_AT_ONCE.min(convention.window);
    LoadOptions {
        max_context: Some(convention.window.min(num_tokens).max(1)),
        max_batch_tokens: rows,
        max_logit_rows: rows,
        ..format.load_options()
    }
}

fn as_table(args: &EvalArgs, measured: &[Measured]) -> Table {
    use Align::{Left, Right};
    let mut columns = vec![
        ("model", Left),
        ("format", Left),
        ("weights (MiB)", Right),
        ("perplexity", Right),
        ("scored tokens", Right),
    ];
    if args.against.is_some() {
        columns.extend([
            ("KL (nats/token)", Right),
            ("top-1 agreement (%)", Right),
            ("max |Δlogit|", Right),
        ]);
    }
    let mut table = Table::new(columns);
    for Measured { name, format, weight_bytes, score, .. } in measured {
        let mut row = vec![
            name.clone(),
            format.to_string(),
            mebibytes(*weight_bytes),
            format!("{:.4}", score.perplexity.value()),
            score.perplexity.scored_tokens.to_string(),
        ];
        row.extend(score.divergence.iter().flat_map(|divergence| {
            [
                significant(divergence.kl_mean()),
                format!("{:.2}", 100.0 * divergence.top1_agreement()),
                significant(divergence.max_logit_delta.into()),
            ]
        }));
        table.row(row);
    }
    table
}

fn as_json(args: &EvalArgs, measured: &[Measured], text: &str) -> Value {
    let model =
        |Measured { name, format, weight_bytes, score, num_tokens, convention }: &Measured| {
            let mut value = json!({
                "model": name,
                "dtype": format.to_string(),
                "weight_bytes": weight_bytes,
                "perplexity": score.perplexity.value(),
                "nll_mean": score.perplexity.mean_nll(),
                "scored_tokens": score.perplexity.scored_tokens,
                "text_tokens": num_tokens,
                "convention": convention,
            });
            if let Some(divergence) = &score.divergence {
                value["kl_mean"] = divergence.kl_mean().into();
                value["top1_agreement"] = divergence.top1_agreement().into();
                value["max_logit_delta"] = f64::from(divergence.max_logit_delta).into();
            }
            value
        };
    let (baseline, models) = measured.split_at(usize::from(args.against.is_some()));
    json!({
        "task": "perplexity",
        "text": text,
        "against": baseline.first().map(model),
        "models": models.iter().map(model).collect::<Vec<_>>(),
    })
}
