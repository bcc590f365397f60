//! What bodies of requests may become: memory is taken within bounds, and given back. The only test of
//! this process, so that what it measures is its own.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::fs;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use bantam_engine::HandleOptions;
use bantam_server::ServerOptions;
use common::{Client, Toy, json_request, limits, quiet, served};
use serde_json::json;

const MIB: usize = 1 << 20;

/// A figure of this process in bytes: `VmRSS`, or `VmHWM` for the most there was.
fn memory(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// A request for a route, with `unit` in it again and again, up to `bytes`.
fn filled(path: &str, before: &str, unit: &str, after: &str, bytes: usize) -> Request<Body> {
    let count = (bytes - before.len() - after.len()) / (unit.len() + 1);
    let body = format!("{before}{}{after}", vec![unit; count].join(","));
    Request::post(path).header("content-type", "application/json").body(Body::from(body)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_become_no_more_than_a_useful_prompt_and_leave_nothing() {
    let open = ServerOptions { max_body_bytes: Some(32 * MIB), ..quiet() };
    let server =
        |options| Client::with(options, vec![served(Toy::new(limits()), HandleOptions::default())]);
    let client = server(open);
    client.ok("/v1/completions", json!({"model": "tiny", "prompt": "a", "max_tokens": 1})).await;
    let before = memory("VmRSS");
    let quoted = "{\\\"\\\":0}";
    let attacks = [
        ("{\"model\":\"tiny\",\"prompt\":[", "{\"\":0}", "]}"),
        ("{\"model\":\"tiny\",\"nothing\":[", "{\"\":0}", "]}"),
        ("{\"model\":\"tiny\",\"nothing\":[", "[]", "]}"),
        ("{\"model\":\"tiny\",\"prompt\":[", "\"\"", "]}"),
        ("{\"model\":\"tiny\",\"stop\":[", "\"ab\"", "]}"),
        ("{\"model\":\"tiny\",\"logit_bias\":{", "\"1\":0", "}}"),
        ("{\"model\":\"tiny\",\"messages\":[", "{\"role\":\"user\",\"content\":\"\"}", "]}"),
        (
            "{\"model\":\"tiny\",\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\",\
             \"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":[",
            quoted,
            "]}\"}}]}]}",
        ),
        ("{\"sampling_parameters\":\"{\\\"a\\\":[", quoted, "]}\",\"text_input\":\"a\"}"),
        (
            "{\"inputs\":[{\"name\":\"text_input\",\"shape\":[1],\"datatype\":\"BYTES\",\"data\":[",
            "[]",
            "]}]}",
        ),
        ("{\"inputs\":[", "{\"name\":\"\",\"shape\":[],\"datatype\":\"\"}", "]}"),
    ];
    let routes = [
        "/v1/completions",
        "/v1/chat/completions",
        "/tokenize",
        "/detokenize",
        "/v1/embeddings",
        "/v2/models/tiny/infer",
        "/v2/models/tiny/generate",
        "/v2/repository/index",
    ];
    let begun = Instant::now();
    for (before, unit, after) in attacks {
        let all = routes.map(|path| {
            let (client, request) = (client.clone(), filled(path, before, unit, after, 3 * MIB));
            tokio::spawn(async move { (path, client.send(request).await.0) })
        });
        for sent in all {
            let (path, status) = sent.await.unwrap();
            assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{path}: {before}{unit}");
        }
    }
    // As large as can be and just within the limits: read, refused for what it says, and forgotten.
    for _ in 0..8 {
        let request = filled("/v1/completions", "{\"nothing\":[", "{\"\":0}", "]}", 80_000);
        assert_eq!(client.send(request).await.0, StatusCode::BAD_REQUEST);
        let request = filled("/v1/completions", "{\"nothing\":[", "0", "]}", 120_000);
        assert_eq!(client.send(request).await.0, StatusCode::BAD_REQUEST);
    }
    assert!(begun.elapsed() < Duration::from_secs(60));
    let grown = memory("VmRSS").saturating_sub(before);
    assert!(grown < 50 * MIB, "{} MiB stay", grown / MIB);

    // What the options leave open fits the contexts, and says by which option it could be more.
    let client = server(quiet());
    let prompt = "long ".repeat(2 * MIB / 5);
    let (status, _, answer) = client
        .send(json_request("/v1/completions", &json!({"model": "tiny", "prompt": prompt})))
        .await;
    assert_ne!(status, StatusCode::PAYLOAD_TOO_LARGE, "{answer:?}");
    let prompt = "long ".repeat(MIB / 2);
    let (status, _, answer) = client
        .send(json_request("/v1/completions", &json!({"model": "tiny", "prompt": prompt})))
        .await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(String::from_utf8_lossy(&answer).contains("--max-body"));
    // Lists of token ids as long as several contexts are read.
    let prompts = vec![vec![5; limits().context / 2]; 16];
    let body = json!({"model": "tiny", "prompt": prompts, "max_tokens": 1});
    let (status, _, answer) = client.send(json_request("/v1/completions", &body)).await;
    assert_eq!(status, StatusCode::OK, "{answer:?}");
}
