//! How an error in one weight is best made good by the weights after it.

use rayon::prelude::*;

use crate::{Gram, OptimizeError};

/// Columns that are eliminated together.
const PANEL: usize = 64;

/// The factors of a damped Gram matrix, its channels sorted by an order: `H = M·D·Mᵀ` with M unit
/// upper triangular and D diagonal.
///
/// With `δ = w − q` the error of a row is `δ·H·δᵀ = Σ_j D_j·(δ_j + Σ_{i<j} M_ij·δ_i)²`. So once the
/// weights before j are rounded, the best target for weight j is `w_j + Σ_{i<j} M_ij·δ_i`. This is
/// GPTQ's update, whose `U = chol(H⁻¹)` is `(M·√D)⁻¹`, without an inverse (LDLQ, Chee et al. 2023).
pub(crate) struct Feedback {
    k: usize,
    /// M, `[K, K]`.
    ratios: Vec<f32>,
    /// D, `[K]`: what an error in each weight costs that no later weight can make good.
    pub(crate) costs: Vec<f32>,
    /// The damping it took, as a share of the mean of the diagonal.
    pub(crate) damping: f64,
}

impl Feedback {
    /// Factorises; `order[i]` is the channel that is rounded as number i.
    ///
    /// A channel that no input reached neither gives nor takes. If `damping` leaves the matrix
    /// indefinite, ten times as much is tried, up to the whole mean.
    pub(crate) fn new(gram: &Gram, order: &[u32], damping: f64) -> Result<Self, OptimizeError> {
        let k = gram.k();
        let diagonal = gram.diagonal();
        let live = diagonal.iter().filter(|&&h| h > 0.0);
        let sum: f64 = live.clone().map(|&h| f64::from(h)).sum();
        let mean = sum / live.count().max(1) as f64;
        let mut damping = damping;
        loop {
            if let Some(lower) = factorise(gram, order, damping * mean) {
                return Ok(Self::of_lower(&lower, k, damping));
            }
            if damping >= 1.0 {
                return Err(OptimizeError::NotPositiveDefinite { damping });
            }
            damping = (10.0 * damping).clamp(1e-3, 1.0);
        }
    }

    /// Takes L of the matrix in reverse order, `L·Lᵀ`.
    fn of_lower(lower: &[f64], k: usize, damping: f64) -> Self {
        let pivot = |j: usize| lower[(k - 1 - j) * (k + 1)];
        let mut ratios = vec![0f32; k * k];
        ratios.par_chunks_exact_mut(k).enumerate().for_each(|(i, row)| {
            let reversed = &lower[(k - 1 - i) * k..][..k];
            for (j, ratio) in row.iter_mut().enumerate().skip(i) {
                *ratio = (reversed[k - 1 - j] / pivot(j)) as f32;
            }
        });
        let costs = (0..k).map(|j| pivot(j).powi(2) as f32).collect();
        Self { k, ratios, costs, damping }
    }

    /// `M_ij` of weight i for the weights of a range, all of them at or after i.
    pub(crate) fn of(&self, i: usize, range: std::ops::Range<usize>) -> &[f32] {
        &self.ratios[i * self.k..][range]
    }
}

/// L of the damped matrix with its channels in the reverse of `order`; none if it is indefinite.
fn factorise(gram: &Gram, order: &[u32], damping: f64) -> Option<Vec<f64>> {
    let k = gram.k();
    let mut matrix = vec![0f64; k * k];
    matrix.par_chunks_exact_mut(k).enumerate().for_each(|(i, row)| {
        let from = &gram.values()[order[k - 1 - i] as usize * k..][..k];
        for (to, &channel) in row.iter_mut().zip(order.iter().rev()) {
            *to = f64::from(from[channel as usize]);
        }
        let dead = row[i] <= 0.0;
        row[i] = if dead { 1.0 } else { row[i] + damping };
    });
    cholesky(&mut matrix, k).then_some(matrix)
}

/// Replaces the lower triangle of a symmetric matrix by L with `L·Lᵀ` = matrix; false if it is not
/// positive definite.
fn cholesky(matrix: &mut [f64], k: usize) -> bool {
    for first in (0..k).step_by(PANEL) {
        let width = PANEL.min(k - first);
        let rows = &mut matrix[first * k..];
        // What the columns before say about this panel, row by row.
        let before: Vec<f64> =
            rows.chunks_exact(k).take(width).flat_map(|row| &row[..first]).copied().collect();
        rows.par_chunks_exact_mut(k).enumerate().for_each(|(r, row)| {
            let (done, panel) = row.split_at_mut(first);
            for (c, value) in panel[..width.min(r + 1)].iter_mut().enumerate() {
                *value -= dot(done, &before[c * first..][..first]);
            }
        });
        // The square on the diagonal, then the rows below it.
        let (square, below) = rows.split_at_mut(width * k);
        for c in 0..width {
            let (above, row) = square.split_at_mut(c * k);
            let row = &mut row[first..first + c + 1];
            solve(row, above, first, k);
            let pivot = row[c] - dot(&row[..c], &row[..c]);
            if pivot.is_nan() || pivot <= 0.0 {
                return false;
            }
            row[c] = pivot.sqrt();
        }
        below.par_chunks_exact_mut(k).for_each(|row| {
            solve(&mut row[first..first + width], square, first, k);
        });
    }
    true
}

/// Divides a row by the rows of L that are known, from column `first` on.
fn solve(row: &mut [f64], known: &[f64], first: usize, k: usize) {
    for (c, l) in known.chunks_exact(k).enumerate() {
        let l = &l[first..first + c + 1];
        row[c] = (row[c] - dot(&row[..c], &l[..c])) / l[c];
    }
}

/// Σ aᵢ·bᵢ in partial sums, which become vector code.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0f64; LANES];
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            sums[i] += a[i] * b[i];
        }
    }
    a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>() + sums.iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_factors_multiply_back(
            k in 1usize..150, seed in 0u32..1000, dead in 0usize..3,
        ) {
            // A few random vectors' squares, with channels that nothing reaches.
            let noise = |i: usize| {
                let x = (i as u32).wrapping_add(seed).wrapping_mul(2_654_435_761);
                f64::from((x ^ x >> 15).wrapping_mul(2_246_822_519) >> 8) / 8_388_608.0 - 1.0
            };
            let tokens = 2 * k;
            let value = |t: usize, c: usize| {
                if c < dead { 0.0 } else { noise(t * k + c) + noise(t) }
            };
            let gram = |i: usize, j: usize| {
                (0..tokens).map(|t| value(t, i) * value(t, j)).sum::<f64>() / tokens as f64
            };
            let values: Vec<f32> =
                (0..k * k).map(|at| gram(at / k, at % k) as f32).collect();
            let gram = Gram::new(values, k).unwrap();
            let mut order: Vec<u32> = (0..k as u32).collect();
            order.rotate_left(k / 3);
            let feedback = Feedback::new(&gram, &order, 0.01).unwrap();
            let diagonal = gram.diagonal();
            let live = diagonal.iter().filter(|&&h| h > 0.0).count().max(1);
            let added =
                feedback.damping * diagonal.iter().map(|&h| f64::from(h)).sum::<f64>() / live as f64;
            for i in 0..k {
                for j in 0..k {
                    let m = |r: usize| feedback.of(r, 0..k);
                    let product: f64 = (i.max(j)..k)
                        .map(|c| f64::from(m(i)[c]) * f64::from(feedback.costs[c]) * f64::from(m(j)[c]))
                        .sum();
                    let (a, b) = (order[i] as usize, order[j] as usize);
                    let mut want = f64::from(gram.values()[a * k + b]);
                    if i == j {
                        want = if want <= 0.0 { 1.0 } else { want + added };
                    }
                    prop_assert!((product - want).abs() < 1e-4, "[{i}, {j}] {product} {want}");
                }
            }
        }
    }

    #[test]
    fn damping_grows_until_it_is_enough() {
        // Rank one: indefinite by rounding without damping.
        let row = [1.0f32, 1.7, -0.3];
        let values = row.iter().flat_map(|a| row.iter().map(move |b| a * b)).collect();
        let gram = Gram::new(values, 3).unwrap();
        assert!(Feedback::new(&gram, &[0, 1, 2], 0.0).unwrap().damping <= 1e-3);
        let indefinite = Gram::new(vec![1.0, 9.0, 9.0, 1.0], 2).unwrap();
        let error = Feedback::new(&indefinite, &[0, 1], 0.01).err();
        let refused = Some(OptimizeError::NotPositiveDefinite { damping: 1.0 });
        assert_eq!(error.map(|e| e.to_string()), refused.map(|e| e.to_string()));
    }
}
