//! Bad configurations, files, options and batches: each is refused with a message that says what,
//! got, expected and the way out.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use bantam_backend::Batch;
use bantam_backend::reference::Reference;
use bantam_model::{ArchSpec, Decoder, LoadOptions, OptionNames, Precision};
use common::{Files, data, load};
use serde_json::{Value, json};

/// Asserts that a message is one line and contains all these words.
fn assert_says(message: &str, words: &[&str]) {
    assert!(!message.contains('\n'), "{message}");
    for word in words {
        assert!(message.contains(word), "no `{word}` in: {message}");
    }
}

fn config() -> Value {
    common::read_json(&data("tiny/llama-gqa/config.json"))
}

#[test]
fn configurations() {
    let yarn = |key: &str, value: Value| {
        let mut scaling = json!({"rope_type": "yarn", "factor": 4.0});
        scaling[key] = value;
        ("rope_scaling", scaling)
    };
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0,
        "high_freq_factor": 1.0, "original_max_position_embeddings": 32});
    let cases: Vec<((&str, Value), Vec<&str>)> = vec![
        (
            ("model_type", json!("mamba")),
            vec!["config.json", "`mamba`", "llama, mistral, qwen2, qwen3"],
        ),
        (
            ("model_type", Value::Null),
            vec!["config.json", "`model_type` is null", "one of llama, mistral, qwen2, qwen3"],
        ),
        (("model_type", json!(3)), vec!["`model_type` is 3", "one of llama, mistral"]),
        (
            ("hidden_size", Value::Null),
            vec!["config.json", "`hidden_size` is null", "a whole number"],
        ),
        (("rms_norm_eps", Value::Null), vec!["`rms_norm_eps` is null", "a number"]),
        (("hidden_size", json!("32")), vec!["`hidden_size` is \"32\"", "a whole number"]),
        (("hidden_size", json!(-32)), vec!["`hidden_size` is -32", "a whole number"]),
        (("hidden_size", json!(1.5)), vec!["`hidden_size` is 1.5", "a whole number"]),
        (("hidden_size", json!(1u64 << 40)), vec!["`hidden_size`", "1 to 1048576"]),
        (("hidden_size", json!(0)), vec!["`hidden_size` is 0", "1 to"]),
        (("num_attention_heads", json!(0)), vec!["`num_attention_heads` is 0", "1 to"]),
        (("num_attention_heads", json!(u64::MAX)), vec!["`num_attention_heads`"]),
        (("num_key_value_heads", json!(0)), vec!["`num_key_value_heads` is 0", "1 to"]),
        (("num_key_value_heads", json!(3)), vec!["is 3", "divisor of `num_attention_heads`, 4"]),
        (("num_hidden_layers", json!(1u64 << 50)), vec!["`num_hidden_layers`", "1 to 4096"]),
        (
            ("num_hidden_layers", json!(1e18)),
            vec!["`num_hidden_layers` is 1000000000000000000, expected 1 to 4096"],
        ),
        (("num_hidden_layers", json!(1e300)), vec!["`num_hidden_layers`", "expected 1 to 4096"]),
        (("rope_theta", Value::Null), vec!["`rope_theta` is null", "a number"]),
        (("hidden_act", Value::Null), vec!["`hidden_act` is null", "a string"]),
        (("model_type", json!("x\n\u{1b}[31m")), vec![r"model_type `x\n\u{1b}[31m` is not"]),
        (("hidden_act", json!("\u{7}")), vec![r"`hidden_act` is `\u{7}`"]),
        (("vocab_size", json!(1u64 << 30)), vec!["`vocab_size`", "1 to"]),
        (("max_position_embeddings", json!(0)), vec!["`max_position_embeddings` is 0"]),
        (("head_dim", json!(7)), vec!["`head_dim` is 7, expected an even number"]),
        (("rms_norm_eps", json!(0.0)), vec!["`rms_norm_eps` is 0", "positive"]),
        (("rope_theta", json!(-1.0)), vec!["`rope_theta` is -1"]),
        (("hidden_act", json!("relu6")), vec!["`hidden_act` is `relu6`", "silu"]),
        (("attention_bias", json!("yes")), vec!["`attention_bias` is \"yes\"", "true or false"]),
        (("rope_scaling", json!([1, 2])), vec!["`rope_scaling` is a list of 2", "an object"]),
        (("rope_scaling", json!({"factor": 2})), vec!["`rope_scaling.rope_type` is missing"]),
        (
            ("rope_scaling", json!({"type": "longrope"})),
            vec!["`rope_scaling.short_factor` is missing"],
        ),
        (
            ("rope_scaling", json!({"type": "ntk"})),
            vec!["`rope_scaling.type` is `ntk`", "linear, dynamic, llama3, yarn or longrope"],
        ),
        (
            ("rope_scaling", json!({"rope_type": "linear"})),
            vec!["`rope_scaling.factor` is missing"],
        ),
        (("rope_scaling", llama3), vec!["high_freq_factor", "above `low_freq_factor`, 4"]),
        (yarn("factor", json!(0.5)), vec!["`rope_scaling.factor` is 0.5", "from 1"]),
        (yarn("beta_fast", json!(0.1)), vec!["beta_fast", "at least `beta_slow`, 1"]),
        (yarn("attention_factor", json!(-1.0)), vec!["attention_factor", "above 0"]),
        (
            ("quantization_config", json!({"quant_method": "aqlm"})),
            vec!["config.json", "method `aqlm` is not supported", "awq, gptq, fp8"],
        ),
    ];
    for ((key, value), words) in cases {
        let mut config = config();
        config[key] = value;
        assert_says(&ArchSpec::from_config(&config).unwrap_err().to_string(), &words);
    }
    let not_an_object = ArchSpec::from_config(&json!([])).unwrap_err().to_string();
    assert_says(&not_an_object, &["config.json", "a list of 0", "an object"]);
    let mut indivisible = config();
    indivisible["head_dim"] = Value::Null;
    indivisible["hidden_size"] = json!(34);
    let message = ArchSpec::from_config(&indivisible).unwrap_err().to_string();
    assert_says(&message, &["`hidden_size` is 34", "multiple of `num_attention_heads`, 4"]);
}

#[test]
fn files() {
    let f32_options = LoadOptions { precision: Precision::F32, ..Default::default() };
    type Spoil = fn(&mut Files);
    let cases: [(&str, Spoil, &[&str]); 11] = [
        (
            "missing",
            |files| files.remove("model.layers.1.self_attn.k_proj.weight"),
            &[
                "missing",
                "no tensor `model.layers.1.self_attn.k_proj.weight`",
                "[16, 32]",
                "nearest",
            ],
        ),
        (
            "missing_head",
            |files| files.config["tie_word_embeddings"] = json!(false),
            &["no tensor `lm_head.weight`", "[288, 32]"],
        ),
        (
            "extra",
            |files| {
                files.add("model.layers.0.mlp.gate.weight", &[2], 1.0, &mut common::Random(1));
            },
            &["1 tensor that", "model.layers.0.mlp.gate.weight", "`llama`", "mixtures of experts"],
        ),
        (
            "control_characters",
            |files| files.add("x\n\u{1b}[31mevil", &[2], 1.0, &mut common::Random(1)),
            &[r"does not read: x\n\u{1b}[31mevil;"],
        ),
        (
            "extra_layer",
            |files| files.config["num_hidden_layers"] = json!(1),
            &["9 tensors", "model.layers.1.input_layernorm.weight", "…", "`num_hidden_layers`"],
        ),
        (
            "wrong_heads",
            |files| files.config["num_key_value_heads"] = json!(4),
            &["k_proj.weight", "[16, 32]", "[32, 32]", "`num_key_value_heads` 4 × `head_dim` 8"],
        ),
        (
            "wrong_inner",
            |files| files.config["intermediate_size"] = json!(128),
            &["gate_proj.weight", "[64, 32]", "[128, 32]", "`intermediate_size` 128"],
        ),
        (
            "flat",
            |files| files.tensor("model.layers.0.self_attn.o_proj.weight").1 = vec![1024],
            &["o_proj.weight", "[1024]", "[32, 32]", "`hidden_size` 32"],
        ),
        (
            "nan",
            |files| files.tensor("model.layers.1.mlp.up_proj.weight").2[3 * 32 + 5] = f32::NAN,
            &["model.safetensors", "model.layers.1.mlp.up_proj.weight", "[3, 5] is NaN"],
        ),
        (
            "infinite_norm",
            |files| files.tensor("model.norm.weight").2[9] = f32::INFINITY,
            &["`model.norm.weight`", "[0, 9] is inf"],
        ),
        (
            "untied_head",
            |files| {
                let (_, shape, mut values) = files.tensor("model.embed_tokens.weight").clone();
                values[5 * 32] += 1.0;
                files.tensors.push(("lm_head.weight".to_owned(), shape, values));
            },
            &["lm_head.weight", "row 5", "`tie_word_embeddings`", "set it to false"],
        ),
    ];
    for (name, spoil, words) in cases {
        let mut files = Files::read(&data("tiny/llama-gqa"));
        spoil(&mut files);
        let path = files.write(&format!("refusal_{name}"));
        let error = load(Reference, &path, &f32_options).err().unwrap_or_else(|| panic!("{name}"));
        assert_says(&error.to_string(), words);
    }
}

#[test]
fn harmless_extra_tensors_are_accepted() {
    let mut files = Files::read(&data("tiny/llama-gqa"));
    let (_, shape, values) = files.tensor("model.embed_tokens.weight").clone();
    files.tensors.push(("lm_head.weight".to_owned(), shape, values));
    let mut random = common::Random(1);
    files.add("model.layers.0.self_attn.rotary_emb.inv_freq", &[4], 1.0, &mut random);
    let path = files.write("harmless");
    assert!(load(Reference, &path, &LoadOptions::default()).is_ok());
}

#[test]
fn tensors_can_be_checked_without_loading() {
    let mut files = Files::read(&data("tiny/llama-gqa"));
    let check = |files: &Files, name: &str| {
        let checkpoint = bantam_checkpoint::Checkpoint::open(&files.write(name)).unwrap();
        let arch = ArchSpec::from_checkpoint(&checkpoint).unwrap();
        arch.check_tensors(&checkpoint).map_err(|error| error.to_string())
    };
    assert_eq!(check(&files, "check_sound"), Ok(Vec::new()));
    files.tensor("model.layers.0.mlp.down_proj.weight").1.reverse();
    let message = check(&files, "check_reversed").unwrap_err();
    assert_says(&message, &["down_proj.weight", "[64, 32]", "expected [32, 64]"]);
}

#[test]
fn options() {
    let int4 = |group| Precision::Int4 { group: Some(group), symmetric: true };
    let base = LoadOptions::default();
    let cases: [(LoadOptions, &[&str]); 13] = [
        (
            LoadOptions { max_context: Some(129), ..base.clone() },
            &["the context (--context) is 129", "1 to 128", "`max_position_embeddings`"],
        ),
        (
            LoadOptions { max_context: Some(0), ..base.clone() },
            &["context (--context) is 0", "1 to 128"],
        ),
        (
            LoadOptions { max_batch_tokens: 0, ..base.clone() },
            &["number of tokens of a step is 0", "1 to"],
        ),
        (
            LoadOptions { max_sequences: 0, ..base.clone() },
            &["number of sequences side by side (--batch) is 0", "1 to"],
        ),
        (
            LoadOptions { max_logit_rows: 1 << 30, ..base.clone() },
            &["number of logit rows of a step is 1073741824", "1 to"],
        ),
        (
            // Where a command makes the other numbers from its --batch, it is --batch that is named.
            LoadOptions {
                max_sequences: 1 << 30,
                max_batch_tokens: 1 << 30,
                max_logit_rows: 1 << 30,
                ..base.clone()
            },
            &["side by side (--batch) is 1073741824", "1 to 1048576"],
        ),
        (
            LoadOptions { load_threads: Some(0), ..base.clone() },
            &["number of loading threads is 0", "1 to"],
        ),
        (
            LoadOptions { precision: int4(64), ..base.clone() },
            &["q_proj", "input size 32", "groups of 64", "--dtype int4-g32"],
        ),
        (
            LoadOptions { precision: int4(0), ..base.clone() },
            &["q_proj", "groups of 0", "--dtype int4-g32"],
        ),
        (
            // 16 tokens × 2 layers × 2 × 2 heads × 8 × 2 bytes = 2 KiB a block, 8 blocks a sequence.
            LoadOptions {
                max_sequences: 8,
                max_batch_tokens: 16,
                memory_budget: Some(150_000),
                ..base.clone()
            },
            &[
                "the KV cache needs 128.0 KiB",
                "of the 146.5 KiB of memory are left",
                "--context ",
                "--batch ",
            ],
        ),
        (
            LoadOptions {
                memory_budget: Some(50_000),
                max_batch_tokens: 1,
                max_context: Some(16),
                ..base.clone()
            },
            &["the weights need ", "48.8 KiB of the 48.8 KiB of memory", "--dtype int8"],
        ),
        (
            LoadOptions {
                memory_budget: Some(100_000),
                names: OptionNames { step_tokens: Some("--step-tokens"), ..OptionNames::CONTEXT },
                ..base.clone()
            },
            &["the workspace of a step needs", "use --step-tokens "],
        ),
        (
            LoadOptions { memory_budget: Some(10), ..base },
            &["the weights need ", "10 B of the 10 B of memory", "use a smaller model"],
        ),
    ];
    for (options, words) in cases {
        let error = load(Reference, &data("tiny/llama-gqa"), &options).err();
        assert_says(&error.unwrap_or_else(|| panic!("{options:?}")).to_string(), words);
    }
}

#[test]
fn batches() {
    let options = LoadOptions {
        max_context: Some(40),
        max_batch_tokens: 8,
        max_sequences: 2,
        max_logit_rows: 2,
        ..Default::default()
    };
    let mut decoder = load(Reference, &data("tiny/llama-gqa"), &options).unwrap();
    assert_eq!((decoder.num_blocks(), decoder.block_tokens()), (6, 16));
    let batch = |tokens: &[u32], start: usize, blocks: &[u32]| {
        let mut batch = Batch::default();
        batch.push(tokens, start, blocks).unwrap();
        batch.want_last_logits();
        batch
    };
    let with = |change: &dyn Fn(&mut Batch)| {
        let mut batch = batch(&[1, 2, 3], 0, &[0]);
        change(&mut batch);
        batch
    };
    let cases: Vec<(Batch, Vec<&str>)> = vec![
        (Batch::default(), vec!["tokens is 0", "1 or more"]),
        (batch(&[1, 288], 0, &[0]), vec!["token id of row 1 is 288", "below", "288"]),
        (batch(&[1], 40, &[0, 1, 2]), vec!["context", "is 41", "at most 40", "--context 41"]),
        (batch(&[1], 500, &[0; 40]), vec!["context", "is 501", "at most 40"]),
        (batch(&[1; 9], 0, &[0]), vec!["tokens of a step is 9", "at most 8", "split the step"]),
        (batch(&[1], 16, &[0]), vec!["blocks of span 0 is 1", "2 for 17 tokens"]),
        (batch(&[1], 0, &[]), vec!["blocks of span 0 is 0", "1 for 1 token"]),
        (batch(&[1], 0, &[6]), vec!["block id of span 0 is 6", "below 6"]),
        (
            with(&|batch| {
                batch.push(&[1], 0, &[1]).unwrap();
                batch.push(&[1], 0, &[2]).unwrap();
            }),
            vec!["sequences side by side is 3", "at most 2", "--batch 3"],
        ),
        (
            with(&|batch| batch.want_all_logits()),
            vec!["logit rows of a step is 3", "at most 2", "split the step"],
        ),
        (with(&|batch| batch.logit_rows = vec![3]), vec!["logit row is 3", "below 3"]),
        (with(&|batch| batch.logit_rows = vec![1, 1]), vec!["logit row is 1", "above", "1"]),
        (with(&|batch| batch.positions[1] = 7), vec!["position of row 1 is 7", "expected 1"]),
        (with(&|batch| batch.positions.truncate(2)), vec!["positions is 2", "3"]),
        (with(&|batch| batch.spans[0].rows = 1..3), vec!["first row of span 0 is 1", "0"]),
        (with(&|batch| batch.spans[0].rows = 0..4), vec!["end of rows of span 0 is 4", "3"]),
        (with(&|batch| batch.spans[0].rows = 0..2), vec!["rows in spans is 2", "all 3 tokens"]),
        (
            with(&|batch| {
                batch.push(&[1], 0, &[1]).unwrap();
                batch.spans[1].rows = 2..4; // row 2 is the first span's
            }),
            vec!["first row of span 1 is 2", "3"],
        ),
        (
            with(&|batch| {
                batch.push(&[1], 0, &[1]).unwrap();
                batch.spans.swap(0, 1);
            }),
            vec!["first row of span 0 is 3", "0"],
        ),
        (
            with(&|batch| batch.push(&[1], 0, &[0]).unwrap()),
            vec!["block 0 of span 1 is 0", "other than 0, which span 0 writes"],
        ),
        (with(&|batch| batch.spans.clear()), vec!["rows in spans is 0", "all 3 tokens"]),
        (with(&|batch| batch.spans[0].blocks = 0..2), vec!["block table of span 0 is 2", "1"]),
        (with(&|batch| batch.spans[0].start = usize::MAX), vec!["context of span 0"]),
    ];
    for (batch, words) in cases {
        let error = decoder.forward(&batch).expect_err(&format!("{batch:?}"));
        assert_says(&error.to_string(), &words);
    }
    assert_eq!(decoder.forward(&batch(&[1, 2], 0, &[5])).unwrap().len(), 288);
    assert!(decoder.forward(&with(&|batch| batch.logit_rows.clear())).unwrap().is_empty());
}

#[test]
fn parts_that_are_described_but_not_executed() {
    let base = ArchSpec::from_config(&config()).unwrap();
    type Change = fn(&mut ArchSpec);
    let cases: [(Change, &str); 4] = [
        (|arch| arch.positions = bantam_model::Positions::Learned, "learned position embedding"),
        (|arch| arch.attention.clip = Some(8.0), "clip_qkv"),
        (|arch| arch.norm.bias = true, "a bias in an RMS norm"),
        (|arch| arch.head.normalised = true, "a tied head"),
    ];
    let checkpoint = bantam_checkpoint::Checkpoint::open(&data("tiny/llama-gqa")).unwrap();
    for (change, part) in cases {
        let mut arch = base.clone();
        change(&mut arch);
        assert_says(&arch.validate().unwrap_err().to_string(), &[part, "not executed yet"]);
        let options = LoadOptions::default();
        assert!(Decoder::load_as(arch, Reference, &checkpoint, &options, &|_| {}).is_err());
    }
}
