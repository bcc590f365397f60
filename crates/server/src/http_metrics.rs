//! What is counted about requests, whatever they ask.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counters since the start.
#[derive(Default)]
pub(crate) struct HttpMetrics {
    in_flight: AtomicUsize,
    vanished: AtomicU64,
    /// Requests that ended, by route and status.
    requests: Mutex<BTreeMap<(String, u16), u64>>,
}

impl HttpMetrics {
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self, route: &str, status: u16, vanished: bool) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.vanished.fetch_add(u64::from(vanished), Ordering::Relaxed);
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route.to_owned(), status)).or_default() += 1;
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests whose client went away before the end.
    pub(crate) fn vanished(&self) -> u64 {
        self.vanished.load(Ordering::Relaxed)
    }

    pub(crate) fn requests(&self) -> BTreeMap<(String, u16), u64> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
