//! GGUF files, versions 2 and 3 (GGUF specification of the GGML project).
//!
//! A file is a header with typed metadata, the descriptions of its tensors, and their data. One
//! model may be split over several files; the first part holds the metadata.

mod config;
mod cursor;
mod header;
mod metadata;
mod names;
mod split;
mod vocabulary;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) use header::has_magic;
pub(crate) use metadata::Metadata;
pub(crate) use split::SplitName;
pub(crate) use vocabulary::vocabulary;

use crate::CheckpointError;
use crate::checkpoint::{Contents, TokenizerOrigin};
use crate::model_file::ModelFile;
use crate::tensor::TensorEntry;
use header::Header;
use names::Architecture;

/// Opens a GGUF model from all its parts, in order.
pub(crate) fn load(parts: &[PathBuf]) -> Result<Contents, CheckpointError> {
    let files = parts.iter().map(|part| ModelFile::open(part)).collect::<Result<Vec<_>, _>>()?;
    let mut headers = files.iter().map(Header::parse).collect::<Result<Vec<_>, _>>()?;
    split::check(&headers)?;

    let architecture = Architecture::of(&headers[0].metadata)?;
    config::check_supported(&headers[0].metadata)?;
    let heads = config::Heads::of(&headers[0].metadata)?;
    let mut tensors: Vec<TensorEntry> = Vec::new();
    for (number, header) in headers.iter_mut().enumerate() {
        for mut tensor in header.tensors.drain(..) {
            tensor.file = number;
            architecture.adopt(files[number].path(), heads, &mut tensor)?;
            tensors.push(tensor);
        }
    }
    check_unique(&files, &mut tensors)?;

    let metadata = headers.swap_remove(0).metadata;
    let config = config::hugging_face(&metadata, architecture, heads, &tensors)?;
    Ok(Contents {
        files,
        tensors,
        config,
        generation_config: None,
        tokenizer: TokenizerOrigin::Metadata(metadata),
        listed: BTreeMap::new(),
        notes: Vec::new(),
        unread: Vec::new(),
    })
}

/// Sorts the tensors by name and refuses two of one name.
fn check_unique(files: &[ModelFile], tensors: &mut [TensorEntry]) -> Result<(), CheckpointError> {
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    match tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
        None => Ok(()),
        Some(pair) => {
            let path = |tensor: &TensorEntry| -> &Path { files[tensor.file].path() };
            Err(CheckpointError::Tensor {
                file: path(&pair[1]).to_path_buf(),
                tensor: pair[1].name.clone(),
                problem: format!("described twice, also in {}", path(&pair[0]).display()),
            })
        }
    }
}
