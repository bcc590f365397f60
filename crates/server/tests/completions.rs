//! `/v1/completions` and `/v1/chat/completions` over a model without weights.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use common::{Client, Toy, limits};
use serde_json::json;

#[tokio::test]
async fn a_completion_and_its_stream() {
    let client = Client::new(Toy::new(limits()));
    let body = json!({"model": "tiny", "prompt": "The house", "max_tokens": 12, "seed": 1});
    let whole = client.ok("/v1/completions", body.clone()).await;
    let (events, done) = client.events("/v1/completions", body).await;
    assert!(done);
    let text: String =
        events.iter().map(|event| event["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(whole["choices"][0]["text"], text);
    assert_eq!(whole["usage"]["completion_tokens"], 12);
}

#[tokio::test]
async fn a_chat() {
    let client = Client::new(Toy::saying("Hello, world"));
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let body = json!({"model": "tiny", "messages": messages});
    let whole = client.ok("/v1/chat/completions", body.clone()).await;
    assert_eq!(whole["choices"][0]["message"]["content"], "Hello, world");
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    let (events, _) = client.events("/v1/chat/completions", body).await;
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
}
