//! Tensor names as tools publish them, and as the families of this program know them.
//!
//! One model is saved as `model.layers.0…` by its causal class, as `layers.0…` by its base class, and
//! under a prefix by a wrapper around it: parallel training, compilation, a vision model. The names are
//! put right when a folder is opened, so that nothing after it needs to know.

use serde_json::Value;

use crate::tensor::TensorEntry;

/// Where a decoder's tensors may be: the prefix of its embedding, layers and last norm, and that of
/// its head. The first is what the families know.
const PLACES: [(&str, &str); 10] = [
    ("model.", ""),
    // Base classes: `LlamaModel` and its kin.
    ("", ""),
    // Vision and audio models around a decoder, before and after transformers 4.52.
    ("language_model.model.", "language_model."),
    ("model.language_model.", ""),
    ("model.language_model.model.", "model.language_model."),
    // Wrappers of training: DataParallel, torch.compile, an adapter that was merged.
    ("module.model.", "module."),
    ("_orig_mod.model.", "_orig_mod."),
    ("base_model.model.model.", "base_model.model."),
    ("transformer.", ""),
    ("model.model.", "model."),
];

/// The embedding, the last norm and the layers, less the prefix; and the head, less its own.
const PARTS: [&str; 3] = ["embed_tokens.", "norm.", "layers."];
const HEAD: &str = "lm_head.";

/// Gives the tensors of a folder the names that families know, and says what was there instead.
pub(crate) fn unify(tensors: &mut [TensorEntry], config: &Value) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(prefix) = remove_prefix(tensors) {
        let prefix = if prefix.is_empty() { "no prefix" } else { prefix };
        notes.push(format!("its tensors are stored with {prefix} in place of `model.`"));
    }
    // One tensor of a tied pair is enough, and libraries keep either.
    let named = |name: &str| tensors.iter().position(|tensor| tensor.name == name);
    let tied = config["tie_word_embeddings"] == true;
    if let (true, None, Some(head)) = (tied, named(EMBEDDING), named(HEAD_WEIGHT)) {
        tensors[head].name = EMBEDDING.to_owned();
        notes.push(format!("the embedding is stored as {HEAD_WEIGHT}, to which it is tied"));
    }
    notes
}

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD_WEIGHT: &str = "lm_head.weight";

/// Puts `model.` where another prefix is; returns it.
fn remove_prefix(tensors: &mut [TensorEntry]) -> Option<&'static str> {
    let is_of = |name: &str, prefix: &str, parts: &[&str]| {
        let rest = name.strip_prefix(prefix);
        rest.is_some_and(|rest| parts.iter().any(|part| rest.starts_with(part)))
    };
    let count =
        |prefix: &str| tensors.iter().filter(|tensor| is_of(&tensor.name, prefix, &PARTS)).count();
    // Of equals the first: the usual names stay as they are.
    let (mut best, mut most) = (PLACES[0], count(PLACES[0].0));
    for place in &PLACES[1..] {
        let found = count(place.0);
        if found > most {
            (best, most) = (*place, found);
        }
    }
    let (body, head) = best;
    if best == PLACES[0] {
        return None;
    }
    for tensor in tensors {
        if is_of(&tensor.name, body, &PARTS) {
            tensor.name.replace_range(..body.len(), PLACES[0].0);
        } else if is_of(&tensor.name, head, &[HEAD]) {
            tensor.name.replace_range(..head.len(), PLACES[0].1);
        }
    }
    Some(body)
}
