//! Choosing a recipe with the built binary.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use common::{folder, run, tiny_checkpoint};
use serde_json::Value;

/// The candidate of a recipe.
fn of<'a>(advice: &'a Value, recipe: &str) -> &'a Value {
    let candidates = advice["candidates"].as_array().unwrap();
    candidates.iter().find(|candidate| candidate["recipe"] == recipe).unwrap()
}

#[test]
fn this_machine_is_measured_and_every_recipe_judged() {
    let finished = run(&["advise", "smollm2", "--isl", "64", "--osl", "64", "--json"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let advice = finished.json();
    let number = |value: &Value| value.as_f64().unwrap();
    assert!(number(&advice["device"]["read_bytes_per_second"]) > 1e8);
    let none = of(&advice, "none");
    assert_eq!(number(&none["speed_up"]), 1.0);
    for recipe in ["int8_wo", "int4_awq", "w4a8_int8", "kv_only"] {
        let candidate = of(&advice, recipe);
        let bytes = |candidate: &Value| {
            let memory = candidate["memory"].as_object().unwrap();
            memory.values().map(|bytes| bytes.as_u64().unwrap()).sum::<u64>()
        };
        assert!(bytes(candidate) < bytes(none), "{recipe}");
        assert!(number(&candidate["speed"]["decode_tokens_per_second"]) > 1.0, "{recipe}");
    }
    assert_eq!(advice["recommended"], advice["candidates"][0]["recipe"]);
}

#[test]
fn gpus_are_known_and_the_table_explains_itself() {
    let finished =
        run(&["advise", "smollm2", "--device", "a100", "--batch", "4", "--max-loss", "2"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let parts = [
        "4 requests side by side, 512 tokens in and 128 out",
        "no fp8 (published)",
        "bf16, no fp8",
        "speed-up",
        "Recommended: ",
        "Left out:\n",
        "int4_wo: loses ",
        " %, more than --max-loss 2",
        "w4a8_int8: GPU engines",
        "Loss: rise of perplexity of SmolLM2-135M",
    ];
    for part in parts {
        assert!(finished.stdout.contains(part), "no {part} in {}", finished.stdout);
    }
    let widest = finished.stdout.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(widest <= 120, "{widest} characters in {}", finished.stdout);
}

#[test]
fn a_report_takes_the_place_of_predictions() {
    let model = tiny_checkpoint();
    let model = model.to_str().unwrap();
    let quantized = folder("advise").join("int8");
    let quantized = quantized.to_str().unwrap();
    let made = run(&["quantize", model, "--recipe", "int8_wo", "--no-eval", "--output", quantized]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);

    let short = ["--isl", "8", "--osl", "8", "--device", "h100"];
    let advise = |arguments: &[&str]| run(&[&["advise"], arguments, &short[..]].concat());
    let text = advise(&[model, "--report", quantized]);
    assert_eq!(text.code, Some(0), "{}", text.stderr);
    assert!(text.stdout.contains(&format!("* measured: int8_wo, {quantized}")), "{}", text.stdout);
    let advice = advise(&[model, "--report", quantized, "--json"]).json();
    let measured = of(&advice, "int8_wo");
    assert_eq!(measured["folder"], quantized);
    assert!(measured["calibration"]["measured"].is_number(), "{measured}");
    let report = std::fs::read_to_string(format!("{quantized}/report.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(measured["memory"]["weights_bytes"], report["quantized_bytes"]);

    let other = advise(&["smollm2", "--report", quantized]);
    assert!(other.refusal().contains("not of smollm2"), "{}", other.stderr);
    let again = advise(&[quantized]);
    assert!(again.refusal().contains("quantized already"), "{}", again.stderr);
    let nothing = advise(&[model, "--report", model]);
    assert!(nothing.refusal().contains("there is no report.json"), "{}", nothing.stderr);
    std::fs::write(format!("{quantized}/report.json"), "{\"recipe\": 1").unwrap();
    let broken = advise(&[model, "--report", quantized]);
    assert!(broken.refusal().contains("report.json"), "{}", broken.stderr);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let long = run(&["advise", "smollm2", "--isl", "8000", "--osl", "500"]);
    let message = long.refusal();
    assert!(message.contains("8500") && message.contains("8192"), "{message}");
    for (option, value, expected) in [
        ("--batch", "0", "1 to"),
        ("--isl", "0", "1 or more"),
        ("--osl", "many", "1 or more"),
        ("--max-loss", "-1", "0 or more"),
        ("--max-loss", "nan", "0 or more"),
        ("--device", "abacus", "h200"),
        ("--kv", "int4", "fp8 or int8"),
    ] {
        let finished = run(&["advise", "smollm2", &format!("{option}={value}")]);
        assert_eq!(finished.code, Some(2), "{option} {value}");
        assert!(finished.stderr.contains(expected), "{}", finished.stderr);
    }
}
