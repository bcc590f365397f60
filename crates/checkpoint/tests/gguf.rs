//! GGUF files: what a sound one gives, and what is said of a broken one.

mod support;

use bantam_checkpoint::{Checkpoint, Format, RowOrder};
use bantam_text::{TokenType, TokenizerSource, Vocabulary, VocabularyKind};
use proptest::prelude::*;
use serde_json::json;
use support::{Folder, Gguf, Tensor, Value, refusal};

fn open(gguf: &Gguf) -> Checkpoint {
    let folder = Folder::new();
    // The open file outlives the folder.
    Checkpoint::open(&folder.write("model.gguf", gguf.bytes())).expect("a sound file")
}

fn refused(gguf: &Gguf) -> String {
    let folder = Folder::new();
    refusal(&folder.write("model.gguf", gguf.bytes()))
}

/// The first element of each row.
fn first_column(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let tensor = checkpoint.tensor(name).expect("the tiny model has it");
    let values = tensor.to_f32().expect("whole rows");
    values.chunks(tensor.cols()).map(|row| row[0]).collect()
}

#[test]
fn tensors_have_their_hugging_face_names_and_shapes() {
    let checkpoint = open(&Gguf::tiny("llama"));
    assert_eq!(checkpoint.format(), Format::Gguf);
    let names: Vec<_> = checkpoint.tensors().map(|tensor| tensor.name.to_owned()).collect();
    let layer = |name: &str| format!("model.layers.0.{name}");
    assert_eq!(
        names,
        [
            "model.embed_tokens.weight".to_owned(),
            layer("input_layernorm.weight"),
            layer("mlp.down_proj.weight"),
            layer("mlp.gate_proj.weight"),
            layer("mlp.up_proj.weight"),
            layer("post_attention_layernorm.weight"),
            layer("self_attn.k_proj.weight"),
            layer("self_attn.o_proj.weight"),
            layer("self_attn.q_proj.bias"),
            layer("self_attn.q_proj.weight"),
            layer("self_attn.v_proj.weight"),
            "model.norm.weight".to_owned(),
        ]
    );
    let down = checkpoint.tensor(&layer("mlp.down_proj.weight")).expect("listed");
    assert_eq!((down.shape, down.rows(), down.cols()), (&[8, 16][..], 8, 16));
    assert_eq!(checkpoint.parameters(), 32 + 8 * 4 + 64 + 32 + 32 + 64 + 3 * 128);
    assert_eq!(checkpoint.total_bytes(), 4 * checkpoint.parameters());
}

#[test]
fn llama_projections_come_back_in_hugging_face_order() {
    let checkpoint = open(&Gguf::tiny("llama"));
    let attention = |name: &str| format!("model.layers.0.self_attn.{name}");
    // Two heads of four rows: row i of a half-head is stored at 2i, row i + 2 at 2i + 1.
    let order = [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0];
    assert_eq!(first_column(&checkpoint, &attention("q_proj.weight")), order);
    assert_eq!(first_column(&checkpoint, &attention("k_proj.weight")), order[..4]);
    assert_eq!(first_column(&checkpoint, &attention("v_proj.weight")), [0.0, 1.0, 2.0, 3.0]);
    let bias = checkpoint.tensor(&attention("q_proj.bias")).expect("the tiny model has it");
    assert_eq!(bias.to_f32().expect("one row"), order);
    assert_eq!(bias.row_order, RowOrder::RopeInterleaved { heads: 2, head_dim: 4 });
}

#[test]
fn qwen_projections_are_stored_as_they_are() {
    for architecture in ["qwen2", "qwen3"] {
        let checkpoint = open(&Gguf::tiny(architecture));
        let rows = first_column(&checkpoint, "model.layers.0.self_attn.q_proj.weight");
        assert_eq!(rows, (0..8u8).map(f32::from).collect::<Vec<_>>());
        assert_eq!(checkpoint.config()["model_type"], architecture);
    }
}

#[test]
fn the_configuration_has_the_keys_of_hugging_face() {
    let checkpoint = open(&Gguf::tiny("llama"));
    let expected = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "intermediate_size": 16,
        "max_position_embeddings": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 50_000.0,
        "rope_scaling": null,
        "bos_token_id": 0,
        "vocab_size": 4,
        "tie_word_embeddings": true,
        "attention_bias": true,
        "mlp_bias": false,
    });
    assert_eq!(*checkpoint.config(), expected);
    assert!(checkpoint.generation_config().is_none());
}

#[test]
fn an_output_tensor_unties_and_rope_scaling_is_kept() {
    let gguf = Gguf::tiny("llama")
        .with(Tensor::f32("output.weight", &[8, 4], vec![0.0; 32]))
        .with(Tensor::f32("rope_freqs.weight", &[2], [1.0, 8.0]))
        .set("llama.rope.scaling.type", Value::Text("yarn"))
        .set("llama.rope.scaling.factor", Value::F32(4.0))
        .set("llama.rope.scaling.original_context_length", Value::U32(16));
    let checkpoint = open(&gguf);
    assert_eq!(checkpoint.config()["tie_word_embeddings"], false);
    let scaling =
        json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16});
    assert_eq!(checkpoint.config()["rope_scaling"], scaling);
    assert!(checkpoint.has_tensor("lm_head.weight"));
    let factors = checkpoint.tensor("rope_freqs.weight").expect("kept under its name");
    assert_eq!(factors.to_f32().expect("one row"), [1.0, 8.0]);
}

#[test]
fn the_vocabulary_is_read() {
    let source = open(&Gguf::tiny("llama")).tokenizer_source().expect("a sound vocabulary");
    let TokenizerSource::Vocabulary(vocabulary) = source else { panic!("{source:?}") };
    assert_eq!(vocabulary.kind, VocabularyKind::Gpt2);
    assert_eq!(vocabulary.pre.as_deref(), Some("smollm"));
    assert_eq!(vocabulary.tokens, ["<s>", "a", "b", "ab"]);
    assert_eq!(vocabulary.token_types[..2], [TokenType::Control, TokenType::Normal]);
    assert_eq!(vocabulary.merges, ["a b"]);
    assert_eq!((vocabulary.bos, vocabulary.eos), (Some(0), None));
    assert!(vocabulary.add_bos && !vocabulary.add_space_prefix);
}

#[test]
fn broken_vocabularies_are_explained() {
    let cases: [(&str, Value, &str); 4] = [
        ("tokenizer.ggml.model", Value::Text("bert"), "\"bert\" (WordPiece); gpt2 and llama"),
        ("tokenizer.ggml.token_type", Value::I32s(vec![1]), "1 entries, the vocabulary 4"),
        ("tokenizer.ggml.token_type", Value::I32s(vec![1, 1, 1, 9]), "type 9"),
        ("tokenizer.ggml.eos_token_id", Value::U32(4), "is 4, the vocabulary has 4"),
    ];
    for (key, value, expected) in cases {
        let checkpoint = open(&Gguf::tiny("llama").set(key, value));
        let message = checkpoint.tokenizer_source().expect_err("broken").to_string();
        assert!(message.contains(key) && message.contains(expected), "{message}");
    }
}

#[test]
fn an_unknown_tensor_names_the_nearest() {
    let checkpoint = open(&Gguf::tiny("llama"));
    let error = checkpoint.tensor("model.layers.0.self_attn.q_porj.weight").expect_err("a typo");
    let message = error.to_string();
    assert!(message.contains("model.gguf"), "{message}");
    assert!(message.contains("nearest: model.layers.0.self_attn.q_proj.weight"), "{message}");
}

#[test]
fn broken_files_are_explained() {
    let tiny = || Gguf::tiny("llama");
    let tensor = |ggml_type, dimensions: &[u64], bytes: usize| Tensor {
        name: "blk.0.attn_q_norm.weight".to_owned(),
        dimensions: dimensions.to_vec(),
        ggml_type,
        data: vec![0; bytes],
    };
    let mut version = tiny();
    version.version = 1;
    let mut big_endian = tiny();
    big_endian.version = 3u32.swap_bytes();
    let cases = [
        (version, "version 1; versions 2 and 3"),
        (big_endian, "big-endian"),
        (Gguf::tiny("mamba"), "`mamba` is not supported; supported: llama, qwen2, qwen3"),
        (tiny().without("general.architecture"), "`general.architecture`: missing"),
        (tiny().without("llama.block_count"), "`llama.block_count`: missing"),
        (tiny().set("llama.block_count", Value::Text("x")), "is a string, expected an integer"),
        (tiny().set("llama.attention.head_count", Value::U32(0)), "llama.attention.head_count"),
        (tiny().set("llama.attention.head_count_kv", Value::U32(2)), "expected 2 heads of 4 rows"),
        (tiny().set("llama.expert_count", Value::U32(8)), "mixtures of experts"),
        (
            tiny().set("llama.expert_count", Value::U32(8)).with(Tensor::f32(
                "blk.0.ffn_gate_inp.weight",
                &[8, 8],
                vec![0.0; 64],
            )),
            "mixtures of experts",
        ),
        (tiny().set("llama.rope.scaling.type", Value::Text("su")), "none, linear and yarn"),
        (tiny().set("general.alignment", Value::U32(0)), "power of two"),
        (tiny().set("general.alignment", Value::U32(48)), "power of two"),
        (tiny().with(tensor(16, &[256], 66)), "attn_q_norm.weight`: stored as IQ2_XXS"),
        (tiny().with(tensor(0, &[1, 1, 1, 1, 1], 4)), "5 dimensions, at most 4"),
        (tiny().with(tensor(0, &[0], 0)), "dimension of 0"),
        (tiny().with(tensor(0, &[1 << 40, 1 << 40], 4)), "overflows"),
        (tiny().with(tensor(2, &[48], 36)), "rows of 48 elements are not whole q4_0 blocks of 32"),
        (tiny().with(tensor(0, &[4096], 16)), "truncated: tensor `blk.0.attn_q_norm.weight`"),
        (tiny().with(Tensor::f32("blk.0.attn_qkv.weight", &[1], [0.0])), "no such tensor is known"),
        (tiny().with(Tensor::f32("output_norm.weight", &[1], [0.0])), "described twice"),
    ];
    for (gguf, expected) in cases {
        let message = refused(&gguf);
        assert!(message.contains(expected), "expected {expected:?} in {message:?}");
    }
}

#[test]
fn files_of_other_kinds_are_refused() {
    let folder = Folder::new();
    let message = refusal(&folder.write("page.gguf", "<html>not found</html>"));
    assert!(message.contains("not a GGUF file: begins with \"<htm\""), "{message}");
    let message = refusal(&folder.write("empty.gguf", ""));
    assert!(message.contains("the file is empty"), "{message}");
    let message = refusal(&folder.write("notes.txt", "x"));
    assert!(message.contains("looked for"), "{message}");
}

#[test]
fn a_gguf_file_is_known_by_its_magic_whatever_its_name() {
    let folder = Folder::new();
    let bytes = Gguf::tiny("llama").bytes();
    for name in ["model", "model.bin", "model.safetensors"] {
        let path = folder.write(name, &bytes);
        let checkpoint = Checkpoint::open(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(checkpoint.format(), Format::Gguf, "{name}");
    }
    assert!(refusal(&folder.write("short", &bytes[..3])).contains("a file of another kind"));
}

#[test]
fn misaligned_and_overlapping_tensors_are_refused() {
    let gguf = Gguf::tiny("llama");
    let (header, data) = gguf.header_and_data();
    // The offset is the last field of a description: the one of ffn_down ends the header's list.
    let name = b"blk.0.ffn_down.weight";
    let at = header.windows(name.len()).position(|window| window == name).expect("written");
    let offset_at = at + name.len() + 4 + 2 * 8 + 4;
    for (offset, expected) in [(1u64, "not a multiple of the alignment 32"), (0, "overlaps")] {
        let mut header = header.clone();
        header[offset_at..offset_at + 8].copy_from_slice(&offset.to_le_bytes());
        let folder = Folder::new();
        let message = refusal(&folder.write("model.gguf", [&header[..], &data].concat()));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    let folder = Folder::new();
    let bytes = Gguf::tiny("llama").bytes();
    // The last tensor ends at the end of the file, so that no cut is harmless.
    for length in 0..bytes.len() {
        let path = folder.write("model.gguf", &bytes[..length]);
        assert!(Checkpoint::open(&path).is_err(), "cut to {length} of {}", bytes.len());
    }
}

#[test]
fn split_files_are_opened_by_any_part() {
    let whole = Gguf::tiny("llama");
    let (first, second) = whole.tensors.split_at(5);
    let part = |number: u32, tensors: &[Tensor]| {
        let metadata = if number == 0 { whole.metadata.clone() } else { Vec::new() };
        Gguf { version: 3, metadata, tensors: tensors.to_vec() }
            .set("split.no", Value::U32(number))
            .set("split.count", Value::U32(2))
            .set("split.tensors.count", Value::U32(12))
    };
    let folder = Folder::new();
    let one = folder.write("m-00001-of-00002.gguf", part(0, first).bytes());
    let message = refusal(&one);
    assert!(message.contains("m-00002-of-00002.gguf is missing"), "{message}");

    let two = folder.write("m-00002-of-00002.gguf", part(1, second).bytes());
    for path in [one.as_path(), two.as_path(), folder.path()] {
        let checkpoint = Checkpoint::open(path).expect("both parts are there");
        assert_eq!(checkpoint.tensors().count(), 12);
        let down = checkpoint.tensor("model.layers.0.mlp.down_proj.weight").expect("in part 2");
        assert_eq!(down.file(), two);
        assert_eq!(down.to_f32().expect("whole rows"), [0.5; 128]);
    }

    folder.write("m-00002-of-00002.gguf", part(1, &second[1..]).bytes());
    let message = refusal(&one);
    assert!(message.contains("split.tensors.count"), "{message}");
}

#[test]
fn a_folder_of_several_models_lists_them() {
    let folder = Folder::new();
    folder.write("a.gguf", "");
    folder.write("b.gguf", "");
    let message = folder.refusal();
    assert!(message.contains("pass one of them: a.gguf, b.gguf"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_header_never_panics(
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let (mut header, data) = Gguf::tiny("llama").header_and_data();
        for (at, byte) in edits {
            let at = at.index(header.len());
            header[at] = byte;
        }
        let mut bytes = [header, data].concat();
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let folder = Folder::new();
        read_everything(&folder.write("model.gguf", bytes));
    }

    #[test]
    fn random_bytes_behind_the_magic_never_panic(
        counts in (0u64..9, 0u64..9),
        tail in proptest::collection::vec(prop_oneof![Just(0u8), 0u8..16, any::<u8>()], 0..400),
    ) {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(counts.0.to_le_bytes());
        bytes.extend(counts.1.to_le_bytes());
        bytes.extend(tail);
        let folder = Folder::new();
        read_everything(&folder.write("model.gguf", bytes));
    }
}

/// What opens must also be readable to the last byte.
fn read_everything(path: &std::path::Path) {
    if let Ok(checkpoint) = Checkpoint::open(path) {
        for tensor in checkpoint.tensors() {
            tensor.to_f32().expect("sizes were checked on opening");
        }
        let _ = checkpoint.tokenizer_source();
    }
}

/// `rope_scaling` of a file with these numbers and this type.
fn rope_scaling(kind: Option<&'static str>, numbers: &[(&str, f32)]) -> serde_json::Value {
    let mut gguf = Gguf::tiny("llama");
    if let Some(kind) = kind {
        gguf = gguf.set("llama.rope.scaling.type", Value::Text(kind));
    }
    for (key, number) in numbers {
        gguf = gguf.set(&format!("llama.rope.{key}"), Value::F32(*number));
    }
    open(&gguf).config()["rope_scaling"].clone()
}

#[test]
fn rope_scaling_says_what_llama_cpp_computes() {
    const FACTOR: (&str, f32) = ("scaling.factor", 4.0);
    let linear = json!({"rope_type": "linear", "factor": 4.0});
    // A factor without a type is linear, under either name; the newer name comes first.
    assert_eq!(rope_scaling(None, &[FACTOR]), linear);
    assert_eq!(rope_scaling(None, &[("scale_linear", 4.0)]), linear);
    assert_eq!(rope_scaling(None, &[("scale_linear", 2.0), FACTOR]), linear);
    assert_eq!(rope_scaling(Some("linear"), &[("scale_linear", 4.0)]), linear);
    for factor in [0.0, 1.0] {
        assert_eq!(rope_scaling(None, &[("scaling.factor", factor)]), json!(null));
    }
    assert_eq!(rope_scaling(Some("none"), &[FACTOR]), json!(null));
    let yarn = rope_scaling(
        Some("yarn"),
        &[FACTOR, ("scaling.yarn_beta_fast", 16.0), ("scaling.yarn_beta_slow", 2.0)],
    );
    let expected = json!({"rope_type": "yarn", "factor": 4.0, "beta_fast": 16.0, "beta_slow": 2.0});
    assert_eq!(yarn, expected);
    // GGUF's factors multiply that of the paper, which transformers' attention_factor stands for.
    let paper = 0.1 * 4f64.ln() + 1.0;
    for key in ["scaling.attn_factor", "scaling.yarn_attn_factor"] {
        let scaling = rope_scaling(Some("yarn"), &[FACTOR, (key, 0.5)]);
        assert_eq!(scaling["attention_factor"], json!(0.5 * paper));
        let scaling = rope_scaling(Some("yarn"), &[FACTOR, (key, 1.0)]);
        assert!(scaling.get("attention_factor").is_none());
    }
    let small = Gguf::tiny("llama").set("llama.rope.scaling.factor", Value::F32(0.5));
    assert!(refused(&small).contains("is 0.5, expected a number from 1"));
    let other = Gguf::tiny("llama").set("llama.rope.scaling.type", Value::Text("longrope"));
    assert!(refused(&other).contains("pass the safetensors folder"));
}

/// The vocabulary of a file, or the message why there is none.
fn vocabulary_of(gguf: &Gguf) -> Result<Vocabulary, String> {
    match open(gguf).tokenizer_source().map_err(|error| error.to_string())? {
        TokenizerSource::Vocabulary(vocabulary) => Ok(*vocabulary),
        TokenizerSource::Folder(folder) => panic!("{folder:?} is no GGUF file"),
    }
}

#[test]
fn special_ids_that_say_nothing_are_none() {
    let key = |name: &str| format!("tokenizer.ggml.{name}_token_id");
    for id in [Value::I32(-1), Value::U32(u32::MAX), Value::U32(4), Value::I32(99)] {
        for name in ["bos", "unknown", "padding", "eot", "eom"] {
            let gguf = Gguf::tiny("llama")
                .set("tokenizer.ggml.add_bos_token", Value::Bool(false))
                .set(&key("eos"), Value::U32(0))
                .set(&key(name), id.clone());
            let vocabulary = vocabulary_of(&gguf).unwrap_or_else(|error| panic!("{name}: {error}"));
            let Vocabulary { bos, unknown, padding, eot, eom, eos, .. } = vocabulary;
            let expected_bos = if name == "bos" { None } else { Some(0) };
            assert_eq!((bos, eos), (expected_bos, Some(0)), "{name}");
            assert_eq!([unknown, padding, eot, eom], [None; 4], "{name}");
        }
    }
    // No answer would end by a token that is not there.
    let gguf = Gguf::tiny("llama").set(&key("eos"), Value::U32(4));
    let error = vocabulary_of(&gguf).expect_err("no end");
    assert!(error.contains("eos_token_id") && error.contains("no other token ends"), "{error}");
    let gguf = gguf.set(&key("eot"), Value::U32(3));
    assert_eq!(vocabulary_of(&gguf).expect("another end").eot, Some(3));
    let gguf = Gguf::tiny("llama").set(&key("eos"), Value::I32(-1));
    assert_eq!(vocabulary_of(&gguf).expect("none is stated").eos, None);
}

#[test]
fn types_that_are_not_read_are_named() {
    let of = |ggml_type| {
        let data = vec![0; 4096];
        let name = "blk.0.attn_q_norm.weight".to_owned();
        refused(&Gguf::tiny("llama").with(Tensor { name, dimensions: vec![256], ggml_type, data }))
    };
    for (ggml_type, name) in [(16, "IQ2_XXS"), (19, "IQ1_S"), (21, "IQ3_S"), (31, "Q4_0_4_4")] {
        let message = of(ggml_type);
        assert!(message.contains(name) && message.contains("12 q4_k"), "{message}");
    }
    assert!(of(77).contains("GGML type 77 is not known"));
    let mut first = Gguf::tiny("llama");
    first.version = 1;
    assert!(refused(&first).contains("version 1; versions 2 and 3 are read; convert"));
    first.version = 3u32.swap_bytes();
    assert!(refused(&first).contains("big-endian"));
}
