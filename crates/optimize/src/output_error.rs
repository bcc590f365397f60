//! What a change of a weight does to its outputs.

use bantam_backend::Backend;
use rayon::prelude::*;

use crate::product::Product;
use crate::{Gram, OptimizeError, WeightMatrix};

/// Measures what a change of a weight does to a site's outputs, on the data that a [`Gram`] is of or on
/// some rows of it.
pub struct OutputError<'a, B: Backend> {
    product: Product<'a, B>,
    k: usize,
    inputs: Inputs,
}

/// What changes are multiplied by.
#[derive(Clone, Copy)]
enum Inputs {
    /// `H`: the error of a row is `δ·(H·δ)`.
    Gram,
    /// So many inputs X: it is the mean square of `X·δ`.
    Rows(usize),
}

impl<'a, B: Backend> OutputError<'a, B> {
    /// Prepares measurements.
    ///
    /// # Errors
    /// If the back end cannot take a matrix of this size.
    pub fn new(backend: &'a B, gram: &Gram) -> Result<Self, OptimizeError> {
        Self::of_block(backend, gram.values().to_vec(), gram.k())
    }

    /// As [`new`](Self::new), on inputs `x: [_, K]` themselves: what few of them show is quick to get.
    ///
    /// # Errors
    /// If they are not whole rows, or the back end cannot take a matrix of this size.
    pub fn on_rows(backend: &'a B, x: Vec<f32>, k: usize) -> Result<Self, OptimizeError> {
        OptimizeError::check_length("input past whole rows", x.len() % k, 0)?;
        let rows = x.len() / k;
        if rows == 0 {
            return Err(OptimizeError::NoTokens);
        }
        Ok(Self { product: Product::new(backend, x, rows, k)?, k, inputs: Inputs::Rows(rows) })
    }

    /// As [`new`](Self::new), for a part of the channels.
    pub(crate) fn of_block(
        backend: &'a B,
        gram: Vec<f32>,
        k: usize,
    ) -> Result<Self, OptimizeError> {
        Ok(Self { product: Product::new(backend, gram, k, k)?, k, inputs: Inputs::Gram })
    }

    /// `δ·H·δᵀ` of each row of `delta: [N, K]`: the mean squared change of that output over tokens.
    ///
    /// # Errors
    /// If they are not whole rows.
    pub fn of_rows(&mut self, delta: &[f32]) -> Result<Vec<f64>, OptimizeError> {
        let (k, inputs) = (self.k, self.inputs);
        OptimizeError::check_length("values past whole rows", delta.len() % k, 0)?;
        let mut errors = Vec::with_capacity(delta.len() / k);
        self.product.run(delta, |_, delta, product| match inputs {
            Inputs::Gram => {
                let rows = delta.par_chunks_exact(k).zip(product.par_chunks_exact(k));
                errors.par_extend(rows.map(|(delta, product)| dot(delta, product).max(0.0)));
            }
            Inputs::Rows(tokens) => {
                let outputs = product.par_chunks_exact(tokens);
                errors.par_extend(outputs.map(|output| dot(output, output) / tokens as f64));
            }
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

    /// The squared error of the outputs when each of `changed: [N, K]` replaces `weight`, as a share of
    /// the squared outputs; 0 if nothing changed.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn relative<const C: usize>(
        &mut self,
        weight: WeightMatrix<'_>,
        changed: [&[f32]; C],
    ) -> Result<[f64; C], OptimizeError> {
        let power = self.mean(weight.values())?;
        let mut errors = [0.0; C];
        for (error, changed) in errors.iter_mut().zip(changed) {
            let (got, expected) = (changed.len(), weight.values().len());
            OptimizeError::check_length("the changed weight", got, expected)?;
            let pairs = changed.par_iter().zip(weight.values());
            let delta: Vec<f32> = pairs.map(|(a, b)| a - b).collect();
            let change = self.mean(&delta)?;
            *error = if change == 0.0 { 0.0 } else { change / power };
        }
        Ok(errors)
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
