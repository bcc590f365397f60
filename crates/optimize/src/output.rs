//! The folder that a run writes: one process at a time works in it, and it appears when it is whole.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::OptimizeError;
use crate::state::State;

/// Held locked by the process that works in the folder, and holds its number. The operating system
/// gives the lock up when the process ends, however it ends.
const LOCK: &str = "quantize.lock";
/// More than the number of a process takes.
const LOCK_BYTES: u64 = 64;

/// The folder that a run works in until it is finished.
#[must_use]
pub fn partial_folder(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    folder.with_file_name(name)
}

/// The right to write an output folder, which no other process has meanwhile.
///
/// Work goes on in the [`partial_folder`]. If a run ends before it has left something that a resume
/// can go on from, the partial folder goes too.
#[derive(Debug)]
pub struct OutputFolder {
    folder: PathBuf,
    partial: PathBuf,
    /// Locked while this lives.
    lock: File,
    published: bool,
}

impl OutputFolder {
    /// Refuses a folder that [`claim`](Self::claim) would refuse, and leaves everything as it is.
    ///
    /// # Errors
    /// As `claim`.
    pub fn check(folder: &Path, resume: bool) -> Result<(), OptimizeError> {
        check_free(folder)?;
        let partial = partial_folder(folder);
        if !exists(&partial) {
            return Ok(());
        }
        match File::open(partial.join(LOCK)) {
            Ok(lock) => take_lock(&lock, &partial)?,
            Err(_) => return Err(OptimizeError::NotARun { folder: partial }),
        }
        if resume { Ok(()) } else { Err(OptimizeError::Unfinished { folder: partial }) }
    }

    /// Takes the folder for this process. With `resume` what an ended run left is taken over.
    ///
    /// # Errors
    /// If the folder exists, another process works on it, an earlier run was not finished and is not
    /// to be gone on from, or nothing can be written there.
    pub fn claim(folder: &Path, resume: bool) -> Result<Self, OptimizeError> {
        check_free(folder)?;
        let partial = partial_folder(folder);
        if let Some(parent) = partial.parent() {
            fs::create_dir_all(parent).map_err(OptimizeError::io(parent))?;
        }
        let fresh = match fs::create_dir(&partial) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(OptimizeError::io(&partial)(error)),
        };
        let path = partial.join(LOCK);
        if !fresh && !exists(&path) {
            return Err(OptimizeError::NotARun { folder: partial });
        }
        let mut options = File::options();
        let lock = options.read(true).write(true).create(true).truncate(false).open(&path);
        let mut lock = lock.map_err(OptimizeError::io(&path))?;
        take_lock(&lock, &partial)?;
        // The run that held it may have finished between the open and the lock.
        check_free(folder)?;
        if !exists(&path) {
            return Err(OptimizeError::Busy { folder: partial, process: None });
        }
        if !fresh && !resume {
            return Err(OptimizeError::Unfinished { folder: partial });
        }
        let failed = OptimizeError::io(&path);
        lock.set_len(0).map_err(&failed)?;
        write!(lock, "{}", std::process::id()).map_err(&failed)?;
        Ok(Self { folder: folder.to_path_buf(), partial, lock, published: false })
    }

    /// Where the run works.
    #[must_use]
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Removes what an earlier run has written, but for the names to keep. (Files copied from a model
    /// may be read-only: they could not be written again.)
    pub(crate) fn empty(&self, keep: impl Fn(&str) -> bool) -> Result<(), OptimizeError> {
        for entry in fs::read_dir(&self.partial).map_err(OptimizeError::io(&self.partial))? {
            let path = entry.map_err(OptimizeError::io(&self.partial))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name == LOCK || keep(&name) {
                continue;
            }
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(OptimizeError::io(&path))?;
        }
        Ok(())
    }

    /// Gives the finished folder its name.
    ///
    /// # Errors
    /// If the name has been taken meanwhile, or the file system refuses. The partial folder stays.
    pub fn publish(mut self) -> Result<(), OptimizeError> {
        check_free(&self.folder)?;
        State::remove(&self.partial)?;
        fs::rename(&self.partial, &self.folder).map_err(OptimizeError::io(&self.folder))?;
        self.published = true;
        let path = self.folder.join(LOCK);
        fs::remove_file(&path).map_err(OptimizeError::io(&path))
    }
}

impl Drop for OutputFolder {
    fn drop(&mut self) {
        if !self.published && !State::is_in(&self.partial) {
            // Nothing more can be done about a folder that does not go.
            let _ = fs::remove_dir_all(&self.partial);
        }
        let _ = self.lock.unlock();
    }
}

/// Whether there is something of this name, be it a link that leads nowhere.
fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Refuses a name that is taken, or is none.
fn check_free(folder: &Path) -> Result<(), OptimizeError> {
    if exists(folder) {
        return Err(OptimizeError::FolderExists { folder: folder.to_path_buf() });
    }
    if folder.file_name().is_none() {
        return Err(OptimizeError::Option {
            option: "--output",
            got: format!("{:?}", folder.display().to_string()),
            expected: "the name of a folder to make".to_owned(),
        });
    }
    Ok(())
}

/// Locks, or says who holds the lock.
fn take_lock(lock: &File, partial: &Path) -> Result<(), OptimizeError> {
    match lock.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // Its holder may be about to write its number.
            let _ = lock.take(LOCK_BYTES).read_to_string(&mut text);
            let process = text.trim().parse().ok();
            Err(OptimizeError::Busy { folder: partial.to_path_buf(), process })
        }
        Err(TryLockError::Error(error)) => Err(OptimizeError::io(&partial.join(LOCK))(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("bantam-out-{}-{name}", std::process::id()));
        for folder in [&folder, &partial_folder(&folder)] {
            let _ = fs::remove_dir_all(folder);
        }
        folder
    }

    #[test]
    fn a_folder_has_one_writer() {
        let folder = folder("one");
        let first = OutputFolder::claim(&folder, false).unwrap();
        for resume in [false, true] {
            for refused in [
                OutputFolder::check(&folder, resume),
                OutputFolder::claim(&folder, resume).map(drop),
            ] {
                let error = refused.unwrap_err().to_string();
                let process = format!("process {}", std::process::id());
                assert!(error.contains(&process) && error.contains("--output"), "{error}");
                assert!(!error.contains("remove"), "{error}");
            }
        }
        drop(first);
        assert!(!partial_folder(&folder).exists(), "nothing was worth keeping");
    }

    #[test]
    fn what_an_ended_run_left_is_taken_over_when_asked() {
        let folder = folder("left");
        let partial = partial_folder(&folder);
        fs::create_dir(&partial).unwrap();
        fs::write(partial.join(LOCK), "1").unwrap(); // of a process that ended
        fs::write(partial.join("model-00001.safetensors.part"), "x").unwrap();
        for refused in
            [OutputFolder::check(&folder, false), OutputFolder::claim(&folder, false).map(drop)]
        {
            assert!(refused.unwrap_err().to_string().contains("--resume"));
        }
        let output = OutputFolder::claim(&folder, true).unwrap();
        assert_eq!(fs::read_to_string(partial.join(LOCK)).unwrap(), std::process::id().to_string());
        output.empty(|_| false).unwrap();
        fs::write(partial.join("config.json"), "{}").unwrap();
        output.publish().unwrap();
        let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["config.json"]);
        let error = OutputFolder::claim(&folder, true).unwrap_err().to_string();
        assert!(error.contains("exists"), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_folder_of_something_else_is_left_alone() {
        let folder = folder("else");
        let partial = partial_folder(&folder);
        fs::create_dir(&partial).unwrap();
        fs::write(partial.join("thesis.tex"), "x").unwrap();
        for resume in [false, true] {
            let error = OutputFolder::claim(&folder, resume).unwrap_err().to_string();
            assert!(error.contains("holds no run"), "{error}");
        }
        assert!(partial.join("thesis.tex").exists());
        fs::remove_dir_all(&partial).unwrap();
    }

    #[test]
    #[cfg(unix)]
    fn a_link_that_leads_nowhere_is_taken_too() {
        let folder = folder("link");
        let _ = fs::remove_file(&folder);
        std::os::unix::fs::symlink("nowhere", &folder).unwrap();
        let error = OutputFolder::claim(&folder, false).unwrap_err().to_string();
        fs::remove_file(&folder).unwrap();
        assert!(error.contains("exists"), "{error}");
        assert!(!partial_folder(&folder).exists());
    }
}
