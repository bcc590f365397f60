//! What a machine could do at best, and what a step of a model needs.
//!
//! Every speed is shown as a share of the machine's limit, after the roofline model (Williams,
//! Waterman and Patterson, *Roofline*, CACM 2009): a step cannot be faster than its bytes at the
//! measured memory bandwidth, nor than its arithmetic at the measured peak; the slower of the two is
//! the limit. The ceilings are measured on the machine at hand, never taken from a data sheet.

use bantam_backend::Backend;
use bantam_model::{Decoder, LinearRole, stored_bytes};
use bantam_numerics::ActivationFormat;
use serde::Serialize;

/// Measured ceilings of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ceilings {
    /// Reading memory that is in no cache, bytes per second.
    pub read_bytes_per_second: f64,
    /// Multiply-adds on f32, counted as two operations each, per second.
    pub f32_ops_per_second: f64,
    /// Multiply-adds on bf16 with f32 sums, likewise.
    pub bf16_ops_per_second: f64,
    /// Multiply-adds on 8-bit integers with 32-bit sums, likewise.
    pub int8_ops_per_second: f64,
}

/// What a step moves and computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Work {
    /// Bytes read from memory: weights once, and the cached keys and values that are attended to.
    pub bytes: f64,
    /// Arithmetic of the linear layers inside the blocks, two operations a multiply-add.
    pub block_operations: f64,
    /// Arithmetic of attention and of the head, which take 16 bits at least.
    pub other_operations: f64,
}

impl Ceilings {
    /// The higher of two measurements of each: a ceiling is what the machine can do when nothing
    /// else keeps it busy.
    #[must_use]
    pub fn best_of(self, other: Self) -> Self {
        Self {
            read_bytes_per_second: self.read_bytes_per_second.max(other.read_bytes_per_second),
            f32_ops_per_second: self.f32_ops_per_second.max(other.f32_ops_per_second),
            bf16_ops_per_second: self.bf16_ops_per_second.max(other.bf16_ops_per_second),
            int8_ops_per_second: self.int8_ops_per_second.max(other.int8_ops_per_second),
        }
    }

    /// The least time in seconds that the work can take when the activations inside the blocks are
    /// in `format`. FP8 multiplies as bf16.
    ///
    /// ```
    /// use bantam_eval::{Ceilings, Work};
    /// use bantam_numerics::ActivationFormat;
    /// let machine = Ceilings {
    ///     read_bytes_per_second: 10e9,
    ///     f32_ops_per_second: 100e9,
    ///     bf16_ops_per_second: 200e9,
    ///     int8_ops_per_second: 400e9,
    /// };
    /// let decode = Work { bytes: 1e9, block_operations: 1e9, other_operations: 1e9 };
    /// assert_eq!(machine.least_seconds(&decode, ActivationFormat::BF16), 0.1); // memory
    /// let prefill = Work { block_operations: 100e9, other_operations: 100e9, ..decode };
    /// assert_eq!(machine.least_seconds(&prefill, ActivationFormat::BF16), 1.0); // arithmetic
    /// assert_eq!(machine.least_seconds(&prefill, ActivationFormat::Int8), 0.75);
    /// ```
    #[must_use]
    pub fn least_seconds(&self, work: &Work, format: ActivationFormat) -> f64 {
        let peak = |format| match format {
            ActivationFormat::F32 => self.f32_ops_per_second,
            ActivationFormat::Int8 => self.int8_ops_per_second,
            ActivationFormat::BF16 | ActivationFormat::Fp8 | ActivationFormat::Fp8Blocks => {
                self.bf16_ops_per_second
            }
        };
        let other = if format.is_scaled() { ActivationFormat::BF16 } else { format };
        let arithmetic = work.block_operations / peak(format) + work.other_operations / peak(other);
        (work.bytes / self.read_bytes_per_second).max(arithmetic)
    }
}

/// What tokens cost a model, apart from the machine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ModelCost {
    /// Bytes of all weights that a step reads whole: everything but an embedding table of its own.
    pub weight_bytes: f64,
    /// Weights of the linear layers inside the blocks: two operations a token each.
    pub block_weights: f64,
    /// Weights of the output head: two operations for each token whose logits are wanted.
    pub head_weights: f64,
    /// Cached bytes of a token, keys and values of all layers.
    pub kv_bytes_per_token: f64,
    /// Operations of attention for one query token and one cached token, all layers: 4·L·H·D.
    pub attention_operations: f64,
}

impl ModelCost {
    /// What tokens cost a loaded model. (Sliding windows are not accounted for: where they are
    /// shorter than the context, attention reads and computes less.)
    #[must_use]
    pub fn of<B: Backend>(decoder: &Decoder<B>) -> Self {
        let arch = decoder.arch();
        let (attention, layers) = (&arch.attention, arch.sizes.layers as f64);
        let of_layer: usize = arch.linears(0).iter().map(|linear| linear.n * linear.k).sum();
        let table = arch.embedding();
        // A tied table is read whole, as the head; one of its own only by the rows of the batch.
        let skipped = if arch.head.tied {
            0
        } else {
            let scheme = decoder.options().precision.scheme_for(LinearRole::Embedding, table.k);
            stored_bytes(table.n, table.k, scheme)
        };
        let kv = decoder.kv_layout();
        Self {
            weight_bytes: (decoder.weight_bytes() - skipped) as f64,
            block_weights: layers * of_layer as f64,
            head_weights: (table.n * table.k) as f64,
            kv_bytes_per_token: kv.block_bytes() as f64 / kv.block_tokens as f64,
            attention_operations: 4.0 * layers * (attention.heads * attention.head_dim) as f64,
        }
    }

    /// A prompt of `tokens` for each of `batch` sequences, with the logits of the last token.
    #[must_use]
    pub fn prefill(&self, batch: usize, tokens: usize) -> Work {
        let (batch, tokens) = (batch as f64, tokens as f64);
        let attended = batch * tokens * (tokens + 1.0) / 2.0;
        Work {
            bytes: self.weight_bytes,
            block_operations: 2.0 * batch * tokens * self.block_weights,
            other_operations: 2.0 * batch * self.head_weights
                + attended * self.attention_operations,
        }
    }

    /// One token for each of `batch` sequences that have `context` tokens each.
    #[must_use]
    pub fn decode(&self, batch: usize, context: f64) -> Work {
        let batch = batch as f64;
        Work {
            bytes: self.weight_bytes + batch * context * self.kv_bytes_per_token,
            block_operations: 2.0 * batch * self.block_weights,
            other_operations: batch
                * (2.0 * self.head_weights + context * self.attention_operations),
        }
    }
}
