//! `bantam run` as a user sees it.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{bantam, run, run_with_input};
use serde_json::Value;

const CAPITAL: [&str; 10] = [
    "run",
    "smollm2",
    "--raw",
    "--prompt",
    "The capital of France is",
    "--temperature",
    "0",
    "--json",
    "--max-tokens",
    "12",
];

fn ids(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
}

#[test]
fn greedy_tokens_are_those_of_transformers() {
    let finished = run(&[&CAPITAL[..], &["--dtype", "f32"]].concat());
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let answer = finished.json();
    assert_eq!(ids(&answer["tokens"]), [7042, 30, 198, 198, 504, 2988, 314, 42, 216, 34, 32, 33]);
    assert_eq!(answer["prompt_tokens"], 5);
    assert_eq!(answer["finish_reason"], "length");
    assert_eq!(answer["text"], " Paris.\n\nThe answer is: 201");
    assert_eq!(answer["timings"]["prefill_tokens"], 5);
    assert_eq!(answer["timings"]["decode_tokens"], 11);
    assert!(answer["timings"]["decode_tokens_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_prompt_may_come_from_standard_input_and_the_text_is_streamed_plain() {
    let arguments = ["run", "smollm2", "--raw", "--temperature", "0", "--max-tokens", "2"];
    let finished = run_with_input(&arguments, "The capital of France is");
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(finished.stdout, " Paris.\n");
    assert_eq!(finished.stderr, ""); // no progress bar where there is no terminal
}

#[test]
fn a_seed_decides_the_answer_and_is_shown() {
    let sample = |seed: &[&str]| {
        let arguments =
            ["run", "smollm2", "--prompt", "Name a river.", "--max-tokens", "8", "--json"];
        run(&[&arguments[..], &["--temperature", "1.5", "--dtype", "int8"], seed].concat()).json()
    };
    let (first, second) = (sample(&[]), sample(&[]));
    assert_ne!(first["seed"], second["seed"]);
    let again = sample(&["--seed", &first["seed"].to_string()]);
    assert_eq!(again["seed"], first["seed"]);
    assert_eq!(again["tokens"], first["tokens"]);
}

#[test]
fn a_format_may_follow_the_model() {
    let arguments = ["--prompt", "Hi", "--max-tokens", "1", "--json"];
    let answer = run(&[&["run", "smollm2@int8"][..], &arguments].concat()).json();
    assert_eq!((&answer["model"], &answer["dtype"]), (&"smollm2".into(), &"int8".into()));
}

#[test]
#[cfg(unix)]
fn input_without_an_end_is_refused() {
    let zeros = std::fs::File::open("/dev/zero").unwrap();
    let child = bantam(&["run", "smollm2"]).stdin(zeros).spawn().unwrap();
    let finished = common::Finished::from(child.wait_with_output().unwrap());
    assert!(finished.refusal().starts_with("standard input: longer"), "{}", finished.stderr);
}

#[test]
fn stop_strings_end_the_answer_before_them() {
    let finished = run(&[&CAPITAL[..], &["--stop", "answer"]].concat());
    let answer = finished.json();
    assert_eq!(answer["finish_reason"], "stop");
    assert_eq!(answer["text"], " Paris.\n\nThe ");
}

#[test]
fn the_chat_template_is_used_unless_raw() {
    let chat = run(&["run", "smollm2", "--prompt", "Hi", "--max-tokens", "1", "--json"]).json();
    let raw = run(&["run", "smollm2", "--prompt", "Hi", "--max-tokens", "1", "--json", "--raw"]);
    assert_eq!(raw.json()["prompt_tokens"], 1);
    assert!(chat["prompt_tokens"].as_u64().unwrap() > 20);
}

#[test]
fn prompts_that_cannot_be_answered_are_refused_with_a_way_out() {
    for prompt in ["", "  \n"] {
        let finished = run(&["run", "smollm2", "--prompt", prompt]);
        assert!(finished.refusal().contains("the prompt is empty"), "{}", finished.stderr);
        let piped = run_with_input(&["run", "smollm2"], prompt);
        assert!(piped.refusal().contains("--prompt TEXT"), "{}", piped.stderr);
    }
    let long = "river ".repeat(9000);
    let finished = run_with_input(&["run", "smollm2", "--raw"], &long);
    let message = finished.refusal();
    assert!(message.contains("context of 8192") && message.contains("shorten it by"), "{message}");
    let context = run(&["run", "smollm2", "--prompt", "Hi", "--context", "9000"]);
    assert!(context.refusal().contains("use 1 to 8192"), "{}", context.stderr);
}

#[test]
fn parameters_out_of_range_are_refused_by_name() {
    for (flag, value) in
        [("--temperature", "-1"), ("--top-p", "0"), ("--min-p", "2"), ("--repetition-penalty", "0")]
    {
        let finished = run(&["run", "smollm2", "--prompt", "Hi", flag, value]);
        let name = flag.trim_start_matches('-').replace('-', "_");
        assert!(finished.refusal().starts_with(&name), "{}", finished.stderr);
    }
    for (flag, value) in [("--top-k", "-1"), ("--max-tokens", "0")] {
        let usage = run(&["run", "smollm2", "--prompt", "Hi", flag, value]);
        assert_eq!(usage.code, Some(2));
        assert!(
            usage.stderr.contains(flag) && usage.stderr.contains("or more"),
            "{}",
            usage.stderr
        );
    }
    let usage = run(&["run", "smollm2", "--prompt", "Hi", "--dtype", "int3"]);
    assert_eq!(usage.code, Some(2));
    assert!(usage.stderr.contains("use f32, bf16, int8, int4"), "{}", usage.stderr);
}

/// Sends the signal of Ctrl-C.
#[cfg(unix)]
fn interrupt(process: u32) {
    let status = Command::new("kill").args(["-INT", &process.to_string()]).status().unwrap();
    assert!(status.success());
}

#[cfg(unix)]
const ENDLESS: [&str; 9] = [
    "run",
    "smollm2",
    "--raw",
    "--prompt",
    "Once upon a time",
    "--max-tokens",
    "8000",
    "--temperature",
    "1",
];

#[test]
#[cfg(unix)]
fn ctrl_c_ends_an_answer_cleanly() {
    let mut child = bantam(&ENDLESS).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // It is generating once the first text is there.
    let mut first = [0];
    stdout.read_exact(&mut first).unwrap();
    interrupt(child.id());
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(String::from_utf8(rest).unwrap().ends_with('\n'));
}

#[test]
#[cfg(unix)]
fn json_stays_valid_when_ctrl_c_is_pressed() {
    // The moment when generation begins is not visible from outside: a Ctrl-C that comes before it
    // ends the program with nothing printed, and the next attempt waits longer.
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut wait = Duration::from_millis(500);
    loop {
        assert!(Instant::now() < deadline, "never interrupted while generating");
        let child = bantam(&[&ENDLESS[..], &["--json"]].concat()).spawn().unwrap();
        std::thread::sleep(wait);
        interrupt(child.id());
        let finished = common::Finished::from(child.wait_with_output().unwrap());
        assert_eq!(finished.code, Some(130), "{}", finished.stderr);
        if !finished.stdout.is_empty() {
            let answer = finished.json();
            assert_eq!(answer["finish_reason"], "cancelled");
            assert!(answer["tokens"].is_array());
            return;
        }
        wait *= 2;
    }
}

#[test]
#[cfg(unix)]
fn a_reader_that_goes_away_ends_the_run_quietly() {
    let mut child = bantam(&ENDLESS).spawn().unwrap();
    drop(child.stdout.take());
    let finished = common::Finished::from(child.wait_with_output().unwrap());
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
}
