//! What client libraries send, row by row: histories that they give back, fields without effect, and
//! fields of other servers.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use axum::http::StatusCode;
use bantam_engine::HandleOptions;
use bantam_text::ChatTemplate;
use common::{Client, Toy, limits, quiet, served};
use serde_json::{Value, json};

fn client() -> Client {
    Client::new(Toy::new(limits()))
}

fn with(base: &Value, more: &Value) -> Value {
    let mut body = base.clone();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn tools() -> Value {
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    json!([{"type": "function", "function": {"name": "weather", "parameters": parameters}}])
}

/// A template that shows everything it is given.
const SHOWS_ALL: &str = "{% for m in messages %}[{{ m.role }}{{ ' ' + m.name if m.name }}]\
    {{ '(' + m.reasoning_content + ')' if m.reasoning_content }}{{ m.content or '' }}\
    {% for c in m.tool_calls or [] %}<{{ c.id }} {{ c.function.name }} \
    {{ c.function.arguments | tojson }}>{% endfor %}\
    {{ ' for ' + m.tool_call_id if m.tool_call_id }};{% endfor %}\
    {{ tools | length if tools }}{{ ' effort ' + reasoning_effort if reasoning_effort }}\
    {{ ' no thinking' if enable_thinking is false }}";

/// The prompt that a conversation becomes.
async fn prompt(client: &Client, messages: &Value, more: &Value) -> Result<String, Value> {
    let body = with(&json!({"model": "tiny", "messages": messages}), more);
    let (status, tokens) = client.post("/tokenize", body).await;
    if status != StatusCode::OK {
        return Err(tokens);
    }
    let tokens = tokens["tokens"].clone();
    let text = client.ok("/detokenize", json!({"model": "tiny", "tokens": tokens})).await;
    Ok(text["prompt"].as_str().unwrap().to_owned())
}

fn showing_all() -> Client {
    let template = ChatTemplate::new(SHOWS_ALL, "", "").unwrap();
    let model = served(Toy::new(limits()), HandleOptions::default()).with_chat_template(template);
    Client::with(quiet(), vec![model])
}

/// A message as a client gives it back, and how it must reach the template.
#[tokio::test]
async fn histories_reach_the_template_as_they_were_said() {
    let client = showing_all();
    let call = |more: Value| {
        let call = json!({"id": "c1", "type": "function",
            "function": {"name": "weather", "arguments": "{\"city\":\"Rome\"}"}});
        json!({"role": "assistant", "content": null, "tool_calls": [with(&call, &more)]})
    };
    let called = "[assistant]<c1 weather {\"city\": \"Rome\"}>;";
    let function = |arguments: Value| {
        let function = json!({"name": "weather", "arguments": arguments});
        json!({"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": function}]})
    };
    let said = |more: Value| with(&json!({"role": "assistant", "content": "Hello"}), &more);
    let hello = "[assistant]Hello;";
    let rows = [
        // openai: message.model_dump()
        (
            said(json!({"refusal": null, "annotations": [], "audio": null, "function_call": null,
            "tool_calls": null})),
            hello,
        ),
        (said(json!({"tool_calls": []})), hello),
        (said(json!({"parsed": {"a": 1}})), hello),
        (said(json!({"parsed": null, "annotations": [{"type": "url_citation"}]})), hello),
        // litellm
        (said(json!({"provider_specific_fields": {"refusal": null}})), hello),
        (said(json!({"thinking_blocks": [{"type": "thinking", "thinking": "a"}]})), hello),
        (
            said(json!({"reasoning_content": "Hm", "thinking_blocks": null})),
            "[assistant](Hm)Hello;",
        ),
        // vLLM, OpenRouter, Ollama
        (said(json!({"reasoning": "Hm"})), "[assistant](Hm)Hello;"),
        (
            said(json!({"reasoning": "Hm", "reasoning_content": "Hm", "reasoning_details": [{}]})),
            "[assistant](Hm)Hello;",
        ),
        (said(json!({"thinking": "Hm"})), "[assistant](Hm)Hello;"),
        (said(json!({"reasoning_content": ""})), hello),
        // langchain, AI SDK, LibreChat
        (
            said(json!({"id": "run-1", "additional_kwargs": {}, "response_metadata": {"a": 1}})),
            hello,
        ),
        (said(json!({"providerOptions": {"x": {}}, "providerMetadata": {}})), hello),
        (said(json!({"experimental_providerMetadata": {}, "createdAt": "2026-01-01"})), hello),
        (said(json!({"cache_control": {"type": "ephemeral"}})), hello),
        (said(json!({"name": "Ann"})), "[assistant Ann]Hello;"),
        // Parts.
        (
            json!({"role": "assistant", "content": [
                {"type": "text", "text": "A", "cache_control": {"type": "ephemeral"}},
                {"type": "output_text", "text": "B", "annotations": [], "logprobs": []},
                {"type": "refusal", "refusal": "C"}, "D",
            ]}),
            "[assistant]A\nB\nC\nD;",
        ),
        (
            json!({"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Hm", "signature": "x"}, {"type": "text", "text": "A"},
            ]}),
            "[assistant](Hm)A;",
        ),
        (json!({"role": "assistant", "content": []}), "[assistant];"),
        (json!({"role": "assistant", "content": null, "refusal": "No."}), "[assistant]No.;"),
        (json!({"role": "assistant", "content": null}), "[assistant];"),
        (
            json!({"role": "assistant", "content": "", "reasoning_content": "Hm"}),
            "[assistant](Hm);",
        ),
        // Calls.
        (call(json!({"index": 0})), called),
        (call(json!({"provider_specific_fields": null, "cache_control": null})), called),
        (call(json!({"extra_content": {"google": {"thought_signature": "x"}}})), called),
        (call(json!({"type": null})), called),
        (call(json!({"id": null})), "[assistant]<c00010000 weather {\"city\": \"Rome\"}>;"),
        (call(json!({"custom": null})), called),
        (function(json!("")), "[assistant]<c1 weather {}>;"),
        (function(json!(" ")), "[assistant]<c1 weather {}>;"),
        (function(json!(null)), "[assistant]<c1 weather {}>;"),
        (function(json!({})), "[assistant]<c1 weather {}>;"),
        (function(json!({"city": "Rome"})), called),
        (
            json!({"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function",
            "function": {"name": "weather", "arguments": "{\"city\":\"Rome\"}",
                "parsed_arguments": {"city": "Rome"}}}]}),
            called,
        ),
        (
            json!({"role": "assistant", "tool_calls": [{"id": "c1", "type": "custom",
            "custom": {"name": "run", "input": "ls"}}]}),
            "[assistant]<c1 run {\"input\": \"ls\"}>;",
        ),
        (
            json!({"role": "assistant", "content": null,
            "function_call": {"name": "weather", "arguments": "{}"}}),
            "[assistant]<c00010000 weather {}>;",
        ),
        // Others that speak.
        (json!({"role": "developer", "content": "Be brief."}), "[system]Be brief.;"),
        (
            json!({"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "21"}]}),
            "[tool]21 for c1;",
        ),
        (
            json!({"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "21"}),
            "[tool weather]21 for c1;",
        ),
        (json!({"role": "tool", "tool_call_id": "c1", "content": null}), "[tool] for c1;"),
        (json!({"role": "user", "content": [{"type": "input_text", "text": "A"}]}), "[user]A;"),
        (
            json!({"role": "user", "name": "Bob", "content": "A", "id": "m1", "timestamp": 5}),
            "[user Bob]A;",
        ),
    ];
    let mut wrong = Vec::new();
    for (message, expected) in rows {
        let messages = json!([{"role": "user", "content": "Hi"}, message]);
        let got = prompt(&client, &messages, &json!({})).await;
        if got.as_deref() != Ok(&format!("[user]Hi;{expected}")) {
            wrong.push(format!("{message}: {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The result of a call in the old form is that of the call before it.
    let messages = json!([
        {"role": "assistant", "content": null, "function_call": {"name": "weather", "arguments": ""}},
        {"role": "function", "name": "weather", "content": "21"},
        {"role": "assistant", "content": "A"}, {"role": "assistant", "content": "B"},
    ]);
    let got = prompt(&client, &messages, &json!({})).await.unwrap();
    let expected = "[assistant]<c00000000 weather {}>;[tool weather]21 for c00000000;\
                    [assistant]A;[assistant]B;";
    assert_eq!(got, expected);
}

#[tokio::test]
async fn reasoning_effort_reaches_the_template() {
    let client = showing_all();
    let messages = json!([{"role": "user", "content": "Hi"}]);
    for (more, expected) in [
        (json!({}), ""),
        (json!({"reasoning_effort": "low"}), " effort low"),
        (json!({"reasoning_effort": "xhigh"}), " effort xhigh"),
        (json!({"reasoning_effort": null}), ""),
        (json!({"reasoning_effort": "none"}), " effort none no thinking"),
        (
            json!({"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "high"}}),
            " effort high",
        ),
    ] {
        let got = prompt(&client, &messages, &more).await.unwrap();
        assert_eq!(got, format!("[user]Hi;{expected}"), "{more}");
    }
}

#[tokio::test]
async fn fields_without_effect_have_none() {
    let client = client();
    let base = json!({
        "model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "seed": 7,
    });
    let content = |answer: &Value| answer["choices"][0]["message"].clone();
    let plain = content(&client.ok("/v1/chat/completions", base.clone()).await);
    let rows = [
        json!({"metadata": {"a": "b"}}),
        json!({"store": true}),
        json!({"service_tier": "flex"}),
        json!({"prompt_cache_key": "k", "prompt_cache_retention": "24h"}),
        json!({"safety_identifier": "u"}),
        json!({"verbosity": "low"}),
        json!({"moderation": {"model": "x"}}),
        json!({"user": "u"}),
        json!({"cache_prompt": true}),
        json!({"prediction": {"type": "content", "content": "x"}}),
        json!({"parallel_tool_calls": true}),
        json!({"parallel_tool_calls": false, "tools": null}),
        json!({"tools": [], "tool_choice": "auto"}),
        json!({"tool_choice": "none"}),
        json!({"logprobs": false, "top_logprobs": null}),
        json!({"stop": null}),
        json!({"stop": []}),
        json!({"stop": ""}),
        json!({"temperature": null, "top_p": 1, "n": 1, "presence_penalty": 0}),
        json!({"top_k": -1}),
        json!({"max_completion_tokens": 4}),
        json!({"response_format": {"type": "text"}}),
        json!({"response_format": null, "logit_bias": null, "stream": false}),
        json!({"model": null}),
        json!({"model": ""}),
        json!({"audio": null, "modalities": ["text"], "web_search_options": null}),
        json!({"reasoning_effort": "medium"}),
    ];
    for more in rows {
        let (status, answer) = client.post("/v1/chat/completions", with(&base, &more)).await;
        assert_eq!(status, StatusCode::OK, "{more}: {answer}");
        assert_eq!(content(&answer), plain, "{more}");
    }
    let mut nameless = base;
    nameless.as_object_mut().unwrap().remove("model");
    assert_eq!(content(&client.ok("/v1/chat/completions", nameless).await), plain);
}

/// Misspelt and foreign names: the hint is right or absent.
#[tokio::test]
async fn hints_are_right_or_absent() {
    let client = client();
    let rows = [
        ("n_predict", Some("max_tokens")),
        ("num_predict", Some("max_tokens")),
        ("max_new_tokens", Some("max_tokens")),
        ("max_output_tokens", Some("max_tokens")),
        ("maxTokens", Some("max_tokens")),
        ("repeat_penalty", Some("repetition_penalty")),
        ("stop_sequences", Some("stop")),
        ("temprature", Some("temperature")),
        ("topP", Some("top_p")),
        ("tool", Some("tools")),
        ("num_ctx", None),
        ("keep_alive", None),
        ("qwertyuiop", None),
        ("x", None),
    ];
    for (field, expected) in rows {
        let mut body = json!({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]});
        body[field] = json!(5);
        let (status, answer) = client.post("/v1/chat/completions", body).await;
        assert_eq!((status, &answer["error"]["param"]), (StatusCode::BAD_REQUEST, &json!(field)));
        let message = answer["error"]["message"].as_str().unwrap();
        let hint = message.split_once("nearest known one is ").map(|(_, hint)| hint);
        assert_eq!(hint, expected, "{message}");
    }
}

#[tokio::test]
async fn schemas_beside_json_object_are_honoured() {
    let client = client();
    let base = json!({
        "model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20,
    });
    let schema = json!({"const": "42"});
    for more in [
        json!({"response_format": {"type": "json_object", "schema": schema}}),
        json!({"response_format": {"type": "json_schema", "schema": schema}}),
        json!({"response_format": {"type": "json_schema", "json_schema": {
            "name": "x", "strict": true, "description": "y", "schema": schema}}}),
        json!({"guided_json": schema}),
        json!({"guided_json": schema.to_string()}),
        json!({"json_schema": schema}),
        json!({"structured_outputs": {"json": schema}}),
        json!({"guided_regex": "\"42\""}),
        json!({"guided_choice": ["\"42\""]}),
        json!({"guided_grammar": "start: \"\\\"42\\\"\""}),
        json!({"grammar": "start: \"\\\"42\\\"\""}),
        json!({"response_format": {"type": "grammar", "grammar": "start: \"\\\"42\\\"\""}}),
    ] {
        let answer = client.ok("/v1/chat/completions", with(&base, &more)).await;
        assert_eq!(answer["choices"][0]["message"]["content"], "\"42\"", "{more}");
    }
    for (more, param) in [
        (
            json!({"response_format": {"type": "json_object", "strict": true}}),
            "response_format.strict",
        ),
        (json!({"response_format": {"type": "text", "schema": {}}}), "response_format.schema"),
        (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema"),
        (json!({"guided_json": {}, "guided_regex": "a"}), "guided_regex"),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "hiccup"}}}}),
            "response_format",
        ),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f",
            "parameters": {"type": "object", "properties": {"a": {"type": "hiccup"}}}}}],
            "tool_choice": "required"}),
            "tools",
        ),
    ] {
        let (status, answer) = client.post("/v1/chat/completions", with(&base, &more)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert_eq!(answer["error"]["param"], param, "{answer}");
    }
}

#[tokio::test]
async fn allowed_tools_are_the_only_ones_called() {
    let mut all = tools();
    let news = json!({"type": "function", "function": {"name": "news"}});
    all.as_array_mut().unwrap().push(news.clone());
    let ask = |mode: &str, allowed: Value| {
        json!({
            "model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "tools": all,
            "max_tokens": 60, "tool_choice": {"type": "allowed_tools",
                "allowed_tools": {"mode": mode, "tools": allowed}},
        })
    };
    // A model that wants to call the other one cannot.
    let wanted = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {}}\n</tool_call>";
    for mode in ["auto", "required"] {
        let client = Client::new(Toy::saying(wanted));
        let answer = client.ok("/v1/chat/completions", ask(mode, json!([news]))).await;
        let calls = answer["choices"][0]["message"]["tool_calls"].as_array();
        for call in calls.into_iter().flatten() {
            assert_eq!(call["function"]["name"], "news", "{answer}");
        }
        assert!(mode == "auto" || calls.is_some(), "{answer}");
    }
    let client = client();
    for (allowed, expected) in [
        (json!([]), "allows no tool"),
        (
            json!([{"type": "function",
        "function": {"name": "music"}}]),
            "expected some of",
        ),
    ] {
        let (status, answer) = client.post("/v1/chat/completions", ask("auto", allowed)).await;
        assert_eq!(
            (status, &answer["error"]["param"]),
            (StatusCode::BAD_REQUEST, &json!("tool_choice"))
        );
        assert!(answer["error"]["message"].as_str().unwrap().contains(expected), "{answer}");
    }
}

#[tokio::test]
async fn what_ended_an_answer_is_told() {
    let client = Client::new(Toy::saying("The capital is Paris, I think."));
    let base =
        json!({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0});
    for (more, text, reason) in [
        (json!({}), "The capital is Paris, I think.", json!(null)),
        (json!({"stop": ["Rome", "Paris"]}), "The capital is ", json!("Paris")),
        (
            json!({"stop": "Paris", "include_stop_str_in_output": true}),
            "The capital is Paris",
            json!("Paris"),
        ),
        (json!({"max_tokens": 2}), "", json!(null)),
    ] {
        let body = with(&base, &more);
        let answer = client.ok("/v1/chat/completions", body.clone()).await;
        let choice = &answer["choices"][0];
        assert_eq!(choice["stop_reason"], reason, "{answer}");
        assert!(choice.as_object().unwrap().contains_key("stop_reason"));
        if !text.is_empty() {
            assert_eq!(choice["message"]["content"], text, "{answer}");
        }
        let (events, _) = client.events("/v1/chat/completions", body).await;
        assert_eq!(events.last().unwrap()["choices"][0]["stop_reason"], reason);
    }
    // A stop token of the request is told by its id; the model's own is not.
    let ids =
        client.ok("/tokenize", json!({"prompt": " Paris", "add_special_tokens": false})).await;
    let first = ids["tokens"][0].clone();
    let text = client.ok("/detokenize", json!({"tokens": [first]})).await;
    let mut said = Vec::new();
    for show in [false, true] {
        let more = json!({"stop_token_ids": [first], "include_stop_str_in_output": show});
        let answer = client.ok("/v1/chat/completions", with(&base, &more)).await;
        let choice = &answer["choices"][0];
        assert_eq!(choice["stop_reason"], first, "{answer}");
        said.push(choice["message"]["content"].as_str().unwrap().to_owned());
    }
    assert_eq!(said[0].clone() + text["prompt"].as_str().unwrap(), said[1]);
}

#[tokio::test]
async fn tokens_are_told_as_ids() {
    let client = client();
    let chat = json!({
        "model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "seed": 2,
        "return_token_ids": true, "logprobs": true, "return_tokens_as_token_ids": true,
    });
    let prompt =
        client.ok("/tokenize", json!({"messages": chat["messages"]})).await["tokens"].clone();
    let answer = client.ok("/v1/chat/completions", chat.clone()).await;
    assert_eq!(answer["prompt_token_ids"], prompt);
    let ids = answer["choices"][0]["token_ids"].as_array().unwrap().clone();
    assert_eq!(ids.len(), 5);
    let shown = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let shown: Vec<&Value> = shown.iter().map(|token| &token["token"]).collect();
    let expected: Vec<Value> = ids.iter().map(|id| format!("token_id:{id}").into()).collect();
    assert_eq!(shown, expected.iter().collect::<Vec<_>>());
    let (events, _) = client.events("/v1/chat/completions", chat).await;
    assert_eq!(events[0]["prompt_token_ids"], prompt);
    let streamed = events.iter().filter_map(|event| event["choices"][0]["token_ids"].as_array());
    assert_eq!(streamed.flatten().cloned().collect::<Vec<_>>(), ids);

    let text = json!({
        "model": "tiny", "prompt": "Hi", "max_tokens": 5, "seed": 2, "return_token_ids": true,
        "logprobs": 1, "return_tokens_as_token_ids": true,
    });
    let answer = client.ok("/v1/completions", text).await;
    let choice = &answer["choices"][0];
    assert_eq!(
        choice["prompt_token_ids"].as_array().map(Vec::len),
        Some(answer["usage"]["prompt_tokens"].as_u64().unwrap() as usize)
    );
    let named =
        choice["token_ids"].as_array().unwrap().iter().map(|id| json!(format!("token_id:{id}")));
    assert_eq!(choice["logprobs"]["tokens"], Value::Array(named.collect()));
}

#[tokio::test]
async fn prompts_are_cut_and_answers_fit() {
    let client = client();
    let long = "word ".repeat(3000);
    let body =
        |more: Value| with(&json!({"model": "tiny", "prompt": long, "max_tokens": 3}), &more);
    let (status, answer) = client.post("/v1/completions", body(json!({}))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(answer["error"]["code"], "context_length_exceeded");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("This model's maximum context length is 20"), "{message}");
    for (truncate, tokens) in [(json!(5), Some(5)), (json!(-1), None)] {
        let more = json!({"truncate_prompt_tokens": truncate, "return_token_ids": true});
        let answer = client.ok("/v1/completions", body(more)).await;
        let used = answer["usage"]["prompt_tokens"].as_u64().unwrap();
        assert!(tokens.is_none_or(|tokens| used == tokens), "{used}");
        assert_eq!(answer["usage"]["completion_tokens"], 3);
    }
    // More than fits is as much as fits, and the usage says so.
    for field in ["max_tokens", "max_completion_tokens"] {
        for beams in [false, true] {
            let mut body = json!({
                "model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "stop": "e",
            });
            body[field] = json!(1_000_000);
            if beams {
                body["use_beam_search"] = true.into();
                body["stop"] = Value::Null;
                body["timeout"] = json!(0.2);
                let (status, answer) = client.post("/v1/chat/completions", body).await;
                assert!(
                    status == StatusCode::OK || status == StatusCode::REQUEST_TIMEOUT,
                    "{answer}"
                );
                continue;
            }
            let answer = client.ok("/v1/chat/completions", body).await;
            let room = answer["usage"]["max_completion_tokens"].as_u64().unwrap();
            assert_eq!(room + answer["usage"]["prompt_tokens"].as_u64().unwrap(), 2048);
        }
    }
    let body =
        json!({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2});
    let answer = client.ok("/v1/chat/completions", body).await;
    assert!(answer["usage"].get("max_completion_tokens").is_none(), "{answer}");
}

#[tokio::test]
async fn only_allowed_tokens_are_chosen() {
    let client = client();
    let body = |more: Value| {
        with(
            &json!({"model": "tiny", "prompt": "Hi", "max_tokens": 8, "return_token_ids": true,
            "allowed_token_ids": [40, 41, 42]}),
            &more,
        )
    };
    let answer = client.ok("/v1/completions", body(json!({}))).await;
    let ids = answer["choices"][0]["token_ids"].as_array().unwrap();
    assert_eq!(ids.len(), 8);
    assert!(ids.iter().all(|id| [40, 41, 42].contains(&id.as_u64().unwrap())), "{ids:?}");
    // Within a form, both hold.
    let (status, answer) = client
        .post("/v1/completions", body(json!({"structured_outputs": {"regex": "[a-z]*"}})))
        .await;
    assert!(status == StatusCode::OK || status == StatusCode::BAD_REQUEST, "{answer}");
}

#[tokio::test]
async fn the_usage_so_far_is_in_every_chunk() {
    let client = client();
    let body = |options: Value| {
        json!({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5,
            "seed": 1, "stream_options": options})
    };
    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    let (events, _) = client.events("/v1/chat/completions", body(options)).await;
    let counts: Vec<u64> =
        events.iter().map(|event| event["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert!(counts.is_sorted() && counts[0] == 0, "{counts:?}");
    assert_eq!(counts.last(), Some(&5));
    assert!(events.last().unwrap()["choices"].as_array().unwrap().is_empty());
    let options = json!({"include_usage": false, "continuous_usage_stats": true, "include_obfuscation": false});
    let (events, _) = client.events("/v1/chat/completions", body(options)).await;
    assert!(events.iter().all(|event| event["choices"].as_array().unwrap().len() == 1));
    assert_eq!(events.last().unwrap()["usage"]["completion_tokens"], 5);
}

#[tokio::test]
async fn scores_of_a_prompt_stand_at_the_top_of_a_chat() {
    let client = client();
    let body = json!({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 1, "prompt_logprobs": 0});
    let answer = client.ok("/v1/chat/completions", body).await;
    let scores = answer["prompt_logprobs"].as_array().unwrap();
    assert_eq!(scores.len() as u64, answer["usage"]["prompt_tokens"].as_u64().unwrap());
    assert!(scores[0].is_null() && scores[1].is_object(), "{answer}");
}
