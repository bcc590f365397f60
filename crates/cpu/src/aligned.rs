//! Bytes on cache-line boundaries.

/// A fixed run of bytes that starts on a 64-byte boundary.
#[derive(Debug, Default)]
pub(crate) struct AlignedBytes {
    lines: Vec<Line>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl AlignedBytes {
    /// `len` bytes of one value.
    pub(crate) fn filled(len: usize, value: u8) -> Self {
        Self { lines: vec![Line([value; 64]); len.div_ceil(64)], len }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.lines.as_ptr().cast()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.lines.as_mut_ptr().cast()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the lines hold at least `len` initialised bytes.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_on_a_cache_line_and_keeps_its_length() {
        for len in [0, 1, 63, 64, 65, 1000] {
            let mut bytes = AlignedBytes::filled(len, 7);
            assert_eq!(bytes.as_ptr() as usize % 64, 0);
            assert_eq!(bytes.bytes(), vec![7; len]);
            bytes.bytes_mut().fill(9);
            assert!(bytes.bytes().iter().all(|&byte| byte == 9));
        }
    }
}
