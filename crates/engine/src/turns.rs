//! Several engines on one device: they take turns, step by step.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bantam_backend::Batch;
use bantam_model::ModelError;

use crate::{Executor, Limits};

/// The right to use a device. Clones are for the same device.
///
/// Models side by side would otherwise fight for the same processors in the middle of every parallel
/// loop. Turns are given in order of asking, so that no engine waits for more than one step of each
/// other.
///
/// ```
/// use bantam_engine::Turns;
/// let turns = Turns::default();
/// let turn = turns.take();
/// drop(turn); // the next one's
/// turns.take();
/// ```
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    numbers: Mutex<Numbers>,
    changed: Condvar,
}

/// As at a counter: whoever comes draws a number, and waits until it is called.
#[derive(Debug, Default)]
struct Numbers {
    next: u64,
    called: u64,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Numbers> {
        // Nothing that can panic runs under the lock.
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A turn; it ends when dropped.
#[derive(Debug)]
pub struct Turn<'a>(&'a Queue);

impl Turns {
    /// Waits for a turn.
    #[must_use]
    pub fn take(&self) -> Turn<'_> {
        let mut numbers = self.0.lock();
        let own = numbers.next;
        numbers.next += 1;
        while numbers.called != own {
            numbers = self.0.changed.wait(numbers).unwrap_or_else(PoisonError::into_inner);
        }
        Turn(&self.0)
    }

    /// An executor whose steps each take a turn.
    pub fn share<E: Executor>(&self, executor: E) -> impl Executor + use<E> {
        TakesTurns { executor, turns: self.clone() }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().called += 1;
        self.0.changed.notify_all();
    }
}

struct TakesTurns<E> {
    executor: E,
    turns: Turns,
}

impl<E: Executor> Executor for TakesTurns<E> {
    fn limits(&self) -> Limits {
        self.executor.limits()
    }

    fn forward(&mut self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
        // Given back also when the step panics.
        let _turn = self.turns.take();
        self.executor.forward(batch)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn turns_do_not_overlap_and_come_in_order_of_asking() {
        let turns = Turns::default();
        let (inside, order) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let first = turns.take();
        thread::scope(|scope| {
            for n in 0..4 {
                let (turns, inside, order) = (&turns, &inside, &order);
                scope.spawn(move || {
                    let _turn = turns.take();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    order.lock().unwrap().push(n);
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
                // Until it has drawn its number.
                while turns.0.lock().next < n + 2 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            drop(first);
        });
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_step_that_panics_gives_its_turn_back() {
        let turns = Turns::default();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _turn = turns.take();
            panic!("in a step");
        }));
        assert!(panicked.is_err());
        drop(turns.take());
    }
}
