//! How weights are quantized counts whichever file says it.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use bantam_checkpoint::{Checkpoint, Quantization};
use bantam_model::{ArchSpec, Precision};
use common::read_json;
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/interchange").join(name)
}

/// A copy of a fixture whose `config.json` says nothing, with these files beside it.
fn silent_copy(name: &str, side_files: &[(&str, Value)]) -> PathBuf {
    // Tests run side by side: each copy has a folder of its own.
    static COPIES: AtomicUsize = AtomicUsize::new(0);
    let copy = format!("{name}-{}", COPIES.fetch_add(1, Ordering::Relaxed));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("side_files").join(copy);
    let _ = std::fs::remove_dir_all(&folder); // of a run that was killed
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(fixture(name).join("model.safetensors"), folder.join("model.safetensors"))
        .unwrap();
    let mut config = read_json(&fixture(name).join("config.json"));
    config.as_object_mut().unwrap().remove("quantization_config");
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    for (file, content) in side_files {
        std::fs::write(folder.join(file), content.to_string()).unwrap();
    }
    folder
}

/// The scheme of every linear layer; panics if a tensor is missing or not read.
fn schemes(folder: &Path) -> Vec<String> {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let arch = ArchSpec::from_checkpoint(&checkpoint).unwrap();
    arch.check_tensors(&checkpoint).unwrap();
    let layers = (0..arch.sizes.layers).flat_map(|layer| arch.linears(layer));
    layers.map(|linear| arch.scheme(&linear, Precision::Bf16).unwrap().to_string()).collect()
}

#[test]
fn a_side_file_says_what_the_configuration_would() {
    let settings =
        |name: &str| read_json(&fixture(name).join("config.json"))["quantization_config"].clone();
    let hf_quant = |name: &str| read_json(&fixture(name).join("hf_quant_config.json"));
    let mut gptq = settings("gptq-v1");
    gptq.as_object_mut().unwrap().remove("quant_method");
    let awq = json!({"zero_point": true, "q_group_size": 32, "w_bit": 4, "version": "GEMM"});
    let cases = [
        ("modelopt-fp8", "hf_quant_config.json", hf_quant("modelopt-fp8")),
        ("modelopt-int8-sq", "hf_quant_config.json", hf_quant("modelopt-int8-sq")),
        ("modelopt-int4-awq", "hf_quant_config.json", hf_quant("modelopt-int4-awq")),
        ("awq-gemm", "quant_config.json", awq),
        ("gptq-v1", "quantize_config.json", gptq),
        // A tool that writes another's format says so.
        ("awq-gemm", "quantize_config.json", settings("awq-gemm")),
        ("gptq-v1", "quant_config.json", settings("gptq-v1")),
    ];
    for (name, file, content) in cases {
        let method = settings(name)["quant_method"].clone();
        let folder = silent_copy(name, &[(file, content)]);
        assert_eq!(schemes(&folder), schemes(&fixture(name)), "{name} by {file}");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let found = Quantization::of(&checkpoint).unwrap().map(|q| q.method());
        assert_eq!(json!(found), method, "{name} by {file}");
    }
}

#[test]
fn codes_without_settings_are_not_taken_for_weights() {
    for name in ["modelopt-fp8", "ct-fp8", "ct-w4a16", "gptq-v1", "awq-gemm", "ct-w8a8"] {
        let checkpoint = Checkpoint::open(&silent_copy(name, &[])).unwrap();
        let arch = ArchSpec::from_checkpoint(&checkpoint).unwrap();
        assert!(arch.check_tensors(&checkpoint).is_err(), "{name}");
    }
}

#[test]
fn a_file_left_over_from_weights_that_are_plain_again_is_passed_over() {
    let plain = common::data("tiny/llama-gqa");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("side_files").join("left_over");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(plain.join(name), folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("quantize_config.json"), r#"{"bits": 4, "group_size": 128}"#)
        .unwrap();
    assert_eq!(Quantization::of(&Checkpoint::open(&folder).unwrap()).unwrap(), None);
}
