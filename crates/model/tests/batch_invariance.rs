//! A row's logits do not depend on its neighbours: alone or mixed with other sequences, in any
//! chunks, in any blocks, the bits are the same.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use bantam_backend::reference::Reference;
use bantam_backend::{Backend, Batch};
use bantam_model::{Decoder, LoadOptions, Precision};
use common::{Random, Sequence, data, load};

const SEQUENCES: usize = 3;
const MAX_TOKENS: usize = 40;
/// Enough blocks for each sequence's longest context.
const MAX_CONTEXT: usize = 64;

fn precisions() -> [Precision; 9] {
    let words =
        ["f32", "bf16", "int8", "int4-sym", "int4-g16", "fp8", "fp8-wo", "w8a8", "w4a8-g16"];
    words.map(|word| word.parse().unwrap())
}

fn decoder<B: Backend>(backend: B, name: &str, precision: Precision) -> Decoder<B> {
    let options = LoadOptions {
        precision,
        max_context: Some(MAX_CONTEXT),
        max_batch_tokens: SEQUENCES * MAX_TOKENS,
        max_sequences: SEQUENCES,
        max_logit_rows: SEQUENCES * MAX_TOKENS,
        ..Default::default()
    };
    load(backend, &data(&format!("tiny/{name}")), &options).unwrap()
}

/// Random sequences in random blocks of the cache; no block belongs to two.
fn sequences<B: Backend>(decoder: &Decoder<B>, random: &mut Random) -> Vec<Sequence> {
    let each = MAX_TOKENS.div_ceil(decoder.block_tokens());
    let blocks = random.choose(SEQUENCES * each, decoder.num_blocks());
    let vocabulary = decoder.arch().sizes.vocabulary;
    let sequence = |blocks: &[u32]| {
        let tokens = 1 + random.below(MAX_TOKENS);
        let tokens: Vec<u32> = (0..tokens).map(|_| random.below(vocabulary) as u32).collect();
        Sequence::new(&tokens, blocks.to_vec())
    };
    blocks.chunks_exact(each).map(sequence).collect()
}

/// Logits of every token as bits, for each sequence, computed in steps of `next(left)` tokens of
/// each unfinished sequence.
fn run<B: Backend>(
    decoder: &mut Decoder<B>,
    sequences: &[Sequence],
    mut next: impl FnMut(usize) -> usize,
) -> Vec<Vec<u32>> {
    let mut sequences = sequences.to_vec();
    let mut logits = vec![Vec::new(); sequences.len()];
    while sequences.iter().any(|s| s.computed < s.tokens.len()) {
        let (mut batch, mut owners) = (Batch::default(), Vec::new());
        for (index, sequence) in sequences.iter_mut().enumerate() {
            let left = sequence.tokens.len() - sequence.computed;
            let count = next(left).min(left);
            if count > 0 {
                sequence.push(&mut batch, count);
                owners.extend(std::iter::repeat_n(index, count));
            }
        }
        if owners.is_empty() {
            continue;
        }
        batch.want_all_logits();
        let values = decoder.forward(&batch).unwrap();
        let rows = values.chunks_exact(decoder.arch().sizes.vocabulary);
        for (owner, row) in owners.into_iter().zip(rows) {
            logits[owner].extend(row.iter().map(|v| v.to_bits()));
        }
    }
    logits
}

fn check<B: Backend>(decoder: &mut Decoder<B>, seed: u64) {
    let mut random = Random(0x9E37_79B9_7F4A_7C15 + seed);
    let batch = sequences(decoder, &mut random);
    let alone: Vec<Vec<u32>> = batch
        .iter()
        .flat_map(|sequence| run(decoder, std::slice::from_ref(sequence), |left| left))
        .collect();
    let mixed = run(decoder, &batch, |_| random.below(9));
    let moved: Vec<Sequence> = {
        let blocks = sequences(decoder, &mut random);
        let pairs = batch.iter().zip(blocks);
        pairs.map(|(s, other)| Sequence::new(&s.tokens, other.blocks)).collect()
    };
    let moved = run(decoder, &moved, |left| left);
    let name = decoder.backend().describe();
    for (other, how) in [(mixed, "mixed in random chunks"), (moved, "mixed, in other blocks")] {
        assert!(other == alone, "{name}, {}, {how}, seed {seed}", decoder.options().precision);
    }
}

fn check_all<B: Backend>(backend: impl Fn() -> B, cases: u64) {
    for name in ["llama-gqa", "mistral-window", "qwen3"] {
        for precision in precisions() {
            let mut decoder = decoder(backend(), name, precision);
            for seed in 0..cases {
                check(&mut decoder, seed);
            }
        }
    }
}

#[test]
fn on_the_reference_back_end() {
    check_all(|| Reference, 2);
}

#[test]
fn on_the_cpu_back_end() {
    for cpu in common::cpus() {
        check_all(|| cpu.clone(), 6);
    }
}
