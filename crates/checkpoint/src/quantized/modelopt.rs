//! NVIDIA's Model Optimizer, the unified Hugging Face format.
//!
//! INT4 weights are two's complement nibbles of two output features in a byte. Factors that could not
//! be folded into the layer before are `pre_quant_scale`; they multiply the input. W4A8 weights stay
//! INT4: what the tool's own kernels do, rounding the dequantized weight to FP8 once more, only loses.

use bantam_backend::{LinearInput, QuantizedLinear};
use bantam_numerics::{
    ActivationFormat, DType, Group, GroupAffine, KvFormat, PackedWeight, QuantScheme, ScaleBlock,
    WeightData, WeightFormat, weight::pack_nibbles,
};

use super::{
    LayerFormat, Pattern, Rule, Settings, Source, StoredTensor, fp8, group_of, unsupported,
};
use crate::CheckpointError;

pub(super) const METHOD: &str = "modelopt";

/// What `quant_algo` names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Layout {
    weight: Weight,
    activation: ActivationFormat,
    static_input: bool,
}

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Weight {
    Fp8(ScaleBlock),
    Int8,
    /// In groups of so many.
    Int4(usize),
}

/// The algorithms that are read.
const SUPPORTED: &str = "FP8, FP8_PER_CHANNEL_PER_TOKEN, FP8_PB_WO, W8A16, W8A8_SQ_PER_CHANNEL, \
                         W4A16_AWQ, W4A8_AWQ";

pub(super) fn parse(
    settings: &Settings<'_>,
) -> Result<(Vec<Rule>, Option<KvFormat>), CheckpointError> {
    // The two files call the same lists by different names.
    let mut excluded = settings.texts("exclude_modules")?;
    excluded.extend(settings.texts("ignore")?);
    let excluded = excluded.into_iter().map(|glob| Pattern::Glob(glob.to_owned())).collect();
    let mut rules = vec![Rule { modules: excluded, layout: None }];
    if let Some(layers) = settings.object("quantized_layers")? {
        for (module, layer) in layers.objects() {
            let modules = vec![Pattern::Name(module.to_owned())];
            rules.push(Rule { modules, layout: layout(&layer)? });
        }
    } else {
        rules.push(Rule { modules: vec![Pattern::Every], layout: layout(settings)? });
    }
    Ok((rules, kv_format(settings)?))
}

/// The layout of an algorithm; none where none is named.
fn layout(settings: &Settings<'_>) -> Result<Option<super::Layout>, CheckpointError> {
    let Some(name) = settings.text("quant_algo")? else { return Ok(None) };
    let group = match settings.integer("group_size")? {
        Some(size) => size,
        None => group_of_config(settings)?.unwrap_or(128),
    };
    use ActivationFormat::{BF16, Fp8, Int8};
    let int4 = Weight::Int4(usize::try_from(group).unwrap_or(0));
    let (weight, activation, static_input) = match name.to_uppercase().as_str() {
        "FP8" => (Weight::Fp8(ScaleBlock::TENSOR), Fp8, true),
        "FP8_PER_CHANNEL_PER_TOKEN" => (Weight::Fp8(ScaleBlock::CHANNEL), Fp8, false),
        "FP8_PB_WO" => (Weight::Fp8(ScaleBlock::SQUARE), BF16, false),
        "W8A16" => (Weight::Int8, BF16, false),
        "W8A8_SQ_PER_CHANNEL" => (Weight::Int8, Int8, true),
        "W4A16_AWQ" => (int4, BF16, false),
        "W4A8_AWQ" => (int4, Fp8, true),
        _ => return Ok(Some(unsupported(&format!("quant_algo `{name}`"), SUPPORTED))),
    };
    Ok(Some(super::Layout::ModelOpt(Layout { weight, activation, static_input })))
}

/// The group size where only `config_groups` has it.
fn group_of_config(settings: &Settings<'_>) -> Result<Option<i64>, CheckpointError> {
    for (_, group) in settings.object("config_groups")?.iter().flat_map(Settings::objects) {
        if let Some(weights) = group.object("weights")? {
            return weights.integer("group_size");
        }
    }
    Ok(None)
}

fn kv_format(settings: &Settings<'_>) -> Result<Option<KvFormat>, CheckpointError> {
    let named = match settings.get("kv_cache_scheme") {
        Some(value) if value.is_object() => {
            return settings.object("kv_cache_scheme")?.map(|s| s.kv_scheme()).transpose();
        }
        Some(_) => settings.text("kv_cache_scheme")?,
        None => settings.text("kv_cache_quant_algo")?,
    };
    match named {
        None => Ok(None),
        Some("FP8") => Ok(Some(KvFormat::Fp8)),
        Some("INT8") => Ok(Some(KvFormat::Int8)),
        Some(other) => {
            let problem =
                format!("kv_cache_quant_algo `{other}` is not supported; supported: FP8, INT8");
            Err(settings.error(problem))
        }
    }
}

impl Layout {
    /// INT4 weights that the tool's kernels would round to FP8 say by which scale; we do not.
    fn has_second_scale(&self) -> bool {
        matches!(self.weight, Weight::Int4(_)) && self.activation == ActivationFormat::Fp8
    }
}

impl LayerFormat for Layout {
    fn scheme(&self, n: usize, k: usize) -> Result<QuantScheme, String> {
        let weight = match self.weight {
            Weight::Fp8(block) => WeightFormat::Fp8 { block },
            Weight::Int8 => WeightFormat::Int8 { group: Group::PerChannel },
            Weight::Int4(_) if !n.is_multiple_of(2) => {
                return Err(format!("{n} output features are no whole bytes of two"));
            }
            Weight::Int4(size) => WeightFormat::Int4 { group: group_of(size, k)?, symmetric: true },
        };
        Ok(QuantScheme { weight, activation: self.activation })
    }

    fn tensors(&self, n: usize, k: usize) -> Vec<StoredTensor> {
        let mut tensors = match self.weight {
            Weight::Fp8(block) => {
                let (along_n, along_k) = block.grid(n, k);
                let scale = StoredTensor::required(SCALE, &[along_n, along_k]);
                let scale = match block {
                    ScaleBlock::TENSOR => vec![scale.or(&[]).or(&[1])],
                    ScaleBlock::CHANNEL => vec![scale.or(&[n])],
                    // Exporters differ in the name, and drop the shape of a single block.
                    _ => vec![
                        if along_n * along_k == 1 { scale.or(&[]) } else { scale }
                            .or(&[along_n, 1, along_k, 1])
                            .if_present(),
                        StoredTensor::required(BLOCK_SCALE, &[along_n, along_k]).if_present(),
                    ],
                };
                [vec![StoredTensor::required("weight", &[n, k])], scale].concat()
            }
            Weight::Int8 => vec![
                StoredTensor::required("weight", &[n, k]),
                StoredTensor::required(SCALE, &[n]).or(&[n, 1]),
            ],
            Weight::Int4(group) => vec![
                StoredTensor::required("weight", &[n / 2, k]),
                StoredTensor::required(SCALE, &[n, k / group]),
            ],
        };
        if self.static_input {
            tensors.push(StoredTensor::scalar("input_scale"));
        }
        if self.has_second_scale() {
            tensors.push(StoredTensor::scalar("weight_scale_2").if_present());
        }
        if !matches!(self.weight, Weight::Fp8(_)) {
            tensors.push(StoredTensor::required("pre_quant_scale", &[k]).if_present());
        }
        tensors
    }

    fn read(&self, source: &Source<'_>) -> Result<QuantizedLinear, CheckpointError> {
        let &Source { n, k, .. } = source;
        let data = match self.weight {
            Weight::Fp8(block) => {
                let square = block == ScaleBlock::SQUARE;
                let renamed = square && source.optional(BLOCK_SCALE).is_some();
                fp8::codes(source, block, if renamed { BLOCK_SCALE } else { SCALE })?
            }
            Weight::Int8 => {
                let levels = source.bytes("weight", DType::I8, [n, k])?;
                let levels = levels.iter().map(|&byte| byte as i8).collect();
                let scales = source.numbers(SCALE, n)?;
                WeightData::Int8 { levels, affine: GroupAffine { group: k, scales, offsets: None } }
            }
            Weight::Int4(group) => {
                let pairs = source.bytes("weight", DType::U8, [n / 2, k])?;
                let scales = source.numbers(SCALE, n * k / group)?;
                // Sign-extends the nibble.
                let level = |byte: &u8, row: usize| (byte >> (4 * (row % 2)) << 4) as i8 >> 4;
                let nibbles = (0..n).flat_map(|row| {
                    let bytes = &pairs[row / 2 * k..][..k];
                    pack_nibbles(&bytes.iter().map(|byte| level(byte, row)).collect::<Vec<_>>())
                });
                let nibbles = nibbles.collect();
                WeightData::Int4 { nibbles, affine: GroupAffine { group, scales, offsets: None } }
            }
        };
        let mut input = LinearInput::new(self.activation);
        if self.static_input {
            input.scale = Some(source.input_scale("input_scale")?);
        }
        if !matches!(self.weight, Weight::Fp8(_)) && source.optional("pre_quant_scale").is_some() {
            input.channel_factors = Some(source.numbers("pre_quant_scale", k)?);
        }
        let weight = PackedWeight { n, k, activation: self.activation, data };
        Ok(QuantizedLinear { weight, input })
    }
}

const SCALE: &str = "weight_scale";
const BLOCK_SCALE: &str = "weight_scale_inv";
