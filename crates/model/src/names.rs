//! What a family's files call things: the vocabulary of names that a family file fills in.

/// The module names of a family's tensors. A module `m` owns `m.weight` and, if it has one,
/// `m.bias`. In names of a layer, `{layer}` stands for its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorNames {
    /// The embedding table, `[V, C]`.
    pub embedding: &'static str,
    /// The norm before attention.
    pub attention_norm: &'static str,
    /// The q, k and v projections.
    pub qkv: QkvNames,
    /// The RMS norms of query heads and of key heads, `[D]`.
    pub head_norms: [&'static str; 2],
    /// The projection of attention's output, `[C, H·D]`.
    pub attention_out: &'static str,
    /// The norm before the feed-forward network; not read where that shares attention's.
    pub feed_forward_norm: &'static str,
    /// What the feed-forward network starts with: gate and up, or the one matrix, `[F, C]` each.
    pub feed_forward_in: &'static [&'static str],
    /// What it ends with, `[C, F]`.
    pub feed_forward_out: &'static str,
    /// The norm before the head.
    pub final_norm: &'static str,
    /// The head, `[V, C]`; not needed where it is tied to the embedding.
    pub head: &'static str,
}

/// How the q, k and v projections are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkvNames {
    /// Three matrices: `[H·D, C]`, `[G·D, C]`, `[G·D, C]`.
    Separate([&'static str; 3]),
    /// One matrix: all queries, all keys, all values (MPT, Baichuan).
    Stacked(&'static str),
    /// One matrix: for each key/value head its H/G queries, its key, its value (Falcon).
    Grouped(&'static str),
}

/// What a family's configuration calls the sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigKeys {
    /// L.
    pub layers: &'static str,
    /// C.
    pub hidden: &'static str,
    /// F.
    pub feed_forward: &'static str,
    /// V.
    pub vocabulary: &'static str,
    /// The longest context.
    pub max_positions: &'static str,
    /// H.
    pub heads: &'static str,
    /// G.
    pub kv_heads: &'static str,
    /// D.
    pub head_dim: &'static str,
    /// ε of the norms.
    pub eps: &'static str,
}
