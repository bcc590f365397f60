//! Calls of functions: found in answers however they are cut, and made where they are required.
#![allow(clippy::unwrap_used)]

mod fixtures;

use bantam_text::{
    EncodeOptions, Grammar, GrammarMatcher, StreamDecoder, Tokenizer, Tool, ToolCallParser,
    ToolChoice, ToolDelta, ToolFormat,
};
use fixtures::{built, byte_level_vocabulary, compiler, is_allowed, smollm2, tokenizers, walk};
use proptest::prelude::*;
use serde_json::{Value, json};

fn hermes() -> ToolFormat {
    ToolFormat::from_template("<tool_call>")
}

fn llama() -> ToolFormat {
    ToolFormat::from_template("<|python_tag|>")
}

fn mistral() -> ToolFormat {
    ToolFormat::from_template("[TOOL_CALLS]")
}

/// The deltas of an answer in chunks, neighbours of the same kind joined.
fn parse<'a>(format: ToolFormat, chunks: impl IntoIterator<Item = &'a str>) -> Vec<ToolDelta> {
    let mut parser = ToolCallParser::new(format);
    let mut deltas: Vec<ToolDelta> = chunks.into_iter().flat_map(|c| parser.push(c)).collect();
    deltas.extend(parser.finish());
    let mut joined: Vec<ToolDelta> = Vec::new();
    for delta in deltas {
        match (joined.last_mut(), delta) {
            (Some(ToolDelta::Text(text)), ToolDelta::Text(more)) => text.push_str(&more),
            (
                Some(ToolDelta::Arguments { fragment, .. }),
                ToolDelta::Arguments { fragment: more, .. },
            ) => fragment.push_str(&more),
            (_, delta) => joined.push(delta),
        }
    }
    joined
}

fn text(text: &str) -> ToolDelta {
    ToolDelta::Text(text.to_owned())
}

fn call(index: usize, name: &str, arguments: &str) -> [ToolDelta; 3] {
    [
        ToolDelta::Begin { index, name: name.to_owned() },
        ToolDelta::Arguments { index, fragment: arguments.to_owned() },
        ToolDelta::End { index },
    ]
}

#[test]
fn calls_of_every_format_are_found() {
    let answer = "I look.\n<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": [1, \"}\"]}}\n\
                  </tool_call>\n<tool_call>{\"arguments\":{},\"name\":\"b\\u00e9\"}</tool_call>\n";
    let expected = [vec![text("I look.")], call(0, "a", "{\"x\": [1, \"}\"]}").into()];
    let expected = [expected.concat(), call(1, "bé", "{}").into()].concat();
    assert_eq!(parse(hermes(), [answer]), expected);

    let expected = call(0, "a", "{\"x\": 1}");
    for mark in ["", "<|python_tag|>", " \n", "<|python_tag|> "] {
        let answer = format!("{mark}{{\"name\": \"a\", \"parameters\": {{\"x\": 1}}}}");
        assert_eq!(parse(llama(), [answer.as_str()]), expected, "{mark}");
    }

    let answer = "[TOOL_CALLS] [{\"name\": \"a\", \"arguments\": {\"x\": 1}, \"id\": \"123\"} , \
                  {\"name\": \"b\", \"arguments\": {}}] done";
    let expected = [call(0, "a", "{\"x\": 1}"), call(1, "b", "{}")].concat();
    let expected = [expected, vec![text(" done")]].concat();
    assert_eq!(parse(mistral(), [answer]), expected);
}

#[test]
fn a_call_without_arguments_has_none() {
    let answer = "<tool_call>{\"name\": \"now\"}</tool_call>";
    assert_eq!(parse(hermes(), [answer]), call(0, "now", "{}"));
}

#[test]
fn a_missing_end_mark_does_not_hide_the_next_call() {
    let one = "<tool_call>{\"name\": \"a\", \"arguments\": {}}";
    let expected = [call(0, "a", "{}"), call(1, "a", "{}")].concat();
    assert_eq!(parse(hermes(), [one, one]), expected);
    assert_eq!(parse(hermes(), [one, "\n", one, "\n</tool"]), expected);
}

#[test]
fn what_is_no_call_is_text() {
    for answer in [
        "",
        "  \n",
        "a < b <tool",
        "<tool_call>",
        "<tool_call>\n",
        "<tool_call>not json</tool_call>",
        "<tool_call>{\"name\": 3, \"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"\", \"arguments\": {}}</tool_call>",
        "<tool_call>{\"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"a\", \"arguments\": \"{}\"}</tool_call>",
        "<tool_call>{\"name\": \"a\", \"argu",
        "<tool_call>[{\"name\": \"a\"}]</tool_call>",
        " <tool_call <tool_call>\u{e9} {\"name\": \"a\"}",
        "{\"name\": \"a\", \"arguments\": {}}",
    ] {
        let expected: Vec<ToolDelta> = if answer.is_empty() { vec![] } else { vec![text(answer)] };
        assert_eq!(parse(hermes(), [answer]), expected, "{answer}");
    }
    for answer in ["{\"answer\": 42}", "{", "<|python_tag|>print(1)", "x {\"name\": \"a\"}"] {
        assert_eq!(parse(llama(), [answer]), [text(answer)]);
    }
    for answer in ["[TOOL_CALLS]", "[TOOL_CALLS] []", "[TOOL_CALLS][1]", "[TOOL", "[TOOL_CALLS] [ "]
    {
        assert_eq!(parse(mistral(), [answer]), [text(answer)]);
    }
}

#[test]
fn a_call_within_what_is_none_is_found() {
    let answer = "<tool_call><tool_call>{\"name\": \"a\", \"arguments\": {}}</tool_call>";
    let expected = [vec![text("<tool_call>")], call(0, "a", "{}").into()].concat();
    assert_eq!(parse(hermes(), [answer]), expected);
    // The first call never ends its string: at the end of the answer it turns out to be text.
    let answer = "<tool_call>{\"nam <tool_call>{}";
    assert_eq!(parse(hermes(), [answer]), [text(answer)]);
}

#[test]
fn a_call_that_breaks_off_ends_and_loses_nothing() {
    let answer = "<tool_call>{\"name\": \"a\", \"arguments\": {\"x\": 1,, 2}}</tool_call>!";
    let expected = [call(0, "a", "{\"x\": 1,").to_vec(), vec![text(", 2}}</tool_call>!")]].concat();
    assert_eq!(parse(hermes(), [answer]), expected);
    let answer = "<tool_call>{\"name\": \"a\", \"arguments\": {\"x\": \"unfin";
    assert_eq!(parse(hermes(), [answer]), call(0, "a", "{\"x\": \"unfin"));
    let answer = "[TOOL_CALLS][{\"name\": \"a\", \"arguments\": {}}, {\"nam\": 1}]";
    let expected = [call(0, "a", "{}").to_vec(), vec![text(", {\"nam\": 1}]")]].concat();
    assert_eq!(parse(mistral(), [answer]), expected);
}

/// Wherever a call is cut, its marks are no text; and where text cannot be, there is none.
#[test]
fn a_call_that_is_cut_off_leaves_no_marks() {
    let call = "{\"name\": \"abc\", \"arguments\": {\"x\": \"é\"}}";
    let answers = [
        (hermes(), format!("<tool_call>\n{call}\n</tool_call>\n<tool_call>\n{call}\n</tool_call>")),
        (mistral(), format!("[TOOL_CALLS][{call}, {call}]")),
        (llama(), format!("<|python_tag|>{call}")),
    ];
    for (format, answer) in answers {
        for (end, _) in answer.char_indices().chain([(answer.len(), ' ')]) {
            for calls_only in [false, true] {
                let parser = ToolCallParser::new(format);
                let mut parser = if calls_only { parser.calls_only() } else { parser };
                let mut deltas = parser.push(&answer[..end]);
                deltas.extend(parser.cut_off());
                assert!(is_sound(&deltas), "{deltas:?}");
                for delta in &deltas {
                    if let ToolDelta::Text(text) = delta {
                        assert!(!calls_only, "{:?} in {}", text, &answer[..end]);
                        let marks = ["<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "name"];
                        assert!(!marks.iter().any(|mark| text.contains(mark)), "{text}");
                    }
                }
            }
        }
    }
}

/// Answers made of pieces that meet the parser's rules in all orders.
fn answers() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("<tool_call>"),
        Just("</tool_call>"),
        Just("[TOOL_CALLS]"),
        Just("<|python_tag|>"),
        Just("{\"name\": \"f\", \"arguments\": {\"a\": [1, \"é\\n\"]}}"),
        Just("{\"parameters\": {}, \"name\": \"g\"}"),
        Just("{\"name\": \"h\"}"),
        Just("{\"name\": "),
        Just("\"arguments\": {"),
        Just("\"x\": tru"),
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just(","),
        Just(" "),
        Just("\n"),
        Just("\""),
        Just("\\"),
        Just("<"),
        Just("tool_call>"),
        Just("text é🎲"),
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

/// What has the shape of deltas: indices count up, arguments stand within their call.
fn is_sound(deltas: &[ToolDelta]) -> bool {
    let (mut next, mut open) = (0, false);
    deltas.iter().all(|delta| match delta {
        ToolDelta::Text(text) => !text.is_empty() && !open,
        ToolDelta::Begin { index, name } => {
            let sound = !open && *index == next && !name.is_empty();
            open = true;
            sound
        }
        ToolDelta::Arguments { index, fragment } => open && *index == next && !fragment.is_empty(),
        ToolDelta::End { index } => {
            let sound = open && *index == next;
            open = false;
            next += 1;
            sound
        }
    }) && !open
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn chunks_do_not_matter(
        answer in answers(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        for format in [hermes(), llama(), mistral()] {
            let whole = parse(format, [answer.as_str()]);
            prop_assert!(is_sound(&whole), "{:?}", whole);
            let mut letters = [0; 4];
            let mut parser = ToolCallParser::new(format);
            let mut singly: Vec<ToolDelta> =
                answer.chars().flat_map(|c| parser.push(c.encode_utf8(&mut letters))).collect();
            singly.extend(parser.finish());
            prop_assert!(is_sound(&singly), "{:?}", singly);
            let letter = answer.char_indices().map(|(at, c)| &answer[at..at + c.len_utf8()]);
            prop_assert_eq!(&parse(format, letter), &whole);

            let boundaries: Vec<usize> =
                (0..=answer.len()).filter(|&at| answer.is_char_boundary(at)).collect();
            let mut cuts: Vec<usize> =
                cuts.iter().map(|cut| boundaries[cut.index(boundaries.len())]).collect();
            cuts.extend([0, answer.len()]);
            cuts.sort_unstable();
            let chunks = cuts.windows(2).map(|pair| &answer[pair[0]..pair[1]]);
            prop_assert_eq!(&parse(format, chunks), &whole);

            // Without a call everything is text; with calls, text is never invented.
            if !whole.iter().any(|delta| matches!(delta, ToolDelta::Begin { .. })) {
                let expected = if answer.is_empty() { vec![] } else { vec![text(&answer)] };
                prop_assert_eq!(&whole, &expected);
            }
            let mut rest = answer.as_str();
            for delta in &whole {
                let (ToolDelta::Text(part) | ToolDelta::Arguments { fragment: part, .. }) = delta
                else {
                    continue;
                };
                // A call without arguments has empty ones, which the answer does not hold.
                if part != "{}" {
                    let at = rest.find(part.as_str());
                    prop_assert!(at.is_some(), "{:?}", whole);
                    rest = &rest[at.unwrap() + part.len()..];
                }
            }
        }
    }

    #[test]
    fn any_text_passes(answer in any::<String>()) {
        for format in [hermes(), mistral()] {
            let expected = if answer.is_empty() { vec![] } else { vec![text(&answer)] };
            prop_assert_eq!(parse(format, [answer.as_str()]), expected);
        }
        let _ = parse(llama(), [answer.as_str()]);
    }
}

#[test]
fn long_answers_take_time_in_their_length() {
    let start = std::time::Instant::now();
    for piece in ["<tool_call>{\"x\": \"", "<tool_call>", " ", "[TOOL_CALLS][{", "{\"a\":", "<"] {
        for format in [hermes(), llama(), mistral()] {
            let answer = piece.repeat(400_000 / piece.len());
            assert_eq!(parse(format, [answer.as_str()]), [text(&answer)]);
        }
    }
    for piece in [" ", "<", ", ", "{\"name\": \"", "<tool_call>"] {
        let call = "[{\"name\": \"a\", \"arguments\": {}}";
        for (format, begin) in [(hermes(), "<tool_call>"), (mistral(), "[TOOL_CALLS]")] {
            let call = call.trim_start_matches(|c| c == '[' && format.name() == "hermes");
            let answer = format!("{begin}{call}{}", piece.repeat(400_000 / piece.len()));
            assert!(parse(format, [answer.as_str()]).len() >= 3);
        }
    }
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn formats_are_known_by_their_templates() {
    for (source, name) in [
        ("{{ '[TOOL_CALLS] [' }}", "mistral"),
        ("<tools> ... <tool_call>", "hermes"),
        ("{{- \"Environment: ipython\\n\" }}", "llama3"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "hermes"),
    ] {
        assert_eq!(ToolFormat::from_template(source).name(), name);
    }
    assert_eq!(ToolFormat::of(&smollm2()).name(), "hermes");
}

fn tools() -> Vec<Tool> {
    let weather = json!({"type": "object", "properties": {
        "city": {"type": "string", "maxLength": 12}, "days": {"type": "integer", "minimum": 1,
        "maximum": 9}}, "required": ["city", "days"], "additionalProperties": false});
    let mut now = Tool::new("now", "The time", Value::Null);
    now.function.parameters = None;
    vec![Tool::new("we\"ather", "The weather", weather), now]
}

/// The calls of complete deltas: name and arguments.
fn calls(deltas: &[ToolDelta]) -> Vec<(String, Value)> {
    deltas
        .chunks(3)
        .map(|call| match call {
            [
                ToolDelta::Begin { name, .. },
                ToolDelta::Arguments { fragment, .. },
                ToolDelta::End { .. },
            ] => (name.clone(), serde_json::from_str(fragment).unwrap()),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_required_call_is_made_with_arguments_of_its_schema() {
    let mut loaded: Vec<_> = tokenizers().into_iter().map(|(_, _, tokenizer)| tokenizer).collect();
    loaded.push(smollm2());
    for tokenizer in &loaded {
        let compiler = compiler(tokenizer);
        for format in [hermes(), llama(), mistral()] {
            for (choice, parallel) in [
                (ToolChoice::Required, false),
                (ToolChoice::Required, true),
                (ToolChoice::Named("we\"ather".into()), false),
                (ToolChoice::Named("now".into()), false),
                (ToolChoice::Named("now".into()), true),
            ] {
                // A tool that is named is called once, whatever else is allowed.
                let one = !parallel || matches!(choice, ToolChoice::Named(_));
                let spec = format.grammar(&tools(), &choice, parallel).unwrap();
                let grammar = compiler.compile(&spec).unwrap();
                let mut ended = 0;
                for seed in 0..12 {
                    let (ids, end) = walk(tokenizer.eos(), &mut grammar.matcher(), seed, 400);
                    if !end {
                        continue;
                    }
                    ended += 1;
                    let answer = tokenizer.decode(&ids, false);
                    let calls = calls(&parse(format, [answer.as_str()]));
                    assert!(if one { calls.len() == 1 } else { !calls.is_empty() }, "{answer}");
                    for (name, arguments) in calls {
                        if let ToolChoice::Named(chosen) = &choice {
                            assert_eq!(name, *chosen);
                        }
                        match name.as_str() {
                            "now" => assert_eq!(arguments, json!({})),
                            "we\"ather" => {
                                assert!(arguments["city"].as_str().unwrap().chars().count() <= 12);
                                assert!((1..=9).contains(&arguments["days"].as_i64().unwrap()));
                            }
                            other => panic!("{other}"),
                        }
                    }
                }
                assert!(ended > 0, "{} {choice:?} {parallel}", format.name());
            }
        }
    }
}

/// What stands before a call.
fn mark(format: ToolFormat) -> &'static str {
    match format.name() {
        "hermes" => "<tool_call>",
        "llama3" => "<|python_tag|>",
        _ => "[TOOL_CALLS]",
    }
}

/// Walks along an answer that someone else wrote: where the walk is then, if it got there.
fn follow(grammar: &Grammar, tokenizer: &Tokenizer, answer: &str) -> Option<GrammarMatcher> {
    let options = EncodeOptions { add_special: false, parse_special: true };
    let mut matcher = grammar.matcher();
    for id in tokenizer.encode(answer, options).unwrap() {
        matcher.accept(id).ok()?;
    }
    Some(matcher)
}

/// Whether an answer may be this, from beginning to end.
fn admits(grammar: &Grammar, tokenizer: &Tokenizer, answer: &str) -> bool {
    follow(grammar, tokenizer, answer).is_some_and(|mut walk| {
        let allowed = walk.allowed().unwrap();
        tokenizer.eos().iter().all(|&end| is_allowed(allowed, end))
    })
}

#[test]
fn an_automatic_choice_leaves_text_alone_and_calls_their_schemas() {
    let (plain, special) = (smollm2(), with_special_mark());
    let of_special = vec![ToolFormat::of(&special)];
    for (tokenizer, formats) in [(plain, vec![hermes(), llama(), mistral()]), (special, of_special)]
    {
        let (tokenizer, compiler) = (&tokenizer, compiler(&tokenizer));
        for format in formats {
            let mark = mark(format);
            let call = |name: &str, arguments: &str| match format.name() {
                "hermes" => format!(
                    "{mark}\n{{\"name\": \"{name}\", \"arguments\": {arguments}}}\n</tool_call>"
                ),
                "llama3" => {
                    format!("{mark}{{\"name\": \"{name}\", \"parameters\": {arguments}}}")
                }
                _ => {
                    format!("{mark}[{{\"name\": \"{name}\", \"arguments\": {arguments}}}]")
                }
            };
            let good = call("we\\\"ather", "{\"city\": \"Oslo\", \"days\": 3}");
            for parallel in [true, false] {
                let spec = format.grammar(&tools(), &ToolChoice::Auto, parallel).unwrap();
                let grammar = compiler.compile(&spec).unwrap();
                let check = |answer: &str, admitted: bool| {
                    let place = format!("{} {parallel} {answer:?}", format.name());
                    assert_eq!(admits(&grammar, tokenizer, answer), admitted, "{place}");
                };
                check("", true);
                check("It is <b>sunny</b>; [1] 2 < 3, {x}.\n\n", true);
                check(&mark[..mark.len() - 1], true);
                check(&good, true);
                check(&format!("Let me look:\n<{good}"), true);
                check(&format!("{good}\nDone."), true);
                check(&format!("{good} and {}", call("now", "{}")), parallel);
                check(mark, false);
                check(&format!("{mark}text"), false);
                check(&call("news", "{}"), false);
                check(&call("now", "{\"x\": 1}"), false);
                check(&call("we\\\"ather", "{\"city\": 7, \"days\": 3}"), false);
                check(&call("we\\\"ather", "{\"city\": \"Oslo\"}"), false);
                check(&format!("Well, {}", call("now", "[]")), false);
                check("{\"name\": \"now\", \"parameters\": {}}", true);
                check("\n {\"an\": \"object\"}", format.name() != "llama3");
            }
        }
    }
}

#[test]
fn what_follows_a_mark_is_a_call_of_its_schema() {
    let tokenizer = smollm2();
    let compiler = compiler(&tokenizer);
    for format in [hermes(), llama(), mistral()] {
        let spec = format.grammar(&tools(), &ToolChoice::Auto, true).unwrap();
        let grammar = compiler.compile(&spec).unwrap();
        let mut found = 0;
        for seed in 0..24 {
            let before = format!("Let me look. {}", mark(format));
            let mut matcher = follow(&grammar, &tokenizer, &before).unwrap();
            let (ids, _) = walk(tokenizer.eos(), &mut matcher, seed, 120);
            let deltas = parse(format, [before.as_str(), &tokenizer.decode(&ids, false)]);
            let begun = deltas.iter().position(|delta| !matches!(delta, ToolDelta::Text(_)));
            let Some([_, ToolDelta::Arguments { fragment, .. }, ..]) =
                begun.map(|at| &deltas[at..])
            else {
                continue;
            };
            // A walk may stop in the middle of a call.
            let Ok(arguments) = serde_json::from_str::<Value>(fragment) else { continue };
            assert!(
                arguments == json!({}) || (1..=9).contains(&arguments["days"].as_i64().unwrap())
            );
            found += 1;
        }
        assert!(found > 4, "{} of {}", found, format.name());
    }
}

/// A vocabulary in which the mark of a call is a special token.
fn with_special_mark() -> Tokenizer {
    let mut vocabulary = byte_level_vocabulary("smollm");
    let template = "{{ tools }}<tool_call>".to_owned();
    vocabulary.chat_template = Some(template);
    let special = vocabulary.tokens.iter().position(|token| token == "<|im_start|>").unwrap();
    vocabulary.tokens[special] = "<tool_call>".to_owned();
    built(vocabulary)
}

#[test]
fn marks_that_are_special_tokens_are_used_and_shown() {
    let tokenizer = with_special_mark();
    let special = tokenizer.token_id("<tool_call>").unwrap();
    let format = ToolFormat::of(&tokenizer);
    assert_eq!(format.special_tokens(), [special]);

    let spec = format.grammar(&tools(), &ToolChoice::Named("now".into()), false).unwrap();
    let grammar = compiler(&tokenizer).compile(&spec).unwrap();
    let (ids, ended) = walk(tokenizer.eos(), &mut grammar.matcher(), 1, 200);
    assert!(ended && ids[0] == special);
    let mut decoder = StreamDecoder::new(&tokenizer).showing(format.special_tokens());
    let mut chunks: Vec<String> = ids.iter().map(|&id| decoder.push(id)).collect();
    chunks.push(decoder.finish());
    assert_eq!(parse(format, chunks.iter().map(String::as_str)), call(0, "now", "{}"));
}

#[test]
fn tools_that_cannot_be_called_are_refused() {
    let refused = |tools: &[Tool], choice: ToolChoice, part: &str| {
        let error = hermes().grammar(tools, &choice, true).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(&[], ToolChoice::Required, "no tools to call");
    refused(
        &tools(),
        ToolChoice::Named("news".into()),
        "expected one of [\"we\\\"ather\", \"now\"]",
    );
    let bad = |schema| [Tool::new("bad", "", schema)];
    refused(&bad(json!({"type": "array"})), ToolChoice::Required, "parameters of \"bad\"");
    refused(&bad(json!([])), ToolChoice::Required, "expected an object");
    refused(&bad(json!({"maxProperties": 1e12})), ToolChoice::Required, "maxProperties");
    refused(&bad(json!({"not": {}})), ToolChoice::Required, "no text satisfies it");
    let contains = json!({"properties": {"a": {"contains": {"type": "null"}}}});
    refused(&bad(contains), ToolChoice::Required, "unsupported keyword \"contains\"");
}
