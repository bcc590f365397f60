//! What is said about models that cannot be used, and about those that can.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::fs;
use std::path::Path;

use common::{folder, run, tiny_checkpoint};

#[test]
fn a_model_that_does_not_exist_is_explained() {
    for command in [&["run", "--prompt", "Hi"][..], &["inspect"], &["eval"]] {
        let finished = run(&[command, &["./no-such-model"]].concat());
        let message = finished.refusal();
        assert!(message.contains("no-such-model") && message.contains(".gguf"), "{message}");
    }
    assert_eq!(run(&["eval"]).code, Some(2));
    let format = run(&["eval", "smollm2@int5"]);
    assert_eq!(format.code, Some(2));
    assert!(format.stderr.contains("int5"), "{}", format.stderr);
}

#[test]
fn a_folder_without_a_tokenizer_can_be_inspected_but_not_run() {
    let model = tiny_checkpoint();
    let model = model.to_str().unwrap();
    let refused = run(&["run", model, "--prompt", "Hi"]);
    assert!(refused.refusal().contains("tokenizer.json"), "{}", refused.stderr);

    let inspected = run(&["inspect", model, "--json", "--context", "32", "--batch", "4"]);
    assert_eq!(inspected.code, Some(0), "{}", inspected.stderr);
    let report = inspected.json();
    assert_eq!(report["architecture"]["model_type"], "llama");
    assert_eq!((&report["context"], &report["batch"]), (&32.into(), &4.into()));
    assert_eq!(report["memory"]["max_context"], 32);
    let (memory, tensors) = (&report["memory"], report["tensors"].as_array().unwrap());
    let bytes = |key: &str| memory[key].as_u64().unwrap();
    let parts = ["weights_bytes", "kv_bytes", "workspace_bytes", "rope_bytes"];
    assert_eq!(parts.map(bytes).iter().sum::<u64>(), bytes("total_bytes"));
    let elements: u64 = tensors
        .iter()
        .map(|t| {
            t["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product::<u64>()
        })
        .sum();
    assert_eq!(report["parameters"], elements);
    let scheme = |name: &str| &tensors.iter().find(|t| t["name"] == name).unwrap()["scheme"];
    assert_eq!(scheme("model.layers.0.self_attn.q_proj.weight"), "bf16");
    assert_eq!(scheme("model.norm.weight"), "f32");
}

#[test]
fn the_default_model_is_shown_in_words() {
    let finished = run(&["inspect", "smollm2", "--dtype", "int4", "--context", "2048"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    for part in
        ["134.5 M parameters", "H 9 heads, G 3", "576 × 1536", "int4-g64", "KV cache", "total"]
    {
        assert!(finished.stdout.contains(part), "no {part} in {}", finished.stdout);
    }
    let context = run(&["inspect", "smollm2", "--context", "10000"]);
    assert!(context.refusal().contains("use 1 to 8192"), "{}", context.stderr);
}

/// Copies the tiny checkpoint and changes one of its files.
fn damaged(name: &str, file: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) -> String {
    let copy = folder(name);
    for entry in fs::read_dir(tiny_checkpoint()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    let path = copy.join(file);
    fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
    copy.to_str().unwrap().to_owned()
}

#[test]
fn damaged_files_are_named_in_one_line() {
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() / 2].to_vec();
    let truncated = damaged("truncated", "model.safetensors", cut);
    let message = run(&["inspect", &truncated]);
    assert!(message.refusal().contains("model.safetensors"), "{}", message.stderr);

    let header = damaged("header", "model.safetensors", |mut bytes| {
        bytes[..8].fill(0xff);
        bytes
    });
    assert!(run(&["inspect", &header]).refusal().contains("model.safetensors"));

    let config = damaged("config", "config.json", cut);
    assert!(run(&["inspect", &config]).refusal().contains("config.json"));

    let unknown = damaged("unknown", "config.json", |bytes| {
        String::from_utf8(bytes).unwrap().replace("\"llama\"", "\"lama\"").into_bytes()
    });
    let message = run(&["inspect", &unknown]);
    assert!(message.refusal().contains("lama"), "{}", message.stderr);

    let gguf = folder("gguf").join("model.gguf");
    fs::write(&gguf, b"GGUF").unwrap();
    assert!(
        run(&["run", gguf.to_str().unwrap(), "--prompt", "Hi"]).refusal().contains("model.gguf")
    );

    let empty = folder("empty");
    let message = run(&["inspect", empty.to_str().unwrap()]);
    assert!(message.refusal().contains("no model weights"), "{}", message.stderr);
}

#[test]
fn what_loading_would_refuse_is_not_inspected() {
    // A tensor of another name, written over in the header: one is missing and one too many.
    let renamed = damaged("renamed", "model.safetensors", |mut bytes| {
        let old = b"model.norm.weight";
        let at = bytes.windows(old.len()).position(|part| part == old).unwrap();
        bytes[at..at + old.len()].copy_from_slice(b"model.norm.tweigh");
        bytes
    });
    let message = run(&["inspect", &renamed]);
    assert!(message.refusal().contains("no tensor `model.norm.weight`"), "{}", message.stderr);
}

#[test]
fn control_characters_of_files_are_escaped() {
    let evil = damaged("evil", "model.safetensors", |mut bytes| {
        let old = b"model.norm.weight";
        let at = bytes.windows(old.len()).position(|part| part == old).unwrap();
        // Escaped in JSON, as a writer would have to.
        bytes[at..at + old.len()].copy_from_slice(b"m\\u001b[31m.weigh");
        bytes
    });
    let finished = run(&["inspect", &evil]);
    assert!(finished.refusal().contains("m\\u{1b}[31m"), "{}", finished.stderr);
}

#[test]
fn names_with_line_breaks_do_not_break_the_line() {
    let strange = folder("strange\nname");
    assert!(Path::new(&strange).exists());
    run(&["inspect", strange.to_str().unwrap()]).refusal();
}
