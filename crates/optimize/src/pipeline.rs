//! The stream: one block after another from the checkpoint to the written folder.
//!
//! In memory are one block's weights, what calibration remembers of its inputs, the residual stream
//! of the calibration tokens, and an output shard. Blocks see the inputs that the quantized blocks
//! before them make, as they will when the model runs.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use bantam_backend::{Backend, KvRanges};
use bantam_checkpoint::write::{
    Dialect, LayerScheme, ShardWriter, is_in_configuration, write_companions,
};
use bantam_checkpoint::{Checkpoint, Quantization, TensorView};
use bantam_model::{ArchSpec, Block, BlockRunner, BlockWeights, QkvNames};
use bantam_numerics::{DType, Encoding, QuantScheme};

use crate::collect::{Collect, StoredRanges};
use crate::fold::VectorType;
use crate::output::OutputFolder;
use crate::report::{CalibrationReport, KvScales, Report};
use crate::state::State;
use crate::treat::{StoredTypes, TreatedBlock, needed_statistics, treat};
use crate::{Calibration, OptimizeError, QuantizationPlan, Recipe, ScalePrecision};

/// What weights run in that are not quantized, as they will when the result is served.
pub(crate) const KEPT: QuantScheme = QuantScheme::BF16;

/// Bytes of each tensor that tell one model from another.
const SAMPLED_BYTES: usize = 256;

/// A model to quantize, and how.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The model.
    pub checkpoint: &'a Checkpoint,
    /// Its network.
    pub arch: &'a ArchSpec,
    /// What to do.
    pub recipe: &'a Recipe,
    /// The recipe applied to the network.
    pub plan: &'a QuantizationPlan,
    /// What the layers see; may be empty if the plan needs nothing.
    pub calibration: &'a Calibration,
    /// The format to write.
    pub dialect: Dialect,
    /// The folder to write; it must not exist.
    pub folder: &'a Path,
    /// Whether to go on where a run before stopped.
    pub resume: bool,
    /// Bytes of an output shard at most.
    pub max_shard_bytes: u64,
    /// How long to work without leaving something that a resume can go on from.
    pub save_every: Duration,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// The block in work, from 0.
    pub block: usize,
    /// Blocks of the model.
    pub blocks: usize,
    /// What is done with it.
    pub stage: Stage,
    /// Work done, as a share of all work.
    pub done: f64,
}

/// What is done with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Formats are tried on it, to choose one for each layer.
    Choosing,
    /// Its inputs are looked at.
    Calibrating,
    /// Its weights become codes.
    Quantizing,
    /// The quantized block makes the inputs of the next.
    Propagating,
}

impl Job<'_> {
    /// Refuses what can be known to fail, without reading weights; so many tokens will be calibrated
    /// with.
    ///
    /// # Errors
    /// If the folder exists or another run writes it, an earlier run was not finished, the dialect
    /// cannot say what the plan makes, the model is quantized already, or the disk has no room for the
    /// result.
    pub fn check(&self, calibration_tokens: usize) -> Result<(), OptimizeError> {
        OutputFolder::check(self.folder, self.resume)?;
        self.check_work(calibration_tokens)
    }

    /// What [`check`](Self::check) refuses, the state of the folder apart.
    fn check_work(&self, calibration_tokens: usize) -> Result<(), OptimizeError> {
        if let Some(quantization) = Quantization::of(self.checkpoint)? {
            let method = quantization.method().to_owned();
            let model = self.checkpoint.path().display().to_string();
            return Err(OptimizeError::AlreadyQuantized { model, method });
        }
        self.arch.check_tensors(self.checkpoint)?;
        self.layers().iter().try_for_each(|layer| self.dialect.check(layer))?;
        self.check_disk(calibration_tokens)
    }

    /// The layers that will be quantized, as the configuration lists them.
    pub(crate) fn layers(&self) -> Vec<LayerScheme> {
        let blocks = self.plan.blocks.iter().enumerate();
        let sites =
            blocks.flat_map(|(layer, sites)| self.arch.linears(layer).into_iter().zip(sites));
        let treated = sites.filter_map(|(linear, treatment)| Some((linear, treatment.as_ref()?)));
        let parts = treated.flat_map(|(linear, treatment)| {
            linear.parts.into_iter().map(move |part| LayerScheme {
                module: part.module,
                scheme: treatment.scheme,
                static_input: treatment.scale != crate::ScaleChoice::Token,
                channel_factors: false,
            })
        });
        parts.collect()
    }

    /// Quantizes the model and writes the folder; it appears when it is complete.
    ///
    /// # Errors
    /// As [`check`](Self::check) and [`build`](Self::build).
    pub fn run<B: Backend>(
        &self,
        backend: &B,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Report, OptimizeError> {
        let output = OutputFolder::claim(self.folder, self.resume)?;
        let report = self.build(&output, backend, progress)?;
        output.publish()?;
        Ok(report)
    }

    /// Quantizes the model into the working folder of the output, which the caller
    /// [publishes](OutputFolder::publish) when all that belongs into it is there.
    ///
    /// # Errors
    /// As [`check`](Self::check), and if a weight or an input is not finite, reading or writing fails,
    /// or the source is written to meanwhile. What was done stays for a resume.
    pub fn build<B: Backend>(
        &self,
        output: &OutputFolder,
        backend: &B,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Report, OptimizeError> {
        self.check_work(self.calibration.tokens())?;
        if self.plan.needs_calibration() && self.calibration.sequences.is_empty() {
            return Err(OptimizeError::NoCalibration { recipe: self.recipe.name.clone() });
        }
        let (started, fingerprint) = (Instant::now(), self.fingerprint()?);
        let partial = output.partial();
        let (mut writer, mut state) = self.open(output, &fingerprint)?;
        let blocks = self.arch.sizes.layers;
        let mut runner = self.runner(backend)?;
        if let (0, Some(runner)) = (state.next_block, &runner) {
            let embed = |tokens: &Vec<u32>| runner.embed(self.checkpoint, tokens);
            state.stream =
                self.calibration.sequences.iter().map(embed).collect::<Result<_, _>>()?;
        }
        let mut last_save = Instant::now();
        for block in state.next_block..blocks {
            let report = &mut |stage, share: f64| {
                let done = (block as f64 + share) / blocks as f64;
                progress(Progress { block, blocks, stage, done });
            };
            let treated = self.block(backend, runner.as_mut(), block, &mut state, report)?;
            self.write_block(&mut writer, block, &treated)?;
            state.sites.extend(treated.reports);
            state.next_block = block + 1;
            let last = block + 1 == blocks;
            if last {
                state.stream.clear(); // the inputs of the last block
            }
            if last || last_save.elapsed() >= self.save_every {
                state.shards = writer.save()?;
                state.save(partial, &fingerprint, started.elapsed())?;
                last_save = Instant::now();
            }
        }
        let quantized_bytes = self.finish(writer, &state)?;
        Ok(self.report(state, quantized_bytes, started.elapsed()))
    }

    /// Starts anew or goes on.
    fn open(
        &self,
        output: &OutputFolder,
        fingerprint: &str,
    ) -> Result<(ShardWriter, State), OptimizeError> {
        let (partial, shard_bytes) = (output.partial(), self.max_shard_bytes);
        if let Some(state) = State::load(partial, fingerprint)? {
            output.empty(|name| State::owns(name) || ShardWriter::owns(name))?;
            return Ok((ShardWriter::resume(partial, shard_bytes, &state.shards)?, state));
        }
        output.empty(|_| false)?;
        Ok((ShardWriter::create(partial, shard_bytes)?, State::default()))
    }

    fn runner<'b, B: Backend>(
        &self,
        backend: &'b B,
    ) -> Result<Option<BlockRunner<'b, B>>, OptimizeError> {
        let needed = self.plan.needs_calibration();
        let runner = || BlockRunner::new(backend, self.arch, self.calibration.longest());
        Ok(needed.then(runner).transpose()?)
    }

    /// Calibrates, quantizes and propagates one block.
    fn block<B: Backend>(
        &self,
        backend: &B,
        runner: Option<&mut BlockRunner<'_, B>>,
        block: usize,
        state: &mut State,
        report: &mut dyn FnMut(Stage, f64),
    ) -> Result<TreatedBlock, OptimizeError> {
        let (norm, plan) = (self.arch.norm, &self.plan.blocks[block]);
        let weights = BlockWeights::read(self.checkpoint, self.arch, block)?;
        let types = self.stored_types(block)?;
        let in_block = |source| OptimizeError::Block { block, source: Box::new(source) };
        let Some(runner) = runner else {
            report(Stage::Quantizing, 0.0);
            let nothing = [const { None }; 4];
            return treat(backend, self.arch, weights, plan, &nothing, types).map_err(in_block);
        };
        let original = Block::new(backend, norm, &weights, [None; 4], KEPT)?;
        let wanted = plan.map(|site| site.as_ref().map(needed_statistics));
        let mut tap = Collect::new(backend, self.arch, block, wanted, self.plan.kv.is_some())?;
        let count = state.stream.len() as f64;
        for (i, hidden) in state.stream.iter().enumerate() {
            report(Stage::Calibrating, 0.4 * i as f64 / count);
            runner.run(&original, block, &mut hidden.clone(), &mut tap)?;
            tap.check().map_err(in_block)?;
        }
        drop(original);
        let (statistics, ranges) = tap.finish().map_err(in_block)?;
        state.kv.extend(ranges);
        report(Stage::Quantizing, 0.4);
        let treated =
            treat(backend, self.arch, weights, plan, &statistics, types).map_err(in_block)?;
        drop(statistics);
        if block + 1 < self.arch.sizes.layers {
            let quantized = treated.quantized.each_ref().map(|parts| parts.as_deref());
            let quantized = Block::new(backend, norm, &treated.weights, quantized, KEPT)?;
            for (i, hidden) in state.stream.iter_mut().enumerate() {
                report(Stage::Propagating, 0.7 + 0.3 * i as f64 / count);
                runner.run(&quantized, block, hidden, &mut ())?;
            }
        }
        Ok(treated)
    }

    /// The types that what is written will have.
    pub(crate) fn stored_types(&self, block: usize) -> Result<StoredTypes, OptimizeError> {
        let norm = format!("{}.weight", in_layer(self.arch.names.attention_norm, block));
        let vectors = match self.checkpoint.tensor(&norm)?.encoding {
            Encoding::Scalar(DType::BF16) => VectorType::BF16,
            Encoding::Scalar(DType::F16) => VectorType::F16,
            _ => VectorType::F32,
        };
        let scales = match self.dialect {
            Dialect::CompressedTensors => ScalePrecision::BF16,
            Dialect::ModelOpt => ScalePrecision::Packed,
        };
        Ok(StoredTypes { scales, vectors })
    }

    /// Writes what a block changed: codes, norms and biases with factors, scales of the cache.
    fn write_block(
        &self,
        writer: &mut ShardWriter,
        block: usize,
        treated: &TreatedBlock,
    ) -> Result<(), OptimizeError> {
        let (names, weights) = (self.arch.names, &treated.weights);
        let mut vectors = Vec::new();
        let norms = [
            (names.attention_norm, Some(&weights.attention_norm)),
            (names.feed_forward_norm, weights.feed_forward_norm.as_ref()),
        ];
        for (name, norm) in norms {
            let Some(norm) = norm else { continue };
            vectors.push((format!("{}.weight", in_layer(name, block)), norm.weight.as_slice()));
            let bias = norm.bias.as_ref();
            vectors.extend(bias.map(|b| (format!("{}.bias", in_layer(name, block)), b.as_slice())));
        }
        for (linear, quantized) in weights.linears.iter().zip(&treated.quantized) {
            let (mut row, k) = (0, linear.stored.k);
            for (index, part) in linear.stored.parts.iter().enumerate() {
                let rows = row..row + part.taken.iter().map(ExactSizeIterator::len).sum::<usize>();
                row = rows.end;
                if let Some(bias) = &linear.bias {
                    vectors.push((format!("{}.bias", part.module), &bias[rows.clone()]));
                }
                match quantized {
                    Some(parts) => {
                        for tensor in self.dialect.tensors(&part.module, &parts[index])? {
                            writer.push_owned(&tensor)?;
                        }
                    }
                    // Factors on the layer after it may have changed its rows.
                    None => vectors.push((
                        format!("{}.weight", part.module),
                        &linear.weight[rows.start * k..rows.end * k],
                    )),
                }
            }
        }
        for (name, values) in vectors {
            let tensor = self.checkpoint.tensor(&name)?;
            if tensor.to_f32()? == values {
                writer.copy(&tensor)?;
            } else {
                push_changed(writer, &tensor, values)?;
            }
        }
        Ok(())
    }

    /// Writes what is left: embedding, head, last norm, and all other files of the folder.
    fn finish(&self, mut writer: ShardWriter, state: &State) -> Result<u64, OptimizeError> {
        if let Some(format) = self.plan.kv {
            for (block, ranges) in state.kv.iter().enumerate() {
                let [key, value] = match self.arch.names.qkv {
                    QkvNames::Separate([_, key, value]) => [key, value],
                    QkvNames::Stacked(qkv) | QkvNames::Grouped(qkv) => [qkv, qkv],
                };
                let (key, value) = (in_layer(key, block), in_layer(value, block));
                let ranges = KvRanges { key: ranges.key, value: ranges.value };
                for tensor in self.dialect.kv_scales([&key, &value], format, ranges)? {
                    if !writer.holds(&tensor.name) {
                        writer.push_owned(&tensor)?;
                    }
                }
            }
        }
        let mut layers = self.layers();
        for layer in &mut layers {
            let site = state.sites.iter().find(|site| site.modules.contains(&layer.module));
            layer.static_input = site.is_some_and(|site| site.static_scale.is_some());
        }
        let modules: HashSet<&str> = layers.iter().map(|layer| layer.module.as_str()).collect();
        let quantized = |name: &str| {
            name.strip_suffix(".weight").is_some_and(|module| modules.contains(module))
        };
        let ignored = self.arch.check_tensors(self.checkpoint)?;
        let unread: HashSet<&str> =
            ignored.iter().flat_map(|group| &group.names).map(String::as_str).collect();
        let left_out = |name: &str| unread.contains(name) || is_in_configuration(name);
        for tensor in self.checkpoint.tensors() {
            let name = tensor.name;
            if !writer.holds(name) && !quantized(name) && !left_out(name) {
                writer.copy(&tensor)?;
            }
        }
        // ModelOpt lists the embedding too.
        let embedding = (self.dialect == Dialect::ModelOpt).then_some(self.arch.names.embedding);
        let ends = std::iter::once(self.arch.names.head).chain(embedding).map(str::to_owned);
        let kept = (0..self.arch.sizes.layers).flat_map(|layer| {
            let sites = self.arch.linears(layer).into_iter().zip(&self.plan.blocks[layer]);
            sites.filter(|(_, treatment)| treatment.is_none()).flat_map(|(linear, _)| linear.parts)
        });
        let kept: Vec<String> = kept.map(|part| part.module).chain(ends).collect();
        let files = self.dialect.files(&layers, &kept, self.plan.kv)?;
        write_companions(self.checkpoint, writer.folder(), Some(&files))?;
        Ok(writer.finish()?)
    }

    /// What must be the same for a resume to make sense.
    ///
    /// # Errors
    /// If the model cannot be read.
    pub(crate) fn fingerprint(&self) -> Result<String, OptimizeError> {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        let (path, dialect) = (self.checkpoint.path().display(), self.dialect.name());
        let (bytes, shard_bytes) = (self.checkpoint.total_bytes(), self.max_shard_bytes);
        let job = format!("{path}\n{bytes}\n{dialect}\n{shard_bytes}\n{:?}\n", self.plan);
        hash.update(job.as_bytes());
        hash.update(self.checkpoint.config().to_string().as_bytes());
        for tensor in self.checkpoint.tensors() {
            hash.update(tensor.name.as_bytes());
            hash.update(tensor.read_beginning(SAMPLED_BYTES)?);
        }
        for token in self.calibration.sequences.iter().flatten() {
            hash.update(token.to_le_bytes());
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn report(&self, state: State, quantized_bytes: u64, elapsed: Duration) -> Report {
        let needed = self.plan.needs_calibration();
        let scales = |ranges: &StoredRanges| {
            let ranges = KvRanges { key: ranges.key, value: ranges.value };
            let [key, value] = ranges.scales(self.plan.kv?);
            Some(KvScales { key, value })
        };
        Report {
            recipe: self.recipe.name.clone(),
            model: self.checkpoint.path().display().to_string(),
            dialect: self.dialect.name().to_owned(),
            calibration: needed.then(|| CalibrationReport {
                source: self.calibration.source.clone(),
                sequences: self.calibration.sequences.len(),
                tokens: self.calibration.tokens(),
            }),
            original_bytes: self.checkpoint.total_bytes(),
            quantized_bytes,
            seconds: state.seconds_before + elapsed.as_secs_f64(),
            notes: self.plan.notes.clone(),
            formats: None,
            sites: state.sites,
            kv_scales: state.kv.iter().filter_map(scales).collect(),
            accuracy: None,
        }
    }
}

fn in_layer(name: &str, layer: usize) -> String {
    name.replace("{layer}", &layer.to_string())
}

/// Writes new values in the type of the old ones.
fn push_changed(
    writer: &mut ShardWriter,
    tensor: &TensorView<'_>,
    values: &[f32],
) -> Result<(), OptimizeError> {
    let (dtype, bytes): (DType, Vec<u8>) = match tensor.encoding {
        Encoding::Scalar(DType::F16) => {
            let halves = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes());
            (DType::F16, halves.collect())
        }
        Encoding::Scalar(DType::F32) => {
            (DType::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        _ => {
            let halves = values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes());
            (DType::BF16, halves.collect())
        }
    };
    Ok(writer.push(tensor.name, dtype, tensor.shape, &bytes)?)
}
