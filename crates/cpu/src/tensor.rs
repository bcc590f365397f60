//! Activations on the CPU.

use crate::gemm::Input;
use crate::simd::LANES;
use bantam_backend::BackendError;
use bantam_numerics::ActivationFormat;
use half::bf16;

/// f32 rows, made once for a maximal number of rows.
#[derive(Debug)]
pub struct CpuTensor {
    values: Vec<f32>,
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

impl CpuTensor {
    pub(crate) fn new(rows: usize, columns: usize) -> Self {
        Self { values: vec![0.0; rows * columns], columns, rows: 0 }
    }

    /// Says how many rows the operation `op` is about to write.
    pub(crate) fn set_rows(&mut self, op: &'static str, rows: usize) -> Result<(), BackendError> {
        BackendError::check_capacity(op, rows, self.values.len() / self.columns.max(1))?;
        self.rows = rows;
        Ok(())
    }

    /// The rows in use, `[rows, columns]`.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values[..self.rows * self.columns]
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.rows * self.columns]
    }
}

/// Rows as linear layers read them: rounded, and zero-padded to whole lanes.
#[derive(Debug)]
pub struct CpuOperand {
    pub(crate) data: OperandData,
    pub(crate) columns: usize,
    pub(crate) rows: usize,
    /// Elements from one row to the next.
    pub(crate) stride: usize,
    capacity: usize,
}

/// The elements of an operand.
#[derive(Debug)]
pub(crate) enum OperandData {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
}

impl CpuOperand {
    pub(crate) fn new(rows: usize, columns: usize, format: ActivationFormat) -> Self {
        let stride = columns.next_multiple_of(LANES);
        let data = match format {
            ActivationFormat::F32 => OperandData::F32(vec![0.0; rows * stride]),
            ActivationFormat::BF16 => OperandData::Bf16(vec![0; rows * stride]),
        };
        Self { data, columns, rows: 0, stride, capacity: rows }
    }

    pub(crate) fn set_rows(&mut self, op: &'static str, rows: usize) -> Result<(), BackendError> {
        BackendError::check_capacity(op, rows, self.capacity)?;
        self.rows = rows;
        Ok(())
    }

    pub(crate) fn format(&self) -> ActivationFormat {
        match self.data {
            OperandData::F32(_) => ActivationFormat::F32,
            OperandData::Bf16(_) => ActivationFormat::BF16,
        }
    }

    pub(crate) fn input(&self) -> Input<'_> {
        match &self.data {
            OperandData::F32(values) => Input::F32(values),
            OperandData::Bf16(values) => Input::Bf16(values),
        }
    }

    pub(crate) fn to_f32(&self) -> Vec<f32> {
        let rows = (0..self.rows).map(|row| row * self.stride..row * self.stride + self.columns);
        match &self.data {
            OperandData::F32(values) => rows.flat_map(|row| values[row].iter().copied()).collect(),
            OperandData::Bf16(values) => rows
                .flat_map(|row| values[row].iter().map(|&bits| bf16::from_bits(bits).to_f32()))
                .collect(),
        }
    }
}

/// A pointer that tasks share because each writes rows or columns of its own.
pub(crate) struct Shared<T>(pub(crate) *mut T);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

// SAFETY: whoever makes one promises disjoint writes.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    /// The pointer; a method, so that closures capture the wrapper and not its field.
    pub(crate) fn get(self) -> *mut T {
        self.0
    }
}
