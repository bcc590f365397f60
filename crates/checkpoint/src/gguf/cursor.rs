//! A reader that cannot run past the end of its file.

use crate::CheckpointError;
use crate::model_file::ModelFile;

/// Bytes that are read ahead: headers are mostly short items, one after another.
const AHEAD: usize = 1 << 20;

/// A position in the header of a file. Every read names what it reads, for the message when the
/// file ends first.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    file: &'a ModelFile,
    /// What was read ahead, and where in the file it begins.
    ahead: Vec<u8>,
    ahead_start: usize,
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(file: &'a ModelFile) -> Self {
        Self { file, ahead: Vec::new(), ahead_start: 0, position: 0 }
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: u64, what: &str) -> Result<&[u8], CheckpointError> {
        self.require(u128::from(count), what)?;
        let (start, end) = (self.position, self.position + count as usize);
        if end > self.ahead_start + self.ahead.len() {
            let ahead_end = self.file.length().min(start.saturating_add(AHEAD)).max(end);
            self.ahead = self.file.read(start..ahead_end)?;
            self.ahead_start = start;
        }
        self.position = end;
        Ok(&self.ahead[start - self.ahead_start..end - self.ahead_start])
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
    pub(crate) fn text(&mut self, what: &str) -> Result<String, CheckpointError> {
        let length = self.u64(what)?;
        let start = self.position;
        String::from_utf8(self.take(length, what)?.to_vec())
            .map_err(|_| self.error(format!("{what} at byte {start} is not UTF-8")))
    }

    /// A header error of this file.
    pub(crate) fn error(&self, problem: String) -> CheckpointError {
        CheckpointError::Header { file: self.file.path().to_path_buf(), problem }
    }

    fn require(&self, count: u128, what: &str) -> Result<(), CheckpointError> {
        let needed = self.position as u128 + count;
        if needed <= self.file.length() as u128 {
            return Ok(());
        }
        Err(CheckpointError::Truncated {
            file: self.file.path().to_path_buf(),
            what: what.to_owned(),
            needed,
            got: self.file.length() as u64,
        })
    }
}
