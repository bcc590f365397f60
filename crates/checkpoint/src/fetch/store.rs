//! Keeping fetched files: locks, temporary folders, checksums.

use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{FetchEvent, Progress, Reason};

/// Runs `work` while no other process fetches `name` into `folder`. The lock ends with the process
/// that holds it, however that ends.
pub(super) fn exclusively<T>(
    folder: &Path,
    name: &str,
    progress: Progress<'_>,
    work: impl FnOnce(Progress<'_>) -> Result<T, Reason>,
) -> Result<T, Reason> {
    fs::create_dir_all(folder).map_err(|error| reason(folder, error))?;
    let path = folder.join(format!("{name}.lock"));
    let lock = File::create(&path).map_err(|error| reason(&path, error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            progress(FetchEvent::Waiting { name: name.to_owned() });
            lock.lock().map_err(|error| reason(&path, error))?;
        }
        Err(TryLockError::Error(error)) => return Err(reason(&path, error)),
    }
    work(progress)
}

/// A folder of this process that is removed in the end.
pub(super) struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    pub(super) fn create(parent: &Path, name: &str) -> Result<Self, Reason> {
        let path = parent.join(format!(".{name}.{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|error| reason(&path, error))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // Nothing depends on it; what cannot be removed is left to the user.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether the file is there with this size.
pub(super) fn has_size(file: &Path, bytes: u64) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.len() == bytes)
}

/// Refuses to fetch what could not be given its name in the end.
pub(super) fn check_replaceable(file: &Path) -> Result<(), Reason> {
    if fs::symlink_metadata(file).is_ok_and(|found| found.is_dir()) {
        let path = file.display();
        return Err(format!("{path}: a folder where the file belongs; remove or rename it"));
    }
    Ok(())
}

/// Checks a file against its SHA-256 in lower-case hexadecimal.
pub(super) fn verify_sha256(path: &Path, expected: &str) -> Result<(), Reason> {
    let mut file = File::open(path).map_err(|error| reason(path, error))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(|error| reason(path, error))?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
    }
    let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found == expected {
        return Ok(());
    }
    Err(format!("{}: SHA-256 is {found}, expected {expected}", path.display()))
}

/// Gives a complete file or folder its final name.
pub(super) fn publish(from: &Path, to: &Path) -> Result<(), Reason> {
    fs::rename(from, to).map_err(|error| reason(to, error))
}

/// An error of the operating system with its file.
pub(super) fn reason(path: &Path, error: std::io::Error) -> Reason {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        let folder =
            TemporaryFolder::create(&std::env::temp_dir(), "bantam-sha").expect("writable");
        let file = folder.path().join("abc");
        fs::write(&file, "abc").expect("writable");
        // FIPS 180-4, example of one block.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(verify_sha256(&file, abc), Ok(()));
        fs::write(&file, "abd").expect("writable");
        assert!(verify_sha256(&file, abc).is_err());
    }

    #[test]
    fn a_second_holder_waits_for_the_first() {
        let folder =
            TemporaryFolder::create(&std::env::temp_dir(), "bantam-lock").expect("writable");
        let log = std::sync::Mutex::new(Vec::new());
        let (entered, first_is_in) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let (folder, log) = (folder.path(), &log);
            scope.spawn(move || {
                exclusively(folder, "model", &mut |_| (), |_| {
                    entered.send(()).expect("the test waits");
                    released.recv().expect("the second process waits");
                    log.lock().expect("no panic").push("first");
                    Ok(())
                })
            });
            first_is_in.recv().expect("the first thread starts");
            let mut release_when_waiting = |event| {
                assert!(matches!(event, FetchEvent::Waiting { .. }));
                release.send(()).expect("the first thread waits");
            };
            exclusively(folder, "model", &mut release_when_waiting, |_| {
                log.lock().expect("no panic").push("second");
                Ok(())
            })
            .expect("the lock comes free");
        });
        assert_eq!(*log.lock().expect("no panic"), ["first", "second"]);
    }
}
