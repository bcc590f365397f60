//! Numbers that no client should send: each is refused by name with the range that would do, or
//! answered, by every protocol; and the model is there afterwards.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use axum::http::StatusCode;
use common::{Client, Toy, limits};
use serde_json::{Map, Value, json};

/// The numbers of a request, and a range of each as its refusal says it.
const NUMBERS: [(&str, &str); 9] = [
    ("temperature", "0 or more, at most 100"),
    ("top_p", "more than 0 and at most 1"),
    ("min_p", "0 to 1"),
    ("typical_p", "more than 0 and at most 1"),
    ("repetition_penalty", "0.01 to 100"),
    ("presence_penalty", "-2 to 2"),
    ("frequency_penalty", "-2 to 2"),
    ("timeout", "more than 0 and at most"),
    ("length_penalty", "-10 to 10"),
];

const VALUES: [f64; 22] = [
    1e-300, 1e-45, 1e-44, 1e-41, 1e-38, 1e-20, 0.0, 0.5, 1.0, 2.0, 2.1, 100.0, 1e10, 3e38, 1e300,
    -1e-45, -1.0, -2.0, -3.0, -3e38, -1e300, 1.7e308,
];

/// The paths that take the fields, with a body that works.
fn paths() -> [(&'static str, Value); 3] {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    [
        ("/v1/chat/completions", json!({"model": "tiny", "messages": messages, "max_tokens": 3})),
        ("/v1/completions", json!({"model": "tiny", "prompt": "to and to", "max_tokens": 3})),
        ("/v2/models/tiny/generate", json!({"text_input": "to and to", "max_tokens": 3})),
    ]
}

fn message(answer: &Value) -> &str {
    let error = &answer["error"];
    error["message"].as_str().or(error.as_str()).unwrap_or_default()
}

async fn stays_ready(client: &Client) {
    assert_eq!(client.get("/health").await.0, StatusCode::OK);
    for (path, body) in paths() {
        client.ok(path, body).await;
    }
}

#[tokio::test]
async fn extreme_numbers_are_refused_with_their_range_or_answered() {
    let client = Client::new(Toy::new(limits()));
    let (mut wrong, mut refused) = (Vec::new(), 0);
    for (path, body) in paths() {
        for (field, range) in NUMBERS {
            for value in VALUES {
                let mut body = body.clone();
                body[field] = json!(value);
                if path.starts_with("/v2") && field == "timeout" {
                    continue; // an integer of microseconds there
                }
                body["use_beam_search"] = json!(field == "length_penalty");
                let (status, answer) = client.post(path, body).await;
                let says = message(&answer);
                let explained = says.starts_with(field) && says.contains(range);
                match status {
                    StatusCode::OK => {}
                    StatusCode::BAD_REQUEST if explained => refused += 1,
                    _ => wrong.push(format!("{path} {field} {value:e}: {status} {answer}")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(refused > 200, "{refused}");
    stays_ready(&client).await;
}

#[tokio::test]
async fn extreme_numbers_together_leave_the_model_alive() {
    let client = Client::new(Toy::new(limits()));
    let penalties = ["repetition_penalty", "presence_penalty", "frequency_penalty"];
    for bias in [-1e300_f64, -3e38, -100.0, 100.0, 3e38, 1e300] {
        for penalty in penalties {
            for value in [1e-45, 1e-38, 0.01, 2.0, 100.0, -2.0, -3e38, 3e38] {
                for temperature in [0.0, 1e-45, 1.0, 100.0] {
                    let every: Map<String, Value> =
                        (0..50).map(|token| (token.to_string(), json!(bias))).collect();
                    let mut body = paths()[1].1.clone();
                    body["logit_bias"] = every.into();
                    body[penalty] = json!(value);
                    body["temperature"] = json!(temperature);
                    let (status, answer) = client.post("/v1/completions", body).await;
                    assert!(!status.is_server_error(), "{bias} {penalty} {value}: {answer}");
                    if bias.abs() > 100.0 {
                        assert_eq!(status, StatusCode::BAD_REQUEST, "{bias}: {answer}");
                    }
                }
            }
        }
    }
    stays_ready(&client).await;
}

#[tokio::test]
async fn counts_of_any_size_are_refused_or_answered() {
    let client = Client::new(Toy::new(limits()));
    let fields = [
        "n",
        "best_of",
        "max_tokens",
        "min_tokens",
        "top_k",
        "seed",
        "priority",
        "logprobs",
        "prompt_logprobs",
        "stop_token_ids",
    ];
    let values = [
        json!(i64::MIN),
        json!(-2),
        json!(-1),
        json!(0),
        json!(129),
        json!(i32::MAX),
        json!(i64::from(i32::MAX) + 1),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e300),
        json!(vec![5; 1025]),
        json!([u32::MAX]),
        json!([-1]),
    ];
    for (path, body) in paths() {
        for field in fields {
            for value in &values {
                let mut body = body.clone();
                body[field] = value.clone();
                let (status, answer) = client.post(path, body).await;
                assert!(
                    matches!(status, StatusCode::OK | StatusCode::BAD_REQUEST),
                    "{path} {field} {value}: {status} {answer}"
                );
            }
        }
    }
    stays_ready(&client).await;
}
