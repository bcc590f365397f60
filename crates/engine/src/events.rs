//! What the engine tells about a request, and the channel that carries it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::{ConstraintError, FinishReason, SamplingError, TokenLogprobs};

/// What happened to a request: at most one `Started`, then scores of the prompt, then tokens, then
/// one `Finished` or `Failed`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The request left the queue.
    Started {
        /// Tokens of the prompt that were in the cache already.
        cached_tokens: usize,
        /// Time since submission.
        queue_time: Duration,
    },
    /// How probable the next tokens of the prompt were, if the request asks. All such events together
    /// are for each token from the second on, once and in order; the first has none before it.
    PromptLogprobs(Vec<TokenLogprobs>),
    /// A token was chosen; the last may be a stop token, which adds no text.
    Token {
        /// Its id.
        token: u32,
        /// How probable it was, if the request asks.
        logprobs: Option<TokenLogprobs>,
    },
    /// The answer is complete.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// What it took.
        usage: Usage,
    },
    /// There will be no more tokens.
    Failed(RequestFailure),
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, tokens that were in the cache already.
    pub cached_tokens: usize,
    /// Tokens chosen, a stop token included.
    pub generated_tokens: usize,
}

/// Why a request that was accepted has no complete answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequestFailure {
    /// The step that the request was part of failed.
    #[error(
        "a step of the model failed: {reason}; the engine goes on, so the request may be retried"
    )]
    Step {
        /// What the executor said.
        reason: String,
    },
    /// No token could be chosen.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The constraint on the answer cannot go on.
    #[error("the constraint on the answer failed: {0}; change it or leave it out")]
    Constraint(#[from] ConstraintError),
    /// Choosing the next token, or telling it, panicked: a fault of the program.
    #[error(
        "choosing the next token panicked: {reason}; other requests go on, and this one may work \
         without its unusual parameters"
    )]
    Panicked {
        /// The text of the panic.
        reason: String,
    },
    /// The deadline passed.
    #[error(
        "the deadline of {:.1} s passed after {generated} generated tokens; ask for fewer tokens or \
         allow more time", limit.as_secs_f64()
    )]
    Deadline {
        /// Time allowed.
        limit: Duration,
        /// Tokens generated until then.
        generated: usize,
    },
    /// The engine was told to stop, or ended.
    #[error("the engine stopped before the answer was complete; retry on another server")]
    Stopped,
    /// The engine cannot go on.
    #[error("the engine is dead: {reason}; restart the server")]
    EngineDead {
        /// What happened.
        reason: String,
    },
}

/// Nobody reads any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the receiver of the events is gone")]
pub struct Closed;

/// Where the events of one request go.
///
/// The engine calls all functions from its own thread between steps: they must not block. A sink
/// that is closed cancels its request, and one that panics fails it.
pub trait EventSink: Send {
    /// Delivers an event.
    ///
    /// # Errors
    /// If nobody reads any more.
    fn send(&mut self, event: Event) -> Result<(), Closed>;

    /// Whether nobody reads any more.
    fn is_closed(&self) -> bool;

    /// Whether the reader is gone because the answer is complete: its request then counts as stopped,
    /// not as cancelled.
    fn is_satisfied(&self) -> bool {
        false
    }
}

/// A channel for the events of one request. Dropping the receiver cancels the request.
///
/// The receiver can wait as a thread ([`EventReceiver::recv`]) or as a task of any async runtime
/// ([`EventReceiver::next_event`]), without polling in either case. The channel holds as many events
/// as come: a request has at most one for each token of its context.
///
/// ```
/// use bantam_engine::{Event, EventSink, RequestFailure, event_channel};
/// let (mut sender, mut receiver) = event_channel();
/// sender.send(Event::Failed(RequestFailure::Stopped))?;
/// assert_eq!(receiver.recv(), Some(Event::Failed(RequestFailure::Stopped)));
/// drop(receiver);
/// assert!(sender.is_closed());
/// # Ok::<(), bantam_engine::Closed>(())
/// ```
#[must_use]
pub fn event_channel() -> (EventSender, EventReceiver) {
    let channel = Arc::new(Channel {
        queue: Mutex::new(Queue { events: VecDeque::new(), sender_gone: false, waker: None }),
        changed: Condvar::new(),
        receiver_gone: AtomicBool::new(false),
        satisfied: AtomicBool::new(false),
    });
    (EventSender(Arc::clone(&channel)), EventReceiver(channel))
}

/// The engine's end of [`event_channel`].
#[derive(Debug)]
pub struct EventSender(Arc<Channel>);

/// The reader's end of [`event_channel`].
#[derive(Debug)]
pub struct EventReceiver(Arc<Channel>);

#[derive(Debug)]
struct Channel {
    queue: Mutex<Queue>,
    /// Wakes a thread that waits.
    changed: Condvar,
    receiver_gone: AtomicBool,
    /// Set before the receiver goes.
    satisfied: AtomicBool,
}

#[derive(Debug)]
struct Queue {
    events: VecDeque<Event>,
    sender_gone: bool,
    /// Wakes a task that waits.
    waker: Option<Waker>,
}

impl Queue {
    /// The next event, none after the last, pending if there may be one later.
    fn next(&mut self) -> Poll<Option<Event>> {
        match self.events.pop_front() {
            None if !self.sender_gone => Poll::Pending,
            event => Poll::Ready(event),
        }
    }
}

impl Channel {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code that can panic runs under the lock, so a poisoned queue is whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the queue and wakes whoever waits for it.
    fn update(&self, change: impl FnOnce(&mut Queue)) {
        let mut queue = self.lock();
        change(&mut queue);
        let waker = queue.waker.take();
        drop(queue);
        self.changed.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl EventSink for EventSender {
    fn send(&mut self, event: Event) -> Result<(), Closed> {
        if self.is_closed() {
            return Err(Closed);
        }
        self.0.update(|queue| queue.events.push_back(event));
        Ok(())
    }

    fn is_closed(&self) -> bool {
        self.0.receiver_gone.load(Ordering::Acquire)
    }

    fn is_satisfied(&self) -> bool {
        self.is_closed() && self.0.satisfied.load(Ordering::Relaxed)
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        self.0.update(|queue| queue.sender_gone = true);
    }
}

impl EventReceiver {
    /// Waits for the next event; none after the last.
    pub fn recv(&mut self) -> Option<Event> {
        let mut queue = self.0.lock();
        loop {
            if let Poll::Ready(event) = queue.next() {
                return event;
            }
            queue = self.0.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for the next event, none after the last, for at most `timeout`.
    pub fn recv_within(&mut self, timeout: Duration) -> Poll<Option<Event>> {
        let begun = Instant::now();
        let mut queue = self.0.lock();
        loop {
            let next = queue.next();
            let Some(left) = timeout.checked_sub(begun.elapsed()).filter(|_| next.is_pending())
            else {
                return next;
            };
            let waited = self.0.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The next event, none after the last; when there is none yet, the task is woken by the next.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut queue = self.0.lock();
        let next = queue.next();
        if next.is_pending() {
            queue.waker = Some(context.waker().clone());
        }
        next
    }

    /// Awaits the next event; none after the last.
    pub async fn next_event(&mut self) -> Option<Event> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// Ends the request because its answer is complete: the text has reached a stop string, say,
    /// which the engine cannot see. Like a drop, but the request counts as stopped.
    pub fn stop(self) {
        self.0.satisfied.store(true, Ordering::Relaxed);
    }
}

impl Iterator for EventReceiver {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.recv()
    }
}

impl Drop for EventReceiver {
    fn drop(&mut self) {
        self.0.receiver_gone.store(true, Ordering::Release);
        // What was not read is not needed.
        self.0.lock().events = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;
    use std::thread;

    use super::*;

    fn token(token: u32) -> Event {
        Event::Token { token, logprobs: None }
    }

    #[test]
    fn events_arrive_in_order_and_end_with_the_sender() {
        let (mut sender, receiver) = event_channel();
        let writer = thread::spawn(move || {
            for n in 0..1000 {
                sender.send(token(n)).unwrap();
            }
        });
        let events: Vec<Event> = receiver.collect();
        writer.join().unwrap();
        assert_eq!(events, (0..1000).map(token).collect::<Vec<_>>());
    }

    #[test]
    fn waiting_ends_when_time_is_up() {
        let (mut sender, mut receiver) = event_channel();
        assert_eq!(receiver.recv_within(Duration::from_millis(5)), Poll::Pending);
        sender.send(token(1)).unwrap();
        assert_eq!(receiver.recv_within(Duration::ZERO), Poll::Ready(Some(token(1))));
        drop(sender);
        assert_eq!(receiver.recv_within(Duration::from_secs(60)), Poll::Ready(None));
    }

    #[test]
    fn a_dropped_receiver_is_seen() {
        let (mut sender, receiver) = event_channel();
        assert!(!sender.is_closed());
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(sender.send(token(1)), Err(Closed));
    }

    #[test]
    fn a_reader_that_has_enough_is_told_from_one_that_vanishes() {
        for stops in [true, false] {
            let (sender, receiver) = event_channel();
            assert!(!sender.is_satisfied());
            if stops {
                receiver.stop();
            } else {
                drop(receiver);
            }
            assert_eq!((sender.is_closed(), sender.is_satisfied()), (true, stops));
        }
    }

    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_task_is_woken_by_an_event_and_by_the_end() {
        let (mut sender, mut receiver) = event_channel();
        let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let mut context = Context::from_waker(&waker);
        assert_eq!(receiver.poll_recv(&mut context), Poll::Pending);
        sender.send(token(1)).unwrap();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        assert_eq!(receiver.poll_recv(&mut context), Poll::Ready(Some(token(1))));
        assert_eq!(receiver.poll_recv(&mut context), Poll::Pending);
        drop(sender);
        assert_eq!(wakes.0.load(Ordering::SeqCst), 2);
        assert_eq!(receiver.poll_recv(&mut context), Poll::Ready(None));
    }
}
