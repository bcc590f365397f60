//! Llama and the models that differ from it by a bias, a window or a head norm.
//!
//! Sources: Touvron et al. 2023 (Llama 2), Jiang et al. 2023 (Mistral), the Qwen2 and Qwen3 technical
//! reports, and the defaults of the `transformers` configuration classes. SmolLM2 is a `llama`.

use bantam_backend::{FeedForward, NormKind};
use bantam_numerics::reference::RotaryPairs;

use super::config::Config;
use super::rope;
use super::rules::{Bias, WindowRule};
use crate::arch::{
    ArchSpec, AttentionSpec, FeedForwardSpec, HeadSpec, NormSpec, Positions, Residual, Rotary,
    Sizes,
};
use crate::error::ModelError;
use crate::names::{ConfigKeys, QkvNames, TensorNames};

/// What tells the members of the family apart.
pub(super) struct Variant {
    model_type: &'static str,
    qkv_bias: Bias,
    out_bias: Bias,
    feed_forward_bias: Bias,
    head_norm: bool,
    window: WindowRule,
    defaults: Defaults,
}

/// The sizes of a file that does not state them: those of the configuration classes of
/// `transformers` 4.57, whose files need not repeat them.
struct Defaults {
    layers: usize,
    hidden: usize,
    feed_forward: usize,
    vocabulary: usize,
    max_positions: usize,
    heads: usize,
    /// G; none for H.
    kv_heads: Option<usize>,
    /// D; none for C/H.
    head_dim: Option<usize>,
}

/// ε where a file does not state it.
const DEFAULT_EPS: f64 = 1e-6;
/// The activation where a file does not state it.
const DEFAULT_ACTIVATION: &str = "silu";

pub(super) const LLAMA: Variant = Variant {
    model_type: "llama",
    qkv_bias: Bias::Key("attention_bias"),
    out_bias: Bias::Key("attention_bias"),
    feed_forward_bias: Bias::Key("mlp_bias"),
    head_norm: false,
    window: WindowRule::NoLayer,
    defaults: Defaults {
        layers: 32,
        hidden: 4096,
        feed_forward: 11_008,
        vocabulary: 32_000,
        max_positions: 2048,
        heads: 32,
        kv_heads: None,
        head_dim: None,
    },
};
pub(super) const MISTRAL: Variant = Variant {
    model_type: "mistral",
    qkv_bias: Bias::Never,
    out_bias: Bias::Never,
    feed_forward_bias: Bias::Never,
    window: WindowRule::EveryLayer,
    defaults: Defaults {
        feed_forward: 14_336,
        max_positions: 131_072,
        kv_heads: Some(8),
        ..LLAMA.defaults
    },
    ..LLAMA
};
pub(super) const QWEN2: Variant = Variant {
    model_type: "qwen2",
    qkv_bias: Bias::Always,
    out_bias: Bias::Never,
    feed_forward_bias: Bias::Never,
    window: WindowRule::Chosen,
    defaults: Defaults {
        feed_forward: 22_016,
        vocabulary: 151_936,
        max_positions: 32_768,
        kv_heads: Some(32),
        ..LLAMA.defaults
    },
    ..LLAMA
};
pub(super) const QWEN3: Variant = Variant {
    model_type: "qwen3",
    feed_forward_bias: Bias::Never,
    head_norm: true,
    window: WindowRule::Chosen,
    defaults: Defaults { head_dim: Some(128), ..QWEN2.defaults },
    ..LLAMA
};

static NAMES: TensorNames = TensorNames {
    embedding: "model.embed_tokens",
    attention_norm: "model.layers.{layer}.input_layernorm",
    qkv: QkvNames::Separate([
        "model.layers.{layer}.self_attn.q_proj",
        "model.layers.{layer}.self_attn.k_proj",
        "model.layers.{layer}.self_attn.v_proj",
    ]),
    head_norms: ["model.layers.{layer}.self_attn.q_norm", "model.layers.{layer}.self_attn.k_norm"],
    attention_out: "model.layers.{layer}.self_attn.o_proj",
    feed_forward_norm: "model.layers.{layer}.post_attention_layernorm",
    feed_forward_in: &["model.layers.{layer}.mlp.gate_proj", "model.layers.{layer}.mlp.up_proj"],
    feed_forward_out: "model.layers.{layer}.mlp.down_proj",
    final_norm: "model.norm",
    head: "lm_head",
};

static KEYS: ConfigKeys = ConfigKeys {
    layers: "num_hidden_layers",
    hidden: "hidden_size",
    feed_forward: "intermediate_size",
    vocabulary: "vocab_size",
    max_positions: "max_position_embeddings",
    heads: "num_attention_heads",
    kv_heads: "num_key_value_heads",
    head_dim: "head_dim",
    eps: "rms_norm_eps",
};

pub(super) fn describe(variant: &Variant, config: &Config<'_>) -> Result<ArchSpec, ModelError> {
    let defaults = &variant.defaults;
    let heads = config.count_or(KEYS.heads, defaults.heads)?;
    let hidden = config.count_or(KEYS.hidden, defaults.hidden)?;
    let layers = config.count_or(KEYS.layers, defaults.layers)?;
    let kv_heads = match defaults.kv_heads {
        Some(kv_heads) if config.lacks(KEYS.kv_heads) => kv_heads,
        _ => config.count_or_none(KEYS.kv_heads)?.unwrap_or(heads),
    };
    let head_dim = match defaults.head_dim {
        Some(default) => Some(config.count_or(KEYS.head_dim, default)?),
        None => config.count_or_none(KEYS.head_dim)?,
    };
    let head_dim = match head_dim {
        Some(head_dim) => head_dim,
        None if heads > 0 && hidden % heads == 0 => hidden / heads,
        None => {
            let expected =
                format!("a multiple of `{}`, {heads}, or `head_dim` beside it", KEYS.heads);
            return Err(config.bad(KEYS.hidden, &hidden.to_string(), &expected));
        }
    };
    let max_positions = config.count_or(KEYS.max_positions, defaults.max_positions)?;
    let rope = rope::read(config, max_positions)?;
    // The family rotates whole heads; running such a file anyway would be wrong in silence.
    let rotated = config.number_or("partial_rotary_factor", 1.0)?;
    if rotated != 1.0 {
        let expected = "1, since this family rotates whole heads";
        return Err(config.bad("partial_rotary_factor", &rotated.to_string(), expected));
    }
    Ok(ArchSpec {
        model_type: variant.model_type,
        sizes: Sizes {
            layers,
            hidden,
            feed_forward: config.count_or(KEYS.feed_forward, defaults.feed_forward)?,
            vocabulary: config.count_or(KEYS.vocabulary, defaults.vocabulary)?,
            max_positions: rope.max_positions,
        },
        norm: NormSpec {
            kind: NormKind::Rms,
            eps: config.number_or(KEYS.eps, DEFAULT_EPS)? as f32,
            bias: false,
        },
        positions: Positions::Rotary(Rotary {
            rotary_dim: head_dim,
            pairs: RotaryPairs::HalfSplit,
            theta: rope.theta,
            scaling: rope.scaling,
        }),
        attention: AttentionSpec {
            heads,
            kv_heads,
            head_dim,
            qkv_bias: variant.qkv_bias.read(config)?,
            out_bias: variant.out_bias.read(config)?,
            head_norm: variant.head_norm,
            windows: variant.window.read(config, layers)?,
            scale: None,
            clip: None,
        },
        feed_forward: FeedForwardSpec {
            kind: FeedForward::Gated(config.activation("hidden_act", DEFAULT_ACTIVATION)?),
            bias: variant.feed_forward_bias.read(config)?,
        },
        residual: Residual::Sequential,
        head: HeadSpec {
            tied: config.flag("tie_word_embeddings", false)?,
            normalised: false,
            bias: false,
        },
        kv_format: None,
        quantization: None,
        names: &NAMES,
        keys: &KEYS,
    })
}
