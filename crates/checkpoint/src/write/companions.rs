//! Everything of a model's folder that is not weights.

use std::fs;
use std::path::Path;

use bantam_text::{Tokenizer, TokenizerSource, python_json};
use serde_json::{Value, json};

use super::{QuantizationFiles, rope};
use crate::locate::file_names;
use crate::{Checkpoint, CheckpointError, Format};

/// Endings of files that hold weights, or list them.
const WEIGHTS: [&str; 10] = [
    ".safetensors",
    ".index.json",
    ".bin",
    ".gguf",
    ".pt",
    ".pth",
    ".onnx",
    ".h5",
    ".msgpack",
    ".ot",
];

/// Files that this module writes itself, or that would contradict them.
const REPLACED: [&str; 4] =
    ["config.json", "hf_quant_config.json", "quant_config.json", "quantize_config.json"];

/// The folder of chat templates with names.
const CHAT_TEMPLATES: &str = "additional_chat_templates";

/// Brings the files beside the weights into `folder`: those of a folder are copied, those of a GGUF
/// file made from its metadata (configuration, tokenizer, chat template, ends of generation). The
/// configuration says how the weights are quantized now.
///
/// Folders inside the source are left behind, as they hold other forms of the weights; all but that of
/// the chat templates.
///
/// [`is_in_configuration`] names the tensors that must not be written beside it.
///
/// # Errors
/// If a file cannot be read or written, or the tokenizer of a GGUF file cannot be told.
pub fn write_companions(
    source: &Checkpoint,
    folder: &Path,
    quantization: Option<&QuantizationFiles>,
) -> Result<(), CheckpointError> {
    let mut config = source.config().clone();
    match source.format() {
        Format::Safetensors => copy_files(source.path(), folder)?,
        Format::Gguf => {
            config["torch_dtype"] = json!("bfloat16");
            if let Some(scaling) = rope::scaling_of_divisors(source)? {
                config["rope_scaling"] = scaling;
            }
            write_tokenizer(source, folder)?;
        }
    }
    if let Some(entries) = config.as_object_mut() {
        entries.shift_remove("quantization_config");
        entries.shift_remove("compression_config");
        let quantization = quantization.map(|files| files.quantization_config.clone());
        entries.extend(quantization.map(|value| ("quantization_config".to_owned(), value)));
    }
    if let Some(value) = quantization.and_then(|files| files.hf_quant_config.as_ref()) {
        write_json(&folder.join("hf_quant_config.json"), value)?;
    }
    write_json(&folder.join("config.json"), &config)
}

/// Whether a tensor says what the configuration in a written folder says: the frequency divisors of
/// GGUF files.
#[must_use]
pub fn is_in_configuration(tensor: &str) -> bool {
    tensor == rope::DIVISORS
}

/// Whether a file of a model's folder holds weights or lists them, by its name.
#[must_use]
pub fn holds_weights(name: &str) -> bool {
    WEIGHTS.iter().any(|ending| name.ends_with(ending))
}

/// Copies the files of a folder that hold no weights.
fn copy_files(from: &Path, to: &Path) -> Result<(), CheckpointError> {
    let kept = |name: &String| !REPLACED.contains(&name.as_str()) && !holds_weights(name);
    for name in file_names(from)?.into_iter().filter(kept) {
        let path = from.join(&name);
        let failed = |source| CheckpointError::Io { path: path.clone(), source };
        if path.is_file() {
            fs::copy(&path, to.join(&name)).map_err(failed)?;
        } else if name == CHAT_TEMPLATES {
            let folder = to.join(&name);
            fs::create_dir_all(&folder).map_err(failed)?;
            copy_files(&path, &folder)?;
        }
    }
    Ok(())
}

/// Writes the tokenizer of a GGUF file as transformers reads it.
fn write_tokenizer(source: &Checkpoint, folder: &Path) -> Result<(), CheckpointError> {
    let origin = source.tokenizer_source()?;
    let failed = |error: bantam_text::TextError| CheckpointError::Layout {
        path: source.path().to_path_buf(),
        problem: format!(
            "no tokenizer.json can be made of its vocabulary: {error}; \
             quantize the safetensors folder of the model instead"
        ),
    };
    let tokenizer = Tokenizer::load(&origin).map_err(failed)?;
    let text = tokenizer.to_json().map_err(failed)?;
    let path = folder.join("tokenizer.json");
    fs::write(&path, text).map_err(|source| CheckpointError::Io { path, source })?;

    let token = |id: u32| {
        tokenizer.token_bytes(id).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": false,
        "bos_token": tokenizer.bos().and_then(token),
        "eos_token": tokenizer.eos().first().copied().and_then(token),
    });
    if let TokenizerSource::Vocabulary(vocabulary) = &origin {
        config["unk_token"] = json!(vocabulary.unknown.and_then(token));
        config["pad_token"] = json!(vocabulary.padding.and_then(token));
    }
    if let Some(template) = tokenizer.chat_template() {
        config["chat_template"] = json!(template.source());
    }
    if let Some(length) = source.config().get("max_position_embeddings") {
        config["model_max_length"] = length.clone();
    }
    write_json(&folder.join("tokenizer_config.json"), &config)?;
    let generation = json!({"bos_token_id": tokenizer.bos(), "eos_token_id": tokenizer.eos()});
    write_json(&folder.join("generation_config.json"), &generation)
}

/// Writes a JSON file as people read it, with the numbers that only Python has.
///
/// # Errors
/// If it cannot be written.
pub fn write_json(path: &Path, value: &Value) -> Result<(), CheckpointError> {
    fs::write(path, python_json::print(value))
        .map_err(|source| CheckpointError::Io { path: path.to_path_buf(), source })
}
