//! What kind of network a model is: data that the one [`Decoder`](crate::Decoder) executes.

use bantam_backend::{AttentionPrecision, AttentionShape, FeedForward, KvFormat, NormKind};
use bantam_checkpoint::Quantization;
use bantam_numerics::reference::RotaryPairs;
use serde_json::Value;

use crate::error::ModelError;
use crate::families;
use crate::names::{ConfigKeys, TensorNames};
use crate::rope::RopeScaling;

/// A decoder-only transformer, described.
///
/// ```
/// use bantam_model::ArchSpec;
/// let config = serde_json::json!({
///     "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
///     "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
///     "vocab_size": 49152, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
///     "rope_theta": 100000.0, "tie_word_embeddings": true, "hidden_act": "silu",
/// });
/// let arch = ArchSpec::from_config(&config)?;
/// assert_eq!(arch.attention.head_dim, 64);
/// # Ok::<(), bantam_model::ModelError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ArchSpec {
    /// The `model_type` it was made from.
    pub model_type: &'static str,
    /// L, C, F, V and the longest context.
    pub sizes: Sizes,
    /// The norm before attention and feed-forward, and before the head.
    pub norm: NormSpec,
    /// How a token knows where it stands.
    pub positions: Positions,
    /// Attention.
    pub attention: AttentionSpec,
    /// The feed-forward network.
    pub feed_forward: FeedForwardSpec,
    /// How the two add to the residual stream.
    pub residual: Residual,
    /// From hidden state to logits.
    pub head: HeadSpec,
    /// What the checkpoint's cache was calibrated for; none if it was not.
    pub kv_format: Option<KvFormat>,
    /// How the checkpoint's linear layers are quantized; none if they are not.
    pub quantization: Option<Quantization>,
    /// Where the weights are in a checkpoint.
    pub names: &'static TensorNames,
    /// What the configuration calls the sizes; used in messages.
    pub keys: &'static ConfigKeys,
}

/// The sizes that all layers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// L, decoder layers.
    pub layers: usize,
    /// C, width of the residual stream.
    pub hidden: usize,
    /// F, width inside the feed-forward network.
    pub feed_forward: usize,
    /// V, rows of the embedding and of the head.
    pub vocabulary: usize,
    /// Positions that the model was made for, in tokens.
    pub max_positions: usize,
}

/// A normalisation, as all of a model's are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormSpec {
    /// RMS or layer norm.
    pub kind: NormKind,
    /// ε.
    pub eps: f32,
    /// Whether there is a β; layer norm only.
    pub bias: bool,
}

/// How a token knows where it stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// Rotary embedding of queries and keys (Su et al. 2021).
    Rotary(Rotary),
    /// A penalty on distance (Press et al. 2022).
    Alibi {
        /// Slopes are 2^(−max_bias·i/H); 8 in the paper.
        max_bias: f32,
    },
    /// A learned vector for each position, added to the embedding (GPT-2). Not executed yet.
    Learned,
}

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Rotated elements of a head: D, or fewer for partial rotary (GPT-J, Phi).
    pub rotary_dim: usize,
    /// Which elements rotate together.
    pub pairs: RotaryPairs,
    /// θ, the base of the frequencies.
    pub theta: f32,
    /// How the frequencies were stretched for longer contexts.
    pub scaling: RopeScaling,
}

/// Attention, as all layers have it but for the window.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionSpec {
    /// H, query heads.
    pub heads: usize,
    /// G, key/value heads: H for MHA, 1 for MQA.
    pub kv_heads: usize,
    /// D, elements of a head.
    pub head_dim: usize,
    /// Whether the q, k and v projections have biases.
    pub qkv_bias: bool,
    /// Whether the output projection has one.
    pub out_bias: bool,
    /// Whether each query and key head is RMS-normalised before rotation (Qwen3).
    pub head_norm: bool,
    /// Keys that a token sees, itself included, for each of the L layers; none for all.
    pub windows: Vec<Option<usize>>,
    /// Factor on q·k; none for 1/√D.
    pub scale: Option<f32>,
    /// Clamp of q, k and v to ±clip (MPT, DBRX). Not executed yet.
    pub clip: Option<f32>,
}

/// The feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedForwardSpec {
    /// Gated or not, and the activation.
    pub kind: FeedForward,
    /// Whether its linear layers have biases.
    pub bias: bool,
}

/// The order of a layer's two halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// `x += attention(norm(x)); x += feed_forward(norm(x))`.
    Sequential,
    /// `x += attention(norm(x)) + feed_forward(norm(x))` (GPT-J, Falcon).
    Parallel {
        /// Whether both read one norm's output.
        shared_norm: bool,
    },
}

/// From hidden state to logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadSpec {
    /// Whether its weight is the embedding table.
    pub tied: bool,
    /// Whether its rows are scaled to length 1 (Baichuan2).
    pub normalised: bool,
    /// Whether it has a bias (GPT-J).
    pub bias: bool,
}

/// Largest width, row count or head count that is believed.
const MAX_SIZE: usize = 1 << 20;
/// Most layers that are believed.
pub(crate) const MAX_LAYERS: usize = 1 << 12;
/// Longest context that is believed, in tokens.
pub(crate) const MAX_POSITIONS: usize = 1 << 24;

impl ArchSpec {
    /// Describes the network of a Hugging Face `config.json`, by its `model_type`.
    ///
    /// # Errors
    /// If the type is unknown, a key is missing or absurd, or a part is not executed yet.
    pub fn from_config(config: &Value) -> Result<Self, ModelError> {
        Self::from_config_file(config, "config.json")
    }

    /// The same; errors name `file`.
    pub(crate) fn from_config_file(config: &Value, file: &str) -> Result<Self, ModelError> {
        let arch = families::describe(config, file)?;
        arch.validate_in(file)?;
        Ok(arch)
    }

    /// Checks that the sizes make sense and that the decoder executes every part.
    ///
    /// # Errors
    /// [`ModelError::BadValue`] with the configuration's key, or [`ModelError::NotExecuted`].
    pub fn validate(&self) -> Result<(), ModelError> {
        self.validate_in("config.json")
    }

    fn validate_in(&self, file: &str) -> Result<(), ModelError> {
        self.validate_sizes(file)?;
        self.validate_attention(file)?;
        let bad = |key: &str, got: String, expected: &str| {
            let (file, key, expected) = (file.to_owned(), key.to_owned(), expected.to_owned());
            Err(ModelError::BadValue { file, key, got, expected })
        };
        if !(self.norm.eps.is_finite() && self.norm.eps > 0.0) {
            return bad(self.keys.eps, self.norm.eps.to_string(), "a small positive number");
        }
        let not_executed =
            |what: &str, way_out| Err(ModelError::NotExecuted { what: what.to_owned(), way_out });
        match &self.positions {
            Positions::Rotary(rotary) => {
                let (rotated, head_dim) = (rotary.rotary_dim, self.attention.head_dim);
                let even = rotated.is_multiple_of(2) && rotated > 0;
                if !even && rotated == head_dim {
                    let expected = "an even number: rotary embedding turns pairs of elements";
                    return bad(self.keys.head_dim, rotated.to_string(), expected);
                }
                if !even || rotated > head_dim {
                    let expected = format!("an even number from 2 to {head_dim}, the head's size");
                    return bad("rotary_dim", rotated.to_string(), &expected);
                }
                if !(rotary.theta.is_finite() && rotary.theta > 1.0) {
                    return bad("rope_theta", rotary.theta.to_string(), "a number above 1");
                }
                rotary.scaling.validate(rotary.rotary_dim, file)?;
            }
            Positions::Alibi { max_bias } => {
                if !(max_bias.is_finite() && *max_bias > 0.0) {
                    return bad("alibi_bias_max", max_bias.to_string(), "a positive number");
                }
            }
            Positions::Learned => {
                let way_out = "models with rotary embedding or ALiBi are";
                return not_executed("a learned position embedding", way_out);
            }
        }
        if self.attention.clip.is_some() {
            return not_executed("clipping of q, k and v (clip_qkv)", "models without it are");
        }
        if self.head.tied && (self.head.normalised || self.head.bias) {
            return not_executed(
                "a tied head that is normalised or has a bias",
                "untied heads are",
            );
        }
        if self.norm.bias && self.norm.kind == NormKind::Rms {
            return not_executed("a bias in an RMS norm", "layer norms may have one");
        }
        Ok(())
    }

    fn validate_sizes(&self, file: &str) -> Result<(), ModelError> {
        let Sizes { layers, hidden, feed_forward, vocabulary, max_positions } = self.sizes;
        let AttentionSpec { heads, kv_heads, head_dim, .. } = self.attention;
        let keys = self.keys;
        let limits = [
            (keys.layers, layers, MAX_LAYERS),
            (keys.hidden, hidden, MAX_SIZE),
            (keys.feed_forward, feed_forward, MAX_SIZE),
            (keys.vocabulary, vocabulary, MAX_SIZE),
            (keys.max_positions, max_positions, MAX_POSITIONS),
            (keys.heads, heads, MAX_SIZE),
            (keys.kv_heads, kv_heads, MAX_SIZE),
            (keys.head_dim, head_dim, MAX_SIZE / heads.clamp(1, MAX_SIZE)),
        ];
        for (key, got, limit) in limits {
            if got == 0 || got > limit {
                return Err(ModelError::BadValue {
                    file: file.to_owned(),
                    key: key.to_owned(),
                    got: got.to_string(),
                    expected: format!("1 to {limit}"),
                });
            }
        }
        Ok(())
    }

    fn validate_attention(&self, file: &str) -> Result<(), ModelError> {
        let AttentionSpec { heads, kv_heads, windows, .. } = &self.attention;
        let bad = |key: &str, got: usize, expected: String| {
            let (file, key, got) = (file.to_owned(), key.to_owned(), got.to_string());
            Err(ModelError::BadValue { file, key, got, expected })
        };
        if heads % kv_heads != 0 {
            let expected = format!("a divisor of `{}`, {heads}", self.keys.heads);
            return bad(self.keys.kv_heads, *kv_heads, expected);
        }
        if windows.len() != self.sizes.layers {
            let expected = format!("one entry for each of {} layers", self.sizes.layers);
            return bad("layer_types", windows.len(), expected);
        }
        if windows.contains(&Some(0)) {
            return bad("sliding_window", 0, "1 or more, or null".to_owned());
        }
        Ok(())
    }

    /// The context in tokens where nobody asks for one: the longest, but not one that would change the
    /// rotary frequencies of short prompts.
    #[must_use]
    pub fn default_context(&self) -> usize {
        let longest = self.sizes.max_positions;
        match &self.positions {
            Positions::Rotary(rotary) => {
                rotary.scaling.unstretched().map_or(longest, |tokens| tokens.min(longest))
            }
            Positions::Alibi { .. } | Positions::Learned => longest,
        }
    }

    /// The attention of one layer, as back ends want it.
    #[must_use]
    pub fn attention_shape(&self, layer: usize) -> AttentionShape {
        let AttentionSpec { heads, kv_heads, head_dim, ref windows, scale, .. } = self.attention;
        let alibi_slopes = match self.positions {
            Positions::Alibi { max_bias } => Some(alibi_slopes(heads, max_bias)),
            Positions::Rotary(_) | Positions::Learned => None,
        };
        AttentionShape {
            heads,
            kv_heads,
            head_dim,
            scale: scale.unwrap_or(1.0 / (head_dim as f32).sqrt()),
            window: windows[layer],
            alibi_slopes,
            kv_ranges: None,
            precision: AttentionPrecision::F32,
        }
    }
}

/// ALiBi's slope of each head: 2^(−max_bias·i/H) for i = 1..=H when H is a power of two; else those
/// of the next power of two, every second one first (Press et al. 2022, and MPT).
fn alibi_slopes(heads: usize, max_bias: f32) -> Vec<f32> {
    let whole = heads.next_power_of_two();
    let slope = |i: usize| (-max_bias * i as f32 / whole as f32).exp2();
    if whole == heads {
        return (1..=heads).map(slope).collect();
    }
    let every_second = (2..=whole).step_by(2).chain((1..=whole).step_by(2));
    every_second.take(heads).map(slope).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alibi_slopes_are_those_of_the_paper() {
        assert_eq!(
            alibi_slopes(8, 8.0),
            [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625]
        );
        // Six heads: the four of a 4-head model, then two from between them in an 8-head one.
        assert_eq!(alibi_slopes(6, 8.0), [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]);
    }
}
