//! Which stored tensors a network is made of, with the shapes its description gives them.
//!
//! The one list behind loading, the memory plan and every message about a tensor.

use std::ops::Range;

use bantam_checkpoint::{Checkpoint, CheckpointError, StoredTensor, TensorView};

use crate::arch::{ArchSpec, AttentionSpec, Residual};
use crate::error::ModelError;
use crate::names::QkvNames;
use crate::precision::LinearRole;
use crate::unread::IgnoredTensors;

/// A linear layer as the decoder runs it, and the stored matrices that its rows come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLinear {
    /// What it does.
    pub role: LinearRole,
    /// N, output features of the whole.
    pub n: usize,
    /// K, input features.
    pub k: usize,
    /// Whether each part has a bias beside its weight.
    pub bias: bool,
    /// The stored matrices, stacked along N in this order.
    pub parts: Vec<StoredPart>,
}

/// A stored matrix `[rows, K]`, and which of its rows to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPart {
    /// The module: `module.weight`, and `module.bias` if there is one.
    pub module: String,
    /// Rows as stored.
    pub rows: usize,
    /// The rows in the order the decoder wants them.
    pub taken: Vec<Range<usize>>,
    /// What the number of rows follows from, in words.
    rows_from: String,
}

impl StoredPart {
    fn whole(module: String, rows: usize, rows_from: String) -> Self {
        Self { module, rows, taken: std::iter::once(0..rows).collect(), rows_from }
    }
}

/// A tensor that the checkpoint must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeededTensor {
    /// Its Hugging Face name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The keys of the configuration that the shape follows from.
    pub keys: String,
}

/// `key value`, as messages cite the configuration.
fn cite(key: &str, value: usize) -> String {
    format!("`{key}` {value}")
}

impl ArchSpec {
    /// The four linear layers of a decoder layer, in the order they run.
    #[must_use]
    pub fn linears(&self, layer: usize) -> [StoredLinear; 4] {
        let (hidden, names) = (self.sizes.hidden, self.names);
        let attended = self.attention.heads * self.attention.head_dim;
        let from_hidden = cite(self.keys.hidden, hidden);
        let one = |name: &str, rows| {
            vec![StoredPart::whole(in_layer(name, layer), rows, from_hidden.clone())]
        };
        let inner = self.sizes.feed_forward;
        let inner_columns = self.feed_forward.kind.input_columns(inner);
        let from_inner = cite(self.keys.feed_forward, inner);
        // Gate and up may be stored as one matrix already.
        let rows = inner_columns / names.feed_forward_in.len().max(1);
        let input =
            |name: &&str| StoredPart::whole(in_layer(name, layer), rows, from_inner.clone());
        let inputs = names.feed_forward_in.iter().map(input).collect();
        [
            self.qkv(layer),
            StoredLinear {
                role: LinearRole::AttentionOut,
                n: hidden,
                k: attended,
                bias: self.attention.out_bias,
                parts: one(names.attention_out, hidden),
            },
            StoredLinear {
                role: LinearRole::FeedForwardIn,
                n: inner_columns,
                k: hidden,
                bias: self.feed_forward.bias,
                parts: inputs,
            },
            StoredLinear {
                role: LinearRole::FeedForwardOut,
                n: hidden,
                k: inner,
                bias: self.feed_forward.bias,
                parts: one(names.feed_forward_out, hidden),
            },
        ]
    }

    fn qkv(&self, layer: usize) -> StoredLinear {
        let shape = &self.attention;
        let (heads, kv_heads, dim) = (shape.heads, shape.kv_heads, shape.head_dim);
        let (q_rows, kv_rows) = (heads * dim, kv_heads * dim);
        let n = q_rows + 2 * kv_rows;
        let from_head_dim = cite(self.keys.head_dim, dim);
        let from_heads = format!("{} × {from_head_dim}", cite(self.keys.heads, heads));
        let from_kv_heads = format!("{} × {from_head_dim}", cite(self.keys.kv_heads, kv_heads));
        let fused = |name: &str, taken| {
            let rows_from = format!("{from_heads} and {from_kv_heads}");
            vec![StoredPart { module: in_layer(name, layer), rows: n, taken, rows_from }]
        };
        let parts = match self.names.qkv {
            QkvNames::Separate([q, k, v]) => [
                (q, q_rows, &from_heads),
                (k, kv_rows, &from_kv_heads),
                (v, kv_rows, &from_kv_heads),
            ]
            .map(|(name, rows, from)| StoredPart::whole(in_layer(name, layer), rows, from.clone()))
            .into(),
            QkvNames::Stacked(name) => fused(name, std::iter::once(0..n).collect()),
            QkvNames::Grouped(name) => {
                let group = heads / kv_heads;
                // Head `i` of the group that belongs to key/value head `g`.
                let stored = |g: usize, i: usize, count: usize| {
                    let first = (g * (group + 2) + i) * dim;
                    first..first + count * dim
                };
                let of_each = |i, count| (0..kv_heads).map(move |g| stored(g, i, count));
                let taken = of_each(0, group).chain(of_each(group, 1)).chain(of_each(group + 1, 1));
                fused(name, taken.collect())
            }
        };
        let bias = shape.qkv_bias;
        StoredLinear { role: LinearRole::Qkv, n, k: self.sizes.hidden, bias, parts }
    }

    /// The embedding table, `[V, C]`.
    #[must_use]
    pub fn embedding(&self) -> StoredLinear {
        self.table(LinearRole::Embedding, self.names.embedding, false)
    }

    /// The head, `[V, C]`; none if it is the embedding table.
    #[must_use]
    pub fn untied_head(&self) -> Option<StoredLinear> {
        let head = || self.table(LinearRole::Head, self.names.head, self.head.bias);
        (!self.head.tied).then(head)
    }

    fn table(&self, role: LinearRole, module: &str, bias: bool) -> StoredLinear {
        let rows = self.sizes.vocabulary;
        let part = StoredPart::whole(module.to_owned(), rows, cite(self.keys.vocabulary, rows));
        StoredLinear { role, n: rows, k: self.sizes.hidden, bias, parts: vec![part] }
    }

    /// Whether feed-forward has a norm of its own.
    pub(crate) fn has_feed_forward_norm(&self) -> bool {
        self.residual != Residual::Parallel { shared_norm: true }
    }

    /// The vectors of one layer that are not biases of linear layers: name and length.
    fn layer_vectors(&self, layer: usize) -> Vec<(String, usize, String)> {
        let mut vectors = self.norm_vectors(&in_layer(self.names.attention_norm, layer));
        if self.has_feed_forward_norm() {
            vectors.extend(self.norm_vectors(&in_layer(self.names.feed_forward_norm, layer)));
        }
        if self.attention.head_norm {
            let dim = self.attention.head_dim;
            vectors.extend(self.names.head_norms.iter().map(|name| {
                (weight_of(&in_layer(name, layer)), dim, cite(self.keys.head_dim, dim))
            }));
        }
        vectors
    }

    fn norm_vectors(&self, module: &str) -> Vec<(String, usize, String)> {
        let keys = cite(self.keys.hidden, self.sizes.hidden);
        let vector = |name| (name, self.sizes.hidden, keys.clone());
        let bias = self.norm.bias.then(|| vector(bias_of(module)));
        std::iter::once(vector(weight_of(module))).chain(bias).collect()
    }

    /// Every tensor that the network reads, but for the weights of layers that the checkpoint has
    /// quantized: their tensors are those of their format.
    #[must_use]
    pub fn needed_tensors(&self) -> Vec<NeededTensor> {
        let mut needed = Vec::new();
        let mut add_linear = |linear: &StoredLinear| {
            let input = match linear.role {
                LinearRole::AttentionOut => {
                    let AttentionSpec { heads, head_dim, .. } = self.attention;
                    let heads = cite(self.keys.heads, heads);
                    format!("{heads} × {}", cite(self.keys.head_dim, head_dim))
                }
                LinearRole::FeedForwardOut => cite(self.keys.feed_forward, linear.k),
                _ => cite(self.keys.hidden, linear.k),
            };
            for part in &linear.parts {
                let keys = format!("{}, {input}", part.rows_from);
                if !self.is_quantized(linear, part) {
                    let (name, shape) = (weight_of(&part.module), vec![part.rows, linear.k]);
                    needed.push(NeededTensor { name, shape, keys });
                }
                if linear.bias {
                    let (name, keys) = (bias_of(&part.module), part.rows_from.clone());
                    needed.push(NeededTensor { name, shape: vec![part.rows], keys });
                }
            }
        };
        add_linear(&self.embedding());
        for layer in 0..self.sizes.layers {
            self.linears(layer).iter().for_each(&mut add_linear);
        }
        if let Some(head) = self.untied_head() {
            add_linear(&head);
        }
        let mut vectors: Vec<_> =
            (0..self.sizes.layers).flat_map(|layer| self.layer_vectors(layer)).collect();
        vectors.extend(self.norm_vectors(self.names.final_norm));
        let shaped = |(name, length, keys)| NeededTensor { name, shape: vec![length], keys };
        needed.extend(vectors.into_iter().map(shaped));
        needed
    }

    /// Checks that the checkpoint holds every tensor of the network in its shape, and no other that has
    /// a part in the model. Returns the others.
    ///
    /// [`Decoder::load`](crate::Decoder::load) does so first; a caller that plans or measures
    /// something before loading can refuse a bad checkpoint sooner. It reads no weights.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], [`ModelError::TensorShape`] or [`ModelError::UnreadTensors`],
    /// which name the file and the tensors.
    pub fn check_tensors(
        &self,
        checkpoint: &Checkpoint,
    ) -> Result<Vec<IgnoredTensors>, ModelError> {
        let needed = self.needed_tensors();
        for tensor in &needed {
            let found = find(checkpoint, &tensor.name, &tensor.shape)?;
            if found.shape != tensor.shape {
                return Err(ModelError::TensorShape {
                    file: found.file().display().to_string(),
                    tensor: tensor.name.clone(),
                    got: found.shape.to_vec(),
                    expected: format!("{:?} by {}", tensor.shape, tensor.keys),
                });
            }
        }
        let mut read: Vec<String> = needed.into_iter().map(|tensor| tensor.name).collect();
        for StoredTensor { name, shapes, optional } in self.quantized_tensors()? {
            if !optional || checkpoint.has_tensor(&name) {
                let found = find(checkpoint, &name, &shapes[0])?;
                if !shapes.iter().any(|shape| shape == found.shape) {
                    return Err(ModelError::TensorShape {
                        file: found.file().display().to_string(),
                        tensor: name,
                        got: found.shape.to_vec(),
                        expected: shapes
                            .iter()
                            .map(|s| format!("{s:?}"))
                            .collect::<Vec<_>>()
                            .join(" or "),
                    });
                }
            }
            read.push(name);
        }
        if self.head.tied {
            read.push(weight_of(self.names.head)); // compared with the embedding on loading
        }
        read.push(ROPE_DIVISORS.to_owned());
        read.extend(self.kv_scale_names());
        read.sort_unstable();
        self.ignored(checkpoint, &read)
    }
}

/// A tensor that must be there, in this shape.
fn find<'a>(
    checkpoint: &'a Checkpoint,
    name: &str,
    shape: &[usize],
) -> Result<TensorView<'a>, ModelError> {
    checkpoint.tensor(name).map_err(|error| match error {
        CheckpointError::UnknownTensor { path, name, nearest } => ModelError::MissingTensor {
            file: path.display().to_string(),
            tensor: name,
            expected: shape.to_vec(),
            nearest: nearest.join(", "),
        },
        other => other.into(),
    })
}

/// The tensor of GGUF files that divides rotary frequencies.
pub(crate) const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// A module's name in one layer.
pub(crate) fn in_layer(name: &str, layer: usize) -> String {
    name.replace("{layer}", &layer.to_string())
}

pub(crate) fn weight_of(module: &str) -> String {
    format!("{module}.weight")
}

pub(crate) fn bias_of(module: &str) -> String {
    format!("{module}.bias")
}
