//! `bantam serve` when things go wrong: the real binary, its signals, its disk and its clients.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;
mod serving;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use common::{folder, run};
use serde_json::{Value, json};
use serving::{
    CONTEXT, block_on, complete, long_stream, metric, post, rest, serve, tiny_model, wait_for,
};

const RUNNING: &str = "bantam_requests_running{model=\"tiny\"}";
const CANCELLED: &str = "bantam_requests_cancelled_total{model=\"tiny\"}";
const HELD: &str = "bantam_cache_blocks{model=\"tiny\",state=\"referenced\"}";

/// The argument that serves a model under a name.
fn named(name: &str, test: &str, seed: u32) -> String {
    format!("{name}={}", tiny_model(test, seed).display())
}

#[test]
fn a_client_that_vanishes_gives_its_blocks_back() {
    let model = named("tiny", "serve-vanish", 1);
    let server = serve(&[&model], &[]);
    let client = server.client();
    block_on(async {
        // In the middle of a stream.
        let events = long_stream(&client, "in a stream", 2).await;
        drop(events);
        wait_for(&client, CANCELLED, 2).await;
        wait_for(&client, HELD, 0).await;
        // Before there is an answer.
        let body = json!({
            "model": "tiny", "prompt": "at once", "max_tokens": CONTEXT - 100, "ignore_eos": true,
        });
        let asking = tokio::spawn({
            let client = client.clone();
            async move { client.post("/v1/completions", body.to_string()).await.map(drop) }
        });
        wait_for(&client, RUNNING, 1).await;
        asking.abort();
        wait_for(&client, CANCELLED, 3).await;
        wait_for(&client, HELD, 0).await;
        wait_for(&client, RUNNING, 0).await;
        wait_for(&client, "bantam_http_clients_vanished_total", 2).await;
        assert_eq!(metric(&client, "bantam_requests_failed_total{model=\"tiny\"}").await, 0);
        assert!(!complete(&client, "tiny", "and on", 8).await.is_empty());
    });
    let said = server.said();
    assert_eq!(said.matches("vanished=true").count(), 2, "{said}");
}

#[test]
fn sigterm_finishes_what_is_running_and_accepts_nothing_new() {
    let model = named("tiny", "serve-drain", 1);
    let mut server = serve(&[&model], &["--drain-timeout", "100"]);
    let client = server.client();
    let streams = block_on(async {
        let mut streams = Vec::new();
        for number in 0..6 {
            streams.push(long_stream(&client, &format!("number {number}"), 2).await);
        }
        server.signal("-TERM");
        // What is new is refused as soon as the signal has arrived.
        let begun = Instant::now();
        while client.get("/v1/models").await.unwrap().status() != 503 {
            assert!(begun.elapsed() < Duration::from_secs(30), "it still accepts");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut whole = Vec::new();
        for stream in streams {
            whole.push(rest(stream).await);
        }
        whole
    });
    for (events, broken) in streams {
        assert!(!broken);
        assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
        let ends = events.iter().filter(|data| data.contains("\"finish_reason\":\"length\""));
        assert_eq!(ends.count(), 2);
    }
    let (code, time) = server.end();
    assert_eq!(code, Some(0), "{}", server.said());
    assert!(time < Duration::from_secs(30), "{time:?} after the last answer");
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let model = named("tiny", "serve-twice", 1);
    let mut server = serve(&[&model], &["--drain-timeout", "100"]);
    let client = server.client();
    let (streams, code, time) = block_on(async {
        let mut streams = Vec::new();
        for number in 0..6 {
            streams.push(long_stream(&client, &format!("number {number}"), 4).await);
        }
        server.signal("-TERM");
        // Two signals at once may be one.
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.signal("-TERM");
        let begun = Instant::now();
        let mut whole = Vec::new();
        for stream in streams {
            whole.push(rest(stream).await);
        }
        (whole, server.end().0, begun.elapsed())
    });
    assert_eq!(code, Some(0), "{}", server.said());
    assert!(time < Duration::from_secs(20), "{time:?}");
    let complete =
        streams.iter().filter(|(events, _)| events.last().is_some_and(|e| e == "[DONE]"));
    assert_eq!(complete.count(), 0, "nothing was left to end at once");
}

#[test]
fn the_drain_time_is_a_limit() {
    let model = named("tiny", "serve-limit", 1);
    let mut server = serve(&[&model], &["--drain-timeout", "0"]);
    let client = server.client();
    let (events, _) = block_on(async {
        let events = long_stream(&client, "without end", 8).await;
        server.signal("-TERM");
        rest(events).await
    });
    // The client is told.
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert!(last["error"]["message"].is_string(), "{last}");
    assert_eq!(server.end().0, Some(0), "{}", server.said());
}

#[test]
fn after_sigkill_it_starts_again_on_the_same_port() {
    let model = named("tiny", "serve-kill", 1);
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let options = ["--port", &port.to_string()];
    let mut first = serve(&[&model], &options);
    let client = first.client();
    let (before, cut) = block_on(async {
        let text = complete(&client, "tiny", "The same", 24).await;
        let events = long_stream(&client, "cut off", 2).await;
        first.signal("-KILL");
        (text, rest(events).await)
    });
    assert!(cut.1, "the connection breaks");
    assert_eq!(first.end().0, None);
    let second = serve(&[&model], &options);
    let client = second.client();
    block_on(async {
        assert_eq!(metric(&client, HELD).await, 0);
        assert_eq!(complete(&client, "tiny", "The same", 24).await, before);
    });
}

#[test]
fn a_full_disk_costs_the_log_and_nothing_else() {
    let model = named("tiny", "serve-full", 1);
    let mut server = serve(&[&model], &["--log-file", "/dev/full"]);
    let client = server.client();
    block_on(async {
        for number in 0..5 {
            complete(&client, "tiny", &format!("number {number}"), 4).await;
        }
        // Lines are written a moment later; the requests for metrics are logged too.
        let begun = Instant::now();
        while metric(&client, "bantam_log_failures_total").await < 5 {
            assert!(begun.elapsed() < Duration::from_secs(30));
        }
        assert_eq!(client.get("/health").await.unwrap().status(), 200);
    });
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0), "{}", server.said());
}

#[test]
fn keys_open_and_others_do_not() {
    let model = named("tiny", "serve-keys", 1);
    let keys = folder("serve-keys-file").join("keys");
    std::fs::write(&keys, "key-one\n\n key-two \n").unwrap();
    let server =
        serve(&[&model], &["--api-key", "key-three", "--api-key-file", keys.to_str().unwrap()]);
    let nobody = server.client();
    block_on(async {
        let body = json!({ "model": "tiny", "prompt": "a", "max_tokens": 2 });
        for key in ["key-one", "key-two", "key-three"] {
            let client = nobody.with_key(key).unwrap();
            assert_eq!(post(&client, "/v1/completions", &body).await.0, 200, "{key}");
            assert_eq!(client.get("/metrics").await.unwrap().status(), 200);
        }
        let (status, answer) = post(&nobody, "/v1/completions", &body).await;
        assert_eq!(status, 401);
        assert_eq!(answer["error"]["code"], "invalid_api_key");
        let stranger = nobody.with_key("key-four").unwrap();
        let (status, answer) = post(&stranger, "/v1/completions", &body).await;
        assert_eq!((status, &answer["error"]["type"]), (401, &json!("authentication_error")));
        assert_eq!(nobody.get("/metrics").await.unwrap().status(), 401);
        // What a load balancer asks.
        assert_eq!(nobody.get("/health").await.unwrap().status(), 200);
    });
    let said = server.said();
    assert!(!said.contains("key-"), "a key in the log: {said}");
}

#[test]
fn a_port_that_is_taken_is_refused_before_anything_is_loaded() {
    let model = tiny_model("serve-port", 1).display().to_string();
    let taken = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    // One line on standard error: no memory plan stands before it.
    let refused = run(&["serve", &model, "--port", &port]);
    let message = refused.refusal();
    assert!(message.contains(&format!("127.0.0.1:{port}")), "{message}");
    assert!(message.ends_with("choose another --port or --host"), "{message}");
}

/// The value of `--memory` that a refusal names.
fn named_memory(message: &str) -> &str {
    let (_, rest) = message.split_once("--memory ").unwrap_or_else(|| panic!("{message}"));
    rest.split([' ', ',', ';']).next().unwrap()
}

#[test]
fn too_little_memory_is_refused_with_a_value_that_works() {
    let one = named("tiny", "serve-memory-one", 1);
    let two = named("other", "serve-memory-two", 2);
    for models in [vec![one.as_str()], vec![one.as_str(), two.as_str()]] {
        let refused = run(&[&["serve"], models.as_slice(), &["--memory", "100KiB"]].concat());
        let value = named_memory(refused.refusal());
        let server = serve(&models, &["--memory", value]);
        let text = block_on(async { complete(&server.client(), "tiny", "enough", 16).await });
        assert!(!text.is_empty(), "{value}");
    }
}

#[test]
fn two_models_answer_side_by_side() {
    let tiny = named("tiny", "serve-two-a", 1);
    let other = named("other", "serve-two-b", 2);
    let alone = |model: &str, name: &str| {
        let server = serve(&[model], &[]);
        block_on(async { complete(&server.client(), name, "A house", 40).await })
    };
    let expected = [("tiny", alone(&tiny, "tiny")), ("other", alone(&other, "other"))];
    assert_ne!(expected[0].1, expected[1].1);
    let server = serve(&[&tiny, &other], &[]);
    let client = server.client();
    block_on(async {
        let (status, answer) = {
            let answer = client.get("/v1/models").await.unwrap();
            (answer.status(), answer.json::<Value>().await.unwrap())
        };
        assert_eq!(status, 200);
        let ids: Vec<&Value> =
            answer["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
        assert_eq!(ids, ["tiny", "other"]);
        let mut asking = tokio::task::JoinSet::new();
        for (name, text) in expected.iter().cycle().take(12).cloned() {
            let client = client.clone();
            asking.spawn(async move {
                assert_eq!(complete(&client, name, "A house", 40).await, text, "{name}");
            });
        }
        while let Some(done) = asking.join_next().await {
            done.unwrap();
        }
        let body = json!({ "model": "third", "prompt": "a", "max_tokens": 2 });
        let (status, answer) = post(&client, "/v1/completions", &body).await;
        assert_eq!((status, &answer["error"]["code"]), (404, &json!("model_not_found")));
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.ends_with("expected tiny or other"), "{message}");
    });
}
