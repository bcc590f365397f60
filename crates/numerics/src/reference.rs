//! The arithmetic of a transformer, slow and obvious: the oracle that every kernel is held against.
//!
//! Sums run in f64, so that a kernel's distance from these functions is the kernel's own error.

use crate::activation::{ActivationFormat, ActivationRow};
use crate::weight::{PackedWeight, WeightData};

/// `y = x·Wᵀ + b` for one token: `x: [K]` in the weight's activation format, `y: [N]`.
///
/// INT8 activations meet integer weights in an integer dot product, which is exact, and what
/// follows is a fixed order of f32 operations, so that every kernel has the same bits: group by group
/// `sum = sum + dot·scale`, then `sum = sum + Σx·offset` where there are offsets; after the last
/// group `sum·scale of x`, and the bias.
///
/// # Panics
/// If `x` is not K long or `bias` not N.
#[must_use]
pub fn linear(x: &ActivationRow, weight: &PackedWeight, bias: Option<&[f32]>) -> Vec<f32> {
    assert_eq!(x.codes.len(), weight.k, "x has K elements");
    let integer = x.format == ActivationFormat::Int8;
    match &weight.data {
        WeightData::Int8 { affine, .. } | WeightData::Int4 { affine, .. } if integer => (0..weight
            .n)
            .map(|n| {
                let groups = weight.k / affine.group;
                let sum = (0..groups).fold(0f32, |sum, g| {
                    let (mut dot, mut x_sum) = (0i64, 0i64);
                    for k in g * affine.group..(g + 1) * affine.group {
                        dot += i64::from(weight.level(n, k)) * x.codes[k] as i64;
                        x_sum += x.codes[k] as i64;
                    }
                    let at = n * groups + g;
                    let sum = sum + dot as f32 * affine.scales[at];
                    affine.offsets.as_ref().map_or(sum, |o| sum + x_sum as f32 * o[at])
                });
                sum * x.scale(0) + bias.map_or(0.0, |b| b[n])
            })
            .collect(),
        _ => {
            let x: Vec<f64> =
                (0..weight.k).map(|k| f64::from(x.codes[k]) * f64::from(x.scale(k))).collect();
            let mut row = vec![0.0; weight.k];
            (0..weight.n)
                .map(|n| {
                    weight.decode_row(n, &mut row);
                    let sum: f64 = row.iter().zip(&x).map(|(&w, &x)| f64::from(w) * x).sum();
                    (sum + bias.map_or(0.0, |b| f64::from(b[n]))) as f32
                })
                .collect()
        }
    }
}

/// Root-mean-square norm of one row: `x / √(mean(x²) + ε) · γ` (Zhang and Sennrich 2019).
#[must_use]
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mean_square = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / x.len() as f64;
    let scale = (mean_square + f64::from(eps)).sqrt().recip();
    x.iter().zip(weight).map(|(&v, &w)| (f64::from(v) * scale * f64::from(w)) as f32).collect()
}

/// Layer norm of one row: `(x − mean) / √(var + ε) · γ + β` (Ba et al. 2016).
#[must_use]
pub fn layer_norm(x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32) -> Vec<f32> {
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / x.len() as f64;
    let centred = x.iter().map(|&v| f64::from(v) - mean);
    let variance = centred.clone().map(|v| v * v).sum::<f64>() / x.len() as f64;
    let scale = (variance + f64::from(eps)).sqrt().recip();
    centred
        .enumerate()
        .map(|(i, v)| {
            let shift = bias.map_or(0.0, |b| f64::from(b[i]));
            (v * scale * f64::from(weight[i]) + shift) as f32
        })
        .collect()
}

/// Which elements of a head rotate together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RotaryPairs {
    /// Element i with i + D/2, as Hugging Face stores Llama.
    HalfSplit,
    /// Elements 2i and 2i+1, as GPT-J and the RoPE paper.
    Interleaved,
}

impl RotaryPairs {
    /// The indices of pair `i` among `rotary_dim` rotated elements.
    #[must_use]
    pub fn indices(self, i: usize, rotary_dim: usize) -> (usize, usize) {
        match self {
            Self::HalfSplit => (i, i + rotary_dim / 2),
            Self::Interleaved => (2 * i, 2 * i + 1),
        }
    }
}

/// Rotates one head in place (Su et al. 2021): pair i turns by the angle whose cosine and sine are
/// `cos[i]`, `sin[i]`. Elements from `2·cos.len()` on are left alone (partial rotary).
pub fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32], pairs: RotaryPairs) {
    let rotary_dim = 2 * cos.len();
    for (i, (&cos, &sin)) in cos.iter().zip(sin).enumerate() {
        let (a, b) = pairs.indices(i, rotary_dim);
        let (x, y) = (head[a], head[b]);
        head[a] = x * cos - y * sin;
        head[b] = y * cos + x * sin;
    }
}

/// Probabilities from scores, shifted by their maximum. All −∞ gives all 0.
#[must_use]
pub fn softmax(scores: &[f32]) -> Vec<f32> {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        return vec![0.0; scores.len()];
    }
    let exps: Vec<f64> = scores.iter().map(|&s| f64::from(s - max).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|e| (e / sum) as f32).collect()
}

/// Attention of one query head over its visible keys: `softmax(q·Kᵀ·scale + bias)·V`.
///
/// `q: [D]`; `keys`, `values`: one `[D]` slice a position; `bias(i)` is added to the score of
/// key i (ALiBi), −∞ hides it.
#[must_use]
pub fn attention(
    q: &[f32],
    keys: &[&[f32]],
    values: &[&[f32]],
    scale: f32,
    bias: impl Fn(usize) -> f32,
) -> Vec<f32> {
    let scores: Vec<f32> = keys
        .iter()
        .enumerate()
        .map(|(i, key)| {
            let dot: f64 = q.iter().zip(*key).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            (dot * f64::from(scale)) as f32 + bias(i)
        })
        .collect();
    let probabilities = softmax(&scores);
    (0..q.len())
        .map(|d| {
            let terms = probabilities.iter().zip(values);
            terms.map(|(&p, v)| f64::from(p) * f64::from(v[d])).sum::<f64>() as f32
        })
        .collect()
}

/// The non-linearity of a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x·σ(x)`, also called swish.
    Silu,
    /// `x·Φ(x)` with the error function.
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
}

impl Activation {
    /// The function's value.
    #[must_use]
    pub fn apply(self, x: f32) -> f32 {
        let x = f64::from(x);
        let y = match self {
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
            Self::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                0.5 * x * (1.0 + inner.tanh())
            }
        };
        y as f32
    }
}

/// The error function, by its power series near zero and its continued fraction beyond.
fn erf(x: f64) -> f64 {
    let magnitude = x.abs();
    let value = if magnitude < 2.5 {
        let mut term = magnitude;
        let mut sum = magnitude;
        for n in 1..60 {
            term *= -magnitude * magnitude / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        // Lentz-free evaluation from the far end; 60 levels are exact to f64 here.
        let mut fraction = 0.0;
        for n in (1..=60).rev() {
            fraction = f64::from(n) / 2.0 / (magnitude + fraction);
        }
        1.0 - (-magnitude * magnitude).exp() / std::f64::consts::PI.sqrt() / (magnitude + fraction)
    };
    value.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_matches_tabulated_values() {
        let table = [(0.0, 0.0), (0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9)];
        let more = [(2.0, 0.995_322_265_0), (3.0, 0.999_977_909_5), (-1.0, -0.842_700_792_9)];
        for (x, want) in table.into_iter().chain(more) {
            assert!((erf(x) - want).abs() < 1e-9, "erf({x}) = {}", erf(x));
        }
    }

    #[test]
    fn rotation_keeps_length_and_the_untouched_tail() {
        for pairs in [RotaryPairs::HalfSplit, RotaryPairs::Interleaved] {
            let mut head = [1.0, 2.0, 3.0, 4.0, 5.0];
            rotate(&mut head, &[0.6, 0.0], &[0.8, 1.0], pairs);
            let norm: f32 = head[..4].iter().map(|v| v * v).sum();
            assert!((norm - 30.0).abs() < 1e-4, "{pairs:?} {head:?}");
            assert_eq!(head[4], 5.0);
        }
        let mut head = [1.0, 2.0, 3.0, 4.0];
        rotate(&mut head, &[0.0, 1.0], &[1.0, 0.0], RotaryPairs::HalfSplit);
        assert_eq!(head, [-3.0, 2.0, 1.0, 4.0]);
        let mut head = [1.0, 2.0, 3.0, 4.0];
        rotate(&mut head, &[0.0, 1.0], &[1.0, 0.0], RotaryPairs::Interleaved);
        assert_eq!(head, [-2.0, 1.0, 3.0, 4.0]);
    }
}
