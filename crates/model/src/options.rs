//! What can be chosen when a model is loaded.

use bantam_backend::KvFormat;
use bantam_numerics::{Group, QuantScheme, WeightFormat};

use crate::arch::ArchSpec;
use crate::error::ModelError;
use crate::precision::{Precision, fitting_group};
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
    /// Most sequences of a step.
    pub max_sequences: usize,
    /// How many tokens the cache holds.
    pub cache: CacheSize,
    /// Number format of the cache; none for what the checkpoint was calibrated for, if it was, else
    /// f32 with [`Precision::F32`] and bf16 with others.
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
    /// What refusals call the options above.
    pub names: OptionNames,
}

/// How many tokens the key/value cache holds, over all sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheSize {
    /// Every sequence at full length, side by side.
    #[default]
    FullLength,
    /// What weights and workspace leave of the memory budget: one sequence at full length at least,
    /// all of them at most.
    Budget,
}

/// What a command calls the numbers that memory depends on, so that a refusal names options that
/// exist; none where there is no such option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionNames {
    /// [`LoadOptions::max_context`].
    pub context: &'static str,
    /// [`LoadOptions::max_sequences`].
    pub sequences: Option<&'static str>,
    /// [`LoadOptions::max_batch_tokens`].
    pub step_tokens: Option<&'static str>,
    /// [`LoadOptions::memory_budget`].
    pub memory: Option<&'static str>,
}

impl OptionNames {
    /// As most commands have it: `--context` is an option, and nothing else.
    pub const CONTEXT: Self =
        Self { context: "--context", sequences: None, step_tokens: None, memory: None };
}

impl Default for OptionNames {
    /// `--context` and `--batch`.
    fn default() -> Self {
        Self { sequences: Some("--batch"), ..Self::CONTEXT }
    }
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            precision: Precision::default(),
            max_context: None,
            max_batch_tokens: 512,
            max_sequences: 1,
            cache: CacheSize::default(),
            kv_format: None,
            max_logit_rows: 1,
            memory_budget: None,
            load_threads: None,
            names: OptionNames::default(),
        }
    }
}

/// Most tokens, sequences or rows of a step.
const MAX_STEP: usize = 1 << 20;

impl LoadOptions {
    /// The longest sequence in tokens.
    #[must_use]
    pub fn context(&self, arch: &ArchSpec) -> usize {
        self.max_context.unwrap_or_else(|| arch.default_context())
    }

    /// Checks the options against the model.
    pub(crate) fn validate(&self, arch: &ArchSpec) -> Result<(), ModelError> {
        let refuse = |option: String, got: usize, expected: String| {
            Err(ModelError::BadOption { option, got: got.to_string(), expected })
        };
        let (context, own) = (self.context(arch), arch.sizes.max_positions);
        if context == 0 || context > own {
            let of_model = format!("1 to {own}, the model's `{}`", arch.keys.max_positions);
            let expected = if context == 0 { format!("1 to {own}") } else { of_model };
            return refuse(format!("context ({})", self.names.context), context, expected);
        }
        let as_stored = matches!(self.precision, Precision::Bf16 | Precision::F32);
        if let Some(quantization) = arch.quantization.as_ref().filter(|_| !as_stored) {
            return Err(ModelError::BadOption {
                option: "number format (--dtype)".to_owned(),
                got: self.precision.to_string(),
                expected: format!(
                    "bf16: the checkpoint is quantized already ({}), and its layers stay as stored",
                    quantization.method()
                ),
            });
        }
        // Sequences come before tokens and rows, which commands derive from them.
        let threads = self.load_threads.unwrap_or(1);
        let limits = [
            (self.sequences_option(), self.max_sequences),
            (named("number of tokens of a step", self.names.step_tokens), self.max_batch_tokens),
            ("number of logit rows of a step".to_owned(), self.max_logit_rows),
            ("number of loading threads".to_owned(), threads),
        ];
        match limits.into_iter().find(|(_, got)| !(1..=MAX_STEP).contains(got)) {
            Some((option, got)) => refuse(option, got, format!("1 to {MAX_STEP}")),
            None => Ok(()),
        }
    }

    /// What refusals call the number of sequences.
    pub(crate) fn sequences_option(&self) -> String {
        named("number of sequences side by side", self.names.sequences)
    }
}

/// What a number is, and the option that sets it.
fn named(what: &str, option: Option<&str>) -> String {
    option.map_or_else(|| what.to_owned(), |option| format!("{what} ({option})"))
}

impl Precision {
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
                    let (best, fitting) = (self.regrouped(None), self.regrouped(Some(group)));
                    format!("--dtype {fitting}, or {best} for the best of each layer")
                }
                None => {
                    let best = self.regrouped(None);
                    format!("--dtype {best}, which stores such layers in int8")
                }
            },
        })
    }

    /// The same words with another group size, and with offsets.
    fn regrouped(self, size: Option<usize>) -> Self {
        self.with_groups(size, false)
    }
}
