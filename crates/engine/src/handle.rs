//! The engine on a thread of its own, and how other threads reach it.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::isolation::panic_message;
use crate::sequence::{QueueSlot, Sequence};
use crate::{
    Engine, EngineDead, EngineError, EngineOptions, EventReceiver, EventSink, Executor, Limits,
    Metrics, Request, RequestFailure, Submission, event_channel,
};

/// Stack of the engine's thread: constraints may recurse as deeply as their grammars nest. Only what
/// is touched takes memory.
const STACK_BYTES: usize = 64 << 20;

/// How an engine on its own thread behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HandleOptions {
    /// How the engine divides its executor among requests.
    pub engine: EngineOptions,
    /// Requests that may wait for their first step; more are refused with [`SubmitError::Full`].
    pub max_waiting: usize,
    /// Time after which a step is taken to hang.
    pub stall_after: Duration,
}

impl Default for HandleOptions {
    /// 256 waiting requests; a step that takes a minute hangs.
    fn default() -> Self {
        Self {
            engine: EngineOptions::default(),
            max_waiting: 256,
            stall_after: Duration::from_secs(60),
        }
    }
}

/// How the engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It accepts requests.
    Ready,
    /// It finishes what it has and accepts nothing new.
    Draining,
    /// A step has taken longer than it should.
    Stalled {
        /// Time since the step began.
        since: Duration,
    },
    /// It has ended as it was told to.
    Stopped,
    /// It has ended otherwise, and will not come back.
    Dead {
        /// What happened.
        reason: String,
    },
}

impl Health {
    /// Whether a request sent now would be answered.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self, Self::Ready)
    }
}

/// Why a request was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// It can never be served.
    #[error(transparent)]
    Refused(#[from] EngineError),
    /// Too many requests wait already.
    #[error(
        "{waiting} requests wait already, the limit is {limit}; retry in {} s",
        retry_after.as_secs()
    )]
    Full {
        /// Requests that wait.
        waiting: usize,
        /// Requests that may wait.
        limit: usize,
        /// When there should be room, judged by the requests before, in whole seconds.
        retry_after: Duration,
    },
    /// More requests at once than may ever wait.
    #[error("{asked} answers at once, but at most {limit} requests may wait; ask for fewer")]
    TooMany {
        /// Requests submitted together.
        asked: usize,
        /// Requests that may wait.
        limit: usize,
    },
    /// The engine accepts nothing new because it is about to stop, or has stopped.
    #[error("the engine is stopping and accepts no new requests; retry on another server")]
    Stopping,
    /// The engine has died.
    #[error("the engine is dead: {reason}; restart the server")]
    Dead {
        /// What happened.
        reason: String,
    },
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No thread.
    #[error("the engine's thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    /// The executor could not be made.
    #[error(transparent)]
    Executor(Box<dyn Error + Send + Sync>),
    /// Making the executor panicked.
    #[error("the executor panicked while it was made: {0}")]
    Panic(String),
    /// The executor or the options are of no use.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Remote control of an engine. Clones reach the same engine; when the last is dropped, the engine
/// finishes what it has and ends.
///
/// An engine whose executor does not work any more is [`Health::Dead`], and stays so: nothing in this
/// process restarts it, since what broke its executor may have broken more. Spawn another, or end the
/// process and let its supervisor start it again; `bantam serve` says so on `/health` (503).
///
/// ```no_run
/// use bantam_backend::reference::Reference;
/// use bantam_checkpoint::Checkpoint;
/// use bantam_engine::{EngineHandle, HandleOptions, Request};
/// use bantam_model::{Decoder, LoadOptions};
///
/// let engine = EngineHandle::spawn(HandleOptions::default(), || {
///     let checkpoint = Checkpoint::open("model".as_ref())?;
///     let options = LoadOptions { max_sequences: 8, max_logit_rows: 8, ..Default::default() };
///     Ok(Decoder::load(Reference, &checkpoint, &options, &|_| {})?)
/// })?;
/// for event in engine.submit(Request::new(vec![504, 3575, 282]))? {
///     println!("{event:?}");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct EngineHandle {
    commands: Sender<Command>,
    shared: Arc<Shared>,
}

enum Command {
    Submit(Vec<Sequence>),
    Drain,
    Shutdown,
}

/// What both sides see. The engine's own state is not in here.
struct Shared {
    limits: Limits,
    options: HandleOptions,
    /// Requests that were submitted and have not started.
    waiting: Arc<AtomicUsize>,
    rejected: AtomicU64,
    status: Mutex<Status>,
    /// Signals that the phase is `Ended`.
    ended: Condvar,
    /// As of the last step.
    metrics: Mutex<Metrics>,
}

struct Status {
    phase: Phase,
    step_begun: Option<Instant>,
}

#[derive(Clone, PartialEq, Eq)]
enum Phase {
    Running,
    Draining,
    Ended(Result<(), EngineDead>),
}

impl Shared {
    fn status(&self) -> MutexGuard<'_, Status> {
        // Assignments only are made under the lock, so a poisoned status is whole.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn metrics(&self) -> MutexGuard<'_, Metrics> {
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EngineHandle {
    /// Starts an engine on a new thread with the executor that `make` makes there, and waits until
    /// it is made.
    ///
    /// # Errors
    /// If the thread cannot be started, or the executor not be made or used.
    pub fn spawn<E: Executor + 'static>(
        options: HandleOptions,
        make: impl FnOnce() -> Result<E, Box<dyn Error + Send + Sync>> + Send + 'static,
    ) -> Result<Self, SpawnError> {
        let (commands, received) = mpsc::channel();
        let (made, ready) = mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("bantam-engine".to_owned());
        thread.stack_size(STACK_BYTES).spawn(move || {
            let engine = make_engine(make, options.engine);
            match engine {
                Err(error) => drop(made.send(Err(error))),
                Ok(engine) => {
                    let shared = Arc::new(Shared::new(&engine, options));
                    if made.send(Ok(Arc::clone(&shared))).is_ok() {
                        run_thread(engine, received, &shared);
                    }
                }
            }
        })?;
        let gone = || SpawnError::Panic("the thread ended without a word".to_owned());
        let shared = ready.recv().map_err(|_| gone())??;
        Ok(Self { commands, shared })
    }

    /// Queues a request and returns where its events arrive; dropping that cancels the request.
    ///
    /// # Errors
    /// If the request can never be served, the queue is full, or the engine stops or is dead.
    pub fn submit(&self, submission: impl Into<Submission>) -> Result<EventReceiver, SubmitError> {
        let (sender, receiver) = event_channel();
        self.submit_to(submission, Box::new(sender))?;
        Ok(receiver)
    }

    /// Queues a request whose events go to `sink`.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_to(
        &self,
        submission: impl Into<Submission>,
        sink: Box<dyn EventSink>,
    ) -> Result<(), SubmitError> {
        self.queue(vec![(submission.into(), sink)], self.shared.options.max_waiting)
    }

    /// Queues requests together, all or none; where the events of each arrive, in order.
    ///
    /// # Errors
    /// As [`submit`](Self::submit), and if there are more than may ever wait.
    pub fn submit_all(
        &self,
        submissions: impl IntoIterator<Item = impl Into<Submission>>,
    ) -> Result<Vec<EventReceiver>, SubmitError> {
        self.submit_within(submissions, self.shared.options.max_waiting)
    }

    /// Queues `n` requests for independent answers to one prompt; see [`Request::samples`]. The
    /// prompt is computed once if prefixes are shared, and each answer can be cancelled on its own.
    ///
    /// # Errors
    /// As [`submit_all`](Self::submit_all).
    pub fn submit_samples(
        &self,
        request: &Request,
        n: usize,
    ) -> Result<Vec<EventReceiver>, SubmitError> {
        self.submit_all(request.samples(n))
    }

    /// Queues the next requests of a search that was accepted before, however many wait.
    pub(crate) fn submit_next(
        &self,
        requests: impl IntoIterator<Item = Request>,
    ) -> Result<Vec<EventReceiver>, SubmitError> {
        self.submit_within(requests, usize::MAX)
    }

    fn submit_within(
        &self,
        submissions: impl IntoIterator<Item = impl Into<Submission>>,
        limit: usize,
    ) -> Result<Vec<EventReceiver>, SubmitError> {
        let submissions = submissions.into_iter();
        // Before anything is made for them.
        let asked = submissions.size_hint().0;
        if asked > limit {
            return Err(SubmitError::TooMany { asked, limit });
        }
        let (submissions, receivers) = submissions
            .map(|submission| {
                let (sender, receiver) = event_channel();
                ((submission.into(), Box::new(sender) as Box<dyn EventSink>), receiver)
            })
            .unzip();
        self.queue(submissions, limit)?;
        Ok(receivers)
    }

    /// Queues all or none, if at most `limit` wait then.
    fn queue(
        &self,
        submissions: Vec<(Submission, Box<dyn EventSink>)>,
        limit: usize,
    ) -> Result<(), SubmitError> {
        let shared = &self.shared;
        for (submission, _) in &submissions {
            submission.validate(&shared.limits)?;
        }
        self.check_accepting()?;
        let asked = submissions.len();
        if asked > limit {
            return Err(SubmitError::TooMany { asked, limit });
        }
        let slots = QueueSlot::take(&shared.waiting, asked, limit).ok_or_else(|| {
            shared.rejected.fetch_add(asked as u64, Ordering::Relaxed);
            let retry_after = self.retry_after();
            SubmitError::Full { waiting: self.num_waiting(), limit, retry_after }
        })?;
        let sequences = submissions.into_iter().zip(slots).map(|((submission, sink), slot)| {
            Sequence::new(submission, &shared.limits, sink, Some(slot))
        });
        let sequences = sequences.collect::<Result<Vec<_>, _>>().map_err(EngineError::from)?;
        let sent = self.commands.send(Command::Submit(sequences));
        // The thread ended since the check above.
        sent.or_else(|_| self.check_accepting().and(Err(SubmitError::Stopping)))
    }

    fn check_accepting(&self) -> Result<(), SubmitError> {
        match &self.shared.status().phase {
            Phase::Running => Ok(()),
            Phase::Draining | Phase::Ended(Ok(())) => Err(SubmitError::Stopping),
            Phase::Ended(Err(EngineDead { reason })) => {
                Err(SubmitError::Dead { reason: reason.clone() })
            }
        }
    }

    /// How long the queue takes at the speed of the requests so far: 1 second to a minute.
    fn retry_after(&self) -> Duration {
        let Limits { max_sequences, .. } = self.shared.limits;
        let mean = self.shared.metrics().request_seconds.mean().unwrap_or(1.0);
        let seconds = mean * self.num_waiting() as f64 / max_sequences as f64;
        Duration::from_secs(seconds.ceil().clamp(1.0, 60.0) as u64)
    }

    /// Accepts nothing new from now on; what was accepted is finished, then the engine ends.
    pub fn drain(&self) {
        self.leave_running();
        let _ = self.commands.send(Command::Drain);
    }

    /// Accepts nothing new from now on; what was accepted fails with
    /// [`RequestFailure::Stopped`] after the current step, then the engine ends.
    pub fn shutdown(&self) {
        self.leave_running();
        let _ = self.commands.send(Command::Shutdown);
    }

    fn leave_running(&self) {
        let mut status = self.shared.status();
        if status.phase == Phase::Running {
            status.phase = Phase::Draining;
        }
    }

    /// Waits until the engine has ended, for at most `timeout`; whether it has.
    pub fn wait(&self, timeout: Duration) -> bool {
        let going = |status: &mut Status| !matches!(status.phase, Phase::Ended(_));
        let status = self.shared.status();
        let waited = self.shared.ended.wait_timeout_while(status, timeout, going);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// How the engine is, now.
    #[must_use]
    pub fn health(&self) -> Health {
        let status = self.shared.status();
        let in_step = status.step_begun.map(|begun| begun.elapsed());
        match (&status.phase, in_step) {
            (Phase::Ended(Err(EngineDead { reason })), _) => {
                Health::Dead { reason: reason.clone() }
            }
            (Phase::Ended(Ok(())), _) => Health::Stopped,
            (_, Some(since)) if since > self.shared.options.stall_after => {
                Health::Stalled { since }
            }
            (Phase::Draining, _) => Health::Draining,
            (Phase::Running, _) => Health::Ready,
        }
    }

    /// What was counted and measured until the last step.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metrics { waiting: self.num_waiting(), ..self.shared.metrics().clone() }
    }

    /// Requests that were accepted and have not started.
    #[must_use]
    pub fn num_waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Acquire)
    }

    /// Requests refused because too many waited.
    #[must_use]
    pub fn num_rejected(&self) -> u64 {
        self.shared.rejected.load(Ordering::Relaxed)
    }

    /// What the engine was started with.
    #[must_use]
    pub fn options(&self) -> &HandleOptions {
        &self.shared.options
    }

    /// What a step and the cache can hold.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }
}

impl Shared {
    fn new(engine: &Engine, options: HandleOptions) -> Self {
        Self {
            limits: *engine.limits(),
            options,
            waiting: Arc::new(AtomicUsize::new(0)),
            rejected: AtomicU64::new(0),
            status: Mutex::new(Status { phase: Phase::Running, step_begun: None }),
            ended: Condvar::new(),
            metrics: Mutex::new(engine.metrics().clone()),
        }
    }
}

fn make_engine<E: Executor + 'static>(
    make: impl FnOnce() -> Result<E, Box<dyn Error + Send + Sync>>,
    options: EngineOptions,
) -> Result<Engine, SpawnError> {
    let made = catch_unwind(AssertUnwindSafe(make));
    let executor = made.map_err(|panic| SpawnError::Panic(panic_message(&*panic)))?;
    let executor = executor.map_err(SpawnError::Executor)?;
    Ok(Engine::new(Box::new(executor), options)?)
}

/// Serves until the end, and says how it came.
fn run_thread(mut engine: Engine, commands: Receiver<Command>, shared: &Shared) {
    let served = catch_unwind(AssertUnwindSafe(|| serve(&mut engine, &commands, shared)));
    let outcome = served.unwrap_or_else(|panic| {
        let reason = format!("the engine panicked: {}", panic_message(&*panic));
        // After a panic anything may be inconsistent; requests that this leaves fail as they are
        // dropped.
        let failure = RequestFailure::EngineDead { reason: reason.clone() };
        let _ = catch_unwind(AssertUnwindSafe(|| engine.fail_all(&failure)));
        Err(EngineDead { reason })
    });
    *shared.metrics() = engine.metrics().clone();
    *shared.status() = Status { phase: Phase::Ended(outcome), step_begun: None };
    // What is still in the channel fails as it is dropped, and so does sending from now on.
    drop(commands);
    drop(engine);
    shared.ended.notify_all();
}

/// Commands, then a step, again and again; sleeps while there is nothing to do.
fn serve(
    engine: &mut Engine,
    commands: &Receiver<Command>,
    shared: &Shared,
) -> Result<(), EngineDead> {
    let mut draining = false;
    loop {
        if engine.is_idle() && !draining {
            // Every handle is gone when there is no command to come.
            let Ok(command) = commands.recv() else { return Ok(()) };
            draining = apply(engine, command);
        }
        while let Ok(command) = commands.try_recv() {
            draining |= apply(engine, command);
        }
        if engine.is_idle() && draining {
            return Ok(());
        }
        shared.status().step_begun = Some(Instant::now());
        let stepped = engine.step();
        shared.status().step_begun = None;
        shared.metrics().clone_from(engine.metrics());
        stepped?;
    }
}

/// Applies a command; whether the engine is to end.
fn apply(engine: &mut Engine, command: Command) -> bool {
    match command {
        Command::Submit(sequences) => {
            sequences.into_iter().for_each(|sequence| engine.enqueue(sequence));
            return false;
        }
        Command::Drain => {}
        Command::Shutdown => engine.fail_all(&RequestFailure::Stopped),
    }
    true
}
