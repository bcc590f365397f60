//! Tensors that a checkpoint holds and the network does not read.
//!
//! Running without a tensor that has a part in the model gives wrong results in silence, so one is an
//! error unless it is known to have none. What is known is a table: the names, what they are, and when
//! nothing is lost without them. `--allow-unread` adds names for one run.

use std::collections::BTreeMap;

use bantam_checkpoint::{Checkpoint, TensorView, fits_glob};
use bantam_numerics::{DType, Encoding};

use crate::arch::ArchSpec;
use crate::error::ModelError;

/// Tensors of a checkpoint that are not read, and why that changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoredTensors {
    /// What they are.
    pub what: &'static str,
    /// Their names, sorted.
    pub names: Vec<String>,
}

impl std::fmt::Display for IgnoredTensors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.names.len();
        let first = self.names.first().map_or("", String::as_str);
        let more = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        write!(f, "not read: {}, {}{more}", self.what, bantam_checkpoint::printable(first))
    }
}

/// Names, and what they are.
struct Rule {
    /// A pattern with `*` and `?`.
    names: &'static str,
    what: &'static str,
    /// When the network is whole without them.
    harmless: Harmless,
}

/// When the network is whole without a tensor.
#[derive(Clone, Copy)]
enum Harmless {
    Always,
    /// All its elements are zero.
    IfZero,
    /// It numbers groups in the order in which they lie anyway.
    IfInOrder,
    /// Its layer is read: its format does without, or its weight is stored in 16 bits or more.
    IfLayerIsRead,
    /// The weight of its layer is stored in 16 bits or more.
    IfLayerIsPlain,
    /// Never; the words say what would help.
    No,
}

/// The rules; the first that fits a name and finds it harmless counts, else the first that fits
/// explains.
static RULES: &[Rule] = &[
    // Tables and masks that follow from the configuration; frameworks saved them as buffers.
    rule(
        "*rotary_emb.inv_freq",
        "rotary frequencies, which the configuration states",
        Harmless::Always,
    ),
    rule("*rotary_emb.*_cached", "cached rotary tables", Harmless::Always),
    rule("*.rope.freqs", "rotary frequencies, which the configuration states", Harmless::Always),
    rule("*.masked_bias", "a constant of attention masks", Harmless::Always),
    rule("*.position_ids", "numbers of positions", Harmless::Always),
    // Layers that only guess ahead; transformers leaves them out as well.
    rule("mtp.*", "layers that predict several tokens at once", Harmless::Always),
    rule("model.mtp.*", "layers that predict several tokens at once", Harmless::Always),
    // Exporters of GPTQ write a bias for every layer.
    rule("*.bias", "biases that are zero", Harmless::IfZero),
    // Scales of a cache that nobody asked to be quantized, or that is scaled by token and head.
    rule("*.kv_scale", CACHE_SCALES, Harmless::Always),
    rule("*.k_scale", CACHE_SCALES, Harmless::Always),
    rule("*.v_scale", CACHE_SCALES, Harmless::Always),
    rule("*.k_proj.output_scale", CACHE_SCALES, Harmless::Always),
    rule("*.v_proj.output_scale", CACHE_SCALES, Harmless::Always),
    rule("*.kv_cache_scaling_factor", CACHE_SCALES, Harmless::Always),
    rule("*.q_scale", ATTENTION_SCALES, Harmless::Always),
    rule("*.prob_scale", ATTENTION_SCALES, Harmless::Always),
    rule("*.prob_output_scale", ATTENTION_SCALES, Harmless::Always),
    rule("*.q_proj.output_scale", ATTENTION_SCALES, Harmless::Always),
    rule("*.output_scale", "scales of outputs, which stay in 16 bits", Harmless::IfLayerIsRead),
    // What a layer's format does without.
    rule("*.input_scale", INPUT_SCALES, Harmless::IfLayerIsRead),
    rule("*.input_amax", INPUT_SCALES, Harmless::IfLayerIsRead),
    rule("*.input_zero_point", "zero points that are zero", Harmless::IfZero),
    rule("*.output_zero_point", "zero points that are zero", Harmless::IfZero),
    rule("*.weight_zero_point", "zero points that are zero", Harmless::IfZero),
    rule("*.g_idx", "groups of input features, in order", Harmless::IfInOrder),
    rule("*.weight_g_idx", "groups of input features, in order", Harmless::IfInOrder),
    rule("*.weight_shape", "shapes of packed weights", Harmless::IfLayerIsRead),
    // What is left of a layer that was excluded from quantization after all.
    rule("*.weight_scale", LEFT_OVER, Harmless::IfLayerIsPlain),
    rule("*.weight_scale_inv", LEFT_OVER, Harmless::IfLayerIsPlain),
    rule("*.weight_scale_2", LEFT_OVER, Harmless::IfLayerIsPlain),
    rule("*.weight_zero_point", LEFT_OVER, Harmless::IfLayerIsPlain),
    rule("*.weight_amax", LEFT_OVER, Harmless::IfLayerIsPlain),
    // What another program has to change first.
    rule("*.absmax", BITSANDBYTES, Harmless::No),
    rule("*.quant_map", BITSANDBYTES, Harmless::No),
    rule("*.nested_absmax", BITSANDBYTES, Harmless::No),
    rule("*.nested_quant_map", BITSANDBYTES, Harmless::No),
    rule("*.quant_state.*", BITSANDBYTES, Harmless::No),
    rule("*.SCB", BITSANDBYTES, Harmless::No),
    rule("*.weight_format", BITSANDBYTES, Harmless::No),
    rule(
        "*lora_*",
        "adapter weights that are not merged; use merge_and_unload() of peft",
        Harmless::No,
    ),
    rule("*.base_layer.*", "layers under an adapter; use merge_and_unload() of peft", Harmless::No),
    rule("*.qweight", UNSETTLED, Harmless::No),
    rule("*.qzeros", UNSETTLED, Harmless::No),
    rule("*.scales", UNSETTLED, Harmless::No),
    rule("*.weight_packed", UNSETTLED, Harmless::No),
    rule("*.pre_quant_scale", UNSETTLED, Harmless::No),
    // Models that are another kind.
    rule("*.experts.*", EXPERTS, Harmless::No),
    rule("*.mlp.gate.weight", EXPERTS, Harmless::No),
    rule("*.block_sparse_moe.*", EXPERTS, Harmless::No),
    rule("*vision_*", "the part that sees images; text alone does without it", Harmless::No),
    rule("*visual.*", "the part that sees images; text alone does without it", Harmless::No),
    rule(
        "*multi_modal_projector*",
        "the part that sees images; text alone does without it",
        Harmless::No,
    ),
    rule("*audio_*", "the part that hears; text alone does without it", Harmless::No),
    rule("v_head.*", "a head for values; text does without it", Harmless::No),
    rule("score.*", "a head for classes: a model that judges text", Harmless::No),
    rule("classifier.*", "a head for classes: a model that judges text", Harmless::No),
];

const CACHE_SCALES: &str = "scales of a quantized cache, which is scaled for each token and head";
const ATTENTION_SCALES: &str =
    "scales of quantized attention, which is computed in 16 bits or more";
const INPUT_SCALES: &str = "scales of inputs that are not rounded, or by a scale of their own";
const LEFT_OVER: &str = "scales of layers that are not quantized";
const BITSANDBYTES: &str = "weights quantized by bitsandbytes; load them in transformers, dequantize() and save_pretrained()";
const UNSETTLED: &str = "quantized weights, but no configuration says how: add quantization_config to \
                         config.json, or the file that the tool wrote beside it";
const EXPERTS: &str = "experts: mixtures of experts are not supported";
const BEYOND: &str = "layers beyond `num_hidden_layers`";
const ALLOWED: &str = "allowed by --allow-unread";

const fn rule(names: &'static str, what: &'static str, harmless: Harmless) -> Rule {
    Rule { names, what, harmless }
}

impl ArchSpec {
    /// The tensors that are not among the names `read`, sorted, by what they are.
    ///
    /// # Errors
    /// [`ModelError::UnreadTensors`] if there is one that may have a part in the model.
    pub(crate) fn ignored(
        &self,
        checkpoint: &Checkpoint,
        read: &[String],
    ) -> Result<Vec<IgnoredTensors>, ModelError> {
        let is_read = |name: &str| read.binary_search_by(|known| known.as_str().cmp(name)).is_ok();
        let mut ignored: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
        let mut unread: Vec<(&str, Option<&'static str>)> = Vec::new();
        for tensor in checkpoint.tensors().filter(|tensor| !is_read(tensor.name)) {
            if checkpoint.is_unread_allowed(tensor.name) {
                ignored.entry(ALLOWED).or_default().push(tensor.name.to_owned());
                continue;
            }
            let mut fitting = RULES.iter().filter(|rule| fits_glob(rule.names, tensor.name));
            let first = fitting.clone().next();
            match fitting.find(|rule| self.is_harmless(rule.harmless, checkpoint, &tensor, read)) {
                Some(rule) => ignored.entry(rule.what).or_default().push(tensor.name.to_owned()),
                None => unread.push((tensor.name, self.explain(tensor.name, first))),
            }
        }
        if unread.is_empty() {
            let group = |(what, names)| IgnoredTensors { what, names };
            return Ok(ignored.into_iter().map(group).collect());
        }
        const SHOWN: usize = 4;
        let more = if unread.len() > SHOWN { ", …" } else { "" };
        let names: Vec<&str> = unread.iter().take(SHOWN).map(|(name, _)| *name).collect();
        Err(ModelError::UnreadTensors {
            file: checkpoint.path().display().to_string(),
            count: unread.len(),
            model_type: self.model_type,
            names: names.join(", ") + more,
            reason: unread
                .iter()
                .find_map(|(_, reason)| *reason)
                .unwrap_or("running without them would give wrong results"),
        })
    }

    /// What a tensor that is missed may be.
    fn explain(&self, name: &str, rule: Option<&'static Rule>) -> Option<&'static str> {
        let prefix = self.names.attention_norm.split("{layer}").next()?;
        let layer = name.strip_prefix(prefix).and_then(|rest| rest.split('.').next()?.parse().ok());
        if layer.is_some_and(|layer: usize| layer >= self.sizes.layers) {
            return Some(BEYOND);
        }
        // A rule with a condition that is not met says what the tensor should be, not what it is.
        rule.filter(|rule| matches!(rule.harmless, Harmless::No)).map(|rule| rule.what)
    }

    fn is_harmless(
        &self,
        harmless: Harmless,
        checkpoint: &Checkpoint,
        tensor: &TensorView<'_>,
        read: &[String],
    ) -> bool {
        let values = || tensor.to_f32().unwrap_or_default();
        let module = tensor.name.rsplit_once('.').map_or("", |(module, _)| module);
        let plain = || {
            let weight = checkpoint.tensor(&format!("{module}.weight"));
            weight.is_ok_and(|weight| is_plain(weight.encoding))
        };
        match harmless {
            Harmless::Always => true,
            Harmless::IfZero => {
                let values = values();
                !values.is_empty() && values.iter().all(|&value| value == 0.0)
            }
            Harmless::IfInOrder => {
                let values = values();
                !values.is_empty() && values.is_sorted() && values[0] == 0.0
            }
            Harmless::IfLayerIsRead => plain() || self.is_quantized_module(module, read),
            Harmless::IfLayerIsPlain => plain() && !self.is_quantized_module(module, read),
            Harmless::No => false,
        }
    }

    /// Whether the tensors of a module are read in the format of a quantized layer.
    fn is_quantized_module(&self, module: &str, read: &[String]) -> bool {
        let weights = ["weight_scale", "weight_scale_inv", "weight_packed", "qweight"];
        let named = |part: &str| format!("{module}.{part}");
        self.quantization.is_some()
            && weights.iter().any(|part| read.binary_search(&named(part)).is_ok())
    }
}

/// Whether elements are numbers of 16 bits or more, and not codes.
fn is_plain(encoding: Encoding) -> bool {
    let plain = [DType::F64, DType::F32, DType::F16, DType::BF16];
    plain.iter().any(|&dtype| encoding == Encoding::Scalar(dtype))
}
