//! The default model, SmolLM2-135M-Instruct, against `transformers` on the same weights in f32.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use bantam_checkpoint::fetch;
use bantam_cpu::{Cpu, CpuOptions};
use bantam_model::{LoadOptions, Precision};
use common::{data, greedy, ids, load, logits_in_chunks, numbers, read_json};
use serde_json::Value;

/// Largest difference of a logit: 30 layers of f32 sums in another order.
const TOLERANCE: f32 = 2e-3;

#[test]
fn logits_and_greedy_tokens_are_those_of_transformers() {
    let path = fetch::resolve("smollm2", &mut |_| {}).unwrap();
    let options = LoadOptions {
        precision: Precision::F32,
        max_context: Some(256),
        max_batch_tokens: 160,
        max_logit_rows: 160,
        ..Default::default()
    };
    let cpu = Cpu::new(CpuOptions::default()).unwrap();
    let mut decoder = load(cpu, &path, &options).unwrap();
    assert_eq!(decoder.plan().weights_bytes, decoder.weight_bytes());
    let golden = read_json(&data("smollm2_golden.json"));
    let probes = ids(&golden["probe_ids"]);
    let blocks: Vec<u32> = (0..decoder.num_blocks() as u32).collect();

    for prompt in golden["prompts"].as_array().unwrap() {
        let tokens = ids(&prompt["ids"]);
        let chunks = [tokens.len() / 2, tokens.len() - tokens.len() / 2 - 1, 1];
        let logits = logits_in_chunks(&mut decoder, &tokens, &blocks, &chunks);
        for want in prompt["positions"].as_array().unwrap() {
            check_position(want, &probes, &logits);
        }
        let nll: f64 = tokens[1..]
            .iter()
            .zip(&logits)
            .map(|(&next, row)| log_sum_exp(row) - f64::from(row[next as usize]))
            .sum();
        let (got, want) = (nll / (tokens.len() - 1) as f64, prompt["mean_nll"].as_f64().unwrap());
        assert!((got - want).abs() < 1e-4, "mean loss {got}, transformers {want}");

        let want = ids(&prompt["greedy"]);
        assert_eq!(greedy(&mut decoder, &tokens, &blocks, want.len()), want);
    }
}

fn check_position(want: &Value, probes: &[u32], logits: &[Vec<f32>]) {
    let position = want["position"].as_u64().unwrap() as usize;
    let row = &logits[position];
    for (some, values) in [(probes.to_vec(), "probe_logits"), (ids(&want["top_ids"]), "top_logits")]
    {
        for (id, value) in some.into_iter().zip(numbers::<f32>(&want[values])) {
            let got = row[id as usize];
            assert!(
                (got - value).abs() <= TOLERANCE,
                "position {position}, token {id}: {got}, transformers {value}"
            );
        }
    }
    let difference = log_sum_exp(row) - want["logsumexp"].as_f64().unwrap();
    assert!(difference.abs() <= f64::from(TOLERANCE), "position {position}: {difference}");
}

fn log_sum_exp(row: &[f32]) -> f64 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    f64::from(max) + row.iter().map(|&v| f64::from(v - max).exp()).sum::<f64>().ln()
}
