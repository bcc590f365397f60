//! Which files a path means.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::gguf::{self, SplitName};
use crate::{CheckpointError, what_it_is};

/// The files of a model.
#[derive(Debug)]
pub(crate) enum Layout {
    /// A Hugging Face folder.
    Folder { folder: PathBuf, weights: Weights },
    /// A GGUF file, or its parts in order.
    Gguf { parts: Vec<PathBuf> },
}

/// The weights of a Hugging Face folder.
#[derive(Debug)]
pub(crate) enum Weights {
    /// One safetensors file.
    Single(PathBuf),
    /// The index of several.
    Index(PathBuf),
}

/// Decides what `path` means without reading any weights.
pub(crate) fn locate(path: &Path) -> Result<Layout, CheckpointError> {
    let information = std::fs::metadata(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => CheckpointError::NotFound { path: path.to_path_buf() },
        _ => CheckpointError::Io { path: path.to_path_buf(), source },
    })?;
    if information.is_dir() { locate_in_folder(path) } else { locate_file(path) }
}

fn locate_file(path: &Path) -> Result<Layout, CheckpointError> {
    if has_extension(path, "gguf") || gguf::has_magic(path) {
        return Ok(Layout::Gguf { parts: SplitName::parts_of(path)? });
    }
    let mut start = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| file.read(&mut start));
    let read = read.map_err(|source| CheckpointError::Io { path: path.to_path_buf(), source })?;
    if let Some(kind) = what_it_is::file_kind(path, &start[..read]) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).display();
        let problem = format!("{kind} ({folder})");
        return Err(CheckpointError::Layout { path: path.to_path_buf(), problem });
    }
    let found = "a file of another kind".to_owned();
    Err(CheckpointError::NoWeights { path: path.to_path_buf(), found })
}

fn locate_in_folder(folder: &Path) -> Result<Layout, CheckpointError> {
    let names = file_names(folder)?;
    let is = |kind: String| CheckpointError::Layout {
        path: folder.to_path_buf(),
        problem: format!("this is {kind}"),
    };
    // An adapter's folder may hold a copy of the configuration, and its weights are safetensors.
    let whole = ["model.safetensors", "model.safetensors.index.json"];
    if let Some(adapter) = what_it_is::adapter(folder, &names)
        && !names.iter().any(|name| whole.contains(&name.as_str()))
    {
        return Err(is(adapter));
    }
    if let Some(weights) = safetensors_of(folder, &names)? {
        return Ok(Layout::Folder { folder: folder.to_path_buf(), weights });
    }
    let ggufs: Vec<&String> =
        names.iter().filter(|name| has_extension(Path::new(name), "gguf")).collect();
    // The parts of one split model count once: by their first part.
    let models: Vec<&String> = ggufs
        .iter()
        .copied()
        .filter(|name| SplitName::parse(name).is_none_or(|split| split.number == 1))
        .collect();
    match (models.as_slice(), ggufs.first()) {
        ([model], _) => Ok(Layout::Gguf { parts: SplitName::parts_of(&folder.join(model))? }),
        // Parts without a first one: opening any of them names the missing file.
        ([], Some(part)) => Ok(Layout::Gguf { parts: SplitName::parts_of(&folder.join(part))? }),
        ([], None) => Err(match what_it_is::folder_kind(folder, &names) {
            Some(kind) => is(kind),
            None => {
                CheckpointError::NoWeights { path: folder.to_path_buf(), found: describe(&names) }
            }
        }),
        (models, _) => Err(CheckpointError::SeveralModels {
            folder: folder.to_path_buf(),
            files: models.iter().map(|&name| name.clone()).collect(),
        }),
    }
}

/// The safetensors files of a folder, by the names that Hugging Face libraries try, in their order.
fn safetensors_of(folder: &Path, names: &[String]) -> Result<Option<Weights>, CheckpointError> {
    let has = |name: &str| names.iter().any(|present| present == name);
    if has("model.safetensors") {
        return Ok(Some(Weights::Single(folder.join("model.safetensors"))));
    }
    if has("model.safetensors.index.json") {
        return Ok(Some(Weights::Index(folder.join("model.safetensors.index.json"))));
    }
    let others: Vec<&String> =
        names.iter().filter(|name| has_extension(Path::new(name), "safetensors")).collect();
    match others.as_slice() {
        [] => Ok(None),
        [single] => Ok(Some(Weights::Single(folder.join(single)))),
        several => Err(CheckpointError::Layout {
            path: folder.to_path_buf(),
            problem: format!(
                "{} without model.safetensors.index.json to say what each holds; \
                 fetch the index, or keep one file: {}",
                several.len(),
                describe(names)
            ),
        }),
    }
}

/// The names of the files in a folder, sorted; names that are not UTF-8 belong to no model.
pub(crate) fn file_names(folder: &Path) -> Result<Vec<String>, CheckpointError> {
    let io_error = |source| CheckpointError::Io { path: folder.to_path_buf(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io_error)? {
        if let Ok(name) = entry.map_err(io_error)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The first few names for a message.
pub(crate) fn describe(names: &[String]) -> String {
    const SHOWN: usize = 6;
    if names.is_empty() {
        return "nothing".to_owned();
    }
    let mut text = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}
