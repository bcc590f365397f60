//! A short name for some bytes.

use std::fmt;

/// A hash of a list of byte strings (FNV-1a, 64 bits), to notice that something is not what it was.
/// It does not protect against anybody who wants it to collide.
///
/// ```
/// use bantam_eval::Fingerprint;
/// let of = |parts: &[&str]| {
///     let mut fingerprint = Fingerprint::default();
///     parts.iter().for_each(|part| fingerprint.add(part.as_bytes()));
///     fingerprint.to_string()
/// };
/// assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
/// assert_ne!(of(&["a", "b"]), of(&["ab"])); // where a part ends counts
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Default for Fingerprint {
    /// That of nothing.
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    /// Adds one byte string.
    pub fn add(&mut self, bytes: &[u8]) {
        let length = (bytes.len() as u64).to_le_bytes();
        for &byte in bytes.iter().chain(&length) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The hash with its bits spread evenly, for a random order (the finalizer of SplitMix64).
    pub(crate) fn mixed(self) -> u64 {
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
