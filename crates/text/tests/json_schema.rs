//! Random schemas, random answers: what ends is JSON that the schema accepts, without needless
//! whitespace.
#![allow(clippy::unwrap_used)]

mod fixtures;

use std::time::Instant;

use bantam_text::{GrammarCompiler, GrammarSpec, Tokenizer};
use fixtures::{compiler, is_allowed, read, smollm2, walk};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Schemas of the kinds that the checker below knows.
fn schemas() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "null"})),
        Just(json!({"type": "boolean"})),
        (-50_i64..50, 0_i64..60).prop_map(
            |(low, span)| json!({"type": "integer", "minimum": low, "maximum": low + span})
        ),
        (-9_i64..9)
            .prop_map(|low| json!({"type": "number", "exclusiveMinimum": low, "maximum": 99})),
        (0_usize..3, 0_usize..6).prop_map(
            |(low, span)| json!({"type": "string", "minLength": low, "maxLength": low + span})
        ),
        Just(json!({"type": "string", "pattern": "^[a-c]{2,4}$"})),
        Just(json!({"type": "string", "format": "date"})),
        Just(json!({"enum": ["red", "grün", 7, null, {"a": [1]}]})),
        Just(json!({"const": "a \"quoted\"\n text"})),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let name = prop::sample::select(vec!["a", "name", "größe", "x y", "\"q\""]);
        let properties = prop::collection::btree_map(name, (inner.clone(), any::<bool>()), 0..4);
        prop_oneof![
            (inner.clone(), 0_usize..2, 0_usize..3).prop_map(|(items, low, span)| {
                json!({"type": "array", "items": items, "minItems": low, "maxItems": low + span})
            }),
            properties.prop_map(|fields| {
                let required: Vec<_> =
                    fields.iter().filter(|(_, (_, required))| *required).map(|(k, _)| *k).collect();
                let properties: serde_json::Map<_, _> = fields
                    .iter()
                    .map(|(k, (schema, _))| ((*k).to_owned(), schema.clone()))
                    .collect();
                json!({"type": "object", "properties": properties, "required": required,
                    "additionalProperties": false})
            }),
            prop::collection::vec(inner, 1..3).prop_map(|options| json!({"anyOf": options})),
        ]
    })
}

/// Whether `value` satisfies a schema of [`schemas`].
fn satisfies(value: &Value, schema: &Value) -> bool {
    if let Some(options) = schema["anyOf"].as_array() {
        return options.iter().any(|option| satisfies(value, option));
    }
    if let Some(options) = schema["enum"].as_array() {
        return options.contains(value);
    }
    if !schema["const"].is_null() {
        return *value == schema["const"];
    }
    let within = |count: usize, low: &str, high: &str| {
        schema[low].as_u64().is_none_or(|low| count as u64 >= low)
            && schema[high].as_u64().is_none_or(|high| count as u64 <= high)
    };
    match (schema["type"].as_str().unwrap(), value) {
        ("null", Value::Null) | ("boolean", Value::Bool(_)) => true,
        ("integer" | "number", Value::Number(_)) => {
            let number = value.as_f64().unwrap();
            (schema["type"] == "number" || number.fract() == 0.0)
                && schema["minimum"].as_f64().is_none_or(|low| number >= low)
                && schema["exclusiveMinimum"].as_f64().is_none_or(|low| number > low)
                && schema["maximum"].as_f64().is_none_or(|high| number <= high)
        }
        ("string", Value::String(text)) => {
            let pattern = schema["pattern"].as_str();
            let date = schema["format"] == "date";
            within(text.chars().count(), "minLength", "maxLength")
                && pattern.is_none_or(|rx| regex::Regex::new(rx).unwrap().is_match(text))
                && (!date || regex::Regex::new(r"^\d{4}-\d\d-\d\d$").unwrap().is_match(text))
        }
        ("array", Value::Array(items)) => {
            within(items.len(), "minItems", "maxItems")
                && items.iter().all(|item| satisfies(item, &schema["items"]))
        }
        ("object", Value::Object(fields)) => {
            let required = schema["required"].as_array().unwrap();
            required.iter().all(|name| fields.contains_key(name.as_str().unwrap()))
                && fields.iter().all(|(name, value)| {
                    let property = &schema["properties"][name.as_str()];
                    !property.is_null() && satisfies(value, property)
                })
        }
        _ => false,
    }
}

/// Whether there is whitespace outside of strings other than single spaces after `,` and `:`.
fn wastes_space(text: &str) -> bool {
    let (mut quoted, mut escaped, mut before) = (false, false, ' ');
    for letter in text.chars() {
        if !quoted && letter.is_whitespace() && !(letter == ' ' && matches!(before, ',' | ':')) {
            return true;
        }
        quoted ^= letter == '"' && !escaped;
        escaped = quoted && letter == '\\' && !escaped;
        before = letter;
    }
    false
}

fn check(compiler: &GrammarCompiler, tokenizer: &Tokenizer, schema: &Value, seed: u64) -> bool {
    let grammar = compiler.compile(&GrammarSpec::JsonSchema(schema.clone())).unwrap();
    let (ids, ended) = walk(tokenizer.eos(), &mut grammar.matcher(), seed, 400);
    let text = tokenizer.decode(&ids, false);
    assert!(!wastes_space(&text), "{schema}: {text}");
    if ended {
        let value: Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{schema}: {text:?}: {error}"));
        assert!(satisfies(&value, schema), "{schema}: {text}");
    }
    ended
}

#[test]
fn random_answers_satisfy_random_schemas() {
    let loaded = [smollm2(), read("byte_level"), read("sentencepiece")];
    let prepared: Vec<_> =
        loaded.iter().map(|tokenizer| (compiler(tokenizer), tokenizer)).collect();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let ended = std::cell::Cell::new(0);
    runner
        .run(&(schemas(), any::<u64>()), |(schema, seed)| {
            for (compiler, tokenizer) in &prepared {
                ended.set(ended.get() + usize::from(check(compiler, tokenizer, &schema, seed)));
            }
            Ok(())
        })
        .unwrap();
    assert!(ended.get() > 300, "only {} answers ended", ended.get());
}

#[test]
fn any_object_is_json_in_one_line() {
    let tokenizer = smollm2();
    let grammar = compiler(&tokenizer).compile(&GrammarSpec::JsonObject).unwrap();
    let mut ended = 0;
    for seed in 0..40 {
        let (ids, end) = walk(tokenizer.eos(), &mut grammar.matcher(), seed, 300);
        let text = tokenizer.decode(&ids, false);
        assert!(text.starts_with('{') && !wastes_space(&text), "{text}");
        if end {
            assert!(serde_json::from_str::<Value>(&text).unwrap().is_object(), "{text}");
            ended += 1;
        }
    }
    assert!(ended > 0);
}

#[test]
fn recursion_and_references_work() {
    let tokenizer = smollm2();
    let schema = json!({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object",
        "properties": {"value": {"type": "integer"}, "left": {"$ref": "#/$defs/tree"}},
        "required": ["value"], "additionalProperties": false}}});
    let grammar = compiler(&tokenizer).compile(&GrammarSpec::JsonSchema(schema)).unwrap();
    let mut ended = 0;
    for seed in 0..30 {
        let (ids, end) = walk(tokenizer.eos(), &mut grammar.matcher(), seed, 300);
        if end {
            let value: Value = serde_json::from_str(&tokenizer.decode(&ids, false)).unwrap();
            let mut node = &value;
            while !node.is_null() {
                assert!(node["value"].is_number(), "{value}");
                node = &node["left"];
            }
            ended += 1;
        }
    }
    assert!(ended > 5, "{ended}");
}

#[test]
fn a_step_is_quick_beside_a_step_of_the_model() {
    let tokenizer = smollm2();
    let start = Instant::now();
    let compiler = compiler(&tokenizer);
    let preparing = start.elapsed();
    let schema = json!({"type": "object", "properties": {
        "name": {"type": "string"}, "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}},
        "address": {"type": "object", "properties": {"city": {"type": "string"}}}},
        "required": ["name", "age", "tags"]});
    let start = Instant::now();
    let grammar = compiler.compile(&GrammarSpec::JsonSchema(schema)).unwrap();
    let compiling = start.elapsed();
    let mut times = Vec::new();
    for _ in 0..20 {
        let mut matcher = grammar.matcher();
        let text = r#"{"name": "Ada Lovelace, of London", "age": 36, "tags": ["poetry", "engines"], "address": {"city": "London"}}"#;
        for id in tokenizer.encode(text, Default::default()).unwrap() {
            let start = Instant::now();
            let allowed = is_allowed(matcher.allowed().unwrap(), id);
            times.push(start.elapsed());
            assert!(allowed);
            matcher.accept(id).unwrap();
        }
    }
    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    eprintln!("prepared {preparing:?}, compiled {compiling:?}, step {median:?}, worst {worst:?}");
    assert!(median.as_millis() < 20, "{median:?}");
}
