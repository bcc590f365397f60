//! Work that comes before the engine: reading, rendering and tokenizing what a request holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bantam_text::Cancel;
use tokio::sync::Semaphore;

use crate::error::{ApiError, ErrorKind};

/// Runs such work off the threads that serve connections, on as many threads as there are
/// processors.
pub(crate) struct Preparations {
    places: Arc<Semaphore>,
}

impl Default for Preparations {
    fn default() -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Self { places: Arc::new(Semaphore::new(threads)) }
    }
}

impl Preparations {
    /// Runs `work`; when the future is dropped, because the client has left, the work is told.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cancel) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let presence = Presence::default();
        let cancel = presence.cancel();
        let places = Arc::clone(&self.places);
        let place = places.acquire_owned().await.expect("the semaphore is never closed");
        let prepared = tokio::task::spawn_blocking(move || {
            let _place = place;
            work(&cancel)
        });
        prepared.await.unwrap_or_else(|_| {
            let message = "the request could not be prepared: a fault in the server";
            Err(ApiError::new(ErrorKind::Internal, message))
        })
    }
}

/// Somebody waits for the work, until this is dropped.
#[derive(Default)]
struct Presence {
    over: Arc<AtomicBool>,
}

impl Presence {
    fn cancel(&self) -> Cancel {
        let over = Arc::clone(&self.over);
        Cancel::when(move || over.load(Ordering::Relaxed))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn work_learns_that_its_client_has_left() {
        let (ended, end) = mpsc::channel();
        let preparations = Preparations::default();
        let work = preparations.run(move |cancel| {
            let begun = Instant::now();
            while !cancel.is_cancelled() && begun.elapsed() < Duration::from_secs(20) {
                thread::sleep(Duration::from_millis(1));
            }
            let _ = ended.send(cancel.is_cancelled());
            Ok(())
        });
        assert!(timeout(Duration::from_millis(20), work).await.is_err(), "it ended by itself");
        assert!(end.recv().unwrap(), "it was never told");
    }
}
