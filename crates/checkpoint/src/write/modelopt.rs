//! The unified Hugging Face format of NVIDIA's Model Optimizer, as its version 0.47 writes it.

use bantam_backend::QuantizedLinear;
use bantam_numerics::{
    ActivationFormat, DType, Group, KvFormat, PackedWeight, ScaleBlock, WeightData, WeightFormat,
};
use serde_json::{Map, Value, json};

use super::scales::{exact_tensor, f32_tensor};
use super::{Dialect, LayerScheme, OwnedTensor, QuantizationFiles};
use crate::CheckpointError;

const DIALECT: Dialect = Dialect::ModelOpt;

/// What can be said, for messages.
const KNOWN: &str = "int4 symmetric in groups (bf16 or static fp8 inputs), int8 per channel (bf16 or \
                     static int8 inputs), or fp8 (per tensor with static fp8 inputs, per channel with \
                     fp8 inputs, 128x128 with bf16 or fp8-blocks inputs); compressed-tensors has more";

/// What ModelOpt calls a scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Algorithm {
    /// `quant_algo`.
    name: &'static str,
    /// `group_size`, for INT4.
    group: Option<usize>,
}

impl Algorithm {
    pub(super) fn new(layer: &LayerScheme) -> Result<Self, CheckpointError> {
        use ActivationFormat::{BF16, Fp8, Fp8Blocks, Int8};
        let scheme = layer.scheme;
        let (name, group) = match (scheme.weight, scheme.activation, layer.static_input) {
            (WeightFormat::Int4 { group: Group::Of(size), symmetric: true }, BF16, false) => {
                ("W4A16_AWQ", Some(size))
            }
            (WeightFormat::Int4 { group: Group::Of(size), symmetric: true }, Fp8, true) => {
                ("W4A8_AWQ", Some(size))
            }
            (WeightFormat::Int8 { group: Group::PerChannel }, BF16, false) => ("W8A16", None),
            (WeightFormat::Int8 { group: Group::PerChannel }, Int8, true) => {
                ("W8A8_SQ_PER_CHANNEL", None)
            }
            (WeightFormat::Fp8 { block: ScaleBlock::TENSOR }, Fp8, true) => ("FP8", None),
            (WeightFormat::Fp8 { block: ScaleBlock::CHANNEL }, Fp8, false) => {
                ("FP8_PER_CHANNEL_PER_TOKEN", None)
            }
            (WeightFormat::Fp8 { block: ScaleBlock::SQUARE }, BF16 | Fp8Blocks, false) => {
                ("fp8_pb_wo", None)
            }
            _ => return Err(DIALECT.cannot_hold(layer, KNOWN)),
        };
        // Factors are read for INT4 and SmoothQuant only.
        if layer.channel_factors && group.is_none() && name != "W8A8_SQ_PER_CHANNEL" {
            return Err(DIALECT.cannot_hold(layer, KNOWN));
        }
        Ok(Self { name, group })
    }

    /// What both files say of it.
    fn entries(self, factors: bool) -> Map<String, Value> {
        let mut entries = Map::new();
        entries.insert("quant_algo".to_owned(), json!(self.name));
        if let Some(group) = self.group {
            entries.insert("group_size".to_owned(), json!(group));
            entries.insert("has_zero_point".to_owned(), json!(false));
            entries.insert("pre_quant_scale".to_owned(), json!(factors));
        } else if factors {
            entries.insert("pre_quant_scale".to_owned(), json!(true));
        }
        entries
    }

    /// A group of `config_groups`; none for algorithms that have no such words.
    fn group(self, targets: &[&str]) -> Option<Value> {
        let float = json!({"dynamic": false, "num_bits": 8, "type": "float"});
        let channels = |kind: &str| json!({"dynamic": false, "num_bits": 8, "type": kind, "strategy": "channel"});
        let int4 =
            || json!({"dynamic": false, "num_bits": 4, "type": "int", "group_size": self.group});
        Some(match self.name {
            "FP8" => json!({"input_activations": float, "weights": float, "targets": targets}),
            "FP8_PER_CHANNEL_PER_TOKEN" => {
                let token =
                    json!({"dynamic": true, "num_bits": 8, "type": "float", "strategy": "token"});
                let weights = channels("float");
                json!({"input_activations": token, "weights": weights, "targets": targets})
            }
            "W4A16_AWQ" => json!({"weights": int4(), "targets": targets}),
            "W4A8_AWQ" => {
                json!({"input_activations": float, "weights": int4(), "targets": targets})
            }
            "W8A16" => json!({"weights": channels("int"), "targets": targets}),
            "W8A8_SQ_PER_CHANNEL" => {
                let input = json!({"dynamic": false, "num_bits": 8, "type": "int"});
                json!({"input_activations": input, "weights": channels("int"), "targets": targets})
            }
            _ => return None,
        })
    }
}

/// Both configuration files: one algorithm for all layers, or each layer's own.
pub(super) fn files(
    layers: &[LayerScheme],
    unquantized: &[String],
    kv: Option<KvFormat>,
) -> Result<QuantizationFiles, CheckpointError> {
    let kv = kv.filter(|kv| kv.is_scaled());
    if let Some(kv) = kv {
        DIALECT.check_kv("kv_cache_scheme", kv)?;
    }
    let mut algorithms: Vec<(Algorithm, bool, Vec<&str>)> = Vec::new();
    for layer in layers {
        let algorithm = Algorithm::new(layer)?;
        match algorithms.iter_mut().find(|(known, ..)| *known == algorithm) {
            Some((_, factors, modules)) => {
                *factors |= layer.channel_factors;
                modules.push(&layer.module);
            }
            None => algorithms.push((algorithm, layer.channel_factors, vec![&layer.module])),
        }
    }
    let producer = json!({"name": "bantam", "version": env!("CARGO_PKG_VERSION")});
    let mut words = Map::new();
    let mut groups = Map::new();
    let mut add_group = |number: usize, group: Option<Value>| {
        groups.extend(group.map(|group| (format!("group_{number}"), group)));
    };
    let mut layer_entries = None;
    match algorithms[..] {
        [] => {}
        [(algorithm, factors, _)] => {
            words = algorithm.entries(factors);
            add_group(0, algorithm.group(&["Linear"]));
        }
        _ => {
            words.insert("quant_algo".to_owned(), json!("MIXED_PRECISION"));
            let mut of_layer = Map::new();
            for (number, (algorithm, factors, modules)) in algorithms.iter().enumerate() {
                add_group(number, algorithm.group(modules));
                let entries = Value::Object(algorithm.entries(*factors));
                let of_modules = modules.iter().map(|m| ((*m).to_owned(), entries.clone()));
                of_layer.extend(of_modules);
            }
            layer_entries = Some(Value::Object(of_layer));
        }
    }
    let mut config = words.clone();
    config.insert("quant_method".to_owned(), json!("modelopt"));
    config.insert("ignore".to_owned(), json!(unquantized));
    if !groups.is_empty() {
        config.insert("config_groups".to_owned(), Value::Object(groups));
    }
    if kv.is_some() {
        let scheme = json!({"dynamic": false, "num_bits": 8, "type": "float"});
        config.insert("kv_cache_scheme".to_owned(), scheme);
    }
    config.insert("producer".to_owned(), producer.clone());
    words.insert("kv_cache_quant_algo".to_owned(), json!(kv.map(|_| "FP8")));
    words.insert("exclude_modules".to_owned(), json!(unquantized));
    if let Some(layers) = layer_entries {
        config.insert("quantized_layers".to_owned(), layers.clone());
        words.insert("quantized_layers".to_owned(), layers);
    }
    Ok(QuantizationFiles {
        quantization_config: Value::Object(config),
        hf_quant_config: Some(json!({"producer": producer, "quantization": words})),
    })
}

/// The tensors of a layer.
pub(super) fn tensors(
    module: &str,
    linear: &QuantizedLinear,
) -> Result<Vec<OwnedTensor>, CheckpointError> {
    Algorithm::new(&LayerScheme::new(module, linear))?;
    if linear.input.order.is_some() {
        let way_out = "use static groups, which need no order".to_owned();
        return Err(DIALECT.cannot(module, "columns in an order of their own", way_out));
    }
    let weight = &linear.weight;
    let (n, k) = (weight.n, weight.k);
    let named = |tensor: &str| format!("{module}.{tensor}");
    let owned = |tensor: &str, dtype, shape: &[usize], bytes| OwnedTensor {
        name: named(tensor),
        dtype,
        shape: shape.to_vec(),
        bytes,
    };
    let mut tensors = match &weight.data {
        WeightData::F32(_) | WeightData::BF16(_) => unreachable!("no algorithm has them"),
        WeightData::Int8 { levels, affine } => {
            let bytes = levels.iter().map(|&level| level as u8).collect();
            vec![
                owned("weight", DType::I8, &[n, k], bytes),
                f32_tensor(named("weight_scale"), &[n], &affine.scales),
            ]
        }
        WeightData::Int4 { affine, .. } => {
            if !n.is_multiple_of(2) {
                let way_out = "use compressed-tensors".to_owned();
                return Err(DIALECT.cannot(module, &format!("int4 of {n} rows"), way_out));
            }
            let mut tensors = vec![
                owned("weight", DType::U8, &[n / 2, k], pairs_of_rows(weight)),
                f32_tensor(named("weight_scale"), &[n, k / affine.group], &affine.scales),
            ];
            if linear.input.scale.is_some() {
                let scale = [largest(weight, &affine.scales) / 448.0];
                tensors.push(f32_tensor(named("weight_scale_2"), &[], &scale));
            }
            tensors
        }
        WeightData::Fp8 { codes, block, scales } => {
            let (along_n, along_k) = block.grid(n, k);
            let shape: &[usize] = match *block {
                ScaleBlock::TENSOR => &[],
                ScaleBlock::CHANNEL => &[n],
                _ => &[along_n, 1, along_k, 1],
            };
            vec![
                owned("weight", DType::F8E4M3, &[n, k], codes.clone()),
                f32_tensor(named("weight_scale"), shape, scales),
            ]
        }
    };
    if let Some(scale) = linear.input.scale {
        tensors.push(f32_tensor(named("input_scale"), &[], &[scale]));
    }
    if let Some(factors) = &linear.input.channel_factors {
        tensors.push(exact_tensor(named("pre_quant_scale"), &[k], factors));
    }
    Ok(tensors)
}

/// Two's complement nibbles of rows 2i (low) and 2i + 1 (high), `[N/2, K]`.
fn pairs_of_rows(weight: &PackedWeight) -> Vec<u8> {
    let nibble = |n, k| weight.level(n, k) as u8 & 0xf;
    let at = (0..weight.n / 2 * weight.k).map(|at| (at / weight.k, at % weight.k));
    at.map(|(pair, k)| nibble(2 * pair, k) | nibble(2 * pair + 1, k) << 4).collect()
}

/// The largest magnitude of a symmetric weight, 1 if all are zero.
fn largest(weight: &PackedWeight, scales: &[f32]) -> f32 {
    let groups = scales.len() / weight.n;
    let size = weight.k / groups;
    let of_group = |(at, scale): (usize, &f32)| {
        let (n, first) = (at / groups, at % groups * size);
        let levels = (first..first + size).map(|k| weight.level(n, k).unsigned_abs());
        f32::from(levels.max().unwrap_or(0)) * scale.abs()
    };
    let largest = scales.iter().enumerate().map(of_group).fold(0.0, f32::max);
    if largest > 0.0 { largest } else { 1.0 }
}
