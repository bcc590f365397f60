//! `bantam eval` and `bantam bench` as a user sees them.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use common::{folder, run};

#[test]
fn formats_of_a_model_are_compared_in_json() {
    let finished = run(&[
        "eval",
        "smollm2@int8",
        "smollm2@int4",
        "--against",
        "smollm2",
        "--limit",
        "96",
        "--window",
        "64",
        "--stride",
        "32",
        "--json",
    ]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let report = finished.json();
    assert_eq!(report["against"]["dtype"], "f32");
    let models = report["models"].as_array().unwrap();
    let dtypes: Vec<_> = models.iter().map(|model| model["dtype"].as_str().unwrap()).collect();
    assert_eq!(dtypes, ["int8", "int4"]);
    for model in models {
        assert_eq!(model["model"], "smollm2");
        assert_eq!(model["scored_tokens"], 95);
        assert_eq!(model["text_tokens"], 96);
        let convention = serde_json::json!({ "window": 64, "stride": 32, "bos": false });
        assert_eq!(model["convention"], convention);
        assert!(model["perplexity"].as_f64().unwrap() > 1.0);
        assert!(model["max_logit_delta"].as_f64().unwrap() > 0.0);
    }
    // Fewer bits, further away.
    let both = |key: &str| [0, 1].map(|i: usize| models[i][key].as_f64().unwrap());
    let ([kl_int8, kl_int4], [agreed_int8, agreed_int4]) =
        (both("kl_mean"), both("top1_agreement"));
    assert!(0.0 < kl_int8 && kl_int8 < kl_int4, "{kl_int8} {kl_int4}");
    assert!(1.0 >= agreed_int8 && agreed_int8 >= agreed_int4, "{agreed_int8} {agreed_int4}");
}

#[test]
fn the_table_states_the_convention() {
    let text = folder("text").join("short.txt");
    std::fs::write(&text, "The river has been crossed many times, and many times it has not.")
        .unwrap();
    let text = text.to_str().unwrap();
    let finished = run(&["eval", "smollm2", "--text", text, "--dtype", "int8"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    for part in ["perplexity", "smollm2", "int8", "windows of 2048", "short.txt", "no begin-of-seq"]
    {
        assert!(finished.stdout.contains(part), "no {part} in {}", finished.stdout);
    }
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let refusal =
        |arguments: &[&str]| run(&[&["eval", "smollm2"], arguments].concat()).refusal().to_owned();
    assert!(refusal(&["--window", "9000"]).contains("use --window 8192"));
    assert!(refusal(&["--window", "64", "--stride", "65"]).contains("1 to 64"));
    for limit in ["0", "1"] {
        assert!(refusal(&["--limit", limit]).contains("at least 2"));
    }
    let empty = folder("empty-text").join("text.txt");
    std::fs::write(&empty, "").unwrap();
    assert!(refusal(&["--text", empty.to_str().unwrap()]).contains("the text has 0 tokens"));
    #[cfg(unix)]
    assert!(refusal(&["--text", "/dev/zero"]).contains("--text /dev/zero: longer than"));
    assert!(refusal(&["--text", "no-such.txt"]).contains("no-such.txt"));
    let latin = folder("latin").join("text.txt");
    std::fs::write(&latin, b"caf\xe9").unwrap();
    assert!(refusal(&["--text", latin.to_str().unwrap()]).contains("not UTF-8 at byte 3"));
    assert_eq!(run(&["eval", "smollm2", "--task", "mmlu"]).code, Some(2));
}

#[test]
fn speed_is_reported_as_a_share_of_the_limit() {
    let finished = run(&[
        "bench",
        "model",
        "smollm2",
        "--dtype",
        "int8",
        "--prompt-tokens",
        "16",
        "--decode-tokens",
        "4",
        "--batch",
        "1,2",
        "--repetitions",
        "1",
        "--json",
    ]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let report = finished.json();
    assert!(report["ceilings"]["read_bytes_per_second"].as_f64().unwrap() > 1e8);
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for (result, batch) in results.iter().zip([1, 2]) {
        assert_eq!(result["speed"]["batch"], batch);
        assert!(result["speed"]["decode_tokens_per_second"].as_f64().unwrap() > 0.0);
        assert!(result["decode_share"].as_f64().unwrap() > 0.0);
    }
    let nothing = run(&["bench", "model", "smollm2", "--decode-tokens", "0"]);
    assert_eq!(nothing.code, Some(2));
    assert!(nothing.stderr.contains("expected 1 or more"), "{}", nothing.stderr);
}

#[test]
fn what_cannot_be_measured_is_refused_in_the_options_of_the_command() {
    let bench = |arguments: &[&str]| run(&[&["bench", "model", "smollm2"], arguments].concat());
    let long = bench(&["--prompt-tokens", "9000"]);
    let message = long.refusal();
    assert!(message.contains("--prompt-tokens 9000") && message.contains("8192"), "{message}");
    let batch = bench(&["--batch", "2000000"]);
    assert_eq!(batch.code, Some(2));
    assert!(batch.stderr.contains("--batch") && batch.stderr.contains("1 to"), "{}", batch.stderr);
}

#[test]
#[cfg(target_os = "linux")]
fn more_memory_than_there_is_is_refused_with_the_batch_that_fits() {
    let arguments = ["bench", "model", "smollm2", "--dtype", "int4", "--repetitions", "1"];
    let finished = run(&[&arguments[..], &["--batch", "1000000"]].concat());
    let message = finished.refusal();
    assert!(message.contains("of memory") && message.contains("use --"), "{message}");
    assert!(message.contains("--batch") && !message.contains("--context"), "{message}");
}

#[test]
fn help_teaches_with_examples() {
    for command in
        [&["--help"][..], &["run", "--help"], &["eval", "--help"], &["inspect", "--help"]]
    {
        let finished = run(command);
        assert_eq!(finished.code, Some(0));
        assert!(finished.stdout.contains("Examples:"), "{}", finished.stdout);
    }
    assert_eq!(run(&["no-such-command"]).code, Some(2));
}
