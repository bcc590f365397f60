//! The last norm and the head, to run apart from the layers.

use std::sync::atomic::AtomicU64;

use bantam_backend::{Backend, Norm, Store};
use bantam_checkpoint::Checkpoint;

use crate::arch::ArchSpec;
use crate::block::linear;
use crate::error::ModelError;
use crate::load::{Linear, Loader};
use crate::precision::Precision;

/// From the residual stream after the last layer to logits, in bf16.
///
/// ```no_run
/// use bantam_backend::reference::Reference;
/// use bantam_checkpoint::Checkpoint;
/// use bantam_model::{ArchSpec, Head};
///
/// let checkpoint = Checkpoint::open("model".as_ref())?;
/// let arch = ArchSpec::from_checkpoint(&checkpoint)?;
/// let mut head = Head::load(&Reference, &checkpoint, &arch)?;
/// let hidden = vec![0.5; 3 * arch.sizes.hidden];
/// assert_eq!(head.logits(&hidden)?.len(), 3 * arch.sizes.vocabulary);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Head<'a, B: Backend> {
    backend: &'a B,
    norm: Norm<B::Vector>,
    linear: Linear<B>,
    /// The stream, `[R, C]`.
    hidden: B::Tensor,
    /// After the norm, `[R, C]`.
    normed: B::Operand,
    /// `[R, V]`.
    logits: B::Tensor,
    columns: usize,
}

impl<'a, B: Backend> Head<'a, B> {
    /// Rows that run at once, R: logits are wide.
    pub const ROWS: usize = 64;

    /// Reads both from a checkpoint.
    ///
    /// # Errors
    /// If a tensor is missing or not finite.
    pub fn load(
        backend: &'a B,
        checkpoint: &Checkpoint,
        arch: &ArchSpec,
    ) -> Result<Self, ModelError> {
        let loader = Loader {
            backend,
            checkpoint,
            arch,
            precision: Precision::Bf16,
            threads: 1,
            total_bytes: 0,
            progress: &|_| (),
            done_bytes: AtomicU64::new(0),
        };
        let stored = arch.untied_head().unwrap_or_else(|| arch.embedding());
        let linear = loader.linear(&stored)?;
        let (columns, vocabulary) = (arch.sizes.hidden, arch.sizes.vocabulary);
        Ok(Self {
            backend,
            norm: loader.norm(arch.names.final_norm)?,
            hidden: backend.tensor(Self::ROWS, columns),
            normed: backend.operand(Self::ROWS, columns, linear.input.format),
            logits: backend.tensor(Self::ROWS, vocabulary),
            linear,
            columns,
        })
    }

    /// The logits `[T, V]` of at most [`ROWS`](Self::ROWS) rows `hidden: [T, C]`.
    ///
    /// # Errors
    /// If there are more, or the device fails.
    pub fn logits(&mut self, hidden: &[f32]) -> Result<Vec<f32>, ModelError> {
        if hidden.len() > Self::ROWS * self.columns {
            return Err(ModelError::BadOption {
                option: "rows of logits at once".to_owned(),
                got: (hidden.len() / self.columns).to_string(),
                expected: format!("at most {}", Self::ROWS),
            });
        }
        self.backend.write(hidden, &mut self.hidden)?;
        self.backend.norm(&self.hidden, &self.norm, &self.linear.input, &mut self.normed)?;
        linear(self.backend, &self.normed, &self.linear, Store::Replace, &mut self.logits)?;
        Ok(self.backend.read(&self.logits))
    }
}
