//! `/v1/messages` over models that say what they are told to.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use bantam_engine::HandleOptions;
use common::{Client, Fault, Toy, json_request, quiet, served, with};
use serde_json::{Value, json};

const PATH: &str = "/v1/messages";

fn question(more: Value) -> Value {
    let body = json!({"model": "tiny", "max_tokens": 200, "temperature": 0,
        "messages": [{"role": "user", "content": "Hi"}]});
    with(body, more)
}

fn weather() -> Value {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}},
        "required": ["city"], "additionalProperties": false});
    json!({"name": "weather", "description": "Of a city", "input_schema": schema})
}

fn call(city: &str) -> String {
    format!(
        "<tool_call>\n{{\"name\": \"weather\", \"arguments\": {{\"city\": \"{city}\"}}}}\n</tool_call>"
    )
}

/// The message that the events of a stream add up to, as clients add them.
fn collected(events: &[Value]) -> Value {
    let mut message = Value::Null;
    let mut json = String::new();
    for event in events {
        match event["type"].as_str().unwrap() {
            "message_start" => message = event["message"].clone(),
            "content_block_start" => {
                let content = message["content"].as_array_mut().unwrap();
                assert_eq!(event["index"], content.len());
                content.push(event["content_block"].clone());
                json.clear();
            }
            "content_block_delta" => {
                let block = message["content"].as_array_mut().unwrap().last_mut().unwrap();
                match event["delta"]["type"].as_str().unwrap() {
                    "text_delta" => {
                        let text = block["text"].as_str().unwrap().to_owned();
                        block["text"] = (text + event["delta"]["text"].as_str().unwrap()).into();
                    }
                    _ => {
                        json.push_str(event["delta"]["partial_json"].as_str().unwrap());
                        block["input"] = serde_json::from_str(&json).unwrap_or(json!({}));
                    }
                }
            }
            "message_delta" => {
                message["stop_reason"] = event["delta"]["stop_reason"].clone();
                message["stop_sequence"] = event["delta"]["stop_sequence"].clone();
                message["usage"] = event["usage"].clone();
            }
            "content_block_stop" | "ping" | "message_stop" => {}
            other => panic!("{other}"),
        }
    }
    message
}

/// A message without names, and without what depends on the cache.
fn said(message: &Value) -> Value {
    let mut message = message.clone();
    assert!(message["id"].as_str().unwrap().starts_with("msg_"));
    message["id"] = Value::Null;
    for block in message["content"].as_array_mut().unwrap() {
        if block["type"] == "tool_use" {
            assert!(block["id"].is_string());
            block["id"] = Value::Null;
        }
    }
    message["usage"] = json!({"output_tokens": message["usage"]["output_tokens"]});
    message
}

#[tokio::test]
async fn a_text_is_told_whole_and_in_events() {
    let client = Client::new(Toy::saying("Hello, world"));
    let answer = client.ok(PATH, question(json!({}))).await;
    assert_eq!(
        said(&answer),
        json!({"id": null, "type": "message", "role": "assistant", "model": "tiny",
            "content": [{"type": "text", "text": "Hello, world"}],
            "stop_reason": "end_turn", "stop_sequence": null,
            "usage": {"output_tokens": answer["usage"]["output_tokens"]}})
    );
    let events = client.named_events(PATH, question(json!({}))).await;
    let mut types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    types.dedup();
    assert_eq!(
        types,
        [
            "message_start",
            "ping",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    let streamed = collected(&events);
    assert_eq!(said(&streamed), said(&answer));
    // All but the last block of the prompt is in the cache by now; the sum is the same.
    let count = |usage: &Value| {
        ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"]
            .iter()
            .map(|field| usage[*field].as_u64().unwrap())
            .sum::<u64>()
    };
    assert!(streamed["usage"]["cache_read_input_tokens"].as_u64().unwrap() > 0);
    assert_eq!(count(&streamed["usage"]), count(&answer["usage"]));
    assert_eq!(count(&events[0]["message"]["usage"]), count(&answer["usage"]));
}

#[tokio::test]
async fn the_end_has_its_reason() {
    let client = Client::new(Toy::saying("Hello, world"));
    for (fields, reason, sequence, text) in [
        (json!({"stop_sequences": ["x", ", w"]}), "stop_sequence", json!(", w"), "Hello"),
        (json!({"stop_sequences": []}), "end_turn", Value::Null, "Hello, world"),
        (json!({"stop_sequences": ["none"]}), "end_turn", Value::Null, "Hello, world"),
    ] {
        let answer = client.ok(PATH, question(fields.clone())).await;
        assert_eq!(answer["stop_reason"], reason, "{answer}");
        assert_eq!(
            (&answer["stop_sequence"], &answer["content"][0]["text"]),
            (&sequence, &json!(text))
        );
        let streamed = collected(&client.named_events(PATH, question(fields)).await);
        assert_eq!(said(&streamed), said(&answer));
    }
    let endless = Client::new(Toy::new(common::limits()));
    let answer = endless.ok(PATH, question(json!({"max_tokens": 3, "ignore_eos": true}))).await;
    assert_eq!(answer["stop_reason"], "max_tokens");
    assert_eq!(answer["usage"]["output_tokens"], 3);
}

#[tokio::test]
async fn calls_are_blocks_beside_the_text() {
    let client = Client::new(Toy::saying(&format!("Look. {}\n{}", call("Rome"), call("Oslo"))));
    for (choice, number) in [
        (json!({"type": "auto"}), 3),
        (json!({"type": "auto", "disable_parallel_tool_use": true}), 2),
    ] {
        let body = question(json!({"tools": [weather()], "tool_choice": choice}));
        let answer = client.ok(PATH, body.clone()).await;
        let blocks = answer["content"].as_array().unwrap();
        assert_eq!((blocks.len(), &blocks[0]["text"]), (number, &json!("Look.")));
        assert_eq!(
            (&blocks[1]["name"], &blocks[1]["input"]),
            (&json!("weather"), &json!({"city": "Rome"}))
        );
        assert_eq!(answer["stop_reason"], "tool_use");
        assert_eq!(said(&collected(&client.named_events(PATH, body).await)), said(&answer));
    }
    let none = json!({"tools": [weather()], "tool_choice": {"type": "none"}});
    let answer = client.ok(PATH, question(none)).await;
    assert_eq!(answer["content"].as_array().unwrap().len(), 1);
    let any = Client::new(Toy::new(common::limits()));
    for choice in [json!({"type": "any"}), json!({"type": "tool", "name": "weather"})] {
        let choice = with(choice, json!({"disable_parallel_tool_use": true}));
        let body =
            question(json!({"tools": [weather()], "tool_choice": choice, "max_tokens": 400}));
        let answer = any.ok(PATH, body).await;
        assert_eq!(answer["content"][0]["type"], "tool_use", "{answer}");
        assert_eq!(answer["content"][0]["name"], "weather");
    }
    // A call that is cut off is a block without input, and the reason says why.
    let long = Client::new(Toy::saying(&call(&"Rome ".repeat(50))));
    let body = question(json!({"tools": [weather()], "max_tokens": 40}));
    let answer = long.ok(PATH, body.clone()).await;
    assert_eq!(answer["stop_reason"], "max_tokens");
    assert_eq!(answer["content"][0]["input"], json!({}), "{answer}");
    assert_eq!(said(&collected(&long.named_events(PATH, body).await)), said(&answer));
}

/// The same conversation in the words of chats and of this protocol: the model, whose words depend
/// on every token before, says the same.
#[tokio::test]
async fn a_conversation_is_the_prompt_that_chats_make_of_it() {
    let client = Client::new(Toy::new(common::limits()));
    let user = json!({"role": "user", "content": "Weather in Rome?"});
    let called = json!({"id": "call00001", "type": "function",
        "function": {"name": "weather", "arguments": "{\"city\": \"Rome\"}"}});
    let tool_use = json!({"type": "tool_use", "id": "call00001", "name": "weather",
        "input": {"city": "Rome"}, "caller": null});
    let cached = json!({"type": "ephemeral"});
    let tool =
        |content: &str| json!({"role": "tool", "tool_call_id": "call00001", "content": content});
    let result = |more: Value| {
        let result = json!({"type": "tool_result", "tool_use_id": "call00001", "content": "sunny"});
        with(result, more)
    };
    let asked = json!({"role": "assistant", "content": "Look.", "tool_calls": [called]});
    let asks = json!({"role": "assistant", "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "Look.", "citations": null}, tool_use]});
    for (fields, messages) in [
        (json!({"messages": [user]}), json!([user])),
        (
            json!({"messages": [user], "system": "Be brief."}),
            json!([{"role": "system", "content": "Be brief."}, user]),
        ),
        (
            json!({"messages": [user], "system": [
                {"type": "text", "text": "Be brief.", "cache_control": cached},
                {"type": "text", "text": "Be kind."}]}),
            json!([{"role": "system", "content": "Be brief.\nBe kind."}, user]),
        ),
        (
            json!({"messages": [user, asks, {"role": "user", "content": [result(json!({}))]}]}),
            json!([user, asked, tool("sunny")]),
        ),
        (
            json!({"messages": [user, asks, {"role": "user", "content": [
                result(json!({"content": [{"type": "text", "text": "sunny", "cache_control": cached}]})),
                {"type": "text", "text": "So?", "cache_control": cached}]}]}),
            json!([user, asked, tool("sunny"), {"role": "user", "content": "So?"}]),
        ),
        (
            json!({"messages": [user, asks, {"role": "user",
                "content": [result(json!({"is_error": true, "cache_control": cached}))]}]}),
            json!([user, asked, tool("Error: sunny")]),
        ),
    ] {
        let fields = with(fields, json!({"model": "tiny"}));
        let limits = json!({"temperature": 0, "max_tokens": 12});
        let answer = client.ok(PATH, with(fields.clone(), limits)).await;
        let chat =
            json!({"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 12});
        let expected = client.ok("/v1/chat/completions", chat).await;
        let text = &answer["content"][0]["text"];
        assert_eq!(text, &expected["choices"][0]["message"]["content"], "{fields}");
        let counted = client.ok("/v1/messages/count_tokens", fields).await;
        assert_eq!(counted, json!({"input_tokens": expected["usage"]["prompt_tokens"]}));
    }
    // An answer goes on with the last message, if that is the assistant's.
    let begun = json!([user, {"role": "assistant", "content": "It is"}]);
    let body = question(json!({"messages": begun, "max_tokens": 12}));
    let answer = client.ok(PATH, body).await;
    let chat = json!({"model": "tiny", "messages": begun, "continue_final_message": true,
        "temperature": 0, "max_tokens": 12});
    let expected = client.ok("/v1/chat/completions", chat).await;
    assert_eq!(answer["content"][0]["text"], expected["choices"][0]["message"]["content"]);
}

#[tokio::test]
async fn the_form_of_the_text_is_enforced() {
    let client = Client::new(Toy::new(common::limits()));
    let schema = json!({"type": "object", "properties": {"yes": {"type": "boolean"}},
        "required": ["yes"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "schema": schema});
    let answer = client.ok(PATH, question(json!({"output_config": {"format": format}}))).await;
    let text = answer["content"][0]["text"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(text).unwrap()["yes"].is_boolean(), "{text}");
}

#[tokio::test]
async fn errors_have_the_form_of_this_protocol() {
    let mut options = quiet();
    options.api_keys = vec!["mine".to_owned()];
    options.max_body_bytes = Some(10_000);
    let client = Client::with(options, vec![served(Toy::saying("Hi"), HandleOptions::default())]);
    let part = |kind: &str| json!({"messages": [{"role": "user", "content": [{"type": kind}]}]});
    for (key, fields, status, kind, words) in [
        ("mine", json!({"model": "none"}), 404, "not_found_error", "none"),
        ("mine", json!({"max_tokens": null}), 400, "invalid_request_error", "max_tokens"),
        ("mine", json!({"messages": []}), 400, "invalid_request_error", "messages"),
        ("mine", json!({"max_tokes": 1}), 400, "invalid_request_error", "max_tokens"),
        ("mine", part("image"), 400, "invalid_request_error", "image"),
        ("mine", part("document"), 400, "invalid_request_error", "document"),
        ("mine", json!({"container": "c"}), 400, "invalid_request_error", "container"),
        ("mine", json!({"mcp_servers": [{}]}), 400, "invalid_request_error", "mcp_servers"),
        (
            "mine",
            json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
            400,
            "invalid_request_error",
            "web_search_20250305",
        ),
        (
            "mine",
            json!({"tools": [with(weather(), json!({"input_shema": {}}))]}),
            400,
            "invalid_request_error",
            "tools[0].input_shema",
        ),
        (
            "mine",
            json!({"tools": [weather()], "tool_choice": {"type": "tool"}}),
            400,
            "invalid_request_error",
            "name",
        ),
        ("mine", json!({"thinking": {"type": "deep"}}), 400, "invalid_request_error", "adaptive"),
        ("mine", json!({"stop_sequences": [""]}), 400, "invalid_request_error", "stop_sequences"),
        ("mine", json!({"system": "x".repeat(20_000)}), 413, "request_too_large", "--max-body"),
        ("other", json!({}), 401, "authentication_error", "key"),
    ] {
        let mut request = json_request(PATH, &question(fields.clone()));
        request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
        let (got, headers, bytes) = client.send(request).await;
        let answer: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(got.as_u16(), status, "{fields} {answer}");
        assert_eq!((&answer["type"], &answer["error"]["type"]), (&json!("error"), &json!(kind)));
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
        assert_eq!(headers["request-id"], answer["request_id"].as_str().unwrap());
    }
    let wrong = Request::get(PATH).header("authorization", "Bearer mine").body(Body::empty());
    let (status, _, bytes) = client.send(wrong.unwrap()).await;
    let answer: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((status, &answer["type"]), (StatusCode::METHOD_NOT_ALLOWED, &json!("error")));

    let failing = Client::new(Toy::failing(|step| (step == 6).then_some(Fault::Error)));
    let events = failing.named_events(PATH, question(json!({"ignore_eos": true}))).await;
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["error"]["type"]), (&json!("error"), &json!("api_error")));
}

#[tokio::test]
async fn what_clients_send_and_what_changes_nothing_is_taken() {
    let client = Client::new(Toy::saying("Hello"));
    let tool = with(
        weather(),
        json!({"type": "custom", "cache_control": {"type": "ephemeral"},
        "eager_input_streaming": true, "defer_loading": false, "allowed_callers": ["direct"]}),
    );
    let body = question(json!({
        "metadata": {"user_id": "u"}, "service_tier": "auto", "top_k": 5, "top_p": 0.9, "tools": [tool],
        "thinking": {"type": "enabled", "budget_tokens": 1024}, "speed": "standard",
        "cache_control": {"type": "ephemeral"}, "output_config": {"effort": "low"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    }));
    let mut request = json_request(&format!("{PATH}?beta=true"), &body);
    for (name, value) in [
        ("anthropic-version", "2023-06-01"),
        ("anthropic-beta", "interleaved-thinking-2025-05-14"),
        ("x-api-key", "any"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let (status, headers, bytes) = client.send(request).await;
    assert_eq!(status, StatusCode::OK, "{bytes:?}");
    assert!(headers.contains_key("request-id"));
}
