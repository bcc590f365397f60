//! Quantized layers: what is written is read again bit for bit, AutoAWQ's and GPTQ's packings are
//! undone, and configurations are honoured or refused.

mod support;

use bantam_backend::QuantizedLinear;
use bantam_checkpoint::write::{LayerScheme, write_json};
use bantam_checkpoint::{Checkpoint, Dialect, Quantization, ShardWriter};
use bantam_numerics::{
    ActivationFormat, DType, Group, PackedWeight, QuantScheme, ScaleBlock, WeightData,
    WeightFormat, quantize,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::Folder;

const MODULE: &str = "model.layers.0.mlp.up_proj";

/// Numbers that look random and are the same each time.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let number = |i: u32| (i ^ seed).wrapping_mul(2_654_435_761) as f32 / 2f32.powi(31) - 1.0;
    (0..count as u32).map(number).collect()
}

/// Replaces offsets by whole multiples of the scales, which is all that integer formats hold.
fn with_zero_points(mut weight: PackedWeight) -> PackedWeight {
    if let WeightData::Int4 { affine, .. } = &mut weight.data {
        for (offset, scale) in affine.offsets.iter_mut().flatten().zip(&affine.scales) {
            *offset = -(-*offset / scale).round().clamp(-8.0, 7.0) * scale;
        }
    }
    weight
}

/// A layer of this scheme.
fn layer(n: usize, k: usize, scheme: QuantScheme, is_static: bool, seed: u32) -> QuantizedLinear {
    let weight = quantize(&numbers(n * k, seed), n, k, scheme).expect("finite numbers");
    let mut linear = QuantizedLinear::new(with_zero_points(weight));
    linear.input.scale = is_static.then_some(0.0625);
    linear
}

/// Writes a folder with the tensors of a layer, and the configuration that lists it.
fn written(folder: &Folder, dialect: Dialect, linear: &QuantizedLinear) -> Checkpoint {
    let out = folder.path().join(dialect.name());
    let mut writer = ShardWriter::create(&out, 1 << 20).expect("a new folder");
    for tensor in dialect.tensors(MODULE, linear).expect("expressible") {
        writer.push_owned(&tensor).expect("a sound tensor");
    }
    let layers = [LayerScheme::new(MODULE, linear)];
    let files = dialect.files(&layers, &["lm_head".to_owned()], None).expect("expressible");
    let config = json!({"quantization_config": files.quantization_config});
    write_json(&out.join("config.json"), &config).expect("writable");
    writer.finish().expect("finished");
    Checkpoint::open(&out).expect("a model")
}

fn weight(format: WeightFormat, activation: ActivationFormat) -> QuantScheme {
    QuantScheme { weight: format, activation }
}

proptest! {
    // Each case writes twenty folders.
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn what_is_written_is_read_again(
        half_n in 1usize..9, groups in 1usize..4, odd: bool, seed: u32,
    ) {
        use ActivationFormat::{BF16, Fp8, Fp8Blocks, Int8};
        let (n, k) = (2 * half_n, 32 * groups);
        let int4 = |symmetric| WeightFormat::Int4 { group: Group::Of(16), symmetric };
        let int8 = WeightFormat::Int8 { group: Group::PerChannel };
        let fp8 = |block| WeightFormat::Fp8 { block };
        let ct = &[Dialect::CompressedTensors][..];
        let both = &[Dialect::CompressedTensors, Dialect::ModelOpt][..];
        let cases = [
            (weight(int4(true), BF16), false, both),
            (weight(int4(false), BF16), false, ct),
            (weight(int4(false), Int8), false, ct),
            (weight(int4(true), Int8), true, ct),
            (weight(int4(true), Fp8), false, ct),
            (weight(int4(true), Fp8), true, both),
            (weight(int8, BF16), false, both),
            (weight(WeightFormat::Int8 { group: Group::Of(32) }, BF16), false, ct),
            (weight(int8, Int8), false, ct),
            (weight(int8, Int8), true, both),
            (weight(fp8(ScaleBlock::TENSOR), Fp8), true, both),
            (weight(fp8(ScaleBlock::TENSOR), Fp8), false, ct),
            (weight(fp8(ScaleBlock::TENSOR), BF16), false, ct),
            (weight(fp8(ScaleBlock::CHANNEL), Fp8), false, both),
            (weight(fp8(ScaleBlock::SQUARE), BF16), false, both),
            (weight(fp8(ScaleBlock::SQUARE), Fp8Blocks), false, ct),
            (weight(fp8(ScaleBlock { rows: 4, columns: 24 }), Fp8), false, ct),
        ];
        for (scheme, is_static, dialects) in cases {
            for &dialect in dialects {
                // An odd row count has half a byte or word left over; ModelOpt cannot hold that.
                let n = if dialect == Dialect::CompressedTensors && odd { n + 1 } else { n };
                let mut linear = layer(n, k, scheme, is_static, seed);
                // A group as long as the row is a channel's own.
                let scheme = linear.weight.scheme();
                let with_factors = dialect == Dialect::ModelOpt && linear.weight.level_bits() < 16;
                linear.input.channel_factors =
                    with_factors.then(|| numbers(k, !seed).iter().map(|v| v + 2.0).collect());
                let folder = Folder::new();
                let checkpoint = written(&folder, dialect, &linear);
                let quantization =
                    Quantization::of(&checkpoint).expect("sound").expect("quantized");
                prop_assert_eq!(quantization.scheme(MODULE, n, k).expect("known"), Some(scheme));
                prop_assert_eq!(quantization.scheme("lm_head", n, k).expect("known"), None);
                let read = quantization.linear(&checkpoint, MODULE, n, k).expect("readable");
                prop_assert_eq!(read.expect("quantized"), linear, "{} {}", dialect.name(), scheme);
                let tensors = quantization.tensors(MODULE, n, k).expect("known").expect("some");
                for tensor in checkpoint.tensors() {
                    let stored = tensors.iter().find(|stored| stored.name == tensor.name);
                    let stored = stored.expect("every tensor belongs to the layer");
                    prop_assert!(stored.shapes.iter().any(|shape| shape == tensor.shape));
                }
                for stored in tensors.iter().filter(|stored| !stored.optional) {
                    prop_assert!(checkpoint.has_tensor(&stored.name), "{}", stored.name);
                }
            }
        }
    }
}

/// What tells the layers that ModelOpt reads factors for.
trait Bits {
    fn level_bits(&self) -> usize;
}

impl Bits for PackedWeight {
    fn level_bits(&self) -> usize {
        match &self.data {
            WeightData::Int4 { .. } => 4,
            WeightData::Int8 { .. } if self.activation == ActivationFormat::Int8 => 8,
            _ => 16,
        }
    }
}

/// A folder with tensors and a `quantization_config`.
fn folder_with(tensors: &[(&str, DType, Vec<usize>, Vec<u8>)], config: &Value) -> Folder {
    let folder = Folder::new();
    let out = folder.path().join("m");
    let mut writer = ShardWriter::create(&out, 1 << 20).expect("a new folder");
    for (part, dtype, shape, bytes) in tensors {
        let name = format!("{MODULE}.{part}");
        writer.push(&name, *dtype, shape, bytes).expect("a sound tensor");
    }
    write_json(&out.join("config.json"), &json!({"quantization_config": config}))
        .expect("writable");
    writer.finish().expect("finished");
    folder
}

fn read(folder: &Folder, n: usize, k: usize) -> Result<QuantizedLinear, String> {
    let checkpoint = Checkpoint::open(&folder.path().join("m")).expect("a model");
    let quantization = Quantization::of(&checkpoint).map_err(|error| error.to_string())?;
    let quantization = quantization.expect("quantized");
    let linear = quantization.linear(&checkpoint, MODULE, n, k);
    linear.map(|linear| linear.expect("quantized")).map_err(|error| error.to_string())
}

fn words(words: Vec<u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// What the formats say: W[n, k] = (q[n, k] − z[n, g])·s[n, g].
fn check(linear: &QuantizedLinear, want: impl Fn(usize, usize) -> f32) {
    let k = linear.weight.k;
    for (at, got) in linear.weight.decode().into_iter().enumerate() {
        let column = linear.input.order.as_ref().map_or(at % k, |order| order[at % k] as usize);
        let want = want(at / k, column);
        assert!((got - want).abs() <= 1e-5, "[{}, {column}]: {got}, expected {want}", at / k);
    }
}

proptest! {
    #[test]
    fn awq_is_unpacked(eighths in 1usize..4, groups in 1usize..4, seed: u32) {
        let (n, k, g) = (8 * eighths, 16 * groups, 16);
        let random = |at: usize| numbers(1, seed.wrapping_add(at as u32))[0];
        let q = |n: usize, k: usize| ((random(n * 1000 + k) + 1.0) * 8.0) as u32 % 16;
        let z = |n: usize, g: usize| ((random(77_777 + n * 50 + g) + 1.0) * 8.0) as u32 % 16;
        let s = |n: usize, g: usize| random(99_999 + n * 50 + g).abs() * 0.1 + 0.01;
        // Nibble i of a word is column ORDER[i] of eight.
        const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];
        let pack = |rows: usize, number: &dyn Fn(usize, usize) -> u32| {
            let word = |at: usize| {
                let (row, word) = (at / eighths, at % eighths);
                let nibble = |(i, column): (usize, &usize)| number(8 * word + column, row) << (4 * i);
                ORDER.iter().enumerate().map(nibble).sum()
            };
            words((0..rows * eighths).map(word).collect())
        };
        let scales: Vec<f32> = (0..groups * n).map(|at| s(at % n, at / n)).collect();
        let folder = folder_with(
            &[
                ("qweight", DType::I32, vec![k, eighths], pack(k, &q)),
                ("qzeros", DType::I32, vec![groups, eighths], pack(groups, &z)),
                ("scales", DType::F32, vec![groups, n], floats(&scales)),
            ],
            &json!({"quant_method": "awq", "bits": 4, "group_size": g, "version": "gemm"}),
        );
        let linear = read(&folder, n, k).expect("sound");
        check(&linear, |n, k| (q(n, k) as f32 - z(n, k / g) as f32) * s(n, k / g));
    }

    #[test]
    fn gptq_is_unpacked(
        eighths in 1usize..4, groups in 1usize..4, eight_bits: bool, v2: bool, desc_act: bool,
        seed: u32,
    ) {
        let (n, k, g) = (8 * eighths, 16 * groups, 16);
        let bits = if eight_bits { 8 } else { 4 };
        let (levels, per_word) = (1u32 << bits, 32 / bits);
        let random = |at: usize| numbers(1, seed.wrapping_add(at as u32))[0];
        let level = |at: usize| ((random(at) + 1.0) * 0.5 * levels as f32) as u32 % levels;
        let q = |n: usize, k: usize| level(n * 1000 + k);
        let z = |n: usize, g: usize| if eight_bits { 128 } else { level(77_777 + n * 50 + g) };
        let s = |n: usize, g: usize| random(99_999 + n * 50 + g).abs() * 0.01 + 0.001;
        // Any order in which each group has its share.
        let group_of = |k: usize| if desc_act { (k * 7 + seed as usize % 5) % groups } else { k / g };
        // The first convention takes one from each, word by word.
        let ones = if v2 { 0 } else { u32::MAX / (levels - 1) };
        let pack = |count: usize, number: &dyn Fn(usize) -> u32| -> u32 {
            (0..count).map(|i| number(i) << (i * bits)).sum()
        };
        let weights = (0..k / per_word * n).map(|at| {
            pack(per_word, &|i| q(at % n, at / n * per_word + i))
        });
        let columns = n / per_word;
        let zeros = (0..groups * columns).map(|at| {
            pack(per_word, &|i| z(at % columns * per_word + i, at / columns)).wrapping_sub(ones)
        });
        let scales: Vec<f32> = (0..groups * n).map(|at| s(at % n, at / n)).collect();
        let g_idx = (0..k).map(|k| group_of(k) as u32).collect();
        let folder = folder_with(
            &[
                ("qweight", DType::I32, vec![k / per_word, n], words(weights.collect())),
                ("qzeros", DType::I32, vec![groups, columns], words(zeros.collect())),
                ("scales", DType::F32, vec![groups, n], floats(&scales)),
                ("g_idx", DType::I32, vec![k], words(g_idx)),
            ],
            &json!({
                "quant_method": "gptq", "bits": bits, "group_size": g, "desc_act": desc_act,
                "sym": eight_bits, "checkpoint_format": if v2 { "gptq_v2" } else { "gptq" },
            }),
        );
        let even = (0..groups).all(|g| (0..k).filter(|&k| group_of(k) == g).count() == 16);
        match read(&folder, n, k) {
            Ok(linear) => {
                prop_assert!(even);
                check(&linear, |n, k| {
                    (q(n, k) as f32 - z(n, group_of(k)) as f32) * s(n, group_of(k))
                });
            }
            Err(error) => {
                prop_assert!(!even, "{error}");
                prop_assert!(error.contains("g_idx`: does not give each of"), "{error}");
            }
        }
    }
}

/// The message about a configuration, or about its layer.
fn refusal(config: Value) -> String {
    let folder = folder_with(&[("weight", DType::F32, vec![1], vec![0; 4])], &config);
    let message = read(&folder, 64, 64).expect_err("must be refused");
    assert!(!message.contains('\n') && message.contains("config.json"), "{message}");
    message
}

#[test]
fn what_is_not_supported_is_refused_with_what_is() {
    let ct = |weights: Value, input: Value, format: &str| {
        json!({
            "quant_method": "compressed-tensors", "format": format,
            "config_groups": {"group_0": {
                "targets": ["Linear"], "weights": weights, "input_activations": input,
            }},
        })
    };
    let int = |bits: usize| json!({"num_bits": bits, "type": "int", "strategy": "channel"});
    let cases = [
        (
            json!({"quant_method": "bitsandbytes"}),
            "method `bitsandbytes` is not supported; supported",
        ),
        (json!({"quant_method": 4}), "setting `quant_method` is 4, expected a string"),
        (json!({"quant_method": "awq", "bits": 4, "version": "gemv"}), "version `gemv`"),
        (json!({"quant_method": "awq", "bits": 3}), "3 bits in version `gemm`"),
        (json!({"quant_method": "gptq", "bits": 3}), "3 bits, symmetric"),
        (json!({"quant_method": "modelopt", "quant_algo": "NVFP4"}), "quant_algo `NVFP4`"),
        (
            json!({"quant_method": "modelopt", "quant_algo": "W4A16_AWQ", "group_size": 48}),
            "layer `model.layers.0.mlp.up_proj`: groups of 48 along 64 input features",
        ),
        (
            json!({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": "NVFP4"}),
            "kv_cache_quant_algo `NVFP4`",
        ),
        (ct(int(3), Value::Null, "pack-quantized"), "pack-quantized of int 3"),
        (
            ct(int(8), json!({"num_bits": 8, "type": "int", "symmetric": false}), "int-quantized"),
            "this form of input_activations",
        ),
        (
            ct(json!({"num_bits": 4, "type": "float"}), Value::Null, "nvfp4-pack-quantized"),
            "nvfp4-pack-quantized of float 4",
        ),
        (json!({"quant_method": "fp8", "weight_block_size": [64, 64]}), "blocks of 128 columns"),
        (json!({"quant_method": "fp8", "weight_block_size": 128}), "expected two positive numbers"),
        (
            json!({"quant_method": "compressed-tensors", "sparsity_config": {"format": "marlin-24"}}),
            "sparsity format `marlin-24`",
        ),
    ];
    for (config, expected) in cases {
        let message = refusal(config);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn layers_are_told_apart() {
    let scheme = |config: &Value, module: &str| {
        let config = json!({ "quantization_config": config });
        let quantization = Quantization::from_config(&config, "config.json".as_ref());
        let quantization = quantization.expect("sound").expect("quantized");
        let scheme = quantization.scheme(module, 64, 128).expect("supported");
        scheme.map_or("none".to_owned(), |scheme| scheme.to_string())
    };
    let float = json!({"num_bits": 8, "type": "float", "strategy": "channel"});
    let int = json!({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32});
    let mixed = json!({
        "quant_method": "compressed-tensors", "format": "mixed-precision",
        "ignore": ["lm_head", "re:.*layers\\.1\\..*"],
        "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": float, "format": "naive-quantized"},
            "group_1": {"targets": ["re:.*down_proj$"], "weights": int, "format": "pack-quantized"},
        },
    });
    assert_eq!(scheme(&mixed, "model.layers.0.mlp.up_proj"), "fp8");
    assert_eq!(scheme(&mixed, "model.layers.0.mlp.down_proj"), "int4-g32-sym");
    assert_eq!(scheme(&mixed, "model.layers.1.mlp.down_proj"), "none");
    assert_eq!(scheme(&mixed, "lm_head"), "none");
    let mixed = json!({
        "quant_method": "modelopt", "quant_algo": "MIXED_PRECISION",
        "ignore": ["lm_head"],
        "quantized_layers": {
            "model.layers.0.mlp.up_proj": {"quant_algo": "FP8"},
            "model.layers.0.mlp.down_proj": {"quant_algo": "W4A8_AWQ", "group_size": 64},
        },
    });
    assert_eq!(scheme(&mixed, "model.layers.0.mlp.up_proj"), "fp8-tensor/fp8");
    assert_eq!(scheme(&mixed, "model.layers.0.mlp.down_proj"), "int4-g64-sym/fp8");
    assert_eq!(scheme(&mixed, "model.layers.1.mlp.down_proj"), "none");
    let gptq = json!({
        "quant_method": "gptq", "bits": 4, "group_size": 64, "sym": false,
        "dynamic": {"-:.*\\.1\\..*": {}, "+:.*down": {"bits": 8, "group_size": -1, "sym": true}},
    });
    assert_eq!(scheme(&gptq, "model.layers.0.mlp.up_proj"), "int4-g64");
    assert_eq!(scheme(&gptq, "model.layers.0.mlp.down_proj"), "int8");
    assert_eq!(scheme(&gptq, "model.layers.1.mlp.down_proj"), "none");
}

#[test]
fn a_file_of_its_own_says_it_too() {
    let folder = Folder::new();
    folder.write("config.json", r#"{"model_type": "llama"}"#);
    folder.write("model.safetensors", support::safetensors("{}", &[]));
    let checkpoint = folder.open().expect("a sound folder");
    assert_eq!(Quantization::of(&checkpoint).expect("sound"), None);
    folder.write(
        "hf_quant_config.json",
        r#"{"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8",
            "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head", "*.layers.1.*"]}}"#,
    );
    let quantization = Quantization::of(&checkpoint).expect("sound").expect("quantized");
    assert_eq!(quantization.method(), "modelopt");
    assert_eq!(quantization.kv_format(), Some(bantam_numerics::KvFormat::Fp8));
    assert_eq!(quantization.scheme("model.layers.1.mlp.up_proj", 4, 4).expect("known"), None);
    assert!(quantization.scheme("model.layers.0.mlp.up_proj", 4, 4).expect("known").is_some());
}

#[test]
fn the_one_scale_of_an_fp8_weight_has_either_name() {
    let config = json!({"quant_method": "fp8", "activation_scheme": "dynamic",
        "weight_block_size": null});
    let codes = vec![0x38, 0x40, 0xb8, 0x30]; // 1, 2, −1, 0.5
    for (name, shape) in [("weight_scale", vec![1]), ("weight_scale_inv", vec![])] {
        let folder = folder_with(
            &[
                ("weight", DType::F8E4M3, vec![2, 2], codes.clone()),
                (name, DType::F32, shape, floats(&[0.5])),
            ],
            &config,
        );
        let linear = read(&folder, 2, 2).expect(name);
        check(&linear, |n, k| [[0.5, 1.0], [-0.5, 0.25]][n][k]);
    }
    let folder = folder_with(&[("weight", DType::F8E4M3, vec![2, 2], codes)], &config);
    let message = read(&folder, 2, 2).expect_err("no scale");
    assert!(message.contains("weight_scale"), "{message}");
}
