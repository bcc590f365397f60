//! Gives memory back to the system after requests that took much of it.
//!
//! The allocator of glibc keeps what is freed for later, in as many arenas as threads have asked for
//! memory: one large request on each of them would stay in memory for ever.

#![allow(unsafe_code)] // one call of the C library

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that are freed before the allocator is asked to give them back, which takes milliseconds.
const WORTH_IT: usize = 16 << 20;

/// Counts what large requests have freed.
#[derive(Debug, Default)]
pub(crate) struct Freed(AtomicUsize);

impl Freed {
    /// So many bytes, more or less, were freed; gives them back once they are worth it.
    pub(crate) fn add(&self, bytes: usize) {
        if self.0.fetch_add(bytes, Ordering::Relaxed) + bytes >= WORTH_IT {
            self.0.store(0, Ordering::Relaxed);
            give_back();
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back() {
    // SAFETY: the function has no preconditions; it takes the allocator's own locks.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators give back by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}
