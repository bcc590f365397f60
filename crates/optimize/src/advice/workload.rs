//! What is asked of a model, and in which formats its layers answer.

use bantam_backend::KvFormat;
use bantam_model::{
    ArchSpec, LoadOptions, MemoryPlan, ModelError, Precision, StoredLinear, stored_bytes,
};
use bantam_numerics::QuantScheme;
use serde::Serialize;

use crate::{OptimizeError, QuantizationPlan};

/// Requests that are answered side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// Requests.
    pub batch: usize,
    /// Tokens of each prompt.
    pub input_tokens: usize,
    /// Tokens of each answer.
    pub output_tokens: usize,
}

impl Workload {
    /// Tokens of a sequence at its end.
    #[must_use]
    pub fn context(&self) -> usize {
        self.input_tokens.saturating_add(self.output_tokens)
    }

    /// Refuses what the model cannot do.
    ///
    /// # Errors
    /// If a number is 0, or prompt and answer are longer together than the model's context.
    pub fn check(&self, arch: &ArchSpec) -> Result<(), OptimizeError> {
        let refuse = |option, got: usize, expected: String| {
            Err(OptimizeError::Option { option, got: got.to_string(), expected })
        };
        let counts =
            [("--batch", self.batch), ("--isl", self.input_tokens), ("--osl", self.output_tokens)];
        if let Some((option, got)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return refuse(option, got, "1 or more".to_owned());
        }
        let own = arch.sizes.max_positions;
        if self.context() > own {
            let expected = format!("at most {own} tokens, which the model was made for");
            return refuse("--isl plus --osl", self.context(), expected);
        }
        Ok(())
    }
}

/// The formats that a model runs in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Formats {
    /// Of each block's four linear layers.
    pub(super) blocks: Vec<[QuantScheme; 4]>,
    /// Of the head, which is the embedding table where they are tied.
    pub(super) head: QuantScheme,
    /// Of the cache.
    pub(super) kv: KvFormat,
}

impl Formats {
    /// 16 bits throughout.
    pub(super) fn sixteen_bits(arch: &ArchSpec, kv: KvFormat) -> Self {
        let blocks = vec![[QuantScheme::BF16; 4]; arch.sizes.layers];
        Self { blocks, head: QuantScheme::BF16, kv }
    }

    /// What a plan makes of a model in 16 bits.
    pub(super) fn planned(plan: &QuantizationPlan) -> Self {
        let scheme = |site: &Option<crate::Treatment>| {
            site.map_or(QuantScheme::BF16, |treatment| treatment.scheme)
        };
        Self {
            blocks: plan.blocks.iter().map(|sites| sites.each_ref().map(scheme)).collect(),
            head: QuantScheme::BF16,
            kv: plan.kv.unwrap_or(KvFormat::BF16),
        }
    }

    /// What a quantized checkpoint holds.
    pub(super) fn stored(arch: &ArchSpec) -> Result<Self, ModelError> {
        let scheme = |linear: &StoredLinear| arch.scheme(linear, Precision::Bf16);
        let blocks = (0..arch.sizes.layers).map(|layer| {
            let [a, b, c, d] = arch.linears(layer);
            Ok([scheme(&a)?, scheme(&b)?, scheme(&c)?, scheme(&d)?])
        });
        Ok(Self {
            blocks: blocks.collect::<Result<_, ModelError>>()?,
            head: scheme(&head(arch))?,
            kv: arch.kv_format.unwrap_or(KvFormat::BF16),
        })
    }
}

/// The layer that makes logits.
pub(super) fn head(arch: &ArchSpec) -> StoredLinear {
    arch.untied_head().unwrap_or_else(|| arch.embedding())
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Linear layers, embedding, norms and biases.
    pub weights_bytes: u64,
    /// Keys and values of all requests at their full length.
    pub cache_bytes: u64,
    /// Activations of a step, and the rotary table.
    pub workspace_bytes: u64,
}

/// Tokens that a block of the cache holds, as the CPU back end has them.
const BLOCK_TOKENS: usize = 16;

impl Memory {
    /// Bytes of everything.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.weights_bytes + self.cache_bytes + self.workspace_bytes
    }

    /// What a model in 16 bits takes in these formats.
    pub(super) fn of(
        arch: &ArchSpec,
        formats: &Formats,
        workload: &Workload,
    ) -> Result<Self, ModelError> {
        let usual = LoadOptions::default();
        let options = LoadOptions {
            max_context: Some(workload.context()),
            max_batch_tokens: usual.max_batch_tokens.max(workload.batch),
            max_sequences: workload.batch,
            max_logit_rows: workload.batch,
            kv_format: Some(formats.kv),
            ..usual
        };
        let plan = MemoryPlan::new(arch, &options, BLOCK_TOKENS)?;
        let (mut before, mut after) = (0, 0);
        for (layer, schemes) in formats.blocks.iter().enumerate() {
            for (linear, scheme) in arch.linears(layer).iter().zip(schemes) {
                before += stored_bytes(linear.n, linear.k, QuantScheme::BF16);
                after += stored_bytes(linear.n, linear.k, *scheme);
            }
        }
        Ok(Self {
            weights_bytes: plan.weights_bytes - before + after,
            cache_bytes: plan.kv_bytes,
            workspace_bytes: plan.workspace_bytes + plan.rope_bytes,
        })
    }
}
