//! What a run leaves behind, so that a resume goes on from it: the state, and the residual stream.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::time::Duration;

use bantam_checkpoint::write::SavedShards;
use serde::{Deserialize, Serialize};

use crate::OptimizeError;
use crate::collect::StoredRanges;
use crate::report::SiteReport;

/// How far a run has come, and what it knows.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The block to do next.
    pub(crate) next_block: usize,
    /// Reports of the sites done.
    pub(crate) sites: Vec<SiteReport>,
    /// The cache's ranges in the layers done.
    pub(crate) kv: Vec<StoredRanges>,
    /// Seconds of the runs before.
    pub(crate) seconds_before: f64,
    /// The residual stream before the next block, `[T, C]` for each sequence.
    pub(crate) stream: Vec<Vec<f32>>,
    /// What is written of the output.
    pub(crate) shards: SavedShards,
}

/// The part of the state that is a JSON file.
#[derive(Serialize, Deserialize)]
struct Stored {
    fingerprint: String,
    next_block: usize,
    sites: Vec<SiteReport>,
    kv: Vec<StoredRanges>,
    seconds: f64,
    /// Numbers of each sequence in the stream.
    lengths: Vec<usize>,
    shards: SavedShards,
}

const STATE: &str = "quantize-state.json";

/// The stream's file: one for each place, so that a state never points to the stream of another.
fn stream_name(next_block: usize) -> String {
    format!("quantize-stream-{next_block}.bin")
}

impl State {
    /// Saves the state; it replaces the one before at once or not at all. Everything that a resume
    /// needs is in this one file or named by it, so that a run may be killed at any moment.
    pub(crate) fn save(
        &self,
        folder: &Path,
        fingerprint: &str,
        elapsed: Duration,
    ) -> Result<(), OptimizeError> {
        let path = folder.join(stream_name(self.next_block));
        let failed = OptimizeError::io(&path);
        let mut file = BufWriter::new(File::create(&path).map_err(&failed)?);
        for value in self.stream.iter().flatten() {
            file.write_all(&value.to_le_bytes()).map_err(&failed)?;
        }
        file.into_inner()
            .map_err(|error| failed(error.into_error()))?
            .sync_all()
            .map_err(&failed)?;
        let stored = Stored {
            fingerprint: fingerprint.to_owned(),
            next_block: self.next_block,
            sites: self.sites.clone(),
            kv: self.kv.clone(),
            seconds: self.seconds_before + elapsed.as_secs_f64(),
            lengths: self.stream.iter().map(Vec::len).collect(),
            shards: self.shards.clone(),
        };
        let text = serde_json::to_string(&stored).expect("numbers and strings have a JSON form");
        let (path, next) = (folder.join(STATE), folder.join("quantize-state.json.next"));
        let failed = OptimizeError::io(&next);
        let mut file = File::create(&next).map_err(&failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(&failed)?;
        fs::rename(&next, &path).map_err(OptimizeError::io(&path))?;
        for entry in fs::read_dir(folder).map_err(OptimizeError::io(folder))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("quantize-stream-") && name != stream_name(self.next_block) {
                fs::remove_file(entry.path()).map_err(OptimizeError::io(&entry.path()))?;
            }
        }
        Ok(())
    }

    /// Whether a file of this name belongs to the state.
    pub(crate) fn owns(name: &str) -> bool {
        name.starts_with("quantize-st")
    }

    /// Whether a run has left a state in the folder.
    pub(crate) fn is_in(folder: &Path) -> bool {
        folder.join(STATE).exists()
    }

    /// The state that a run left, if it left one.
    ///
    /// # Errors
    /// If it is of another run, or damaged.
    pub(crate) fn load(folder: &Path, fingerprint: &str) -> Result<Option<Self>, OptimizeError> {
        if !Self::is_in(folder) {
            return Ok(None);
        }
        let path = folder.join(STATE);
        let text = fs::read_to_string(&path).map_err(OptimizeError::io(&path))?;
        let damaged = |problem: String| OptimizeError::State { path: path.clone(), problem };
        let stored: Stored =
            serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if stored.fingerprint != fingerprint {
            let problem = "it is of another model, recipe or calibration".to_owned();
            return Err(damaged(problem));
        }
        let path = folder.join(stream_name(stored.next_block));
        let failed = OptimizeError::io(&path);
        let mut file = BufReader::new(File::open(&path).map_err(&failed)?);
        let mut stream = Vec::with_capacity(stored.lengths.len());
        for length in stored.lengths {
            let mut bytes = Vec::new();
            let wanted = length.saturating_mul(4) as u64;
            file.by_ref().take(wanted).read_to_end(&mut bytes).map_err(&failed)?;
            if bytes.len() as u64 != wanted {
                return Err(damaged("the stream beside it is cut short".to_owned()));
            }
            let (numbers, _) = bytes.as_chunks::<4>();
            stream.push(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect());
        }
        Ok(Some(Self {
            next_block: stored.next_block,
            sites: stored.sites,
            kv: stored.kv,
            seconds_before: stored.seconds,
            stream,
            shards: stored.shards,
        }))
    }

    /// Removes what a finished model does not need.
    pub(crate) fn remove(folder: &Path) -> Result<(), OptimizeError> {
        for entry in fs::read_dir(folder).map_err(OptimizeError::io(folder))?.flatten() {
            if Self::owns(&entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path()).map_err(OptimizeError::io(&entry.path()))?;
            }
        }
        Ok(())
    }
}
