//! What the tests of this crate share.

#![allow(dead_code, unreachable_pub)] // each test binary uses its own part

use std::path::{Path, PathBuf};

use bantam_backend::{Backend, Batch};
use bantam_checkpoint::Checkpoint;
use bantam_cpu::{Cpu, CpuOptions, Isa};
use bantam_model::{Decoder, LoadOptions, ModelError};
use serde_json::{Value, json};

/// A path below `tests/data`.
pub fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

pub fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

pub fn numbers<T: From<f32>>(value: &Value) -> Vec<T> {
    value.as_array().unwrap().iter().map(|v| T::from(v.as_f64().unwrap() as f32)).collect()
}

pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

/// Loads a model without progress.
pub fn load<B: Backend>(
    backend: B,
    path: &Path,
    options: &LoadOptions,
) -> Result<Decoder<B>, ModelError> {
    let checkpoint = Checkpoint::open(path)?;
    Decoder::load(backend, &checkpoint, options, &|_| {})
}

/// The CPU back end with each instruction set of this machine, two threads.
pub fn cpus() -> Vec<Cpu> {
    let with = |isa| CpuOptions { isa: Some(isa), threads: Some(2) };
    Isa::available().into_iter().map(|isa| Cpu::new(with(isa)).unwrap()).collect()
}

/// One sequence in blocks of its own, and how many of its tokens are computed.
#[derive(Clone, Debug)]
pub struct Sequence {
    pub tokens: Vec<u32>,
    pub blocks: Vec<u32>,
    pub computed: usize,
}

impl Sequence {
    pub fn new(tokens: &[u32], blocks: Vec<u32>) -> Self {
        Self { tokens: tokens.to_vec(), blocks, computed: 0 }
    }

    /// Adds the next `count` tokens to a batch.
    pub fn push(&mut self, batch: &mut Batch, count: usize) {
        let end = self.computed + count;
        batch.push(&self.tokens[self.computed..end], self.computed, &self.blocks).unwrap();
        self.computed = end;
    }
}

/// Logits `[T, V]` of all positions of `tokens`, computed in chunks of these sizes.
pub fn logits_in_chunks<B: Backend>(
    decoder: &mut Decoder<B>,
    tokens: &[u32],
    blocks: &[u32],
    chunks: &[usize],
) -> Vec<Vec<f32>> {
    let mut sequence = Sequence::new(tokens, blocks.to_vec());
    let mut logits = Vec::new();
    for &chunk in chunks {
        let mut batch = Batch::default();
        sequence.push(&mut batch, chunk);
        batch.want_all_logits();
        let values = decoder.forward(&batch).unwrap();
        logits.extend(values.chunks_exact(decoder.arch().sizes.vocabulary).map(<[f32]>::to_vec));
    }
    assert_eq!(sequence.computed, tokens.len());
    logits
}

/// Greedy continuation of `prompt` by `count` tokens, with a prefill and one token a step.
pub fn greedy<B: Backend>(
    decoder: &mut Decoder<B>,
    prompt: &[u32],
    blocks: &[u32],
    count: usize,
) -> Vec<u32> {
    let mut sequence = Sequence::new(prompt, blocks.to_vec());
    let mut generated = Vec::new();
    while generated.len() < count {
        let mut batch = Batch::default();
        let pending = sequence.tokens.len() - sequence.computed;
        sequence.push(&mut batch, pending);
        batch.want_last_logits();
        let token = argmax(&decoder.forward(&batch).unwrap());
        generated.push(token);
        sequence.tokens.push(token);
    }
    generated
}

pub fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    best.0 as u32
}

pub fn max_difference(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A deterministic generator for weights and random chunks (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }

    /// About normal, mean 0, deviation 1.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.next() >> 40) as f32 / (1u64 << 24) as f32).sum::<f32>() - 6.0
    }

    /// Random sizes from 1 that add up to `total`.
    pub fn chunks(&mut self, total: usize, largest: usize) -> Vec<usize> {
        let (mut left, mut chunks) = (total, Vec::new());
        while left > 0 {
            let chunk = (1 + self.below(largest)).min(left);
            chunks.push(chunk);
            left -= chunk;
        }
        chunks
    }

    /// `count` of the ids `0..of`, in random order.
    pub fn choose(&mut self, count: usize, of: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..of as u32).collect();
        for i in 0..count {
            let j = i + self.below(of - i);
            all.swap(i, j);
        }
        all.truncate(count);
        all
    }
}

/// A checkpoint in memory, to be spoilt and written.
#[derive(Clone)]
pub struct Files {
    pub config: Value,
    pub tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl Files {
    /// The values of a stored checkpoint.
    pub fn read(path: &Path) -> Self {
        let checkpoint = Checkpoint::open(path).unwrap();
        let values = |t: bantam_checkpoint::TensorView<'_>| {
            (t.name.to_owned(), t.shape.to_vec(), t.to_f32().unwrap())
        };
        let tensors = checkpoint.tensors().map(values).collect();
        Self { config: checkpoint.config().clone(), tensors }
    }

    pub fn tensor(&mut self, name: &str) -> &mut (String, Vec<usize>, Vec<f32>) {
        self.tensors.iter_mut().find(|t| t.0 == name).unwrap_or_else(|| panic!("no {name}"))
    }

    pub fn remove(&mut self, name: &str) {
        self.tensors.retain(|t| t.0 != name);
    }

    /// Adds a tensor of random values.
    pub fn add(&mut self, name: &str, shape: &[usize], scale: f32, random: &mut Random) {
        let values = (0..shape.iter().product()).map(|_| scale * random.normal()).collect();
        self.tensors.push((name.to_owned(), shape.to_vec(), values));
    }

    /// Writes a folder with `config.json` and `model.safetensors` (F32), named after the test.
    pub fn write(&self, name: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("model").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let (mut header, mut bytes) = (serde_json::Map::new(), Vec::new());
        for (name, shape, values) in &self.tensors {
            let start = bytes.len();
            bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            let offsets = [start, bytes.len()];
            header.insert(
                name.clone(),
                json!({"dtype": "F32", "shape": shape, "data_offsets": offsets}),
            );
        }
        let header = serde_json::to_vec(&header).unwrap();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header);
        file.extend(bytes);
        std::fs::write(folder.join("model.safetensors"), file).unwrap();
        std::fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        folder
    }
}
