//! Hugging Face folders: configuration, shards and tokenizer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use bantam_text::{TokenizerSource, python_json};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::CheckpointError;
use crate::checkpoint::{Contents, TokenizerOrigin};
use crate::locate::{Weights, describe, file_names};
use crate::model_file::ModelFile;
use crate::{names, safetensors};

/// The largest JSON file read; those of a model take a few MiB at most.
const MAX_JSON_BYTES: u64 = 256 << 20;

/// Opens the files of a Hugging Face folder.
pub(crate) fn load(folder: &Path, weights: &Weights) -> Result<Contents, CheckpointError> {
    let config_path = folder.join("config.json");
    if !config_path.is_file() {
        return Err(CheckpointError::Layout {
            path: folder.to_path_buf(),
            problem: "weights without config.json; put the model's config.json beside them"
                .to_owned(),
        });
    }
    let config = read_object(&config_path)?;
    let generation_path = folder.join("generation_config.json");
    let generation_config =
        generation_path.is_file().then(|| read_object(&generation_path)).transpose()?;

    let mut contents = Contents {
        files: Vec::new(),
        tensors: Vec::new(),
        config,
        generation_config,
        tokenizer: TokenizerOrigin::Folder(folder.to_path_buf()),
        listed: BTreeMap::new(),
        notes: Vec::new(),
        unread: Vec::new(),
    };
    match weights {
        Weights::Single(file) => {
            let file = ModelFile::open(file)?;
            contents.tensors = safetensors::read_header(&file, 0)?;
            contents.files.push(file);
        }
        Weights::Index(index) => load_shards(folder, index, &mut contents)?,
    }
    contents.notes = names::unify(&mut contents.tensors, &contents.config);
    Ok(contents)
}

/// Opens every shard that the index names and holds the two against each other.
fn load_shards(
    folder: &Path,
    index_path: &Path,
    contents: &mut Contents,
) -> Result<(), CheckpointError> {
    let index: ShardIndex = read_json(index_path)?;
    let shards: BTreeSet<&String> = index.weight_map.values().collect();
    let mut holders: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (number, &shard) in shards.iter().enumerate() {
        let path = shard_path(folder, index_path, shard)?;
        let file = ModelFile::open(&path)?;
        let tensors = safetensors::read_header(&file, number)?;
        for tensor in &tensors {
            if let Some(other) = holders.insert(tensor.name.clone(), path.clone()) {
                return Err(CheckpointError::Tensor {
                    file: path,
                    tensor: tensor.name.clone(),
                    problem: format!("also in {}; keep one of them", other.display()),
                });
            }
        }
        contents.tensors.extend(tensors);
        contents.files.push(file);
    }
    // What the index has and no shard does is an error for whoever needs it.
    for (tensor, shard) in index.weight_map {
        if !holders.contains_key(&tensor) {
            contents.listed.insert(tensor, folder.join(shard));
        }
    }
    Ok(())
}

/// `model.safetensors.index.json`: which file holds which tensor. Its `metadata` is not needed.
#[derive(serde::Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// The path of a shard, which must be a plain file name inside the folder and exist.
fn shard_path(folder: &Path, index: &Path, shard: &str) -> Result<PathBuf, CheckpointError> {
    let mut components = Path::new(shard).components();
    let plain =
        matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    let problem = if !plain {
        format!("names the shard {shard:?}, which is not a file name in the same folder")
    } else if !folder.join(shard).is_file() {
        format!("names the shard {shard}, which is missing; fetch it into {}", folder.display())
    } else {
        return Ok(folder.join(shard));
    };
    Err(CheckpointError::Layout { path: index.to_path_buf(), problem })
}

/// The tokenizer of a Hugging Face folder.
pub(crate) fn tokenizer_source(folder: &Path) -> Result<TokenizerSource, CheckpointError> {
    if folder.join("tokenizer.json").is_file() {
        return Ok(TokenizerSource::Folder(folder.to_path_buf()));
    }
    const RELATED: [&str; 5] =
        ["tokenizer.model", "tokenizer_config.json", "vocab.json", "merges.txt", "vocab.txt"];
    let mut found = file_names(folder)?;
    found.retain(|name| RELATED.contains(&name.as_str()));
    Err(CheckpointError::NoTokenizer { folder: folder.to_path_buf(), found: describe(&found) })
}

pub(crate) fn read_object(file: &Path) -> Result<Value, CheckpointError> {
    let value: Value = read_json(file)?;
    if value.is_object() {
        return Ok(value);
    }
    let reason = "an object was expected at the top".to_owned();
    Err(CheckpointError::Json { file: file.to_path_buf(), reason })
}

fn read_json<T: DeserializeOwned>(file: &Path) -> Result<T, CheckpointError> {
    let io_error = |source| CheckpointError::Io { path: file.to_path_buf(), source };
    let json_error = |reason| CheckpointError::Json { file: file.to_path_buf(), reason };
    let size = std::fs::metadata(file).map_err(io_error)?.len();
    if size > MAX_JSON_BYTES {
        return Err(json_error(format!("{size} bytes, at most {MAX_JSON_BYTES} are read")));
    }
    let text = std::fs::read(file).map_err(io_error)?;
    let value = python_json::parse(&text).map_err(|error| json_error(error.to_string()))?;
    serde_json::from_value(value).map_err(|error| json_error(error.to_string()))
}
