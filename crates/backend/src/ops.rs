//! The operations of a back end, and the contracts they keep.

use crate::{BackendError, Batch, LinearInput};
use bantam_numerics::reference::{Activation, RotaryPairs};
use bantam_numerics::{ActivationFormat, KvFormat, KvRanges, PackedWeight};

/// Whether a linear layer replaces its output or adds to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// `out = x·Wᵀ + b`.
    Replace,
    /// `out += x·Wᵀ + b`: the residual connection, without a pass of its own.
    Add,
}

/// Which normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Divides by the root mean square.
    Rms,
    /// Subtracts the mean, then divides by the standard deviation.
    Layer,
}

/// A normalisation with its parameters on the device.
#[derive(Clone, Debug)]
pub struct Norm<V> {
    /// RMS or layer norm.
    pub kind: NormKind,
    /// γ, `[C]`.
    pub weight: V,
    /// β, `[C]`; layer norm only.
    pub bias: Option<V>,
    /// ε, added to the mean square or variance.
    pub eps: f32,
}

/// RMS norms over each query and key head before rotation (Qwen3).
#[derive(Clone, Debug)]
pub struct HeadNorm<V> {
    /// γ of the queries, `[D]`.
    pub q: V,
    /// γ of the keys, `[D]`.
    pub k: V,
    /// ε.
    pub eps: f32,
}

/// Rotary position embedding as a table: the model computes the angles, whatever its scaling rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Rotated elements of each head, even and at most D.
    pub rotary_dim: usize,
    /// Which elements rotate together.
    pub pairs: RotaryPairs,
    /// Cosines, `[positions, rotary_dim/2]`.
    pub cos: Vec<f32>,
    /// Sines, `[positions, rotary_dim/2]`.
    pub sin: Vec<f32>,
}

impl Rope {
    /// Positions that the table covers.
    #[must_use]
    pub fn positions(&self) -> usize {
        2 * self.cos.len() / self.rotary_dim.max(1)
    }

    /// Cosines and sines of one position, `[rotary_dim/2]` each.
    ///
    /// # Panics
    /// If the table does not reach the position.
    #[must_use]
    pub fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let half = self.rotary_dim / 2;
        let row = position * half..(position + 1) * half;
        (&self.cos[row.clone()], &self.sin[row])
    }
}

/// The precision in which attention's queries and probabilities meet cached keys and values, whose
/// codes are exact in either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionPrecision {
    /// As computed.
    F32,
    /// A back end may round them to bf16, but over an f32 cache.
    Bf16,
}

/// The sizes and rules of an attention layer.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionShape {
    /// H, query heads.
    pub heads: usize,
    /// G, key/value heads; divides H.
    pub kv_heads: usize,
    /// D, elements of a head.
    pub head_dim: usize,
    /// Factor on q·k, usually 1/√D.
    pub scale: f32,
    /// Keys a token sees, itself included; none for all.
    pub window: Option<usize>,
    /// ALiBi: key at distance d is penalised by `slope·d`; one slope a query head (Press et al. 2022).
    pub alibi_slopes: Option<Vec<f32>>,
    /// Calibrated ranges for a cache with scales; none to find a scale for each token and head.
    pub kv_ranges: Option<KvRanges>,
    /// How exactly it is computed.
    pub precision: AttentionPrecision,
}

impl AttentionShape {
    /// Columns of the fused projection: H·D queries, then G·D keys, then G·D values.
    #[must_use]
    pub fn qkv_columns(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// The first position that a token at `position` sees.
    #[must_use]
    pub fn first_visible(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

/// What happens between the two matrices of a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForward {
    /// `act(gate) ⊙ up`, the input being `[T, 2F]`: all gates, then all ups.
    Gated(Activation),
    /// `act(x)`, the input being `[T, F]`.
    Plain(Activation),
}

impl FeedForward {
    /// Input columns for `f` output columns.
    #[must_use]
    pub fn input_columns(self, f: usize) -> usize {
        match self {
            Self::Gated(_) => 2 * f,
            Self::Plain(_) => f,
        }
    }
}

/// The shape of a paged key/value cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// L, layers.
    pub layers: usize,
    /// B, blocks; shared by all sequences.
    pub blocks: usize,
    /// S, tokens that a block holds.
    pub block_tokens: usize,
    /// G, key/value heads.
    pub kv_heads: usize,
    /// D, elements of a head.
    pub head_dim: usize,
    /// Number format.
    pub format: KvFormat,
}

impl KvLayout {
    /// Bytes of one block over all layers, keys and values.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        let vectors = 2 * self.layers * self.block_tokens * self.kv_heads;
        vectors * self.format.vector_bytes(self.head_dim)
    }

    /// Bytes of the whole cache.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.blocks * self.block_bytes()
    }
}

/// A device that runs a transformer.
///
/// Tensors hold f32 rows `[T, columns]`; an operand is a tensor in the form that a linear layer
/// reads, made once by the operation that computed it, after the layer's [`LinearInput`]. Both are made for a maximal number of rows and
/// remember how many the last operation wrote, so a step allocates nothing. Every operation checks
/// its shapes.
///
/// **Batch invariance.** Each output row is a function of its own inputs: the order of every sum is
/// fixed by the shapes of the model, never by the number of rows or of threads. So a row's bits do
/// not depend on its neighbours in the batch.
pub trait Backend: Send + Sync {
    /// A linear layer's weight in the device's own order.
    type Weight: Send + Sync;
    /// A short constant vector: norm weights, biases.
    type Vector: Send + Sync;
    /// f32 activations, `[rows, columns]`.
    type Tensor: Send + Sync;
    /// Activations as linear layers read them, `[rows, columns]`.
    type Operand: Send + Sync;
    /// A paged key/value cache.
    type Cache: Send;

    /// The device in words, such as `cpu (AVX-512 BF16, 2 threads)`.
    fn describe(&self) -> String;

    /// S, the block size that suits the device, in tokens.
    fn block_tokens(&self) -> usize;

    /// Repacks a weight for this device.
    ///
    /// # Errors
    /// If the device cannot run its scheme, for whose activations it is packed.
    fn weight(&self, weight: PackedWeight) -> Result<Self::Weight, BackendError>;

    /// Moves a constant vector to the device.
    fn vector(&self, values: &[f32]) -> Self::Vector;

    /// A tensor of at most `rows` rows.
    fn tensor(&self, rows: usize, columns: usize) -> Self::Tensor;

    /// An operand of at most `rows` rows of a format, or of one that takes no more bytes.
    fn operand(&self, rows: usize, columns: usize, format: ActivationFormat) -> Self::Operand;

    /// An empty cache.
    ///
    /// # Errors
    /// If the device cannot hold this layout.
    fn cache(&self, layout: &KvLayout) -> Result<Self::Cache, BackendError>;

    /// Takes all memory of a cache from the system, where it would otherwise be taken as blocks are
    /// first used. What the cache holds stays as it is.
    fn reserve(&self, cache: &mut Self::Cache) {
        let _ = cache;
    }

    /// Writes `values: [rows, columns]` into a tensor.
    ///
    /// # Errors
    /// If they are not whole rows or too many.
    fn write(&self, values: &[f32], out: &mut Self::Tensor) -> Result<(), BackendError>;

    /// Reads a tensor back, `[rows, columns]`.
    fn read(&self, x: &Self::Tensor) -> Vec<f32>;

    /// Reads an operand back, `[rows, columns]`: codes times scales.
    fn read_operand(&self, x: &Self::Operand) -> Vec<f32>;

    /// Rows of the embedding table `[V, C]`: `out[t] = table[tokens[t]]`, `[T, C]`.
    ///
    /// # Errors
    /// On a shape mismatch or a token id ≥ V.
    fn embed(
        &self,
        table: &Self::Weight,
        tokens: &[u32],
        out: &mut Self::Tensor,
    ) -> Result<(), BackendError>;

    /// Chosen rows of a tensor: `out[i] = x[rows[i]]`.
    ///
    /// # Errors
    /// On a shape mismatch or a row out of range.
    fn select_rows(
        &self,
        x: &Self::Tensor,
        rows: &[u32],
        out: &mut Self::Tensor,
    ) -> Result<(), BackendError>;

    /// Leaves rows for the next linear layer as they are.
    ///
    /// # Errors
    /// On a shape mismatch, or if the operand was made for a smaller format.
    fn round(
        &self,
        x: &Self::Tensor,
        input: &LinearInput<Self::Vector>,
        out: &mut Self::Operand,
    ) -> Result<(), BackendError>;

    /// Normalises each row `[C]` and leaves it for the next linear layer.
    ///
    /// # Errors
    /// As [`round`](Self::round).
    fn norm(
        &self,
        x: &Self::Tensor,
        norm: &Norm<Self::Vector>,
        input: &LinearInput<Self::Vector>,
        out: &mut Self::Operand,
    ) -> Result<(), BackendError>;

    /// `out = x·Wᵀ + b` or `out += x·Wᵀ + b`: `x: [T, K]`, `W: [N, K]`, `out: [T, N]`.
    ///
    /// # Errors
    /// On a shape mismatch, or if the operand's format is not the weight's activation format.
    fn linear(
        &self,
        x: &Self::Operand,
        weight: &Self::Weight,
        bias: Option<&Self::Vector>,
        store: Store,
        out: &mut Self::Tensor,
    ) -> Result<(), BackendError>;

    /// Prepares the fused projection `qkv: [T, (H+2G)·D]` for attention: normalises heads, rotates
    /// queries and keys in place, and appends keys and values to the cache of `layer`.
    ///
    /// # Errors
    /// On a shape mismatch, or if a table does not reach a position.
    #[allow(clippy::too_many_arguments)] // one fused op: splitting it would cost passes over memory
    fn append(
        &self,
        qkv: &mut Self::Tensor,
        shape: &AttentionShape,
        head_norm: Option<&HeadNorm<Self::Vector>>,
        rope: Option<&Rope>,
        batch: &Batch,
        layer: usize,
        cache: &mut Self::Cache,
    ) -> Result<(), BackendError>;

    /// Causal attention of every row's queries over its own sequence's cached keys and values:
    /// `qkv: [T, (H+2G)·D]` after [`append`](Self::append), `out: [T, H·D]`.
    ///
    /// # Errors
    /// As [`round`](Self::round).
    #[allow(clippy::too_many_arguments)] // what to read, how, and how to leave it
    fn attention(
        &self,
        qkv: &Self::Tensor,
        shape: &AttentionShape,
        batch: &Batch,
        layer: usize,
        cache: &Self::Cache,
        input: &LinearInput<Self::Vector>,
        out: &mut Self::Operand,
    ) -> Result<(), BackendError>;

    /// The non-linearity of a feed-forward network, `out: [T, F]`.
    ///
    /// # Errors
    /// As [`round`](Self::round).
    fn feed_forward(
        &self,
        x: &Self::Tensor,
        kind: FeedForward,
        input: &LinearInput<Self::Vector>,
        out: &mut Self::Operand,
    ) -> Result<(), BackendError>;
}
