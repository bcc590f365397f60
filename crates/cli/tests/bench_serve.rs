//! `bantam bench serve` against a server whose behaviour is known.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;
#[path = "../../eval/tests/sse_server/mod.rs"]
mod sse_server;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{Finished, bantam, folder, run};
use serde_json::json;
use sse_server::{Reply, Server, chat, start};

/// A server that answers with two tokens.
fn server() -> Server {
    start(&["tiny"], |_| chat(Duration::from_millis(5), Duration::from_millis(2), 2, 2))
}

/// Measures a server with these options.
fn bench(server: &Server, options: &str, more: &[&str]) -> Finished {
    let mut arguments = vec!["bench", "serve", "--url", &server.url];
    arguments.extend(options.split(' '));
    arguments.extend(more);
    run(&arguments)
}

/// A request file with these lines.
fn request_file(test: &str, lines: &[&str]) -> String {
    let path = folder(test).join("requests.jsonl");
    std::fs::write(&path, lines.join("\n")).unwrap();
    path.display().to_string()
}

#[test]
fn a_sweep_is_reported_in_json_with_plots() {
    let server = server();
    let lines =
        ["{\"instruction\": \"a\", \"input\": \"\", \"output\": \"x\"}", "{\"prompt\": \"b\"}"];
    let requests = request_file("bench-serve-sweep", &lines);
    let plots = folder("bench-serve-plots");
    let options = "--static-batch 2 --concurrency 1 --rate inf --rounds 2 --json";
    let files = ["--requests", &requests, "--plot", plots.to_str().unwrap()];
    let found = bench(&server, options, &files).json();
    assert_eq!(found["server"]["model"], "tiny");
    let points = found["points"].as_array().unwrap();
    let arrivals: Vec<_> = points.iter().map(|point| point["arrivals"].clone()).collect();
    let expected = [
        json!({ "concurrency": 1 }),
        json!({ "concurrency": 2 }),
        json!({ "static_batch": 2 }),
        json!({ "rate": "inf" }),
    ];
    assert_eq!(arrivals, expected);
    for point in points {
        assert_eq!((&point["rounds"], &point["complete"]), (&json!(2), &json!(4)));
        assert_eq!(point["output_tokens"], 8);
        assert!(point["time_to_first_token"]["p50"].as_f64().unwrap() >= 0.005);
        let (seconds, speed) = (&point["duration"], &point["output_tokens_per_second"]);
        let tokens = seconds.as_f64().unwrap() * speed.as_f64().unwrap();
        assert!((tokens - 8.0).abs() < 1e-9);
    }
    assert_eq!(found["in_flight_against_static"][0]["batch"], 2);
    // Prompts differ from run to run.
    let asked = server.seen.asked.lock().unwrap();
    let mut bodies: Vec<&str> = asked.iter().map(|asked| asked.body.as_str()).collect();
    bodies.retain(|body| body.contains("messages"));
    let sent = bodies.len();
    bodies.sort_unstable();
    bodies.dedup();
    assert_eq!((bodies.len(), sent), (2 * 9, 2 * 9));
    let names: Vec<_> = std::fs::read_dir(&plots).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(names.len(), 9, "{names:?}");
    for name in names {
        assert!(std::fs::read_to_string(name).unwrap().ends_with("</svg>\n"));
    }
}

#[test]
fn a_sweep_is_reported_in_tables() {
    let server = server();
    let found = bench(&server, "--num-requests 3 --output-tokens 2 --static-batch 2", &[]);
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    let lines: Vec<&str> = found.stdout.lines().collect();
    assert!(lines[0].starts_with(&format!("tiny at {}, made-up prompts; client on ", server.url)));
    assert!(lines[1].ends_with("TokensPerSecond"), "{}", found.stdout);
    for (line, point) in [(3, "concurrency 2"), (4, "static batch 2")] {
        let counts = lines[line].strip_prefix(point).unwrap();
        let counts: Vec<&str> = counts.split_whitespace().take(2).collect();
        assert_eq!(counts, ["3", "0"], "answered and failed");
    }
    for row in ["first token", "between tokens", "per token", "end to end", "in flight (tok/s)"] {
        assert!(found.stdout.contains(row), "{}", found.stdout);
    }
}

#[test]
fn what_cannot_be_measured_is_refused_in_one_line() {
    let server = start(&["tiny"], |_| Reply::Whole {
        status: 400,
        headers: "",
        body: json!({ "error": { "message": "no\nsuch field" } }),
    });
    let lines = ["{\"prompt\": \"a\"}", "{\"question\": \"b\"}"];
    let requests = request_file("bench-serve-wrong", &lines);
    let refused =
        |arguments: &[&str]| run(&[&["bench", "serve"], arguments].concat()).refusal().to_owned();
    let message = refused(&["--url", "http://127.0.0.1:1"]);
    assert!(message.contains("start one with `bantam serve MODEL`"), "{message}");
    let message = refused(&["--url", "https://host"]);
    assert!(message.contains("TLS is not supported"), "{message}");
    let message = refused(&["--url", &server.url, "--requests", &requests]);
    assert!(message.contains("requests.jsonl, line 2: no prompt; expected one of"), "{message}");
    let message = refused(&["--url", &server.url, "--requests", "none.jsonl"]);
    assert!(message.contains("none.jsonl"), "{message}");
    let message = refused(&["--url", &server.url, "--model", "other"]);
    assert!(message.ends_with("the server has no model \"other\"; it has tiny"), "{message}");
    let message = refused(&["--url", &server.url]);
    assert_eq!(message, "a warm-up request failed: the server answered 400: no such field");
    let message = refused(&["--url", &server.url, "--warmup", "0", "--num-requests", "2"]);
    assert!(message.starts_with("no request was answered; the first failed: "), "{message}");
    let message = refused(&["--output-tokens", "reference"]);
    assert!(message.ends_with("give --requests"), "{message}");
}

#[test]
#[cfg(unix)]
fn ctrl_c_reports_what_is_complete() {
    // The first requests are answered at once, the others never.
    let server = start(&["tiny"], |asked| match asked.body.contains("number 9") {
        false => chat(Duration::ZERO, Duration::ZERO, 1, 1),
        true => chat(Duration::from_secs(600), Duration::ZERO, 1, 1),
    });
    let lines = (0..10).map(|number| format!("{{\"prompt\": \"number {number}\"}}"));
    let lines: Vec<String> = lines.collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let requests = request_file("bench-serve-ctrl-c", &lines);
    let child = bantam(&["bench", "serve", "--url", &server.url, "--requests", &requests])
        .args(["--concurrency", "2", "--json"])
        .spawn()
        .unwrap();
    let stuck = || server.seen.asked.lock().unwrap().iter().any(|a| a.body.contains("number 9"));
    let deadline = Instant::now() + Duration::from_secs(60);
    while !stuck() {
        assert!(Instant::now() < deadline, "the last request never comes");
        std::thread::sleep(Duration::from_millis(10));
    }
    // By now the answers before it are read.
    std::thread::sleep(Duration::from_millis(200));
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupt.unwrap().success());
    let finished = Finished::from(child.wait_with_output().unwrap());
    assert_eq!(finished.code, Some(130), "{}", finished.stderr);
    let found = finished.json();
    assert_eq!(found["options"]["interrupted"], true);
    assert_eq!(found["points"][0]["complete"], 9);
}
