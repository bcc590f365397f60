//! `/v1/completions` over a model without weights.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use axum::http::StatusCode;
use bantam_text::EncodeOptions;
use common::{Client, Toy, limits, tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};

const PATH: &str = "/v1/completions";

fn client() -> Client {
    Client::new(Toy::new(limits()))
}

/// The choices of a stream put together, by index.
fn collected(events: &[Value], n: usize) -> Vec<Value> {
    let logprobs = events.iter().find_map(|event| event["choices"][0]["logprobs"].as_object());
    let empty: Option<Value> =
        logprobs.map(|lists| lists.keys().map(|key| (key.clone(), json!([]))).collect());
    let new = |index| json!({"text": "", "index": index, "logprobs": empty, "finish_reason": null, "stop_reason": null});
    let mut choices: Vec<Value> = (0..n).map(new).collect();
    for choice in events.iter().flat_map(|event| event["choices"].as_array().unwrap()) {
        let whole = &mut choices[choice["index"].as_u64().unwrap() as usize];
        assert!(whole["finish_reason"].is_null(), "nothing follows the end");
        let text = whole["text"].as_str().unwrap().to_owned() + choice["text"].as_str().unwrap();
        whole["text"] = text.into();
        whole["finish_reason"] = choice["finish_reason"].clone();
        whole["stop_reason"] = choice["stop_reason"].clone();
        for (key, list) in choice["logprobs"].as_object().into_iter().flatten() {
            whole["logprobs"][key]
                .as_array_mut()
                .unwrap()
                .extend(list.as_array().unwrap().iter().cloned());
        }
    }
    choices
}

#[test]
fn a_stream_says_what_the_whole_answer_says() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _guard = runtime.enter();
    let (client, tokenizer) = (client(), tokenizer());
    let stops = prop::collection::vec("[a-z ,]{1,3}", 0..4);
    let strategy = ("[a-zA-Zé ]{1,40}", any::<u32>(), 1usize..40, stops, 1usize..4, any::<bool>());
    proptest!(ProptestConfig::with_cases(60), |((prompt, seed, max_tokens, stop, n, echo) in strategy)| {
        let mut body = json!({
            "model": "tiny", "prompt": prompt, "seed": seed, "max_tokens": max_tokens, "n": n,
            "echo": echo, "logprobs": 2, "stop": stop,
        });
        let whole = runtime.block_on(client.ok(PATH, body.clone()));
        body["stream_options"] = json!({"include_usage": true});
        let (mut events, done) = runtime.block_on(client.events(PATH, body));
        prop_assert!(done);
        let last = events.pop().unwrap();
        prop_assert_eq!(&last["choices"], &json!([]));
        // The second request finds the prompt in the cache; nothing else may differ.
        let tokens = |usage: &Value| usage["completion_tokens"].clone();
        prop_assert_eq!(tokens(&last["usage"]), tokens(&whole["usage"]));
        for event in &events {
            prop_assert!(event["usage"].is_null() && event.get("usage").is_some());
            prop_assert_eq!(&event["id"], &last["id"]);
        }
        prop_assert_eq!(&Value::Array(collected(&events, n)), &whole["choices"]);
        for choice in whole["choices"].as_array().unwrap() {
            let (text, logprobs) = (choice["text"].as_str().unwrap(), &choice["logprobs"]);
            let length = text.chars().count() as u64;
            let offsets: Vec<u64> = serde_json::from_value(logprobs["text_offset"].clone()).unwrap();
            // Only a token that ended the answer stands behind its text, and special ones, which
            // have none.
            let ended = choice["finish_reason"] == "stop";
            let shown = offsets.iter().filter(|&&offset| offset < length).count();
            prop_assert!(offsets.is_sorted());
            prop_assert!(offsets[shown..].iter().all(|&offset| offset == length));
            let behind = &logprobs["tokens"].as_array().unwrap()[shown..];
            let special = |token: &Value| {
                let id = tokenizer.token_id(token.as_str().unwrap());
                id.is_some_and(|id| tokenizer.is_special(id))
            };
            let textless = behind.iter().rev().skip(usize::from(ended)).all(special);
            prop_assert!(textless, "{:?} stand behind {:?}", behind, text);
            for key in ["tokens", "token_logprobs", "top_logprobs"] {
                prop_assert_eq!(logprobs[key].as_array().unwrap().len(), offsets.len());
            }
            let said = &text[if echo { prompt.len() } else { 0 }..];
            prop_assert!(stop.iter().all(|stop| !said.contains(stop.as_str())), "{}", said);
        }
    });
}

#[tokio::test]
async fn prompts_in_every_form_are_answered_in_order() {
    let client = client();
    let texts = ["The house", "Ein Haus", "the question"];
    let encode =
        |text| tokenizer().encode(text, EncodeOptions { add_special: true, parse_special: true });
    let tokens: Vec<Vec<u32>> = texts.iter().map(|text| encode(text).unwrap()).collect();
    let ask = |prompt: Value| {
        let client = client.clone();
        let body = json!({
            "model": "tiny", "prompt": prompt, "seed": 3, "max_tokens": 5, "n": 2, "temperature": 0.9,
        });
        async move {
            let answer = client.ok(PATH, body).await;
            let choices = answer["choices"].as_array().unwrap().clone();
            assert!(choices.iter().enumerate().all(|(n, choice)| choice["index"] == n));
            choices.iter().map(|choice| choice["text"].clone()).collect::<Vec<_>>()
        }
    };
    let mut alone = Vec::new();
    for (text, tokens) in texts.iter().zip(&tokens) {
        let answers = ask(json!(text)).await;
        assert_ne!(answers[0], answers[1], "answers are drawn independently");
        assert_eq!(ask(json!(tokens)).await, answers);
        alone.extend(answers);
    }
    assert_eq!(ask(json!(texts)).await, alone);
    assert_eq!(ask(json!(tokens)).await, alone);
}

#[tokio::test]
async fn a_prompt_is_scored_without_an_answer() {
    let client = client();
    let body = json!({
        "model": "tiny", "prompt": "The house was built", "max_tokens": 0, "echo": true, "logprobs": 1,
    });
    let answer = client.ok(PATH, body.clone()).await;
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["text"], &choice["finish_reason"]),
        (&json!("The house was built"), &json!("length"))
    );
    assert_eq!(answer["usage"]["completion_tokens"], 0);
    let logprobs = &choice["logprobs"];
    let spelled: String = logprobs["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token.as_str().unwrap())
        .collect();
    assert_eq!(spelled, "The house was built");
    let scores = logprobs["token_logprobs"].as_array().unwrap();
    assert!(scores[0].is_null() && scores[1..].iter().all(|score| score.as_f64().unwrap() < 0.0));
    // The same scores in vLLM's form.
    let body = json!({
        "model": "tiny", "prompt": "The house was built", "max_tokens": 1, "prompt_logprobs": 1,
    });
    let answer = client.ok(PATH, body).await;
    let forms = answer["choices"][0]["prompt_logprobs"].as_array().unwrap();
    assert_eq!(forms.len(), scores.len());
    assert!(forms[0].is_null());
    let tokens = tokenizer().encode("The house was built", EncodeOptions::default()).unwrap();
    for ((form, score), token) in forms.iter().zip(scores).zip(&tokens).skip(1) {
        assert_eq!(form[token.to_string()]["logprob"], *score);
        assert!(form.as_object().unwrap().values().any(|entry| entry["rank"] == 1));
    }
}

#[tokio::test]
async fn the_best_are_returned_and_all_are_counted() {
    let client = client();
    let body = |n: usize, best_of: usize| {
        json!({
            "model": "tiny", "prompt": "nobody", "seed": 5, "max_tokens": 6, "n": n,
            "best_of": best_of, "logprobs": 0,
        })
    };
    let mean = |choice: &Value| {
        let scores = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        scores.iter().map(|score| score.as_f64().unwrap()).sum::<f64>() / scores.len() as f64
    };
    let mut all = client.ok(PATH, body(6, 6)).await["choices"].as_array().unwrap().clone();
    all.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    let best = client.ok(PATH, body(2, 6)).await;
    for (best, expected) in best["choices"].as_array().unwrap().iter().zip(&all) {
        assert_eq!(best["text"], expected["text"]);
    }
    assert_eq!(best["choices"].as_array().unwrap().len(), 2);
    assert_eq!(best["usage"]["completion_tokens"], 36);
    let (status, refused) = client.post(PATH, body(3, 2)).await;
    assert_eq!((status, &refused["error"]["param"]), (StatusCode::BAD_REQUEST, &json!("best_of")));
}

#[tokio::test]
async fn a_beam_search_finds_no_less_probable_answers_than_greedy() {
    let client = client();
    let body = json!({
        "model": "tiny", "prompt": ["question", "forward"], "max_tokens": 4, "n": 2, "best_of": 3,
        "use_beam_search": true,
    });
    let answer = client.ok(PATH, body).await;
    let texts: Vec<&Value> =
        answer["choices"].as_array().unwrap().iter().map(|choice| &choice["text"]).collect();
    assert_eq!(texts.len(), 4);
    assert!(texts[0] != texts[1] && texts[0] != texts[2]);
    let greedy = json!({"model": "tiny", "prompt": "question", "max_tokens": 4, "temperature": 0});
    let width_1 = json!({
        "model": "tiny", "prompt": "question", "max_tokens": 4, "use_beam_search": true,
    });
    let (greedy, width_1) = (client.ok(PATH, greedy).await, client.ok(PATH, width_1).await);
    assert_eq!(greedy["choices"][0]["text"], width_1["choices"][0]["text"]);
}

#[tokio::test]
async fn sampling_fields_reach_the_engine() {
    let client = client();
    let ask = |more: Value| {
        let client = client.clone();
        let mut body = json!({"model": "tiny", "prompt": "nobody", "seed": 1, "max_tokens": 8});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        async move { client.ok(PATH, body).await["choices"][0].clone() }
    };
    let drawn = ask(json!({})).await;
    assert_eq!(ask(json!({"top_p": 1, "top_k": -1, "min_p": 0, "typical_p": 1})).await, drawn);
    assert_ne!(ask(json!({"seed": 2})).await["text"], drawn["text"]);
    let greedy = ask(json!({"temperature": 0})).await;
    assert_eq!(ask(json!({"top_k": 1})).await["text"], greedy["text"]);
    assert_eq!(ask(json!({"top_p": 1e-6})).await["text"], greedy["text"]);
    assert_eq!(ask(json!({"min_p": 1})).await["text"], greedy["text"]);
    let forced = ask(json!({"logit_bias": {"500": 100}, "max_tokens": 3})).await;
    assert_eq!(forced["text"], tokenizer().decode(&[500, 500, 500], true));
    let often = json!({"temperature": 0, "frequency_penalty": -2, "max_tokens": 30});
    let seldom = json!({"temperature": 0, "frequency_penalty": 2, "max_tokens": 30});
    assert_ne!(ask(often).await["text"], ask(seldom).await["text"]);
    let stopped =
        ask(json!({"logit_bias": {"500": 100}, "stop_token_ids": [500], "min_tokens": 2})).await;
    assert_eq!(stopped["finish_reason"], "stop");
    let ended = ask(json!({"logit_bias": {"2": 100}})).await;
    assert_eq!((&ended["text"], &ended["finish_reason"]), (&json!(""), &json!("stop")));
    let ignored =
        json!({"logit_bias": {"2": 100}, "ignore_eos": true, "skip_special_tokens": false});
    assert_eq!(ask(ignored).await["text"], "<|im_end|>".repeat(8));
}

/// Clients that score texts (lm-eval) ask for an echo and one token more, leave out the last entry,
/// and take a token for the most probable one if its number is the largest of its alternatives.
#[tokio::test]
async fn a_text_is_scored_the_same_whether_or_not_the_answer_ends_at_once() {
    let prompt = "<|im_start|>assistant\n";
    let score = |says: &'static str| async move {
        let client = Client::new(Toy::saying(says));
        let body = json!({
            "model": "tiny", "prompt": prompt, "max_tokens": 1, "temperature": 0,
            "logprobs": 1, "echo": true,
        });
        let whole = client.ok("/v1/completions", body.clone()).await;
        let (events, _) = client.events("/v1/completions", body).await;
        let lengths = events
            .iter()
            .filter_map(|event| event["choices"][0]["logprobs"]["tokens"].as_array().map(Vec::len));
        let logprobs = &whole["choices"][0]["logprobs"];
        let num_tokens = logprobs["tokens"].as_array().unwrap().len();
        assert_eq!(lengths.sum::<usize>(), num_tokens);
        assert_eq!(whole["usage"]["total_tokens"], num_tokens);
        (whole["choices"][0].clone(), num_tokens)
    };
    let (ended, num_tokens) = score("").await;
    assert_eq!((ended["finish_reason"].as_str(), &ended["text"]), (Some("stop"), &json!(prompt)));
    let logprobs = &ended["logprobs"];
    assert_eq!(logprobs["text_offset"][num_tokens - 1], prompt.len());
    assert_eq!(score("Hello").await.1, num_tokens);

    for (chosen, top) in logprobs["token_logprobs"].as_array().unwrap()[1..]
        .iter()
        .zip(&logprobs["top_logprobs"].as_array().unwrap()[1..])
    {
        let top = top.as_object().unwrap();
        assert!(top.values().any(|value| value == chosen), "{chosen} is not in {top:?}");
    }
}

#[tokio::test]
async fn a_schema_may_say_what_it_is_for() {
    let client = Client::new(Toy::saying("{}"));
    let schema = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let form = json!({"name": "nothing", "description": "Nothing.", "schema": schema});
    let body = json!({
        "model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 64,
        "response_format": {"type": "json_schema", "json_schema": form},
    });
    let whole = client.ok("/v1/chat/completions", body).await;
    assert_eq!(whole["choices"][0]["message"]["content"], "{}");
}
