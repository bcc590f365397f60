//! An open checkpoint, whatever its format.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use bantam_text::TokenizerSource;
use serde_json::Value;

use crate::gguf::{self, Metadata};
use crate::locate::{Layout, locate};
use crate::model_file::ModelFile;
use crate::quantized::Pattern;
use crate::tensor::{TensorEntry, TensorView};
use crate::{CheckpointError, folder, suggest};

/// The file format of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A Hugging Face folder.
    Safetensors,
    /// A GGUF file or its parts.
    Gguf,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::Gguf => "gguf",
        })
    }
}

/// Where [`Checkpoint::tokenizer_source`] finds the tokenizer.
#[derive(Debug)]
pub(crate) enum TokenizerOrigin {
    Folder(PathBuf),
    Metadata(Metadata),
}

/// What the reader of either format hands over.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) files: Vec<ModelFile>,
    pub(crate) tensors: Vec<TensorEntry>,
    pub(crate) config: Value,
    pub(crate) generation_config: Option<Value>,
    pub(crate) tokenizer: TokenizerOrigin,
    /// Tensors that an index lists and no file holds, with the file that should.
    pub(crate) listed: BTreeMap<String, PathBuf>,
    /// What is worth saying of the files.
    pub(crate) notes: Vec<String>,
    /// Patterns of tensors that need not be read.
    pub(crate) unread: Vec<Pattern>,
}

/// A model on disk: its configuration, its tensors under their Hugging Face
/// names, and its tokenizer.
///
/// Opening reads headers only. Every size and offset in them has been checked against the files, so
/// reading a tensor later cannot run past their end. Files are held open and read when a tensor is;
/// one that was written to meanwhile is an error ([`CheckpointError::Changed`]).
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    format: Format,
    /// `tensors` is sorted by name.
    contents: Contents,
}

impl Checkpoint {
    /// Opens a model: a Hugging Face folder (`config.json` with `model.safetensors`, the shards of
    /// `model.safetensors.index.json`, or a single other `*.safetensors`), a folder with one GGUF
    /// model, or a `.gguf` file (any part of one that is split).
    ///
    /// # Errors
    ///
    /// When there is no such model, or a file is truncated, corrupt, or of a kind not supported.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let (format, mut contents) = match locate(path)? {
            Layout::Folder { folder, weights } => {
                (Format::Safetensors, folder::load(&folder, &weights)?)
            }
            Layout::Gguf { parts } => (Format::Gguf, gguf::load(&parts)?),
        };
        contents.tensors.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { path: path.to_path_buf(), format, contents })
    }

    /// The path it was opened from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// The Hugging Face `config.json`, an object; of a GGUF file the same keys made from its
    /// metadata and tensors.
    #[must_use]
    pub fn config(&self) -> &Value {
        &self.contents.config
    }

    /// The Hugging Face `generation_config.json`, if the folder has one.
    #[must_use]
    pub fn generation_config(&self) -> Option<&Value> {
        self.contents.generation_config.as_ref()
    }

    /// All tensors in the order of their names.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.contents.tensors.iter().map(|entry| self.view(entry))
    }

    /// The tensor of this Hugging Face name.
    ///
    /// # Errors
    ///
    /// When there is none; the error names the most similar ones.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, CheckpointError> {
        if let (None, Some(file)) = (self.find(name), self.contents.listed.get(name)) {
            return Err(CheckpointError::Tensor {
                file: file.clone(),
                tensor: name.to_owned(),
                problem: "not in this file, where the index has it; fetch both again".to_owned(),
            });
        }
        self.find(name).map(|entry| self.view(entry)).ok_or_else(|| {
            let names = self.contents.tensors.iter().map(|entry| entry.name.as_str());
            CheckpointError::UnknownTensor {
                path: self.path.clone(),
                name: name.to_owned(),
                nearest: suggest::nearest(name, names, 3),
            }
        })
    }

    /// Whether there is a tensor of this Hugging Face name.
    #[must_use]
    pub fn has_tensor(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Where the tokenizer of this model is: the folder, or the vocabulary inside the GGUF file.
    ///
    /// # Errors
    ///
    /// When the folder has no `tokenizer.json`, or the vocabulary is of a kind not supported.
    pub fn tokenizer_source(&self) -> Result<TokenizerSource, CheckpointError> {
        match &self.contents.tokenizer {
            TokenizerOrigin::Folder(folder) => folder::tokenizer_source(folder),
            TokenizerOrigin::Metadata(metadata) => gguf::vocabulary(metadata)
                .map(|vocabulary| TokenizerSource::Vocabulary(Box::new(vocabulary))),
        }
    }

    /// What is worth saying of the files: settings that were taken from an unusual place.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.contents.notes
    }

    /// The same, where tensors of these names need not be read by the network: `*` stands for any
    /// text, `?` for one character.
    ///
    /// ```no_run
    /// use bantam_checkpoint::Checkpoint;
    /// let checkpoint = Checkpoint::open("model".as_ref())?.allow_unread(&["v_head.*"]);
    /// assert!(checkpoint.is_unread_allowed("v_head.weight"));
    /// # Ok::<(), bantam_checkpoint::CheckpointError>(())
    /// ```
    #[must_use]
    pub fn allow_unread<T: AsRef<str>>(mut self, patterns: &[T]) -> Self {
        let globs = patterns.iter().map(|pattern| Pattern::Glob(pattern.as_ref().to_owned()));
        self.contents.unread.extend(globs);
        self
    }

    /// Whether a tensor need not be read.
    #[must_use]
    pub fn is_unread_allowed(&self, name: &str) -> bool {
        self.contents.unread.iter().any(|pattern| pattern.matches(name) == Ok(true))
    }

    /// Bytes of all tensors as stored, headers not counted.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.contents.tensors.iter().map(|entry| entry.bytes.len() as u64).sum()
    }

    /// Elements of all tensors.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.tensors().map(|tensor| tensor.elements() as u64).sum()
    }

    fn find(&self, name: &str) -> Option<&TensorEntry> {
        let tensors = &self.contents.tensors;
        let at = tensors.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok()?;
        Some(&tensors[at])
    }

    fn view<'a>(&'a self, entry: &'a TensorEntry) -> TensorView<'a> {
        let file = &self.contents.files[entry.file];
        TensorView {
            name: &entry.name,
            shape: &entry.shape,
            encoding: entry.encoding,
            row_order: entry.row_order,
            start: entry.bytes.start,
            stored_bytes: entry.bytes.len(),
            file,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_can_be_shared_between_threads() {
        fn shareable<T: Send + Sync>() {}
        shareable::<Checkpoint>();
    }
}
