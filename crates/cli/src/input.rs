//! Reading texts that someone else wrote.

use std::io::Read;

use anyhow::{anyhow, bail};

/// Bytes of the longest text that is read: far more than any model's context, and little memory.
const MAX_TEXT_BYTES: u64 = 64 << 20;

/// Reads a text to its end; `what` names it in errors. Sources without an end are refused.
pub(crate) fn read_text(source: impl Read, what: &str) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    if let Err(error) = source.take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes) {
        bail!("{what}: {error}");
    }
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        bail!("{what}: longer than {} MiB; cut it", MAX_TEXT_BYTES >> 20);
    }
    bantam_text::decode_text(bytes).map_err(|error| anyhow!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_sources_end() {
        let error = read_text(std::io::repeat(b'a'), "zeros").unwrap_err().to_string();
        assert!(error.starts_with("zeros: longer than 64 MiB"), "{error}");
    }
}
