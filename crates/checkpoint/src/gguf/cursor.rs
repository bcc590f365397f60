//! A reader that cannot run past the end of its bytes.

use std::path::Path;

use crate::CheckpointError;

/// A position in the header of a file. Every read names what it reads, for the message when the
/// file ends first.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    file: &'a Path,
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(file: &'a Path, bytes: &'a [u8]) -> Self {
        Self { file, bytes, position: 0 }
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: u64, what: &str) -> Result<&'a [u8], CheckpointError> {
        self.require(u128::from(count), what)?;
        let start = self.position;
        self.position += count as usize;
        Ok(&self.bytes[start..self.position])
    }

    /// The next `SIZE` bytes as an array, for `from_le_bytes`.
    pub(crate) fn array<const SIZE: usize>(
        &mut self,
        what: &str,
    ) -> Result<[u8; SIZE], CheckpointError> {
        let mut array = [0; SIZE];
        array.copy_from_slice(self.take(SIZE as u64, what)?);
        Ok(array)
    }

    pub(crate) fn u32(&mut self, what: &str) -> Result<u32, CheckpointError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &str) -> Result<u64, CheckpointError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A u64 count of items that take at least `item_bytes` each. It is refused when the rest of
    /// the file cannot hold them, so that space for as many may be reserved.
    pub(crate) fn count(&mut self, item_bytes: u64, what: &str) -> Result<usize, CheckpointError> {
        let count = self.u64(what)?;
        self.require(u128::from(count) * u128::from(item_bytes), what)?;
        Ok(count as usize)
    }

    /// A string: u64 length and UTF-8 bytes.
    pub(crate) fn text(&mut self, what: &str) -> Result<&'a str, CheckpointError> {
        let length = self.u64(what)?;
        let start = self.position;
        std::str::from_utf8(self.take(length, what)?)
            .map_err(|_| self.error(format!("{what} at byte {start} is not UTF-8")))
    }

    /// A header error of this file.
    pub(crate) fn error(&self, problem: String) -> CheckpointError {
        CheckpointError::Header { file: self.file.to_path_buf(), problem }
    }

    fn require(&self, count: u128, what: &str) -> Result<(), CheckpointError> {
        let needed = self.position as u128 + count;
        if needed <= self.bytes.len() as u128 {
            return Ok(());
        }
        Err(CheckpointError::Truncated {
            file: self.file.to_path_buf(),
            what: what.to_owned(),
            needed,
            got: self.bytes.len() as u64,
        })
    }
}
