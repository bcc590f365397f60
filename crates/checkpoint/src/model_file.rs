//! The files that hold weights, read at offsets.
//!
//! They are read and not mapped: a file that someone cuts short or writes over while it is in use must
//! be an error that names it. A mapping would end the process with a bus error, or hand over the
//! numbers of two models as one.

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::CheckpointError;

/// How the text begins that a clone without Git LFS has in place of a large file.
const LARGE_FILE_POINTER: &[u8] = b"version https://git-lfs";

/// A file of a model, held open: it stays readable after its name is gone or given to another file.
#[derive(Debug)]
pub(crate) struct ModelFile {
    path: PathBuf,
    file: File,
    /// What the file was when it was opened, and must be still.
    state: FileState,
}

/// What changes when a file is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileState {
    length: u64,
    /// `None` on systems that do not say.
    modified: Option<SystemTime>,
}

impl FileState {
    fn of(information: &Metadata) -> Self {
        Self { length: information.len(), modified: information.modified().ok() }
    }
}

impl ModelFile {
    /// Opens a regular file. Pipes and devices are refused, since opening one could hang.
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let io_error = |source| CheckpointError::Io { path: path.to_path_buf(), source };
        let refused = |problem: &str| CheckpointError::Header {
            file: path.to_path_buf(),
            problem: problem.to_owned(),
        };
        if !std::fs::metadata(path).map_err(io_error)?.is_file() {
            return Err(refused("not a regular file"));
        }
        let file = File::open(path).map_err(io_error)?;
        let state = FileState::of(&file.metadata().map_err(io_error)?);
        let opened = Self { path: path.to_path_buf(), file, state };
        if opened.length() == 0 {
            return Err(refused("the file is empty; fetch it again"));
        }
        let start = opened.read(0..LARGE_FILE_POINTER.len().min(opened.length()))?;
        if start == LARGE_FILE_POINTER {
            return Err(refused(
                "a Git LFS pointer in place of the file itself; \
                 run `git lfs pull` in its folder, or fetch it again",
            ));
        }
        Ok(opened)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file when it was opened.
    pub(crate) fn length(&self) -> usize {
        usize::try_from(self.state.length).unwrap_or(usize::MAX)
    }

    /// The bytes of a range that lies inside the file's length.
    pub(crate) fn read(&self, range: Range<usize>) -> Result<Vec<u8>, CheckpointError> {
        let mut bytes = vec![0; range.len()];
        self.read_into(range.start, &mut bytes)?;
        self.check_unchanged()?;
        Ok(bytes)
    }

    /// Fills `bytes` from `offset` on. After the last piece of what belongs together,
    /// [`check_unchanged`](Self::check_unchanged) tells whether all of it is of one file.
    pub(crate) fn read_into(&self, offset: usize, bytes: &mut [u8]) -> Result<(), CheckpointError> {
        read_exact_at(&self.file, bytes, offset as u64).map_err(|source| {
            match source.kind() {
                // A file that was cut short ends early.
                io::ErrorKind::UnexpectedEof => self.check_unchanged().err(),
                _ => None,
            }
            .unwrap_or_else(|| CheckpointError::Io { path: self.path.clone(), source })
        })
    }

    /// Refuses if someone wrote to the file since it was opened.
    pub(crate) fn check_unchanged(&self) -> Result<(), CheckpointError> {
        let io_error = |source| CheckpointError::Io { path: self.path.clone(), source };
        let now = FileState::of(&self.file.metadata().map_err(io_error)?);
        if now == self.state {
            return Ok(());
        }
        Err(CheckpointError::Changed {
            file: self.path.clone(),
            before: self.state.length,
            now: now.length,
        })
    }
}

/// Fills `bytes` from an offset without moving the file's own position, which threads share.
#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                bytes = &mut bytes[count..];
                offset += count as u64;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
impl ModelFile {
    /// A file of these bytes without a name.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("bantam-model-file-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).expect("the temporary folder is writable");
        let opened = Self::open(&path).expect("the file was just written");
        std::fs::remove_file(&path).expect("the file was just written");
        opened
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn temporary(name: &str, bytes: &[u8]) -> PathBuf {
        let path = std::env::temp_dir().join(format!("bantam-{name}-{}", std::process::id()));
        std::fs::write(&path, bytes).expect("temporary folder is writable");
        path
    }

    #[test]
    fn an_open_file_outlives_its_name() {
        let file = ModelFile::of_bytes(b"weights");
        assert!(!file.path().exists());
        assert_eq!(file.read(2..5).expect("inside the file"), b"igh");
    }

    #[test]
    fn folders_and_empty_files_are_refused() {
        let error = ModelFile::open(&std::env::temp_dir()).expect_err("a folder").to_string();
        assert!(error.contains("not a regular file"), "{error}");
        let path = temporary("empty-file", b"");
        let error = ModelFile::open(&path).expect_err("an empty file").to_string();
        std::fs::remove_file(&path).expect("the file was just written");
        assert!(error.contains("empty"), "{error}");
    }

    #[test]
    fn a_file_that_is_cut_or_written_over_is_an_error_and_one_that_is_replaced_is_not() {
        let path = temporary("changing-file", &[1; 100]);
        let open = || ModelFile::open(&path).expect("the file was just written");
        let changed = |file: &ModelFile| file.read(50..100).expect_err("changed").to_string();
        let file = open();
        File::options().write(true).open(&path).and_then(|f| f.set_len(60)).expect("writable");
        let error = changed(&file);
        assert!(error.contains("had 100 bytes when it was opened and has 60"), "{error}");

        // Of the same length: only the time tells. One long ago is surely another.
        let file = open();
        let mut writer = File::options().write(true).open(&path).expect("writable");
        writer.write_all(&[2; 60]).expect("writable");
        writer.set_modified(SystemTime::UNIX_EPOCH).expect("a time of our own file");
        let error = file.read(0..10).expect_err("changed").to_string();
        assert!(error.contains("written to while it was being read"), "{error}");

        let file = open();
        let other = temporary("changing-file-next", &[3; 10]);
        std::fs::rename(&other, &path).expect("in one folder");
        assert_eq!(file.read(0..3).expect("the old file"), [2; 3]);
        std::fs::remove_file(&path).expect("the file was just written");
    }
}
