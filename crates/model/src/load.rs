//! From stored tensors to weights on a device.
//!
//! A few workers take layer after layer. Each holds one slab of f32 rows at a time, so loading needs
//! little more memory than the loaded model.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bantam_backend::{Backend, HeadNorm, LinearInput, Norm, QuantizedLinear};
use bantam_checkpoint::{Checkpoint, TensorView};
use bantam_numerics::{PackedWeight, QuantScheme, QuantizeError, quantize};

use crate::arch::ArchSpec;
use crate::error::ModelError;
use crate::precision::Precision;
use crate::stored::{StoredLinear, bias_of, in_layer, weight_of};

/// How far loading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadProgress {
    /// Bytes of weights on the device, as stored there.
    pub done_bytes: u64,
    /// Bytes of all weights.
    pub total_bytes: u64,
}

/// `y = x·Wᵀ + b` on a device.
pub(crate) struct Linear<B: Backend> {
    pub(crate) weight: B::Weight,
    pub(crate) bias: Option<B::Vector>,
    /// How it wants its input.
    pub(crate) input: LinearInput<B::Vector>,
}

/// The weights of a decoder layer.
pub(crate) struct Layer<B: Backend> {
    pub(crate) attention_norm: Norm<B::Vector>,
    pub(crate) qkv: Linear<B>,
    pub(crate) head_norm: Option<HeadNorm<B::Vector>>,
    pub(crate) attention_out: Linear<B>,
    /// None where feed-forward shares attention's.
    pub(crate) feed_forward_norm: Option<Norm<B::Vector>>,
    pub(crate) feed_forward_in: Linear<B>,
    pub(crate) feed_forward_out: Linear<B>,
}

impl<B: Backend> Layer<B> {
    /// Its linear layers.
    pub(crate) fn linears(&self) -> [&Linear<B>; 4] {
        [&self.qkv, &self.attention_out, &self.feed_forward_in, &self.feed_forward_out]
    }
}

/// The weights of a model.
pub(crate) struct Weights<B: Backend> {
    pub(crate) embedding: Linear<B>,
    pub(crate) layers: Vec<Layer<B>>,
    pub(crate) final_norm: Norm<B::Vector>,
    /// None for a tied head: the embedding is its weight.
    pub(crate) untied_head: Option<Linear<B>>,
    /// Bytes of all of them as stored.
    pub(crate) bytes: u64,
}

/// Elements of the slab of f32 that a worker holds.
const SLAB_ELEMENTS: usize = 1 << 24;
/// Beyond a few workers the memory bus is busy.
const MAX_WORKERS: usize = 8;

/// What loading reads from, and how far it has come.
pub(crate) struct Loader<'a, B> {
    pub(crate) backend: &'a B,
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) arch: &'a ArchSpec,
    pub(crate) precision: Precision,
    /// Threads that take layers.
    pub(crate) threads: usize,
    pub(crate) total_bytes: u64,
    pub(crate) progress: &'a (dyn Fn(LoadProgress) + Sync),
    pub(crate) done_bytes: AtomicU64,
}

impl<B: Backend> Loader<'_, B> {
    /// Loads everything.
    pub(crate) fn weights(&self) -> Result<Weights<B>, ModelError> {
        let arch = self.arch;
        if arch.head.tied {
            self.check_tied_head()?;
        }
        let embedding = self.linear(&arch.embedding())?;
        let layers = self.layers()?;
        let final_norm = self.norm(arch.names.final_norm)?;
        let untied_head = arch.untied_head().map(|head| self.linear(&head)).transpose()?;
        let bytes = self.done_bytes.load(Ordering::Relaxed);
        Ok(Weights { embedding, layers, final_norm, untied_head, bytes })
    }

    /// Loads all layers, several at a time. Of several errors the lowest layer's is reported.
    fn layers(&self) -> Result<Vec<Layer<B>>, ModelError> {
        let count = self.arch.sizes.layers;
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let results = Mutex::new(Vec::with_capacity(count));
        let work = || {
            while !failed.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    break;
                }
                let layer = self.layer(index);
                failed.fetch_or(layer.is_err(), Ordering::Relaxed);
                let mut results = results.lock().expect("no worker panics holding it");
                results.push((index, layer));
            }
        };
        // This thread is one of the workers.
        std::thread::scope(|scope| {
            for _ in 1..self.threads.min(count).min(MAX_WORKERS) {
                scope.spawn(work);
            }
            work();
        });
        let mut results = results.into_inner().expect("no worker panics holding it");
        results.sort_by_key(|(index, _)| *index);
        results.into_iter().map(|(_, layer)| layer).collect()
    }

    fn layer(&self, index: usize) -> Result<Layer<B>, ModelError> {
        let (arch, names) = (self.arch, self.arch.names);
        let [qkv, attention_out, feed_forward_in, feed_forward_out] = arch.linears(index);
        let feed_forward_norm = arch
            .has_feed_forward_norm()
            .then(|| self.norm(&in_layer(names.feed_forward_norm, index)))
            .transpose()?;
        let head_norm = if arch.attention.head_norm {
            let [q, k] = names.head_norms.map(|name| weight_of(&in_layer(name, index)));
            let eps = arch.norm.eps;
            Some(HeadNorm { q: self.vector(&q)?, k: self.vector(&k)?, eps })
        } else {
            None
        };
        Ok(Layer {
            attention_norm: self.norm(&in_layer(names.attention_norm, index))?,
            qkv: self.linear(&qkv)?,
            head_norm,
            attention_out: self.linear(&attention_out)?,
            feed_forward_norm,
            feed_forward_in: self.linear(&feed_forward_in)?,
            feed_forward_out: self.linear(&feed_forward_out)?,
        })
    }

    pub(crate) fn norm(&self, module: &str) -> Result<Norm<B::Vector>, ModelError> {
        let spec = self.arch.norm;
        let bias = spec.bias.then(|| self.vector(&bias_of(module))).transpose()?;
        let weight = self.vector(&weight_of(module))?;
        Ok(Norm { kind: spec.kind, weight, bias, eps: spec.eps })
    }

    fn vector(&self, name: &str) -> Result<B::Vector, ModelError> {
        Ok(self.upload(&finite_values(&self.checkpoint.tensor(name)?)?))
    }

    fn upload(&self, values: &[f32]) -> B::Vector {
        self.report(size_of_val(values));
        self.backend.vector(values)
    }

    /// Reads a linear layer: as the checkpoint stores it, if quantized, else its parts are rounded and
    /// stacked.
    pub(crate) fn linear(&self, stored: &StoredLinear) -> Result<Linear<B>, ModelError> {
        let whole = match self.arch.read_quantized(self.checkpoint, stored, self.precision)? {
            Some(linear) => linear,
            None => self.rounded(stored)?,
        };
        let QuantizedLinear { weight, input } = whole;
        self.report(weight.bytes());
        let mut bias = Vec::new();
        for part in stored.parts.iter().filter(|_| stored.bias) {
            let values = finite_values(&self.checkpoint.tensor(&bias_of(&part.module))?)?;
            bias.extend(part.taken.iter().flat_map(|rows| &values[rows.clone()]));
        }
        let bias = stored.bias.then(|| self.upload(&bias));
        let input = LinearInput {
            format: input.format,
            scale: input.scale,
            channel_factors: input.channel_factors.map(|factors| self.backend.vector(&factors)),
            order: input.order,
        };
        Ok(Linear { weight: self.backend.weight(weight)?, bias, input })
    }

    /// Rounds the parts of a linear layer and stacks them.
    fn rounded(&self, stored: &StoredLinear) -> Result<QuantizedLinear, ModelError> {
        let scheme = self.precision.checked_scheme(stored)?;
        let normalise = self.arch.head.normalised && stored.role == crate::LinearRole::Head;
        let mut packed = Vec::new();
        for part in &stored.parts {
            let weight = self.checkpoint.tensor(&weight_of(&part.module))?;
            for rows in &part.taken {
                let slab_rows = (SLAB_ELEMENTS / stored.k).max(1);
                for start in rows.clone().step_by(slab_rows) {
                    let slab = start..(start + slab_rows).min(rows.end);
                    packed.push(quantize_rows(&weight, slab, scheme, normalise)?);
                }
            }
        }
        let whole = PackedWeight::stack(packed).expect("parts of a layer share K and scheme");
        Ok(QuantizedLinear::new(whole))
    }

    fn report(&self, bytes: usize) {
        let done_bytes = self.done_bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        (self.progress)(LoadProgress { done_bytes, total_bytes: self.total_bytes });
    }

    /// A tied head may be stored as well, but then it must be the embedding.
    fn check_tied_head(&self) -> Result<(), ModelError> {
        let names = self.arch.names;
        let (head, embedding) = (weight_of(names.head), weight_of(names.embedding));
        if !self.checkpoint.has_tensor(&head) || self.checkpoint.is_unread_allowed(&head) {
            return Ok(());
        }
        let views = [self.checkpoint.tensor(&head)?, self.checkpoint.tensor(&embedding)?];
        let untied = |row| ModelError::UntiedHead {
            file: views[0].file().display().to_string(),
            head: head.clone(),
            embedding: embedding.clone(),
            row,
        };
        if views[0].shape != views[1].shape {
            return Err(untied(0));
        }
        let mut rows = [vec![0.0; views[0].cols()], vec![0.0; views[1].cols()]];
        for row in 0..views[0].rows() {
            for (view, values) in views.iter().zip(&mut rows) {
                view.read_rows(row..row + 1, values)?;
            }
            if rows[0] != rows[1] {
                return Err(untied(row));
            }
        }
        Ok(())
    }
}

/// Reads some rows of a matrix and rounds them to `scheme`.
fn quantize_rows(
    weight: &TensorView<'_>,
    rows: std::ops::Range<usize>,
    scheme: QuantScheme,
    normalise: bool,
) -> Result<PackedWeight, ModelError> {
    let (first, n, k) = (rows.start, rows.len(), weight.cols());
    let mut values = vec![0.0; n * k];
    weight.read_rows(rows, &mut values)?;
    if normalise {
        values.chunks_exact_mut(k).for_each(scale_to_unit_length);
    }
    quantize(&values, n, k, scheme).map_err(|error| {
        let source = match error {
            QuantizeError::NonFinite { row, column, value } => {
                QuantizeError::NonFinite { row: first + row, column, value }
            }
            other => other,
        };
        bad_values(weight, source)
    })
}

/// Divides a row by its Euclidean length (Baichuan2's head).
fn scale_to_unit_length(row: &mut [f32]) {
    let length = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt().max(1e-12) as f32;
    row.iter_mut().for_each(|value| *value /= length);
}

/// The values of a vector, none of them NaN or infinite.
pub(crate) fn finite_values(tensor: &TensorView<'_>) -> Result<Vec<f32>, ModelError> {
    let values = tensor.to_f32()?;
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(column) => {
            let source = QuantizeError::NonFinite { row: 0, column, value: values[column] };
            Err(bad_values(tensor, source))
        }
    }
}

fn bad_values(tensor: &TensorView<'_>, source: QuantizeError) -> ModelError {
    let file = tensor.file().display().to_string();
    ModelError::Values { file, tensor: tensor.name.to_owned(), source }
}
