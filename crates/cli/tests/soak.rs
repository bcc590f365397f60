//! `bantam bench soak` against the real server, for seconds instead of minutes.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;
mod serving;
#[allow(dead_code)] // only a server that is none is needed
#[path = "../../eval/tests/sse_server/mod.rs"]
mod sse_server;

use std::time::Duration;

use common::{Finished, bantam, folder, run};
use serde_json::Value;
use serving::{send_signal, serve, tiny_model};
use sse_server::start;

/// A model so small that its prompts fit into a few blocks.
fn model(test: &str) -> String {
    format!("tiny={}", tiny_model(test, 3).display())
}

#[test]
fn a_short_soak_holds() {
    // Few places and few blocks: some wait, some are turned away, some lose their blocks.
    let options = ["--max-num-seqs", "12", "--max-waiting", "16", "--max-model-len", "1024"];
    let server = serve(&[&model("soak-holds")], &[&options[..], &["--log", "off"]].concat());
    let report = folder("soak-report").join("soak.md");
    let size =
        ["--clients", "40", "--duration", "10", "--prompt-words", "100", "--max-tokens", "48"];
    // More of what is rare: there is little time.
    let rare = ["--malformed", "0.1", "--repeat", "0.3", "--max-growth", "64"];
    let output = ["--json", "--url", &server.url, "--report", report.to_str().unwrap()];
    let finished = run(&[&["bench", "soak"], &size[..], &rare, &output].concat());
    assert_eq!(finished.code, Some(0), "{}{}", finished.stdout, finished.stderr);
    let found = finished.json();
    let found = &found["report"];
    for verdict in found["checks"].as_array().unwrap() {
        assert_eq!(verdict["wrong"], 0, "{verdict}");
        assert!(verdict["examined"].as_u64().unwrap() > 0, "no occasion: {verdict}");
    }
    let number = |of: &Value| of.as_u64().unwrap();
    assert!(number(&found["seen"]["answered"]) > 40 && number(&found["seen"]["cancelled"]) > 0);
    assert_eq!(found["seen"]["kinds"].as_object().unwrap().len(), 8);
    assert_eq!(found["server"]["blocks"][0], 0);
    let page = std::fs::read_to_string(report).unwrap();
    assert!(page.contains("Everything holds.") && page.contains("latency (ms)"), "{page}");
}

#[test]
fn ctrl_c_reports_what_there_is() {
    let server = serve(&[&model("soak-ctrl-c")], &["--log", "off"]);
    let size = ["--clients", "8", "--duration", "600", "--prompt-words", "8", "--max-tokens", "8"];
    let child = bantam(&[&["bench", "soak", "--json", "--url", &server.url], &size[..]].concat())
        .spawn()
        .unwrap();
    serving::block_on(async {
        let client = server.client();
        let mut made = 0;
        while made < 500 {
            made = serving::metric(&client, "bantam_generated_tokens_total{model=\"tiny\"}").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    send_signal(child.id(), "-INT");
    let finished = Finished::from(child.wait_with_output().unwrap());
    assert_eq!(finished.code, Some(130), "{}{}", finished.stdout, finished.stderr);
    let found = finished.json();
    assert_eq!(found["report"]["interrupted"], true);
    assert_eq!(found["report"]["server"]["blocks"][0], 0, "{found}");
}

#[test]
fn what_cannot_be_soaked_is_refused_in_one_line() {
    let other = start(&["tiny"], |_| sse_server::Reply::Whole {
        status: 404,
        headers: "",
        body: Value::Null,
    });
    let refused =
        |options: &[&str]| run(&[&["bench", "soak"], options].concat()).refusal().to_owned();
    let message = refused(&["--url", &other.url]);
    assert!(message.contains("needs a `bantam serve`"), "{message}");
    let message = refused(&["--url", "http://127.0.0.1:1"]);
    assert!(message.contains("start one with `bantam serve MODEL`"), "{message}");
    let message = refused(&["--cancel", "0.9", "--malformed", "0.2"]);
    assert!(message.ends_with("use at most 1 together"), "{message}");
    let message = refused(&["--report", "/no/such/folder/soak.md"]);
    assert!(message.contains("/no/such/folder/soak.md"), "{message}");
}

#[test]
fn a_short_attack_is_reported() {
    let server = serve(&[&model("soak-hostile")], &["--max-model-len", "1024", "--log", "off"]);
    let report = folder("hostile-report").join("hostile.md");
    let size = ["--hostile", "--clients", "8", "--duration", "12", "--quiet", "4"];
    let output = ["--json", "--url", &server.url, "--report", report.to_str().unwrap()];
    let finished = run(&[&["bench", "soak"], &size[..], &output].concat());
    let found = finished.json();
    let found = &found["report"];
    let holds = |name: &str| {
        let checks = found["checks"].as_array().unwrap();
        checks.iter().find(|check| check["check"].as_str().unwrap().contains(name)).unwrap().clone()
    };
    // The machine of a test is too busy for times; the rest holds on any.
    assert_eq!(holds("/health says ready")["holds"], true, "{found}");
    assert_eq!(holds("no step fails")["holds"], true, "{found}");
    let attacks = found["attacks"].as_array().unwrap();
    let of = |name: &str| {
        let found = attacks.iter().find(|attack| attack["attack"] == name);
        found.unwrap_or_else(|| panic!("no {name}")).clone()
    };
    for name in ["repetition_penalty 1e-38", "frequency_penalty -3e38", "timeout 1e300"] {
        assert_eq!(of(name)["verdict"], "held", "{}", of(name));
        assert!(of(name)["outcomes"]["400"].as_u64().unwrap() > 0, "{}", of(name));
    }
    let page = std::fs::read_to_string(report).unwrap();
    assert!(page.contains("waiting (ms)") && page.contains("ambiguous Lark"), "{page}");
}

#[test]
fn an_attack_and_a_soak_have_options_of_their_own() {
    let refused = run(&["bench", "soak", "--hostile", "--cancel", "0.1"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    let refused = run(&["bench", "soak", "--quiet", "3"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
}
