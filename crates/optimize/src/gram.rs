//! The Gram matrix of a site's inputs: the one statistic that most algorithms need.

use bantam_backend::{Backend, LinearInput, Store};
use bantam_numerics::{ActivationFormat, PackedWeight, WeightData};
use half::bf16;
use rayon::prelude::*;

use crate::OptimizeError;

/// `H = mean over tokens of x·xᵀ`, `[K, K]`, symmetric.
///
/// It is all that the output error of a changed weight depends on: if W becomes W + Δ, the squared
/// change of the outputs, averaged over tokens, is `tr(Δ·H·Δᵀ)`. So one pass over the calibration
/// data serves AWQ, clipping, GPTQ and the error report. GPTQ's Hessian is 2H (Frantar et al. 2022,
/// §2), and the factor cancels.
#[derive(Clone, Debug, PartialEq)]
pub struct Gram {
    k: usize,
    values: Vec<f32>,
}

impl Gram {
    /// Takes `values: [K, K]`.
    ///
    /// # Errors
    /// If they are not K² finite values.
    pub fn new(values: Vec<f32>, k: usize) -> Result<Self, OptimizeError> {
        OptimizeError::check_length("a Gram matrix [K, K]", values.len(), k * k)?;
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            let (row, column) = (i / k, i % k);
            return Err(OptimizeError::NonFiniteGram { row, column, value: values[i] });
        }
        Ok(Self { k, values })
    }

    /// K, channels.
    #[must_use]
    pub const fn k(&self) -> usize {
        self.k
    }

    /// All values, `[K, K]`.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The mean square of each channel, `[K]`.
    #[must_use]
    pub fn diagonal(&self) -> Vec<f32> {
        self.values.iter().step_by(self.k + 1).copied().collect()
    }

    /// The matrix of inputs whose channels are multiplied by `factors: [K]`.
    ///
    /// # Errors
    /// If there are not K factors, or a product overflows.
    pub fn for_factors(&self, factors: &[f32]) -> Result<Self, OptimizeError> {
        OptimizeError::check_length("channel factors", factors.len(), self.k)?;
        let rows = self.values.par_chunks_exact(self.k).zip(factors);
        let scaled = |(row, &p): (&[f32], &f32)| -> Vec<f32> {
            row.iter().zip(factors).map(|(h, q)| h * p * q).collect()
        };
        Self::new(rows.flat_map_iter(scaled).collect(), self.k)
    }

    /// The square block of `size` channels from `first` on.
    pub(crate) fn block(&self, first: usize, size: usize) -> Vec<f32> {
        let rows = self.values.chunks_exact(self.k).skip(first).take(size);
        rows.flat_map(|row| &row[first..first + size]).copied().collect()
    }
}

/// Tokens of one rank-`STEP` update.
pub(crate) const STEP: usize = 512;

/// Sums x·xᵀ over tokens by the kernels of a back end.
///
/// The products are of bf16, in which weight-only layers read their input, and the sums are f32.
pub(crate) struct GramCollector<'a, B: Backend> {
    backend: &'a B,
    k: usize,
    /// The tokens of the next update as columns, `[K, STEP]`.
    columns: Vec<f32>,
    filled: usize,
    input: B::Tensor,
    operand: B::Operand,
    sum: B::Tensor,
}

impl<'a, B: Backend> GramCollector<'a, B> {
    pub(crate) fn new(backend: &'a B, k: usize) -> Result<Self, OptimizeError> {
        let mut sum = backend.tensor(k, k);
        backend.write(&vec![0.0; k * k], &mut sum)?;
        Ok(Self {
            backend,
            k,
            columns: vec![0.0; k * STEP],
            filled: 0,
            input: backend.tensor(k, STEP),
            operand: backend.operand(k, STEP, ActivationFormat::BF16),
            sum,
        })
    }

    /// Adds whole rows `[_, K]`.
    pub(crate) fn add(&mut self, mut rows: &[f32]) -> Result<(), OptimizeError> {
        while !rows.is_empty() {
            let taken = (STEP - self.filled).min(rows.len() / self.k);
            let (now, later) = rows.split_at(taken * self.k);
            let (k, filled) = (self.k, self.filled);
            self.columns.par_chunks_exact_mut(STEP).enumerate().for_each(|(channel, column)| {
                let values = now.iter().skip(channel).step_by(k);
                column[filled..].iter_mut().zip(values).for_each(|(to, from)| *to = *from);
            });
            self.filled += taken;
            rows = later;
            if self.filled == STEP {
                self.update()?;
            }
        }
        Ok(())
    }

    fn update(&mut self) -> Result<(), OptimizeError> {
        let columns = self.columns.par_iter().map(|&v| bf16::from_f32(v)).collect();
        let activation = ActivationFormat::BF16;
        let data = WeightData::BF16(columns);
        let transposed = PackedWeight { n: self.k, k: STEP, activation, data };
        let transposed = self.backend.weight(transposed)?;
        self.backend.write(&self.columns, &mut self.input)?;
        self.backend.round(&self.input, &LinearInput::new(activation), &mut self.operand)?;
        self.backend.linear(&self.operand, &transposed, None, Store::Add, &mut self.sum)?;
        self.filled = 0;
        Ok(())
    }

    /// The mean over `tokens`.
    pub(crate) fn finish(mut self, tokens: usize) -> Result<Gram, OptimizeError> {
        if self.filled > 0 {
            let filled = self.filled;
            self.columns.chunks_exact_mut(STEP).for_each(|column| column[filled..].fill(0.0));
            self.update()?;
        }
        let mut values = self.backend.read(&self.sum);
        let share = 1.0 / tokens.max(1) as f32;
        values.par_iter_mut().for_each(|value| *value *= share);
        Gram::new(values, self.k)
    }
}
