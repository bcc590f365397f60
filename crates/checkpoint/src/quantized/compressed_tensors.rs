//! compressed-tensors, the format of llm-compressor.
//!
//! Each group of layers says how its weights and inputs are quantized (`QuantizationArgs`); the format
//! says how the numbers lie: integers in words (`pack-quantized`) or bytes (`int-quantized`), E4M3 codes
//! (`float-quantized`), or bytes of either (`naive-quantized`).

use bantam_backend::{LinearInput, QuantizedLinear};
use bantam_numerics::{
    ActivationFormat, DType, GroupAffine, KvFormat, PackedWeight, QuantScheme, ScaleBlock,
    WeightData, WeightFormat, weight::pack_nibbles,
};

use super::gptq::order_of_groups;
use super::{
    LayerFormat, Pattern, Rule, Settings, Source, StoredTensor, WEIGHT_ONLY, fp8, group_of,
    unsupported,
};
use crate::CheckpointError;
use crate::packing::{Words, per_word};

pub(super) const METHOD: &str = "compressed-tensors";

/// How a group's layers are stored.
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
    Integer { bits: usize, symmetric: bool, scales: Scales, packed: bool },
}

/// Which integers share a scale.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scales {
    Tensor,
    Channel,
    Group(usize),
}

pub(super) fn parse(
    settings: &Settings<'_>,
) -> Result<(Vec<Rule>, Option<KvFormat>), CheckpointError> {
    refuse_transforms(settings)?;
    let kv = settings.object("kv_cache_scheme")?.map(|scheme| scheme.kv_scheme()).transpose()?;
    let whole_format = settings.text("format")?;
    let ignored = settings.texts("ignore")?.into_iter().map(|target| pattern(settings, target));
    let mut rules = vec![Rule { modules: ignored.collect::<Result<_, _>>()?, layout: None }];
    let mut by_target = Vec::new();
    for (_, group) in settings.object("config_groups")?.iter().flat_map(Settings::objects) {
        let format = group.text("format")?.or(whole_format).unwrap_or("dense");
        let layout = layout(&group, format)?;
        for target in group.texts("targets")? {
            by_target.push((pattern(settings, target)?, layout.clone()));
        }
    }
    // A name counts before an expression, and that before a class.
    by_target.sort_by_key(|(pattern, _)| match pattern {
        Pattern::Regex(_) => 1,
        Pattern::Every => 2,
        _ => 0,
    });
    rules.extend(
        by_target
            .into_iter()
            .map(|(pattern, layout)| Rule { modules: vec![pattern], layout: Some(layout) }),
    );
    Ok((rules, kv))
}

/// A class, a name or an expression.
fn pattern(settings: &Settings<'_>, target: &str) -> Result<Pattern, CheckpointError> {
    match target.strip_prefix("re:") {
        Some(expression) => Pattern::regex(expression).map_err(|problem| settings.error(problem)),
        None if target == "Linear" => Ok(Pattern::Every),
        None => Ok(Pattern::Name(target.to_owned())),
    }
}

/// Parts of a configuration that change what weights mean.
fn refuse_transforms(settings: &Settings<'_>) -> Result<(), CheckpointError> {
    let transforms = settings.object("transform_config")?;
    let transforms = match transforms {
        Some(config) => config.object("config_groups")?,
        None => None,
    };
    if transforms.is_some_and(|groups| groups.objects().next().is_some()) {
        let problem =
            "transform_config is not supported; supported: checkpoints without transforms";
        return Err(settings.error(problem.to_owned()));
    }
    let sparsity = match settings.object("sparsity_config")? {
        Some(config) => config.text("format")?.unwrap_or("dense"),
        None => "dense",
    };
    if sparsity != "dense" {
        let problem = format!("sparsity format `{sparsity}` is not supported; supported: dense");
        return Err(settings.error(problem));
    }
    Ok(())
}

fn layout(group: &Settings<'_>, format: &str) -> Result<super::Layout, CheckpointError> {
    const INPUTS: &str = "none, or int8 or fp8 per token or with one static scale, symmetric, or fp8 \
                          in groups of 128";
    const WEIGHTS: &str = "int 4 or int 8 (symmetric) in pack-quantized, int-quantized or \
                           naive-quantized, and float 8 in float-quantized or naive-quantized";
    let Some(weights) = group.object("weights")? else {
        return Ok(unsupported("a group without weights", "groups with weights"));
    };
    let Some((activation, static_input)) = input(group.object("input_activations")?)? else {
        return Ok(unsupported("this form of input_activations", INPUTS));
    };
    if group.get("output_activations").is_some() {
        return Ok(unsupported("a group with output_activations", "null"));
    }
    let bits = weights.integer("num_bits")?.unwrap_or(8);
    let kind = weights.text("type")?.unwrap_or("int");
    let symmetric = weights.flag("symmetric")?.unwrap_or(true);
    let strategy = weights.text("strategy")?;
    let size = weights.integer("group_size")?;
    let size = size.and_then(|size| usize::try_from(size).ok()).filter(|&size| size > 0);
    let packed = format == "pack-quantized";
    let bytes = ["int-quantized", "naive-quantized"].contains(&format);
    let floats = ["float-quantized", "naive-quantized"].contains(&format);
    let weight = match (kind, bits, strategy, size) {
        ("int", 4 | 8, _, _) if (packed || bytes) && (symmetric || bits == 4) => {
            let scales = match (strategy, size) {
                (Some("group") | None, Some(size)) => Some(Scales::Group(size)),
                (Some("channel"), _) => Some(Scales::Channel),
                (Some("tensor") | None, None) if !packed => Some(Scales::Tensor),
                _ => None,
            };
            let bits = bits as usize;
            scales.map(|scales| Weight::Integer { bits, symmetric, scales, packed })
        }
        ("float", 8, _, _) if floats && symmetric => match (strategy, size) {
            (Some("channel"), _) => Some(Weight::Fp8(ScaleBlock::CHANNEL)),
            (Some("tensor") | None, None) => Some(Weight::Fp8(ScaleBlock::TENSOR)),
            (Some("group") | None, Some(columns)) => {
                Some(Weight::Fp8(ScaleBlock { rows: 1, columns }))
            }
            (Some("block"), _) => {
                weights.get("block_structure").and_then(block_of).map(Weight::Fp8)
            }
            _ => None,
        },
        _ => None,
    };
    Ok(match weight {
        Some(weight) => {
            super::Layout::CompressedTensors(Layout { weight, activation, static_input })
        }
        None => {
            let strategy = strategy.unwrap_or("no strategy");
            let sym = if symmetric { "symmetric" } else { "asymmetric" };
            let what = format!("{format} of {kind} {bits}, {sym}, {strategy}");
            unsupported(&what, WEIGHTS)
        }
    })
}

/// `[rows, columns]`, or `"ROWSxCOLUMNS"` of earlier versions.
fn block_of(value: &serde_json::Value) -> Option<ScaleBlock> {
    let Some(text) = value.as_str() else { return fp8::block_of(value) };
    let (rows, columns) = text.split_once('x')?;
    let size = |text: &str| text.parse().ok().filter(|&size: &usize| size > 0);
    Some(ScaleBlock { rows: size(rows)?, columns: size(columns)? })
}

/// How inputs are read, and whether their scale is stored; none for what is not supported.
fn input(args: Option<Settings<'_>>) -> Result<Option<(ActivationFormat, bool)>, CheckpointError> {
    let Some(args) = args else { return Ok(Some((WEIGHT_ONLY, false))) };
    let bits = args.integer("num_bits")?.unwrap_or(8);
    let symmetric = args.flag("symmetric")?.unwrap_or(true);
    let dynamic = args.get("dynamic").and_then(serde_json::Value::as_bool);
    let group = args.integer("group_size")?.filter(|&size| size > 0);
    let strategy = args.text("strategy")?.unwrap_or(match (group, dynamic) {
        (Some(_), _) => "group",
        (None, Some(true)) => "token",
        (None, _) => "tensor",
    });
    let format = match args.text("type")?.unwrap_or("int") {
        "int" => ActivationFormat::Int8,
        "float" => ActivationFormat::Fp8,
        _ => return Ok(None),
    };
    let blocks = Some(ActivationFormat::SCALE_BLOCK as i64);
    Ok(match (bits, symmetric, strategy, dynamic.unwrap_or(false)) {
        // One dynamic scale for a whole step would depend on who else is in it: tokens have their own.
        (8, true, "token" | "tensor", true) => Some((format, false)),
        (8, true, "tensor", false) => Some((format, true)),
        (8, true, "group", true) if format == ActivationFormat::Fp8 && group == blocks => {
            Some((ActivationFormat::Fp8Blocks, false))
        }
        _ => None,
    })
}

impl LayerFormat for Layout {
    fn scheme(&self, _n: usize, k: usize) -> Result<QuantScheme, String> {
        let weight = match self.weight {
            Weight::Fp8(block) => WeightFormat::Fp8 { block },
            Weight::Integer { bits, symmetric, scales, .. } => {
                let group = group_of(scales.group(k), k)?;
                match bits {
                    8 => WeightFormat::Int8 { group },
                    _ => WeightFormat::Int4 { group, symmetric },
                }
            }
        };
        Ok(QuantScheme { weight, activation: self.activation })
    }

    fn tensors(&self, n: usize, k: usize) -> Vec<StoredTensor> {
        let required = StoredTensor::required;
        let mut tensors = match self.weight {
            Weight::Fp8(block) => {
                let (along_n, along_k) = block.grid(n, k);
                let scale = required("weight_scale", &[along_n, along_k]);
                let scale = match block {
                    ScaleBlock::TENSOR => scale.or(&[]).or(&[1]),
                    _ => scale.or(&[along_n]),
                };
                vec![required("weight", &[n, k]), scale]
            }
            Weight::Integer { bits, scales, packed, .. } => {
                let groups = k / scales.group(k);
                let scale = match scales {
                    Scales::Tensor => StoredTensor::scalar("weight_scale").or(&[1, 1]),
                    _ => required("weight_scale", &[n, groups]).or(&[n]),
                };
                let zeros = required("weight_zero_point", &[n, groups]);
                let zeros = match scales {
                    Scales::Tensor => zeros.or(&[]).or(&[1]),
                    _ => zeros.or(&[n.div_ceil(per_word(bits)), groups]),
                };
                let mut tensors =
                    vec![scale, zeros.if_present(), required("weight_g_idx", &[k]).if_present()];
                if packed {
                    tensors.push(required("weight_packed", &[n, k.div_ceil(per_word(bits))]));
                    tensors.push(required("weight_shape", &[2]));
                } else {
                    tensors.push(required("weight", &[n, k]));
                }
                tensors
            }
        };
        if self.static_input {
            tensors.push(StoredTensor::scalar("input_scale"));
            tensors.push(StoredTensor::scalar("input_zero_point").if_present());
        }
        tensors
    }

    fn read(&self, source: &Source<'_>) -> Result<QuantizedLinear, CheckpointError> {
        let &Source { n, k, .. } = source;
        let mut input = LinearInput::new(self.activation);
        if self.static_input {
            input.scale = Some(source.input_scale("input_scale")?);
            source.expect_all("input_zero_point", &[0])?;
        }
        let data = match self.weight {
            Weight::Fp8(block) => fp8::codes(source, block, "weight_scale")?,
            Weight::Integer { bits, symmetric, scales, packed } => {
                input.order = order_of_groups(source, "weight_g_idx", k, scales.group(k))?;
                let affine = affine(source, n, k, bits, symmetric, scales)?;
                let order = input.order.as_deref();
                let level = levels(source, n, k, bits, packed)?;
                let at = |k: usize| order.map_or(k, |order| order[k] as usize);
                let rows = (0..n).map(|n| (0..k).map(|k| level(n, at(k))).collect::<Vec<_>>());
                match bits {
                    8 => WeightData::Int8 { levels: rows.flatten().collect(), affine },
                    _ => {
                        let nibbles = rows.flat_map(|row| pack_nibbles(&row)).collect();
                        WeightData::Int4 { nibbles, affine }
                    }
                }
            }
        };
        let weight = PackedWeight { n, k, activation: self.activation, data };
        Ok(QuantizedLinear { weight, input })
    }
}

impl Scales {
    /// Weights along K that share a scale.
    fn group(self, k: usize) -> usize {
        match self {
            Self::Tensor | Self::Channel => k,
            Self::Group(size) => size,
        }
    }
}

/// The signed level of a weight, from words or bytes.
fn levels(
    source: &Source<'_>,
    n: usize,
    k: usize,
    bits: usize,
    packed: bool,
) -> Result<impl Fn(usize, usize) -> i8 + use<>, CheckpointError> {
    let columns = k.div_ceil(per_word(bits));
    let bytes = if packed {
        source.bytes("weight_packed", DType::I32, [n, columns])?
    } else {
        let bytes = source.bytes("weight", DType::I8, [n, k])?;
        let reach = 1i16 << (bits - 1);
        if let Some(at) = bytes.iter().position(|&b| !(-reach..reach).contains(&i16::from(b as i8)))
        {
            let problem = format!("weight [{}, {}] has more than {bits} bits", at / k, at % k);
            return Err(source.error("weight", problem));
        }
        bytes
    };
    let words = Words { bytes, columns, bits };
    let middle = 1i32 << (bits - 1);
    Ok(move |n: usize, at: usize| {
        if packed {
            (words.along_columns(n, at) as i32 - middle) as i8
        } else {
            words.bytes[n * k + at] as i8
        }
    })
}

/// Scales, and offsets from the zero points of asymmetric formats.
fn affine(
    source: &Source<'_>,
    n: usize,
    k: usize,
    bits: usize,
    symmetric: bool,
    of: Scales,
) -> Result<GroupAffine, CheckpointError> {
    const ZEROS: &str = "weight_zero_point";
    let group = of.group(k);
    let groups = k / group;
    let scales = match of {
        Scales::Tensor => vec![source.numbers("weight_scale", 1)?[0]; n],
        _ => source.numbers("weight_scale", n * groups)?,
    };
    if symmetric {
        // Zero in bytes, and in words of either width.
        source.expect_all(ZEROS, &[0, if bits == 4 { 0x88 } else { 0x80 }])?;
        return Ok(GroupAffine { group, scales, offsets: None });
    }
    let rows = n.div_ceil(per_word(bits));
    let tensor = source.tensor(ZEROS)?;
    let zero: Box<dyn Fn(usize) -> i32> = if tensor.encoding.name() == "i32" {
        let bytes = source.bytes(ZEROS, DType::I32, [rows, groups])?;
        let words = Words { bytes, columns: groups, bits };
        let middle = 1i32 << (bits - 1);
        Box::new(move |i| words.along_rows(i / groups, i % groups) as i32 - middle)
    } else {
        let zeros = source.numbers(ZEROS, scales.len())?;
        Box::new(move |i| zeros[i] as i32)
    };
    let offsets = scales.iter().enumerate().map(|(i, scale)| -zero(i) as f32 * scale).collect();
    Ok(GroupAffine { group, scales, offsets: Some(offsets) })
}
