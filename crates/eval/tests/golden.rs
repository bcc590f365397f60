//! The default model's perplexity against `transformers`; `tools/golden/perplexity.py` made the data.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

use bantam_checkpoint::{Checkpoint, fetch};
use bantam_cpu::{Cpu, CpuOptions};
use bantam_engine::Executor;
use bantam_eval::{Baseline, Convention, evaluate};
use bantam_model::{Decoder, LoadOptions, Precision};
use serde_json::Value;

fn load(precision: Precision, window: usize) -> Decoder<Cpu> {
    let path = fetch::resolve("smollm2", &mut |event| eprintln!("{event}")).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let cpu = Cpu::new(CpuOptions::default()).unwrap();
    let options = LoadOptions {
        precision,
        max_context: Some(window),
        max_batch_tokens: 100,
        max_logit_rows: 100,
        ..LoadOptions::default()
    };
    Decoder::load(cpu, &checkpoint, &options, &|_| {}).unwrap()
}

#[test]
fn perplexity_is_that_of_transformers() {
    let golden: Value = serde_json::from_str(include_str!("data/perplexity_golden.json")).unwrap();
    let ids: Vec<u32> =
        golden["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    let size = |case: &Value, key: &str| case[key].as_u64().unwrap() as usize;
    let window = size(&golden["strided"], "window");
    let mut full = load(Precision::F32, window);
    let mut int8 = load(Precision::Int8, window);
    for case in [&golden["non_overlapping"], &golden["strided"]] {
        let convention =
            Convention::new(size(case, "window"), Some(size(case, "stride")), false).unwrap();
        let windows = convention.windows(ids.len());
        let stated = case["windows"].as_array().unwrap();
        assert_eq!(windows.len(), stated.len());
        for (window, stated) in windows.iter().zip(stated) {
            assert_eq!(window.tokens, size(stated, "begin")..size(stated, "end"));
            assert_eq!(window.first_scored, size(stated, "first_scored"));
        }
        let mut models: [&mut dyn Executor; 2] = [&mut full, &mut int8];
        let scores =
            evaluate(&mut models, Baseline::First, &ids, &convention, 2, &mut |_| {}).unwrap();
        let [full, int8] = [scores[0].perplexity, scores[1].perplexity];
        assert_eq!(full.scored_tokens, size(case, "count"));
        let expected = case["ppl"].as_f64().unwrap();
        let error = (full.value() / expected - 1.0).abs();
        assert!(error < 1e-4, "perplexity {} differs from {expected} by {error:e}", full.value());

        // INT8 weights cost little, but they are not the same model.
        let divergence = scores[1].divergence.unwrap();
        let kl = divergence.kl_mean();
        assert!((1e-5..0.05).contains(&kl), "KL {kl}");
        assert!((int8.value() / expected - 1.0).abs() < 0.02);
        assert!((0.9..1.0).contains(&divergence.top1_agreement()));
    }
}
