//! A folder written for ModelOpt has what ModelOpt itself writes by the same recipe: the names, types and
//! shapes of the tensors, and the words of both configuration files.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bantam_checkpoint::write::write_json;
use bantam_checkpoint::{Checkpoint, Dialect, ShardWriter};
use bantam_cpu::{Cpu, CpuOptions};
use bantam_model::ArchSpec;
use bantam_numerics::DType;
use bantam_optimize::{
    Calibration, GroupChoice, Job, KvKind, QuantizationPlan, Recipe, ScaleChoice,
};
use serde_json::Value;

/// What the tool wrote.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/interchange").join(name)
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A model in f32 of the network that a fixture is of.
fn source(fixture: &Path, folder: &Path) -> Checkpoint {
    let mut config = json(&fixture.join("config.json"));
    config.as_object_mut().unwrap().remove("quantization_config");
    let arch = ArchSpec::from_config(&config).unwrap();
    let mut writer = ShardWriter::create(folder, 1 << 30).unwrap();
    for (number, tensor) in arch.needed_tensors().into_iter().enumerate() {
        let count: usize = tensor.shape.iter().product();
        let values = (0..count).map(|i| (((i * 37 + number * 11) % 101) as f32 - 50.0) / 100.0);
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        writer.push(&tensor.name, DType::F32, &tensor.shape, &bytes).unwrap();
    }
    write_json(&folder.join("config.json"), &config).unwrap();
    writer.finish().unwrap();
    Checkpoint::open(folder).unwrap()
}

/// The type and shape of each tensor. Where a scale stands alone, the tool drops its dimensions. Factors
/// are left out: Bantam folds all into the layer before, the tool some.
fn tensors(folder: &Path) -> BTreeMap<String, (String, Vec<usize>)> {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let of = |name: &str, encoding: &dyn std::fmt::Display, shape: &[usize]| {
        let alone = name.ends_with("_scale") && shape.iter().all(|size| *size == 1);
        let shape = if alone { Vec::new() } else { shape.to_vec() };
        (name.to_owned(), (encoding.to_string(), shape))
    };
    let tensors = checkpoint.tensors().filter(|tensor| !tensor.name.ends_with("pre_quant_scale"));
    tensors.map(|tensor| of(tensor.name, &tensor.encoding, tensor.shape)).collect()
}

/// Both configurations of the quantization, without who made them.
fn words(folder: &Path) -> [Value; 2] {
    let mut words = [
        json(&folder.join("config.json"))["quantization_config"].take(),
        json(&folder.join("hf_quant_config.json")),
    ];
    for part in &mut words {
        part.as_object_mut().unwrap().remove("producer");
    }
    words[1]["quantization"].as_object_mut().unwrap().remove("pre_quant_scale");
    words
}

#[test]
fn folders_are_like_those_of_the_tool() {
    let out = std::env::temp_dir().join(format!("bantam-{}-modelopt", std::process::id()));
    let cpu = Cpu::new(CpuOptions { threads: Some(1), isa: None }).unwrap();
    let cases = [
        ("modelopt-fp8", "fp8"),
        ("modelopt-fp8-pc-pt", "fp8_pc_pt"),
        ("modelopt-fp8-pb-wo", "fp8_block"),
        ("modelopt-int8-sq", "int8_sq"),
        ("modelopt-int8-wo", "int8_wo"),
        ("modelopt-int4-awq", "int4_awq"),
        ("modelopt-w4a8-awq", "w4a8_awq"),
    ];
    for (name, recipe) in cases {
        let _ = std::fs::remove_dir_all(&out);
        let checkpoint = source(&fixture(name), &out.join("source"));
        let arch = ArchSpec::from_checkpoint(&checkpoint).unwrap();
        let mut recipe = Recipe::built_in(recipe).unwrap();
        for rule in &mut recipe.rules {
            rule.group = GroupChoice::Of(32);
            rule.symmetric = true;
            if name == "modelopt-int8-sq" {
                rule.scale = ScaleChoice::Max;
            }
        }
        if name == "modelopt-fp8" {
            recipe.kv = Some(KvKind::Fp8);
        }
        let plan = QuantizationPlan::new(&recipe, &arch).unwrap();
        let sequences = (0..8).map(|s| (0..32).map(|t| (t * t * 7 + s * 13) % 128).collect());
        let calibration =
            Calibration { source: "a test".to_owned(), sequences: sequences.collect() };
        let folder = out.join("ours");
        let job = Job {
            checkpoint: &checkpoint,
            arch: &arch,
            recipe: &recipe,
            plan: &plan,
            calibration: &calibration,
            dialect: Dialect::ModelOpt,
            folder: &folder,
            resume: false,
            max_shard_bytes: 1 << 30,
            save_every: Duration::from_secs(60),
        };
        job.run(&cpu, &mut |_| {}).unwrap();
        assert_eq!(tensors(&folder), tensors(&fixture(name)), "{name}");
        let ([config, more], [config_of_tool, more_of_tool]) =
            (words(&folder), words(&fixture(name)));
        assert_eq!(more, more_of_tool, "{name}");
        // The configuration also says what the tool leaves to the other file.
        for (key, value) in config_of_tool.as_object().unwrap() {
            assert_eq!(config[key], *value, "{name}: {key}");
        }
    }
    std::fs::remove_dir_all(&out).unwrap();
}
