//! "Honoured, without effect, or refused", at every depth: each object of each published request is
//! tried with a field that it does not have, and each field with a value that it cannot have.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use axum::http::StatusCode;
use common::{Client, Toy, limits};
use serde_json::{Map, Value, json};

/// A name that no object has.
const UNKNOWN: &str = "zz_unknown";

/// Values that fields need to have for others to be looked at.
const VALUES: [(&str, &str); 4] =
    [("model", "tiny"), ("role", "user"), ("content", "Hi"), ("datatype", "BYTES")];

/// The description of the API.
struct Api(Value);

/// A body, and where in it an object of ours stands.
#[derive(Clone, Debug)]
struct Reached {
    body: Value,
    /// As a JSON pointer.
    place: String,
    /// The names and types of its fields.
    fields: Vec<(String, Vec<&'static str>)>,
}

const TYPES: [&str; 5] = ["object", "array", "string", "boolean", "number"];

impl Api {
    fn follow<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(reference) => {
                let pointer = reference.strip_prefix('#').unwrap();
                self.follow(self.0.pointer(pointer).unwrap())
            }
            None => schema,
        }
    }

    /// The schemas of which a value satisfies one.
    fn variants<'a>(&'a self, schema: &'a Value) -> Vec<&'a Value> {
        let schema = self.follow(schema);
        let choice = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array());
        match choice {
            Some(choice) => choice.iter().flat_map(|schema| self.variants(schema)).collect(),
            None => vec![schema],
        }
    }

    /// The properties of an object, and which are required.
    fn properties(&self, schema: &Value) -> (Map<String, Value>, Vec<String>) {
        let schema = self.follow(schema);
        let mut properties = schema["properties"].as_object().cloned().unwrap_or_default();
        let required = schema["required"].as_array().into_iter().flatten();
        let mut required: Vec<String> =
            required.map(|name| name.as_str().unwrap().to_owned()).collect();
        for part in schema["allOf"].as_array().into_iter().flatten() {
            let (more, needed) = self.properties(part);
            properties.extend(more);
            required.extend(needed);
        }
        (properties, required)
    }

    /// The JSON types that a value may have; none if that is not said.
    fn types(&self, schema: &Value) -> Vec<&'static str> {
        let mut types = Vec::new();
        for schema in self.variants(schema) {
            let said = match &schema["type"] {
                Value::String(one) => vec![one.as_str()],
                Value::Array(several) => several.iter().map(|one| one.as_str().unwrap()).collect(),
                _ if schema["allOf"].is_array() => vec!["object"],
                _ => return Vec::new(),
            };
            for name in said {
                let name = if name == "integer" { "number" } else { name };
                types.extend(TYPES.iter().find(|known| **known == name));
            }
        }
        types
    }

    /// A small value.
    fn example(&self, name: &str, schema: &Value) -> Value {
        if let Some((_, value)) = VALUES.iter().find(|(field, _)| *field == name) {
            return (*value).into();
        }
        let variants = self.variants(schema);
        let schema = variants.into_iter().find(|schema| schema["type"] != "null").unwrap();
        if let Some(first) = schema["enum"].get(0) {
            return first.clone();
        }
        match self.types(schema).first() {
            Some(&"object") => {
                let (properties, required) = self.properties(schema);
                let set = |name: &String| VALUES.iter().any(|(field, _)| field == name);
                let field = |name: &String| (name.clone(), self.example(name, &properties[name]));
                let needed = properties.keys().filter(|name| required.contains(name) || set(name));
                needed.map(field).collect::<Map<_, _>>().into()
            }
            Some(&"array") => json!([self.example("", &schema["items"])]),
            Some(&"string") => "a".into(),
            Some(&"boolean") => true.into(),
            Some(&"number") => 1.into(),
            _ => json!({}),
        }
    }

    /// Every object of ours that a value may hold.
    fn objects(&self, schema: &Value) -> Vec<Reached> {
        let mut reached = Vec::new();
        for schema in self.variants(schema) {
            let (properties, _) = self.properties(schema);
            if !properties.is_empty() {
                let body = self.example("", schema);
                let fields = properties.iter().map(|(name, of)| (name.clone(), self.types(of)));
                let fields = fields.collect();
                reached.push(Reached { body: body.clone(), place: String::new(), fields });
                for (name, of) in &properties {
                    for within in self.objects(of) {
                        let mut body = body.clone();
                        body[name] = within.body;
                        let place = format!("/{name}{}", within.place);
                        reached.push(Reached { body, place, ..within });
                    }
                }
            } else if schema["items"].is_object() {
                for within in self.objects(&schema["items"]) {
                    let (body, place) = (json!([within.body]), format!("/0{}", within.place));
                    reached.push(Reached { body, place, ..within });
                }
            } else if schema["additionalProperties"].is_object() {
                for within in self.objects(&schema["additionalProperties"]) {
                    let (body, place) = (json!({"k": within.body}), format!("/k{}", within.place));
                    reached.push(Reached { body, place, ..within });
                }
            }
        }
        reached
    }
}

/// `/a/0/b` as `a[0].b`.
fn dotted(pointer: &str) -> String {
    let mut path = String::new();
    for step in pointer.split('/').skip(1) {
        match step.parse::<usize>() {
            Ok(index) => path.push_str(&format!("[{index}]")),
            Err(_) if path.is_empty() => path.push_str(step),
            Err(_) => path.push_str(&format!(".{step}")),
        }
    }
    path
}

/// The requests of the description: their paths and every object of their bodies.
async fn requests(client: &Client) -> Vec<(String, Reached)> {
    let (_, text) = client.get("/openapi.json").await;
    let api = Api(serde_json::from_str(&text).unwrap());
    let mut found = Vec::new();
    for (path, item) in api.0["paths"].as_object().unwrap() {
        let schema = &item["post"]["requestBody"]["content"]["application/json"]["schema"];
        if schema.is_object() {
            let path = path.replace("{model}", "tiny");
            found.extend(api.objects(schema).into_iter().map(|reached| (path.clone(), reached)));
        }
    }
    found
}

/// Whether an error names the field of this name at this place, or what it stands in.
fn names(answer: &Value, place: &str, field: &str) -> bool {
    let error = &answer["error"];
    let message = error["message"].as_str().or(error.as_str()).unwrap_or_default();
    let param = error["param"].as_str().unwrap_or_default();
    let path = dotted(&format!("{place}/{field}"));
    // Not every protocol has a place for the field at fault beside the message.
    let object = dotted(place);
    let says_where = !object.is_empty() && message.contains(&object);
    message.contains(field) || says_where || (!param.is_empty() && path.starts_with(param))
}

#[tokio::test]
async fn no_object_of_a_request_has_room_for_an_unknown_field() {
    let client = Client::new(Toy::new(limits()));
    let requests = requests(&client).await;
    for path in ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"] {
        assert!(requests.iter().any(|(known, _)| known == path), "{path} is not described");
    }
    for path in ["/v2/models/tiny/generate", "/v2/models/tiny/infer"] {
        assert!(requests.iter().any(|(known, _)| known == path), "{path} is not described");
    }
    let of_chat = requests.iter().filter(|(path, _)| path == "/v1/chat/completions").count();
    assert!(of_chat > 20, "only {of_chat} objects of a chat");
    let mut taken = Vec::new();
    for (path, Reached { mut body, place, .. }) in requests {
        body.pointer_mut(&place).unwrap()[UNKNOWN] = json!(1);
        let (status, answer) = client.post(&path, body.clone()).await;
        if status != StatusCode::BAD_REQUEST || !names(&answer, &place, UNKNOWN) {
            taken.push(format!("{path} {body}: {status} {answer}"));
        }
    }
    assert!(taken.is_empty(), "{}", taken.join("\n"));
}

#[tokio::test]
async fn every_field_of_a_request_is_read() {
    let client = Client::new(Toy::new(limits()));
    let values = [json!({UNKNOWN: 1}), json!([[1]]), json!("\u{1}"), json!(true), json!(1.5)];
    let (mut unread, mut tried) = (Vec::new(), 0);
    for (path, Reached { body, place, fields }) in requests(&client).await {
        for (field, types) in fields.iter().filter(|(_, types)| !types.is_empty()) {
            let wrong = TYPES.iter().position(|name| !types.contains(name)).unwrap();
            let mut body = body.clone();
            body.pointer_mut(&place).unwrap()[field] = values[wrong].clone();
            tried += 1;
            let (status, answer) = client.post(&path, body.clone()).await;
            let refused = status.is_client_error();
            if !refused || !names(&answer, &place, field) {
                unread.push(format!("{path} {body}: {status} {answer}"));
            }
        }
    }
    assert!(tried > 200, "only {tried} fields");
    assert!(unread.is_empty(), "{}", unread.join("\n"));
}
