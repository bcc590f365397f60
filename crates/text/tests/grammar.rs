//! Grammars along random answers: what comes out is always what was asked for.
#![allow(clippy::unwrap_used)]

mod fixtures;

use std::time::{Duration, Instant};

use bantam_text::{Grammar, GrammarCompiler, GrammarMatcher, GrammarSpec, TextError, Tokenizer};
use fixtures::{compiler, is_allowed, smollm2, tokenizers, walk};
use proptest::prelude::*;
use serde_json::json;

fn assert_shared<T: Clone + Send + Sync>() {}
fn assert_sent<T: Send>() {}

#[test]
fn threads_may_share_and_send_them() {
    assert_shared::<GrammarCompiler>();
    assert_shared::<Grammar>();
    assert_shared::<GrammarSpec>();
    assert_sent::<GrammarMatcher>();
}

/// The text of a random walk, if it came to an end.
fn text_of(tokenizer: &Tokenizer, spec: &GrammarSpec, seed: u64) -> Option<String> {
    let mut matcher = compiler(tokenizer).compile(spec).unwrap().matcher();
    let (ids, ended) = walk(tokenizer.eos(), &mut matcher, seed, 300);
    ended.then(|| tokenizer.decode(&ids, false))
}

#[test]
fn choices_are_kept_to_the_letter() {
    let choices = ["yes", "yes, please", "no\n\"never\"", "héllo 🎲"].map(str::to_owned);
    for (name, _, tokenizer) in tokenizers() {
        let spec = GrammarSpec::Choice(choices.to_vec());
        for seed in 0..20 {
            let text = text_of(&tokenizer, &spec, seed).unwrap();
            assert!(choices.contains(&text), "{name}: {text:?}");
        }
    }
}

#[test]
fn regular_expressions_match_the_whole_text() {
    let patterns = [
        r"^\d{3}-[a-f]{2,5}(x|yz)?$",
        "(a|b)*c",
        "[^a-z]{1,4}é?",
        "/[/]\n\t.{0,3}",
        "a*",
        "(?i)true|false",
    ];
    for (name, _, tokenizer) in tokenizers() {
        for pattern in patterns {
            let whole = fancy_full(pattern);
            let spec = GrammarSpec::Regex(pattern.to_owned());
            let ended = (0..20).filter_map(|seed| text_of(&tokenizer, &spec, seed));
            let ended: Vec<String> = ended.collect();
            assert!(!ended.is_empty(), "{name} {pattern}");
            for text in ended {
                assert!(whole.is_match(&text), "{name} {pattern}: {text:?}");
            }
        }
    }
}

/// The pattern for the `regex` crate, to match whole texts.
fn fancy_full(pattern: &str) -> regex::Regex {
    regex::Regex::new(&format!("^(?:{pattern})$")).unwrap()
}

#[test]
fn answers_end_exactly_where_they_are_complete() {
    let pattern = regex::Regex::new("^(?:ab|abab)$").unwrap();
    for (name, _, tokenizer) in tokenizers() {
        let ends = [tokenizer.eos()[0], tokenizer.bos().unwrap()];
        let compiler = GrammarCompiler::new(&tokenizer, &ends, tokenizer.vocab_size()).unwrap();
        let spec = GrammarSpec::Regex("ab|abab".to_owned());
        let grammar = compiler.compile(&spec).unwrap();
        for seed in 0..20 {
            let (ids, ended) = walk(&ends, &mut grammar.matcher(), seed, 10);
            assert!(ended, "{name}");
            let mut matcher = grammar.matcher();
            for length in 0..=ids.len() {
                let text = tokenizer.decode(&ids[..length], false);
                let complete = pattern.is_match(&text);
                let allowed = matcher.allowed().unwrap();
                for end in ends {
                    assert_eq!(is_allowed(allowed, end), complete, "{name} {text:?}");
                }
                match ids.get(length) {
                    Some(&id) => matcher.accept(id).unwrap(),
                    None => matcher.accept(ends[1]).unwrap(),
                }
            }
            // After the end only ends follow.
            let allowed = matcher.allowed().unwrap().to_vec();
            let count: u32 = allowed.iter().map(|word| word.count_ones()).sum();
            assert_eq!(count, 2);
            assert!(matcher.accept(ids[0]).is_err());
            matcher.accept(ends[0]).unwrap();
        }
    }
}

#[test]
fn special_tokens_are_never_text() {
    for (name, _, tokenizer) in tokenizers() {
        let size = tokenizer.vocab_size();
        // The model has a few rows more than the tokenizer has tokens.
        let compiler = GrammarCompiler::new(&tokenizer, tokenizer.eos(), size + 77).unwrap();
        let spec = GrammarSpec::Regex("(?s:.*)".to_owned());
        let mut matcher = compiler.compile(&spec).unwrap().matcher();
        let allowed = matcher.allowed().unwrap();
        assert_eq!(allowed.len(), (size + 77).div_ceil(32));
        let mut texts = 0;
        for id in 0..(allowed.len() * 32) as u32 {
            let special = tokenizer.is_special(id) && !tokenizer.eos().contains(&id);
            let absent = tokenizer.token_bytes(id).is_none();
            if special || absent {
                assert!(!is_allowed(allowed, id), "{name} {id}");
            }
            texts += usize::from(is_allowed(allowed, id));
        }
        assert!(texts > size * 3 / 4, "{name}: {texts} of {size}");
        let special = (0..size as u32)
            .find(|&id| tokenizer.is_special(id) && !tokenizer.eos().contains(&id))
            .unwrap();
        assert!(matcher.accept(special).is_err(), "{name}");
    }
}

#[test]
fn a_lark_grammar_may_count_what_a_regular_expression_cannot() {
    let tokenizer = smollm2();
    let source = "start: \"(\" start \")\" | \"x\"";
    let spec = GrammarSpec::Lark(source.to_owned());
    let ended: Vec<String> = (0..40).filter_map(|seed| text_of(&tokenizer, &spec, seed)).collect();
    assert!(ended.len() > 5);
    for text in ended {
        let (open, close) = text.split_once('x').unwrap();
        assert_eq!(open.len(), close.len(), "{text}");
        assert!(open.bytes().all(|b| b == b'(') && close.bytes().all(|b| b == b')'), "{text}");
    }
}

#[test]
fn a_token_that_is_not_allowed_changes_nothing() {
    let tokenizer = smollm2();
    let spec = GrammarSpec::Choice(vec!["yes".into()]);
    let mut matcher = compiler(&tokenizer).compile(&spec).unwrap().matcher();
    let no = tokenizer.token_id("no").unwrap();
    assert!(matcher.accept(no).is_err());
    assert!(matcher.accept(u32::MAX).is_err());
    assert!(matcher.accept(tokenizer.eos()[0]).is_err());
    matcher.accept(tokenizer.token_id("yes").unwrap()).unwrap();
    matcher.accept(tokenizer.eos()[0]).unwrap();
}

#[test]
fn what_cannot_be_enforced_is_named() {
    let tokenizer = smollm2();
    let compiler = compiler(&tokenizer);
    let refused = |spec: GrammarSpec, part: &str| {
        let error = compiler.compile(&spec).unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
        assert!(!error.contains('\n'), "{error}");
    };
    let schema = |value| GrammarSpec::JsonSchema(value);
    refused(schema(json!({"not": {"items": {"type": "null"}}})), "\"items\" within \"not\"");
    refused(schema(json!({"uniqueItems": true})), "uniqueItems works for");
    refused(schema(json!({"type": "strin"})), "unsupported type strin");
    let lists = ["integer", "number"].map(|kind| json!({"items": {"type": kind}}));
    refused(schema(json!({"oneOf": lists})), "use anyOf");
    refused(schema(json!({"$ref": "http://example.org/a"})), "$ref");
    refused(schema(json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}})), "no text");
    refused(schema(json!(false)), "no text");
    refused(schema(json!("object")), "expected an object");
    refused(schema(json!({"type": "array", "minItems": 1e9})), "at most 4096");
    refused(GrammarSpec::Regex("(".into()), "unclosed group");
    refused(GrammarSpec::Regex("a(?=b)".into()), "look-around");
    refused(GrammarSpec::Regex("(a)\\1".into()), "backreferences");
    refused(GrammarSpec::Lark("begin: \"a\"".into()), "start");
    refused(GrammarSpec::Lark("start: missing".into()), "missing");
    refused(GrammarSpec::Choice(Vec::new()), "at least one");
    refused(GrammarSpec::Choice(vec!["a".into(), String::new()]), "choice 1 is empty");
}

#[test]
fn poisoned_grammars_fail_soon_or_stay_cheap() {
    let tokenizer = smollm2();
    let compiler = compiler(&tokenizer);
    let chain = |from: usize, name: &str, link: &dyn Fn(usize) -> String| -> String {
        let rules: String = (0..from).map(|i| format!("{name}{i}: {}\n", link(i + 1))).collect();
        format!("start: {name}0\n{rules}{name}{from}: \"x\"")
    };
    let mut deep = json!({"type": "string"});
    for _ in 0..1000 {
        deep = json!({"properties": {"a": deep}});
    }
    let wide: serde_json::Map<_, _> =
        (0..1000).map(|i| (format!("p{i}"), json!({"type": "string"}))).collect();
    let mut links = serde_json::Map::new();
    for i in 0..1900 {
        let group = links.entry(format!("g{}", i / 500)).or_insert_with(|| json!({}));
        let next = format!("#/$defs/g{}/a{}", (i + 1) / 500, i + 1);
        group[format!("a{i}")] = json!({"items": {"$ref": next}});
    }
    links["g3"]["a1900"] = json!({"type": "string"});
    let references = json!({"$ref": "#/$defs/g0/a0", "$defs": links});
    let patterns = |count: usize| -> serde_json::Map<_, _> {
        (0..count).map(|i| (format!("^(a|b)*{i}.*x{i}$"), json!({}))).collect()
    };
    let lists: serde_json::Map<_, _> = (0..900)
        .map(|i| (format!("p{i}"), json!({"type": "array", "minItems": 4000 - i})))
        .collect();
    let pairs = |i: usize| json!({"anyOf": [{"required": [format!("a{i}")]}, {"maximum": i}]});
    let specs = [
        GrammarSpec::Regex("(a+)+$".into()),
        GrammarSpec::Regex("((((((((a{10}){10}){10}){10}){10}){10}){10}){10}){10}".into()),
        GrammarSpec::Regex("(?:.*a){50}.{1000}b".into()),
        GrammarSpec::Regex(r"[\w\s]{1,1000}(foo|bar){1,1000}.*x.{1,200}".into()),
        GrammarSpec::Regex("a{0,1000000000}".into()),
        GrammarSpec::Regex("(".repeat(200_000)),
        GrammarSpec::Lark("start: \"a\"{1,1000000000}".into()),
        GrammarSpec::Lark("start: x{1000}\nx: y{1000}\ny: z{1000}\nz: /a/{1000}".into()),
        GrammarSpec::Lark("start: start start | \"a\" | \"\"".into()),
        GrammarSpec::Lark(chain(9999, "a", &|i| format!("a{i}"))),
        GrammarSpec::Lark(chain(990, "a", &|i| format!("a{i}?"))),
        GrammarSpec::Lark(chain(990, "A", &|i| format!("A{i}"))),
        GrammarSpec::Lark(chain(300, "A", &|i| format!("A{i}*"))),
        GrammarSpec::Lark("start: %json {\"minItems\": 1000000000}".into()),
        GrammarSpec::Lark(chain(40, "A", &|i| format!("A{i} A{i}"))),
        GrammarSpec::Lark(chain(40, "a", &|i| format!("a{i} a{i}"))),
        GrammarSpec::Lark(format!("start: {}\"b\"", "\"a\" | ".repeat(5000))),
        GrammarSpec::Lark(format!("start: {}\"b\"", "\"a\" | ".repeat(40_000))),
        GrammarSpec::Lark(format!("start: {}", "(".repeat(100_000))),
        GrammarSpec::JsonSchema(deep),
        GrammarSpec::JsonSchema(json!({"properties": wide.clone()})),
        GrammarSpec::JsonSchema(references),
        GrammarSpec::JsonSchema(json!({"patternProperties": patterns(64)})),
        GrammarSpec::JsonSchema(json!({"patternProperties": patterns(900)})),
        GrammarSpec::JsonSchema(json!({"properties": lists})),
        GrammarSpec::JsonSchema(json!({"type": "string", "maxLength": 1_000_000_000})),
        GrammarSpec::JsonSchema(json!({"type": "string", "pattern": "((a{1000}){1000}){1000}"})),
        GrammarSpec::JsonSchema(json!({"allOf": (0..60).map(pairs).collect::<Vec<_>>()})),
        GrammarSpec::JsonSchema(json!({"type": "array", "minItems": 4096, "items":
            {"type": "array", "minItems": 4096, "items": {"type": "array", "minItems": 4096}}})),
        GrammarSpec::JsonSchema(json!({"type": "integer", "multipleOf": 1_000_003})),
        GrammarSpec::JsonSchema(json!({"type": "integer", "multipleOf": 997})),
        GrammarSpec::JsonSchema(json!({"type": "number", "multipleOf": 0.999, "minimum": 1})),
        GrammarSpec::JsonSchema(
            json!({"type": "integer", "multipleOf": 983, "minimum": -7, "maximum": 999_999_999}),
        ),
        GrammarSpec::JsonSchema(json!({"type": "number", "multipleOf": 0.32})),
        GrammarSpec::JsonSchema(json!({"type": "string", "minLength": 4096, "maxLength": 20_000})),
        GrammarSpec::JsonSchema(
            json!({"type": "string", "pattern": "^(a|b)*a(a|b){12}$", "minLength": 20}),
        ),
        GrammarSpec::JsonSchema(
            json!({"type": "string", "pattern": "^([a-z]{1,30}[0-9]{1,30}){1,30}$", "maxLength": 200}),
        ),
        GrammarSpec::JsonSchema(
            json!({"type": "string", "format": "uri", "pattern": "x.*y.*z", "maxLength": 90}),
        ),
        GrammarSpec::JsonSchema(
            json!({"enum": (0..12_000).map(|i| format!("choice {i}")).collect::<Vec<_>>()}),
        ),
        GrammarSpec::JsonSchema(
            json!({"type": "object", "minProperties": 900, "maxProperties": 950, "properties": wide}),
        ),
        GrammarSpec::JsonSchema(
            json!({"type": "array", "uniqueItems": true, "minItems": 20, "maxItems": 30,
            "items": {"enum": (0..64).collect::<Vec<_>>()}}),
        ),
        GrammarSpec::JsonSchema(json!({"anyOf": (0..199).map(|i| json!({"type": "object",
            "properties": {format!("a{i}"): {"type": "string"}}})).collect::<Vec<_>>()})),
        GrammarSpec::JsonSchema(json!({"oneOf": (0..60).map(|i| json!({"type": "object",
            "properties": {"t": {"const": i}, "x": {"type": "string"}}, "required": ["t"]})).collect::<Vec<_>>()})),
        GrammarSpec::Lark("start: e\ne: e e e | e e | /[a-z]/ | \"(\" e \")\"".into()),
        GrammarSpec::Lark("start: a a a a a a a a a a\na: (\"x\" | \"xx\" | \"y\"?)*".into()),
        GrammarSpec::Lark(
            "start: /(a|ab|abc){1,300}/ /(a|ab|abc){1,300}/ | /.{1,500}x/ & ~/.*y.*z/".into(),
        ),
        GrammarSpec::Choice((0..20_000).map(|i| format!("choice {i}")).collect()),
    ];
    for (index, spec) in specs.iter().enumerate() {
        let start = Instant::now();
        let compiled = compiler.compile(spec);
        let compiling = start.elapsed();
        eprintln!("{index}: {compiling:?} {:?}", compiled.as_ref().err().map(ToString::to_string));
        assert!(compiling < Duration::from_secs(2), "{index} took {compiling:?}");
        let Ok(grammar) = compiled else {
            continue;
        };
        let mut matcher = grammar.matcher();
        let walking = Instant::now();
        for step in 0..50 {
            let start = Instant::now();
            let Ok(allowed) = matcher.allowed() else {
                break;
            };
            let token = (0..49_152).rev().find(|&id| is_allowed(allowed, id)).unwrap();
            let accepted = matcher.accept(token);
            let took = start.elapsed();
            assert!(took < Duration::from_secs(2), "{index}, step {step} took {took:?}");
            if accepted.is_err() || tokenizer.eos().contains(&token) {
                break;
            }
        }
        let took = walking.elapsed();
        assert!(took < Duration::from_secs(8), "{index}: 50 steps took {took:?}");
        eprintln!("{index}: 50 steps {took:?}");
    }
}

#[test]
fn vocabularies_without_an_end_are_refused() {
    let tokenizer = fixtures::read("byte_level");
    for (ends, size) in [(vec![], 100), (vec![100], 100), (vec![0], 0), (vec![0], usize::MAX)] {
        let error = GrammarCompiler::new(&tokenizer, &ends, size).unwrap_err();
        assert!(matches!(error, TextError::InvalidGrammarVocabulary { .. }), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn any_source_compiles_or_is_refused(
            text in any::<String>(),
            syntax in "[a-c(){}|*+?\"/:\\[\\]% \n<>~0-9.^$\\\\]{0,40}") {
        let tokenizer = fixtures::read("byte_level");
        let compiler = compiler(&tokenizer);
        for source in [text, syntax] {
            for spec in [
                GrammarSpec::Regex(source.clone()),
                GrammarSpec::Lark(source.clone()),
                GrammarSpec::Lark(format!("start: {source}")),
                GrammarSpec::Choice(vec![source.clone()]),
                GrammarSpec::JsonSchema(json!({"pattern": source.clone(), "const": source.clone()})),
            ] {
                if let Err(error) = compiler.compile(&spec) {
                    let error = error.to_string();
                    prop_assert!(!error.contains('\n') && !error.contains("panic"), "{error}");
                }
            }
        }
    }
}
