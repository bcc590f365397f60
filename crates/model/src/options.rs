//! What can be chosen when a model is loaded.

use bantam_backend::KvFormat;
use bantam_numerics::{ActivationFormat, Group, QuantScheme, WeightFormat};

use crate::arch::ArchSpec;
use crate::error::ModelError;
use crate::precision::{LinearRole, Precision, fitting_group};
use crate::stored::StoredLinear;

/// How to load a model.
///
/// ```
/// use bantam_model::{LoadOptions, Precision};
/// let options = LoadOptions { precision: Precision::Int8, max_sequences: 8, ..Default::default() };
/// assert_eq!(options.max_context, None); // the model's own
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// How linear layers are stored.
    pub precision: Precision,
    /// Longest sequence in tokens; none for the model's own limit.
    pub max_context: Option<usize>,
    /// T: most tokens of a step.
    pub max_batch_tokens: usize,
    /// Most sequences of a step; the cache holds as many at full length.
    pub max_sequences: usize,
    /// Number format of the cache; none for f32 with [`Precision::F32`], else bf16.
    pub kv_format: Option<KvFormat>,
    /// Most rows of a step whose logits are wanted.
    pub max_logit_rows: usize,
    /// Bytes that the whole may take; none for no limit. A plan beyond it is refused with values
    /// that fit. It counts what [`MemoryPlan::total`](crate::MemoryPlan::total) counts; loading
    /// itself takes up to 128 MiB more for each loading thread, until it ends.
    pub memory_budget: Option<u64>,
    /// Threads that read and round weights, 1 or more; none for one on each core of the machine.
    /// Give the number of threads the back end was made with, so that loading takes no more of a
    /// shared machine than computing does. More than eight are not used: the memory bus is busy
    /// by then.
    pub load_threads: Option<usize>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            precision: Precision::default(),
            max_context: None,
            max_batch_tokens: 512,
            max_sequences: 1,
            kv_format: None,
            max_logit_rows: 1,
            memory_budget: None,
            load_threads: None,
        }
    }
}

const CONTEXT: &str = "context (--context)";
pub(crate) const SEQUENCES: &str = "number of sequences side by side (--batch)";
/// Most tokens, sequences or rows of a step.
const MAX_STEP: usize = 1 << 20;

impl LoadOptions {
    /// The longest sequence in tokens.
    #[must_use]
    pub fn context(&self, arch: &ArchSpec) -> usize {
        self.max_context.unwrap_or(arch.sizes.max_positions)
    }

    /// Checks the options against the model.
    pub(crate) fn validate(&self, arch: &ArchSpec) -> Result<(), ModelError> {
        // Sequences come before tokens and rows, which commands derive from them.
        let limits = [
            (CONTEXT, self.context(arch), arch.sizes.max_positions),
            (SEQUENCES, self.max_sequences, MAX_STEP),
            ("number of tokens of a step", self.max_batch_tokens, MAX_STEP),
            ("number of logit rows of a step", self.max_logit_rows, MAX_STEP),
            ("number of loading threads", self.load_threads.unwrap_or(1), MAX_STEP),
        ];
        for (option, got, limit) in limits {
            if got == 0 || got > limit {
                let mut expected = format!("1 to {limit}");
                if option == CONTEXT && got > 0 {
                    expected += &format!(", the model's `{}`", arch.keys.max_positions);
                }
                return Err(ModelError::BadOption { option, got: got.to_string(), expected });
            }
        }
        Ok(())
    }
}

impl Precision {
    /// INT4 with the largest group size that fits each layer, with offsets: they cost 3 % of the bytes
    /// and lower the KL of the same groups (docs/reference/accuracy.md).
    pub const INT4: Self = Self::Int4 { group: None, symmetric: false };

    /// How linear layers read their input.
    #[must_use]
    pub fn activation(&self) -> ActivationFormat {
        self.scheme_for(LinearRole::Qkv, 1).activation
    }

    /// The scheme of a layer, if its group divides K and is a multiple of 4.
    pub(crate) fn checked_scheme(&self, linear: &StoredLinear) -> Result<QuantScheme, ModelError> {
        let scheme = self.scheme_for(linear.role, linear.k);
        let WeightFormat::Int4 { group: Group::Of(size), .. } = scheme.weight else {
            return Ok(scheme);
        };
        if linear.k.is_multiple_of(size) && size.is_multiple_of(4) {
            return Ok(scheme);
        }
        Err(ModelError::Group {
            layer: linear.parts[0].module.clone(),
            k: linear.k,
            group: size,
            way_out: match fitting_group(linear.k) {
                Some(group) => {
                    format!("--dtype int4-g{group}, or int4 for the best of each layer")
                }
                None => "--dtype int4, which stores such layers in int8".to_owned(),
            },
        })
    }
}
