//! `/v1/chat/completions` and `/tokenize` over models that say what they are told to.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use axum::http::StatusCode;
use bantam_engine::HandleOptions;
use bantam_text::ChatTemplate;
use common::{Client, Toy, limits, quiet, served};
use serde_json::{Value, json};

const PATH: &str = "/v1/chat/completions";

/// A conversation of one question, with more fields.
fn question(more: Value) -> Value {
    let mut body = json!({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn tools() -> Value {
    let parameters = json!({
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
        "additionalProperties": false,
    });
    json!([
        {"type": "function", "function": {"name": "weather", "parameters": parameters}},
        {"type": "function", "function": {"name": "news", "description": "What happened"}},
    ])
}

/// The message that the chunks of a stream add up to, ids of calls left out, and why it ended.
fn collected(events: &[Value]) -> (Value, Value) {
    let (mut content, mut calls, mut reason) = (String::new(), Vec::<Value>::new(), Value::Null);
    for event in events {
        let choice = &event["choices"][0];
        content.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let index = call["index"].as_u64().unwrap() as usize;
            if index == calls.len() {
                assert_eq!(
                    (&call["type"], call["id"].as_str().unwrap().len()),
                    (&json!("function"), 9)
                );
                calls.push(json!({"name": call["function"]["name"], "arguments": ""}));
            }
            let arguments = calls[index]["arguments"].as_str().unwrap().to_owned()
                + call["function"]["arguments"].as_str().unwrap();
            calls[index]["arguments"] = arguments.into();
        }
        reason = if reason.is_null() { choice["finish_reason"].clone() } else { reason };
    }
    (json!({"content": content, "calls": calls}), reason)
}

/// The same of a whole answer.
fn whole(answer: &Value) -> (Value, Value) {
    let message = &answer["choices"][0]["message"];
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    let calls: Vec<&Value> = calls.map(|call| &call["function"]).collect();
    let content = message["content"].as_str().unwrap_or_default();
    (json!({"content": content, "calls": calls}), answer["choices"][0]["finish_reason"].clone())
}

#[tokio::test]
async fn a_stream_begins_with_the_role_and_ends_with_the_usage() {
    let client = Client::new(Toy::saying("Hello, world"));
    let answer = client.ok(PATH, question(json!({}))).await;
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(
        answer["choices"][0]["message"],
        json!({"role": "assistant", "content": "Hello, world", "refusal": null})
    );
    let (events, done) =
        client.events(PATH, question(json!({"stream_options": {"include_usage": true}}))).await;
    assert!(done);
    assert!(events.iter().all(|event| event["object"] == "chat.completion.chunk"));
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let (last, rest) = events.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    let usage = &last["usage"];
    assert_eq!(usage["completion_tokens"], answer["usage"]["completion_tokens"]);
    let prompt = usage["prompt_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], prompt + usage["completion_tokens"].as_u64().unwrap());
    // All but the last block of the prompt is in the cache by now.
    let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!(cached > 0 && cached < prompt, "{cached} of {prompt}");
    assert!(rest.iter().all(|event| event.get("usage") == Some(&Value::Null)));
    assert_eq!(rest.last().unwrap()["choices"][0]["delta"], json!({}));
    assert_eq!(collected(rest), whole(&answer));
    let (events, _) = client.events(PATH, question(json!({}))).await;
    assert!(events.iter().all(|event| event.get("usage").is_none()));
}

#[tokio::test]
async fn calls_come_out_of_one_parser() {
    let call = |city: &str| {
        format!(
            "<tool_call>\n{{\"name\": \"weather\", \"arguments\": {{\"city\": \"{city}\"}}}}\n</tool_call>"
        )
    };
    let said = format!("Let me look. {}\n{}", call("Rome"), call("Oslo"));
    let client = Client::new(Toy::saying(&said));
    for (parallel, number) in [(true, 2), (false, 1)] {
        let body = question(json!({"tools": tools(), "parallel_tool_calls": parallel}));
        let answer = client.ok(PATH, body.clone()).await;
        let (message, reason) = whole(&answer);
        assert_eq!(reason, "tool_calls");
        assert_eq!(message["content"], "Let me look.");
        assert_eq!(message["calls"].as_array().unwrap().len(), number);
        assert_eq!(
            message["calls"][0],
            json!({"name": "weather", "arguments": "{\"city\": \"Rome\"}"})
        );
        let (events, _) = client.events(PATH, body).await;
        assert_eq!(collected(&events), (message, reason));
    }
    // Without tools, or with tool_choice none, it is text like any other.
    for more in [json!({}), json!({"tools": tools(), "tool_choice": "none"})] {
        let (message, reason) = whole(&client.ok(PATH, question(more)).await);
        assert_eq!((&message["content"], reason), (&json!(said), json!("stop")));
    }
    let only = Client::new(Toy::saying(&call("Rome")));
    let answer = only.ok(PATH, question(json!({"tools": tools()}))).await;
    assert_eq!(answer["choices"][0]["message"]["content"], Value::Null);
}

#[tokio::test]
async fn a_call_can_be_required() {
    let client = Client::new(Toy::new(limits()));
    for (choice, name) in [
        (json!("required"), None),
        (json!({"type": "function", "function": {"name": "weather"}}), Some("weather")),
    ] {
        let body = question(json!({
            "tools": tools(), "tool_choice": choice, "seed": 4, "parallel_tool_calls": false,
            "logprobs": true,
        }));
        let answer = client.ok(PATH, body.clone()).await;
        let (message, reason) = whole(&answer);
        if reason == "tool_calls" {
            let arguments = message["calls"][0]["arguments"].as_str().unwrap();
            serde_json::from_str::<Value>(arguments).unwrap();
        }
        assert_eq!(message["calls"].as_array().unwrap().len(), 1);
        assert!(name.is_none_or(|name| message["calls"][0]["name"] == name));
        let (events, _) = client.events(PATH, body).await;
        assert_eq!(collected(&events), (message, reason));
        let streamed = events.iter().flat_map(|event| {
            event["choices"][0]["logprobs"]["content"].as_array().into_iter().flatten()
        });
        let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
        assert!(streamed.eq(content));
    }
}

/// At whatever token an answer that must be calls is cut, no mark of a call is in its content, and
/// the stream says what the whole says.
#[tokio::test]
async fn calls_that_are_cut_leave_no_marks_in_the_text() {
    let client = Client::new(Toy::new(limits()));
    let named = json!({"type": "function", "function": {"name": "weather"}});
    let allowed = json!({"type": "allowed_tools", "allowed_tools": {"mode": "required",
        "tools": [{"type": "function", "function": {"name": "weather"}}]}});
    for choice in [json!("required"), named, allowed] {
        for max_tokens in (1..60).step_by(3) {
            let body = json!({
                "model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "tools": tools(),
                "tool_choice": choice, "max_tokens": max_tokens, "seed": 3,
            });
            let answer = client.ok("/v1/chat/completions", body.clone()).await;
            let whole = &answer["choices"][0];
            assert_eq!(whole["message"]["content"], Value::Null, "{answer}");
            let (events, _) = client.events("/v1/chat/completions", body).await;
            let (mut names, mut arguments, mut reason) = (0, String::new(), Value::Null);
            for event in &events {
                let choice = &event["choices"][0];
                assert!(choice["delta"].get("content").is_none(), "{event}");
                for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
                    names += usize::from(call["function"]["name"].is_string());
                    arguments += call["function"]["arguments"].as_str().unwrap();
                }
                reason = choice["finish_reason"].clone();
            }
            assert_eq!(reason, whole["finish_reason"]);
            let calls = whole["message"]["tool_calls"].as_array();
            let calls: Vec<&Value> = calls.into_iter().flatten().collect();
            assert_eq!(names, calls.len());
            let said: String =
                calls.iter().map(|call| call["function"]["arguments"].as_str().unwrap()).collect();
            assert_eq!(arguments, said);
            if choice["type"] == "function" {
                assert!(calls.len() <= 1, "a named function is called once: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn answers_keep_their_form() {
    let client = Client::new(Toy::new(limits()));
    let schema = json!({
        "type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
        "additionalProperties": false,
    });
    let said = |more: Value| {
        let client = client.clone();
        async move { whole(&client.ok(PATH, question(more)).await).0["content"].clone() }
    };
    let form = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": true}});
    for seed in 0..5 {
        let answer = said(json!({"response_format": form, "seed": seed})).await;
        let parsed: Value = serde_json::from_str(answer.as_str().unwrap()).unwrap();
        assert!(parsed["ok"].is_boolean(), "{parsed}");
        let answer =
            said(json!({"structured_outputs": {"json": schema.to_string()}, "seed": seed})).await;
        assert!(serde_json::from_str::<Value>(answer.as_str().unwrap()).is_ok());
        let answer =
            said(json!({"structured_outputs": {"choice": ["yes", "no"]}, "seed": seed})).await;
        assert!(answer == "yes" || answer == "no", "{answer}");
        let answer = said(json!({"structured_outputs": {"regex": "[0-9]{3}"}, "seed": seed})).await;
        let answer = answer.as_str().unwrap();
        assert!(answer.len() == 3 && answer.bytes().all(|b| b.is_ascii_digit()), "{answer}");
        let lark = "start: \"a\" (\"b\" | \"c\") \"d\"";
        let answer = said(json!({"structured_outputs": {"grammar": lark}, "seed": seed})).await;
        assert!(answer == "abd" || answer == "acd", "{answer}");
    }
    assert!(!said(json!({"response_format": {"type": "text"}, "max_tokens": 3})).await.is_null());
}

#[tokio::test]
async fn strict_tools_are_called_by_their_schemas_though_nothing_is_required() {
    let strict = |strict: bool| {
        let mut tools = tools();
        tools[0]["function"]["strict"] = strict.into();
        json!({"tools": tools, "max_tokens": 60})
    };
    // What the model says unless it is kept from it: arguments without a city.
    let wish =
        "Sure. <tool_call>\n{\"name\": \"weather\", \"arguments\": {\"town\": 7}}\n</tool_call>";
    let client = Client::new(Toy::saying(wish));
    let [free, held] = [false, true].map(strict);
    let calls = |answer: &Value| answer["choices"][0]["message"]["tool_calls"].clone();
    let free = client.ok(PATH, question(free)).await;
    assert_eq!(calls(&free)[0]["function"]["arguments"], "{\"town\": 7}");
    let answer = client.ok(PATH, question(held.clone())).await;
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["content"], "Sure.", "{answer}");
    let arguments = calls(&answer)[0]["function"]["arguments"].as_str().unwrap().to_owned();
    match serde_json::from_str::<Value>(&arguments) {
        Ok(arguments) => assert!(arguments["city"].is_string(), "{arguments}"),
        // The model ran out of tokens in the middle of it.
        Err(_) => assert!(arguments.starts_with("{\"city\""), "{arguments}"),
    }
    // Text stays text.
    let client = Client::new(Toy::saying("It is <b>sunny</b>."));
    let answer = client.ok(PATH, question(held.clone())).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "It is <b>sunny</b>.");
    let mut both = question(held);
    both["response_format"] = json!({"type": "json_object"});
    let (status, answer) = client.post(PATH, both).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(message.contains("a strict tool and response_format both"), "{message}");
}

#[tokio::test]
async fn poisoned_grammars_cost_one_request() {
    let client = Client::new(Toy::new(limits()));
    let deep = format!("{}a{}", "(".repeat(5000), ")".repeat(5000));
    let poisons = [
        json!({"regex": "(a"}),
        json!({"regex": deep}),
        json!({"grammar": "start: start start"}),
        json!({"grammar": "not a grammar"}),
        json!({"json": {"type": "no such type"}}),
        json!({"json": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}}),
        json!({"json": {"enum": []}}),
        json!({"choice": []}),
        json!({"json_object": false}),
        json!({"regex": "a", "choice": ["a"]}),
    ];
    for poison in poisons {
        let body = question(json!({"structured_outputs": poison, "max_tokens": 4}));
        let (status, answer) = client.post(PATH, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{poison}: {answer}");
        assert!(!answer["error"]["message"].as_str().unwrap().is_empty());
    }
    client.ok(PATH, question(json!({"max_tokens": 1}))).await;
    assert_eq!(client.get("/health").await.0, StatusCode::OK);
}

#[tokio::test]
async fn messages_become_a_prompt() {
    let source = "{% for m in messages %}[{{ m.role }}{% if m.name %} {{ m.name }}{% endif %}]\
                  {{ m.content }}{% for call in m.tool_calls %}<{{ call.function.name }} \
                  {{ call.function.arguments.city }}>{% endfor %};{% endfor %}\
                  {% if add_generation_prompt %}[assistant]{% endif %}{{ mood }}";
    let template = ChatTemplate::new(source, "", "").unwrap();
    let model = served(Toy::new(limits()), HandleOptions::default()).with_chat_template(template);
    let client = Client::with(quiet(), vec![model]);
    let prompt = |messages: Value, more: Value| {
        let client = client.clone();
        let mut body = json!({"model": "tiny", "messages": messages});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        async move {
            let tokens = client.ok("/tokenize", body).await;
            let text =
                client.ok("/detokenize", json!({"model": "tiny", "tokens": tokens["tokens"]}));
            text.await["prompt"].as_str().unwrap().to_owned()
        }
    };
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"city\": \"Rome\"}"}});
    let messages = json!([
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "name": "Ann", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "refusal": null, "annotations": []},
        {"role": "user", "content": "d"},
    ]);
    assert_eq!(
        prompt(messages, json!({})).await,
        "[system]Be brief.;[user Ann]a\nb;[assistant]c;[user]d;[assistant]"
    );
    let calls = json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "sun"},
    ]);
    let called = prompt(calls, json!({"add_generation_prompt": false})).await;
    assert!(called.contains("Rome") && called.contains("sun"), "{called}");
    let prefix =
        json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "Once "}]);
    assert_eq!(
        prompt(prefix, json!({"continue_final_message": true})).await,
        "[user]a;[assistant]Once "
    );
    let kwargs = json!({"chat_template_kwargs": {"mood": "!"}});
    assert_eq!(
        prompt(json!([{"role": "user", "content": "a"}]), kwargs).await,
        "[user]a;[assistant]!"
    );
}

#[tokio::test]
async fn tokens_and_text() {
    let client = Client::new(Toy::new(limits()));
    let body = json!({"model": "tiny", "prompt": "The house 今天", "return_token_strs": true});
    let answer = client.ok("/tokenize", body).await;
    let tokens = answer["tokens"].as_array().unwrap();
    assert_eq!(answer["count"], tokens.len());
    assert_eq!(answer["token_strs"].as_array().unwrap().len(), tokens.len());
    assert_eq!(answer["max_model_len"], limits().context);
    let text = client.ok("/detokenize", json!({"model": "tiny", "tokens": tokens})).await;
    assert_eq!(text["prompt"], "The house 今天");
}
