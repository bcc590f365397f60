//! Work that comes before the engine: reading, rendering and tokenizing what a request holds.
//!
//! Most of it takes a millisecond. What takes longer (a prompt of a megabyte, a large grammar) must not
//! hold up what does not: after [`QUICK`] it steps aside, and goes on when there is a place for long
//! work. It does so where it asks its [`Cancel`] whether to go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bantam_text::Cancel;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::error::{ApiError, ErrorKind};

/// Time after which work is long.
const QUICK: Duration = Duration::from_millis(10);

/// Long work that may wait to go on: each has a thread.
const MAX_ASIDE: usize = 64;

/// Runs such work off the threads that serve connections.
pub(crate) struct Preparations {
    /// As many at once as there are processors.
    quick: Arc<Semaphore>,
    /// Half as many beside them.
    long: Arc<Semaphore>,
    aside: Arc<Semaphore>,
}

impl Default for Preparations {
    fn default() -> Self {
        Self::new(thread::available_parallelism().map_or(1, usize::from))
    }
}

impl Preparations {
    fn new(processors: usize) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self {
            quick: places(processors),
            long: places((processors / 2).max(1)),
            aside: places(MAX_ASIDE),
        }
    }

    /// Runs `work`; when the future is dropped, because the client has left, the work is told.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cancel) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let quick = Arc::clone(&self.quick);
        let place = quick.acquire_owned().await.expect("the semaphore is never closed");
        // Dropped with this future.
        let (_presence, client) = watch::channel(());
        let turn = Arc::new(Turn {
            client,
            place: Mutex::new(Some(place)),
            begun: Instant::now(),
            is_long: AtomicBool::new(false),
            is_crowded: AtomicBool::new(false),
            long: Arc::clone(&self.long),
            aside: Arc::clone(&self.aside),
            runtime: Handle::current(),
        });
        let asked = Arc::clone(&turn);
        let cancel = Cancel::when(move || asked.is_over());
        let working = Arc::clone(&turn);
        let prepared = tokio::task::spawn_blocking(move || {
            // However the work ends.
            let _turn = EndOfTurn(&working);
            work(&cancel)
        });
        let prepared = prepared.await.unwrap_or_else(|_| {
            let message = "the request could not be prepared: a fault in the server";
            Err(ApiError::new(ErrorKind::Internal, message))
        });
        if prepared.is_err() && turn.is_crowded.load(Ordering::Relaxed) {
            let message = format!(
                "this request takes long to prepare, and {MAX_ASIDE} such requests wait already; \
                 retry in 1 s"
            );
            return Err(ApiError::new(ErrorKind::Overloaded, message)
                .code("too_many_requests")
                .retry_after(Duration::from_secs(1)));
        }
        prepared
    }
}

/// The turn of one piece of work.
struct Turn {
    /// Closed once nobody waits for the work.
    client: watch::Receiver<()>,
    place: Mutex<Option<OwnedSemaphorePermit>>,
    begun: Instant,
    is_long: AtomicBool,
    /// It was ended because too much long work waits.
    is_crowded: AtomicBool,
    long: Arc<Semaphore>,
    aside: Arc<Semaphore>,
    runtime: Handle,
}

impl Turn {
    /// Whether the work is to end. Lets other work go first if it has taken long.
    fn is_over(&self) -> bool {
        let has_left = || self.client.has_changed().is_err();
        if !has_left() && self.begun.elapsed() > QUICK {
            self.step_aside();
        }
        has_left() || self.is_crowded.load(Ordering::Relaxed)
    }

    fn step_aside(&self) {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_long.swap(true, Ordering::Relaxed) {
            return;
        }
        let Ok(_aside) = self.aside.try_acquire() else {
            return self.is_crowded.store(true, Ordering::Relaxed);
        };
        // The next may begin.
        *place = None;
        let mut client = self.client.clone();
        *place = self.runtime.block_on(async {
            tokio::select! {
                place = Arc::clone(&self.long).acquire_owned() => place.ok(),
                _ = client.changed() => None,
            }
        });
    }
}

/// Gives the place of a turn back: a copy of its [`Cancel`] may live on.
struct EndOfTurn<'a>(&'a Turn);

impl Drop for EndOfTurn<'_> {
    fn drop(&mut self) {
        *self.0.place.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// Work that goes on until it is told to end.
    fn endless(cancel: &Cancel) -> Result<(), ApiError> {
        let begun = Instant::now();
        while begun.elapsed() < LONG {
            cancel.check()?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    #[tokio::test]
    async fn work_learns_that_its_client_has_left() {
        let (ended, end) = mpsc::channel();
        let preparations = Preparations::default();
        let work = preparations.run(move |cancel| {
            let _ = ended.send(endless(cancel).is_err());
            Ok(())
        });
        assert!(timeout(Duration::from_millis(20), work).await.is_err(), "it ended by itself");
        assert!(end.recv().unwrap(), "it was never told");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn long_work_holds_no_place_of_short_work() {
        let preparations = Arc::new(Preparations::new(1));
        let work = || {
            let preparations = Arc::clone(&preparations);
            tokio::spawn(async move { preparations.run(endless).await })
        };
        let long: Vec<_> = (0..MAX_ASIDE + 1).map(|_| work()).collect();
        let quick = timeout(LONG / 4, preparations.run(|_| Ok(7))).await;
        assert_eq!(quick.unwrap().unwrap(), 7);
        // One runs and the others wait; one more is too many, and is told so.
        while preparations.aside.available_permits() > 0
            || preparations.long.available_permits() > 0
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let refused = timeout(LONG / 4, work()).await.unwrap().unwrap().unwrap_err();
        assert_eq!((refused.kind, refused.retry_after.is_some()), (ErrorKind::Overloaded, true));
        // When all have left, every place is free again.
        long.iter().for_each(tokio::task::JoinHandle::abort);
        let begun = Instant::now();
        while preparations.aside.available_permits() < MAX_ASIDE
            || preparations.long.available_permits() < 1
            || preparations.quick.available_permits() < 1
        {
            assert!(begun.elapsed() < LONG);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_fault_gives_its_place_back() {
        let preparations = Preparations::new(1);
        let failed = preparations.run(|_| -> Result<(), ApiError> { panic!("injected") }).await;
        assert_eq!(failed.unwrap_err().kind, ErrorKind::Internal);
        assert_eq!(timeout(LONG, preparations.run(|_| Ok(7))).await.unwrap().unwrap(), 7);
    }
}
