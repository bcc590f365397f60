//! One decoder layer: its forward pass, and a way to run it without the others.

use bantam_backend::{
    AttentionShape, Backend, Batch, BatchError, HeadNorm, KvFormat, KvLayout, LinearInput, Norm,
    QuantizedLinear, Rope, Store,
};
use bantam_checkpoint::Checkpoint;
use bantam_numerics::{PackedWeight, QuantScheme, quantize};

use crate::arch::{ArchSpec, NormSpec, Positions, Residual};
use crate::error::ModelError;
use crate::load::{Layer, Linear, finite_values};
use crate::plan::OperandFormats;
use crate::precision::LinearRole;
use crate::stored::{StoredLinear, bias_of, in_layer, weight_of};

/// Looks at what passes through a layer. `()` does not.
pub trait Tap<B: Backend> {
    /// The rows `[T, K]` that a linear layer is about to read.
    fn linear_input(&mut self, backend: &B, role: LinearRole, x: &B::Operand) {
        let _ = (backend, role, x);
    }

    /// Queries, keys and values as attention reads them, `[T, (H+2G)·D]`.
    fn attention_input(&mut self, backend: &B, qkv: &B::Tensor) {
        let _ = (backend, qkv);
    }
}

impl<B: Backend> Tap<B> for () {}

/// The activations of a layer, made once for the largest step. T is the tokens of the step.
pub(crate) struct Activations<B: Backend> {
    /// The residual stream, `[T, C]`.
    pub(crate) hidden: B::Tensor,
    /// A norm's output, `[T, C]`.
    normed: B::Operand,
    /// Queries, keys and values, `[T, (H+2G)·D]`.
    qkv: B::Tensor,
    /// Attention's output, `[T, H·D]`.
    attended: B::Operand,
    /// Gate and up, `[T, 2F]`, or the one matrix's output, `[T, F]`.
    inner: B::Tensor,
    /// After the non-linearity, `[T, F]`.
    activated: B::Operand,
}

impl<B: Backend> Activations<B> {
    pub(crate) fn new(
        backend: &B,
        arch: &ArchSpec,
        tokens: usize,
        formats: &OperandFormats,
    ) -> Self {
        let columns = arch.workspace_columns();
        let tensor = |columns: u64| backend.tensor(tokens, columns as usize);
        let operand = |columns: u64, format| backend.operand(tokens, columns as usize, format);
        Self {
            hidden: tensor(columns.hidden),
            normed: operand(columns.hidden, formats.normed),
            qkv: tensor(columns.qkv),
            attended: operand(columns.attended, formats.attended),
            inner: tensor(columns.inner),
            activated: operand(columns.activated, formats.activated),
        }
    }
}

/// What a layer's forward pass reads besides its weights.
pub(crate) struct Step<'a, B: Backend> {
    pub(crate) backend: &'a B,
    pub(crate) arch: &'a ArchSpec,
    pub(crate) shape: &'a AttentionShape,
    pub(crate) rope: Option<&'a Rope>,
    pub(crate) batch: &'a Batch,
    /// The layer's place in the cache.
    pub(crate) index: usize,
}

impl<B: Backend> Step<'_, B> {
    /// Adds one layer's attention and feed-forward network to the residual stream.
    pub(crate) fn run(
        &self,
        layer: &Layer<B>,
        cache: &mut B::Cache,
        w: &mut Activations<B>,
        tap: &mut impl Tap<B>,
    ) -> Result<(), ModelError> {
        let &Self { backend, arch, shape, rope, batch, index } = self;
        let Layer { qkv, head_norm, attention_out, feed_forward_in, feed_forward_out, .. } = layer;

        backend.norm(&w.hidden, &layer.attention_norm, &qkv.input, &mut w.normed)?;
        tap.linear_input(backend, LinearRole::Qkv, &w.normed);
        linear(backend, &w.normed, qkv, Store::Replace, &mut w.qkv)?;
        backend.append(&mut w.qkv, shape, head_norm.as_ref(), rope, batch, index, cache)?;
        tap.attention_input(backend, &w.qkv);
        let input = &attention_out.input;
        backend.attention(&w.qkv, shape, batch, index, cache, input, &mut w.attended)?;
        tap.linear_input(backend, LinearRole::AttentionOut, &w.attended);
        // In a parallel layer both halves read the stream before either adds to it.
        let sequential = arch.residual == Residual::Sequential;
        if sequential {
            linear(backend, &w.attended, attention_out, Store::Add, &mut w.hidden)?;
        }
        let input = &feed_forward_in.input;
        match &layer.feed_forward_norm {
            Some(norm) => backend.norm(&w.hidden, norm, input, &mut w.normed)?,
            // Attention's rows serve, unless they were left in another form.
            None if input.is_shared_by(&qkv.input) => {}
            None => backend.norm(&w.hidden, &layer.attention_norm, input, &mut w.normed)?,
        }
        tap.linear_input(backend, LinearRole::FeedForwardIn, &w.normed);
        linear(backend, &w.normed, feed_forward_in, Store::Replace, &mut w.inner)?;
        let (kind, input) = (arch.feed_forward.kind, &feed_forward_out.input);
        backend.feed_forward(&w.inner, kind, input, &mut w.activated)?;
        tap.linear_input(backend, LinearRole::FeedForwardOut, &w.activated);
        if !sequential {
            linear(backend, &w.attended, attention_out, Store::Add, &mut w.hidden)?;
        }
        linear(backend, &w.activated, feed_forward_out, Store::Add, &mut w.hidden)
    }
}

/// `out = x·Wᵀ + b` or `out += x·Wᵀ + b`.
pub(crate) fn linear<B: Backend>(
    backend: &B,
    x: &B::Operand,
    linear: &Linear<B>,
    store: Store,
    out: &mut B::Tensor,
) -> Result<(), ModelError> {
    Ok(backend.linear(x, &linear.weight, linear.bias.as_ref(), store, out)?)
}

/// The parameters of a norm, `[C]`.
#[derive(Clone, Debug, PartialEq)]
pub struct NormWeights {
    /// γ.
    pub weight: Vec<f32>,
    /// β; layer norm only.
    pub bias: Option<Vec<f32>>,
}

/// A linear layer of a block in full precision, its parts stacked.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockLinear {
    /// Shape, role, and the stored matrices it is made of.
    pub stored: StoredLinear,
    /// W, `[N, K]`.
    pub weight: Vec<f32>,
    /// b, `[N]`.
    pub bias: Option<Vec<f32>>,
}

/// The weights of one decoder layer in full precision, in the computer's memory: what an optimizer
/// works on.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockWeights {
    /// The norm before attention.
    pub attention_norm: NormWeights,
    /// The RMS norms of query heads and of key heads, `[D]` each.
    pub head_norm: Option<[Vec<f32>; 2]>,
    /// The norm before the feed-forward network; none where that shares attention's.
    pub feed_forward_norm: Option<NormWeights>,
    /// Query, key and value; attention out; feed-forward in; feed-forward out.
    pub linears: [BlockLinear; 4],
}

impl BlockWeights {
    /// Reads a layer of a checkpoint that is not quantized yet.
    ///
    /// # Errors
    /// If a tensor is missing or not finite.
    pub fn read(
        checkpoint: &Checkpoint,
        arch: &ArchSpec,
        layer: usize,
    ) -> Result<Self, ModelError> {
        let names = arch.names;
        let vector = |name: String| finite_values(&checkpoint.tensor(&name)?);
        let norm = |name: &str| {
            let module = in_layer(name, layer);
            let bias = arch.norm.bias.then(|| vector(bias_of(&module))).transpose()?;
            Ok::<_, ModelError>(NormWeights { weight: vector(weight_of(&module))?, bias })
        };
        let head_norm = || {
            let [q, k] = names.head_norms.map(|name| weight_of(&in_layer(name, layer)));
            Ok::<_, ModelError>([vector(q)?, vector(k)?])
        };
        let read = |stored: StoredLinear| {
            let (mut weight, mut bias) = (Vec::with_capacity(stored.n * stored.k), Vec::new());
            for part in &stored.parts {
                let values = vector(weight_of(&part.module))?;
                for rows in &part.taken {
                    weight.extend_from_slice(&values[rows.start * stored.k..rows.end * stored.k]);
                }
                if stored.bias {
                    let values = vector(bias_of(&part.module))?;
                    bias.extend(part.taken.iter().flat_map(|rows| &values[rows.clone()]));
                }
            }
            let bias = stored.bias.then_some(bias);
            Ok::<_, ModelError>(BlockLinear { stored, weight, bias })
        };
        let [qkv, attention_out, feed_forward_in, feed_forward_out] = arch.linears(layer);
        Ok(Self {
            attention_norm: norm(names.attention_norm)?,
            head_norm: arch.attention.head_norm.then(head_norm).transpose()?,
            feed_forward_norm: arch
                .has_feed_forward_norm()
                .then(|| norm(names.feed_forward_norm))
                .transpose()?,
            linears: [
                read(qkv)?,
                read(attention_out)?,
                read(feed_forward_in)?,
                read(feed_forward_out)?,
            ],
        })
    }
}

/// A decoder layer on a device.
pub struct Block<B: Backend>(Layer<B>);

impl<B: Backend> Block<B> {
    /// Moves a layer to a device. Linear layers that have a `quantized` form take it, with the parts
    /// in the order they are stacked; others are rounded to `others`.
    ///
    /// # Errors
    /// If the parts of a layer do not stack, a weight is not finite, or the device cannot run a scheme.
    pub fn new(
        backend: &B,
        eps: NormSpec,
        weights: &BlockWeights,
        quantized: [Option<&[QuantizedLinear]>; 4],
        others: QuantScheme,
    ) -> Result<Self, ModelError> {
        let norm = |norm: &NormWeights| Norm {
            kind: eps.kind,
            weight: backend.vector(&norm.weight),
            bias: norm.bias.as_ref().map(|bias| backend.vector(bias)),
            eps: eps.eps,
        };
        let linear = |index: usize| {
            let BlockLinear { stored, weight, bias } = &weights.linears[index];
            let (packed, input) = match quantized[index] {
                Some(parts) => stacked(parts, stored)?,
                None => {
                    let packed = quantize(weight, stored.n, stored.k, others);
                    let packed = packed.map_err(|source| ModelError::Values {
                        file: "memory".to_owned(),
                        tensor: weight_of(&stored.parts[0].module),
                        source,
                    });
                    (packed?, LinearInput::new(others.activation))
                }
            };
            let input = LinearInput {
                format: input.format,
                scale: input.scale,
                channel_factors: input.channel_factors.map(|factors| backend.vector(&factors)),
                order: input.order,
            };
            let bias = bias.as_ref().map(|bias| backend.vector(bias));
            Ok::<_, ModelError>(Linear { weight: backend.weight(packed)?, bias, input })
        };
        Ok(Self(Layer {
            attention_norm: norm(&weights.attention_norm),
            qkv: linear(0)?,
            head_norm: weights.head_norm.as_ref().map(|[q, k]| HeadNorm {
                q: backend.vector(q),
                k: backend.vector(k),
                eps: eps.eps,
            }),
            attention_out: linear(1)?,
            feed_forward_norm: weights.feed_forward_norm.as_ref().map(norm),
            feed_forward_in: linear(2)?,
            feed_forward_out: linear(3)?,
        }))
    }
}

/// The parts of a linear layer as one, which reads what the first asks for.
fn stacked(
    parts: &[QuantizedLinear],
    stored: &StoredLinear,
) -> Result<(PackedWeight, LinearInput<Vec<f32>>), ModelError> {
    let unstackable = || ModelError::UnlikeParts {
        modules: stored
            .parts
            .iter()
            .map(|part| part.module.as_str())
            .collect::<Vec<_>>()
            .join(", "),
    };
    let first = parts.first().ok_or_else(unstackable)?;
    if parts.iter().any(|part| part.input != first.input) {
        return Err(unstackable());
    }
    let whole = PackedWeight::stack(parts.iter().map(|part| part.weight.clone()).collect());
    Ok((whole.ok_or_else(unstackable)?, first.input.clone()))
}

/// Runs blocks over whole sequences, one block at a time, each over all sequences before the next.
///
/// ```no_run
/// use bantam_backend::reference::Reference;
/// use bantam_checkpoint::Checkpoint;
/// use bantam_model::{ArchSpec, Block, BlockRunner, BlockWeights};
/// use bantam_numerics::QuantScheme;
///
/// let checkpoint = Checkpoint::open("model".as_ref())?;
/// let arch = ArchSpec::from_checkpoint(&checkpoint)?;
/// let mut runner = BlockRunner::new(&Reference, &arch, 512)?;
/// let mut hidden = runner.embed(&checkpoint, &[504, 3575, 282])?;
/// for layer in 0..arch.sizes.layers {
///     let weights = BlockWeights::read(&checkpoint, &arch, layer)?;
///     let block = Block::new(&Reference, arch.norm, &weights, [None; 4], QuantScheme::BF16)?;
///     runner.run(&block, layer, &mut hidden, &mut ())?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct BlockRunner<'a, B: Backend> {
    backend: &'a B,
    arch: ArchSpec,
    rope: Option<Rope>,
    cache: B::Cache,
    activations: Activations<B>,
    max_tokens: usize,
    block_table: Vec<u32>,
}

impl<'a, B: Backend> BlockRunner<'a, B> {
    /// A runner of sequences of at most `max_tokens` tokens. Operands can take every format, and
    /// attention reads keys and values in f32.
    ///
    /// # Errors
    /// If the network is not supported, or is not made for such sequences.
    pub fn new(backend: &'a B, arch: &ArchSpec, max_tokens: usize) -> Result<Self, ModelError> {
        arch.validate()?;
        let longest = arch.sizes.max_positions;
        if !(1..=longest).contains(&max_tokens) {
            return Err(ModelError::BadOption {
                option: "tokens of a sequence (--seq-len)".to_owned(),
                got: max_tokens.to_string(),
                expected: format!("1 to {longest}, the model's `{}`", arch.keys.max_positions),
            });
        }
        let rope = match &arch.positions {
            Positions::Rotary(rotary) => Some(rotary.table(max_tokens)),
            Positions::Alibi { .. } | Positions::Learned => None,
        };
        let block_tokens = backend.block_tokens();
        let blocks = max_tokens.div_ceil(block_tokens);
        let cache = backend.cache(&KvLayout {
            layers: 1,
            blocks,
            block_tokens,
            kv_heads: arch.attention.kv_heads,
            head_dim: arch.attention.head_dim,
            format: KvFormat::F32,
        })?;
        let activations = Activations::new(backend, arch, max_tokens, &OperandFormats::ANY);
        let block_table = (0..blocks as u32).collect();
        Ok(Self { backend, arch: arch.clone(), rope, cache, activations, max_tokens, block_table })
    }

    /// The residual stream before the first layer, `[T, C]`, read from the checkpoint in full
    /// precision.
    ///
    /// # Errors
    /// If a token is not in the vocabulary.
    pub fn embed(&self, checkpoint: &Checkpoint, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let (hidden, vocabulary) = (self.arch.sizes.hidden, self.arch.sizes.vocabulary);
        let table = checkpoint.tensor(&weight_of(self.arch.names.embedding))?;
        let mut out = vec![0.0; tokens.len() * hidden];
        for (row, &token) in out.chunks_exact_mut(hidden).zip(tokens) {
            let token = token as usize;
            if token >= vocabulary {
                return Err(ModelError::BadOption {
                    option: "token of a sequence".to_owned(),
                    got: token.to_string(),
                    expected: format!(
                        "below {vocabulary}, the model's `{}`",
                        self.arch.keys.vocabulary
                    ),
                });
            }
            table.read_rows(token..token + 1, row)?;
        }
        Ok(out)
    }

    /// Runs one layer over one sequence, from its start: `hidden: [T, C]` is the residual stream
    /// before the layer, then after it.
    ///
    /// # Errors
    /// If the sequence is empty or too long.
    ///
    /// # Panics
    /// If `hidden` is not whole rows.
    pub fn run(
        &mut self,
        block: &Block<B>,
        layer: usize,
        hidden: &mut [f32],
        tap: &mut impl Tap<B>,
    ) -> Result<(), ModelError> {
        let columns = self.arch.sizes.hidden;
        assert!(hidden.len().is_multiple_of(columns), "the stream has C columns");
        let tokens = hidden.len() / columns;
        if tokens > self.max_tokens {
            return Err(ModelError::BadOption {
                option: "tokens of a sequence (--seq-len)".to_owned(),
                got: tokens.to_string(),
                expected: format!("at most {}", self.max_tokens),
            });
        }
        let mut batch = Batch::default();
        let placeholders = vec![0; tokens]; // a layer reads positions, not tokens
        let pushed = batch.push(&placeholders, 0, &self.block_table);
        pushed.map_err(|BatchError::Empty| ModelError::BadOption {
            option: "tokens of a sequence (--seq-len)".to_owned(),
            got: "0".to_owned(),
            expected: "1 or more".to_owned(),
        })?;
        let shape = self.arch.attention_shape(layer);
        let backend = self.backend;
        let Self { arch, rope, cache, activations, .. } = self;
        backend.write(hidden, &mut activations.hidden)?;
        let (shape, rope, batch) = (&shape, rope.as_ref(), &batch);
        let step = Step { backend, arch, shape, rope, batch, index: 0 };
        step.run(&block.0, cache, activations, tap)?;
        hidden.copy_from_slice(&backend.read(&activations.hidden));
        Ok(())
    }
}
