//! Logits and greedy tokens of tiny checkpoints against those of `transformers`.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::path::Path;

use bantam_backend::Backend;
use bantam_backend::reference::Reference;
use bantam_model::{Decoder, LoadOptions, Precision};
use common::{Random, data, greedy, ids, logits_in_chunks, max_difference, numbers, read_json};

/// Largest difference of a logit that is rounding: logits are about 10, f32 sums some 100 terms.
const TOLERANCE: f32 = 1e-4;

/// Checkpoint and golden file of every tiny case.
fn cases() -> Vec<(std::path::PathBuf, std::path::PathBuf)> {
    let tiny = data("tiny");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(&tiny).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            cases.push((path.clone(), path.join("golden.json")));
        } else if path.extension().is_some_and(|extension| extension == "gguf") {
            let own = path.with_extension("golden.json");
            let golden =
                if own.exists() { own } else { path.with_extension("").join("golden.json") };
            cases.push((path, golden));
        }
    }
    cases.sort();
    assert!(cases.len() >= 16, "{} cases in {}", cases.len(), tiny.display());
    cases
}

fn decoder<B: Backend>(backend: B, path: &Path) -> Decoder<B> {
    let options = LoadOptions {
        precision: Precision::F32,
        max_batch_tokens: 64,
        max_logit_rows: 64,
        ..Default::default()
    };
    common::load(backend, path, &options).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// One prefill, then random chunks, then tokens one by one: all must give the golden logits.
fn check_case<B: Backend>(backend: B, path: &Path, golden: &Path) {
    let golden = read_json(golden);
    let prompt = ids(&golden["prompt"]);
    let positions = ids(&golden["positions"]);
    let want: Vec<f32> = numbers(&golden["logits"]);
    let greedy_tokens = ids(&golden["greedy"]);
    let mut decoder = decoder(backend, path);
    let name = format!("{} on {}", path.display(), decoder.backend().describe());
    let blocks: Vec<u32> = (0..decoder.num_blocks() as u32).rev().collect();

    let mut random = Random(7 + prompt.len() as u64);
    let mut chunks = random.chunks(prompt.len() - 5, 9);
    chunks.extend([1; 5]);
    for chunks in [vec![prompt.len()], chunks, vec![1; prompt.len()]] {
        let logits = logits_in_chunks(&mut decoder, &prompt, &blocks, &chunks);
        for (&position, want) in
            positions.iter().zip(want.chunks_exact(decoder.arch().sizes.vocabulary))
        {
            let difference = max_difference(&logits[position as usize], want);
            assert!(
                difference <= TOLERANCE,
                "{name}: position {position}, chunks {chunks:?}: off by {difference}"
            );
        }
    }
    let got = greedy(&mut decoder, &prompt, &blocks, greedy_tokens.len());
    assert_eq!(got, greedy_tokens, "{name}");
}

#[test]
fn reference_gives_the_logits_of_transformers() {
    for (path, golden) in cases() {
        check_case(Reference, &path, &golden);
    }
}

#[test]
fn cpu_gives_the_logits_of_transformers() {
    for cpu in common::cpus() {
        for (path, golden) in cases() {
            check_case(cpu.clone(), &path, &golden);
        }
    }
}
