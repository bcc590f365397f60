//! What the family table makes of the configurations in the wild.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use bantam_backend::FeedForward;
use bantam_backend::reference::Reference;
use bantam_model::{ArchSpec, LoadOptions, Positions, Precision, RopeScaling};
use bantam_numerics::reference::Activation;
use common::{Files, data, ids, load, logits_in_chunks, max_difference, read_json};
use serde_json::{Value, json};

/// The value of a change that takes the key away.
const ABSENT: &str = "(absent)";

fn describe(base: &str, changes: Value) -> ArchSpec {
    let mut config = read_json(&data(&format!("tiny/{base}/config.json")));
    for (key, value) in changes.as_object().unwrap() {
        if value == ABSENT {
            config.as_object_mut().unwrap().remove(key);
        } else {
            config[key] = value.clone();
        }
    }
    ArchSpec::from_config(&config).unwrap_or_else(|e| panic!("{base} {changes}: {e}"))
}

fn rotary(arch: &ArchSpec) -> &bantam_model::Rotary {
    match &arch.positions {
        Positions::Rotary(rotary) => rotary,
        other => panic!("{other:?}"),
    }
}

#[test]
fn windows_follow_the_rules_of_each_family() {
    let sliding = json!({"use_sliding_window": true, "sliding_window": 8, "max_window_layers": 1,
        "layer_types": null});
    let off = json!({"use_sliding_window": false, "sliding_window": 8, "max_window_layers": 0});
    let listed = json!({"use_sliding_window": true, "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"]});
    let cases = [
        ("qwen2", sliding, vec![None, Some(8)]),
        ("qwen2", off, vec![None, None]),
        ("qwen3", listed, vec![Some(8), None]),
        ("mistral", json!({"sliding_window": 5}), vec![Some(5), Some(5)]),
        ("mistral", json!({"sliding_window": null}), vec![None, None]),
        ("mistral", json!({"sliding_window": ABSENT}), vec![Some(4096), Some(4096)]),
        ("mistral", json!({"sliding_window": 1e18}), vec![Some(1 << 24), Some(1 << 24)]),
        ("llama-gqa", json!({"sliding_window": 5}), vec![None, None]),
    ];
    for (base, changes, windows) in cases {
        assert_eq!(describe(base, changes).attention.windows, windows, "{base}");
    }
}

#[test]
fn a_configuration_that_says_nothing_is_that_of_transformers() {
    // V, C, F, L, H, G, D, context and windows of LlamaConfig(), MistralConfig() … of
    // transformers 4.57.
    let cases = [
        ("llama", [32_000, 4096, 11_008, 32, 32, 32, 128, 2048], None),
        ("mistral", [32_000, 4096, 14_336, 32, 32, 8, 128, 131_072], Some(4096)),
        ("qwen2", [151_936, 4096, 22_016, 32, 32, 32, 128, 32_768], None),
        ("qwen3", [151_936, 4096, 22_016, 32, 32, 32, 128, 32_768], None),
    ];
    for (model_type, sizes, window) in cases {
        let arch = ArchSpec::from_config(&json!({"model_type": model_type})).unwrap();
        let (s, a) = (&arch.sizes, &arch.attention);
        let got = [
            s.vocabulary,
            s.hidden,
            s.feed_forward,
            s.layers,
            a.heads,
            a.kv_heads,
            a.head_dim,
            s.max_positions,
        ];
        assert_eq!(got, sizes, "{model_type}");
        assert_eq!(a.windows, vec![window; 32], "{model_type}");
        assert_eq!((arch.norm.eps, rotary(&arch).theta), (1e-6, 10_000.0), "{model_type}");
        assert_eq!(rotary(&arch).scaling, RopeScaling::None, "{model_type}");
        assert!(!arch.head.tied && !a.out_bias && !arch.feed_forward.bias, "{model_type}");
        assert_eq!(a.qkv_bias, model_type == "qwen2");
        assert_eq!(a.head_norm, model_type == "qwen3");
        assert_eq!(arch.feed_forward.kind, FeedForward::Gated(Activation::Silu), "{model_type}");
    }
    let sliding = json!({"model_type": "qwen2", "use_sliding_window": true});
    let windows = ArchSpec::from_config(&sliding).unwrap().attention.windows;
    assert_eq!(windows, [vec![None; 28], vec![Some(4096); 4]].concat());
}

#[test]
fn null_is_not_absent() {
    let llama = describe(
        "llama-mha",
        json!({"num_key_value_heads": null, "head_dim": null, "rope_theta": ABSENT,
            "tie_word_embeddings": null, "attention_bias": null, "mlp_bias": null}),
    );
    assert_eq!((llama.attention.kv_heads, llama.attention.head_dim), (4, 8));
    assert_eq!(rotary(&llama).theta, 10_000.0);
    assert!(!llama.head.tied && !llama.attention.qkv_bias && !llama.feed_forward.bias);
    for model_type in ["mistral", "qwen2", "qwen3"] {
        let config = json!({"model_type": model_type, "num_key_value_heads": null});
        assert_eq!(ArchSpec::from_config(&config).unwrap().attention.kv_heads, 32, "{model_type}");
    }
    let config = json!({"model_type": "qwen3", "head_dim": null});
    let message = ArchSpec::from_config(&config).unwrap_err().to_string();
    assert!(message.contains("`head_dim` is null, expected a whole number"), "{message}");
}

#[test]
fn both_forms_of_rotary_parameters_mean_the_same() {
    for base in ["llama3-rope", "llama-yarn", "llama-linear-rope", "llama-gqa"] {
        let old = describe(base, json!({}));
        let config = read_json(&data(&format!("tiny/{base}/config.json")));
        let mut parameters = match &config["rope_scaling"] {
            Value::Null => json!({"rope_type": "default"}),
            scaling => scaling.clone(),
        };
        parameters["rope_theta"] = config["rope_theta"].clone();
        let changes =
            json!({"rope_scaling": null, "rope_theta": ABSENT, "rope_parameters": parameters});
        assert_eq!(describe(base, changes), old, "{base}");
    }
}

#[test]
fn yarn_extends_the_longest_context() {
    let yarn = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128});
    let arch = describe("qwen2", json!({"rope_scaling": yarn}));
    assert_eq!(arch.sizes.max_positions, 512);
    let RopeScaling::Yarn(yarn) = &rotary(&arch).scaling else { panic!("{arch:?}") };
    assert!((yarn.attention_factor - 1.138_629_4).abs() < 1e-6, "{yarn:?}"); // 0.1·ln 4 + 1
}

#[test]
fn divisors_of_gguf_files_do_what_the_llama3_rule_does() {
    let path = data("tiny/llama3-rope");
    let arch = describe("llama3-rope", json!({}));
    let stretched = rotary(&arch).frequencies(1);
    let plain = bantam_model::Rotary { scaling: RopeScaling::None, ..rotary(&arch).clone() };
    let divisors: Vec<f32> =
        plain.frequencies(1).iter().zip(&stretched).map(|(a, b)| a / b).collect();
    assert!(divisors.contains(&1.0) && divisors.contains(&8.0), "{divisors:?}");

    let mut files = Files::read(&path);
    files.config["rope_scaling"] = Value::Null;
    files.tensors.push(("rope_freqs.weight".to_owned(), vec![divisors.len()], divisors.clone()));
    let options = LoadOptions {
        precision: Precision::F32,
        max_batch_tokens: 64,
        max_logit_rows: 64,
        ..Default::default()
    };
    let prompt = ids(&read_json(&path.join("golden.json"))["prompt"]);
    let logits = [path.clone(), files.write("rope_divisors")].map(|path| {
        let mut decoder = load(Reference, &path, &options).unwrap();
        logits_in_chunks(&mut decoder, &prompt, &[0, 1, 2], &[prompt.len()])
    });
    for (a, b) in logits[0].iter().zip(&logits[1]) {
        assert!(max_difference(a, b) < 1e-4);
    }

    let refused = |files: &Files, name: &str, word: &str| {
        let message = load(Reference, &files.write(name), &options).err().unwrap().to_string();
        assert!(message.contains(word), "{message}");
    };
    files.tensor("rope_freqs.weight").1 = vec![divisors.len() - 1];
    files.tensor("rope_freqs.weight").2.pop();
    refused(&files, "rope_divisors_short", "8 positive numbers in rope_freqs.weight");
    files.config["rope_scaling"] = json!({"rope_type": "dynamic", "factor": 2.0});
    refused(&files, "rope_divisors_twice", "none or linear beside the tensor rope_freqs.weight");
}

#[test]
fn a_partly_rotated_head_is_refused() {
    let mut config = read_json(&data("tiny/llama-gqa/config.json"));
    config["partial_rotary_factor"] = json!(1.0);
    ArchSpec::from_config(&config).unwrap();
    config["partial_rotary_factor"] = json!(0.5);
    let error = ArchSpec::from_config(&config).unwrap_err().to_string();
    assert!(error.contains("partial_rotary_factor") && error.contains("0.5"), "{error}");
}
