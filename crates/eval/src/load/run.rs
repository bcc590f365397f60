//! Sending requests and noting what comes back.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::arrivals::{Next, Pacer};
use super::{Arrivals, Failure, LoadError, LoadRequest, Record, Target};

/// How requests are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOptions {
    /// Decides the moments of an open loop.
    pub seed: u64,
    /// Time until an answer must be complete.
    pub timeout: Duration,
    /// Whether a request that is turned away (429 or 503) comes back when the server says so.
    pub retry: bool,
    /// Goes before each prompt, so that a prefix cache does not know it from another run.
    pub tag: String,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Run {
    /// When requests were sent.
    pub arrivals: Arrivals,
    /// Every request that ended, in the order of their ends.
    pub records: Vec<Record>,
    /// From the first request sent to the last that ended.
    pub duration: Duration,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
}

/// Time after which `progress` is asked again though nothing has happened.
const TICK: Duration = Duration::from_millis(100);
/// When a server that turns a request away without saying for how long is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The shortest and longest time to wait before asking again.
const RETRY_BOUNDS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));

/// Sends every request once. `progress` is told the number that ended, again and again; when it
/// breaks, requests under way are dropped and those that ended are returned.
///
/// Needs a tokio runtime with timers and I/O; one thread is enough.
pub async fn run(
    target: &Arc<Target>,
    requests: &Arc<[LoadRequest]>,
    arrivals: Arrivals,
    options: &RunOptions,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Run {
    let options = Arc::new(options.clone());
    let mut pacer = Pacer::new(arrivals, requests.len(), options.seed);
    let mut under_way = JoinSet::new();
    let mut records: Vec<Record> = Vec::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let start = Instant::now();
    let mut sent = 0;
    let interrupted = loop {
        let due = match pacer.next(under_way.len(), start.elapsed()) {
            Next::Send(planned) => {
                let one = One {
                    target: Arc::clone(target),
                    requests: Arc::clone(requests),
                    options: Arc::clone(&options),
                    number: sent,
                    start,
                    planned,
                };
                under_way.spawn(one.send());
                sent += 1;
                continue;
            }
            Next::SendAt(due) => Some(start + due),
            Next::Wait => None,
            Next::Done if under_way.is_empty() => break false,
            Next::Done => None,
        };
        let until_due = async {
            match due {
                Some(due) => sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(ended) = under_way.join_next() => match ended {
                Ok(record) => records.push(record),
                // Nobody aborts a request before the run ends, so it can only have panicked.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
            () = until_due => {}
            _ = ticks.tick() => {}
        }
        if progress(records.len()).is_break() {
            break true;
        }
    };
    let duration = match interrupted {
        // What was under way has taken its share of the server until now.
        true => start.elapsed(),
        false => records.iter().map(|record| record.ended).max().unwrap_or_default(),
    };
    Run { arrivals, records, duration, interrupted }
}

/// Sends the first `count` requests together and forgets their answers, so that connections,
/// memory and caches are warm.
///
/// # Errors
/// If one fails: then measuring makes no sense.
pub async fn warm_up(
    target: &Arc<Target>,
    requests: &[LoadRequest],
    count: usize,
    options: &RunOptions,
) -> Result<(), LoadError> {
    let requests: Arc<[LoadRequest]> = requests.iter().take(count).cloned().collect();
    let arrivals = Arrivals::Rate(super::Rate::INFINITE);
    let run = run(target, &requests, arrivals, options, &mut |_| ControlFlow::Continue(())).await;
    match run.records.into_iter().find_map(|record| record.outcome.err()) {
        Some(failure) => Err(LoadError::WarmUp { failure }),
        None => Ok(()),
    }
}

/// One request on its way.
struct One {
    target: Arc<Target>,
    requests: Arc<[LoadRequest]>,
    options: Arc<RunOptions>,
    number: usize,
    start: Instant,
    planned: Duration,
}

impl One {
    async fn send(self) -> Record {
        let now = Instant::now();
        let sent = now - self.start;
        let mut retries = 0;
        let limit = self.options.timeout;
        let outcome = match timeout(limit, self.persist(now, &mut retries)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::Timeout { seconds: limit.as_secs_f64() }),
        };
        let ended = match &outcome {
            Ok(answered) => sent + answered.end,
            Err(_) => self.start.elapsed(),
        };
        let delay = sent.saturating_sub(self.planned);
        Record { request: self.number, sent, delay, ended, retries, outcome }
    }

    /// Asks, and asks again if turned away and told to.
    async fn persist(
        &self,
        sent: Instant,
        retries: &mut usize,
    ) -> Result<super::Answered, Failure> {
        let request = &self.requests[self.number];
        loop {
            match self.target.answer(request, &self.options.tag, sent).await {
                Err(Failure::Status { status: 429 | 503, retry_after, .. })
                    if self.options.retry =>
                {
                    *retries += 1;
                    let (shortest, longest) = RETRY_BOUNDS;
                    sleep(retry_after.unwrap_or(RETRY_AFTER).clamp(shortest, longest)).await;
                }
                outcome => return outcome,
            }
        }
    }
}
