//! Activations on the CPU.

use crate::aligned::AlignedBytes;
use crate::element::Element;
use crate::simd::LANES;
use bantam_backend::{BackendError, LinearInput};
use bantam_numerics::ActivationFormat;
use half::bf16;
use std::hint::black_box;

/// f32 rows, made once for a maximal number of rows.
#[derive(Debug)]
pub struct CpuTensor {
    values: Vec<f32>,
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

impl CpuTensor {
    pub(crate) fn new(rows: usize, columns: usize) -> Self {
        // Written, not only zero: every step may use all rows, so the memory is taken now.
        let values = std::iter::repeat_n(black_box(0.0), rows * columns).collect();
        Self { values, columns, rows: 0 }
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

/// Rows as a linear layer reads them: rounded, and zero-padded to whole lanes.
#[derive(Debug)]
pub struct CpuOperand {
    /// `[capacity, stride]` of the format; E4M3 codes as the bf16 they are exact in.
    data: AlignedBytes,
    /// One for each block of channels of each row; see [`ActivationFormat::scales`].
    scales: Vec<f32>,
    /// What it was made for.
    made_for: ActivationFormat,
    /// What it holds.
    pub(crate) format: ActivationFormat,
    pub(crate) columns: usize,
    pub(crate) rows: usize,
    /// Elements from one row to the next.
    pub(crate) stride: usize,
    capacity: usize,
}

impl CpuOperand {
    pub(crate) fn new(rows: usize, columns: usize, format: ActivationFormat) -> Self {
        let stride = columns.next_multiple_of(LANES);
        let mut data = AlignedBytes::filled(rows * stride * format.element_bytes(), 0);
        let len = data.len();
        // SAFETY: this thread alone has the bytes.
        unsafe { data.toucher().touch(0..len) };
        Self {
            data,
            scales: vec![0.0; rows * ActivationFormat::Fp8Blocks.scales(columns)],
            made_for: format,
            format,
            columns,
            rows: 0,
            stride,
            capacity: rows,
        }
    }

    /// Says what the operation `op` is about to write.
    pub(crate) fn begin(
        &mut self,
        op: &'static str,
        rows: usize,
        input: &LinearInput<Vec<f32>>,
    ) -> Result<(), BackendError> {
        BackendError::check_capacity(op, rows, self.capacity)?;
        BackendError::check_room(op, input.format, self.made_for, "cpu")?;
        input.check(op, self.columns, Vec::len)?;
        (self.rows, self.format) = (rows, input.format);
        Ok(())
    }

    /// Scales of a row.
    pub(crate) fn scales_per_row(&self) -> usize {
        self.format.scales(self.columns)
    }

    /// The scales of all rows, and room for more.
    pub(crate) fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// All rows, `[rows, stride]`, if they are of this type.
    pub(crate) fn elements<E: Element>(&self) -> &[E] {
        assert_eq!(size_of::<E>(), self.format.element_bytes(), "elements of the format's type");
        // SAFETY: the buffer is aligned to cache lines and holds `capacity ≥ rows` rows of elements
        // at most this size; any bits are one of the types that `Element` is for.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr().cast(), self.rows * self.stride) }
    }

    /// Where all rows and all scales go, for tasks that write a row each.
    pub(crate) fn parts(&mut self) -> (Shared<u8>, Shared<f32>) {
        (Shared(self.data.as_mut_ptr()), Shared(self.scales.as_mut_ptr()))
    }

    pub(crate) fn to_f32(&self) -> Vec<f32> {
        let widen = |bits: u16| bf16::from_bits(bits).to_f32();
        let (block, per_row) = (self.format.scale_block(self.columns), self.scales_per_row());
        let number = |row: usize, k: usize| {
            let at = row * self.stride + k;
            let scale = || self.scales[row * per_row + k / block];
            match self.format {
                ActivationFormat::F32 => self.elements::<f32>()[at],
                ActivationFormat::BF16 => widen(self.elements()[at]),
                ActivationFormat::Int8 => f32::from(self.elements::<i8>()[at]) * scale(),
                ActivationFormat::Fp8 | ActivationFormat::Fp8Blocks => {
                    widen(self.elements()[at]) * scale()
                }
            }
        };
        let rows = (0..self.rows).flat_map(|row| (0..self.columns).map(move |k| (row, k)));
        rows.map(|(row, k)| number(row, k)).collect()
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

    /// The same memory as elements of another type.
    pub(crate) fn cast<U>(self) -> Shared<U> {
        Shared(self.0.cast())
    }
}
