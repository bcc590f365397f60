//! Files mapped into memory: the only unsafe code of this crate.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::CheckpointError;

/// How the text begins that a clone without Git LFS has in place of a large file.
const LARGE_FILE_POINTER: &[u8] = b"version https://git-lfs";

/// A file and its bytes, mapped read-only.
#[derive(Debug)]
pub(crate) struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps a whole regular file. Pipes and devices are refused, since opening one could hang.
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let io_error = |source| CheckpointError::Io { path: path.to_path_buf(), source };
        let information = std::fs::metadata(path).map_err(io_error)?;
        if !information.is_file() {
            let problem = "not a regular file".to_owned();
            return Err(CheckpointError::Header { file: path.to_path_buf(), problem });
        }
        if information.len() == 0 {
            let problem = "the file is empty; fetch it again".to_owned();
            return Err(CheckpointError::Header { file: path.to_path_buf(), problem });
        }
        let file = File::open(path).map_err(io_error)?;
        // SAFETY: the mapping is read-only and lives as long as `map`, which owns it; slices borrow
        // from it. The bytes must not change while mapped: model files are written once, and
        // Bantam itself replaces files by renaming a finished one, which leaves mapped bytes alone.
        // A user who truncates a model file in place while it is in use gets a bus error, as with
        // every program that maps files.
        let map = unsafe { Mmap::map(&file) }.map_err(io_error)?;
        if map.starts_with(LARGE_FILE_POINTER) {
            let problem = "a Git LFS pointer in place of the file itself; \
                           run `git lfs pull` in its folder, or fetch it again"
                .to_owned();
            return Err(CheckpointError::Header { file: path.to_path_buf(), problem });
        }
        Ok(Self { path: path.to_path_buf(), map })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_file_outlives_its_name() {
        let path = std::env::temp_dir().join(format!("bantam-mmap-{}", std::process::id()));
        std::fs::write(&path, b"weights").expect("temporary folder is writable");
        let file = MappedFile::open(&path).expect("the file was just written");
        std::fs::remove_file(&path).expect("the file was just written");
        assert_eq!(file.bytes(), b"weights");
        assert_eq!(file.path(), path);
    }

    #[test]
    fn folders_and_empty_files_are_refused() {
        let folder = std::env::temp_dir();
        let error = MappedFile::open(&folder).expect_err("a folder").to_string();
        assert!(error.contains("not a regular file"), "{error}");
        let path = folder.join(format!("bantam-mmap-empty-{}", std::process::id()));
        std::fs::write(&path, b"").expect("temporary folder is writable");
        let error = MappedFile::open(&path).expect_err("an empty file").to_string();
        std::fs::remove_file(&path).expect("the file was just written");
        assert!(error.contains("empty"), "{error}");
    }
}
