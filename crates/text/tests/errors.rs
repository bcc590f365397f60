//! Bad sources are refused with the way out.
#![allow(clippy::unwrap_used)]

mod fixtures;

use std::path::{Path, PathBuf};

use bantam_text::{
    EncodeOptions, TextError, TokenType, Tokenizer, TokenizerSource, Vocabulary, VocabularyKind,
};
use fixtures::{byte_level_vocabulary, data, sentencepiece_vocabulary};
use proptest::prelude::*;

/// A folder of its own for one test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        // Left over from a run that was killed.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.0.join(name), content).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn folder_error(path: &Path) -> String {
    Tokenizer::load(&TokenizerSource::Folder(path.to_owned())).unwrap_err().to_string()
}

fn vocabulary_error(vocabulary: Vocabulary) -> TextError {
    Tokenizer::load(&TokenizerSource::Vocabulary(Box::new(vocabulary))).unwrap_err()
}

#[test]
fn a_folder_without_a_tokenizer() {
    let folder = Folder::new("without_tokenizer");
    let shown = folder.0.display().to_string();
    let error = folder_error(&folder.0);
    assert!(error.contains(&shown) && error.contains("download tokenizer.json"), "{error}");

    folder.write("tokenizer.model", "");
    let error = folder_error(&folder.0);
    let way_out = format!("AutoTokenizer.from_pretrained({shown:?}).save_pretrained({shown:?})");
    assert!(error.contains("tokenizer.model") && error.contains(&way_out), "{error}");

    assert!(folder_error(&folder.0.join("nowhere")).contains("does not exist"));
    assert!(folder_error(&folder.0.join("tokenizer.model")).contains("not a folder"));
}

#[test]
fn files_that_do_not_say_what_they_should() {
    let folder = Folder::new("bad_files");
    folder.write("tokenizer.json", "{\"model\": 3}");
    assert!(folder_error(&folder.0).contains("tokenizer.json"));

    std::fs::copy(data("byte_level/tokenizer.json"), folder.0.join("tokenizer.json")).unwrap();
    folder.write("tokenizer_config.json", "{");
    assert!(folder_error(&folder.0).contains("tokenizer_config.json: not JSON"));
    folder.write("tokenizer_config.json", r#"{"eos_token": "<nothing>"}"#);
    let tokenizer = Tokenizer::load(&TokenizerSource::Folder(folder.0.clone())).unwrap();
    assert_eq!(tokenizer.eos(), [tokenizer.token_id("<nothing>").unwrap()], "it is added");
    folder.write("tokenizer_config.json", r#"{"chat_template": [{"name": "rag"}]}"#);
    assert!(folder_error(&folder.0).contains("chat_template is neither"));
    let two =
        r#"{"chat_template": [{"name": "rag", "template": ""}, {"name": "x", "template": ""}]}"#;
    folder.write("tokenizer_config.json", two);
    assert!(folder_error(&folder.0).contains("[\"rag\", \"x\"]"));
    folder.write("tokenizer_config.json", r#"{"chat_template": "{% if %}"}"#);
    assert!(folder_error(&folder.0).contains("does not compile"));

    // The file of its own wins over the broken one.
    folder.write("chat_template.jinja", "{{ messages | length }}");
    let tokenizer = Tokenizer::load(&TokenizerSource::Folder(folder.0.clone())).unwrap();
    assert_eq!(tokenizer.chat_template().unwrap().render_messages(&[], false).unwrap(), "0");
}

#[test]
fn ids_with_gaps_take_no_memory() {
    let folder = Folder::new("gaps");
    let token = r#"{"id": 4000000000, "content": "<far>", "special": true, "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false}"#;
    folder.write(
        "tokenizer.json",
        &format!(
            r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [{token}],
            "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {{"type": "WordLevel", "vocab": {{"<far>": 4000000000}},
            "unk_token": "<far>"}}}}"#
        ),
    );
    assert!(folder_error(&folder.0).contains("without large gaps"), "{}", folder_error(&folder.0));
}

#[test]
fn contradictory_vocabularies() {
    let invalid = |vocabulary: Vocabulary, expected: &str| {
        let error = vocabulary_error(vocabulary);
        assert!(matches!(error, TextError::InvalidVocabulary { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    let good = || byte_level_vocabulary("smollm");
    invalid(Vocabulary { tokens: Vec::new(), ..good() }, "0 tokens");
    invalid(Vocabulary { token_types: vec![TokenType::Normal], ..good() }, "1 token types");
    invalid(Vocabulary { bos: Some(5000), ..good() }, "bos_token_id is 5000");
    invalid(Vocabulary { bos: None, add_bos: true, ..good() }, "add_bos_token is set");
    invalid(Vocabulary { merges: vec!["ab".into()], ..good() }, "\"ab\"");
    invalid(Vocabulary { merges: vec!["qzx yqq".into()], ..good() }, "qzx");
    invalid(Vocabulary { scores: vec![0.0], ..sentencepiece_vocabulary() }, "1 scores");
    invalid(Vocabulary { merges: Vec::new(), ..good() }, "it has no merges");
    let scores_only = Vocabulary { scores: Vec::new(), ..sentencepiece_vocabulary() };
    invalid(scores_only, "0 scores");
    let mut stand_in = good();
    stand_in.tokens[5].clear();
    stand_in.tokens[7] = "<empty token 5>".to_owned();
    invalid(stand_in, "expected any other");
    let mut spells_nothing = sentencepiece_vocabulary();
    spells_nothing.unknown = None;
    spells_nothing.tokens[10] = "ordinary".into();
    invalid(spells_nothing, "expected 256 byte tokens");
    let mut long = sentencepiece_vocabulary();
    long.tokens[300] = "a".repeat(10_000);
    invalid(long, "token 300 has 10000 bytes");
}

#[test]
fn unknown_names_and_numbers() {
    let error = vocabulary_error(byte_level_vocabulary("klingon"));
    assert!(error.to_string().contains("smollm, starcoder"), "{error}");
    assert!(TokenType::try_from(7).is_err());
    assert_eq!(TokenType::try_from(6).unwrap(), TokenType::Byte);
}

proptest! {
    #[test]
    fn any_vocabulary_loads_or_is_refused(
        llama: bool,
        tokens in prop::collection::vec("(a|b|Ġ|▁|<0x4[1é]>|<s>| ){0,3}", 1..12),
        typed: bool,
        codes in prop::collection::vec(0_u32..=6, 12),
        scores in prop::collection::vec(any::<f32>(), 12),
        merges in prop::collection::vec("[ab]{0,2} ?[abĠ]{0,2}", 0..2),
        named in prop::collection::vec(prop::option::of(0_u32..7), 6),
        flags in any::<[bool; 3]>(),
        text in "[ab é]{0,8}(<s>)?",
    ) {
        let size = tokens.len();
        let types = codes.into_iter().take(if typed { size } else { 0 });
        let vocabulary = Vocabulary {
            kind: if llama { VocabularyKind::Llama } else { VocabularyKind::Gpt2 },
            pre: Some("gpt-2".to_owned()),
            tokens: tokens.into_iter().collect(),
            token_types: types.map(|code| TokenType::try_from(code).unwrap()).collect(),
            scores: scores.into_iter().take(size).collect(),
            merges,
            bos: named[0],
            eos: named[1],
            eot: named[2],
            eom: named[5],
            unknown: named[3],
            padding: named[4],
            add_bos: flags[0],
            add_eos: flags[1],
            add_space_prefix: flags[2],
            chat_template: None,
        };
        let source = TokenizerSource::Vocabulary(Box::new(vocabulary));
        if let Ok(tokenizer) = Tokenizer::load(&source) {
            prop_assert_eq!(tokenizer.vocab_size(), size);
            for (add_special, parse_special) in [(true, true), (false, false)] {
                let options = EncodeOptions { add_special, parse_special };
                for id in tokenizer.encode(&text, options).unwrap_or_default() {
                    prop_assert!(tokenizer.token_bytes(id).is_some());
                }
            }
        }
    }
}
