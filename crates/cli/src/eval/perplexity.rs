//! `bantam eval --task perplexity`: what a text says about models.

use std::fs::File;
use std::path::Path;

use anyhow::bail;
use bantam_checkpoint::printable;
use bantam_eval::{Align, Baseline, Convention, DEFAULT_WINDOW, EVAL_TEXT, Score, Table};
use serde_json::{Value, json};

use super::EvalArgs;
use crate::architecture::number as short_number;
use crate::device::Device;
use crate::format::Format;
use crate::input;
use crate::model_arg::{ModelArg, OpenModel, UnreadArgs};
use crate::output::{self, mebibytes, significant};
use crate::scoring::{self, ScoredText, SideBySide, StepShape};

/// A model that was asked for, opened, and the text in its tokens.
struct Candidate {
    model: OpenModel,
    format: Format,
    text: ScoredText,
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

pub(super) fn run(args: &EvalArgs) -> anyhow::Result<()> {
    if let Some(limit) = args.limit.filter(|&limit| limit < 2) {
        bail!("--limit is {limit}, but at least 2 tokens are needed to score one");
    }
    let text = match &args.text.text {
        Some(path) => read_text(path)?,
        None => EVAL_TEXT.to_owned(),
    };
    let unread = &args.device.unread;
    let open = |arg: &ModelArg, default| Candidate::open(arg, default, unread, &text, args.limit);
    // Everything that can be refused is refused before the first weight is read.
    let baseline = args.against.as_ref().map(|arg| open(arg, args.against_dtype)).transpose()?;
    let models =
        args.models.iter().map(|arg| open(arg, args.dtype)).collect::<Result<Vec<_>, _>>()?;
    let all: Vec<Candidate> = baseline.into_iter().chain(models).collect();
    let convention = args.convention(&all)?;

    let device = args.device.open()?;
    // Models that are not compared are in memory one after the other.
    let groups: Vec<&[Candidate]> =
        if args.against.is_some() { vec![&all] } else { all.chunks(1).collect() };
    let plans = groups
        .iter()
        .map(|group| plan(group, &device, &convention))
        .collect::<Result<Vec<_>, _>>()?;
    let mut measured = Vec::new();
    for (group, plan) in groups.iter().zip(&plans) {
        measured.extend(compare(group, plan, &device, &convention)?);
    }
    let text_name =
        args.text.text.as_ref().map_or("bantam-eval".to_owned(), |p| p.display().to_string());
    if args.json {
        output::print_json(&as_json(args, &measured, &text_name))
    } else {
        let conventions = conventions(&measured);
        let (table, text_name) = (as_table(args, &measured), printable(&text_name));
        output::print(&format!("{table}Text {text_name}: {conventions}\n"))?;
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
    let lines = measured.iter().map(|m| format!("\n  {}: {}", printable(&m.name), describe(m)));
    lines.collect()
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let what = format!("--text {}", path.display());
    match File::open(path) {
        Ok(file) => input::read_text(file, &what),
        Err(error) => bail!("{what}: {error}"),
    }
}

impl Candidate {
    fn open(
        arg: &ModelArg,
        default: Format,
        unread: &UnreadArgs,
        text: &str,
        limit: Option<usize>,
    ) -> anyhow::Result<Self> {
        let model = OpenModel::open(&arg.name, unread)?;
        let text = ScoredText::encode(&model.tokenizer()?, text, limit)?;
        Ok(Self { model, format: arg.format_or(default), text })
    }
}

impl EvalArgs {
    /// One window for all models, whose contexts may differ.
    fn convention(&self, models: &[Candidate]) -> anyhow::Result<Convention> {
        let context = models.iter().map(|c| c.model.arch.sizes.max_positions).min().unwrap_or(0);
        let default = models.iter().map(|c| c.model.arch.default_context()).min().unwrap_or(0);
        let window = self.window.unwrap_or(DEFAULT_WINDOW.min(default));
        if window > context {
            bail!(
                "--window is {window}, but the context holds {context} tokens; use --window {context}"
            );
        }
        if self.against.is_some() && models.iter().any(|other| other.text.ids != models[0].text.ids)
        {
            bail!(
                "--against needs models with one tokenizer, but {} and another split the text into \
                 different tokens; evaluate them without --against",
                models[0].model.name
            );
        }
        Ok(Convention::new(window, self.text.stride, models[0].text.bos)?)
    }
}

/// Plans models that are in memory together, each to hold one window.
fn plan<'a>(
    group: &'a [Candidate],
    device: &Device,
    convention: &Convention,
) -> anyhow::Result<SideBySide<'a>> {
    let longest = group.iter().map(|candidate| candidate.text.ids.len()).max().unwrap_or(1);
    let models = group.iter().map(|candidate| (&candidate.model, candidate.format));
    SideBySide::plan(models, device, &StepShape::window(convention.window.min(longest)))
}

/// Scores models side by side; the first is the baseline if there are several.
fn compare(
    group: &[Candidate],
    plan: &SideBySide<'_>,
    device: &Device,
    convention: &Convention,
) -> anyhow::Result<Vec<Measured>> {
    let mut decoders = plan.load(device)?;
    let baseline = if group.len() > 1 { Baseline::First } else { Baseline::None };
    let scores = scoring::score(&mut decoders, baseline, &group[0].text.ids, convention)?;
    let measured =
        group.iter().zip(&decoders).zip(scores).map(|((candidate, decoder), score)| Measured {
            name: candidate.model.name.clone(),
            format: candidate.format,
            weight_bytes: decoder.weight_bytes(),
            score,
            num_tokens: candidate.text.ids.len(),
            convention: Convention { bos: candidate.text.bos, ..*convention },
        });
    Ok(measured.collect())
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
            printable(name).to_string(),
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
                value["max_logit_delta"] = short_number(divergence.max_logit_delta);
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
