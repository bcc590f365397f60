//! `/v1/responses` over models that say what they are told to.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use bantam_engine::HandleOptions;
use common::{Client, Fault, Toy, quiet, served, with};
use serde_json::{Value, json};

const PATH: &str = "/v1/responses";

fn question(more: Value) -> Value {
    with(json!({"model": "tiny", "input": "Hi", "temperature": 0}), more)
}

fn weather() -> Value {
    let parameters = json!({
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
        "additionalProperties": false,
    });
    json!({"type": "function", "name": "weather", "parameters": parameters, "strict": false})
}

fn call(city: &str) -> String {
    format!(
        "<tool_call>\n{{\"name\": \"weather\", \"arguments\": {{\"city\": \"{city}\"}}}}\n</tool_call>"
    )
}

/// What was said and called, without names and times.
fn output(response: &Value) -> Value {
    let items = response["output"].as_array().unwrap().iter().map(|item| {
        let mut item = item.clone();
        let fields = item.as_object_mut().unwrap();
        assert!(fields.remove("id").is_some());
        fields.remove("call_id");
        item
    });
    items.collect()
}

fn types(events: &[Value]) -> Vec<&str> {
    let mut types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    types.dedup();
    types
}

/// Checks that the deltas and the ends of a stream agree with its last response, and returns that.
fn collected(events: &[Value]) -> Value {
    for (n, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], n);
    }
    let response = events.last().unwrap()["response"].clone();
    for (n, item) in response["output"].as_array().unwrap().iter().enumerate() {
        let of_item = || events.iter().filter(|event| event["output_index"] == n);
        let deltas = of_item().filter_map(|event| event["delta"].as_str());
        let deltas: String = deltas.collect();
        let whole =
            of_item().find_map(|event| event["text"].as_str().or(event["arguments"].as_str()));
        assert_eq!(Some(&deltas[..]), whole);
        let shown = match item["type"].as_str().unwrap() {
            "message" => &item["content"][0]["text"],
            _ => &item["arguments"],
        };
        assert_eq!(&deltas[..], shown);
        let done = of_item().find(|event| event["type"] == "response.output_item.done").unwrap();
        assert_eq!(&done["item"], item);
        for event in of_item().filter(|event| event.get("item_id").is_some()) {
            assert_eq!(event["item_id"], item["id"]);
        }
    }
    response
}

#[tokio::test]
async fn a_text_is_told_whole_and_in_typed_events() {
    let client = Client::new(Toy::saying("Hello, world"));
    let answer = client.ok(PATH, question(json!({"metadata": {"a": "b"}}))).await;
    assert_eq!((&answer["object"], &answer["status"]), (&json!("response"), &json!("completed")));
    assert_eq!(answer["metadata"], json!({"a": "b"}));
    assert_eq!(answer["incomplete_details"], Value::Null);
    assert_eq!(
        output(&answer),
        json!([{
            "type": "message", "status": "completed", "role": "assistant",
            "content": [
                {"type": "output_text", "text": "Hello, world", "annotations": [], "logprobs": []},
            ],
        }])
    );
    let events = client.named_events(PATH, question(json!({"metadata": {"a": "b"}}))).await;
    assert_eq!(
        types(&events),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let streamed = collected(&events);
    assert_eq!(output(&streamed), output(&answer));
    assert_eq!(events[0]["response"]["status"], "in_progress");
    assert_eq!(events[0]["response"]["id"], streamed["id"]);
    let usage = &streamed["usage"];
    let count = |value: &Value| value.as_u64().unwrap();
    assert_eq!(count(&usage["output_tokens"]), count(&answer["usage"]["output_tokens"]));
    // All but the last block of the prompt is in the cache by now.
    let cached = count(&usage["input_tokens_details"]["cached_tokens"]);
    assert!(cached > 0 && cached < count(&usage["input_tokens"]));
    assert_eq!(usage["output_tokens_details"]["reasoning_tokens"], 0);
    let sum = count(&usage["input_tokens"]) + count(&usage["output_tokens"]);
    assert_eq!(count(&usage["total_tokens"]), sum);
}

#[tokio::test]
async fn calls_are_items_beside_the_text() {
    let client = Client::new(Toy::saying(&format!("Look. {}\n{}", call("Rome"), call("Oslo"))));
    for (parallel, kinds) in [
        (true, vec!["message", "function_call", "function_call"]),
        (false, vec!["message", "function_call"]),
    ] {
        let body = question(json!({"tools": [weather()], "parallel_tool_calls": parallel}));
        let answer = client.ok(PATH, body.clone()).await;
        let items = answer["output"].as_array().unwrap();
        assert_eq!(items.iter().map(|item| &item["type"]).collect::<Vec<_>>(), kinds);
        assert_eq!(items[0]["content"][0]["text"], "Look.");
        assert_eq!(items[1]["arguments"], "{\"city\": \"Rome\"}");
        assert_eq!(
            (&items[1]["name"], &items[1]["status"]),
            (&json!("weather"), &json!("completed"))
        );
        assert_eq!(items[1]["call_id"].as_str().unwrap().len(), 9);
        let events = client.named_events(PATH, body).await;
        assert_eq!(output(&collected(&events)), output(&answer));
        assert!(types(&events).contains(&"response.function_call_arguments.done"));
    }
    let only = Client::new(Toy::saying(&call("Rome")));
    let answer = only.ok(PATH, question(json!({"tools": [weather()]}))).await;
    assert_eq!(output(&answer).as_array().unwrap().len(), 1, "{answer}");
    // Not told about the tools, the model says what it says.
    let none = json!({"tools": [weather()], "tool_choice": "none"});
    let answer = only.ok(PATH, question(none)).await;
    assert_eq!(answer["output"][0]["content"][0]["text"], call("Rome"));
    // Required and named calls, and those among some, follow the schema.
    let any = Client::new(Toy::new(common::limits()));
    let news = json!({"type": "function", "name": "news"});
    for (choice, names) in [
        (json!("required"), vec!["weather", "news"]),
        (json!({"type": "function", "name": "news"}), vec!["news"]),
        (
            json!({"type": "allowed_tools", "mode": "required",
                "tools": [{"type": "function", "name": "news"}]}),
            vec!["news"],
        ),
    ] {
        let fields = json!({"tools": [weather(), news], "tool_choice": choice,
            "parallel_tool_calls": false, "max_output_tokens": 300});
        let answer = any.ok(PATH, question(fields)).await;
        let call = &answer["output"][0];
        assert_eq!(call["type"], "function_call", "{answer}");
        assert!(names.contains(&call["name"].as_str().unwrap()), "{answer}");
    }
}

/// The same conversation in the words of chats and of responses: the model, whose words depend on
/// every token before, says the same.
#[tokio::test]
async fn a_conversation_is_the_prompt_that_chats_make_of_it() {
    let client = Client::new(Toy::new(common::limits()));
    let user = json!({"role": "user", "content": "Weather in Rome?"});
    let called = json!({"id": "call00001", "type": "function",
        "function": {"name": "weather", "arguments": "{\"city\": \"Rome\"}"}});
    let call = json!({"type": "function_call", "call_id": "call00001", "name": "weather",
        "arguments": "{\"city\": \"Rome\"}", "id": "fc_1", "status": "completed"});
    let result = json!({"type": "function_call_output", "call_id": "call00001", "output": "sunny"});
    let tool = json!({"role": "tool", "tool_call_id": "call00001", "content": "sunny"});
    let said = json!({"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
        "content": [{"type": "output_text", "text": "Look.", "annotations": [], "logprobs": []}]});
    let thought = json!({"type": "reasoning", "id": "rs_1", "summary": [],
        "content": [{"type": "reasoning_text", "text": "hm"}], "encrypted_content": null});
    for (fields, messages) in [
        (json!({"input": "Weather in Rome?"}), json!([user])),
        (json!({"input": [user]}), json!([user])),
        (
            json!({"input": [{"role": "user", "type": "message", "content":
                [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]}]}),
            json!([{"role": "user", "content": "a\nb"}]),
        ),
        (
            json!({"input": "Weather in Rome?", "instructions": "Be brief."}),
            json!([{"role": "system", "content": "Be brief."}, user]),
        ),
        (
            json!({"input": [{"role": "developer", "content": "Be brief."}, user]}),
            json!([{"role": "developer", "content": "Be brief."}, user]),
        ),
        (
            json!({"input": [user, thought, call, result]}),
            json!([user, {"role": "assistant", "content": null, "tool_calls": [called]}, tool]),
        ),
        (
            json!({"input": [user, said, call, result]}),
            json!([user, {"role": "assistant", "content": "Look.", "tool_calls": [called]}, tool]),
        ),
        (
            json!({"input": [user, call, {"type": "function_call_output", "call_id": "call00001",
                "output": [{"type": "input_text", "text": "sunny"}]}]}),
            json!([user, {"role": "assistant", "content": null, "tool_calls": [called]}, tool]),
        ),
    ] {
        let fields = with(fields, json!({"model": "tiny"}));
        let limits = json!({"temperature": 0, "max_output_tokens": 12});
        let answer = client.ok(PATH, with(fields.clone(), limits)).await;
        let chat =
            json!({"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 12});
        let expected = client.ok("/v1/chat/completions", chat).await;
        let text = &answer["output"][0]["content"][0]["text"];
        assert_eq!(text, &expected["choices"][0]["message"]["content"], "{fields}");
        let counted = client.ok("/v1/responses/input_tokens", fields).await;
        assert_eq!(counted["object"], "response.input_tokens");
        assert_eq!(counted["input_tokens"], expected["usage"]["prompt_tokens"]);
    }
}

#[tokio::test]
async fn a_response_is_kept_and_gone_on_with() {
    let client = Client::new(Toy::new(common::limits()));
    let limits = json!({"max_output_tokens": 8});
    let first = client.ok(PATH, question(limits.clone())).await;
    let id = first["id"].as_str().unwrap().to_owned();
    let next = json!({"previous_response_id": id, "input": "And?", "max_output_tokens": 8});
    let second = client.ok(PATH, question(next.clone())).await;
    assert_eq!(second["previous_response_id"], id.as_str());
    // The same as sending everything, and as referring to what was said.
    let said = first["output"][0].clone();
    let (hi, and) =
        (json!({"role": "user", "content": "Hi"}), json!({"role": "user", "content": "And?"}));
    let reference = json!({"type": "item_reference", "id": said["id"]});
    for input in [json!([hi, said, and]), json!([hi, reference, and])] {
        let whole = client.ok(PATH, question(with(json!({"input": input}), limits.clone()))).await;
        assert_eq!(output(&whole), output(&second));
        assert_eq!(whole["usage"]["input_tokens"], second["usage"]["input_tokens"]);
    }
    // A stream is kept as well.
    let events = client.named_events(PATH, question(next)).await;
    let third = collected(&events);
    let third_id = third["id"].as_str().unwrap();
    let (status, shown) = client.get(&format!("{PATH}/{third_id}")).await;
    assert_eq!(
        (status, serde_json::from_str::<Value>(&shown).unwrap()),
        (StatusCode::OK, third.clone())
    );
    let items = |page: &str| {
        let path = format!("{PATH}/{third_id}/input_items{page}");
        let client = client.clone();
        async move { serde_json::from_str::<Value>(&client.get(&path).await.1).unwrap() }
    };
    let listed = items("?order=asc").await;
    let roles: Vec<&Value> =
        listed["data"].as_array().unwrap().iter().map(|item| &item["role"]).collect();
    assert_eq!(roles, ["user", "assistant", "user"]);
    assert_eq!(listed["data"][0]["content"][0], json!({"type": "input_text", "text": "Hi"}));
    let page = items("?limit=1").await;
    assert_eq!((&page["has_more"], &page["data"][0]), (&json!(true), &listed["data"][2]));
    let after = format!("?limit=1&after={}", page["last_id"].as_str().unwrap());
    assert_eq!(items(&after).await["data"][0], listed["data"][1]);

    let delete = || Request::delete(format!("{PATH}/{id}")).body(Body::empty()).unwrap();
    assert_eq!(client.send(delete()).await.0, StatusCode::OK);
    assert_eq!(client.send(delete()).await.0, StatusCode::NOT_FOUND);
    let unkept = client.ok(PATH, question(json!({"store": false, "max_output_tokens": 1}))).await;
    for id in [&id, unkept["id"].as_str().unwrap(), "resp_never"] {
        let body = question(json!({"previous_response_id": id}));
        let (status, answer) = client.post(PATH, body).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{answer}");
        assert_eq!(answer["error"]["param"], "previous_response_id");
        assert_eq!(client.get(&format!("{PATH}/{id}")).await.0, StatusCode::NOT_FOUND);
    }
    let body = question(json!({"input": [{"type": "item_reference", "id": "msg_never"}]}));
    let (status, answer) = client.post(PATH, body).await;
    assert_eq!(
        (status, &answer["error"]["param"]),
        (StatusCode::BAD_REQUEST, &json!("input[0].id"))
    );
}

#[tokio::test]
async fn a_response_is_shown_to_the_key_that_made_it() {
    let mut options = quiet();
    options.api_keys = vec!["mine".to_owned(), "other".to_owned()];
    let model = served(Toy::saying("Hello"), HandleOptions::default());
    let client = Client::with(options, vec![model]);
    let send = |method: Method, path: String, key: &'static str, body: String| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {key}"));
        let client = client.clone();
        async move { client.send(request.body(Body::from(body)).unwrap()).await }
    };
    let asked = send(Method::POST, PATH.to_owned(), "mine", question(json!({})).to_string()).await;
    let answer: Value = serde_json::from_slice(&asked.2).unwrap();
    let path = format!("{PATH}/{}", answer["id"].as_str().unwrap());
    let empty = String::new;
    assert_eq!(send(Method::GET, path.clone(), "other", empty()).await.0, StatusCode::NOT_FOUND);
    assert_eq!(send(Method::DELETE, path.clone(), "other", empty()).await.0, StatusCode::NOT_FOUND);
    let next = question(json!({"previous_response_id": answer["id"]})).to_string();
    let stolen = send(Method::POST, PATH.to_owned(), "other", next.clone()).await;
    assert_eq!(stolen.0, StatusCode::NOT_FOUND);
    assert_eq!(send(Method::POST, PATH.to_owned(), "mine", next).await.0, StatusCode::OK);
    assert_eq!(send(Method::GET, path, "mine", empty()).await.0, StatusCode::OK);
}

#[tokio::test]
async fn an_answer_that_is_cut_or_fails_says_so() {
    let client = Client::new(Toy::new(common::limits()));
    let cut = question(json!({"max_output_tokens": 5}));
    let answer = client.ok(PATH, cut.clone()).await;
    let events = client.named_events(PATH, cut).await;
    assert_eq!(events.last().unwrap()["type"], "response.incomplete");
    let streamed = collected(&events);
    assert_eq!(output(&streamed), output(&answer));
    for response in [&answer, &streamed] {
        assert_eq!(response["status"], "incomplete");
        assert_eq!(response["incomplete_details"], json!({"reason": "max_output_tokens"}));
        assert_eq!(response["output"][0]["status"], "incomplete");
        assert_eq!(response["usage"]["output_tokens"], 5);
    }
    let call = format!("Look. {}", call(&"Rome ".repeat(50)));
    let client = Client::new(Toy::saying(&call));
    let body = question(json!({"tools": [weather()], "max_output_tokens": 40}));
    let answer = client.ok(PATH, body).await;
    let states: Vec<&Value> =
        answer["output"].as_array().unwrap().iter().map(|item| &item["status"]).collect();
    assert_eq!(states, ["completed", "incomplete"], "{answer}");

    let failing = || Toy::failing(|step| (step == 6).then_some(Fault::Error));
    let body = question(json!({"ignore_eos": true, "max_output_tokens": 50}));
    let events = Client::new(failing()).named_events(PATH, body.clone()).await;
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.failed");
    assert_eq!(last["response"]["status"], "failed");
    assert_eq!(last["response"]["error"]["code"], "server_error");
    let (status, _) = Client::new(failing()).post(PATH, body).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn the_form_of_the_text_is_enforced() {
    let client = Client::new(Toy::new(common::limits()));
    let schema = json!({"type": "object", "properties": {"yes": {"type": "boolean"}},
        "required": ["yes"], "additionalProperties": false});
    let form = json!({"type": "json_schema", "name": "n", "strict": true, "schema": schema});
    let body = question(json!({"text": {"format": form}}));
    let answer = client.ok(PATH, body.clone()).await;
    let text = answer["output"][0]["content"][0]["text"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(text).unwrap()["yes"].is_boolean(), "{text}");
    assert_eq!(answer["text"]["format"], form);
    assert_eq!(output(&collected(&client.named_events(PATH, body).await)), output(&answer));
    let object = json!({"text": {"format": {"type": "json_object"}}, "max_output_tokens": 30});
    let answer = client.ok(PATH, question(object)).await;
    assert!(
        answer["output"][0]["content"][0]["text"].as_str().unwrap().trim_start().starts_with('{')
    );
    let plain =
        json!({"text": {"format": {"type": "text"}, "verbosity": "low"}, "max_output_tokens": 3});
    client.ok(PATH, question(plain)).await;
}

/// A model that may call tools says JSON of the form or calls: agents with an output type need both.
#[tokio::test]
async fn a_form_of_the_text_leaves_room_for_calls() {
    let schema = json!({"type": "object", "properties": {"yes": {"type": "boolean"}},
        "required": ["yes"], "additionalProperties": false});
    let form = json!({"type": "json_schema", "name": "n", "schema": schema});
    for strict in [false, true] {
        let tool = with(weather(), json!({"strict": strict}));
        let both = question(json!({"tools": [tool], "text": {"format": form}}));
        let caller = Client::new(Toy::saying(&call("Rome")));
        let answer = caller.ok(PATH, both.clone()).await;
        assert_eq!(answer["output"][0]["arguments"], "{\"city\": \"Rome\"}", "{answer}");
        // What the last of these would say is neither.
        for said in ["{\"yes\": true}", "Hello"] {
            let fields = with(both.clone(), json!({"max_output_tokens": 200}));
            let answer = Client::new(Toy::saying(said)).ok(PATH, fields).await;
            let item = &answer["output"][0];
            if item["type"] == "message" {
                let text = item["content"][0]["text"].as_str().unwrap();
                let value: Value = serde_json::from_str(text).unwrap();
                assert!(value["yes"].is_boolean(), "{text}");
            } else {
                assert_eq!((&item["name"], said), (&json!("weather"), "Hello"));
            }
        }
        let required = with(both, json!({"tool_choice": "required"}));
        let answer = caller.ok(PATH, required).await;
        assert_eq!(answer["output"][0]["type"], "function_call");
    }
}

#[tokio::test]
async fn log_probabilities_are_shown_if_asked_for() {
    let client = Client::new(Toy::saying("Hello, world"));
    for fields in [
        json!({"include": ["message.output_text.logprobs"], "top_logprobs": 2}),
        json!({"top_logprobs": 2}),
    ] {
        let answer = client.ok(PATH, question(fields.clone())).await;
        let content = &answer["output"][0]["content"][0];
        let tokens = content["logprobs"].as_array().unwrap();
        let text: Vec<u8> = tokens
            .iter()
            .flat_map(|token| serde_json::from_value::<Vec<u8>>(token["bytes"].clone()).unwrap())
            .collect();
        assert_eq!(String::from_utf8(text).unwrap(), content["text"].as_str().unwrap());
        assert!(tokens.iter().all(|token| token["top_logprobs"].as_array().unwrap().len() == 2));
        let events = client.named_events(PATH, question(fields)).await;
        let deltas = events.iter().filter(|event| event["type"] == "response.output_text.delta");
        let shown: Vec<&Value> =
            deltas.flat_map(|event| event["logprobs"].as_array().unwrap()).collect();
        assert_eq!(shown, tokens.iter().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_long_conversation_loses_its_oldest_turns_if_it_may() {
    let client = Client::new(Toy::new(common::limits()));
    let turn = |n: usize| {
        let said = format!("turn {n} {}", "word ".repeat(60));
        [json!({"role": "user", "content": said}), json!({"role": "assistant", "content": "Yes."})]
    };
    let turns: Vec<Value> = (0..40).flat_map(turn).collect();
    let last = json!({"role": "user", "content": "So?"});
    let input: Vec<Value> = turns.iter().chain([&last]).cloned().collect();
    let fields = json!({"input": input, "instructions": "Be brief.", "max_output_tokens": 100});
    let (status, answer) = client.post(PATH, question(fields.clone())).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(answer["error"]["code"], "context_length_exceeded", "{answer}");
    let fields = with(fields, json!({"truncation": "auto"}));
    let answer = client.ok(PATH, question(fields)).await;
    let tokens = answer["usage"]["input_tokens"].as_u64().unwrap() as usize;
    let room = common::limits().context - 100;
    assert!(tokens <= room, "{tokens}");
    // What is left is the instructions and the latest turns, as many as fit.
    let with_last = |first: usize| {
        let input: Vec<Value> = turns[2 * first..].iter().chain([&last]).cloned().collect();
        json!({"model": "tiny", "input": input, "instructions": "Be brief."})
    };
    let mut fitting = 0;
    loop {
        let counted = client.ok("/v1/responses/input_tokens", with_last(fitting)).await;
        let counted = counted["input_tokens"].as_u64().unwrap() as usize;
        if counted <= room {
            assert_eq!(tokens, counted);
            break;
        }
        fitting += 1;
    }
    assert!(fitting > 0 && fitting < 40, "{fitting}");
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_name() {
    let client = Client::new(Toy::saying("Hello"));
    let part = |kind: &str| json!([{"role": "user", "content": [{"type": kind}]}]);
    for (fields, param, words) in [
        (json!({"background": true}), "background", "stream"),
        (json!({"conversation": "conv_1"}), "conversation", "previous_response_id"),
        (json!({"prompt": {"id": "pmpt_1"}}), "prompt", "instructions"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0]", "web_search"),
        (json!({"tools": [{"type": "mcp", "server_label": "x"}]}), "tools[0]", "mcp"),
        (json!({"tools": [with(weather(), json!({"stirct": true}))]}), "tools[0].stirct", "strict"),
        (json!({"tools": [weather()], "tool_choice": "any"}), "tool_choice", "required"),
        (
            json!({"tools": [weather()], "tool_choice": {"type": "file_search"}}),
            "tool_choice",
            "file_search",
        ),
        (json!({"tools": [{"type": "function", "name": "a b"}]}), "tools[0].name", "letters"),
        (json!({"input": []}), "input", "item"),
        (json!({"input": part("input_image")}), "input[0].content[0]", "input_image"),
        (json!({"input": part("input_file")}), "input[0].content[0]", "input_file"),
        (json!({"input": [{"type": "web_search_call", "id": "x"}]}), "input[0]", "web_search_call"),
        (json!({"input": [{"role": "robot", "content": "x"}]}), "input[0].role", "robot"),
        (
            json!({"input": [{"role": "user", "content": "x", "nmae": "y"}]}),
            "input[0].nmae",
            "nmae",
        ),
        (
            json!({"input": [{"type": "function_call", "call_id": "a", "name": "b",
                "arguments": "{"}]}),
            "input[0].arguments",
            "JSON object",
        ),
        (json!({"include": ["everything"]}), "include[0]", "logprobs"),
        (json!({"text": {"format": {"type": "xml"}}}), "text.format", "json_schema"),
        (json!({"text": {"froamt": {}}}), "text.froamt", "format"),
        (json!({"reasoning": {"efort": "low"}}), "reasoning.efort", "effort"),
        (json!({"max_output_tokens": 0}), "max_output_tokens", "max_output_tokens"),
        (json!({"top_logprobs": 99}), "top_logprobs", "20"),
        (json!({"metadata": {"k": "v".repeat(600)}}), "metadata", "512"),
        (json!({"tempature": 1}), "tempature", "temperature"),
    ] {
        let (status, answer) = client.post(PATH, question(fields.clone())).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{fields} {answer}");
        assert_eq!(answer["error"]["param"], param, "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
    }
    // What clients send and what changes nothing.
    let fields = json!({"background": false, "service_tier": "auto", "prompt_cache_key": "x",
        "safety_identifier": "y", "stream_options": {"include_obfuscation": false},
        "include": ["reasoning.encrypted_content"], "reasoning": {"summary": "auto"},
        "store": false, "max_tool_calls": 3, "truncation": "disabled", "conversation": null});
    client.ok(PATH, question(fields)).await;
}
