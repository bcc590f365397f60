//! `bantam inspect`: what a model is and what it would take, without loading it.

use std::collections::HashMap;

use bantam_checkpoint::{TensorView, printable};
use bantam_eval::{Align, Table};
use bantam_model::{ArchSpec, LoadOptions, MemoryPlan, Precision, StoredPart};
use clap::Args;
use serde_json::{Value, json};

use crate::architecture;
use crate::format::Format;
use crate::model_arg::{DeviceArgs, ModelArg, OpenModel, batch_size, positive};
use crate::model_text::ModelText;
use crate::output::{self, mebibytes};

/// Show a model's architecture, tensors and the memory it would take
///
/// Reads headers only: no weights are loaded.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct InspectArgs {
    /// Alias, Hugging Face folder, .gguf file or hub name, with an optional @FORMAT
    #[arg(value_name = "MODEL[@FORMAT]")]
    model: ModelArg,

    /// Tokens of a sequence that the memory plan holds [default: what the model was made for]
    #[arg(long, value_name = "N", value_parser = positive)]
    context: Option<usize>,

    /// Sequences side by side that the memory plan holds
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = batch_size)]
    batch: usize,

    /// Number format to plan for, unless MODEL states one: f32, bf16, int8, int4 or fp8-wo
    /// (weights only), fp8, w8a8 or w4a8 (activations too), with +int8 or +fp8 for the key/value
    /// cache
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
    let model = OpenModel::open(&args.model.name, &args.device.unread)?;
    let device = args.device.open()?;
    let format = args.model.format_or(args.dtype);
    let context = args.context.map(|asked| model.checked_context(asked)).transpose()?;
    // A plan may well be for another machine.
    let options = LoadOptions { memory_budget: None, ..format.load_options(context, args.batch) };
    let plan = model.plan(&device, &options)?;
    let schemes = schemes(&model.arch, format.precision);
    let text_of_model = ModelText::of(&model);
    if args.json {
        return output::print_json(&as_json(args, format, &model, &plan, &schemes, &text_of_model));
    }
    let mut text = format!("{}\n\n", heading(&model));
    for (what, value) in architecture::in_words(&model.arch) {
        text += &format!("{what:<14} {value}\n");
    }
    for (what, value) in text_of_model.in_words() {
        text += &format!("{what:<14} {}\n", printable(value));
    }
    for note in &model.notes {
        text += &format!("{:<14} {note}\n", "note");
    }
    text += &format!("\n{}\n", tensor_table(&model, &schemes));
    text +=
        &format!("Memory as {format} for {} × {} tokens:\n{plan}\n", args.batch, plan.max_context);
    Ok(output::print(&text)?)
}

/// The model in a line.
pub(crate) fn heading(model: &OpenModel) -> String {
    let checkpoint = &model.checkpoint;
    format!(
        "{}: {:.1} M parameters, {} MiB of {} in {}",
        printable(&model.name),
        checkpoint.parameters() as f64 / 1e6,
        mebibytes(checkpoint.total_bytes()),
        checkpoint.format(),
        printable(checkpoint.path().display())
    )
}

/// The scheme that each stored weight gets.
fn schemes(arch: &ArchSpec, precision: Precision) -> HashMap<String, String> {
    let layers = (0..arch.sizes.layers).flat_map(|layer| arch.linears(layer));
    let linears = layers.chain([arch.embedding()]).chain(arch.untied_head());
    let of_linear = |linear: bantam_model::StoredLinear| {
        // The plan has refused what cannot be loaded.
        let scheme = arch.scheme(&linear, precision);
        let scheme = scheme.unwrap_or_else(|_| precision.scheme_for(linear.role, linear.k));
        let scheme = scheme.to_string();
        let weights = ["weight", "weight_packed", "qweight"];
        let named = |part: StoredPart| weights.map(|weight| format!("{}.{weight}", part.module));
        let names = linear.parts.into_iter().flat_map(named);
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
            printable(tensor.name).to_string(),
            shape.join(" × "),
            tensor.encoding.to_string(),
            format!("{:.3}", tensor.stored_bytes() as f64 / f64::from(1 << 20)),
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
    format: Format,
    model: &OpenModel,
    plan: &MemoryPlan,
    schemes: &HashMap<String, String>,
    text: &ModelText,
) -> Value {
    let checkpoint = &model.checkpoint;
    let tensor = |tensor: TensorView<'_>| {
        json!({
            "name": tensor.name,
            "shape": tensor.shape,
            "dtype": tensor.encoding.to_string(),
            "bytes": tensor.stored_bytes(),
            "scheme": scheme_of(&tensor, schemes),
        })
    };
    let mut memory = json!(plan);
    memory["total_bytes"] = plan.total().into();
    json!({
        "model": model.name,
        "path": checkpoint.path().display().to_string(),
        "format": checkpoint.format().to_string(),
        "parameters": checkpoint.parameters(),
        "stored_bytes": checkpoint.total_bytes(),
        "notes": model.notes,
        "text": text.as_json(),
        "architecture": architecture::as_json(&model.arch),
        "dtype": format.to_string(),
        "context": plan.max_context,
        "batch": args.batch,
        "memory": memory,
        "tensors": in_layer_order(model).into_iter().map(tensor).collect::<Vec<_>>(),
    })
}
