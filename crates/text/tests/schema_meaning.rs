//! What each keyword of JSON Schema allows and forbids, on texts that a model might write.
#![allow(clippy::unwrap_used)]

mod fixtures;

use bantam_text::{EncodeOptions, Grammar, GrammarSpec, Tokenizer};
use fixtures::{compiler, is_allowed, smollm2, walk};
use serde_json::{Value, json};

/// Whether an answer may be this, from beginning to end.
fn admits(grammar: &Grammar, tokenizer: &Tokenizer, answer: &str) -> bool {
    let mut matcher = grammar.matcher();
    let taken = tokenizer
        .encode(answer, EncodeOptions::default())
        .unwrap()
        .into_iter()
        .all(|id| matcher.accept(id).is_ok());
    taken && is_allowed(matcher.allowed().unwrap(), tokenizer.eos()[0])
}

/// A schema, texts that it allows, and texts that it does not.
type Case = (Value, &'static [&'static str], &'static [&'static str]);

fn check(cases: &[Case]) {
    let tokenizer = smollm2();
    let compiler = compiler(&tokenizer);
    let mut wrong = Vec::new();
    for (schema, allowed, forbidden) in cases {
        let grammar = match compiler.compile(&GrammarSpec::JsonSchema(schema.clone())) {
            Ok(grammar) => grammar,
            Err(error) => {
                wrong.push(format!("{schema}: {error}"));
                continue;
            }
        };
        for (texts, expected) in [(allowed, true), (forbidden, false)] {
            for text in *texts {
                if admits(&grammar, &tokenizer, text) != expected {
                    wrong.push(format!("{schema}: {text} should be {expected}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn objects_are_closed_unless_the_schema_opens_them() {
    let ab = json!({"a": {"type": "integer"}, "b": {"type": "boolean"}});
    check(&[
        (
            json!({"type": "object", "properties": ab, "required": ["a"]}),
            &["{\"a\": 1}", "{\"a\":1,\"b\":true}"],
            &[
                "{\"a\": 1, \"c\": 2}",
                "{\"a\": 1, \"a\": 1}",
                "{}",
                "{\"a\": 1, \"b\": true, \"b\": true}",
            ],
        ),
        (json!({"type": "object", "properties": {}}), &["{}"], &["{\"a\": 1}"]),
        (json!({"type": "object"}), &["{}", "{\"a\": [1, {\"b\": null}]}"], &["[]", "1"]),
        // Without a type, the keywords say which kind is meant.
        (json!({"properties": ab}), &["{}", "{\"a\": 1}"], &["7", "{\"c\": 1}"]),
        (
            json!({"type": "object", "properties": ab, "additionalProperties": true}),
            &["{\"a\": 1, \"c\": \"x\", \"d\": {}}"],
            &["{\"a\": true}", "{\"b\": true, \"a\": true}", "{\"c\": 1, \"a\": 1}"],
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            &["{}", "{\"x\": 1, \"y\": 2}"],
            &["{\"x\": \"1\"}"],
        ),
        (
            json!({"type": "object", "properties": ab, "unevaluatedProperties": false}),
            &["{\"a\": 1}"],
            &["{\"c\": 1}"],
        ),
        // The parts of allOf are closed together, not each for itself.
        (
            json!({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]}]}),
            &["{\"a\": 1, \"b\": true}"],
            &["{\"a\": 1}", "{\"b\": true}", "{\"a\": 1, \"b\": true, \"c\": 1}"],
        ),
        (
            json!({"type": "object", "properties": {"kind": {"type": "string"}}, "required": ["kind"],
                "anyOf": [{"properties": {"kind": {"const": "x"}, "x": {"type": "integer"}}, "required": ["x"]},
                    {"properties": {"kind": {"const": "y"}, "y": {"type": "null"}}, "required": ["y"]}]}),
            &["{\"kind\": \"x\", \"x\": 1}", "{\"kind\": \"y\", \"y\": null}"],
            &["{\"kind\": \"x\", \"y\": null}", "{\"kind\": \"x\", \"x\": 1, \"y\": null}"],
        ),
        (
            json!({"type": "object", "patternProperties": {"^n_": {"type": "integer"}, "^s_": {"type": "string"}}}),
            &["{\"n_a\": 1, \"s_b\": \"t\"}", "{}"],
            &["{\"n_a\": \"t\"}", "{\"x\": 1}"],
        ),
        (
            json!({"type": "object", "propertyNames": {"pattern": "^[a-z]{2}$"}, "additionalProperties": {"type": "integer"}}),
            &["{\"de\": 1}"],
            &["{\"deu\": 1}", "{\"D\": 1}"],
        ),
        (
            json!({"type": "object", "properties": ab, "minProperties": 1, "maxProperties": 1}),
            &["{\"a\": 1}", "{\"b\": false}"],
            &["{}", "{\"a\": 1, \"b\": false}"],
        ),
        (
            json!({"type": "object", "minProperties": 2, "maxProperties": 3, "additionalProperties": {"type": "null"}}),
            &["{\"a\": null, \"b\": null}", "{\"a\": null, \"b\": null, \"c\": null}"],
            &["{\"a\": null}", "{\"a\": null, \"b\": null, \"c\": null, \"d\": null}"],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a", "z"]}),
            &["{\"a\": null, \"z\": 5}"],
            &["{\"a\": null}"],
        ),
        (
            json!({"type": "object", "properties": {"card": {"type": "integer"}, "address": {"type": "string"}},
                "dependentRequired": {"card": ["address"]}}),
            &["{}", "{\"address\": \"x\"}", "{\"card\": 1, \"address\": \"x\"}"],
            &["{\"card\": 1}"],
        ),
    ]);
}

#[test]
fn options_exclude_each_other_where_the_schema_says_so() {
    check(&[
        (
            json!({"oneOf": [{"type": "object", "properties": {"t": {"const": "a"}, "x": {"type": "integer"}}, "required": ["t", "x"]},
                {"type": "object", "properties": {"t": {"const": "b"}}, "required": ["t"]}],
                "discriminator": {"propertyName": "t"}}),
            &["{\"t\": \"a\", \"x\": 1}", "{\"t\": \"b\"}"],
            &["{\"t\": \"b\", \"x\": 1}", "{\"t\": \"a\"}"],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
                "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            &["{\"a\": null}", "{\"b\": null}"],
            &["{}", "{\"a\": null, \"b\": null}"],
        ),
        (
            json!({"oneOf": [{"type": "integer", "maximum": 3}, {"type": "integer", "minimum": 4}]}),
            &["3", "4"],
            &["4.5"],
        ),
        (
            json!({"oneOf": [{"type": "integer", "maximum": 5}, {"type": "integer", "minimum": 3}]}),
            &["2", "6"],
            &["4", "3", "5"],
        ),
        (
            json!({"type": "object", "properties": {"kind": {"enum": ["card", "cash"]}, "number": {"type": "integer"}},
                "required": ["kind"],
                "if": {"properties": {"kind": {"const": "card"}}}, "then": {"required": ["number"]}}),
            &["{\"kind\": \"cash\"}", "{\"kind\": \"card\", \"number\": 1}"],
            &["{\"kind\": \"card\"}"],
        ),
        (json!({"type": ["string", "null"], "not": {"type": "null"}}), &["\"x\""], &["null"]),
        (json!({"enum": ["a", "b", "c"], "not": {"enum": ["b"]}}), &["\"a\"", "\"c\""], &["\"b\""]),
        (json!({"type": "string", "not": {"const": "no"}}), &["\"nob\"", "\"\""], &["\"no\""]),
        (json!({"type": "string", "not": {"pattern": "^x"}}), &["\"ax\""], &["\"xa\""]),
        (json!({"type": "integer", "not": {"const": 3}}), &["2", "33"], &["3"]),
        (
            json!({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}, "not": {"required": ["b"]}}),
            &["{}", "{\"a\": null}"],
            &["{\"b\": null}"],
        ),
        (json!({"type": "string", "nullable": true}), &["\"x\"", "null"], &["1"]),
        (
            json!({"enum": [1, "x", null, {"a": [1, 2]}]}),
            &["1", "\"x\"", "null", "{\"a\": [1, 2]}", "{\"a\":[1,2]}"],
            &["2", "{\"a\": [1]}"],
        ),
        (json!({"oneOf": [{"type": "integer"}, {"type": "number"}]}), &["1.5"], &["1", "2.0"]),
        (json!({"const": "a \"b\"\n"}), &["\"a \\\"b\\\"\\n\""], &["\"a\""]),
    ]);
}

#[test]
fn numbers_are_exact_and_end() {
    check(&[
        (
            json!({"type": "integer"}),
            &["0", "-7", "123456789012345678"],
            &["01", "1.0", "1e3", "12345678901234567890", "-"],
        ),
        (
            json!({"type": "number"}),
            &["0.5", "-12.25", "1e9", "3.141592653589793", "7"],
            &["1.", ".5", "0.123456789012345678", "1e999", "00"],
        ),
        (
            json!({"type": "integer", "minimum": -5, "maximum": 250}),
            &["-5", "0", "250", "99"],
            &["-6", "251", "1000"],
        ),
        (
            json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
            &["0.01", "1", "1.0", "0.99"],
            &["0", "0.0", "1.01", "-0.5", "2"],
        ),
        (
            json!({"type": "number", "minimum": -0.5, "exclusiveMaximum": 12.34}),
            &["-0.5", "-0.49", "12.33", "12.3399", "3"],
            &["-0.51", "12.34", "12.340", "13"],
        ),
        (
            json!({"type": "number", "minimum": 5e-324, "maximum": 1.7976931348623157e308}),
            &["1", "0.5"],
            &["0", "-1"],
        ),
        (
            json!({"type": "number", "multipleOf": 0.01}),
            &["1.25", "3", "0.5", "-2.10"],
            &["1.255", "0.001"],
        ),
        (
            json!({"type": "number", "multipleOf": 0.25}),
            &["1.25", "3", "0.5", "7.75"],
            &["1.3", "0.1"],
        ),
        (json!({"type": "integer", "multipleOf": 5}), &["0", "5", "125", "-10"], &["1", "12"]),
        (json!({"type": "integer", "multipleOf": 25}), &["0", "25", "1050"], &["5", "30", "1001"]),
        (
            json!({"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 30}),
            &["14", "21", "28"],
            &["7", "15", "35"],
        ),
        (json!({"type": "number", "multipleOf": 2.5}), &["2.5", "5", "7.5", "10"], &["2", "1.5"]),
        (json!({"minimum": 3}), &["3", "4.5"], &["2", "\"x\""]),
    ]);
}

#[test]
fn strings_and_formats_end() {
    check(&[
        (
            json!({"type": "string"}),
            &["\"\"", "\"a\\n\\\"b\\\"é\""],
            &["\"\\ud800\"", "\"a", "\"\\x\""],
        ),
        (
            json!({"type": "string", "minLength": 2, "maxLength": 3}),
            &["\"ab\"", "\"a\\nb\""],
            &["\"a\"", "\"abcd\""],
        ),
        (
            json!({"type": "string", "pattern": "^[A-Z]{3}-\\d+$"}),
            &["\"ABC-12\""],
            &["\"ABC-\"", "\"xABC-1\""],
        ),
        (json!({"type": "string", "pattern": "b+"}), &["\"abc\"", "\"b\""], &["\"ac\""]),
        (json!({"type": "string", "pattern": "^a|b$"}), &["\"ax\"", "\"xb\""], &["\"xax\""]),
        (json!({"type": "string", "pattern": "^\\\\\"$"}), &["\"\\\\\\\"\""], &["\"x\""]),
        (
            json!({"type": "string", "pattern": "^[a-z]+$", "maxLength": 3}),
            &["\"abc\""],
            &["\"abcd\"", "\"\""],
        ),
        (
            json!({"type": "string", "format": "date"}),
            &["\"2024-02-29\"", "\"2023-12-31\""],
            &["\"2023-02-29\"", "\"2023-13-01\"", "\"0000-01-01\""],
        ),
        (
            json!({"type": "string", "format": "time"}),
            &["\"20:00:00Z\"", "\"20:00:00.123456+02:00\""],
            &["\"20:00:00.0000000Z\"", "\"24:00:00Z\""],
        ),
        (
            json!({"type": "string", "format": "date-time"}),
            &["\"2024-05-06T07:08:09Z\""],
            &["\"2024-05-06\""],
        ),
        (
            json!({"type": "string", "format": "duration"}),
            &["\"P1Y2M3DT4H5M6S\"", "\"PT36H\"", "\"P3W\""],
            &["\"P\"", "\"P99999D\"", "\"PT\""],
        ),
        (
            json!({"type": "string", "format": "email"}),
            &["\"ada.lovelace@example.org\""],
            &["\"ada\"", "\"@x.org\""],
        ),
        (
            json!({"type": "string", "format": "uuid"}),
            &["\"123e4567-e89b-12d3-a456-426614174000\""],
            &["\"123e4567\""],
        ),
        (json!({"type": "string", "format": "ipv4"}), &["\"127.0.0.1\""], &["\"256.0.0.1\""]),
        (
            json!({"type": "string", "format": "ipv6"}),
            &["\"::1\"", "\"fe80::1:2\"", "\"1:2:3:4:5:6:7:8\""],
            &["\"1:2\"", "\":::\""],
        ),
        (
            json!({"type": "string", "format": "uri", "minLength": 1, "maxLength": 2083}),
            &["\"https://example.org/a/b?c=d#e\"", "\"mailto:a@b.org\""],
            &["\"example\"", "\"http://\""],
        ),
        (json!({"type": "string", "format": "hostname"}), &["\"a.example.org\""], &["\"-a\""]),
        // Formats that are not enforced are comments.
        (json!({"type": "string", "format": "binary"}), &["\"x\""], &["1"]),
        (json!({"type": "integer", "format": "int32"}), &["1"], &["\"x\""]),
    ]);
}

#[test]
fn lists_have_their_items_and_lengths() {
    check(&[
        (
            json!({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2}),
            &["[1]", "[1, 2]", "[1,2]"],
            &["[]", "[1, 2, 3]", "[1,  2]"],
        ),
        (
            json!({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": false, "minItems": 2}),
            &["[1, \"x\"]"],
            &["[1]", "[1, \"x\", 2]"],
        ),
        (
            json!({"type": "array", "items": [{"type": "integer"}, {"type": "string"}], "additionalItems": {"type": "null"}}),
            &["[]", "[1]", "[1, \"x\", null, null]"],
            &["[\"x\"]", "[1, \"x\", 1]"],
        ),
        (
            json!({"type": "array", "uniqueItems": true, "items": {"enum": ["a", "b", "c"]}}),
            &["[]", "[\"c\", \"a\"]", "[\"b\", \"a\", \"c\"]"],
            &["[\"a\", \"a\"]"],
        ),
        (
            json!({"type": "array", "uniqueItems": true, "minItems": 2, "items": {"type": "boolean"}}),
            &["[true, false]", "[false, true]"],
            &["[true]", "[true, true]"],
        ),
        (json!({"type": "array", "maxItems": 0}), &["[]"], &["[1]"]),
        (
            json!({"$ref": "#/$defs/t%20r", "$defs": {"t r": {"type": "object", "properties": {"v": {"type": "integer"}, "c": {"type": "array", "items": {"$ref": "#/$defs/t%20r"}}}, "required": ["v"]}}}),
            &["{\"v\": 1, \"c\": [{\"v\": 2}]}"],
            &["{\"c\": []}", "{\"v\": 1, \"c\": [{}]}"],
        ),
        (
            json!({"$defs": {"s": {"$anchor": "name", "type": "string"}}, "type": "array", "items": {"$ref": "#name"}}),
            &["[\"x\"]"],
            &["[1]"],
        ),
        (
            json!({"$defs": {"s": {"type": "string"}}, "$ref": "#/$defs/s", "description": "x", "maxLength": 1, "x-order": 3, "deprecated": true, "examples": [1]}),
            &["\"a\""],
            &["\"ab\""],
        ),
    ]);
}

/// Schemas that nothing bounds: a model that likes to go on never ends them by itself.
fn open_schemas() -> Vec<Value> {
    vec![
        json!({}),
        json!({"type": "object"}),
        json!({"type": "string"}),
        json!({"type": "array"}),
        json!({"type": "array", "items": {"type": "string"}, "minItems": 3}),
        json!({"type": "object", "properties": {"a": {"type": "string", "minLength": 4}, "b": {"type": "number"},
            "c": {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "string", "format": "uuid"}}, "required": ["id"]}}},
            "required": ["a", "c"]}),
        json!({"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"name": {"type": "string"},
            "children": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "required": ["name", "children"]}}}),
        json!({"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+@[a-z]+$"}}}),
        json!({"type": "array", "items": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"when": {"type": "string", "format": "date-time"}}, "required": ["when"]}]}}),
    ]
}

#[test]
fn what_is_open_ends_within_its_room() {
    let tokenizer = smollm2();
    let compiler = compiler(&tokenizer);
    for schema in open_schemas() {
        let grammar = compiler.compile(&GrammarSpec::JsonSchema(schema.clone())).unwrap();
        for (seed, room) in (0..24).zip([120, 150, 200, 300].into_iter().cycle()) {
            let mut matcher = grammar.matcher();
            matcher.limit(room);
            let (ids, ended) = walk(tokenizer.eos(), &mut matcher, seed, room);
            let text = tokenizer.decode(&ids, false);
            assert!(ended, "{schema} within {room}: {text}");
            serde_json::from_str::<Value>(&text)
                .unwrap_or_else(|error| panic!("{schema}: {text}: {error}"));
            assert!(admits(&grammar, &tokenizer, &text), "{schema}: {text}");
        }
    }
}

#[test]
fn an_answer_with_room_is_not_led() {
    let tokenizer = smollm2();
    let schema =
        json!({"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]});
    let grammar = compiler(&tokenizer).compile(&GrammarSpec::JsonSchema(schema)).unwrap();
    let text = format!("{{\"text\": \"{}\"}}", "a long story ".repeat(12));
    let ids = tokenizer.encode(&text, EncodeOptions::default()).unwrap();
    let mut matcher = grammar.matcher();
    matcher.limit(ids.len() + 20);
    for id in ids {
        matcher.accept(id).unwrap();
    }
}

#[test]
fn what_a_schema_cannot_mean_is_refused_with_what_would_do() {
    let compiler = compiler(&smollm2());
    for (schema, part) in [
        (json!({"type": "array", "contains": {"type": "integer"}}), "contains"),
        (
            json!({"type": "array", "uniqueItems": true, "items": {"type": "string"}}),
            "uniqueItems works for",
        ),
        (json!({"type": "integer", "multipleOf": 1_000_003}), "at most 1000 works"),
        (json!({"type": "string", "maxLength": 100_000}), "at most 20000 works"),
        (json!({"type": "string", "pattern": "a\\bb"}), "where they cannot be enforced"),
        (json!({"type": "string", "pattern": "(?=a)b"}), "look-around"),
        (
            json!({"oneOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "array", "items": {"type": "number"}}]}),
            "use anyOf",
        ),
        (json!({"type": "string", "enum": [1, 2]}), "no text satisfies it"),
        (
            json!({"type": "object", "properties": {"a": {"type": "integer", "minimum": 2, "maximum": 1}}, "required": ["a"]}),
            "no text satisfies it",
        ),
        (json!({"type": "string", "pattern": "^a{5}$", "maxLength": 3}), "no text satisfies it"),
        (json!({"$ref": "#", "type": "object"}), "no text satisfies it"),
        (
            json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}),
            "no text satisfies it",
        ),
        (json!({"$ref": "https://example.org/s.json"}), "put its target into $defs"),
        (json!({"minLength": "3"}), "minLength is \"3\"; expected a count"),
        (json!({"properties": [1]}), "properties is [1]; expected an object"),
    ] {
        let error = compiler
            .compile(&GrammarSpec::JsonSchema(schema.clone()))
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{schema}: {error}");
    }
}
