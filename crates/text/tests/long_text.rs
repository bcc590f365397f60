//! Long texts: the ids are those of the library for the whole text, and what is too long is refused
//! before it costs anything.
#![allow(clippy::unwrap_used)]

mod fixtures;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bantam_text::{Cancel, EncodeBounds, EncodeOptions, TextError, Tokenizer};
use fixtures::{built, byte_level_vocabulary, json, read, sentencepiece_vocabulary, tokenizers};
use proptest::prelude::*;

const PARSED: EncodeOptions = EncodeOptions { add_special: true, parse_special: true };

/// What the library makes of a text that it takes whole.
fn whole(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let json = tokenizer.to_json().unwrap();
    let library = tokenizers::Tokenizer::from_bytes(json).unwrap();
    library.encode_fast(text, true).unwrap().get_ids().to_vec()
}

/// Fragments that pre-tokenizers cut differently beside each other.
const FRAGMENTS: &[&str] = &[
    "the",
    "Hello",
    " ",
    "  ",
    "\n",
    "\r\n",
    " \n ",
    "\t",
    "7",
    "123",
    "1234567",
    "中文",
    "。",
    "，",
    "é",
    "e\u{301}",
    "हिन्दी",
    "ไทย",
    "🦀",
    "<|im_end|>",
    "<tool>",
    "'s",
    "'LL",
    "!",
    "...",
    "-",
    "\u{a0}",
    "ß",
    "İ",
    "한국어",
    "_",
    "x",
    "A",
    "$",
    "`",
    " <",
    "> ",
];

fn text() -> impl Strategy<Value = String> {
    // A sentence many times, with others between: longer than a part.
    let sentence = prop::collection::vec(prop::sample::select(FRAGMENTS), 1..40);
    prop::collection::vec((sentence, 1_usize..400), 4..12).prop_map(|sentences| {
        let text = sentences.iter().map(|(words, times)| words.concat().repeat(*times));
        text.collect::<String>().chars().take(60_000).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn cutting_a_text_changes_no_id(text in text()) {
        let golden = json("golden.json");
        let rules = golden["pre_tokenizers"].as_object().unwrap().keys();
        let byte_level = rules.map(|rule| (rule.clone(), built(byte_level_vocabulary(rule))));
        let others = tokenizers().map(|(name, source, tokenizer)| (format!("{name} {source}"), tokenizer));
        for (name, tokenizer) in byte_level.chain(others) {
            let found = tokenizer.encode(&text, PARSED).unwrap();
            let expected = whole(&tokenizer, &text);
            prop_assert!(found == expected, "{name} of {} bytes", text.len());
            let bounds = EncodeBounds { max_tokens: found.len(), cancel: &Cancel::never() };
            prop_assert_eq!(tokenizer.encode_within(&text, PARSED, bounds).unwrap(), found.clone());
            let bounds = EncodeBounds { max_tokens: found.len() - 1, cancel: &Cancel::never() };
            let refused = tokenizer.encode_within(&text, PARSED, bounds);
            let is_right = matches!(refused, Err(TextError::TooManyTokens { at_least, limit })
                if at_least <= found.len() && at_least > limit);
            prop_assert!(is_right, "{name}: {refused:?}");
        }
    }
}

#[test]
fn the_other_pre_tokenizers_keep_their_ids_when_cut() {
    let path = fixtures::data("byte_level/tokenizer.json");
    let file: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let byte_level = |prefix: bool, regex: bool| {
        serde_json::json!({"type": "ByteLevel",
        "add_prefix_space": prefix, "trim_offsets": true, "use_regex": regex})
    };
    let sequence =
        |steps: serde_json::Value| serde_json::json!({"type": "Sequence", "pretokenizers": steps});
    let digits = serde_json::json!({"type": "Digits", "individual_digits": true});
    let whitespace = serde_json::json!({"type": "WhitespaceSplit"});
    let text = "The 7 words:  café\n\nnaïve 123, isn't it?\t<|im_end|> x 中文。日本 ".repeat(900);
    for pre_tokenizer in [
        byte_level(true, true),
        byte_level(false, true),
        byte_level(false, false),
        sequence(serde_json::json!([digits, byte_level(false, true)])),
        sequence(serde_json::json!([whitespace, byte_level(true, false)])),
        sequence(
            serde_json::json!([{"type": "Punctuation", "behavior": "Isolated"}, byte_level(false, true)]),
        ),
        sequence(serde_json::json!([{"type": "Split", "pattern": {"String": " "},
            "behavior": "MergedWithPrevious", "invert": false}, byte_level(false, false)])),
    ] {
        for normalizer in [
            serde_json::Value::Null,
            serde_json::json!({"type": "NFC"}),
            serde_json::json!({"type": "Prepend", "prepend": "x"}),
        ] {
            let mut file = file.clone();
            file["pre_tokenizer"] = pre_tokenizer.clone();
            file["normalizer"] = normalizer;
            let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cut");
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("tokenizer.json"), file.to_string()).unwrap();
            let tokenizer = Tokenizer::load(&bantam_text::TokenizerSource::Folder(folder)).unwrap();
            let found = tokenizer.encode(&text, PARSED).unwrap();
            assert!(found == whole(&tokenizer, &text), "{}", file["pre_tokenizer"]);
        }
    }
}

/// The texts of the trial, and others of their kind.
fn long_texts() -> [String; 6] {
    [
        "7".repeat(5_000_000),
        "a".repeat(30_000_000),
        " ".repeat(5_000_000),
        "\u{301}".repeat(2_000_000),
        "<|im_end|>".repeat(1_000_000),
        "The quick brown fox jumps over the lazy dog.\n".repeat(600_000),
    ]
}

#[test]
fn what_cannot_fit_is_refused_at_once() {
    let tokenizers = [
        read("byte_level"),
        built(byte_level_vocabulary("llama3")),
        built(byte_level_vocabulary("qwen2")),
        read("sentencepiece"),
        built(sentencepiece_vocabulary()),
    ];
    for (n, tokenizer) in tokenizers.iter().enumerate() {
        for text in long_texts() {
            let begun = Instant::now();
            let bounds = EncodeBounds { max_tokens: 8192, cancel: &Cancel::never() };
            let refused = tokenizer.encode_within(&text, PARSED, bounds);
            let is_right = matches!(refused, Err(TextError::TooManyTokens { limit: 8192, .. }));
            assert!(is_right, "{n}: {:?}: {refused:?}", text.chars().next());
            let took = begun.elapsed();
            println!(
                "tokenizer {n}: {} bytes of {:?}…: refused after {took:?}",
                text.len(),
                text.chars().next()
            );
            assert!(took < Duration::from_millis(500), "{n}: {:?}: {took:?}", text.chars().next());
        }
    }
}

#[test]
fn long_work_ends_when_nobody_waits() {
    let tokenizer = read("byte_level");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let cancel = Cancel::when(move || count.fetch_add(1, Ordering::Relaxed) >= 3);
    let text = "Some words of a text that is long. ".repeat(100_000);
    let bounds = EncodeBounds { max_tokens: usize::MAX, cancel: &cancel };
    let ended = tokenizer.encode_within(&text, PARSED, bounds);
    assert!(matches!(ended, Err(TextError::Cancelled)), "{ended:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

#[test]
fn a_word_that_could_not_be_cancelled_is_refused_with_its_size() {
    for (tokenizer, limit) in [(read("byte_level"), "262144"), (read("sentencepiece"), "2097152")] {
        let text = "a".repeat(3_000_000);
        let bounds = EncodeBounds { max_tokens: usize::MAX, cancel: &Cancel::never() };
        let error = tokenizer.encode_within(&text, PARSED, bounds).unwrap_err().to_string();
        assert!(error.contains("3000000 bytes") && error.contains(limit), "{error}");
    }
}
