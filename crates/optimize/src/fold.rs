//! Where factors on a layer's input go: into the operation before, so that running costs nothing.
//!
//! Source: the fold targets of SmoothQuant (Xiao et al. 2023) and AWQ (Lin et al. 2024): a norm's γ
//! and β, the rows of the value projection, the rows of up.

use std::ops::Range;

use bantam_backend::FeedForward;
use bantam_model::{ArchSpec, BlockWeights, LinearRole, Residual};
use half::{bf16, f16};

use crate::ChannelTies;

/// The type that a vector is stored in: folding must not ask more of it than it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VectorType {
    /// binary32.
    F32,
    /// bfloat16.
    BF16,
    /// binary16.
    F16,
}

impl VectorType {
    fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::BF16 => bf16::from_f32(value).to_f32(),
            Self::F16 => f16::from_f32(value).to_f32(),
        }
    }
}

/// The layers of a block that read one input each, in the order of [`BlockWeights::linears`].
pub(crate) const SITES: [LinearRole; 4] = [
    LinearRole::Qkv,
    LinearRole::AttentionOut,
    LinearRole::FeedForwardIn,
    LinearRole::FeedForwardOut,
];

/// Whether factors on the input of a site can go into the operation before.
pub(crate) fn can_fold(arch: &ArchSpec, site: usize) -> bool {
    match SITES[site] {
        LinearRole::Qkv | LinearRole::FeedForwardIn => {
            arch.residual != (Residual::Parallel { shared_norm: true })
        }
        LinearRole::AttentionOut => true,
        _ => matches!(arch.feed_forward.kind, FeedForward::Gated(_)),
    }
}

/// Input channels of a site that must share a factor, because one row before makes them all.
pub(crate) fn ties(arch: &ArchSpec, site: usize) -> Option<ChannelTies> {
    let shape = &arch.attention;
    let grouped = SITES[site] == LinearRole::AttentionOut && shape.heads != shape.kv_heads;
    grouped.then(|| ChannelTies::grouped_heads(shape.heads, shape.kv_heads, shape.head_dim))
}

/// Multiplies the input channels of a site by `factors`, in the operation before, and divides the
/// columns of its weight by them. Returns the factors as they came out: what a stored norm can hold.
///
/// # Panics
/// If the factors have another length, or cannot be folded; see [`can_fold`].
pub(crate) fn fold(
    weights: &mut BlockWeights,
    arch: &ArchSpec,
    site: usize,
    factors: &[f32],
    vectors: VectorType,
) -> Vec<f32> {
    let factors = match SITES[site] {
        LinearRole::Qkv => fold_norm(&mut weights.attention_norm, factors, vectors),
        LinearRole::FeedForwardIn => {
            let norm = weights.feed_forward_norm.as_mut();
            fold_norm(norm.expect("can_fold: the norm is not shared"), factors, vectors)
        }
        LinearRole::AttentionOut => {
            let shape = &arch.attention;
            let (dim, group) = (shape.head_dim, shape.heads / shape.kv_heads);
            let first = (shape.heads + shape.kv_heads) * dim;
            // Value row (g, d) makes channel d of all query heads of group g; the first one's factor
            // is everyone's.
            let of_row = |row: usize| factors[row / dim * group * dim + row % dim];
            scale_rows(weights, 0, first..first + shape.kv_heads * dim, of_row);
            factors.to_vec()
        }
        _ => {
            let f = arch.sizes.feed_forward;
            scale_rows(weights, 2, f..2 * f, |row| factors[row]);
            factors.to_vec()
        }
    };
    let linear = &mut weights.linears[site];
    for row in linear.weight.chunks_exact_mut(linear.stored.k) {
        row.iter_mut().zip(&factors).for_each(|(w, p)| *w /= p);
    }
    factors
}

/// Scales γ and β; the factors are those of the rounded γ.
fn fold_norm(
    norm: &mut bantam_model::NormWeights,
    factors: &[f32],
    vectors: VectorType,
) -> Vec<f32> {
    let mut folded = factors.to_vec();
    for (weight, factor) in norm.weight.iter_mut().zip(&mut folded) {
        let rounded = vectors.round(*weight * *factor);
        let exact = rounded / *weight;
        if exact.is_normal() && rounded.is_finite() {
            (*weight, *factor) = (rounded, exact);
        } else {
            *factor = 1.0; // a channel that the norm switches off, or that cannot be scaled
        }
    }
    if let Some(bias) = &mut norm.bias {
        bias.iter_mut().zip(&folded).for_each(|(b, p)| *b = vectors.round(*b * p));
    }
    folded
}

/// Multiplies rows of a site's weight and bias; `factor` of the place in the range.
fn scale_rows(
    weights: &mut BlockWeights,
    site: usize,
    rows: Range<usize>,
    factor: impl Fn(usize) -> f32,
) {
    let linear = &mut weights.linears[site];
    let k = linear.stored.k;
    let chunks = linear.weight[rows.start * k..rows.end * k].chunks_exact_mut(k);
    for (i, row) in chunks.enumerate() {
        row.iter_mut().for_each(|w| *w *= factor(i));
    }
    if let Some(bias) = &mut linear.bias {
        bias[rows].iter_mut().enumerate().for_each(|(i, b)| *b *= factor(i));
    }
}
