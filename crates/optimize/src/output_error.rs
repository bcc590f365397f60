//! What a change of a weight does to its outputs.

use bantam_backend::Backend;
use rayon::prelude::*;

use crate::product::Product;
use crate::{Gram, OptimizeError, WeightMatrix};

/// Measures what a change of a weight does to a site's outputs, on the data that a [`Gram`] is of.
pub struct OutputError<'a, B: Backend> {
    product: Product<'a, B>,
    k: usize,
}

impl<'a, B: Backend> OutputError<'a, B> {
    /// Prepares measurements.
    ///
    /// # Errors
    /// If the back end cannot take a matrix of this size.
    pub fn new(backend: &'a B, gram: &Gram) -> Result<Self, OptimizeError> {
        Self::of_block(backend, gram.values().to_vec(), gram.k())
    }

    /// As [`new`](Self::new), for a part of the channels.
    pub(crate) fn of_block(
        backend: &'a B,
        gram: Vec<f32>,
        k: usize,
    ) -> Result<Self, OptimizeError> {
        Ok(Self { product: Product::new(backend, gram, k, k)?, k })
    }

    /// `δ·H·δᵀ` of each row of `delta: [N, K]`: the mean squared change of that output.
    ///
    /// # Errors
    /// If they are not whole rows.
    pub fn of_rows(&mut self, delta: &[f32]) -> Result<Vec<f64>, OptimizeError> {
        let k = self.k;
        OptimizeError::check_length("values past whole rows", delta.len() % k, 0)?;
        let mut errors = Vec::with_capacity(delta.len() / k);
        self.product.run(delta, |_, delta, product| {
            let rows = delta.par_chunks_exact(k).zip(product.par_chunks_exact(k));
            errors.par_extend(rows.map(|(delta, product)| dot(delta, product).max(0.0)));
        })?;
        Ok(errors)
    }

    /// The mean squared change of an output by `delta: [N, K]`, over tokens and output features.
    ///
    /// # Errors
    /// If they are not whole rows.
    pub fn mean(&mut self, delta: &[f32]) -> Result<f64, OptimizeError> {
        let rows = self.of_rows(delta)?;
        Ok(rows.iter().sum::<f64>() / rows.len().max(1) as f64)
    }

    /// The squared error of the outputs when `changed: [N, K]` replaces `weight`, as a share of the
    /// squared outputs; 0 if nothing changed.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn relative(
        &mut self,
        weight: WeightMatrix<'_>,
        changed: &[f32],
    ) -> Result<f64, OptimizeError> {
        OptimizeError::check_length("the changed weight", changed.len(), weight.values().len())?;
        let delta: Vec<f32> = changed.iter().zip(weight.values()).map(|(a, b)| a - b).collect();
        let error = self.mean(&delta)?;
        let power = self.mean(weight.values())?;
        Ok(if error == 0.0 { 0.0 } else { error / power })
    }
}

/// Σ aᵢ·bᵢ in eight partial sums, which become vector code.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    const LANES: usize = 8;
    let (a_lanes, a_rest) = a.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0f64; LANES];
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
            *sum += f64::from(a) * f64::from(b);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    sums.iter().sum::<f64>() + rest
}
