//! Reads the tokenizer of a Hugging Face folder.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;

use crate::TextError;
use crate::tokenizer::TokenizerParts;

/// Reads `tokenizer.json` and the files beside it that name special tokens and the chat template.
///
/// * begin and end of sequence: `tokenizer_config.json`, else `special_tokens_map.json`;
/// * more ends of generation: `eos_token_id` of `generation_config.json`;
/// * chat template: `chat_template.jinja`, else `chat_template` of `tokenizer_config.json` (of
///   several, the one named `default`).
pub(crate) fn load(folder: &Path) -> Result<TokenizerParts, TextError> {
    let path = folder.join("tokenizer.json");
    let bytes = match std::fs::read(&path) {
        Err(error) if is_missing(&error) => {
            return Err(TextError::NoTokenizer {
                folder: folder.to_owned(),
                way_out: way_out(folder),
            });
        }
        read => read.map_err(|source| TextError::Read { path: path.clone(), source })?,
    };
    let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| {
        TextError::InvalidFile { path: path.clone(), problem: error.to_string() }
    })?;
    // Settings of some training run; how long a prompt may be is for the caller to say.
    inner.with_padding(None);
    inner.with_truncation(None).map_err(|error| TextError::InvalidFile {
        path: path.clone(),
        problem: error.to_string(),
    })?;

    let config = read_json(&folder.join("tokenizer_config.json"))?;
    let map = read_json(&folder.join("special_tokens_map.json"))?;
    let generation = read_json(&folder.join("generation_config.json"))?;
    let special = |key: &str| -> Result<Option<u32>, TextError> {
        let Some(token) = token_text(&config[key]).or_else(|| token_text(&map[key])) else {
            return Ok(None);
        };
        let id = inner.token_to_id(token);
        id.map(Some).ok_or_else(|| TextError::InvalidFile {
            path: path.clone(),
            problem: format!(
                "the {key} {token:?} of tokenizer_config.json is not in the vocabulary"
            ),
        })
    };
    let bos = special("bos_token")?;
    let ends = special("eos_token")?.into_iter().chain(ids(&generation["eos_token_id"])).collect();
    let chat_template = chat_template(folder, &config)?;
    let (origin, nameless) = (path.display().to_string(), Vec::new());
    Ok(TokenizerParts { origin, inner, bos, ends, nameless, chat_template })
}

/// What to do about a folder without `tokenizer.json`.
fn way_out(folder: &Path) -> String {
    let shown = folder.display();
    let has = |name: &str| folder.join(name).exists();
    if !folder.exists() {
        "the folder does not exist; give the path of a downloaded model".to_owned()
    } else if !folder.is_dir() {
        "it is not a folder; give the folder that holds the model".to_owned()
    } else if let Some(found) =
        ["tokenizer.model", "vocab.json", "vocab.txt"].into_iter().find(|name| has(name))
    {
        format!(
            "found only {found}; convert with transformers: \
             AutoTokenizer.from_pretrained({shown:?}).save_pretrained({shown:?})",
            shown = shown.to_string()
        )
    } else {
        "download tokenizer.json and tokenizer_config.json of the model into it".to_owned()
    }
}

/// Whether a file could not be opened because it, or the folder, is not there.
fn is_missing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The text of a file, `None` where there is no such file.
fn read_text(path: &Path) -> Result<Option<String>, TextError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(source) => Err(TextError::Read { path: path.to_owned(), source }),
    }
}

/// A JSON file; `null` where there is no such file.
fn read_json(path: &Path) -> Result<Value, TextError> {
    let Some(text) = read_text(path)? else {
        return Ok(Value::Null);
    };
    serde_json::from_str(&text).map_err(|error| TextError::InvalidFile {
        path: path.to_owned(),
        problem: format!("not JSON: {error}"),
    })
}

/// The text of a token, written as a string or as an object with `content`.
fn token_text(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

/// One id or a list of ids.
fn ids(value: &Value) -> Vec<u32> {
    let one_or_more = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    one_or_more.iter().filter_map(|id| id.as_u64()?.try_into().ok()).collect()
}

/// The source of the chat template and the name of the file it is from.
fn chat_template(folder: &Path, config: &Value) -> Result<Option<(String, String)>, TextError> {
    let file = folder.join("chat_template.jinja");
    if let Some(template) = read_text(&file)? {
        return Ok(Some((template, file.display().to_string())));
    }
    let path = folder.join("tokenizer_config.json");
    let named = match &config["chat_template"] {
        Value::Null => return Ok(None),
        Value::String(template) => {
            return Ok(Some((template.clone(), path.display().to_string())));
        }
        Value::Array(named) => named.as_slice(),
        _ => &[],
    };
    let default = named.iter().find(|entry| entry["name"] == "default");
    let Some(template) = default.and_then(|entry| entry["template"].as_str()) else {
        let names: Vec<&str> = named.iter().filter_map(|entry| entry["name"].as_str()).collect();
        return Err(TextError::InvalidFile {
            path,
            problem: format!(
                "chat_template is neither a text nor a list with one named \"default\" (found \
                 {names:?}); put the one to use into chat_template.jinja"
            ),
        });
    };
    Ok(Some((template.to_owned(), path.display().to_string())))
}
