//! What a folder or file is that holds no model to run, and what to do about it.

use std::path::Path;

use crate::folder::read_object;

/// A kind of folder, told by a file in it.
struct Kind {
    /// The file, or with a `*` in front the ending of one.
    sign: &'static str,
    /// What it is, and the way out; `{path}` stands for the folder.
    words: &'static str,
}

/// The kinds, the most telling first.
static KINDS: [Kind; 14] = [
    Kind {
        sign: "model_index.json",
        words: "a diffusers pipeline, which makes images; a folder with config.json of a language \
                model is needed",
    },
    Kind {
        sign: "modules.json",
        words: "a sentence-transformers model, which embeds text and does not write any; a \
                language model is needed",
    },
    Kind {
        sign: "config_sentence_transformers.json",
        words: "a sentence-transformers model, which embeds text and does not write any; a \
                language model is needed",
    },
    Kind {
        sign: "params.json",
        words: "weights in the form of Meta or Mistral (params.json); fetch the Hugging Face form \
                of the model, with config.json and model.safetensors",
    },
    Kind { sign: "*.bin", words: TORCH },
    Kind { sign: "*.pt", words: TORCH },
    Kind { sign: "*.pth", words: TORCH },
    Kind {
        sign: "*.onnx",
        words: "an ONNX export; fetch the safetensors or GGUF form of the model",
    },
    Kind { sign: "*.h5", words: "TensorFlow weights; fetch the safetensors form of the model" },
    Kind { sign: "*.msgpack", words: "Flax weights; fetch the safetensors form of the model" },
    Kind { sign: "*.mlmodel", words: "a Core ML model; fetch the safetensors form of the model" },
    Kind {
        sign: "*.engine",
        words: "a TensorRT-LLM engine, which runs on the GPU it was built for; pass the checkpoint \
                it was built from",
    },
    Kind {
        sign: "*.npz",
        words: "MLX weights of the older form; fetch the safetensors form of the model",
    },
    Kind {
        sign: "config.json",
        words: "a model without its weights; fetch model.safetensors into it as well",
    },
];

const TORCH: &str = "PyTorch weights, which are read by running what they hold; convert them: \
                     AutoModelForCausalLM.from_pretrained('{path}').save_pretrained('{path}')";

const PART: &str = "one file of a model; pass the folder that holds it";

/// What a folder with these files is, if it is no model to run but can be told.
pub(crate) fn folder_kind(folder: &Path, names: &[String]) -> Option<String> {
    if let Some(adapter) = adapter(folder, names) {
        return Some(adapter);
    }
    let has = |sign: &str| match sign.strip_prefix('*') {
        Some(ending) => names.iter().any(|name| name.ends_with(ending)),
        None => names.iter().any(|name| name == sign),
    };
    let kind = KINDS.iter().find(|kind| has(kind.sign))?;
    Some(kind.words.replace("{path}", &folder.display().to_string()))
}

/// The words for an adapter: a folder that changes another model.
pub(crate) fn adapter(folder: &Path, names: &[String]) -> Option<String> {
    const SETTINGS: &str = "adapter_config.json";
    if !names.iter().any(|name| name == SETTINGS) {
        return None;
    }
    let settings = read_object(&folder.join(SETTINGS)).unwrap_or_default();
    let text = |key: &str| settings[key].as_str();
    let (kind, base) = (text("peft_type").unwrap_or("PEFT"), text("base_model_name_or_path"));
    Some(format!(
        "an adapter ({kind}) for {}, no model of its own; merge the two with merge_and_unload() of \
         peft, save_pretrained() the result, and pass that folder",
        base.unwrap_or("another model")
    ))
}

/// What a single file is, by its name and its first bytes.
pub(crate) fn file_kind(path: &Path, start: &[u8]) -> Option<&'static str> {
    /// The first bytes of GGML's files before GGUF, little-endian.
    const OLDER_GGML: [&[u8; 4]; 4] = [b"lmgg", b"fmgg", b"tjgg", b"algg"];
    if OLDER_GGML.iter().any(|magic| start.starts_with(*magic)) {
        return Some("a GGML file from before GGUF; convert the original model to GGUF");
    }
    let name = path.file_name()?.to_str()?;
    let extension = path.extension()?.to_str()?;
    match extension {
        "json" | "jinja" | "model" => Some(PART),
        "txt" if ["vocab.txt", "merges.txt"].contains(&name) => Some(PART),
        "safetensors" => Some(
            "a safetensors file, which has no configuration of its own; \
             pass the folder that holds it and config.json",
        ),
        "bin" | "pt" | "pth" if name.starts_with("pytorch_model") || extension != "bin" => {
            Some("PyTorch weights; convert the folder that holds them to safetensors")
        }
        "onnx" => Some("an ONNX export; fetch the safetensors or GGUF form of the model"),
        "zip" | "tar" | "gz" | "zst" | "7z" | "rar" | "whl" => {
            Some("an archive; unpack it and pass the folder or the .gguf file in it")
        }
        _ => None,
    }
}
