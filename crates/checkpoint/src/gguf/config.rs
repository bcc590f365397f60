//! A Hugging Face configuration made from GGUF metadata.

use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use super::names::Architecture;
use super::vocabulary::special_id;
use crate::CheckpointError;
use crate::tensor::TensorEntry;

/// The attention heads of a model, the same in all layers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    /// H: query heads.
    pub(crate) query: usize,
    /// G: key and value heads.
    pub(crate) key_value: usize,
    /// D: elements per head.
    pub(crate) dim: usize,
}

impl Heads {
    /// Reads H, G and D of `general.architecture`.
    pub(crate) fn of(metadata: &Metadata) -> Result<Self, CheckpointError> {
        let keys = Keys::of(metadata)?;
        let query: usize = keys.required_integer("attention.head_count")?;
        let key_value = keys.integer("attention.head_count_kv")?.unwrap_or(query);
        let dim = match keys.integer("attention.key_length")? {
            Some(dim) => dim,
            None => {
                let hidden: usize = keys.required_integer("embedding_length")?;
                hidden.checked_div(query).unwrap_or(0)
            }
        };
        if let Some(value_dim) = keys.integer::<usize>("attention.value_length")?
            && value_dim != dim
        {
            let problem = format!("is {value_dim}, keys have {dim}; only equal lengths are read");
            return Err(keys.error("attention.value_length", problem));
        }
        if query == 0 || key_value == 0 || !query.is_multiple_of(key_value) {
            let problem = format!("{query} query heads do not share {key_value} key heads evenly");
            return Err(keys.error("attention.head_count", problem));
        }
        if dim == 0 || !dim.is_multiple_of(2) {
            let problem = format!("heads of {dim} elements; RoPE needs an even number");
            return Err(keys.error("attention.head_count", problem));
        }
        Ok(Self { query, key_value, dim })
    }
}

/// Integers that go into the configuration as they are: GGUF key, Hugging Face key, required.
const INTEGERS: [(&str, &str, bool); 5] = [
    ("embedding_length", "hidden_size", true),
    ("block_count", "num_hidden_layers", true),
    ("feed_forward_length", "intermediate_size", true),
    ("context_length", "max_position_embeddings", true),
    ("attention.sliding_window", "sliding_window", false),
];

/// Token ids of the tokenizer that a configuration repeats.
const TOKEN_IDS: [(&str, &str); 3] = [
    ("tokenizer.ggml.bos_token_id", "bos_token_id"),
    ("tokenizer.ggml.eos_token_id", "eos_token_id"),
    ("tokenizer.ggml.padding_token_id", "pad_token_id"),
];

/// The RoPE base of files that give none.
const DEFAULT_ROPE_THETA: f64 = 10_000.0;

/// Refuses a network that no family of ours computes, before its tensors are looked at.
pub(crate) fn check_supported(metadata: &Metadata) -> Result<(), CheckpointError> {
    let keys = Keys::of(metadata)?;
    if keys.integer("expert_count")?.unwrap_or(0) > 0 {
        let problem = "a mixture of experts; mixtures of experts are not read from GGUF; pass a dense \
                       model";
        return Err(keys.error("expert_count", problem.to_owned()));
    }
    Ok(())
}

/// Makes config.json. `tensors` have their Hugging Face names and are sorted by them.
pub(crate) fn hugging_face(
    metadata: &Metadata,
    architecture: &Architecture,
    heads: Heads,
    tensors: &[TensorEntry],
) -> Result<Value, CheckpointError> {
    let keys = Keys::of(metadata)?;
    let mut config = Map::new();
    let mut set = |key: &str, value: Value| {
        config.insert(key.to_owned(), value);
    };
    set("architectures", json!([architecture.class]));
    set("model_type", json!(architecture.name));
    for (gguf, hugging_face, required) in INTEGERS {
        match keys.integer::<u64>(gguf)? {
            Some(value) => set(hugging_face, json!(value)),
            None if required => return Err(keys.error(gguf, "missing".to_owned())),
            None => {}
        }
    }
    set("num_attention_heads", json!(heads.query));
    set("num_key_value_heads", json!(heads.key_value));
    set("head_dim", json!(heads.dim));
    set("hidden_act", json!("silu"));
    let epsilon = "attention.layer_norm_rms_epsilon";
    set("rms_norm_eps", json!(metadata.required(&keys.full(epsilon), keys.float(epsilon)?)?));
    set("rope_theta", json!(keys.float("rope.freq_base")?.unwrap_or(DEFAULT_ROPE_THETA)));
    set("rope_scaling", rope_scaling(&keys)?);
    if let Some(rotated) = keys.integer::<usize>("rope.dimension_count")?
        && rotated != heads.dim
    {
        set("partial_rotary_factor", json!(rotated as f64 / heads.dim as f64));
    }
    for (gguf, hugging_face) in TOKEN_IDS {
        if let Some(id) = special_id(metadata, gguf)? {
            set(hugging_face, json!(id));
        }
    }

    set("vocab_size", json!(vocabulary_size(metadata, tensors)?));
    set("tie_word_embeddings", json!(find(tensors, "lm_head.weight").is_none()));
    let has_bias = |module: &str| {
        let suffix = format!(".{module}.bias");
        tensors.iter().any(|tensor| tensor.name.ends_with(&suffix))
    };
    set("attention_bias", json!(has_bias("self_attn.q_proj")));
    set("mlp_bias", json!(has_bias("mlp.up_proj")));
    Ok(Value::Object(config))
}

/// V: the rows of the embedding, which every id must find.
fn vocabulary_size(metadata: &Metadata, tensors: &[TensorEntry]) -> Result<usize, CheckpointError> {
    const EMBEDDING: &str = "model.embed_tokens.weight";
    match find(tensors, EMBEDDING).map(|tensor| tensor.shape.as_slice()) {
        Some([rows, _]) => Ok(*rows),
        Some(shape) => Err(CheckpointError::Tensor {
            file: metadata.file().to_path_buf(),
            tensor: "token_embd.weight".to_owned(),
            problem: format!("shape {shape:?}, expected [vocabulary, hidden]"),
        }),
        None => Err(CheckpointError::Tensor {
            file: metadata.file().to_path_buf(),
            tensor: "token_embd.weight".to_owned(),
            problem: "missing; no model is without it".to_owned(),
        }),
    }
}

fn find<'a>(tensors: &'a [TensorEntry], name: &str) -> Option<&'a TensorEntry> {
    let at = tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name)).ok()?;
    Some(&tensors[at])
}

/// `rope_scaling` of config.json: null, linear, or YaRN. The factors of Llama 3.1 are a tensor.
///
/// As llama.cpp has it (`llama-model.cpp`, `load_hparams`): a factor without a type is linear, an old
/// name of it is `rope.scale_linear`, a factor of 0 is none, and one of 1 changes nothing.
fn rope_scaling(keys: &Keys<'_>) -> Result<Value, CheckpointError> {
    const TYPE: &str = "rope.scaling.type";
    const FACTOR: &str = "rope.scaling.factor";
    const OLD_FACTOR: &str = "rope.scale_linear";
    let factor = match keys.float(FACTOR)? {
        Some(factor) => Some((FACTOR, factor)),
        None => keys.float(OLD_FACTOR)?.map(|factor| (OLD_FACTOR, factor)),
    };
    let factor = factor.filter(|(_, factor)| *factor != 0.0);
    if let Some((key, factor)) = factor.filter(|(_, factor)| *factor < 1.0) {
        return Err(keys.error(key, format!("is {factor}, expected a number from 1")));
    }
    let factor = factor.map_or(1.0, |(_, factor)| factor);
    match keys.text(TYPE)?.unwrap_or("linear") {
        "none" => Ok(Value::Null),
        "linear" if factor == 1.0 => Ok(Value::Null),
        "linear" => Ok(json!({"rope_type": "linear", "factor": factor})),
        "yarn" => yarn(keys, factor),
        other => {
            let problem = format!(
                "is {other:?}; none, linear and yarn are read; pass the safetensors folder of the model"
            );
            Err(keys.error(TYPE, problem))
        }
    }
}

/// YaRN under the names of Hugging Face.
fn yarn(keys: &Keys<'_>, factor: f64) -> Result<Value, CheckpointError> {
    let mut scaling = Map::new();
    scaling.insert("rope_type".to_owned(), json!("yarn"));
    scaling.insert("factor".to_owned(), json!(factor));
    if let Some(length) = keys.integer::<u64>("rope.scaling.original_context_length")? {
        scaling.insert("original_max_position_embeddings".to_owned(), json!(length));
    }
    for (gguf, hugging_face) in YARN_FLOATS {
        if let Some(value) = keys.float(gguf)? {
            scaling.insert(hugging_face.to_owned(), json!(value));
        }
    }
    let mut scale = 1.0;
    for key in YARN_SCALES {
        scale *= keys.float(key)?.unwrap_or(1.0);
    }
    if scale != 1.0 {
        // What GGUF states multiplies the factor of the paper; Hugging Face's stands in its place.
        let paper = if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
        scaling.insert("attention_factor".to_owned(), json!(scale * paper));
    }
    Ok(Value::Object(scaling))
}

/// Optional numbers of YaRN that mean the same in both.
const YARN_FLOATS: [(&str, &str); 2] =
    [("rope.scaling.yarn_beta_fast", "beta_fast"), ("rope.scaling.yarn_beta_slow", "beta_slow")];
/// Factors on the length of rotated vectors.
const YARN_SCALES: [&str; 2] = ["rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor"];

/// Metadata under the prefix of the architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    prefix: &'static str,
}

impl<'a> Keys<'a> {
    fn of(metadata: &'a Metadata) -> Result<Self, CheckpointError> {
        Ok(Self { metadata, prefix: Architecture::of(metadata)?.name })
    }

    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    fn integer<T: TryFrom<i128>>(&self, key: &str) -> Result<Option<T>, CheckpointError> {
        self.metadata.integer(&self.full(key))
    }

    fn required_integer<T: TryFrom<i128>>(&self, key: &str) -> Result<T, CheckpointError> {
        self.metadata.required(&self.full(key), self.integer(key)?)
    }

    fn float(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        self.metadata.float(&self.full(key))
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, CheckpointError> {
        self.metadata.text(&self.full(key))
    }

    fn error(&self, key: &str, problem: String) -> CheckpointError {
        self.metadata.error(&self.full(key), problem)
    }
}
