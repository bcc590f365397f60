//! The files of a Hugging Face folder that say how text becomes tokens, as they are.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{TextError, python_json};

/// The largest file read; those of a tokenizer take tens of MiB at most.
const MAX_BYTES: u64 = 256 << 20;

/// What each file says; null for a file that is not there.
pub(super) struct Files {
    /// `tokenizer.json`, where it is and what it holds.
    pub(super) path: PathBuf,
    pub(super) tokenizer: Vec<u8>,
    /// `tokenizer_config.json`.
    pub(super) settings: Value,
    /// `special_tokens_map.json`: what libraries before 2024 read beside it.
    pub(super) special_tokens_map: Value,
    /// `added_tokens.json`: likewise.
    pub(super) added_tokens: Value,
    /// `config.json`, of the model.
    pub(super) config: Value,
    /// `generation_config.json`.
    pub(super) generation: Value,
    /// Chat templates by name, each with the file it is from.
    pub(super) templates: BTreeMap<String, (String, String)>,
}

impl Files {
    /// Reads them all.
    pub(super) fn read(folder: &Path) -> Result<Self, TextError> {
        let path = folder.join("tokenizer.json");
        let Some(tokenizer) = read(&path)? else {
            let way_out = way_out(folder);
            return Err(TextError::NoTokenizer { folder: folder.to_owned(), way_out });
        };
        let json = |name: &str| read_json(&folder.join(name));
        let settings = json("tokenizer_config.json")?;
        Ok(Self {
            path,
            tokenizer,
            special_tokens_map: json("special_tokens_map.json")?,
            added_tokens: json("added_tokens.json")?,
            config: json("config.json")?,
            generation: json("generation_config.json")?,
            templates: templates(folder, &settings)?,
            settings,
        })
    }
}

/// The chat templates, by the order in which `transformers` looks for them: files of their own
/// (`chat_template.jinja`, and those of `additional_chat_templates/` by their names), else
/// `chat_template` of `tokenizer_config.json`, a text or a list with names, else
/// `chat_template.json`, where processors keep it.
fn templates(
    folder: &Path,
    settings: &Value,
) -> Result<BTreeMap<String, (String, String)>, TextError> {
    const DEFAULT: &str = "default";
    let mut found = BTreeMap::new();
    let mut add = |name: &str, source: &str, file: &Path| {
        found.insert(name.to_owned(), (source.to_owned(), file.display().to_string()));
    };
    let file = folder.join("chat_template.jinja");
    if let Some(source) = read_text(&file)? {
        add(DEFAULT, &source, &file);
    }
    for file in jinja_files(&folder.join("additional_chat_templates"))? {
        if let (Some(source), Some(name)) = (read_text(&file)?, file.file_stem()) {
            add(&name.to_string_lossy(), &source, &file);
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let others = [
        (folder.join("tokenizer_config.json"), settings["chat_template"].clone()),
        (
            folder.join("chat_template.json"),
            read_json(&folder.join("chat_template.json"))?["chat_template"].clone(),
        ),
    ];
    for (file, template) in &others {
        let named = match template {
            Value::Null => continue,
            Value::String(source) => vec![(DEFAULT, source.as_str())],
            Value::Array(entries) => {
                let named = entries
                    .iter()
                    .map(|entry| Some((entry["name"].as_str()?, entry["template"].as_str()?)));
                named.collect::<Option<_>>().unwrap_or_default()
            }
            Value::Object(entries) => {
                let named =
                    entries.iter().map(|(name, text)| Some((name.as_str(), text.as_str()?)));
                named.collect::<Option<_>>().unwrap_or_default()
            }
            _ => Vec::new(),
        };
        if named.is_empty() {
            return Err(TextError::InvalidFile {
                path: file.clone(),
                problem: "chat_template is neither a text nor a list of objects with `name` and \
                          `template`; put the one to use into chat_template.jinja"
                    .to_owned(),
            });
        }
        let shown = file.display().to_string();
        let entry =
            |(name, source): (&str, &str)| (name.to_owned(), (source.to_owned(), shown.clone()));
        return Ok(named.into_iter().map(entry).collect());
    }
    Ok(found)
}

/// The `*.jinja` files of a folder, sorted; none if there is no such folder.
fn jinja_files(folder: &Path) -> Result<Vec<PathBuf>, TextError> {
    let failed = |source| TextError::Read { path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let paths = entries.map(|entry| Ok(entry.map_err(failed)?.path()));
    let mut paths = paths.collect::<Result<Vec<_>, TextError>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jinja"));
    paths.sort();
    Ok(paths)
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

/// The content of a file, `None` where there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, TextError> {
    let failed = |source| TextError::Read { path: path.to_owned(), source };
    let size = match std::fs::metadata(path) {
        Err(error) if is_missing(&error) => return Ok(None),
        metadata => metadata.map_err(failed)?.len(),
    };
    if size > MAX_BYTES {
        let problem = format!("{size} bytes, expected at most {MAX_BYTES}");
        return Err(TextError::InvalidFile { path: path.to_owned(), problem });
    }
    std::fs::read(path).map(Some).map_err(failed)
}

/// The text of a file, `None` where there is no such file.
fn read_text(path: &Path) -> Result<Option<String>, TextError> {
    let text = read(path)?.map(String::from_utf8).transpose();
    text.map_err(|error| TextError::InvalidFile {
        path: path.to_owned(),
        problem: format!("not UTF-8: {error}"),
    })
}

/// A JSON file; `null` where there is no such file.
fn read_json(path: &Path) -> Result<Value, TextError> {
    let Some(text) = read(path)? else {
        return Ok(Value::Null);
    };
    python_json::parse(&text).map_err(|error| TextError::InvalidFile {
        path: path.to_owned(),
        problem: format!("not JSON: {error}"),
    })
}
