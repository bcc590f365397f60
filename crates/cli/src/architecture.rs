//! A network in words and in JSON, for `bantam inspect`.

use bantam_backend::{FeedForward, NormKind};
use bantam_model::{ArchSpec, Positions, Residual, RopeScaling, Rotary};
use bantam_numerics::reference::{Activation, RotaryPairs};
use serde_json::{Map, Value, json};

/// The network in words and numbers, with the letters that shapes use.
pub(crate) fn in_words(arch: &ArchSpec) -> Vec<(&'static str, String)> {
    let (sizes, attention) = (&arch.sizes, &arch.attention);
    let windows: Vec<usize> = attention.windows.iter().flatten().copied().collect();
    let window = match windows.first() {
        Some(window) => {
            format!(", window {window} in {} of {} layers", windows.len(), sizes.layers)
        }
        None => String::new(),
    };
    let (gating, activation) = feed_forward(arch.feed_forward.kind);
    let positions = match &arch.positions {
        Positions::Rotary(rotary) => format!(
            "rotary, {} of {} elements, {} pairs, θ {}, scaling {}",
            rotary.rotary_dim,
            attention.head_dim,
            pairs(rotary.pairs),
            rotary.theta,
            scaling_in_words(&rotary.scaling)
        ),
        Positions::Alibi { max_bias } => format!("ALiBi, maximal bias {max_bias}"),
        Positions::Learned => "learned".to_owned(),
    };
    vec![
        ("family", arch.model_type.to_owned()),
        (
            "sizes",
            format!(
                "L {} layers, C {} hidden, F {} feed-forward, V {} vocabulary, {} positions",
                sizes.layers,
                sizes.hidden,
                sizes.feed_forward,
                sizes.vocabulary,
                sizes.max_positions
            ),
        ),
        (
            "attention",
            format!(
                "H {} heads, G {} key/value heads, D {}{}{window}, {}",
                attention.heads,
                attention.kv_heads,
                attention.head_dim,
                if attention.head_norm { ", normalised heads" } else { "" },
                biases(&[("q, k, v", attention.qkv_bias), ("out", attention.out_bias)])
            ),
        ),
        ("positions", positions),
        (
            "feed-forward",
            format!("{gating} {activation}, {}", biases(&[("all", arch.feed_forward.bias)])),
        ),
        (
            "norm",
            format!(
                "{}, ε {:e}, {}",
                norm(arch.norm.kind),
                arch.norm.eps,
                biases(&[("β", arch.norm.bias)])
            ),
        ),
        ("residual", residual(arch.residual).to_owned()),
        (
            "head",
            format!(
                "{}{}, {}",
                if arch.head.tied { "the embedding table" } else { "a matrix of its own" },
                if arch.head.normalised { ", rows normalised" } else { "" },
                biases(&[("head", arch.head.bias)])
            ),
        ),
    ]
}

/// The network as JSON; names and keys are stable.
pub(crate) fn as_json(arch: &ArchSpec) -> Value {
    let (sizes, attention) = (&arch.sizes, &arch.attention);
    let positions = match &arch.positions {
        Positions::Rotary(rotary) => rotary_json(rotary),
        Positions::Alibi { max_bias } => json!({ "kind": "alibi", "max_bias": number(*max_bias) }),
        Positions::Learned => json!({ "kind": "learned" }),
    };
    let (gating, activation) = feed_forward(arch.feed_forward.kind);
    json!({
        "model_type": arch.model_type,
        "layers": sizes.layers,
        "hidden_size": sizes.hidden,
        "feed_forward_size": sizes.feed_forward,
        "vocab_size": sizes.vocabulary,
        "max_positions": sizes.max_positions,
        "norm": {
            "kind": norm(arch.norm.kind),
            "eps": number(arch.norm.eps),
            "bias": arch.norm.bias,
        },
        "positions": positions,
        "attention": {
            "heads": attention.heads,
            "kv_heads": attention.kv_heads,
            "head_dim": attention.head_dim,
            "qkv_bias": attention.qkv_bias,
            "out_bias": attention.out_bias,
            "head_norm": attention.head_norm,
            "windows": attention.windows,
            "scale": attention.scale.map(number),
            "clip": attention.clip.map(number),
        },
        "feed_forward": {
            "kind": gating,
            "activation": activation,
            "bias": arch.feed_forward.bias,
        },
        "residual": residual(arch.residual),
        "head": {
            "tied": arch.head.tied,
            "normalised": arch.head.normalised,
            "bias": arch.head.bias,
        },
    })
}

/// An f32 with its own digits, not those of the f64 that holds it.
pub(crate) fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

fn biases(names: &[(&str, bool)]) -> String {
    let stated: Vec<&str> = names.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
    if stated.is_empty() {
        "no biases".to_owned()
    } else {
        format!("biases: {}", stated.join(", "))
    }
}

fn norm(kind: NormKind) -> &'static str {
    match kind {
        NormKind::Rms => "rms",
        NormKind::Layer => "layer",
    }
}

fn feed_forward(kind: FeedForward) -> (&'static str, &'static str) {
    let (gating, activation) = match kind {
        FeedForward::Gated(activation) => ("gated", activation),
        FeedForward::Plain(activation) => ("plain", activation),
    };
    let activation = match activation {
        Activation::Silu => "silu",
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_tanh",
    };
    (gating, activation)
}

fn residual(residual: Residual) -> &'static str {
    match residual {
        Residual::Sequential => "sequential",
        Residual::Parallel { shared_norm: false } => "parallel",
        Residual::Parallel { shared_norm: true } => "parallel_shared_norm",
    }
}

fn pairs(pairs: RotaryPairs) -> &'static str {
    match pairs {
        RotaryPairs::HalfSplit => "half_split",
        RotaryPairs::Interleaved => "interleaved",
    }
}

fn rotary_json(rotary: &Rotary) -> Value {
    let (kind, parameters) = scaling(&rotary.scaling);
    let mut scaling = Map::from_iter([("kind".to_owned(), kind.into())]);
    scaling.extend(parameters.into_iter().map(|(key, value)| (key.to_owned(), value)));
    json!({
        "kind": "rotary",
        "rotary_dim": rotary.rotary_dim,
        "pairs": pairs(rotary.pairs),
        "theta": number(rotary.theta),
        "scaling": scaling,
    })
}

fn scaling_in_words(rule: &RopeScaling) -> String {
    match rule {
        RopeScaling::Divisors(divisors) => {
            return format!("by {} divisors of the checkpoint", divisors.len());
        }
        RopeScaling::LongRope(rule) => {
            return format!(
                "longrope, {} divisors for contexts up to {} and {} beyond",
                rule.short.len(),
                rule.original,
                if rule.short == rule.long { "the same" } else { "others" }
            );
        }
        _ => {}
    }
    let (kind, parameters) = scaling(rule);
    let stated: Vec<String> =
        parameters.iter().map(|(key, value)| format!(", {key} {value}")).collect();
    format!("{kind}{}", stated.concat())
}

/// The rule's name and its parameters, as `rope_scaling` of `config.json` calls them.
fn scaling(rule: &RopeScaling) -> (&'static str, Vec<(&'static str, Value)>) {
    const ORIGINAL: &str = "original_max_position_embeddings";
    match rule {
        RopeScaling::None => ("none", Vec::new()),
        RopeScaling::Linear { factor } => ("linear", vec![("factor", number(*factor))]),
        RopeScaling::Dynamic { factor, original } => {
            ("dynamic", vec![("factor", number(*factor)), (ORIGINAL, (*original).into())])
        }
        RopeScaling::LongRope(rule) => {
            let list = |divisors: &[f32]| divisors.iter().copied().map(number).collect::<Vec<_>>();
            let parameters = vec![
                (ORIGINAL, rule.original.into()),
                ("attention_factor", number(rule.attention_factor)),
                ("short_factor", list(&rule.short).into()),
                ("long_factor", list(&rule.long).into()),
            ];
            ("longrope", parameters)
        }
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => (
            "llama3",
            vec![
                ("factor", number(*factor)),
                ("low_freq_factor", number(*low_freq_factor)),
                ("high_freq_factor", number(*high_freq_factor)),
                (ORIGINAL, (*original).into()),
            ],
        ),
        RopeScaling::Yarn(yarn) => (
            "yarn",
            vec![
                ("factor", yarn.factor.into()),
                (ORIGINAL, yarn.original.into()),
                ("beta_fast", yarn.beta_fast.into()),
                ("beta_slow", yarn.beta_slow.into()),
                ("attention_factor", number(yarn.attention_factor)),
                ("truncate", yarn.truncate.into()),
            ],
        ),
        RopeScaling::Divisors(divisors) => {
            let divisors = divisors.iter().copied().map(number).collect::<Vec<_>>();
            ("divisors", vec![("divisors", divisors.into())])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_and_numbers_short() {
        let config = json!({
            "model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "vocab_size": 64, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "tie_word_embeddings": true, "hidden_act": "silu",
            "rope_scaling": {
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
            },
        });
        let arch = ArchSpec::from_config(&config).unwrap();
        let description = as_json(&arch);
        assert_eq!(description["norm"]["eps"].to_string(), "0.00001");
        assert_eq!(description["norm"]["kind"], "rms");
        assert_eq!(description["residual"], "sequential");
        assert_eq!(description["feed_forward"]["activation"], "silu");
        let positions = &description["positions"];
        assert_eq!(positions["pairs"], "half_split");
        assert_eq!(
            positions["scaling"],
            json!({
                "kind": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
            })
        );
        let words = in_words(&arch);
        assert!(
            words.iter().any(|(_, text)| text.contains("scaling llama3, factor 8")),
            "{words:?}"
        );
    }
}
