//! Beam search and scores of prompts against those of `transformers`, on a tiny checkpoint.
//!
//! `tools/golden/beam_search.py` makes the values.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::path::Path;

use bantam_checkpoint::Checkpoint;
use bantam_cpu::{Cpu, CpuOptions};
use bantam_engine::{BeamRequest, EngineHandle, HandleOptions, Request, beam_search};
use bantam_model::{Decoder, LoadOptions, Precision};
use common::block_on;
use serde_json::Value;

/// Largest difference of a logarithm that is rounding: an answer adds up a dozen, each of logits of
/// about 10 in f32.
const TOLERANCE: f64 = 1e-4;

fn handle() -> EngineHandle {
    EngineHandle::spawn(HandleOptions::default(), || {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/data/tiny/llama-gqa");
        let cpu = Cpu::new(CpuOptions { isa: None, threads: Some(2) })?;
        let options = LoadOptions {
            precision: Precision::F32,
            max_batch_tokens: 16,
            max_sequences: 4,
            max_logit_rows: 5,
            ..Default::default()
        };
        Ok(Decoder::load(cpu, &Checkpoint::open(&path)?, &options, &|_| {})?)
    })
    .unwrap()
}

fn cases() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/beam_search_golden.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

#[test]
fn beams_are_those_of_transformers() {
    let handle = handle();
    for case in cases() {
        let request = BeamRequest {
            max_tokens: Some(number(&case["max_tokens"])),
            stop_tokens: ids(&case["stop_tokens"]),
            length_penalty: case["length_penalty"].as_f64().unwrap(),
            ..BeamRequest::new(ids(&case["prompt"]), number(&case["width"]))
        };
        let beams = block_on(beam_search(&handle, &request)).unwrap();
        let answers = case["answers"].as_array().unwrap();
        assert_eq!(beams.len(), answers.len());
        for (beam, answer) in beams.iter().zip(answers) {
            assert_eq!(beam.tokens, ids(&answer["tokens"]), "{request:?}");
            if let Some(score) = answer["score"].as_f64() {
                let difference = (beam.score - score).abs() / score.abs().max(1.0);
                assert!(difference < TOLERANCE, "{} for {score}", beam.score);
            }
        }
    }
}

#[test]
fn scores_of_prompts_are_those_of_transformers() {
    let handle = handle();
    for case in cases() {
        let request = Request {
            max_tokens: Some(0),
            prompt_logprobs: Some(0),
            ..Request::new(ids(&case["prompt"]))
        };
        let scored = block_on(handle.submit(request).unwrap().answer()).unwrap();
        let expected = case["prompt_logprobs"].as_array().unwrap();
        assert_eq!(scored.prompt_logprobs.len(), expected.len());
        for (score, expected) in scored.prompt_logprobs.iter().zip(expected) {
            let difference = f64::from(score.chosen) - expected.as_f64().unwrap();
            assert!(difference.abs() < TOLERANCE, "{} for {expected}", score.chosen);
        }
    }
}
