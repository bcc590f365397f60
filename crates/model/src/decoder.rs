//! The one decoder: every family's forward pass.

use std::sync::atomic::AtomicU64;

use bantam_backend::{AttentionShape, Backend, Batch, KvLayout, Rope, Store};
use bantam_checkpoint::Checkpoint;
use bantam_numerics::ActivationFormat;

use crate::arch::{ArchSpec, Positions};
use crate::batch::BatchLimits;
use crate::block::{Activations, Step, linear};
use crate::error::ModelError;
use crate::load::{Layer, LoadProgress, Loader, Weights};
use crate::options::LoadOptions;
use crate::plan::{MemoryPlan, OperandFormats};

/// A decoder-only transformer on a device, with its key/value cache.
///
/// ```no_run
/// use bantam_backend::{Batch, reference::Reference};
/// use bantam_checkpoint::Checkpoint;
/// use bantam_model::{Decoder, LoadOptions};
///
/// let checkpoint = Checkpoint::open("model".as_ref())?;
/// let mut decoder = Decoder::load(Reference, &checkpoint, &LoadOptions::default(), &|_| {})?;
/// let mut batch = Batch::default();
/// batch.push(&[504, 3575, 282], 0, &[0])?; // three tokens of a new sequence in block 0
/// batch.want_last_logits();
/// let logits = decoder.forward(&batch)?;
/// assert_eq!(logits.len(), decoder.arch().sizes.vocabulary);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Decoder<B: Backend> {
    backend: B,
    arch: ArchSpec,
    options: LoadOptions,
    plan: MemoryPlan,
    weights: Weights<B>,
    /// The attention of each layer.
    shapes: Vec<AttentionShape>,
    rope: Option<Rope>,
    layout: KvLayout,
    cache: B::Cache,
    workspace: Workspace<B>,
}

/// The activations of a step, made once for the largest. R is its logit rows.
struct Workspace<B: Backend> {
    layer: Activations<B>,
    /// The rows whose logits are wanted, `[R, C]`.
    selected: B::Tensor,
    /// These after the last norm, `[R, C]`.
    selected_normed: B::Operand,
    /// `[R, V]`.
    logits: B::Tensor,
}

impl<B: Backend> Workspace<B> {
    fn new(backend: &B, arch: &ArchSpec, options: &LoadOptions) -> Self {
        let columns = arch.workspace_columns();
        let formats = OperandFormats::new(arch, options.precision);
        let (hidden, rows) = (columns.hidden as usize, options.max_logit_rows);
        Self {
            layer: Activations::new(backend, arch, options.max_batch_tokens, &formats),
            selected: backend.tensor(rows, hidden),
            selected_normed: backend.operand(rows, hidden, formats.selected_normed),
            logits: backend.tensor(rows, columns.logits as usize),
        }
    }
}

/// Threads that this process may run at once.
fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl<B: Backend> Decoder<B> {
    /// Loads a model onto a device. Configuration, tensor shapes and memory are checked first, in
    /// milliseconds; `progress` is called from several threads.
    ///
    /// # Errors
    /// If the network is not supported, an option is out of range, memory exceeds the budget, or a
    /// tensor is missing, of another shape, not read by this network, or not finite.
    pub fn load(
        backend: B,
        checkpoint: &Checkpoint,
        options: &LoadOptions,
        progress: &(dyn Fn(LoadProgress) + Sync),
    ) -> Result<Self, ModelError> {
        Self::load_as(
            ArchSpec::from_checkpoint(checkpoint)?,
            backend,
            checkpoint,
            options,
            progress,
        )
    }

    /// The same for a network described by hand instead of by the checkpoint's configuration.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_as(
        arch: ArchSpec,
        backend: B,
        checkpoint: &Checkpoint,
        options: &LoadOptions,
        progress: &(dyn Fn(LoadProgress) + Sync),
    ) -> Result<Self, ModelError> {
        arch.validate()?;
        let plan = MemoryPlan::new(&arch, options, backend.block_tokens())?;
        arch.check_tensors(checkpoint)?;
        let layout = KvLayout {
            blocks: plan.num_blocks,
            ..options.kv_layout(&arch, backend.block_tokens())?
        };
        let loader = Loader {
            backend: &backend,
            checkpoint,
            arch: &arch,
            precision: options.precision,
            threads: options.load_threads.unwrap_or_else(available_threads),
            total_bytes: plan.weights_bytes,
            progress,
            done_bytes: AtomicU64::new(0),
        };
        let weights = loader.weights()?;
        let precision = options.precision.attention();
        let shapes = (0..arch.sizes.layers).map(|layer| {
            let kv_ranges = arch.kv_ranges(checkpoint, layer)?;
            Ok(AttentionShape { kv_ranges, precision, ..arch.attention_shape(layer) })
        });
        let shapes = shapes.collect::<Result<_, ModelError>>()?;
        let rope = match &arch.positions {
            Positions::Rotary(rotary) => Some(rotary.table(plan.max_context)),
            Positions::Alibi { .. } | Positions::Learned => None,
        };
        Ok(Self {
            weights,
            shapes,
            rope,
            cache: backend.cache(&layout)?,
            workspace: Workspace::new(&backend, &arch, options),
            layout,
            plan,
            options: options.clone(),
            arch,
            backend,
        })
    }

    /// Takes the memory of the cache from the system now. Otherwise it is taken as blocks are first
    /// used, and whether there is enough shows under load.
    pub fn reserve_cache(&mut self) {
        self.backend.reserve(&mut self.cache);
    }

    /// Runs one step: appends the batch's tokens to the cache and returns the logits of
    /// `batch.logit_rows`, `[R, V]`.
    ///
    /// # Errors
    /// If the batch does not fit the model or the options it was loaded with; nothing has run then.
    pub fn forward(&mut self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
        let Self { arch, options, layout, .. } = self;
        BatchLimits { arch, options, layout }.check(batch)?;
        let table = &self.weights.embedding.weight;
        self.backend.embed(table, &batch.tokens, &mut self.workspace.layer.hidden)?;
        for index in 0..self.weights.layers.len() {
            self.run_layer(index, batch)?;
        }
        if batch.logit_rows.is_empty() {
            return Ok(Vec::new());
        }
        self.run_head(&batch.logit_rows)
    }

    fn run_layer(&mut self, index: usize, batch: &Batch) -> Result<(), ModelError> {
        let Self { backend, weights, shapes, rope, cache, workspace, arch, .. } = self;
        let (shape, rope) = (&shapes[index], rope.as_ref());
        let step = Step { backend, arch, shape, rope, batch, index };
        step.run(&weights.layers[index], cache, &mut workspace.layer, &mut ())
    }

    /// The logits of some rows of the residual stream.
    fn run_head(&mut self, rows: &[u32]) -> Result<Vec<f32>, ModelError> {
        let Self { backend, weights, workspace: w, .. } = self;
        let head = weights.untied_head.as_ref().unwrap_or(&weights.embedding);
        backend.select_rows(&w.layer.hidden, rows, &mut w.selected)?;
        backend.norm(&w.selected, &weights.final_norm, &head.input, &mut w.selected_normed)?;
        linear(backend, &w.selected_normed, head, Store::Replace, &mut w.logits)?;
        Ok(backend.read(&w.logits))
    }

    /// The network.
    #[must_use]
    pub fn arch(&self) -> &ArchSpec {
        &self.arch
    }

    /// The memory it holds.
    #[must_use]
    pub fn plan(&self) -> &MemoryPlan {
        &self.plan
    }

    /// The device.
    #[must_use]
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The options it was loaded with.
    #[must_use]
    pub fn options(&self) -> &LoadOptions {
        &self.options
    }

    /// The format in which most linear layers inside the blocks read their input: a checkpoint that
    /// is quantized already may have layers of several kinds.
    #[must_use]
    pub fn activation(&self) -> ActivationFormat {
        let linears = self.weights.layers.iter().flat_map(Layer::linears);
        let formats: Vec<_> = linears.map(|linear| linear.input.format).collect();
        let count = |format: &&ActivationFormat| formats.iter().filter(|f| f == format).count();
        formats.iter().max_by_key(count).copied().unwrap_or(self.options.precision.activation())
    }

    /// Bytes of all weights as stored, counted while loading.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        self.weights.bytes
    }

    /// The shape of the key/value cache.
    #[must_use]
    pub fn kv_layout(&self) -> &KvLayout {
        &self.layout
    }

    /// B: blocks of the cache.
    #[must_use]
    pub fn num_blocks(&self) -> usize {
        self.layout.blocks
    }

    /// S: tokens that a block holds.
    #[must_use]
    pub fn block_tokens(&self) -> usize {
        self.layout.block_tokens
    }
}
