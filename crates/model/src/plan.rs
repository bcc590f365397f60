//! How much memory a model will take, in bytes, before any of it is allocated.

use std::fmt;
use std::ops::Range;

use bantam_backend::{KvFormat, KvLayout};
use bantam_numerics::ActivationFormat;
use serde::Serialize;

use crate::arch::{ArchSpec, Positions};
use crate::error::ModelError;
use crate::options::{CacheSize, LoadOptions};
use crate::precision::{Precision, stored_bytes};
use crate::stored::StoredLinear;

/// The memory a loaded model holds. Nothing else of its size is allocated after loading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryPlan {
    /// Linear layers, embedding, norms and biases as stored.
    pub weights_bytes: u64,
    /// The key/value cache.
    pub kv_bytes: u64,
    /// Activations of the largest step, its logits included.
    pub workspace_bytes: u64,
    /// The table of rotary angles.
    pub rope_bytes: u64,
    /// Positions of a sequence, in tokens.
    pub max_context: usize,
    /// B: blocks of the cache.
    pub num_blocks: usize,
    /// S: tokens that a block holds.
    pub block_tokens: usize,
    /// What the linear layers are stored in.
    pub schemes: Vec<SchemeShare>,
}

/// The linear layers that share a scheme.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SchemeShare {
    /// The scheme, such as `int4-g64-sym`.
    pub scheme: String,
    /// How many layers.
    pub layers: usize,
    /// Their bytes as stored, biases not counted.
    pub bytes: u64,
}

const F32_BYTES: u64 = size_of::<f32>() as u64;

impl MemoryPlan {
    /// Plans a model on a device whose blocks hold `block_tokens` tokens.
    ///
    /// # Errors
    /// If an option is out of range, a group size does not divide a layer, or the plan exceeds the
    /// memory budget; the error names options that fit.
    pub fn new(
        arch: &ArchSpec,
        options: &LoadOptions,
        block_tokens: usize,
    ) -> Result<Self, ModelError> {
        options.validate(arch)?;
        let plan = Self::unchecked(arch, options, block_tokens)?;
        if let Some(budget) = options.memory_budget {
            plan.check_budget(budget, arch, options)?;
        }
        Ok(plan)
    }

    fn unchecked(
        arch: &ArchSpec,
        options: &LoadOptions,
        block_tokens: usize,
    ) -> Result<Self, ModelError> {
        let mut layout = options.kv_layout(arch, block_tokens)?;
        let max_context = options.context(arch);
        let schemes = schemes(arch, options.precision)?;
        let vectors: usize = arch
            .needed_tensors()
            .iter()
            .filter(|tensor| tensor.shape.len() == 1)
            .map(|tensor| tensor.shape[0])
            .sum();
        let mut plan = Self {
            weights_bytes: schemes.iter().map(|share| share.bytes).sum::<u64>()
                + F32_BYTES * vectors as u64,
            kv_bytes: layout.bytes() as u64,
            workspace_bytes: workspace_bytes(arch, options),
            rope_bytes: match &arch.positions {
                Positions::Rotary(rotary) => rotary.table_bytes(max_context),
                Positions::Alibi { .. } | Positions::Learned => 0,
            },
            max_context,
            num_blocks: layout.blocks,
            block_tokens,
            schemes,
        };
        if let (CacheSize::Budget, Some(budget)) = (options.cache, options.memory_budget) {
            let one_sequence = max_context.div_ceil(block_tokens);
            let left = budget.saturating_sub(plan.total() - plan.kv_bytes);
            let fitting = (left / layout.block_bytes() as u64) as usize;
            layout.blocks = fitting.clamp(one_sequence, layout.blocks);
            (plan.num_blocks, plan.kv_bytes) = (layout.blocks, layout.bytes() as u64);
        }
        Ok(plan)
    }

    /// Bytes of everything.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }

    /// The bytes of each part, with its name in metrics.
    #[must_use]
    pub const fn parts(&self) -> [(&'static str, u64); 4] {
        [
            ("weights", self.weights_bytes),
            ("cache", self.kv_bytes),
            ("workspace", self.workspace_bytes),
            ("rotary_table", self.rope_bytes),
        ]
    }

    /// Refuses a plan that exceeds `budget` bytes, with options that would not.
    fn check_budget(
        &self,
        budget: u64,
        arch: &ArchSpec,
        options: &LoadOptions,
    ) -> Result<(), ModelError> {
        if self.total() <= budget {
            return Ok(());
        }
        let way_out = self.way_out(budget, arch, options);
        let parts = [
            ("the weights need", self.weights_bytes),
            ("the workspace of a step needs", self.workspace_bytes + self.rope_bytes),
            ("the KV cache needs", self.kv_bytes),
        ];
        let mut left = budget;
        for (what, needed) in parts {
            if needed > left {
                let rounded = (in_units(needed), in_units(left));
                let (needed, left) = if rounded.0 == rounded.1 {
                    (format!("{needed} B"), format!("{left} B"))
                } else {
                    rounded
                };
                let budget = in_units(budget);
                return Err(ModelError::OverBudget { what, needed, budget, left, way_out });
            }
            left -= needed;
        }
        Ok(())
    }

    /// Options that fit into `budget` bytes, in words.
    fn way_out(&self, budget: u64, arch: &ArchSpec, options: &LoadOptions) -> String {
        // Whether the whole fits with other options; all smaller values of a count fit if one does.
        let fits = |changed: &LoadOptions| {
            let plan = Self::unchecked(arch, changed, self.block_tokens);
            plan.is_ok_and(|plan| plan.total() <= budget)
        };
        let mut ways = Vec::new();
        for count in &COUNTS {
            let Some(name) = (count.name)(options) else { continue };
            let fitting = largest_below((count.now)(options, arch), |value| {
                fits(&(count.changed)(options.clone(), value))
            });
            ways.extend(fitting.map(|value| format!("{name} {value}")));
        }
        if let Some(name) = options.names.memory {
            let least = Self::unchecked(arch, options, self.block_tokens);
            ways.extend(least.ok().map(|plan| format!("{name} {}", in_whole_mib(plan.total()))));
        }
        let smaller = [Precision::Bf16, Precision::Int8, Precision::INT4];
        let with = |precision| LoadOptions { precision, ..options.clone() };
        let dtype = smaller.into_iter().find(|&precision| fits(&with(precision)));
        ways.extend(dtype.map(|precision| format!("--dtype {precision}")));
        if !ways.is_empty() {
            return format!("use {}", ways.join(" or "));
        }
        // No option is enough alone: one sequence, as long as it can be, in the largest format.
        for precision in std::iter::once(options.precision).chain(smaller) {
            let alone = fewer_sequences(with(precision), 1);
            let context = largest_below(self.max_context + 1, |value| {
                fits(&LoadOptions { max_context: Some(value), ..alone.clone() })
            });
            if let Some(context) = context {
                let alone = options.names.sequences.map(|name| format!("{name} 1 and "));
                return format!(
                    "use --dtype {precision} with {}{} {context} together",
                    alone.unwrap_or_default(),
                    options.names.context,
                );
            }
        }
        let total = in_units(self.total());
        format!("the whole needs {total}; use a smaller model, or a machine with more memory")
    }
}

/// A number that the memory grows with.
struct Count {
    /// The option that sets it.
    name: fn(&LoadOptions) -> Option<&'static str>,
    now: fn(&LoadOptions, &ArchSpec) -> usize,
    /// The options with a smaller one.
    changed: fn(LoadOptions, usize) -> LoadOptions,
}

const COUNTS: [Count; 3] = [
    Count {
        name: |options| Some(options.names.context),
        now: |options, arch| options.context(arch),
        changed: |options, value| LoadOptions { max_context: Some(value), ..options },
    },
    Count {
        name: |options| options.names.sequences,
        now: |options, _| options.max_sequences,
        changed: fewer_sequences,
    },
    Count {
        name: |options| options.names.step_tokens,
        now: |options, _| options.max_batch_tokens,
        changed: |options, value| LoadOptions { max_batch_tokens: value, ..options },
    },
];

/// The options with fewer sequences, and with fewer tokens and logit rows of a step where these were
/// as many as the sequences.
fn fewer_sequences(options: LoadOptions, sequences: usize) -> LoadOptions {
    let usual = LoadOptions::default();
    let all = options.max_sequences;
    let fewer = |count: usize, least: usize| {
        if count == all { sequences.max(least).min(count) } else { count }
    };
    LoadOptions {
        max_sequences: sequences,
        max_batch_tokens: fewer(options.max_batch_tokens, usual.max_batch_tokens),
        max_logit_rows: fewer(options.max_logit_rows, usual.max_logit_rows),
        ..options
    }
}

/// A number of things.
pub(crate) fn in_words(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// The largest value from 1 to `upper − 1` that fits, if there is one; smaller ones fit too.
fn largest_below(upper: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
    let (mut good, mut bad) = (0, upper);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        *(if fits(middle) { &mut good } else { &mut bad }) = middle;
    }
    (good > 0).then_some(good)
}

/// Sums linear layers by scheme; refuses groups that do not divide K.
fn schemes(arch: &ArchSpec, precision: Precision) -> Result<Vec<SchemeShare>, ModelError> {
    let mut shares: Vec<SchemeShare> = Vec::new();
    let mut add = |linear: &StoredLinear, count: usize| {
        let scheme = arch.scheme(linear, precision)?;
        let bytes = count as u64 * stored_bytes(linear.n, linear.k, scheme);
        let scheme = scheme.to_string();
        match shares.iter_mut().find(|share| share.scheme == scheme) {
            Some(share) => {
                share.layers += count;
                share.bytes += bytes;
            }
            None => shares.push(SchemeShare { scheme, layers: count, bytes }),
        }
        Ok::<(), ModelError>(())
    };
    add(&arch.embedding(), 1)?;
    let (different, alike) = different_layers(arch);
    for layer in different {
        for linear in &arch.linears(layer) {
            add(linear, alike)?;
        }
    }
    if let Some(head) = arch.untied_head() {
        add(&head, 1)?;
    }
    Ok(shares)
}

/// Layers whose schemes may differ, and how many each stands for: all layers have the same shapes, but a
/// checkpoint may quantize each in its own way.
fn different_layers(arch: &ArchSpec) -> (Range<usize>, usize) {
    let layers = arch.sizes.layers;
    if arch.quantization.is_some() { (0..layers, 1) } else { (0..1, layers) }
}

/// The widest formats that the operands of a step must hold.
pub(crate) struct OperandFormats {
    pub(crate) normed: ActivationFormat,
    pub(crate) attended: ActivationFormat,
    pub(crate) activated: ActivationFormat,
    pub(crate) selected_normed: ActivationFormat,
}

impl OperandFormats {
    /// Operands that can take every format.
    pub(crate) const ANY: Self = {
        let widest = ActivationFormat::F32;
        Self { normed: widest, attended: widest, activated: widest, selected_normed: widest }
    };

    pub(crate) fn new(arch: &ArchSpec, precision: Precision) -> Self {
        // What cannot be loaded at all is refused by the plan.
        let of = |linear: &StoredLinear| {
            let scheme = arch.scheme(linear, precision);
            scheme.unwrap_or_else(|_| precision.scheme_for(linear.role, linear.k)).activation
        };
        let widest = |linear: &dyn Fn(usize) -> StoredLinear| {
            let formats = different_layers(arch).0.map(|layer| of(&linear(layer)));
            formats.max_by_key(|format| format.element_bytes()).unwrap_or(ActivationFormat::F32)
        };
        let [qkv, attention_out, feed_forward_in, feed_forward_out] =
            [0, 1, 2, 3].map(|at| widest(&|layer| arch.linears(layer)[at].clone()));
        Self {
            normed: std::cmp::max_by_key(qkv, feed_forward_in, |format| format.element_bytes()),
            attended: attention_out,
            activated: feed_forward_out,
            selected_normed: of(&arch.untied_head().unwrap_or_else(|| arch.embedding())),
        }
    }
}

/// Bytes of the activations that a decoder's workspace holds.
fn workspace_bytes(arch: &ArchSpec, options: &LoadOptions) -> u64 {
    let formats = OperandFormats::new(arch, options.precision);
    // Codes, and room for a scale each block of channels.
    let operand = |columns: u64, format: ActivationFormat| {
        let scales = ActivationFormat::Fp8Blocks.scales(columns as usize) as u64;
        columns * format.element_bytes() as u64 + F32_BYTES * scales
    };
    let columns = arch.workspace_columns();
    // Rows whose scales attention finds when all heads are there wait as f32.
    let waiting = if formats.attended.is_scaled() { columns.attended } else { 0 };
    let token = F32_BYTES * (columns.hidden + columns.qkv + columns.inner + waiting)
        + operand(columns.hidden, formats.normed)
        + operand(columns.attended, formats.attended)
        + operand(columns.activated, formats.activated);
    let logit_row = F32_BYTES * (columns.hidden + columns.logits)
        + operand(columns.hidden, formats.selected_normed);
    options.max_batch_tokens as u64 * token + options.max_logit_rows as u64 * logit_row
}

/// Columns of the tensors and operands of a step.
pub(crate) struct WorkspaceColumns {
    pub(crate) hidden: u64,
    pub(crate) qkv: u64,
    pub(crate) attended: u64,
    pub(crate) inner: u64,
    pub(crate) activated: u64,
    pub(crate) logits: u64,
}

impl ArchSpec {
    pub(crate) fn workspace_columns(&self) -> WorkspaceColumns {
        let shape = &self.attention;
        WorkspaceColumns {
            hidden: self.sizes.hidden as u64,
            qkv: ((shape.heads + 2 * shape.kv_heads) * shape.head_dim) as u64,
            attended: (shape.heads * shape.head_dim) as u64,
            inner: self.feed_forward.kind.input_columns(self.sizes.feed_forward) as u64,
            activated: self.sizes.feed_forward as u64,
            logits: self.sizes.vocabulary as u64,
        }
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schemes: Vec<String> =
            self.schemes.iter().map(|s| format!("{} × {}", s.layers, s.scheme)).collect();
        let blocks = format!("{} blocks of {} tokens", self.num_blocks, self.block_tokens);
        let rows = [
            ("weights", self.weights_bytes, schemes.join(", ")),
            ("KV cache", self.kv_bytes, blocks),
            ("workspace", self.workspace_bytes, String::new()),
            ("rotary table", self.rope_bytes, format!("{} positions", self.max_context)),
            ("total", self.total(), String::new()),
        ];
        for (i, (what, bytes, note)) in rows.into_iter().enumerate() {
            let line = format!("{what:<12} {:>10}  {note}", in_units(bytes));
            f.write_str(if i > 0 { "\n" } else { "" })?;
            f.write_str(line.trim_end())?;
        }
        Ok(())
    }
}

/// Bytes rounded up to what `--memory` reads.
fn in_whole_mib(bytes: u64) -> String {
    format!("{}MiB", bytes.div_ceil(1 << 20))
}

/// Bytes in the largest binary unit that leaves a whole part.
pub(crate) fn in_units(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

impl LoadOptions {
    /// The cache of a model at its largest: `max_sequences` sequences of the longest context.
    pub(crate) fn kv_layout(
        &self,
        arch: &ArchSpec,
        block_tokens: usize,
    ) -> Result<KvLayout, ModelError> {
        let own = if self.precision == Precision::F32 { KvFormat::F32 } else { KvFormat::BF16 };
        let format = self.kv_format.or(arch.kv_format).unwrap_or(own);
        let blocks_each = self.context(arch).div_ceil(block_tokens);
        let layout = KvLayout {
            layers: arch.sizes.layers,
            blocks: self.max_sequences * blocks_each,
            block_tokens,
            kv_heads: arch.attention.kv_heads,
            head_dim: arch.attention.head_dim,
            format,
        };
        // Block ids are u32, and the bytes must be a size that this machine can name.
        let addressable = layout
            .block_bytes()
            .checked_mul(layout.blocks)
            .is_some_and(|bytes| bytes <= isize::MAX as usize);
        if layout.blocks > u32::MAX as usize || !addressable {
            let most = (u32::MAX as usize).min(isize::MAX as usize / layout.block_bytes());
            return Err(ModelError::BadOption {
                option: self.sequences_option(),
                got: self.max_sequences.to_string(),
                expected: format!(
                    "at most {} of {} tokens",
                    most / blocks_each,
                    self.context(arch)
                ),
            });
        }
        Ok(layout)
    }
}
