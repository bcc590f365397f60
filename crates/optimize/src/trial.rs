//! Judging a candidate by running it: sampled inputs through the very kernels that will run.

use bantam_backend::{Backend, LinearInput, QuantizedLinear, Store};
use rayon::prelude::*;

use crate::product::Product;
use crate::{InputStatistics, OptimizeError, WeightMatrix};

/// Runs candidates on a site's sampled inputs and compares with full precision.
///
/// The Gram matrix says what rounding a weight costs; what rounding activations costs depends on the
/// tokens one by one, so here they go through [`Backend::round`] and [`Backend::linear`].
pub struct Trial<'a, B: Backend> {
    backend: &'a B,
    rows: usize,
    n: usize,
    k: usize,
    input: B::Tensor,
    output: B::Tensor,
    /// Full-precision outputs, `[rows, N]`.
    expected: Vec<f32>,
}

impl<'a, B: Backend> Trial<'a, B> {
    /// Computes what outputs should be.
    ///
    /// # Errors
    /// If shapes differ, or no rows were sampled.
    pub fn new(
        backend: &'a B,
        weight: WeightMatrix<'_>,
        statistics: &InputStatistics,
    ) -> Result<Self, OptimizeError> {
        let (n, k) = (weight.n(), weight.k());
        OptimizeError::check_length("input statistics", statistics.k(), k)?;
        let x = statistics.sample.rows();
        let rows = x.len() / k;
        if rows == 0 {
            let (algorithm, statistic) = ("a trial of activations", "a sample of rows");
            return Err(OptimizeError::MissingStatistic { algorithm, statistic });
        }
        let mut expected = Vec::with_capacity(rows * n);
        let mut product = Product::new(backend, weight.values().to_vec(), n, k)?;
        product.run(&x, |_, _, outputs| expected.extend_from_slice(outputs))?;
        let mut input = backend.tensor(rows, k);
        backend.write(&x, &mut input)?;
        Ok(Self { backend, rows, n, k, input, output: backend.tensor(rows, n), expected })
    }

    /// The mean over sampled tokens of `‖ŷ − y‖² / ‖y‖²`.
    ///
    /// Each token counts alike: the norm that follows makes all of them equally loud, and by plain
    /// squares a single massive activation would outvote every other token.
    ///
    /// # Errors
    /// If the candidate has another shape, or the back end cannot run it.
    pub fn error(&mut self, candidate: &QuantizedLinear) -> Result<f64, OptimizeError> {
        let weight = &candidate.weight;
        OptimizeError::check_length("the candidate", weight.n * weight.k, self.n * self.k)?;
        let asked = &candidate.input;
        let input = LinearInput {
            format: asked.format,
            scale: asked.scale,
            channel_factors: asked.channel_factors.as_deref().map(|p| self.backend.vector(p)),
            order: asked.order.clone(),
        };
        let mut operand = self.backend.operand(self.rows, self.k, input.format);
        self.backend.round(&self.input, &input, &mut operand)?;
        let weight = self.backend.weight(weight.clone())?;
        self.backend.linear(&operand, &weight, None, Store::Replace, &mut self.output)?;
        let got = self.backend.read(&self.output);
        let tokens = got.par_chunks_exact(self.n).zip(self.expected.par_chunks_exact(self.n));
        let shares: Vec<f64> = tokens.map(|(got, want)| relative_square(got, want)).collect();
        Ok(shares.iter().sum::<f64>() / shares.len() as f64)
    }
}

/// `‖a − b‖² / ‖b‖²`; 0 where both are zero.
pub(crate) fn relative_square(a: &[f32], b: &[f32]) -> f64 {
    let square = |v: f32| f64::from(v).powi(2);
    let error: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    let power: f64 = b.iter().map(|&b| square(b)).sum();
    if error == 0.0 { 0.0 } else { error / power.max(f64::MIN_POSITIVE) }
}
