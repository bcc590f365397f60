//! GGUF tensor names and their Hugging Face counterparts, as data.

use std::path::Path;

use super::config::Heads;
use super::metadata::Metadata;
use crate::CheckpointError;
use crate::tensor::{RowOrder, TensorEntry};

/// A GGUF architecture whose tensors and keys are known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Architecture {
    /// `general.architecture`, the prefix of its metadata keys, and Hugging Face's `model_type`.
    pub(crate) name: &'static str,
    /// The class in `architectures` of config.json.
    pub(crate) class: &'static str,
    /// Whether query and key rows are stored for adjacent-pair rotation. Mistral models are
    /// stored as `llama` as well.
    rope_interleaved: bool,
}

const ARCHITECTURES: [Architecture; 3] = [
    Architecture { name: "llama", class: "LlamaForCausalLM", rope_interleaved: true },
    Architecture { name: "qwen2", class: "Qwen2ForCausalLM", rope_interleaved: false },
    Architecture { name: "qwen3", class: "Qwen3ForCausalLM", rope_interleaved: false },
];

/// Tensors outside the layers: GGUF and Hugging Face name.
const OUTER_NAMES: [(&str, &str); 4] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
    // The RoPE factors of Llama 3.1, [D/2]; Hugging Face derives them from its configuration.
    ("rope_freqs.weight", "rope_freqs.weight"),
];

/// Modules of layer i: `blk.i.GGUF` and `model.layers.i.HF`, with `.weight` or `.bias` after both.
const LAYER_NAMES: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    (QUERY, "self_attn.q_proj"),
    (KEY, "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];
const QUERY: &str = "attn_q";
const KEY: &str = "attn_k";

impl Architecture {
    /// The architecture a file names.
    pub(crate) fn of(metadata: &Metadata) -> Result<&'static Self, CheckpointError> {
        const KEY: &str = "general.architecture";
        let name = metadata.required(KEY, metadata.text(KEY)?)?;
        ARCHITECTURES.iter().find(|architecture| architecture.name == name).ok_or_else(|| {
            let supported: Vec<_> = ARCHITECTURES.iter().map(|known| known.name).collect();
            CheckpointError::UnsupportedArchitecture {
                file: metadata.file().to_path_buf(),
                architecture: name.to_owned(),
                supported: supported.join(", "),
            }
        })
    }

    /// Gives a tensor its Hugging Face name and its row order.
    pub(crate) fn adopt(
        &self,
        file: &Path,
        heads: Heads,
        tensor: &mut TensorEntry,
    ) -> Result<(), CheckpointError> {
        let tensor_error = |problem| CheckpointError::Tensor {
            file: file.to_path_buf(),
            tensor: tensor.name.clone(),
            problem,
        };
        if let Some((_, name)) = OUTER_NAMES.iter().find(|(gguf, _)| *gguf == tensor.name) {
            tensor.name = (*name).to_owned();
            return Ok(());
        }
        let Some((layer, gguf_module, module, part)) = layer_tensor(&tensor.name) else {
            let problem = format!("no such tensor is known in architecture {}", self.name);
            return Err(tensor_error(problem));
        };
        let rotated_heads = match gguf_module {
            QUERY => Some(heads.query),
            KEY => Some(heads.key_value),
            _ => None,
        };
        if let (true, Some(count)) = (self.rope_interleaved, rotated_heads) {
            let rows = tensor.shape.first().copied().unwrap_or(1);
            if count.checked_mul(heads.dim) != Some(rows) {
                return Err(tensor_error(format!(
                    "{rows} rows, expected {count} heads of {} rows",
                    heads.dim
                )));
            }
            tensor.row_order = RowOrder::RopeInterleaved { heads: count, head_dim: heads.dim };
        }
        tensor.name = format!("model.layers.{layer}.{module}.{part}");
        Ok(())
    }
}

/// Takes `blk.LAYER.MODULE.PART` apart: layer, GGUF module, Hugging Face module, part.
fn layer_tensor(name: &str) -> Option<(usize, &'static str, &'static str, &str)> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (module, part) = rest.split_once('.')?;
    let &(gguf, hugging_face) = LAYER_NAMES.iter().find(|(gguf, _)| *gguf == module)?;
    let known_part = part == "weight" || part == "bias";
    known_part.then_some((layer.parse().ok()?, gguf, hugging_face, part))
}
