//! The format of compressed-tensors, as its version 0.13 reads it.
//!
//! `pack-quantized` keeps integers in words, `int-quantized` in bytes, `float-quantized` (weights and
//! activations) and `naive-quantized` (weights only) E4M3 codes. Which one a layer takes follows
//! llm-compressor and the kernels of vLLM: integer weights that meet 16-bit or FP8 inputs are packed.

use bantam_backend::QuantizedLinear;
use bantam_numerics::{
    ActivationFormat, DType, Group, GroupAffine, KvFormat, PackedWeight, ScaleBlock, WeightData,
    WeightFormat,
};
use serde_json::{Value, json};

use super::scales::exact_tensor;
use super::{Dialect, LayerScheme, OwnedTensor, QuantizationFiles};
use crate::CheckpointError;
use crate::packing::{pack_columns, pack_rows, per_word};

const DIALECT: Dialect = Dialect::CompressedTensors;

/// What can be said, for messages.
const KNOWN: &str = "int8 or int4 weights (in groups or per channel) or fp8 weights, with bf16, int8 or \
                     fp8 inputs, factors folded into the layer before";

/// What a configuration says of a layer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Form {
    /// The compressor.
    format: &'static str,
    weights: Value,
    /// Null for 16-bit inputs.
    input: Value,
}

impl Form {
    pub(super) fn new(layer: &LayerScheme) -> Result<Self, CheckpointError> {
        let refuse = || DIALECT.cannot_hold(layer, KNOWN);
        if layer.channel_factors {
            return Err(refuse());
        }
        let activation = layer.scheme.activation;
        let input = input_args(activation, layer.static_input).ok_or_else(refuse)?;
        let packed = activation != ActivationFormat::Int8;
        let integers = |bits: usize, group, symmetric| {
            let weights = match group {
                Group::PerChannel => args(bits, "int", symmetric, "channel", json!({})),
                Group::Of(size) => {
                    args(bits, "int", symmetric, "group", json!({ "group_size": size }))
                }
            };
            (if packed { "pack-quantized" } else { "int-quantized" }, weights)
        };
        let (format, weights) = match layer.scheme.weight {
            WeightFormat::F32 | WeightFormat::BF16 => return Err(refuse()),
            WeightFormat::Int8 { group } => integers(8, group, true),
            WeightFormat::Int4 { group, symmetric } => integers(4, group, symmetric),
            WeightFormat::Fp8 { block } => {
                let weights = match block {
                    ScaleBlock::TENSOR => args(8, "float", true, "tensor", json!({})),
                    ScaleBlock::CHANNEL => args(8, "float", true, "channel", json!({})),
                    ScaleBlock { rows, columns } => {
                        let shape = json!({ "block_structure": [rows, columns] });
                        args(8, "float", true, "block", shape)
                    }
                };
                let weight_only = activation == ActivationFormat::BF16;
                (if weight_only { "naive-quantized" } else { "float-quantized" }, weights)
            }
        };
        Ok(Self { format, weights, input })
    }
}

/// The arguments of an input; none if there are none that say it.
fn input_args(format: ActivationFormat, is_static: bool) -> Option<Value> {
    let kind = match format {
        ActivationFormat::F32 => return None,
        ActivationFormat::BF16 => return (!is_static).then_some(Value::Null),
        ActivationFormat::Int8 => "int",
        ActivationFormat::Fp8 => "float",
        ActivationFormat::Fp8Blocks if is_static => return None,
        ActivationFormat::Fp8Blocks => {
            let size = ActivationFormat::SCALE_BLOCK;
            let blocks = json!({ "group_size": size, "dynamic": true, "observer": null });
            return Some(args(8, "float", true, "group", blocks));
        }
    };
    let dynamic = json!({ "dynamic": true, "observer": null });
    Some(match is_static {
        true => args(8, kind, true, "tensor", json!({})),
        false => args(8, kind, true, "token", dynamic),
    })
}

/// `QuantizationArgs`, with some of them changed.
fn args(bits: usize, kind: &str, symmetric: bool, strategy: &str, changed: Value) -> Value {
    let mut args = json!({
        "num_bits": bits,
        "type": kind,
        "symmetric": symmetric,
        "strategy": strategy,
        "group_size": null,
        "block_structure": null,
        "dynamic": false,
        "actorder": null,
        "observer": "minmax",
        "observer_kwargs": {},
    });
    if let Value::Object(changed) = changed {
        for (key, value) in changed {
            args[key] = value;
        }
    }
    args
}

/// The configuration: one group for each form. A single one targets all linear layers.
pub(super) fn files(
    layers: &[LayerScheme],
    unquantized: &[String],
    kv: Option<KvFormat>,
) -> Result<QuantizationFiles, CheckpointError> {
    let mut forms: Vec<(Form, Vec<&str>)> = Vec::new();
    for layer in layers {
        let form = Form::new(layer)?;
        match forms.iter_mut().find(|(known, _)| *known == form) {
            Some((_, modules)) => modules.push(&layer.module),
            None => forms.push((form, vec![&layer.module])),
        }
    }
    let mixed = forms.windows(2).any(|pair| pair[0].0.format != pair[1].0.format);
    let format = match forms.first() {
        _ if mixed => "mixed-precision",
        Some((form, _)) => form.format,
        None => "dense",
    };
    let alone = forms.len() == 1;
    let groups = forms.into_iter().enumerate().map(|(number, (form, modules))| {
        let mut group = json!({
            "targets": if alone { vec!["Linear"] } else { modules },
            "weights": form.weights,
            "input_activations": form.input,
            "output_activations": null,
        });
        if mixed {
            group["format"] = json!(form.format);
        }
        (format!("group_{number}"), group)
    });
    let kv = kv.filter(|kv| kv.is_scaled());
    if let Some(kv) = kv {
        DIALECT.check_kv("kv_cache_scheme", kv)?;
    }
    let cache = |kv| {
        let kind = if kv == KvFormat::Int8 { "int" } else { "float" };
        args(8, kind, true, "tensor", json!({}))
    };
    let quantization_config = json!({
        "quant_method": "compressed-tensors",
        "format": format,
        "quantization_status": "compressed",
        "global_compression_ratio": null,
        "config_groups": groups.collect::<serde_json::Map<_, _>>(),
        "ignore": unquantized,
        "kv_cache_scheme": kv.map(cache),
    });
    Ok(QuantizationFiles { quantization_config, hf_quant_config: None })
}

/// The tensors of a layer.
pub(super) fn tensors(
    module: &str,
    linear: &QuantizedLinear,
) -> Result<Vec<OwnedTensor>, CheckpointError> {
    let layer = LayerScheme::new(module, linear);
    let form = Form::new(&layer)?;
    if linear.input.order.is_some() {
        let way_out = "use static groups, which need no order".to_owned();
        return Err(DIALECT.cannot(module, "columns in an order of their own", way_out));
    }
    let weight = &linear.weight;
    let (n, k) = (weight.n, weight.k);
    let mut tensors = match &weight.data {
        WeightData::F32(_) | WeightData::BF16(_) => unreachable!("such forms are refused"),
        WeightData::Int8 { affine, .. } | WeightData::Int4 { affine, .. } => {
            let bits = if matches!(weight.data, WeightData::Int8 { .. }) { 8 } else { 4 };
            let zeros = zero_points(module, bits, affine)?;
            let packed = form.format == "pack-quantized";
            integers(module, weight, bits, affine, zeros.as_deref(), packed)
        }
        WeightData::Fp8 { codes, block, scales } => {
            let (along_n, along_k) = block.grid(n, k);
            let shape: &[usize] =
                if *block == ScaleBlock::TENSOR { &[1] } else { &[along_n, along_k] };
            vec![
                owned(module, "weight", DType::F8E4M3, &[n, k], codes.clone()),
                exact_tensor(format!("{module}.weight_scale"), shape, scales),
            ]
        }
    };
    if let Some(scale) = linear.input.scale {
        tensors.push(exact_tensor(format!("{module}.input_scale"), &[1], &[scale]));
    }
    Ok(tensors)
}

/// Integer weights in words or bytes, with their scales and zero points.
fn integers(
    module: &str,
    weight: &PackedWeight,
    bits: usize,
    affine: &GroupAffine,
    zeros: Option<&[i8]>,
    packed: bool,
) -> Vec<OwnedTensor> {
    let (n, k, groups) = (weight.n, weight.k, weight.k / affine.group);
    let unsigned = |level: i8| (i32::from(level) + (1 << (bits - 1))) as u32;
    let mut tensors = if packed {
        let words = pack_columns(n, k, bits, |n, k| unsigned(weight.level(n, k)));
        let shape = [n as i64, k as i64].into_iter().flat_map(i64::to_le_bytes).collect();
        vec![
            owned(module, "weight_packed", DType::I32, &[n, k.div_ceil(per_word(bits))], words),
            owned(module, "weight_shape", DType::I64, &[2], shape),
        ]
    } else {
        let levels = (0..n * k).map(|at| weight.level(at / k, at % k) as u8).collect();
        vec![owned(module, "weight", DType::I8, &[n, k], levels)]
    };
    tensors.push(exact_tensor(format!("{module}.weight_scale"), &[n, groups], &affine.scales));
    if let Some(zeros) = zeros {
        tensors.push(if packed {
            let words = pack_rows(n, groups, bits, |n, g| unsigned(zeros[n * groups + g]));
            let shape = [n.div_ceil(per_word(bits)), groups];
            owned(module, "weight_zero_point", DType::I32, &shape, words)
        } else {
            let bytes = zeros.iter().map(|&zero| zero as u8).collect();
            owned(module, "weight_zero_point", DType::I8, &[n, groups], bytes)
        });
    }
    tensors
}

/// The level that stands for zero in each group, if the format has offsets.
fn zero_points(
    module: &str,
    bits: usize,
    affine: &GroupAffine,
) -> Result<Option<Vec<i8>>, CheckpointError> {
    /// Half a step of f16, in which offsets travel.
    const STORED: f32 = 1.0 / 2048.0;
    let Some(offsets) = &affine.offsets else { return Ok(None) };
    let reach = (1 << (bits - 1)) as f32;
    let zero = |(&offset, &scale): (&f32, &f32)| {
        let zero = if scale == 0.0 { 0.0 } else { (-offset / scale).round() };
        let exact = (zero * scale + offset).abs() <= offset.abs() * STORED;
        (exact && (-reach..reach).contains(&zero)).then_some(zero as i8)
    };
    let zeros = offsets.iter().zip(&affine.scales).map(zero).collect::<Option<Vec<_>>>();
    zeros.map(Some).ok_or_else(|| {
        let what = format!("offsets that are no whole multiple of their scales ({bits} bits)");
        let way_out = "quantize with integer zero points, or symmetrically".to_owned();
        DIALECT.cannot(module, &what, way_out)
    })
}

fn owned(module: &str, tensor: &str, dtype: DType, shape: &[usize], bytes: Vec<u8>) -> OwnedTensor {
    OwnedTensor { name: format!("{module}.{tensor}"), dtype, shape: shape.to_vec(), bytes }
}
