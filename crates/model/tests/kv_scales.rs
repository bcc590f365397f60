//! Scales of the key/value cache that a checkpoint brings.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::path::Path;

use bantam_backend::reference::Reference;
use bantam_backend::{Backend, KvFormat};
use bantam_model::{LoadOptions, Precision};
use common::{Files, cpus, data, load, logits_in_chunks, max_difference};
use serde_json::json;

const TOKENS: [u32; 12] = [3, 14, 15, 9, 2, 6, 5, 35, 8, 9, 7, 9];

/// A model with these scales at every layer.
fn with_scales(places: [&str; 2], scale: f32, kind: &str) -> Files {
    let mut files = Files::read(&data("tiny/llama-gqa"));
    for layer in 0..2 {
        for place in places {
            let name = format!("model.layers.{layer}.self_attn.{place}");
            files.tensors.push((name, vec![1], vec![scale]));
        }
    }
    files.config["quantization_config"] = json!({
        "quant_method": "compressed-tensors",
        "kv_cache_scheme": {"num_bits": 8, "type": kind, "dynamic": false},
    });
    files
}

const BESIDE_ATTENTION: [&str; 2] = ["k_scale", "v_scale"];
const BESIDE_PROJECTIONS: [&str; 2] = ["k_proj.k_scale", "v_proj.v_scale"];

/// How such models differ from one that finds a scale for each token.
fn check<B: Backend + Clone>(backend: &B) {
    let options = LoadOptions {
        precision: Precision::F32, // nothing but the cache is rounded
        max_logit_rows: TOKENS.len(),
        ..Default::default()
    };
    let logits = |path: &Path, kv_format, expected| {
        let options = LoadOptions { kv_format, ..options.clone() };
        let mut decoder = load(backend.clone(), path, &options).unwrap();
        assert_eq!(decoder.kv_layout().format, expected);
        let whole = logits_in_chunks(&mut decoder, &TOKENS, &[0], &[12]).concat();
        let parts = logits_in_chunks(&mut decoder, &TOKENS, &[0], &[5, 1, 6]).concat();
        assert_eq!(whole, parts);
        whole
    };
    let plain = data("tiny/llama-gqa");
    let exact = logits(&plain, None, KvFormat::F32);
    for (kind, format) in [("float", KvFormat::Fp8), ("int", KvFormat::Int8)] {
        let dynamic = max_difference(&logits(&plain, Some(format), format), &exact);
        let own = |name: &str, places, scale| {
            let path = with_scales(places, scale, kind).write(&format!("kv_{kind}_{name}"));
            logits(&path, None, format)
        };
        // No key or value of this model is larger than 16.
        let covering = if format == KvFormat::Fp8 { 16.0 / 448.0 } else { 16.0 / 127.0 };
        let beside_attention = own("attention", BESIDE_ATTENTION, covering);
        assert_eq!(beside_attention, own("projections", BESIDE_PROJECTIONS, covering));
        let calibrated = max_difference(&beside_attention, &exact);
        assert!(calibrated > 0.0 && calibrated < 10.0 * dynamic, "{kind}: {calibrated} {dynamic}");
        // A scale of nearly nothing clips all keys and values, which changes what is attended to.
        let clipped = max_difference(&own("clipped", BESIDE_ATTENTION, 1e-6), &exact);
        assert!(clipped > 2.0 * calibrated, "{kind}: {clipped} {calibrated} {dynamic}");
    }
}

#[test]
fn the_checkpoint_says_format_and_scales() {
    check(&Reference);
    cpus().iter().for_each(check);
}

#[test]
fn scales_of_no_use_are_refused() {
    let refusal = |name: &str, spoil: fn(&mut Files)| {
        let mut files = with_scales(BESIDE_ATTENTION, 0.01, "float");
        spoil(&mut files);
        let path = files.write(&format!("kv_refusal_{name}"));
        load(Reference, &path, &LoadOptions::default()).err().unwrap().to_string()
    };
    let missing = refusal("missing", |files| files.remove("model.layers.1.self_attn.v_scale"));
    assert!(missing.contains("model.layers.1.self_attn.v_scale"), "{missing}");
    let zero = refusal("zero", |files| files.tensor("model.layers.0.self_attn.k_scale").2[0] = 0.0);
    assert!(zero.contains("k_scale` is 0, expected one positive number"), "{zero}");
    let bits = refusal("bits", |files| {
        files.config["quantization_config"]["kv_cache_scheme"]["num_bits"] = json!(4);
    });
    assert!(
        bits.contains("kv_cache_scheme with num_bits 4 is not supported; supported: 8"),
        "{bits}"
    );
    let weights = refusal("weights", |files| {
        files.config["quantization_config"]["config_groups"] =
            json!({"group_0": {"targets": ["Linear"]}});
    });
    assert!(weights.contains("a group without weights is not supported"), "{weights}");
}
