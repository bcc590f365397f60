//! Room on the disk, asked for before work starts: what a run will write, and what is free.

use std::fs;
use std::path::Path;

use bantam_checkpoint::ShardWriter;

use crate::OptimizeError;
use crate::output::partial_folder;
use crate::pipeline::Job;

/// Tensors that a shard's header has room for at least: each may become a few.
const TENSORS_OF_A_HEADER: u64 = 100;
/// Configuration, reports, and the tokenizer where it is made of a GGUF file's metadata.
const OTHER_FILES: u64 = 16 << 20;

impl Job<'_> {
    /// Bytes of disk that the run takes at most: the folder, and beside it what a resume goes on
    /// from, which holds the residual stream of so many calibration tokens.
    #[must_use]
    pub fn disk_bytes(&self, calibration_tokens: usize) -> u64 {
        let layers = self.layers();
        let quantized = |name: &str| {
            let module = name.strip_suffix(".weight")?;
            layers.iter().find(|layer| layer.module == module)
        };
        let tensors = self.checkpoint.tensors().map(|tensor| match quantized(tensor.name) {
            Some(layer) => self.dialect.layer_bytes(layer.scheme, tensor.shape[0], tensor.shape[1]),
            None => ShardWriter::copied_bytes(&tensor),
        });
        let tensors: u64 = tensors.sum();
        // A shard is closed when the next tensor would be too much, so two of them hold what one may,
        // or when its header is full.
        let by_size = 2 * tensors / self.max_shard_bytes.max(1);
        let count = self.checkpoint.tensors().count() as u64;
        let shards = by_size.min(count) + count / TENSORS_OF_A_HEADER + 1;
        // While a state is saved, the one before is still there.
        let stream = (4 * self.arch.sizes.hidden as u64).saturating_mul(calibration_tokens as u64);
        let state = if self.plan.needs_calibration() { stream.saturating_mul(2) } else { 0 };
        let companions = companion_bytes(self.checkpoint.path());
        let files = shards * ShardWriter::SHARD_OVERHEAD + companions + OTHER_FILES;
        (tensors + files).saturating_add(state)
    }

    /// Refuses a run that the disk has no room for. What an earlier run has written counts as done.
    pub(crate) fn check_disk(&self, calibration_tokens: usize) -> Result<(), OptimizeError> {
        let written = folder_bytes(&partial_folder(self.folder));
        let needed = self.disk_bytes(calibration_tokens).saturating_sub(written);
        check_room(self.folder, needed, free_bytes(self.folder))
    }
}

/// Refuses if fewer bytes are free than needed; a system that does not say is trusted.
fn check_room(folder: &Path, needed: u64, free: Option<u64>) -> Result<(), OptimizeError> {
    match free {
        Some(free) if free < needed => {
            Err(OptimizeError::DiskFull { folder: folder.to_path_buf(), needed, free })
        }
        _ => Ok(()),
    }
}

/// Bytes that this user may still write where the folder will be.
#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    let absolute = std::path::absolute(folder).ok()?;
    let existing = absolute.ancestors().find(|path| path.exists())?;
    let disk = rustix::fs::statvfs(existing).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Unknown.
#[cfg(not(unix))]
fn free_bytes(_folder: &Path) -> Option<u64> {
    None
}

/// Bytes of the files in a folder, those of folders inside it not counted.
fn folder_bytes(folder: &Path) -> u64 {
    files(folder).map(|(_, bytes)| bytes).sum()
}

/// Bytes of the files that come along with the weights.
fn companion_bytes(model: &Path) -> u64 {
    let weights = |name: &str| bantam_checkpoint::write::holds_weights(name);
    files(model).filter(|(name, _)| !weights(name)).map(|(_, bytes)| bytes).sum()
}

/// The names and sizes of the files in a folder; none if it is no folder.
fn files(folder: &Path) -> impl Iterator<Item = (String, u64)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let information = fs::metadata(entry.path()).ok()?;
        let name = entry.file_name().to_string_lossy().into_owned();
        information.is_file().then_some((name, information.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_is_refused_with_both_figures_and_the_folder() {
        let folder = Path::new("/disk/out");
        let error = check_room(folder, 300 << 20, Some(100 << 20)).unwrap_err().to_string();
        for part in ["/disk/out", "300 MiB", "100 MiB", "--output"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(check_room(folder, 300 << 20, Some(300 << 20)).is_ok());
        assert!(check_room(folder, u64::MAX, None).is_ok());
    }

    #[test]
    #[cfg(unix)]
    fn a_folder_that_is_not_there_yet_lies_on_the_disk_of_the_one_above() {
        let here = std::env::temp_dir();
        let free = free_bytes(&here.join("no/such/folder")).unwrap();
        assert!(free > 0);
        // Others write to it meanwhile.
        let total = rustix::fs::statvfs(&here).unwrap();
        assert!(free <= total.f_blocks * total.f_frsize);
        assert!(free_bytes(Path::new("not-there")).is_some(), "a name without a folder");
    }
}
