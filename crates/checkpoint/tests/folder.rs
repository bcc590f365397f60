//! Hugging Face folders: what a sound one gives, and what is said of a broken one.

mod support;

use std::collections::HashMap;
use std::path::Path;

use bantam_checkpoint::{Checkpoint, Format};
use bantam_numerics::{DType, Encoding};
use bantam_text::TokenizerSource;
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView as ReferenceView};
use safetensors::{SafeTensors, serialize};
use support::{Folder, refusal, safetensors as file};

/// A folder with a configuration and one safetensors file.
fn folder_with(weights: &[u8]) -> Folder {
    let folder = Folder::new();
    folder.write("config.json", r#"{"model_type": "llama"}"#);
    folder.write("model.safetensors", weights);
    folder
}

/// Two tensors, `a` f32 [2, 2] and `b` u8 [3], as the reference implementation writes them.
fn two_tensors() -> Vec<u8> {
    let floats: Vec<u8> = [1f32, 2.0, 3.0, 4.0].into_iter().flat_map(f32::to_le_bytes).collect();
    let tensors = HashMap::from([
        ("a", ReferenceView::new(Dtype::F32, vec![2, 2], &floats).expect("16 bytes")),
        ("b", ReferenceView::new(Dtype::U8, vec![3], &[5, 6, 7]).expect("3 bytes")),
    ]);
    serialize(tensors, None).expect("sound tensors")
}

#[test]
fn what_the_reference_writes_is_read() {
    let folder = folder_with(&two_tensors());
    let checkpoint = folder.open().expect("a sound folder");
    assert_eq!(checkpoint.format(), Format::Safetensors);
    assert_eq!(checkpoint.path(), folder.path());
    assert_eq!(checkpoint.config()["model_type"], "llama");
    let a = checkpoint.tensor("a").expect("written");
    assert_eq!((a.shape, a.encoding), (&[2, 2][..], Encoding::Scalar(DType::F32)));
    let mut row = [0.0; 2];
    a.read_rows(1..2, &mut row).expect("row 1 of 2");
    assert_eq!(row, [3.0, 4.0]);
    assert_eq!(
        checkpoint.tensor("b").expect("written").to_f32().expect("one row"),
        [5.0, 6.0, 7.0]
    );
    assert_eq!((checkpoint.parameters(), checkpoint.total_bytes()), (7, 19));
}

#[test]
fn every_dtype_of_the_format_has_its_name() {
    let dtypes = [
        ("F64", DType::F64),
        ("F32", DType::F32),
        ("F16", DType::F16),
        ("BF16", DType::BF16),
        ("F8_E4M3", DType::F8E4M3),
        ("F8_E5M2", DType::F8E5M2),
        ("I64", DType::I64),
        ("I32", DType::I32),
        ("I16", DType::I16),
        ("I8", DType::I8),
        ("U8", DType::U8),
        ("BOOL", DType::Bool),
    ];
    for (name, dtype) in dtypes {
        let size = dtype.bytes();
        let header =
            format!(r#"{{"t":{{"dtype":"{name}","shape":[],"data_offsets":[0,{size}]}}}}"#);
        let checkpoint = folder_with(&file(&header, &vec![0; size])).open().expect(name);
        let tensor = checkpoint.tensor("t").expect("written");
        assert_eq!(tensor.encoding, Encoding::Scalar(dtype));
        assert_eq!(tensor.to_f32().expect("one scalar"), [0.0]);
    }
}

#[test]
fn broken_files_are_explained() {
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
    };
    let one = |dtype, shape, offsets| format!(r#"{{"t":{}}}"#, tensor(dtype, shape, offsets));
    let two = |first: &str, second: &str| format!("{{{first},{second}}}");
    let named = |name: &str, offsets| format!(r#""{name}":{}"#, tensor("U8", "[4]", offsets));
    let huge = "[4611686018427387904,4611686018427387904]";
    let cases: [(String, usize, &str); 12] = [
        ("[]".into(), 0, "an object of tensors"),
        ("{".into(), 0, "safetensors header"),
        (r#"{"t":{"dtype":"U8"}}"#.into(), 0, "`t`: missing field"),
        (
            one("F4", "[2]", "[0,1]"),
            1,
            "tensor `t`: dtype F4 is not supported; store it as one of F64",
        ),
        (
            one("U8", "[4]", "[0,3]"),
            3,
            "takes 4 bytes, but its data_offsets are [0, 3]; write the file again",
        ),
        (one("U8", "[1]", "[1,0]"), 1, "takes 1 byte,"),
        (one("U8", huge, "[0,0]"), 0, "overflows the number of elements"),
        (one("U8", "[4]", "[0,4]"), 3, "truncated: tensor `t`"),
        (one("U8", "[4]", "[0,4]"), 5, "1 byte after the last tensor"),
        (two(&named("a", "[0,4]"), &named("b", "[2,6]")), 6, "tensor `b`: starts at data byte 2"),
        (
            two(&named("a", "[0,4]"), &named("b", "[5,9]")),
            9,
            "leaves a hole after the tensor before, which ends at 4; write the file again",
        ),
        (two(&named("a", "[0,4]"), &named("a", "[4,8]")), 8, "tensor `a`: described twice"),
    ];
    for (header, data, expected) in cases {
        let message = folder_with(&file(&header, &vec![0; data])).refusal();
        assert!(message.contains(expected), "expected {expected:?} in {message:?}");
        assert!(message.contains("model.safetensors"), "{message}");
    }
}

#[test]
fn header_lengths_are_held_against_the_file() {
    for (bytes, expected) in [
        (vec![1, 2, 3], "the header length needs 8 bytes, the file has 3"),
        (1000u64.to_le_bytes().to_vec(), "the safetensors header needs 1008 bytes, the file has 8"),
        (u64::MAX.to_le_bytes().to_vec(), "not a safetensors file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n".to_vec(),
            "a Git LFS pointer in place of the file itself; run `git lfs pull`",
        ),
    ] {
        let message = folder_with(&bytes).refusal();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn names_cannot_command_a_terminal() {
    let header = r#"{"x\n\u001b[31mevil":{"dtype":"U8","shape":[4],"data_offsets":[0,3]}}"#;
    let message = folder_with(&file(header, &[0; 3])).refusal();
    assert!(message.contains(r"tensor `x\n\u{1b}[31mevil`: U8"), "{message}");
    let header = r#"{"x\u0007":{"dtype":"U8\u001b","shape":[4],"data_offsets":[0,4]}}"#;
    let message = folder_with(&file(header, &[0; 4])).refusal();
    assert!(message.contains(r"tensor `x\u{7}`: dtype U8\u{1b} is not"), "{message}");
    let header = r#"{"x\u001b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
    let checkpoint = folder_with(&file(header, &[0; 4])).open().expect("a sound file");
    let message = checkpoint.tensor("y\r").expect_err("not there").to_string();
    assert!(message.contains(r"no tensor `y\r`; nearest: x\u{1b}"), "{message}");
}

/// A folder with two shards of one tensor each and an index.
fn sharded(index: &str) -> Folder {
    let folder = Folder::new();
    folder.write("config.json", "{}");
    for (name, tensor) in [("one.safetensors", "a"), ("two.safetensors", "b")] {
        let header = format!(r#"{{"{tensor}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}}"#);
        folder.write(name, file(&header, &[7]));
    }
    folder.write("model.safetensors.index.json", index);
    folder
}

#[test]
fn shards_are_read_by_their_index() {
    let folder =
        sharded(r#"{"metadata":{},"weight_map":{"a":"one.safetensors","b":"two.safetensors"}}"#);
    let checkpoint = folder.open().expect("both shards are there");
    let b = checkpoint.tensor("b").expect("in the second shard");
    assert_eq!(b.file(), folder.path().join("two.safetensors"));
    assert_eq!(b.read_stored().expect("one byte"), [7]);
    assert_eq!(checkpoint.tensors().count(), 2);
}

#[test]
fn a_wrong_index_is_explained() {
    let cases = [
        (r#"{"weight_map":{"a":"gone.safetensors"}}"#, "gone.safetensors, which is missing"),
        (r#"{"weight_map":{"a":"../one.safetensors"}}"#, "not a file name in the same folder"),
        (r#"{"weight_map":{"a":"/etc/passwd"}}"#, "not a file name in the same folder"),
        ("{}", "missing field `weight_map`"),
        ("nonsense", "not the JSON expected"),
    ];
    for (index, expected) in cases {
        let message = sharded(index).refusal();
        assert!(message.contains(expected), "expected {expected:?} in {message:?}");
    }
}

#[test]
fn a_tensor_that_only_the_index_has_is_missed_when_it_is_needed() {
    let folder = sharded(
        r#"{"weight_map":{"a":"one.safetensors","b":"two.safetensors","c":"one.safetensors"}}"#,
    );
    let checkpoint = folder.open().expect("nobody needs c yet");
    assert_eq!(checkpoint.tensors().count(), 2);
    let message = checkpoint.tensor("c").expect_err("in no shard").to_string();
    assert!(message.contains("one.safetensors: tensor `c`: not in this file"), "{message}");
    assert!(message.contains("where the index has it; fetch both again"), "{message}");

    // The index may err in where a tensor is.
    let swapped = sharded(r#"{"weight_map":{"a":"two.safetensors","b":"one.safetensors"}}"#);
    let checkpoint = swapped.open().expect("both are somewhere");
    assert_eq!(checkpoint.tensor("a").expect("in the first").to_f32().expect("read"), [7.0]);
}

#[test]
fn names_of_base_classes_and_wrappers_are_put_right() {
    let tensor = |name: &str, at: usize| {
        format!(r#""{name}":{{"dtype":"U8","shape":[1],"data_offsets":[{at},{}]}}"#, at + 1)
    };
    let cases = [
        (["embed_tokens.weight", "layers.0.mlp.up_proj.weight"], "norm.weight", "lm_head.weight"),
        (
            [
                "language_model.model.embed_tokens.weight",
                "language_model.model.layers.0.mlp.up_proj.weight",
            ],
            "language_model.model.norm.weight",
            "language_model.lm_head.weight",
        ),
        (
            [
                "model.language_model.embed_tokens.weight",
                "model.language_model.layers.0.mlp.up_proj.weight",
            ],
            "model.language_model.norm.weight",
            "lm_head.weight",
        ),
        (
            ["module.model.embed_tokens.weight", "module.model.layers.0.mlp.up_proj.weight"],
            "module.model.norm.weight",
            "module.lm_head.weight",
        ),
        (
            ["_orig_mod.model.embed_tokens.weight", "_orig_mod.model.layers.0.mlp.up_proj.weight"],
            "_orig_mod.model.norm.weight",
            "_orig_mod.lm_head.weight",
        ),
        (
            ["transformer.embed_tokens.weight", "transformer.layers.0.mlp.up_proj.weight"],
            "transformer.norm.weight",
            "lm_head.weight",
        ),
    ];
    for ([embedding, up], norm, head) in cases {
        let names = [embedding, up, norm, head, "vision_tower.layers.0.weight"];
        let entries: Vec<_> = names.iter().enumerate().map(|(i, name)| tensor(name, i)).collect();
        let weights = file(&format!("{{{}}}", entries.join(",")), &[0, 1, 2, 3, 4]);
        let checkpoint = folder_with(&weights).open().expect("a sound folder");
        let expected = [
            ("model.embed_tokens.weight", 0u8),
            ("model.layers.0.mlp.up_proj.weight", 1),
            ("model.norm.weight", 2),
            ("lm_head.weight", 3),
            ("vision_tower.layers.0.weight", 4),
        ];
        for (name, value) in expected {
            let found = checkpoint.tensor(name).unwrap_or_else(|e| panic!("{embedding}: {e}"));
            assert_eq!(found.to_f32().expect("read"), [f32::from(value)], "{embedding}: {name}");
        }
        assert_eq!(checkpoint.notes().len(), 1, "{embedding} is worth a word");
    }
}

#[test]
fn numbers_that_only_python_writes_are_read() {
    let folder = folder_with(&two_tensors());
    folder
        .write("config.json", r#"{"model_type": "llama", "a": NaN, "b": [-Infinity], "c": "NaN"}"#);
    let checkpoint = folder.open().expect("json.load reads it too");
    assert_eq!(
        (&checkpoint.config()["a"]["__float__"], &checkpoint.config()["c"]),
        (&"NaN".into(), &"NaN".into())
    );
    let out = Folder::new();
    bantam_checkpoint::write::write_companions(&checkpoint, out.path(), None).expect("a folder");
    let written = std::fs::read_to_string(out.path().join("config.json")).expect("written");
    assert!(written.contains("\"a\": NaN") && written.contains("-Infinity"), "{written}");
    assert!(written.contains("\"c\": \"NaN\""), "{written}");
}

#[test]
fn what_holds_no_model_is_called_by_its_name() {
    let lora = r#"{"peft_type": "LORA", "base_model_name_or_path": "x/y"}"#;
    /// Files with their content, and words of the refusal.
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
    let cases: [Case<'_>; 11] = [
        (
            &[("adapter_config.json", lora), ("adapter_model.safetensors", "x")],
            &["an adapter (LORA) for x/y", "merge_and_unload()"],
        ),
        (&[("adapter_config.json", lora), ("config.json", "{}")], &["an adapter (LORA) for x/y"]),
        (&[("adapter_config.json", "{")], &["an adapter (PEFT) for another model"]),
        (
            &[("pytorch_model.bin", "x"), ("config.json", "{}")],
            &["PyTorch weights", "from_pretrained('/", "save_pretrained('/"],
        ),
        (&[("model.pt", "x")], &["PyTorch weights"]),
        (&[("consolidated.00.pth", "x"), ("params.json", "{}")], &["form of Meta", "params.json"]),
        (&[("model_index.json", "{}")], &["a diffusers pipeline"]),
        (&[("modules.json", "[]"), ("pytorch_model.bin", "x")], &["sentence-transformers"]),
        (&[("model.onnx", "x")], &["an ONNX export"]),
        (&[("config.json", "{}"), ("tokenizer.json", "{}")], &["without its weights"]),
        (&[("rank0.engine", "x")], &["TensorRT-LLM engine"]),
    ];
    for (files, words) in cases {
        let folder = Folder::new();
        for (name, content) in files {
            folder.write(name, content);
        }
        let message = folder.refusal();
        for word in words {
            assert!(message.contains(word), "{files:?}: {word:?} not in {message:?}");
        }
    }
    let folder = folder_with(&two_tensors());
    let files: [(&str, &[u8], &str); 6] = [
        ("config.json", b"{}", "one file of a model; pass the folder that holds it (/"),
        ("tokenizer.json", b"{}", "one file of a model"),
        ("model.safetensors.index.json", b"{}", "one file of a model"),
        ("pytorch_model.bin", b"PK", "PyTorch weights"),
        ("ggml-model.bin", b"tjgg....", "before GGUF"),
        ("model.zip", b"PK", "an archive"),
    ];
    for (name, content, words) in files {
        let message = refusal(&folder.write(name, content));
        assert!(message.contains(words), "{name}: {message}");
    }
}

#[test]
fn one_tensor_in_two_shards_is_refused() {
    let folder = sharded(r#"{"weight_map":{"a":"one.safetensors","b":"two.safetensors"}}"#);
    std::fs::copy(folder.path().join("one.safetensors"), folder.path().join("two.safetensors"))
        .expect("both exist");
    let message = folder.refusal();
    assert!(message.contains("tensor `a`: also in") && message.contains("one.safetensors"));
}

#[test]
fn incomplete_folders_are_explained() {
    let message = refusal(Path::new("/no/such/model"));
    assert!(
        message.contains("no such file or folder; pass a folder with config.json"),
        "{message}"
    );

    let folder = Folder::new();
    assert!(folder.refusal().contains("looked for model.safetensors"), "{}", folder.refusal());
    assert!(folder.refusal().contains("found nothing"), "{}", folder.refusal());

    folder.write("pytorch_model.bin", "x");
    assert!(folder.refusal().contains("PyTorch weights"), "{}", folder.refusal());

    let weights = folder.write("weights.safetensors", two_tensors());
    assert!(folder.refusal().contains("without config.json"), "{}", folder.refusal());
    assert!(refusal(&weights).contains("pass the folder that holds it"));

    folder.write("config.json", "{\"model_type\":");
    assert!(folder.refusal().contains("config.json: not the JSON expected: EOF"));
    folder.write("config.json", "[1]");
    assert!(folder.refusal().contains("an object was expected"), "{}", folder.refusal());

    folder.write("config.json", "{}");
    assert!(folder.open().is_ok());
    folder.write("more.safetensors", two_tensors());
    assert!(folder.refusal().contains("without model.safetensors.index.json"));
}

#[test]
fn optional_files_are_found() {
    let folder = folder_with(&two_tensors());
    let checkpoint = folder.open().expect("a sound folder");
    assert!(checkpoint.generation_config().is_none());
    folder.write("tokenizer.model", "x");
    let message = checkpoint.tokenizer_source().expect_err("no tokenizer.json").to_string();
    assert!(message.contains("looked for tokenizer.json, found tokenizer.model"), "{message}");

    folder.write("tokenizer.json", "{}");
    folder.write("generation_config.json", r#"{"eos_token_id": [1, 2]}"#);
    let checkpoint = folder.open().expect("a sound folder");
    let source = checkpoint.tokenizer_source().expect("tokenizer.json is there");
    assert_eq!(source, TokenizerSource::Folder(folder.path().to_path_buf()));
    let generation = checkpoint.generation_config().expect("just written");
    assert_eq!(generation["eos_token_id"][1], 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever the damage: no panic, and no more and no less accepted than by the reference.
    #[test]
    fn a_damaged_file_is_judged_as_by_the_reference(
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..5),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut bytes = two_tensors();
        let length = bytes.len();
        for (at, byte) in edits {
            bytes[at.index(length)] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(length));
        }
        compare_with_reference(&bytes);
    }

    #[test]
    fn random_headers_are_judged_as_by_the_reference(
        tensors in proptest::collection::vec(
            ("[ab]", "U8|I8|F16|F32|F7", proptest::collection::vec(0u64..4, 0..3), 0u64..9, 0u64..9),
            0..4,
        ),
        data in 0usize..12,
    ) {
        let entries: Vec<_> = tensors
            .iter()
            .map(|(name, dtype, shape, begin, end)| format!(
                r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#
            ))
            .collect();
        compare_with_reference(&file(&format!("{{{}}}", entries.join(",")), &vec![0; data]));
    }
}

/// Opens `bytes` here and with the reference implementation: both open it with the same tensors, or
/// neither does. Only what the reference passes over in silence is refused here alone.
fn compare_with_reference(bytes: &[u8]) {
    const OWN_REFUSALS: [&str; 2] = ["described twice", "is not supported"];
    let folder = folder_with(bytes);
    let reference = SafeTensors::deserialize(bytes);
    match Checkpoint::open(folder.path()) {
        Ok(checkpoint) => {
            let reference = reference.expect("opened here");
            assert_eq!(checkpoint.tensors().count(), reference.len());
            for tensor in checkpoint.tensors() {
                let expected = reference.tensor(tensor.name).expect("the same tensors");
                assert_eq!(tensor.shape, expected.shape());
                assert_eq!(tensor.read_stored().expect("as opened"), expected.data());
                tensor.to_f32().expect("sizes were checked on opening");
            }
        }
        Err(error) => {
            let error = error.to_string();
            let own = OWN_REFUSALS.iter().any(|refusal| error.contains(refusal));
            assert!(own || reference.is_err(), "the reference opens it: {error}");
        }
    }
}
