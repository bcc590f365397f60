//! `bantam inspect`: what a model is and what it would take, without loading it.

use std::collections::HashMap;

use bantam_backend::FeedForward;
use bantam_checkpoint::TensorView;
use bantam_eval::{Align, Table};
use bantam_model::{ArchSpec, LoadOptions, MemoryPlan, Positions, Precision};
use clap::Args;
use serde_json::{Value, json};

use crate::format::Format;
use crate::model_arg::{DeviceArgs, OpenModel, positive};
use crate::output::{self, mebibytes};

/// Show a model's architecture, tensors and the memory it would take
///
/// Reads headers only: no weights are loaded.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct InspectArgs {
    /// Alias, Hugging Face folder, .gguf file or hub name
    model: String,

    /// Tokens of a sequence that the memory plan holds [default: what the model was made for]
    #[arg(long, value_name = "N", value_parser = positive)]
    context: Option<usize>,

    /// Sequences side by side that the memory plan holds
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    batch: usize,

    /// Number format to plan for: f32, bf16, int8, int4 (or int4-g32, int4-sym, …), with +int8 or
    /// +fp8 for the key/value cache
    #[arg(long, value_name = "FORMAT", default_value = "bf16")]
    dtype: Format,

    #[command(flatten)]
    device: DeviceArgs,

    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  bantam inspect smollm2
  bantam inspect ./model --dtype int4 --context 4096 --batch 16";

pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let model = OpenModel::open(&args.model)?;
    let device = args.device.open()?;
    let options = LoadOptions {
        max_context: args.context.map(|asked| model.checked_context(asked)).transpose()?,
        max_batch_tokens: LoadOptions::default().max_batch_tokens.max(args.batch),
        max_sequences: args.batch,
        max_logit_rows: args.batch,
        ..args.dtype.load_options()
    };
    let plan = model.plan(&device, &options)?;
    let schemes = schemes(&model.arch, args.dtype.precision);
    if args.json {
        return output::print_json(&as_json(args, &model, &plan, &schemes));
    }
    let mut text = format!("{}\n\n", heading(&model));
    for (what, value) in architecture(&model.arch) {
        text += &format!("{what:<14} {value}\n");
    }
    text += &format!("\n{}\n", tensor_table(&model, &schemes));
    text += &format!(
        "Memory as {} for {} × {} tokens:\n{plan}\n",
        args.dtype, args.batch, plan.max_context
    );
    Ok(output::print(&text)?)
}

/// The model in a line.
pub(crate) fn heading(model: &OpenModel) -> String {
    let checkpoint = &model.checkpoint;
    format!(
        "{}: {:.1} M parameters, {} MiB of {} in {}",
        model.name,
        checkpoint.parameters() as f64 / 1e6,
        mebibytes(checkpoint.total_bytes()),
        checkpoint.format(),
        checkpoint.path().display()
    )
}

/// The network in words and numbers, with the letters that shapes use.
pub(crate) fn architecture(arch: &ArchSpec) -> Vec<(&'static str, String)> {
    let (sizes, attention) = (&arch.sizes, &arch.attention);
    let biases = |names: &[(&str, bool)]| {
        let stated: Vec<&str> =
            names.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
        if stated.is_empty() {
            "no biases".to_owned()
        } else {
            format!("biases: {}", stated.join(", "))
        }
    };
    let windows: Vec<usize> = attention.windows.iter().flatten().copied().collect();
    let window = match windows.first() {
        Some(window) => {
            format!(", window {window} in {} of {} layers", windows.len(), sizes.layers)
        }
        None => String::new(),
    };
    let (gated, activation) = match arch.feed_forward.kind {
        FeedForward::Gated(activation) => ("gated ", activation),
        FeedForward::Plain(activation) => ("", activation),
    };
    let positions = match &arch.positions {
        Positions::Rotary(rotary) => format!(
            "rotary, {} of {} elements, {:?} pairs, θ {}, scaling {:?}",
            rotary.rotary_dim, attention.head_dim, rotary.pairs, rotary.theta, rotary.scaling
        ),
        Positions::Alibi { max_bias } => format!("ALiBi, maximal bias {max_bias}"),
        Positions::Learned => "learned".to_owned(),
    };
    vec![
        ("family", arch.model_type.to_owned()),
        (
            "sizes",
            format!(
                "L {} layers, C {} hidden, F {} feed-forward, V {} vocabulary, {} positions",
                sizes.layers,
                sizes.hidden,
                sizes.feed_forward,
                sizes.vocabulary,
                sizes.max_positions
            ),
        ),
        (
            "attention",
            format!(
                "H {} heads, G {} key/value heads, D {}{}{window}, {}",
                attention.heads,
                attention.kv_heads,
                attention.head_dim,
                if attention.head_norm { ", normalised heads" } else { "" },
                biases(&[("q, k, v", attention.qkv_bias), ("out", attention.out_bias)])
            ),
        ),
        ("positions", positions),
        (
            "feed-forward",
            format!("{gated}{activation:?}, {}", biases(&[("all", arch.feed_forward.bias)])),
        ),
        (
            "norm",
            format!(
                "{:?}, ε {:e}, {}",
                arch.norm.kind,
                arch.norm.eps,
                biases(&[("β", arch.norm.bias)])
            ),
        ),
        ("residual", format!("{:?}", arch.residual)),
        (
            "head",
            format!(
                "{}{}, {}",
                if arch.head.tied { "the embedding table" } else { "a matrix of its own" },
                if arch.head.normalised { ", rows normalised" } else { "" },
                biases(&[("head", arch.head.bias)])
            ),
        ),
    ]
}

/// The scheme that each stored weight gets.
fn schemes(arch: &ArchSpec, precision: Precision) -> HashMap<String, String> {
    let layers = (0..arch.sizes.layers).flat_map(|layer| arch.linears(layer));
    let linears = layers.chain([arch.embedding()]).chain(arch.untied_head());
    let of_linear = |linear: bantam_model::StoredLinear| {
        let scheme = precision.scheme_for(linear.role, linear.k).to_string();
        let names = linear.parts.into_iter().map(|part| format!("{}.weight", part.module));
        names.map(move |name| (name, scheme.clone())).collect::<Vec<_>>()
    };
    linears.flat_map(of_linear).collect()
}

/// How a tensor would be stored: vectors always stay f32.
fn scheme_of<'a>(tensor: &TensorView<'_>, schemes: &'a HashMap<String, String>) -> &'a str {
    schemes.get(tensor.name).map_or("f32", String::as_str)
}

fn tensor_table(model: &OpenModel, schemes: &HashMap<String, String>) -> Table {
    let mut table = Table::new([
        ("tensor", Align::Left),
        ("shape", Align::Right),
        ("stored as", Align::Left),
        ("MiB", Align::Right),
        ("would run as", Align::Left),
    ]);
    for tensor in in_layer_order(model) {
        let shape: Vec<String> = tensor.shape.iter().map(ToString::to_string).collect();
        table.row([
            tensor.name.to_owned(),
            shape.join(" × "),
            tensor.encoding.to_string(),
            format!("{:.3}", tensor.bytes().len() as f64 / f64::from(1 << 20)),
            scheme_of(&tensor, schemes).to_owned(),
        ]);
    }
    table
}

/// The tensors by name, layer 2 before layer 10.
fn in_layer_order(model: &OpenModel) -> Vec<TensorView<'_>> {
    let mut tensors: Vec<_> = model.checkpoint.tensors().collect();
    tensors.sort_by_cached_key(|tensor| {
        let part = |part: &str| (part.parse::<u64>().unwrap_or(0), part.to_owned());
        tensor.name.split('.').map(part).collect::<Vec<_>>()
    });
    tensors
}

fn as_json(
    args: &InspectArgs,
    model: &OpenModel,
    plan: &MemoryPlan,
    schemes: &HashMap<String, String>,
) -> Value {
    let checkpoint = &model.checkpoint;
    let tensor = |tensor: TensorView<'_>| {
        json!({
            "name": tensor.name,
            "shape": tensor.shape,
            "dtype": tensor.encoding.to_string(),
            "bytes": tensor.bytes().len(),
            "scheme": scheme_of(&tensor, schemes),
        })
    };
    let mut memory = json!(plan);
    memory["total_bytes"] = plan.total().into();
    json!({
        "model": args.model,
        "path": checkpoint.path().display().to_string(),
        "format": checkpoint.format().to_string(),
        "parameters": checkpoint.parameters(),
        "stored_bytes": checkpoint.total_bytes(),
        "architecture": architecture_json(&model.arch),
        "dtype": args.dtype.to_string(),
        "context": plan.max_context,
        "batch": args.batch,
        "memory": memory,
        "tensors": in_layer_order(model).into_iter().map(tensor).collect::<Vec<_>>(),
    })
}

fn architecture_json(arch: &ArchSpec) -> Value {
    let (sizes, attention) = (&arch.sizes, &arch.attention);
    let positions = match &arch.positions {
        Positions::Rotary(rotary) => json!({
            "kind": "rotary",
            "rotary_dim": rotary.rotary_dim,
            "pairs": format!("{:?}", rotary.pairs),
            "theta": rotary.theta,
            "scaling": format!("{:?}", rotary.scaling),
        }),
        Positions::Alibi { max_bias } => json!({ "kind": "alibi", "max_bias": max_bias }),
        Positions::Learned => json!({ "kind": "learned" }),
    };
    json!({
        "model_type": arch.model_type,
        "layers": sizes.layers,
        "hidden_size": sizes.hidden,
        "feed_forward_size": sizes.feed_forward,
        "vocab_size": sizes.vocabulary,
        "max_positions": sizes.max_positions,
        "norm": {
            "kind": format!("{:?}", arch.norm.kind),
            "eps": arch.norm.eps,
            "bias": arch.norm.bias,
        },
        "positions": positions,
        "attention": {
            "heads": attention.heads,
            "kv_heads": attention.kv_heads,
            "head_dim": attention.head_dim,
            "qkv_bias": attention.qkv_bias,
            "out_bias": attention.out_bias,
            "head_norm": attention.head_norm,
            "windows": attention.windows,
            "scale": attention.scale,
            "clip": attention.clip,
        },
        "feed_forward": {
            "kind": format!("{:?}", arch.feed_forward.kind),
            "bias": arch.feed_forward.bias,
        },
        "residual": format!("{:?}", arch.residual),
        "head": {
            "tied": arch.head.tied,
            "normalised": arch.head.normalised,
            "bias": arch.head.bias,
        },
    })
}
