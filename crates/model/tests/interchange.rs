//! Folders that other tools wrote: Bantam's logits are those of the tool's own forward pass.
//!
//! `tools/interchange` makes the fixtures, and says of each what its golden logits are.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::path::{Path, PathBuf};

use bantam_backend::Backend;
use bantam_backend::reference::Reference;
use bantam_model::{LoadOptions, Precision};
use common::{ids, load, logits_in_chunks, max_difference, numbers, read_json};

/// Every fixture.
fn folders() -> Vec<PathBuf> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/interchange");
    let entries = std::fs::read_dir(fixtures).unwrap();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 12);
    folders
}

/// The largest difference of a logit, in units of the largest logit.
fn error<B: Backend>(backend: B, folder: &Path) -> f32 {
    let golden = read_json(&folder.join("golden.json"));
    let tokens = ids(&golden["tokens"]);
    let want: Vec<f32> =
        golden["logits"].as_array().unwrap().iter().flat_map(numbers::<f32>).collect();
    // Weight-only layers and attention compute in f32 then, as the tools do; inputs in 8 bits are the
    // model's.
    let options = LoadOptions {
        precision: Precision::F32,
        max_logit_rows: tokens.len(),
        ..Default::default()
    };
    let mut decoder =
        load(backend, folder, &options).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let got = logits_in_chunks(&mut decoder, &tokens, &[0], &[tokens.len()]).concat();
    let largest = want.iter().fold(0f32, |largest, v| largest.max(v.abs()));
    max_difference(&got, &want) / largest
}

fn check(backend: &(impl Backend + Clone)) {
    let mut off = Vec::new();
    for folder in folders() {
        let error = error(backend.clone(), &folder);
        println!("{:32} {error:.2e}", folder.file_name().unwrap().display());
        if error > 1e-3 {
            off.push(format!("{}: {error}", folder.display()));
        }
    }
    assert!(off.is_empty(), "{}", off.join("\n"));
}

#[test]
fn reference_gives_the_logits_of_the_tools() {
    check(&Reference);
}

#[test]
fn cpu_gives_the_logits_of_the_tools() {
    for cpu in common::cpus() {
        check(&cpu);
    }
}

#[test]
fn quantized_layers_stay_as_stored() {
    for folder in folders() {
        let decoder = load(Reference, &folder, &LoadOptions::default()).unwrap();
        let plan = decoder.plan();
        assert_eq!(decoder.weight_bytes(), plan.weights_bytes, "{}", folder.display());
        let quantized = plan.schemes.iter().filter(|share| share.scheme != "bf16");
        let layers = decoder.arch().sizes.layers;
        assert_eq!(quantized.clone().map(|share| share.layers).sum::<usize>(), 4 * layers);
        // A scheme names its activations after a stroke.
        let most = quantized.max_by_key(|share| share.layers).unwrap();
        assert_eq!(decoder.activation().is_scaled(), most.scheme.contains('/'), "{}", most.scheme);

        let int8 = LoadOptions { precision: Precision::Int8, ..Default::default() };
        let refusal = load(Reference, &folder, &int8).err().unwrap().to_string();
        assert!(refusal.contains("(--dtype) is int8, expected bf16"), "{refusal}");
        assert!(refusal.contains("quantized already"), "{refusal}");
    }
}
