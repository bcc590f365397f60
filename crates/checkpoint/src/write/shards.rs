//! A folder of safetensors shards, written as a stream.
//!
//! A shard's header is first left blank and filled in when the shard is full: the format allows spaces
//! behind the header's JSON. Readers want each tensor aligned to its elements, and the format has no
//! holes: tensors whose bytes are no multiple of eight wait for the end of their shard, those of wide
//! elements first. Where a shard ends is a matter of sizes alone, never of when a run was saved or
//! stopped, so that the same tensors always make the same files. While the folder is being written no
//! file of it has a name that a reader would take for a model; [`ShardWriter::finish`] gives the final
//! names, the index last.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bantam_numerics::{DType, Encoding};
use half::bf16;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::locate::file_names;
use crate::model_file::ModelFile;
use crate::safetensors::{self, LENGTH_BYTES};
use crate::tensor::checked_size;
use crate::{CheckpointError, RowOrder, TensorView};

/// Bytes kept for the header of a shard: some thousand tensors. A shard that needs more is closed.
const HEADER_ROOM: usize = 128 << 10;
/// Bytes that are written at once.
const BUFFER: usize = 1 << 20;
/// Elements of a GGUF tensor that are decoded at once.
const DECODED_ELEMENTS: usize = 1 << 18;
/// The widest element.
const ALIGNMENT: usize = 8;
/// The index of a folder with several shards.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// The name of a model's only shard.
const SINGLE: &str = "model.safetensors";
/// How names end while the folder is written.
const PART: &str = "safetensors.part";

/// A tensor in memory, ready to be written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OwnedTensor {
    /// Its Hugging Face name.
    pub name: String,
    /// The type of its elements.
    #[serde(with = "dtype_by_name")]
    pub dtype: DType,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// The elements, little-endian.
    pub bytes: Vec<u8>,
}

/// Writes tensors into a folder of safetensors shards as they come, without holding them in memory.
///
/// ```
/// use bantam_checkpoint::{Checkpoint, ShardWriter};
/// use bantam_numerics::DType;
///
/// let folder = std::env::temp_dir().join(format!("bantam-doc-{}", std::process::id()));
/// let mut writer = ShardWriter::create(&folder, 5 << 30)?;
/// writer.push("model.norm.weight", DType::F32, &[2], &[0, 0, 128, 63, 0, 0, 0, 64])?;
/// std::fs::write(folder.join("config.json"), "{}").expect("the folder was just made");
/// writer.finish()?;
/// assert_eq!(Checkpoint::open(&folder)?.tensor("model.norm.weight")?.to_f32()?, [1.0, 2.0]);
/// # std::fs::remove_dir_all(&folder).expect("the folder was just made");
/// # Ok::<(), bantam_checkpoint::CheckpointError>(())
/// ```
#[derive(Debug)]
pub struct ShardWriter {
    folder: PathBuf,
    max_shard_bytes: u64,
    /// The tensors of each complete shard: name and bytes.
    sealed: Vec<Vec<(String, u64)>>,
    open: Option<Shard>,
    names: HashSet<String>,
}

/// What is safe on the disk of a folder that is being written: with it and the files,
/// [`ShardWriter::resume`] goes on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedShards {
    /// Shards that are complete.
    sealed: usize,
    /// The one that is not.
    open: Option<ShardContents>,
}

/// The shard that tensors go into.
#[derive(Debug)]
struct Shard {
    file: BufWriter<File>,
    contents: ShardContents,
}

/// What a shard holds so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ShardContents {
    header: Map<String, Value>,
    /// Upper bound of the header's JSON.
    header_bytes: usize,
    /// Bytes of the tensors in the file.
    written_bytes: u64,
    /// Tensors that would leave the next one unaligned.
    waiting: Vec<OwnedTensor>,
    /// All tensors, those that wait included: name and bytes.
    tensors: Vec<(String, u64)>,
}

impl ShardWriter {
    /// Bytes of a shard that are not its tensors.
    pub const SHARD_OVERHEAD: u64 = HEADER_ROOM as u64;

    /// Makes the folder, if it is not there. A shard is closed before it would exceed
    /// `max_shard_bytes`, unless a single tensor does.
    ///
    /// # Errors
    /// If the folder holds weights, complete or not, or cannot be made.
    pub fn create(folder: &Path, max_shard_bytes: u64) -> Result<Self, CheckpointError> {
        fs::create_dir_all(folder).map_err(io_error(folder))?;
        let weights = |name: &String| super::holds_weights(name) || name.ends_with(PART);
        if file_names(folder)?.iter().any(weights) {
            return Err(CheckpointError::Exists { path: folder.to_path_buf() });
        }
        Ok(Self::empty(folder, max_shard_bytes))
    }

    /// Goes on in a folder that was left unfinished, behind what was [saved](Self::save); what was
    /// written after it is dropped. [`holds`](Self::holds) tells which tensors are there.
    ///
    /// # Errors
    /// If the folder lacks a shard, or one is damaged.
    pub fn resume(
        folder: &Path,
        max_shard_bytes: u64,
        saved: &SavedShards,
    ) -> Result<Self, CheckpointError> {
        let mut writer = Self::empty(folder, max_shard_bytes);
        // It may have been stopped between the final names and the end.
        for name in file_names(folder)? {
            if let Some(number) = final_number(&name) {
                let part = writer.path(number);
                fs::rename(folder.join(&name), &part).map_err(io_error(&part))?;
            } else if name == INDEX {
                remove(&folder.join(name))?;
            }
        }
        for number in 0..saved.sealed {
            let entries = safetensors::read_header(&ModelFile::open(&writer.path(number))?, 0)?;
            let tensors = entries.into_iter().map(|tensor| {
                writer.names.insert(tensor.name.clone());
                (tensor.name, tensor.bytes.len() as u64)
            });
            let tensors = tensors.collect();
            writer.sealed.push(tensors);
        }
        if let Some(contents) = &saved.open {
            let path = writer.path(saved.sealed);
            let shard = Shard::reopen(&path, contents.clone())?;
            writer.names.extend(contents.tensors.iter().map(|(name, _)| name.clone()));
            writer.open = Some(shard);
        }
        let kept = saved.sealed + usize::from(saved.open.is_some());
        for name in file_names(folder)? {
            if part_number(&name).is_some_and(|number| number >= kept) {
                remove(&folder.join(name))?;
            }
        }
        Ok(writer)
    }

    fn empty(folder: &Path, max_shard_bytes: u64) -> Self {
        let (folder, sealed, names) = (folder.to_path_buf(), Vec::new(), HashSet::new());
        Self { folder, max_shard_bytes, sealed, open: None, names }
    }

    /// Whether a file of this name is a shard, be it complete or not, or lists them.
    #[must_use]
    pub fn owns(name: &str) -> bool {
        name == INDEX || part_number(name).is_some() || final_number(name).is_some()
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether a tensor of this name was pushed, before a [`resume`](Self::resume) included.
    #[must_use]
    pub fn holds(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Appends a tensor.
    ///
    /// # Errors
    /// If the name was pushed before, the bytes are not those of the shape, or writing fails.
    pub fn push(
        &mut self,
        name: &str,
        dtype: DType,
        shape: &[usize],
        bytes: &[u8],
    ) -> Result<(), CheckpointError> {
        self.push_pieces(name, dtype, shape, std::iter::once(Ok(Cow::Borrowed(bytes))))
    }

    /// Appends a tensor that comes in pieces, so that it need not fit into memory. After an error
    /// in the middle, only what was [saved](Self::save) before is of use.
    fn push_pieces<'p>(
        &mut self,
        name: &str,
        dtype: DType,
        shape: &[usize],
        pieces: impl Iterator<Item = Result<Cow<'p, [u8]>, CheckpointError>>,
    ) -> Result<(), CheckpointError> {
        let refuse = |folder: &Path, problem: String| CheckpointError::Tensor {
            file: folder.to_path_buf(),
            tensor: name.to_owned(),
            problem,
        };
        let (_, expected) = checked_size(shape, Encoding::Scalar(dtype))
            .map_err(|problem| refuse(&self.folder, problem))?;
        if self.names.contains(name) {
            let problem = "written before; each name may be written once".to_owned();
            return Err(refuse(&self.folder, problem));
        }
        let entry_bytes = entry_bytes(name, shape);
        let full = self.open.as_ref().is_some_and(|Shard { contents, .. }| {
            contents.data_bytes() + expected as u64 > self.max_shard_bytes
                || contents.header_bytes + entry_bytes > HEADER_ROOM - LENGTH_BYTES
        });
        if full {
            self.seal()?;
        }
        let path = self.path(self.sealed.len());
        let failed = io_error(&path);
        let shard = match &mut self.open {
            Some(shard) => shard,
            none => none.insert(Shard::create(&path).map_err(&failed)?),
        };
        let aligned = expected.is_multiple_of(ALIGNMENT);
        let (mut waiting, mut got) = (Vec::new(), 0);
        for piece in pieces {
            let piece = piece?;
            got += piece.len();
            if aligned && got <= expected {
                shard.file.write_all(&piece).map_err(&failed)?;
            } else if !aligned {
                waiting.extend_from_slice(&piece);
            }
        }
        if got != expected {
            let problem = format!("{got} bytes to write, {shape:?} of {dtype} takes {expected}");
            return Err(refuse(&self.folder, problem));
        }
        shard.contents.header_bytes += entry_bytes;
        shard.contents.tensors.push((name.to_owned(), expected as u64));
        if aligned {
            shard.contents.describe(name, dtype, shape, expected);
        } else {
            let (name, shape) = (name.to_owned(), shape.to_vec());
            shard.contents.waiting.push(OwnedTensor { name, dtype, shape, bytes: waiting });
        }
        self.names.insert(name.to_owned());
        Ok(())
    }

    /// Appends a tensor made here.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_owned(&mut self, tensor: &OwnedTensor) -> Result<(), CheckpointError> {
        self.push(&tensor.name, tensor.dtype, &tensor.shape, &tensor.bytes)
    }

    /// Appends a tensor of another checkpoint, bit for bit. What a GGUF file stores in blocks or with
    /// rows in another order is decoded: matrices to bf16, vectors to f32.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn copy(&mut self, tensor: &TensorView<'_>) -> Result<(), CheckpointError> {
        let (name, shape) = (tensor.name, tensor.shape);
        if let (Encoding::Scalar(dtype), RowOrder::Plain) = (tensor.encoding, tensor.row_order) {
            let pieces = tensor.stored_pieces().map(|piece| Ok(Cow::Owned(piece?)));
            return self.push_pieces(name, dtype, shape, pieces);
        }
        if shape.len() < 2 {
            let values = tensor.to_f32()?;
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            return self.push(name, DType::F32, shape, &bytes);
        }
        let (rows, columns) = (tensor.rows(), tensor.cols());
        let step = (DECODED_ELEMENTS / columns.max(1)).max(1);
        let pieces = (0..rows).step_by(step).map(|start| {
            let range = start..rows.min(start + step);
            let mut values = vec![0.0; range.len() * columns];
            tensor.read_rows(range, &mut values)?;
            let halves = values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes());
            Ok(Cow::Owned(halves.collect()))
        });
        self.push_pieces(name, DType::BF16, shape, pieces)
    }

    /// Bytes that [`copy`](Self::copy) writes.
    #[must_use]
    pub fn copied_bytes(tensor: &TensorView<'_>) -> u64 {
        if let (Encoding::Scalar(_), RowOrder::Plain) = (tensor.encoding, tensor.row_order) {
            return tensor.stored_bytes() as u64;
        }
        let elements: usize = tensor.shape.iter().product();
        (elements * if tensor.shape.len() < 2 { 4 } else { 2 }) as u64
    }

    /// Brings what was pushed to the disk, and says what a [`resume`](Self::resume) needs to know. The
    /// files are the same with or without it.
    ///
    /// # Errors
    /// If writing fails.
    pub fn save(&mut self) -> Result<SavedShards, CheckpointError> {
        let path = self.path(self.sealed.len());
        let failed = io_error(&path);
        if let Some(shard) = &mut self.open {
            shard.file.flush().map_err(&failed)?;
            shard.file.get_ref().sync_all().map_err(&failed)?;
        }
        let open = self.open.as_ref().map(|shard| shard.contents.clone());
        Ok(SavedShards { sealed: self.sealed.len(), open })
    }

    /// Closes the open shard.
    fn seal(&mut self) -> Result<(), CheckpointError> {
        let Some(shard) = self.open.take() else { return Ok(()) };
        let path = self.path(self.sealed.len());
        self.sealed.push(shard.close().map_err(io_error(&path))?);
        Ok(())
    }

    /// Gives the shards their final names and writes the index. Write all other files before: now the
    /// folder is a model. Returns the bytes of all tensors.
    ///
    /// # Errors
    /// If nothing was pushed, or writing fails.
    pub fn finish(mut self) -> Result<u64, CheckpointError> {
        self.seal()?;
        let count = self.sealed.len();
        if count == 0 {
            let path = self.folder;
            let problem = "no tensors to write".to_owned();
            return Err(CheckpointError::Layout { path, problem });
        }
        let total: u64 = self.sealed.iter().flatten().map(|(_, bytes)| bytes).sum();
        let mut weight_map = BTreeMap::new();
        for (number, tensors) in self.sealed.iter().enumerate() {
            let name = match count {
                1 => SINGLE.to_owned(),
                _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
            };
            let (from, to) = (self.path(number), self.folder.join(&name));
            fs::rename(&from, &to).map_err(io_error(&from))?;
            weight_map.extend(tensors.iter().map(|(tensor, _)| (tensor.clone(), json!(name))));
        }
        if count > 1 {
            let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
            super::write_json(&self.folder.join(INDEX), &index)?;
        }
        Ok(total)
    }

    fn path(&self, number: usize) -> PathBuf {
        self.folder.join(format!("model-{:05}.{PART}", number + 1))
    }
}

impl Shard {
    fn create(path: &Path) -> std::io::Result<Self> {
        let mut file = BufWriter::with_capacity(BUFFER, File::create(path)?);
        file.write_all(&[b' '; HEADER_ROOM])?;
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
        let (waiting, tensors) = (Vec::new(), Vec::new());
        let contents =
            ShardContents { header, header_bytes: 64, written_bytes: 0, waiting, tensors };
        Ok(Self { file, contents })
    }

    /// Goes on behind what is known to be in the file.
    fn reopen(path: &Path, contents: ShardContents) -> Result<Self, CheckpointError> {
        let failed = io_error(path);
        let mut file = File::options().write(true).open(path).map_err(&failed)?;
        let (needed, got) =
            (HEADER_ROOM as u64 + contents.written_bytes, file.metadata().map_err(&failed)?.len());
        if got < needed {
            let (file, what) = (path.to_path_buf(), "what an earlier run has saved".to_owned());
            return Err(CheckpointError::Truncated { file, what, needed: needed.into(), got });
        }
        file.set_len(needed).map_err(&failed)?;
        file.seek(SeekFrom::End(0)).map_err(&failed)?;
        Ok(Self { file: BufWriter::with_capacity(BUFFER, file), contents })
    }

    /// Writes what waits and fills in the header; the tensors of the shard.
    fn close(mut self) -> std::io::Result<Vec<(String, u64)>> {
        let mut waiting = std::mem::take(&mut self.contents.waiting);
        waiting.sort_by_key(|tensor| std::cmp::Reverse(tensor.dtype.bytes()));
        for tensor in &waiting {
            self.file.write_all(&tensor.bytes)?;
            self.contents.describe(&tensor.name, tensor.dtype, &tensor.shape, tensor.bytes.len());
        }
        let mut file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        let header = Value::Object(self.contents.header).to_string();
        assert!(header.len() <= HEADER_ROOM - LENGTH_BYTES, "the bound of entries holds");
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&((HEADER_ROOM - LENGTH_BYTES) as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        // A shard that was saved, then closed, then reopened has an old header under this one.
        file.write_all(&vec![b' '; HEADER_ROOM - LENGTH_BYTES - header.len()])?;
        file.sync_all()?;
        Ok(self.contents.tensors)
    }
}

impl ShardContents {
    /// Bytes of all its tensors.
    fn data_bytes(&self) -> u64 {
        self.tensors.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Notes a tensor whose bytes were written behind all others.
    fn describe(&mut self, name: &str, dtype: DType, shape: &[usize], bytes: usize) {
        let start = self.written_bytes;
        self.written_bytes += bytes as u64;
        let entry = json!({
            "dtype": safetensors::dtype_name(dtype),
            "shape": shape,
            "data_offsets": [start, self.written_bytes],
        });
        self.header.insert(name.to_owned(), entry);
    }
}

/// The number, from 0, of a shard that bears its final name.
fn final_number(name: &str) -> Option<usize> {
    if name == SINGLE {
        return Some(0);
    }
    let (number, _) =
        name.strip_prefix("model-")?.strip_suffix(".safetensors")?.split_once("-of-")?;
    number.parse::<usize>().ok()?.checked_sub(1)
}

/// The number, from 0, of a shard that does not yet.
fn part_number(name: &str) -> Option<usize> {
    let number = name.strip_prefix("model-")?.strip_suffix(PART)?.strip_suffix('.')?;
    number.parse::<usize>().ok()?.checked_sub(1)
}

fn remove(path: &Path) -> Result<(), CheckpointError> {
    fs::remove_file(path).map_err(io_error(path))
}

/// Bytes that a tensor takes in a header at most: names of types are short, and numbers have 20 digits.
fn entry_bytes(name: &str, shape: &[usize]) -> usize {
    json!(name).to_string().len() + json!(shape).to_string().len() + 100
}

/// An error about a path.
fn io_error(path: &Path) -> impl Fn(std::io::Error) -> CheckpointError {
    let path = path.to_path_buf();
    move |source| CheckpointError::Io { path: path.clone(), source }
}

/// Types by the names of the format.
mod dtype_by_name {
    use bantam_numerics::DType;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::safetensors;

    pub(super) fn serialize<S: Serializer>(dtype: &DType, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(safetensors::dtype_name(*dtype))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DType, D::Error> {
        let name = String::deserialize(from)?;
        let unknown = || D::Error::custom(format!("no type of safetensors is called {name}"));
        safetensors::dtype_named(&name).ok_or_else(unknown)
    }
}
