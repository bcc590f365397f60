//! Folders mean what `transformers` makes of them, whichever file says it.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod fixtures;

use std::path::{Path, PathBuf};

use bantam_text::{EncodeOptions, Message, RenderInput, Tokenizer, TokenizerSource, Tool};
use fixtures::{data, ids, json};
use serde_json::{Value, json};

/// Writes the folder of a case.
fn write_folder(folder: &Path, golden: &Value, case: &Value) {
    let _ = std::fs::remove_dir_all(folder); // of a run that was killed
    std::fs::create_dir_all(folder.join("additional_chat_templates")).unwrap();
    let base = case["base"].as_str().unwrap();
    let mut tokenizer = json(&format!("{base}/tokenizer.json"));
    let changes = &golden["changes"][case["changes"].as_u64().unwrap() as usize];
    tokenizer.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(folder.join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
    for (name, content) in case["files"].as_object().unwrap() {
        std::fs::write(folder.join(name), content.as_str().unwrap()).unwrap();
    }
}

/// What differs from the golden values, in words.
fn differences(tokenizer: &Tokenizer, golden: &Value, case: &Value) -> Vec<String> {
    let texts = golden["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
    let encode = |text, add_special| {
        json!(tokenizer.encode(text, EncodeOptions { add_special, parse_special: true }).unwrap())
    };
    let specials: Vec<usize> =
        (0..tokenizer.vocab_size()).filter(|&id| tokenizer.is_special(id as u32)).collect();
    let mut ends: Vec<u32> = case["eos"].as_u64().map(|id| id as u32).into_iter().collect();
    ends.extend(
        ids(&case["ends"]).into_iter().filter(|&id| (id as usize) < tokenizer.vocab_size()),
    );
    let mut seen = Vec::new();
    ends.retain(|id| {
        !seen.contains(id) && {
            seen.push(*id);
            true
        }
    });
    let tools: Vec<Tool> = serde_json::from_value(json!([
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    ]))
    .unwrap();
    let messages = [Message::new("user", "Hi")];
    let chat = |tools: &[Tool]| {
        let template = tokenizer.chat_template()?;
        let input = RenderInput { messages: &messages, tools, ..RenderInput::default() };
        Some(template.render(&input).unwrap())
    };
    let plain = if case["plain"].is_null() { &case["added"] } else { &case["plain"] };
    let mut checks = vec![
        ("bos", json!(tokenizer.bos()), case["bos"].clone()),
        ("added", texts.clone().map(|text| encode(text, true)).collect(), case["added"].clone()),
        ("plain", texts.map(|text| encode(text, false)).collect(), plain.clone()),
        ("specials", json!(specials), case["specials"].clone()),
        ("ends", json!(tokenizer.eos()), json!(ends)),
        ("chat", json!(chat(&[])), case["chat"].clone()),
    ];
    // A template that does not know tools is told of them here; transformers leaves them out.
    if case["chat_with_tools"] != case["chat"] {
        checks.push(("with tools", json!(chat(&tools)), case["chat_with_tools"].clone()));
    }
    let differ = |(what, got, expected): (&str, Value, Value)| {
        (got != expected).then(|| format!("{}: {what} {got}, expected {expected}", case["name"]))
    };
    checks.into_iter().filter_map(differ).collect()
}

#[test]
fn every_folder_is_what_transformers_makes_of_it() {
    let golden = json("side_files.json");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("side_files");
    let cases = golden["cases"].as_array().unwrap();
    let mut failures = Vec::new();
    for case in cases {
        write_folder(&folder, &golden, case);
        match Tokenizer::load(&TokenizerSource::Folder(folder.clone())) {
            Ok(tokenizer) => failures.extend(differences(&tokenizer, &golden, case)),
            Err(error) => failures.push(format!("{}: {error}", case["name"])),
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(cases.len() > 200, "{} cases", cases.len());
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_template_of_a_processor_is_the_last_resort() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("processor_template");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(data("byte_level/tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    std::fs::write(folder.join("chat_template.json"), r#"{"chat_template": "P"}"#).unwrap();
    let rendered = || {
        let tokenizer = Tokenizer::load(&TokenizerSource::Folder(folder.clone())).unwrap();
        tokenizer.chat_template().unwrap().render_messages(&[], false).unwrap()
    };
    assert_eq!(rendered(), "P");
    std::fs::write(folder.join("tokenizer_config.json"), r#"{"chat_template": "S"}"#).unwrap();
    assert_eq!(rendered(), "S");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn tokens_around_a_text_need_a_token() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("around_nothing");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(data("byte_level/tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    let settings =
        r#"{"tokenizer_class": "LlamaTokenizer", "add_bos_token": true, "bos_token": null}"#;
    std::fs::write(folder.join("tokenizer_config.json"), settings).unwrap();
    let error = Tokenizer::load(&TokenizerSource::Folder(folder.clone())).unwrap_err().to_string();
    assert!(error.contains("add_bos_token is set") && error.contains("set add_bos_token to false"));
    std::fs::remove_dir_all(&folder).unwrap();
}
