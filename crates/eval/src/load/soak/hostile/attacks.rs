//! What is sent to hurt: one row for each way.

use std::time::Duration;

use serde_json::{Value, json};

use super::wire::Wire;

/// A way to hurt a server.
pub(super) struct Attack {
    /// Its name in reports.
    pub(super) name: &'static str,
    /// What a server that holds does with it.
    pub(super) expected: Expected,
    pub(super) means: Means,
}

/// What a server that holds does with an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Answers with a status from 400 to 499, or closes the connection, soon.
    Refused,
    /// As `Refused`, or an answer that is complete.
    RefusedOrAnswered,
    /// An answer that ends by itself, not for its length.
    Ended,
}

/// How it is done.
pub(super) enum Means {
    /// One request, read to its end.
    Request(Wire),
    /// One request, left before its answer.
    LeftAlone(Wire),
    /// One request whose body comes a byte a second.
    SlowBody(Wire),
    /// One request whose answer is read a few bytes at a time.
    SlowReader(Wire),
    /// Connections that send this and then nothing.
    HalfOpen { connections: usize, beginning: &'static [u8] },
}

/// Half-open connections of one attack.
const HALF_OPEN: usize = 400;
/// Bytes of bodies that are about as large as any useful prompt.
const LARGE: usize = 5_000_000;
/// Bytes of bodies that are larger.
const HUGE: usize = 31 << 20;
/// Tokens within which an answer in a form should end.
const FORM_TOKENS: usize = 512;

/// The attacks on the model of this name at the server called `host`, with the headers that let a
/// request in.
pub(super) fn all(host: &str, model: &str, authorization: Option<&str>) -> Vec<Attack> {
    let own: Vec<(&str, &str)> =
        authorization.iter().map(|value| ("Authorization", *value)).collect();
    let makers = Makers { host, model, own };
    [
        makers.numbers(),
        makers.foreign(),
        makers.grammars(),
        makers.bodies(),
        makers.long_texts(),
        makers.sockets(),
        makers.forms(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What all attacks share.
struct Makers<'a> {
    host: &'a str,
    model: &'a str,
    own: Vec<(&'a str, &'a str)>,
}

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const JSON: (&str, &str) = ("Content-Type", "application/json");

fn refused(name: &'static str, wire: Wire) -> Attack {
    Attack { name, expected: Expected::Refused, means: Means::Request(wire) }
}

fn bounded(name: &'static str, wire: Wire) -> Attack {
    Attack { name, expected: Expected::RefusedOrAnswered, means: Means::Request(wire) }
}

impl Makers<'_> {
    fn wire(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Wire {
        Wire::post(self.host, path, &[&self.own[..], headers].concat(), body)
    }

    fn json(&self, path: &str, body: Vec<u8>) -> Wire {
        self.wire(path, &[JSON], body)
    }

    /// A completion with more fields.
    fn completion(&self, fields: Value) -> Wire {
        let body = json!({ "model": self.model, "prompt": "to and to", "max_tokens": 4 });
        self.json(COMPLETIONS, with(body, fields))
    }

    /// A chat with more fields.
    fn chat(&self, fields: Value) -> Wire {
        self.json(CHAT, with(self.chat_body(), fields))
    }

    fn chat_body(&self) -> Value {
        let messages = json!([{ "role": "user", "content": "Say something about a river." }]);
        json!({ "model": self.model, "messages": messages, "max_tokens": 4 })
    }

    /// A chat in the form of a schema.
    fn schema(&self, schema: Value) -> Wire {
        let format =
            json!({ "type": "json_schema", "json_schema": { "name": "a", "schema": schema } });
        self.chat(json!({ "response_format": format, "max_tokens": 64 }))
    }

    fn numbers(&self) -> Vec<Attack> {
        let bias: Value = (0..64).map(|token| (token.to_string(), json!(3e38))).collect();
        vec![
            refused(
                "repetition_penalty 1e-38",
                self.completion(json!({ "repetition_penalty": 1e-38 })),
            ),
            refused(
                "repetition_penalty 1e-45",
                self.completion(json!({ "repetition_penalty": 1e-45 })),
            ),
            refused(
                "frequency_penalty -3e38",
                self.completion(json!({ "frequency_penalty": -3e38 })),
            ),
            refused(
                "logit_bias 3e38 with presence_penalty",
                self.completion(json!({ "logit_bias": bias, "presence_penalty": 3e38 })),
            ),
            refused("temperature 1e300", self.completion(json!({ "temperature": 1e300 }))),
            refused("timeout 1e300", self.completion(json!({ "timeout": 1e300 }))),
            bounded(
                "numbers at the ends of their ranges",
                self.completion(json!({
                    "temperature": 100, "repetition_penalty": 0.01, "frequency_penalty": -2,
                    "presence_penalty": 2, "top_p": 1e-45, "min_p": 1, "logit_bias": { "5": 100 },
                })),
            ),
        ]
    }

    fn foreign(&self) -> Vec<Attack> {
        let chat = || self.chat_body().to_string().into_bytes();
        let generate = format!("/v2/models/{}/generate", self.model);
        let body = || json!({ "text_input": "to", "max_tokens": 2 }).to_string().into_bytes();
        let plain = ("Content-Type", "text/plain");
        let form = ("Content-Type", "application/x-www-form-urlencoded");
        vec![
            refused("text/plain to /v2 generate", self.wire(&generate, &[plain], body())),
            refused("a form to /v2 generate", self.wire(&generate, &[form], body())),
            refused("no content type to /v2 generate", self.wire(&generate, &[], body())),
            refused("text/plain to chat", self.wire(CHAT, &[plain], chat())),
            refused(
                "foreign Origin",
                self.wire(CHAT, &[JSON, ("Origin", "http://attacker.example")], chat()),
            ),
            refused("foreign Host", self.wire(CHAT, &[JSON, ("Host", "attacker.example")], chat())),
        ]
    }

    fn grammars(&self) -> Vec<Attack> {
        let multiple = json!({ "type": "integer", "multipleOf": 1_000_003 });
        let repeated = json!({ "type": "string", "pattern": "^((a{1,500}){1,500}b?){1,500}$" });
        let long = json!({ "type": "string", "minLength": 900_000, "maxLength": 1_000_000 });
        let items =
            json!({ "type": "array", "items": { "type": "integer" }, "minItems": 1_000_000 });
        let names = (0..2000).map(|n| (format!("name {n}"), json!({ "type": "string" })));
        let wide = json!({ "type": "object", "properties": names.collect::<Value>() });
        let all_of: Vec<Value> =
            (2..200).map(|n| json!({ "type": "integer", "multipleOf": n })).collect();
        let choices: Vec<String> = (0..100_000).map(|n| format!("choice number {n}")).collect();
        let lark = "start: a\na: \"x\" | a a | a a a | a a a a\n";
        let lark = json!({ "structured_outputs": { "grammar": lark }, "max_tokens": 200, "min_tokens": 199 });
        let regex = json!({ "structured_outputs": { "regex": "(x+x+)+y|(.{0,900}){0,900}z" } });
        vec![
            bounded("multipleOf 1000003", self.schema(multiple.clone())),
            Attack {
                name: "multipleOf 1000003, and leaves",
                expected: Expected::RefusedOrAnswered,
                means: Means::LeftAlone(self.schema(multiple)),
            },
            bounded("allOf of 198 multipleOf", self.schema(json!({ "allOf": all_of }))),
            bounded("pattern of nested repetitions", self.schema(repeated)),
            bounded("a text of a million characters", self.schema(long)),
            bounded("a million items", self.schema(items)),
            bounded("2000 properties", self.schema(wide)),
            bounded(
                "100000 choices",
                self.chat(json!({ "structured_outputs": { "choice": choices } })),
            ),
            bounded("ambiguous Lark", self.completion(lark)),
            bounded("regex of nested repetitions", self.completion(regex)),
        ]
    }

    fn bodies(&self) -> Vec<Attack> {
        // {"model": …, "prompt": …, "x": [{"":0},{"":0},…]}
        let stuffed = |part: &str, bytes: usize| {
            let mut body =
                format!("{{\"model\": {}, \"prompt\": \"a\", \"x\": [", json!(self.model));
            let count = bytes / (part.len() + 1);
            body += &vec![part; count].join(",");
            body += "]}";
            self.json(COMPLETIONS, body.into_bytes())
        };
        let keys: Vec<String> = (0..HUGE / 16).map(|n| format!("\"k{n}\":0")).collect();
        let keys = format!("{{{}}}", keys.join(",")).into_bytes();
        let deep = [vec![b'['; LARGE / 2], vec![b']'; LARGE / 2]].concat();
        vec![
            refused("31 MiB of empty-named objects", stuffed("{\"\":0}", HUGE)),
            refused("5 MB of empty-named objects", stuffed("{\"\":0}", LARGE)),
            refused("31 MiB in an unknown field", stuffed("[[[[1]]]]", HUGE)),
            refused("two million keys", self.json(CHAT, keys)),
            refused("nested 2.5 million deep", self.json(CHAT, deep)),
            refused(
                "half a million messages",
                self.chat(
                    json!({ "messages": vec![json!({ "role": "user", "content": "a" }); 500_000] }),
                ),
            ),
        ]
    }

    fn long_texts(&self) -> Vec<Attack> {
        let digits: String = (0..LARGE).map(|n| char::from(b'0' + (n * 7 % 10) as u8)).collect();
        let tokenize = json!({ "model": self.model, "prompt": digits }).to_string().into_bytes();
        let words: Vec<String> = (0..1_000_000).map(|n| format!("{n:x}")).collect();
        vec![
            refused("5 MB of digits", self.completion(json!({ "prompt": digits }))),
            bounded("5 MB of digits to /tokenize", self.json("/tokenize", tokenize)),
            refused("a word of 5 MB", self.completion(json!({ "prompt": "a".repeat(LARGE) }))),
            refused("a word of 30 MB", self.completion(json!({ "prompt": "ab".repeat(HUGE / 2) }))),
            refused("a million bad_words", self.completion(json!({ "bad_words": words }))),
            refused("a million stop texts", self.completion(json!({ "stop": words }))),
            refused(
                "a million stop_token_ids",
                self.completion(json!({ "stop_token_ids": vec![5; 1_000_000] })),
            ),
        ]
    }

    fn sockets(&self) -> Vec<Attack> {
        let held = |name, beginning| Attack {
            name,
            expected: Expected::Refused,
            means: Means::HalfOpen { connections: HALF_OPEN, beginning },
        };
        let stream = json!({ "stream": true, "max_tokens": 200 });
        vec![
            held("400 connections that say nothing", b""),
            held(
                "400 connections with half a head",
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nX",
            ),
            Attack {
                name: "a body of a byte a second",
                expected: Expected::Refused,
                means: Means::SlowBody(self.completion(json!({ "user": "u".repeat(1000) }))),
            },
            Attack {
                name: "a reader of 32 bytes a second",
                expected: Expected::RefusedOrAnswered,
                means: Means::SlowReader(self.chat(stream)),
            },
        ]
    }

    fn forms(&self) -> Vec<Attack> {
        let ended =
            |name, wire| Attack { name, expected: Expected::Ended, means: Means::Request(wire) };
        let text = |format: &str| {
            json!({ "type": "object", "properties": { "at": { "type": "string", "format": format } },
                    "required": ["at"] })
        };
        let long = |schema: Value| {
            let format =
                json!({ "type": "json_schema", "json_schema": { "name": "a", "schema": schema } });
            self.chat(json!({ "response_format": format, "max_tokens": FORM_TOKENS }))
        };
        let number = json!({ "type": "object", "properties": { "n": { "type": "number" } },
                             "required": ["n"] });
        vec![
            ended("an object without properties", long(json!({ "type": "object" }))),
            ended(
                "an object with one property",
                long(json!({
                    "type": "object", "properties": { "name": { "type": "string", "maxLength": 20 } },
                })),
            ),
            ended("a number", long(number)),
            ended("format time", long(text("time"))),
            ended("format date-time", long(text("date-time"))),
            ended("format duration", long(text("duration"))),
        ]
    }
}

fn with(mut body: Value, fields: Value) -> Vec<u8> {
    if let (Some(body), Value::Object(fields)) = (body.as_object_mut(), fields) {
        body.extend(fields);
    }
    body.to_string().into_bytes()
}

impl Attack {
    /// Time after which a server that holds has said something.
    pub(super) const fn patience(&self) -> Duration {
        match (self.expected, &self.means) {
            (_, Means::HalfOpen { .. }) => Duration::from_secs(20),
            // A server may wait for a body longer than for a head.
            (_, Means::SlowBody(_) | Means::SlowReader(_)) => Duration::from_secs(90),
            (Expected::Refused, _) => Duration::from_secs(10),
            (Expected::RefusedOrAnswered, _) => Duration::from_secs(30),
            (Expected::Ended, _) => Duration::from_secs(90),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_has_its_name() {
        let all = all("localhost:1", "tiny", Some("key"));
        let mut names: Vec<&str> = all.iter().map(|attack| attack.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        assert!(all.len() > 40);
    }
}
