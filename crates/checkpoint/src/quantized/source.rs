//! The tensors of one quantized layer, checked as they are read.

use bantam_numerics::{DType, Encoding};

use crate::{Checkpoint, CheckpointError, TensorView};

/// Where a layer is read from.
pub(super) struct Source<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) module: &'a str,
    /// Output features.
    pub(super) n: usize,
    /// Input features.
    pub(super) k: usize,
}

impl<'a> Source<'a> {
    /// A tensor of the layer.
    pub(super) fn tensor(&self, part: &str) -> Result<TensorView<'a>, CheckpointError> {
        self.checkpoint.tensor(&format!("{}.{part}", self.module))
    }

    /// A tensor that a layer need not have.
    pub(super) fn optional(&self, part: &str) -> Option<TensorView<'a>> {
        self.tensor(part).ok()
    }

    /// The bytes of a tensor of this type and shape.
    pub(super) fn bytes(
        &self,
        part: &str,
        dtype: DType,
        shape: [usize; 2],
    ) -> Result<Vec<u8>, CheckpointError> {
        let tensor = self.tensor(part)?;
        if tensor.encoding != Encoding::Scalar(dtype) || tensor.shape != shape {
            let (encoding, got) = (tensor.encoding, tensor.shape);
            let problem = format!("is {encoding} {got:?}, expected {dtype} {shape:?}");
            return Err(wrong(&tensor, problem));
        }
        tensor.read_stored()
    }

    /// `count` scales or factors, in whatever float type and shape.
    pub(super) fn numbers(&self, part: &str, count: usize) -> Result<Vec<f32>, CheckpointError> {
        let tensor = self.tensor(part)?;
        if tensor.elements() != count {
            let problem = format!("has shape {:?}, expected {count} numbers", tensor.shape);
            return Err(wrong(&tensor, problem));
        }
        let values = tensor.to_f32()?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(at) => {
                let (row, column) = (at / tensor.cols().max(1), at % tensor.cols().max(1));
                let problem = format!(
                    "[{row}, {column}] is {}; the file is damaged or was saved from a diverged run",
                    values[at]
                );
                Err(wrong(&tensor, problem))
            }
        }
    }

    /// A scale of the whole input: one positive number.
    pub(super) fn input_scale(&self, part: &str) -> Result<f32, CheckpointError> {
        let scale = self.numbers(part, 1)?[0];
        if scale.is_normal() && scale > 0.0 {
            return Ok(scale);
        }
        Err(wrong(&self.tensor(part)?, format!("is {scale}, expected a positive number")))
    }

    /// Refuses a tensor that should say nothing: zero points of a symmetric format.
    pub(super) fn expect_all(&self, part: &str, expected: &[u8]) -> Result<(), CheckpointError> {
        let Some(tensor) = self.optional(part) else { return Ok(()) };
        let all = tensor.read_stored()?.iter().all(|byte| expected.contains(byte));
        if all {
            return Ok(());
        }
        let problem = "holds zero points, but the configuration says symmetric".to_owned();
        Err(wrong(&tensor, problem))
    }

    /// An error about a tensor of the layer.
    pub(super) fn error(&self, part: &str, problem: String) -> CheckpointError {
        match self.tensor(part) {
            Ok(tensor) => wrong(&tensor, problem),
            Err(missing) => missing,
        }
    }
}

fn wrong(tensor: &TensorView<'_>, problem: String) -> CheckpointError {
    let (file, tensor) = (tensor.file().to_path_buf(), tensor.name.to_owned());
    CheckpointError::Tensor { file, tensor, problem }
}
