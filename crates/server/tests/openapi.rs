//! The description of the API, as tools read it.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use common::{Client, Toy, limits};
use serde_json::Value;

/// Every `$ref` in the value.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get("$ref").and_then(Value::as_str));
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_reference_leads_to_a_schema() {
    let (_, text) = Client::new(Toy::new(limits())).get("/openapi.json").await;
    let description: Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    references(&description, &mut found);
    assert!(found.len() > 20, "only {} references", found.len());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(description.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

#[tokio::test]
async fn chats_and_completions_answer_in_their_own_forms() {
    let (_, text) = Client::new(Toy::new(limits())).get("/openapi.json").await;
    let description: Value = serde_json::from_str(&text).unwrap();
    let follow = |value: &Value| {
        let pointer = value["$ref"].as_str().unwrap().strip_prefix('#').unwrap();
        description.pointer(pointer).unwrap().clone()
    };
    for (path, field) in [("/v1/chat/completions", "message"), ("/v1/completions", "text")] {
        let answers = &description["paths"][path]["post"]["responses"]["200"]["content"];
        let reply = follow(&answers["application/json"]["schema"]);
        let items = &reply["properties"]["choices"]["items"];
        let choice = if items.get("$ref").is_some() { follow(items) } else { items.clone() };
        assert!(choice["properties"].get(field).is_some(), "{path}: {choice}");
    }
}

#[tokio::test]
async fn every_operation_says_how_it_fails_and_what_it_streams() {
    let (_, text) = Client::new(Toy::new(limits())).get("/openapi.json").await;
    let description: Value = serde_json::from_str(&text).unwrap();
    let mut streams = 0;
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            let expected: &[&str] = match (&method[..], operation.get("requestBody")) {
                ("post", Some(_)) => {
                    &["400", "401", "403", "404", "408", "413", "415", "422", "429", "500", "503"]
                }
                _ => &["403", "500", "503"],
            };
            for status in expected {
                assert!(responses.contains_key(*status), "{method} {path} has no {status}");
            }
            assert!(!responses.contains_key("default"), "{method} {path}");
            let kinds = &operation["responses"]["200"]["content"];
            if let Some(events) = kinds.get("text/event-stream") {
                assert!(events["schema"].is_object(), "{path}");
                streams += 1;
            }
        }
    }
    assert!(streams >= 3, "only {streams} operations stream");
}
