//! Matrix products by the kernels of a back end.

use bantam_backend::{Backend, LinearInput, Store};
use bantam_numerics::{ActivationFormat, PackedWeight, WeightData};

use crate::OptimizeError;

/// Rows that one product takes: enough to fill the kernels, few enough to stay small.
pub(crate) const ROWS: usize = 1024;

/// `A ↦ A·Bᵀ` in f32 for a fixed `B: [N, K]`.
pub(crate) struct Product<'a, B: Backend> {
    backend: &'a B,
    k: usize,
    weight: B::Weight,
    input: B::Tensor,
    operand: B::Operand,
    output: B::Tensor,
}

impl<'a, B: Backend> Product<'a, B> {
    /// Packs `B: [N, K]`.
    pub(crate) fn new(
        backend: &'a B,
        b: Vec<f32>,
        n: usize,
        k: usize,
    ) -> Result<Self, OptimizeError> {
        let format = ActivationFormat::F32;
        let packed = PackedWeight { n, k, activation: format, data: WeightData::F32(b) };
        Ok(Self {
            backend,
            k,
            weight: backend.weight(packed)?,
            input: backend.tensor(ROWS, k),
            operand: backend.operand(ROWS, k, format),
            output: backend.tensor(ROWS, n),
        })
    }

    /// Calls `each(first row, rows of A, rows of A·Bᵀ)` for a few rows of `A: [_, K]` at a time.
    pub(crate) fn run(
        &mut self,
        a: &[f32],
        mut each: impl FnMut(usize, &[f32], &[f32]),
    ) -> Result<(), OptimizeError> {
        let input = LinearInput::new(ActivationFormat::F32);
        for (chunk, rows) in a.chunks(ROWS * self.k).enumerate() {
            self.backend.write(rows, &mut self.input)?;
            self.backend.round(&self.input, &input, &mut self.operand)?;
            let output = &mut self.output;
            self.backend.linear(&self.operand, &self.weight, None, Store::Replace, output)?;
            each(chunk * ROWS, rows, &self.backend.read(output));
        }
        Ok(())
    }
}
