//! The weight of one *site*: all linear layers that read one input, stacked along N.

use bantam_numerics::{QuantizeError, ScaleBlock};
use rayon::prelude::*;

use crate::OptimizeError;

/// A weight `[N, K]` in full precision, known to be finite and of the stated shape.
///
/// Stack what reads one input (q, k, v; gate, up), so that it shares one set of channel factors.
///
/// ```
/// use bantam_optimize::WeightMatrix;
/// let weight = WeightMatrix::new(&[1.0, 2.0, 3.0, 4.0], 2, 2)?;
/// assert_eq!(weight.row(1), [3.0, 4.0]);
/// assert!(WeightMatrix::new(&[1.0, f32::NAN], 1, 2).is_err());
/// # Ok::<(), bantam_optimize::OptimizeError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct WeightMatrix<'a> {
    values: &'a [f32],
    n: usize,
    k: usize,
}

impl<'a> WeightMatrix<'a> {
    /// Checks `values: [N, K]`.
    ///
    /// # Errors
    /// If the length is not N·K, or a value is not finite.
    pub fn new(values: &'a [f32], n: usize, k: usize) -> Result<Self, OptimizeError> {
        if n.checked_mul(k) != Some(values.len()) || values.is_empty() {
            return Err(QuantizeError::Shape { got: values.len(), n, k }.into());
        }
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            let (row, column) = (i / k, i % k);
            return Err(QuantizeError::NonFinite { row, column, value: values[i] }.into());
        }
        Ok(Self { values, n, k })
    }

    /// N, output features.
    #[must_use]
    pub const fn n(&self) -> usize {
        self.n
    }

    /// K, input features.
    #[must_use]
    pub const fn k(&self) -> usize {
        self.k
    }

    /// All values, `[N, K]`.
    #[must_use]
    pub const fn values(&self) -> &'a [f32] {
        self.values
    }

    /// The weights of one output feature, `[K]`.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn row(&self, n: usize) -> &'a [f32] {
        &self.values[n * self.k..][..self.k]
    }

    /// `max_n |W_nk|` of each input channel, `[K]`.
    #[must_use]
    pub fn channel_amax(&self) -> Vec<f32> {
        let mut largest = vec![0f32; self.k];
        for row in self.values.chunks_exact(self.k) {
            for (largest, value) in largest.iter_mut().zip(row) {
                *largest = largest.max(value.abs());
            }
        }
        largest
    }

    /// The runs of weights in block `at` of a grid of blocks, each with its first channel.
    pub(crate) fn block(
        self,
        block: ScaleBlock,
        at: usize,
    ) -> impl Iterator<Item = (usize, &'a [f32])> + Clone {
        let (_, along_k) = block.grid(self.n, self.k);
        let first_row = at / along_k * block.rows.min(self.n);
        let first = at % along_k * block.columns.min(self.k);
        let rows = first_row..first_row.saturating_add(block.rows).min(self.n);
        let end = first.saturating_add(block.columns).min(self.k);
        rows.map(move |row| (first, &self.values[row * self.k..][first..end]))
    }

    /// The weight for an input whose channels are multiplied by `factors: [K]`: `W / factors`.
    ///
    /// # Errors
    /// If there are not K factors, or one makes a weight overflow.
    pub fn for_factors(&self, factors: &[f32]) -> Result<Vec<f32>, OptimizeError> {
        OptimizeError::check_length("channel factors", factors.len(), self.k)?;
        let divided = |row: &[f32]| row.iter().zip(factors).map(|(w, p)| w / p).collect::<Vec<_>>();
        let scaled: Vec<f32> =
            self.values.par_chunks_exact(self.k).flat_map_iter(divided).collect();
        WeightMatrix::new(&scaled, self.n, self.k)?;
        Ok(scaled)
    }

    /// At most `limit` rows, evenly spread: enough to judge a change of the weight by.
    pub(crate) fn some_rows(&self, limit: usize) -> Vec<f32> {
        let count = limit.clamp(1, self.n);
        (0..count).flat_map(|i| self.row(i * self.n / count)).copied().collect()
    }
}
