//! Bytes on cache-line boundaries.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;

use crate::tensor::Shared;

/// The smallest page that a system hands out; touching larger ones more than once is harmless.
const PAGE: usize = 4096;

/// Bytes of a cache line.
const LINE: usize = 64;

/// What the system's allocator aligns to by itself. Beyond that, Rust's fills zeroed memory byte by
/// byte, so the alignment to lines is made here.
const OWN_ALIGNMENT: usize = 16;

/// A fixed run of bytes that starts on a cache line.
#[derive(Debug)]
pub(crate) struct AlignedBytes {
    /// What was allocated: the first line boundary in it is where the bytes start.
    allocated: NonNull<u8>,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the bytes are owned, like a `Vec<u8>`'s.
unsafe impl Send for AlignedBytes {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    /// `len` bytes of one value.
    pub(crate) fn filled(len: usize, value: u8) -> Self {
        let zeroed = Self::zeroed(len);
        let mut bytes = zeroed.unwrap_or_else(|| handle_alloc_error(Self::layout(len)));
        if value != 0 {
            bytes.bytes_mut().fill(value);
        }
        bytes
    }

    /// `len` zeros, as they come from the system, untouched until used; none if it has none.
    pub(crate) fn zeroed(len: usize) -> Option<Self> {
        if len == 0 {
            return Some(Self::default());
        }
        // SAFETY: the layout is not empty.
        let allocated = NonNull::new(unsafe { alloc_zeroed(Self::layout(len)) })?;
        // SAFETY: less than a line is skipped, and the layout has a line more than the bytes.
        let start = unsafe { allocated.add(allocated.align_offset(LINE)) };
        Some(Self { allocated, start, len })
    }

    /// What touches parts of the bytes, from several threads if they touch different ones: the system
    /// then has to give their pages, and the bytes stay as they are.
    pub(crate) fn toucher(&mut self) -> Toucher<'_> {
        Toucher { start: Shared(self.as_mut_ptr()), len: self.len, bytes: PhantomData }
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len + LINE, OWN_ALIGNMENT)
            .expect("sizes were planned, far below the address space")
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes are allocated and initialised.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), self.len) }
    }
}

/// See [`AlignedBytes::toucher`].
pub(crate) struct Toucher<'a> {
    start: Shared<u8>,
    len: usize,
    bytes: PhantomData<&'a mut AlignedBytes>,
}

impl Toucher<'_> {
    /// Touches every page of a part.
    ///
    /// # Safety
    /// No other thread touches the same part meanwhile.
    pub(crate) unsafe fn touch(&self, part: Range<usize>) {
        let part = part.start..part.end.min(self.len);
        // The last byte may be on a page that no step meets.
        for at in part.clone().step_by(PAGE).chain(part.last()) {
            // SAFETY: inside the bytes, which are borrowed exclusively. Volatile, or zeros that are
            // written over zeros would be optimized away.
            unsafe {
                let byte = self.start.get().add(at);
                byte.write_volatile(byte.read_volatile());
            }
        }
    }
}

impl Default for AlignedBytes {
    fn default() -> Self {
        Self { allocated: NonNull::dangling(), start: NonNull::dangling(), len: 0 }
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated in `filled` with this layout.
            unsafe { dealloc(self.allocated.as_ptr(), Self::layout(self.len)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_on_a_cache_line_and_keeps_its_length() {
        for len in [0, 1, 63, 64, 65, 1000] {
            let mut bytes = AlignedBytes::filled(len, 7);
            assert!(len == 0 || (bytes.as_ptr() as usize).is_multiple_of(LINE));
            assert_eq!(bytes.bytes(), vec![7; len]);
            bytes.bytes_mut().fill(9);
            assert!(bytes.bytes().iter().all(|&byte| byte == 9));
            assert_eq!(AlignedBytes::filled(len, 0).bytes(), vec![0; len]);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn zeros_take_no_memory_until_they_are_touched() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/statm").unwrap();
            status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() // pages
        };
        let before = resident();
        let mut bytes = AlignedBytes::filled(1 << 30, 0);
        assert!(resident() < before + (1 << 14), "a quarter of a GiB at most");
        bytes.bytes_mut()[1 << 29] = 7;
        // SAFETY: one thread.
        unsafe { bytes.toucher().touch(1 << 29..1 << 30) };
        assert!(resident() > before + (1 << 16), "half a GiB is used now");
        assert!((bytes.bytes()[1 << 29], bytes.bytes()[(1 << 30) - 1]) == (7, 0));
    }

    #[test]
    fn too_much_is_none() {
        assert!(AlignedBytes::zeroed(isize::MAX as usize - PAGE).is_none());
    }
}
