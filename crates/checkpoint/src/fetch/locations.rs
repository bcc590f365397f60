//! Where fetched models are kept and come from.

use std::env;
use std::path::PathBuf;

use crate::CheckpointError;

/// The public model hub.
const PUBLIC_HUB: &str = "https://huggingface.co";

/// Its service that gives rows of data sets.
const PUBLIC_ROWS: &str = "https://datasets-server.huggingface.co";

/// The folders and the hub that [`resolve`](super::resolve) uses.
#[derive(Clone)]
pub struct Locations {
    /// Models fetched by Bantam, and beside them data sets.
    pub models: PathBuf,
    /// The cache of the hub's own libraries; it is only read.
    pub hub_cache: PathBuf,
    /// The address of the model hub, without a slash at the end.
    pub endpoint: String,
    /// The address of the hub's service for rows of data sets, likewise.
    pub rows_endpoint: String,
    /// The user's access token for the hub.
    pub token: Option<String>,
}

impl Locations {
    /// Reads the environment:
    ///
    /// * models: `BANTAM_CACHE`, else `XDG_CACHE_HOME/bantam`, else `~/.cache/bantam`, in `models`;
    /// * hub cache: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `huggingface/hub` in `XDG_CACHE_HOME`
    ///   or `~/.cache`;
    /// * hub: `HF_ENDPOINT` or the public one, with the token `HF_TOKEN`.
    ///
    /// # Errors
    ///
    /// When there is no home folder and nothing else says where the cache is.
    pub fn from_environment() -> Result<Self, CheckpointError> {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let folder = |name: &str| set(name).map(PathBuf::from);
        let text = |name: &str| set(name).and_then(|value| value.into_string().ok());

        let user_cache =
            folder("XDG_CACHE_HOME").or_else(|| env::home_dir().map(|home| home.join(".cache")));
        let in_user_cache = |name: &str| user_cache.as_ref().map(|cache| cache.join(name));
        let cache =
            folder("BANTAM_CACHE").or_else(|| in_user_cache("bantam")).ok_or_else(|| {
                CheckpointError::Layout {
                    path: PathBuf::from("~"),
                    problem: "no home folder for the model cache; set BANTAM_CACHE".to_owned(),
                }
            })?;
        let hub_cache = folder("HF_HUB_CACHE")
            .or_else(|| folder("HF_HOME").map(|home| home.join("hub")))
            .or_else(|| in_user_cache("huggingface/hub"))
            .unwrap_or_else(|| cache.join("hub"));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| PUBLIC_HUB.to_owned());
        Ok(Self {
            models: cache.join("models"),
            hub_cache,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            rows_endpoint: PUBLIC_ROWS.to_owned(),
            token: text("HF_TOKEN"),
        })
    }
}
