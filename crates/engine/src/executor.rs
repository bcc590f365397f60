//! What the engine asks of a model, with the device's type erased.

use bantam_backend::{Backend, Batch};
use bantam_model::{Decoder, ModelError};

/// What one step and the cache can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// V, logits of a row.
    pub vocab_size: usize,
    /// Tokens of one sequence, prompt and generated ones together.
    pub context: usize,
    /// T at most, tokens of one step over all sequences.
    pub max_batch_tokens: usize,
    /// Sequences of one step at most.
    pub max_sequences: usize,
    /// R at most, rows of a step whose logits are computed.
    pub max_logit_rows: usize,
    /// B, blocks of the cache, shared by all sequences.
    pub num_blocks: usize,
    /// S, tokens a block holds.
    pub block_tokens: usize,
}

impl Limits {
    /// The block table of a sequence that has the whole cache for itself.
    #[must_use]
    pub fn all_blocks(&self) -> Vec<u32> {
        (0..self.num_blocks as u32).collect()
    }
}

/// A model that runs steps and owns its key/value cache.
pub trait Executor {
    /// What one step and the cache can hold.
    fn limits(&self) -> Limits;

    /// Runs one step: logits of `batch.logit_rows`, `[R, V]`.
    ///
    /// # Errors
    /// If the batch does not fit the limits or the device fails.
    fn forward(&mut self, batch: &Batch) -> Result<Vec<f32>, ModelError>;
}

impl<B: Backend> Executor for Decoder<B> {
    fn limits(&self) -> Limits {
        let options = self.options();
        Limits {
            vocab_size: self.arch().sizes.vocabulary,
            context: self.plan().max_context,
            max_batch_tokens: options.max_batch_tokens,
            max_sequences: options.max_sequences,
            max_logit_rows: options.max_logit_rows,
            num_blocks: self.num_blocks(),
            block_tokens: self.block_tokens(),
        }
    }

    fn forward(&mut self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
        Self::forward(self, batch)
    }
}
