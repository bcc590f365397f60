//! Rotary rules compute what `transformers` computes (`tools/golden/rope.py`).

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use bantam_model::{ArchSpec, ModelError, Positions, RopeScaling, Rotary};
use common::{data, numbers, read_json};
use serde_json::{Value, json};

fn describe(config: &Value) -> (ArchSpec, Rotary) {
    let arch = ArchSpec::from_config(config).unwrap_or_else(|e| panic!("{config}: {e}"));
    let Positions::Rotary(rotary) = arch.positions.clone() else { panic!("{arch:?}") };
    (arch, rotary)
}

/// The largest difference as a share of the values.
fn relative(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f32::max)
}

/// Two roundings of a frequency to f32 may differ by as much.
const ROUNDING: f32 = 5e-7;

#[test]
fn every_rule_computes_what_transformers_computes() {
    let rows = read_json(&data("rope.json"));
    for row in rows.as_array().unwrap() {
        let (name, (_, rotary)) = (&row["name"], describe(&row["config"]));
        for golden in row["contexts"].as_array().unwrap() {
            let context = golden["context"].as_u64().unwrap() as usize;
            let want: Vec<f32> = numbers(&golden["inv_freq"]);
            let difference = relative(&rotary.frequencies(context), &want);
            assert!(difference < ROUNDING, "{name} in {context} tokens: {difference:e}");
            let factor = rotary.scaling.attention_factor();
            let expected = golden["attention"].as_f64().unwrap() as f32;
            assert!((factor - expected).abs() < 1e-6, "{name}: {factor}, expected {expected}");
        }
    }
}

#[test]
fn what_is_written_for_divisors_computes_what_they_do() {
    let rows = read_json(&data("rope.json"));
    let written = rows.as_array().unwrap().iter().filter(|row| !row["divisors"].is_null());
    assert_eq!(written.clone().count(), 3);
    for row in written {
        let (_, rotary) = describe(&row["config"]);
        let linear = if row["name"] == "written longrope with linear" { 2.0 } else { 1.0 };
        let divisors = numbers::<f32>(&row["divisors"]).iter().map(|d| d * linear).collect();
        let read = Rotary { scaling: RopeScaling::Divisors(divisors), ..rotary.clone() };
        for context in [1, 128, 4096] {
            let difference = relative(&rotary.frequencies(context), &read.frequencies(context));
            assert!(difference < ROUNDING, "{}: {difference:e}", row["name"]);
        }
    }
}

#[test]
fn contexts_reach_as_far_as_the_rule_stretches_them() {
    let base = json!({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4,
        "max_position_embeddings": 128});
    let long = json!({"type": "longrope", "short_factor": vec![1.0; 8], "long_factor": vec![2.0; 8],
        "original_max_position_embeddings": 32});
    // Longest context, and the one where nobody asks.
    let cases = [
        (json!(null), 128, 128),
        (json!({"type": "linear", "factor": 4.0}), 512, 512),
        // Longer ones would change the frequencies of short prompts: they are for those who ask.
        (json!({"type": "dynamic", "factor": 4.0}), 512, 128),
        (long, 128, 32),
        (json!({"type": "yarn", "factor": 4.0}), 512, 512),
        (json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}), 128, 128),
        (
            json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 16}),
            128,
            128,
        ),
    ];
    for (scaling, longest, default) in cases {
        let mut config = base.clone();
        config["rope_scaling"] = scaling;
        let (arch, _) = describe(&config);
        assert_eq!(arch.sizes.max_positions, longest, "{config}");
        assert_eq!(arch.default_context(), default, "{config}");
    }
}

#[test]
fn parameters_without_a_rule_are_the_plain_ones() {
    let base = json!({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4});
    let with = |key: &str, value: Value| {
        let mut config = base.clone();
        config[key] = value;
        config
    };
    for key in ["rope_parameters", "rope_scaling"] {
        let (_, rotary) = describe(&with(key, json!({"rope_theta": 500_000.0})));
        assert_eq!(rotary.scaling, RopeScaling::None, "{key}");
    }
    let (_, rotary) = describe(&with("rope_parameters", json!({"rope_theta": 500_000.0})));
    assert_eq!(rotary.theta, 500_000.0);

    // What another rule needs is not passed over.
    let per_kind = json!({"full_attention": {"rope_type": "default"}});
    for scaling in [json!({"factor": 4.0}), per_kind, json!({"short_factor": [1.0]})] {
        let message = ArchSpec::from_config(&with("rope_scaling", scaling)).unwrap_err();
        assert!(message.to_string().contains("`rope_scaling.rope_type` is missing"), "{message}");
    }
}

#[test]
fn numbers_that_are_none_are_refused_where_they_count() {
    let infinity = json!({"__float__": "Infinity"}); // as `python_json` reads it
    let base = |key: &str, value: &Value| {
        let mut config =
            json!({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4});
        config[key] = value.clone();
        ArchSpec::from_config(&config)
    };
    let message = base("rope_theta", &infinity).unwrap_err().to_string();
    assert!(message.contains("`rope_theta` is Infinity, expected a number"), "{message}");
    let message = base("hidden_size", &json!({"__float__": "NaN"})).unwrap_err().to_string();
    assert!(message.contains("`hidden_size` is NaN, expected a whole number"), "{message}");
    base("initializer_range", &json!({"__float__": "NaN"})).unwrap();

    let short = json!({"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]});
    let error = base("rope_scaling", &short).unwrap_err();
    assert!(matches!(error, ModelError::BadValue { .. }), "{error}");
    assert!(error.to_string().contains("short_factor"), "{error}");
}
