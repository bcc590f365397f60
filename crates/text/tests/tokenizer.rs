//! The tokenizers of `tests/data` against what the reference libraries make of the same text.
#![allow(clippy::unwrap_used)]

mod fixtures;

use bantam_text::{
    EncodeOptions, StreamDecoder, TokenType, Tokenizer, TokenizerSource, Vocabulary,
};
use fixtures::{
    built, byte_level_vocabulary, ids, json, read, sentencepiece_vocabulary, tokenizers,
};
use proptest::prelude::*;

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
const PARSED: EncodeOptions = EncodeOptions { add_special: false, parse_special: true };

#[test]
fn ids_and_text_are_those_of_the_reference() {
    let golden = json("golden.json");
    for (name, source, tokenizer) in tokenizers() {
        let rows = golden[name].as_array().unwrap();
        assert!(rows.len() > 20);
        for row in rows {
            let input = row["input"].as_str().unwrap();
            let encode = |options| tokenizer.encode(input, options).unwrap();
            assert_eq!(encode(PARSED), ids(&row["ids"]), "{name} {source}: {input:?}");
            assert_eq!(encode(PLAIN), ids(&row["plain_ids"]), "{name} {source}: {input:?}");
            assert_eq!(tokenizer.decode(&encode(PARSED), true), row["text"], "{name} {source}");
        }
    }
}

#[test]
fn every_pre_tokenizer_cuts_as_the_reference() {
    let golden = json("golden.json");
    let corpus: Vec<&str> = golden["byte_level"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["input"].as_str().unwrap())
        .collect();
    for (pre, expected) in golden["pre_tokenizers"].as_object().unwrap() {
        let tokenizer = built(byte_level_vocabulary(pre));
        for (input, expected) in corpus.iter().zip(expected.as_array().unwrap()) {
            let found = tokenizer.encode(input, PARSED).unwrap();
            assert_eq!(found, ids(expected), "{pre}: {input:?}");
        }
    }
}

#[test]
fn tiktoken_vocabularies_take_whole_words() {
    let without_merges = |pre: &str| {
        let mut vocabulary = byte_level_vocabulary(pre);
        vocabulary.merges.clear();
        Tokenizer::load(&TokenizerSource::Vocabulary(Box::new(vocabulary)))
    };
    for pre in ["llama3", "tekken"] {
        let tokenizer = without_merges(pre).unwrap();
        let ids = tokenizer.encode("the", PLAIN).unwrap();
        assert_eq!(ids.len(), 1, "{pre}");
        assert_eq!(tokenizer.decode(&ids, true), "the");
    }
    // Others reach their longer tokens by merges only.
    let refused = without_merges("qwen2").unwrap_err().to_string();
    assert!(refused.contains("tokenizer.ggml.merges"), "{refused}");
}

#[test]
fn special_tokens_are_added_where_the_tokenizer_does_so() {
    let both = EncodeOptions { add_special: true, parse_special: true };
    for (name, source, tokenizer) in tokenizers() {
        let without = tokenizer.encode("Hello", PARSED).unwrap();
        let with = tokenizer.encode("Hello", both).unwrap();
        if name == "sentencepiece" {
            assert_eq!(with[0], 1, "{source}");
            assert_eq!(with[1..], without, "{source}");
        } else {
            assert_eq!(with, without, "{source}");
        }
    }
    let mut vocabulary = byte_level_vocabulary("smollm");
    vocabulary.add_bos = true;
    vocabulary.add_eos = true;
    let tokenizer = built(vocabulary);
    assert_eq!(tokenizer.encode("", both).unwrap(), [1, 0]);
    assert_eq!(tokenizer.encode("", PARSED).unwrap(), [0_u32; 0]);
}

#[test]
fn special_ids_and_ends_of_generation() {
    for source in [read("byte_level"), built(byte_level_vocabulary("smollm"))] {
        // The end of turn is an end of generation because the chat template writes it.
        assert_eq!((source.bos(), source.eos()), (Some(1), [0, 2].as_slice()));
        assert_eq!(source.token_id("<|im_end|>"), Some(2));
        assert!(source.is_special(2) && !source.is_special(source.token_id("<tool>").unwrap()));
        assert!(!source.is_special(u32::MAX));
    }
    // The folder's generation_config.json names id 0 as well.
    let folder = read("sentencepiece");
    assert_eq!((folder.bos(), folder.eos()), (Some(1), [2, 0].as_slice()));
    let file = built(sentencepiece_vocabulary());
    assert_eq!((file.bos(), file.eos()), (Some(1), [2].as_slice()));
    assert!(file.chat_template().is_none());
    assert!(folder.chat_template().unwrap().origin().ends_with("chat_template.jinja"));
}

#[test]
fn bytes_of_tokens() {
    let byte_level = built(byte_level_vocabulary("smollm"));
    let id = |token| byte_level.token_id(token).unwrap();
    assert_eq!(byte_level.token_bytes(id("Ġ")).unwrap(), b" ");
    assert_eq!(byte_level.token_bytes(id("Ċ")).unwrap(), b"\n");
    assert_eq!(byte_level.token_bytes(id("Ń")).unwrap(), [0xAD]);
    assert_eq!(byte_level.token_bytes(id("<|im_end|>")).unwrap(), b"<|im_end|>");
    assert_eq!(byte_level.token_bytes(byte_level.vocab_size() as u32), None);

    let sentencepiece = built(sentencepiece_vocabulary());
    let id = |token| sentencepiece.token_id(token).unwrap();
    assert_eq!(sentencepiece.token_bytes(id("<0xE4>")).unwrap(), [0xE4]);
    assert_eq!(sentencepiece.token_bytes(id("▁the")).unwrap(), b" the");
}

#[test]
fn undecodable_ids_and_bytes_become_replacement_characters() {
    let byte_level = built(byte_level_vocabulary("smollm"));
    let invalid = byte_level.token_id("ÿ").unwrap();
    let a = byte_level.token_id("a").unwrap();
    assert_eq!(byte_level.decode(&[a, u32::MAX, invalid, a], true), "a\u{FFFD}\u{FFFD}a");
    assert_eq!(byte_level.decode(&[1, a, 2], true), "a");
    assert_eq!(byte_level.decode(&[1, a, 2], false), "<|im_start|>a<|im_end|>");

    let sentencepiece = built(sentencepiece_vocabulary());
    let byte = |byte: u8| sentencepiece.token_id(&format!("<0x{byte:02X}>")).unwrap();
    let crab: Vec<u32> = "🦀".bytes().map(byte).collect();
    assert_eq!(sentencepiece.decode(&crab, true), "🦀");
    assert_eq!(sentencepiece.decode(&crab[..3], true), "\u{FFFD}");
    // One space is the tokenizer's own; more are the text's.
    assert_eq!(sentencepiece.decode(&[1, byte(b' '), byte(b' ')], true), " ");
}

/// What a stream shows of `ids`, checking that every push is whole text.
fn streamed(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let mut decoder = StreamDecoder::new(tokenizer);
    if !skip_special {
        decoder = decoder.with_special();
    }
    let mut text = String::new();
    for &id in ids {
        text += &decoder.push(id);
    }
    text + &decoder.finish()
}

#[test]
fn a_stream_waits_for_the_whole_character() {
    let tokenizer = built(sentencepiece_vocabulary());
    let byte = |byte: u8| tokenizer.token_id(&format!("<0x{byte:02X}>")).unwrap();
    let mut decoder = StreamDecoder::new(&tokenizer);
    let pushed: Vec<String> = "é🦀".bytes().map(|b| decoder.push(byte(b))).collect();
    assert_eq!(pushed, ["", "é", "", "", "", "🦀"]);
    assert_eq!(decoder.push(byte(0xF0)), "");
    assert_eq!(decoder.push(byte(b'x')), "\u{FFFD}x");
    // What no byte can complete is not waited for.
    assert_eq!(decoder.push(byte(0xFF)), "\u{FFFD}");
    assert_eq!(decoder.push(byte(0xE4)), "");
    assert_eq!(decoder.finish(), "\u{FFFD}");
}

proptest! {
    #[test]
    fn byte_level_text_survives(text in any::<String>()) {
        for tokenizer in byte_level_tokenizers() {
            for options in [PLAIN, PARSED] {
                let ids = tokenizer.encode(&text, options).unwrap();
                prop_assert_eq!(tokenizer.decode(&ids, false), text.as_str());
            }
        }
    }

    #[test]
    fn text_of_the_vocabulary_survives(
        // Pieces that look like tokens, spaces, special text and letters outside the vocabulary.
        text in "(a|the|  |\n|é|<s>|</s>|<tool>|<\\|im_end\\|>|▁|1|🦀|<0x41>){0,12}",
    ) {
        for tokenizer in byte_level_tokenizers() {
            let ids = tokenizer.encode(&text, PLAIN).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids, true), text.as_str());
            prop_assert!(ids.iter().all(|&id| !tokenizer.is_special(id)));
        }
    }

    #[test]
    fn a_stream_shows_what_decode_does(
        ids in prop::collection::vec(0_u32..905, 0..40),
        skip_special: bool,
    ) {
        for tokenizer in all_tokenizers() {
            let whole = tokenizer.decode(&ids, skip_special);
            prop_assert_eq!(streamed(tokenizer, &ids, skip_special), whole);
        }
    }

    #[test]
    fn a_stream_of_bytes_shows_what_decode_does(
        // Mostly lead and continuation bytes, with spaces and specials between.
        ids in prop::collection::vec(
            prop_oneof![Just(0_u32), Just(1), Just(3 + 0x20), 3 + 0x80..3_u32 + 0x100], 0..24),
        skip_special: bool,
    ) {
        let tokenizer = &all_tokenizers()[3];
        let whole = tokenizer.decode(&ids, skip_special);
        prop_assert_eq!(streamed(tokenizer, &ids, skip_special), whole);
    }
}

/// All four tokenizers, loaded once.
fn all_tokenizers() -> &'static [Tokenizer] {
    static ALL: std::sync::OnceLock<Vec<Tokenizer>> = std::sync::OnceLock::new();
    ALL.get_or_init(|| tokenizers().into_iter().map(|(_, _, tokenizer)| tokenizer).collect())
}

fn byte_level_tokenizers() -> &'static [Tokenizer] {
    &all_tokenizers()[..2]
}

/// Published GGUF files have ids that share their text, that have none, and that have no type.
#[test]
fn tokens_without_a_name_of_their_own_decode_and_are_no_text() {
    for vocabulary in [byte_level_vocabulary("smollm"), sentencepiece_vocabulary()] {
        let plain = built(vocabulary.clone());
        let texts = ["Hello world", "a b  c", "x1y22"];
        let ids = |tokenizer: &Tokenizer, text: &str| {
            tokenizer.encode(text, EncodeOptions::default()).unwrap()
        };
        let size = vocabulary.tokens.len();
        let used = ids(&plain, texts[0])[0];
        let mut odd = vocabulary.clone();
        for (token, token_type) in [
            (odd.tokens[used as usize].clone(), TokenType::Normal),
            (odd.tokens[0].clone(), TokenType::Control),
            (String::new(), TokenType::Normal),
            (String::new(), TokenType::Undefined),
            ("zz".to_owned(), TokenType::Undefined),
        ] {
            odd.tokens.push(token);
            odd.token_types.push(token_type);
            if !odd.scores.is_empty() {
                odd.scores.push(0.0);
            }
        }
        let odd = built(odd);
        assert_eq!(odd.vocab_size(), size + 5);
        // The last id of a text is what the text becomes; both become the text.
        let last = size as u32;
        let renamed = |id: u32| if id == used { last } else { id };
        for text in texts {
            let expected: Vec<u32> = ids(&plain, text).into_iter().map(renamed).collect();
            assert_eq!(ids(&odd, text), expected, "{text}");
            assert_eq!(odd.decode(&expected, true), plain.decode(&ids(&plain, text), true));
        }
        assert_eq!(odd.token_bytes(used), plain.token_bytes(used));
        assert_eq!(odd.token_bytes(last), plain.token_bytes(used));
        assert!(odd.is_special(0) && odd.is_special(last + 1));
        for empty in [last + 2, last + 3] {
            assert_eq!(odd.token_bytes(empty), Some(Vec::new()));
        }
        // What is written as tokenizer.json is read again as the same.
        let folder = std::env::temp_dir().join(format!("bantam-odd-{}-{size}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("tokenizer.json"), odd.to_json().unwrap()).unwrap();
        let read = Tokenizer::load(&TokenizerSource::Folder(folder.clone())).unwrap();
        for text in texts {
            assert_eq!(ids(&read, text), ids(&odd, text), "{text}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

/// Merges stand for scores that a file lacks.
#[test]
fn sentencepiece_with_merges_needs_no_scores() {
    let scored = sentencepiece_vocabulary();
    let tokenizer = built(scored.clone());
    let json: serde_json::Value = serde_json::from_str(&tokenizer.to_json().unwrap()).unwrap();
    let merge = |pair: &serde_json::Value| match pair.as_str() {
        Some(pair) => pair.to_owned(),
        None => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
    };
    let merges = json["model"]["merges"].as_array().unwrap().iter().map(merge).collect();
    let merged = built(Vocabulary { scores: Vec::new(), merges, ..scored });
    for text in ["Hello world", "the cat and the dog"] {
        let ids = |tokenizer: &Tokenizer| tokenizer.encode(text, EncodeOptions::default()).unwrap();
        assert_eq!(ids(&merged), ids(&tokenizer));
    }
}
