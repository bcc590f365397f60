//! Everything that is refused, and how.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use bantam_engine::HandleOptions;
use bantam_server::ServerOptions;
use common::{Client, Toy, json_request, limits, quiet, served, settles};
use futures_util::stream;
use serde_json::{Value, json};

fn client() -> Client {
    Client::new(Toy::new(limits()))
}

#[tokio::test]
async fn fields_are_honoured_or_refused_by_name() {
    let client = client();
    // Field, value, the `param` of the error, and a part of what it says.
    let cases = [
        ("temprature", json!(1), "temprature", "nearest known one is temperature"),
        ("temperature", json!("hot"), "temperature", "expected f32"),
        ("temperature", json!(-1), "temperature", "expected 0 or more"),
        ("temperature", json!(1e300), "temperature", "temperature is inf"),
        ("top_p", json!(0), "top_p", "expected more than 0"),
        ("top_k", json!(-2), "top_k", "expected 0 or more"),
        ("min_p", json!(2), "min_p", "expected 0 to 1"),
        ("repetition_penalty", json!(0), "repetition_penalty", "expected more than 0"),
        ("logit_bias", json!({"a": 1}), "logit_bias", "expected token ids with numbers"),
        ("logit_bias", json!({"99999": 1}), "logit_bias", "outside the model's vocabulary"),
        ("stop", json!(vec!["a"; 17]), "stop", "expected at most 16"),
        ("stop", json!(["a", ""]), "stop", "empty text"),
        ("stop", json!(7), "stop", "expected a text or a list of texts"),
        (
            "stop_token_ids",
            json!([99999]),
            "stop_token_ids",
            "token 99999 in stop_token_ids is outside the model's vocabulary",
        ),
        ("n", json!(0), "n", "expected 1 to 128"),
        ("n", json!(1000), "n", "expected 1 to 128"),
        ("max_tokens", json!(0), "max_tokens", "expected 1 to"),
        ("max_tokens", json!(-2), "max_tokens", "or -1 for as many as fit"),
        ("seed", json!(1e300), "seed", "expected an integer of 64 bits"),
        ("truncate_prompt_tokens", json!(0), "truncate_prompt_tokens", "expected 1 or more"),
        ("allowed_token_ids", json!([]), "allowed_token_ids", "one token or more"),
        ("allowed_token_ids", json!([833]), "allowed_token_ids", "outside the model's vocabulary"),
        ("max_completion_tokens", json!(5), "max_tokens", "leave out one"),
        ("min_tokens", json!(50), "min_tokens", "expected at most"),
        ("top_logprobs", json!(3), "top_logprobs", "set logprobs to true"),
        ("top_logprobs", json!(21), "top_logprobs", "at most 20"),
        ("stream_options", json!({"include_usage": true}), "stream_options", "without stream"),
        ("timeout", json!(0), "timeout", "more than 0"),
        ("length_penalty", json!(2), "length_penalty", "without use_beam_search"),
        (
            "response_format",
            json!({"type": "xml"}),
            "response_format.type",
            "unknown variant `xml`",
        ),
        ("structured_outputs", json!({"yaml": 1}), "structured_outputs.yaml", "unknown field"),
        ("tool_choice", json!("required"), "tool_choice", "without tools"),
        ("tools", json!([{"type": "web"}]), "tools[0].type", "unknown variant `web`"),
        (
            "continue_final_message",
            json!(true),
            "continue_final_message",
            "no text of the assistant",
        ),
        (
            "chat_template_kwargs",
            json!({"messages": []}),
            "chat_template_kwargs",
            "set by the request itself",
        ),
        ("store", json!("yes"), "store", "store is not true or false"),
        ("functions", json!([{}]), "functions", "use tools"),
        ("reasoning_effort", json!("immense"), "reasoning_effort", "unknown variant `immense`"),
        ("audio", json!({}), "audio", "answers are text"),
        ("guided_json", json!("{"), "guided_json", "text that is not JSON"),
        ("guided_grammar", json!("start: ("), "guided_grammar", "grammar"),
        ("enable_thinking", json!(true), "enable_thinking", "chat_template_kwargs"),
    ];
    let mut wrong = Vec::new();
    for (field, value, param, expected) in cases {
        let mut body = json!({
            "model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4,
        });
        body[field] = value;
        let (status, answer) = client.post("/v1/chat/completions", body).await;
        let error = &answer["error"];
        let message = error["message"].as_str().unwrap_or_default();
        let right = status == StatusCode::BAD_REQUEST
            && error["type"] == "invalid_request_error"
            && error["param"].as_str().unwrap_or_default() == param
            && message.contains(expected)
            && !message.contains('\n');
        if !right {
            wrong.push(format!("{field}: {status} {answer}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let harmless = [
        ("store", json!(true)),
        ("max_tokens", json!(1)),
        ("stop", json!("")),
        ("seed", json!(-1)),
        ("seed", json!(u64::MAX)),
        ("top_k", json!(-1)),
        ("tools", json!([])),
        ("tool_choice", json!("auto")),
        ("reasoning_effort", json!("none")),
        ("service_tier", json!("auto")),
        ("modalities", json!(["text"])),
        ("audio", Value::Null),
        ("function_call", json!("none")),
        ("metadata", json!({})),
        ("user", json!("somebody")),
        ("temperature", Value::Null),
        ("response_format", json!({"type": "text"})),
    ];
    let accepted = harmless.len() as u64;
    for (field, value) in harmless {
        let mut body = json!({
            "model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1,
        });
        body[field] = value;
        client.ok("/v1/chat/completions", body).await;
    }
    // Nothing of this reached an engine but what it could serve.
    settles(&client.state, |metrics| metrics.finished_length == accepted).await;
    assert_eq!(client.state.models[0].engine().metrics().requests, accepted);
}

#[tokio::test]
async fn messages_are_refused_with_their_place() {
    let client = client();
    let cases = [
        (json!([]), "messages", "one message or more"),
        (json!("Hi"), "messages", "one message or more"),
        (json!(["Hi"]), "messages[0]", "not an object"),
        (json!([{"role": "robot", "content": ""}]), "messages[0].role", "expected system"),
        (json!([{"role": "user"}]), "messages[0].content", "is missing"),
        (json!([{"role": "user", "content": 7}]), "messages[0].content", "neither a text nor"),
        (
            json!([{"role": "user", "contents": ""}]),
            "messages[0].contents",
            "nearest known one is content",
        ),
        (json!([{"role": "tool", "content": ""}]), "messages[0].tool_call_id", "name the call"),
        (
            json!([{"role": "user", "content": "", "audio": {}}]),
            "messages[0].audio",
            "messages are text",
        ),
        (
            json!([{"role": "user", "content": [{"type": "text", "text": ""}, {"type": "image_url", "image_url": {}}]}]),
            "messages[0].content[1]",
            "reads text only",
        ),
        (
            json!([{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{"}}]}]),
            "messages[0].tool_calls[0].function.arguments",
            "not the text of a JSON object",
        ),
    ];
    for (messages, param, expected) in cases {
        let body = json!({"model": "tiny", "messages": messages});
        let (status, answer) = client.post("/v1/chat/completions", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert_eq!(answer["error"]["param"], param);
        assert!(answer["error"]["message"].as_str().unwrap().contains(expected), "{answer}");
    }
}

#[tokio::test]
async fn completions_refuse_what_they_cannot_do() {
    let client = client();
    let cases = [
        (json!({"prompt": []}), "prompt", "expected 1 to 256"),
        (json!({"prompt": {}}), "prompt", "expected a text, a list of texts"),
        (json!({"prompt": ""}), "prompt", "the prompt is empty"),
        (json!({"prompt": [1, 99999]}), "prompt", "outside the model's vocabulary"),
        (json!({"prompt": vec![5; 3000]}), "prompt", "maximum context length is 2048 tokens"),
        (json!({"prompt": "a", "suffix": "b"}), "suffix", "do not fill gaps"),
        (json!({"prompt": "a", "max_tokens": 0}), "max_tokens", "expected 1 to"),
        (json!({"prompt": "a", "logprobs": 9999}), "logprobs", "size of the vocabulary"),
        (json!({"prompt": "a", "best_of": 2, "stream": true}), "best_of", "whole answers"),
        (
            json!({"prompt": "a", "use_beam_search": true, "temperature": 0.5}),
            "use_beam_search",
            "temperature",
        ),
        (
            json!({"prompt": "a", "n": 128, "ignore_eos": true, "structured_outputs": {"regex": "a"}}),
            "ignore_eos",
            "must be able to end",
        ),
        (json!({"prompt": vec!["a"; 200], "n": 2}), "n", "at most 256 requests may wait"),
    ];
    for (mut body, param, expected) in cases {
        body["model"] = "tiny".into();
        let (status, answer) = client.post("/v1/completions", body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {answer}");
        assert_eq!(
            answer["error"]["param"].as_str().unwrap_or_default(),
            param,
            "{body}: {answer}"
        );
        assert!(answer["error"]["message"].as_str().unwrap().contains(expected), "{answer}");
    }
    assert_eq!(client.state.models[0].engine().metrics().requests, 0);
}

#[tokio::test]
async fn requests_that_are_none() {
    let client = client();
    let post = |path: &str, kind: &str, body: &'static str| {
        Request::post(path).header("content-type", kind).body(Body::from(body)).unwrap()
    };
    let json = "application/json";
    let cases = [
        (Request::get("/nowhere").body(Body::empty()).unwrap(), 404),
        (Request::get("/v1/models/other").body(Body::empty()).unwrap(), 404),
        (Request::get("/v1/completions").body(Body::empty()).unwrap(), 405),
        (post("/v1/models", json, "{}"), 405),
        (post("/v1/completions", "text/plain", "{}"), 415),
        (post("/v1/completions", json, "{"), 400),
        (post("/v1/completions", json, "[]"), 400),
        (post("/v1/completions", json, "{}"), 400),
        (post("/v1/completions", json, "{\"model\": \"other\", \"prompt\": \"a\"}"), 404),
        (post("/v1/embeddings", json, "{\"model\": \"tiny\", \"input\": \"a\"}"), 400),
        (post("/v1/embeddings", json, "{\"model\": \"other\"}"), 404),
    ];
    for (request, expected) in cases {
        let what = format!("{} {}", request.method(), request.uri());
        let (status, headers, body) = client.send(request).await;
        assert_eq!(status.as_u16(), expected, "{what}");
        assert!(headers.contains_key("x-request-id"));
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert!(!answer["error"]["message"].as_str().unwrap().is_empty(), "{what}");
    }
    for (depth, expected) in [(1000, 400), (100_000, 413)] {
        let request = Request::post("/v1/completions").header("content-type", json);
        let (status, ..) = client.send(request.body(Body::from("[".repeat(depth))).unwrap()).await;
        assert_eq!(status.as_u16(), expected, "{depth} deep");
    }
}

#[tokio::test]
async fn bodies_have_a_size_and_a_time() {
    let options = ServerOptions {
        max_body_bytes: Some(1000),
        body_timeout: Duration::from_millis(50),
        ..quiet()
    };
    let client = Client::with(options, vec![served(Toy::new(limits()), HandleOptions::default())]);
    let request = |body: Body| {
        Request::post("/v1/completions")
            .header("content-type", "application/json")
            .body(body)
            .unwrap()
    };
    let fits = format!("{:1000}", "{\"model\": \"tiny\", \"prompt\": \"a\", \"max_tokens\": 1}");
    assert_eq!(client.send(request(Body::from(fits.clone()))).await.0, StatusCode::OK);
    let (status, _, body) = client.send(request(Body::from(fits + " "))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(String::from_utf8_lossy(&body).contains("1000 bytes"));
    // A body of unknown size is cut off as well.
    let endless = stream::repeat_with(|| Ok::<_, std::io::Error>("          "));
    let (status, ..) = client.send(request(Body::from_stream(endless))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let never = stream::pending::<Result<&str, std::io::Error>>();
    let (status, ..) = client.send(request(Body::from_stream(never))).await;
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test]
async fn keys_open_what_is_not_open() {
    let options = ServerOptions { api_keys: vec!["secret".to_owned()], ..quiet() };
    let client = Client::with(options, vec![served(Toy::new(limits()), HandleOptions::default())]);
    let body = json!({"model": "tiny", "prompt": "a", "max_tokens": 1});
    let (status, answer) = client.post("/v1/completions", body.clone()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer["error"]["type"], "authentication_error");
    for path in ["/v1/models", "/metrics", "/openapi.json", "/nowhere"] {
        assert_eq!(client.get(path).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
    for path in ["/health", "/live"] {
        assert_eq!(client.get(path).await.0, StatusCode::OK, "{path}");
    }
    for (name, value) in
        [("authorization", "Bearer secret"), ("x-api-key", "secret"), ("api-key", "secret")]
    {
        let mut request = json_request("/v1/completions", &body);
        request.headers_mut().insert(name, value.parse().unwrap());
        assert_eq!(client.send(request).await.0, StatusCode::OK);
    }
}

#[tokio::test]
async fn models_and_the_api_are_described() {
    let client = client();
    let (_, text) = client.get("/v1/models").await;
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&list["data"][0]["id"], &list["data"][0]["object"]),
        (&json!("tiny"), &json!("model"))
    );
    assert_eq!(list["data"][0]["max_model_len"], limits().context);
    let (status, text) = client.get("/v1/models/tiny").await;
    assert_eq!(
        (status, serde_json::from_str::<Value>(&text).unwrap()),
        (StatusCode::OK, list["data"][0].clone())
    );
    let (_, text) = client.get("/openapi.json").await;
    let api: Value = serde_json::from_str(&text).unwrap();
    // Every reference leads somewhere.
    let mut rest = text.as_str();
    while let Some(start) = rest.find("\"$ref\":\"#") {
        rest = &rest[start + 9..];
        let pointer = &rest[..rest.find('"').unwrap()];
        assert!(api.pointer(pointer).is_some(), "{pointer}");
    }
    for path in ["/v1/chat/completions", "/v1/completions", "/tokenize", "/health"] {
        assert!(api["paths"][path].is_object(), "{path}");
    }
}

#[tokio::test]
async fn what_is_too_long_is_refused_before_it_costs_anything() {
    let client = client();
    let begun = std::time::Instant::now();
    // Just within what a body may be.
    let digits = "7".repeat(2_150_000);
    let words: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    let cases = [
        (
            "/v1/completions",
            json!({"model": "tiny", "prompt": digits}),
            "maximum context length is",
        ),
        (
            "/v1/completions",
            json!({"model": "tiny", "prompt": ["a", digits]}),
            "maximum context length is",
        ),
        ("/tokenize", json!({"model": "tiny", "prompt": digits}), "expected at most 2097152"),
        (
            "/v1/completions",
            json!({"model": "tiny", "prompt": "a", "bad_words": words}),
            "at most 1024",
        ),
        (
            "/v1/completions",
            json!({"model": "tiny", "prompt": "a", "stop_token_ids": vec![1; 5000]}),
            "at most 1024",
        ),
        ("/v2/models/tiny/generate", json!({"text_input": digits}), "maximum context length is"),
        (
            "/v2/models/tiny/generate",
            json!({"text_input": "a", "bad_words": words}),
            "at most 1024",
        ),
    ];
    for (path, body, expected) in cases {
        let (status, answer) = client.post(path, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        assert!(answer.to_string().contains(expected), "{path}: {expected}: {answer}");
    }
    // Most of it goes into making and reading the bodies.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
