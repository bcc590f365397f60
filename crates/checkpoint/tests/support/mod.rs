//! Writers of small model files, sound or broken, for the tests.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use bantam_checkpoint::{Checkpoint, CheckpointError};

/// A folder of its own for each test, removed in the end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("bantam-checkpoint-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("the temporary folder is writable");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and gives its path.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).expect("the temporary folder is writable");
        path
    }

    pub(crate) fn open(&self) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::open(&self.0)
    }

    /// The message of the error that opening the folder gives.
    pub(crate) fn refusal(&self) -> String {
        refusal(&self.0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The message of the error that opening `path` gives: one line that names a file.
pub(crate) fn refusal(path: &Path) -> String {
    let message = Checkpoint::open(path).expect_err("must be refused").to_string();
    assert!(!message.contains('\n'), "{message}");
    assert!(message.contains('/'), "names no file: {message}");
    message
}

/// A safetensors file from the text of its header and its data.
pub(crate) fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// A metadata value of a GGUF file.
#[derive(Clone)]
pub(crate) enum Value {
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Text(&'static str),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
}

/// A tensor of a GGUF file: name, dimensions (innermost first), GGML type, data.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dimensions: Vec<u64>,
    pub(crate) ggml_type: u32,
    pub(crate) data: Vec<u8>,
}

impl Tensor {
    pub(crate) fn f32(
        name: &str,
        dimensions: &[u64],
        values: impl IntoIterator<Item = f32>,
    ) -> Self {
        let data: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        assert_eq!(data.len() as u64, 4 * dimensions.iter().product::<u64>());
        Self { name: name.to_owned(), dimensions: dimensions.to_vec(), ggml_type: 0, data }
    }
}

/// A GGUF file in the making.
#[derive(Clone)]
pub(crate) struct Gguf {
    pub(crate) version: u32,
    pub(crate) metadata: Vec<(String, Value)>,
    pub(crate) tensors: Vec<Tensor>,
}

impl Gguf {
    /// A model of one layer: C 8, F 16, V 4, H 2, G 1, D 4. The first element of each row of
    /// `attn_q` and `attn_k`, and each of their biases, is the row it is stored at.
    pub(crate) fn tiny(architecture: &'static str) -> Self {
        let key = |name: &str| format!("{architecture}.{name}");
        let metadata = vec![
            ("general.architecture".to_owned(), Value::Text(architecture)),
            (key("block_count"), Value::U32(1)),
            (key("context_length"), Value::U32(64)),
            (key("embedding_length"), Value::U32(8)),
            (key("feed_forward_length"), Value::U32(16)),
            (key("attention.head_count"), Value::U32(2)),
            (key("attention.head_count_kv"), Value::U32(1)),
            (key("attention.layer_norm_rms_epsilon"), Value::F32(1e-5)),
            (key("rope.freq_base"), Value::F32(50_000.0)),
            ("tokenizer.ggml.model".to_owned(), Value::Text("gpt2")),
            ("tokenizer.ggml.pre".to_owned(), Value::Text("smollm")),
            (
                "tokenizer.ggml.tokens".to_owned(),
                Value::Texts(["<s>", "a", "b", "ab"].map(str::to_owned).to_vec()),
            ),
            ("tokenizer.ggml.token_type".to_owned(), Value::I32s(vec![3, 1, 1, 1])),
            ("tokenizer.ggml.merges".to_owned(), Value::Texts(vec!["a b".to_owned()])),
            ("tokenizer.ggml.bos_token_id".to_owned(), Value::U32(0)),
            ("tokenizer.ggml.add_bos_token".to_owned(), Value::Bool(true)),
        ];
        let numbered = |name: &str, rows: u64| {
            let values = (0..rows * 8).map(|i| if i % 8 == 0 { (i / 8) as f32 } else { -1.0 });
            Tensor::f32(name, &[8, rows], values)
        };
        let filled = |name: &str, dimensions: &[u64]| {
            let elements = dimensions.iter().product::<u64>() as usize;
            Tensor::f32(name, dimensions, vec![0.5; elements])
        };
        let tensors = vec![
            numbered("token_embd.weight", 4),
            filled("output_norm.weight", &[8]),
            filled("blk.0.attn_norm.weight", &[8]),
            numbered("blk.0.attn_q.weight", 8),
            Tensor::f32("blk.0.attn_q.bias", &[8], (0..8u8).map(f32::from)),
            numbered("blk.0.attn_k.weight", 4),
            numbered("blk.0.attn_v.weight", 4),
            filled("blk.0.attn_output.weight", &[8, 8]),
            filled("blk.0.ffn_norm.weight", &[8]),
            filled("blk.0.ffn_gate.weight", &[8, 16]),
            filled("blk.0.ffn_up.weight", &[8, 16]),
            filled("blk.0.ffn_down.weight", &[16, 8]),
        ];
        Self { version: 3, metadata, tensors }
    }

    /// Sets a metadata value, replacing one of the same key.
    pub(crate) fn set(mut self, key: &str, value: Value) -> Self {
        self.metadata.retain(|(present, _)| present != key);
        self.metadata.push((key.to_owned(), value));
        self
    }

    /// Removes a metadata key.
    pub(crate) fn without(mut self, key: &str) -> Self {
        self.metadata.retain(|(present, _)| present != key);
        self
    }

    /// Removes the tensors of layers, whose sizes other metadata would contradict.
    pub(crate) fn without_layers(mut self) -> Self {
        self.tensors.retain(|tensor| !tensor.name.starts_with("blk."));
        self
    }

    /// Adds a tensor.
    pub(crate) fn with(mut self, tensor: Tensor) -> Self {
        self.tensors.push(tensor);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (bytes, data) = self.header_and_data();
        [bytes, data].concat()
    }

    /// The header, padded to the alignment, and the data.
    pub(crate) fn header_and_data(&self) -> (Vec<u8>, Vec<u8>) {
        const ALIGNMENT: usize = 32;
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_text(&mut bytes, key);
            put_value(&mut bytes, value);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            put_text(&mut bytes, &tensor.name);
            bytes.extend((tensor.dimensions.len() as u32).to_le_bytes());
            for dimension in &tensor.dimensions {
                bytes.extend(dimension.to_le_bytes());
            }
            bytes.extend(tensor.ggml_type.to_le_bytes());
            bytes.extend((data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
            data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
        }
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        (bytes, data)
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn put_array(bytes: &mut Vec<u8>, item_type: u32, count: usize) {
    bytes.extend(9u32.to_le_bytes());
    bytes.extend(item_type.to_le_bytes());
    bytes.extend((count as u64).to_le_bytes());
}

fn put_value(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U32(value) => {
            bytes.extend(4u32.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        Value::I32(value) => {
            bytes.extend(5u32.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        Value::F32(value) => {
            bytes.extend(6u32.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        Value::Bool(value) => {
            bytes.extend(7u32.to_le_bytes());
            bytes.push(u8::from(*value));
        }
        Value::Text(text) => {
            bytes.extend(8u32.to_le_bytes());
            put_text(bytes, text);
        }
        Value::Texts(texts) => {
            put_array(bytes, 8, texts.len());
            for text in texts {
                put_text(bytes, text);
            }
        }
        Value::I32s(values) => {
            put_array(bytes, 5, values.len());
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        Value::F32s(values) => {
            put_array(bytes, 6, values.len());
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
    }
}
