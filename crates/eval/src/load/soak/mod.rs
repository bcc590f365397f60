//! A server under clients of every kind, for a while: what must hold afterwards, and whether it does.
//!
//! [`soak()`] lets clients ask a `bantam serve` whatever an API allows and forbids: chats and
//! completions of random lengths, streamed or not, some with two answers, some in a form, some
//! repeated; some break off at a random moment, and some send what must be refused. It compares what
//! the clients see with what the server counts, and with what must hold whatever clients do
//! ([`Check`]).
//!
//! * Every token is known twice: the server counts it (`usage`), and most requests have it listed
//!   (`logprobs`) with its bytes, which must spell the text.
//! * A fixed set of requests is asked alone, then again and again under load, then alone once more.
//!   Answers must be equal to the byte: they depend on nothing but the request.
//! * When all clients have left, the server's own accounts must close: requests, blocks, memory.
//!
//! The server needs to be alone with these clients, for its accounts are compared with theirs.

mod checks;
mod client;
mod counters;
mod dice;
mod heard;
mod hostile;
mod malformed;
mod memory;
mod report;
mod tally;
mod work;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout_at};

pub use checks::{Check, Verdict};
use client::Soaking;
use counters::{Counters, health_problem, when_idle};
pub use hostile::{
    AttackReport, AttackVerdict, HostileCheck, HostileOptions, HostileProgress, HostileReport,
    HostileVerdict, Phase, PhaseReport, Resident, Waits, hostile,
};
pub use memory::MemoryUse;
use memory::Sample;
pub use report::SoakReport;
use report::{Observed, Sizing};
use tally::Tally;
use work::Sizes;

use super::{Client, LoadError, Target};

/// How a server is soaked.
#[derive(Clone, Debug, PartialEq)]
pub struct SoakOptions {
    /// Clients side by side; each sends one request after the other.
    pub clients: NonZeroUsize,
    /// Time during which requests are sent; what is under way then is waited for.
    pub duration: Duration,
    /// Share of the requests that break off at a random moment, 0 to 1.
    pub cancel: f64,
    /// Share of the requests that are malformed, 0 to 1.
    pub malformed: f64,
    /// Share of the requests that are of the fixed set, 0 to 1.
    pub repeat: f64,
    /// Longest prompt in words, about as many tokens; most are shorter.
    pub prompt_words: NonZeroUsize,
    /// Longest answer in tokens; most are shorter.
    pub answer_tokens: NonZeroUsize,
    /// Time until an answer must be complete, waiting to come again included.
    pub timeout: Duration,
    /// Bytes that resident memory may grow by in the second half.
    pub max_growth: u64,
    /// Decides everything random.
    pub seed: u64,
}

impl Default for SoakOptions {
    fn default() -> Self {
        const fn size(size: usize) -> NonZeroUsize {
            NonZeroUsize::new(size).expect("the sizes below are not 0")
        }
        Self {
            clients: size(200),
            duration: Duration::from_secs(300),
            cancel: 0.1,
            malformed: 0.02,
            repeat: 0.15,
            prompt_words: size(256),
            answer_tokens: size(128),
            timeout: Duration::from_secs(600),
            max_growth: 32 << 20,
            seed: 0,
        }
    }
}

/// How far a soak is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoakProgress {
    /// Time since the clients began.
    pub elapsed: Duration,
    /// Requests answered.
    pub answered: usize,
    /// Problems found.
    pub wrong: usize,
    /// Clients that still wait for their last answer.
    pub clients: usize,
}

/// Time after which `progress` is asked again.
const TICK: Duration = Duration::from_millis(100);
/// Samples of memory and health in a run.
const SAMPLES: u32 = 300;
/// The shortest time between two of them.
const LEAST_PAUSE: Duration = Duration::from_millis(200);
/// Time that the server has to notice that all clients have left.
const SETTLE: Duration = Duration::from_secs(20);

/// Soaks the model. `progress` is told how it goes, again and again; when it breaks, all clients
/// leave at once, and the report is about what there is.
///
/// Needs a tokio runtime with timers and I/O; one thread is enough.
///
/// # Errors
/// If the server is not Bantam, is busy with others, or cannot answer the fixed set one by one: then
/// load says nothing.
pub async fn soak(
    target: &Target,
    options: &SoakOptions,
    progress: &mut dyn FnMut(SoakProgress) -> ControlFlow<()>,
) -> Result<SoakReport, LoadError> {
    let (client, model) = (target.client(), target.model());
    let before = counters(client, model).await?;
    if !before.is_idle() {
        let under_way = before.in_flight.saturating_sub(1).max(before.waiting + before.running);
        return Err(LoadError::Busy { under_way });
    }
    let sizes = Sizes {
        prompt_words: options.prompt_words.get(),
        answer_tokens: options.answer_tokens.get(),
    };
    let soaking = Soaking::begin(client, model, options, work::fixed_set(sizes, options.seed));
    let soaking = Arc::new(soaking.await?);
    let start = counters(client, model).await?;

    let begun = Instant::now();
    let over = begun + options.duration;
    let mut clients = JoinSet::new();
    for number in 0..options.clients.get() {
        clients.spawn(Arc::clone(&soaking).run(number, over));
    }
    let sampler = tokio::spawn(sample(Arc::clone(&soaking), options.duration, begun));
    let interrupted = wait(&mut clients, &soaking, begun, progress).await;
    clients.shutdown().await;
    let length = begun.elapsed();
    sampler.abort();

    let settled = when_idle(client, model, SETTLE).await.map_err(LoadError::metrics)?;
    if !interrupted {
        soaking.ask_alone_again().await;
    }
    let after = when_idle(client, model, SETTLE).await.map_err(LoadError::metrics)?;
    let mut tally = soaking.tally().clone();
    settle(&mut tally, &settled, &after.since(&before));
    let memory = MemoryUse::of(start.resident_bytes.unwrap_or(0), &tally.resident);
    let judged =
        memory.filter(|_| !interrupted).and_then(|memory| memory.judged(options.max_growth));
    if let Some(judged) = judged {
        tally.findings.look(Check::Memory, judged.err());
    }
    let sizing = Sizing::of(options, target.model(), interrupted);
    Ok(SoakReport::new(sizing, tally, length, Observed::new(&after.since(&before), memory)))
}

async fn counters(client: &Client, model: &str) -> Result<Counters, LoadError> {
    Counters::read(client, model).await.map_err(LoadError::metrics)
}

/// Waits for all clients; whether they were sent away before.
async fn wait(
    clients: &mut JoinSet<()>,
    soaking: &Soaking,
    begun: Instant,
    progress: &mut dyn FnMut(SoakProgress) -> ControlFlow<()>,
) -> bool {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        loop {
            match timeout_at(tokio::time::Instant::now(), clients.join_next()).await {
                Ok(None) => return false,
                Ok(Some(Ok(()))) => {}
                // Nobody aborts a client before the run ends, so it can only have panicked.
                Ok(Some(Err(error))) => std::panic::resume_unwind(error.into_panic()),
                Err(_) => break,
            }
        }
        let (answered, wrong) = {
            let tally = soaking.tally();
            (tally.answered, tally.findings.wrong())
        };
        let clients = clients.len();
        let elapsed = begun.elapsed();
        if progress(SoakProgress { elapsed, answered, wrong, clients }).is_break() {
            return true;
        }
    }
}

/// Looks at health and memory again and again.
async fn sample(soaking: Arc<Soaking>, duration: Duration, begun: Instant) {
    let mut ticks = interval((duration / SAMPLES).max(LEAST_PAUSE));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let health = health_problem(soaking.client()).await;
        let counters = Counters::read(soaking.client(), soaking.model()).await;
        let mut tally = soaking.tally();
        tally.findings.look(Check::Health, health);
        match counters {
            Ok(counters) => {
                tally.most_running = tally.most_running.max(counters.running);
                tally.most_waiting = tally.most_waiting.max(counters.waiting);
                tally.most_blocks = tally.most_blocks.max(counters.referenced);
                let (at, free_blocks) = (begun.elapsed(), counters.free);
                let sample = |bytes| Sample { at, bytes, free_blocks };
                tally.resident.extend(counters.resident_bytes.map(sample));
            }
            Err(failure) => tally.findings.look(Check::Health, Some(failure.to_string())),
        }
    }
}

/// Closes the accounts: `settled` is the server after the load, `all` what it did altogether.
fn settle(tally: &mut Tally, settled: &Counters, all: &Counters) {
    let Counters { accepted, finished, cancelled, failed, failed_steps, .. } = *all;
    let mut problems = Vec::new();
    if accepted != finished + cancelled + failed || failed > 0 {
        problems.push(format!(
            "{accepted} accepted, {finished} finished, {cancelled} cancelled, {failed} failed"
        ));
    }
    if failed_steps > 0 {
        problems.push(format!("{failed_steps} steps failed"));
    }
    if all.generated_tokens < tally.output_tokens {
        let (made, came) = (all.generated_tokens, tally.output_tokens);
        problems.push(format!("{made} tokens were made, {came} came"));
    }
    if !settled.is_idle() || !all.is_idle() {
        let Counters { waiting, running, in_flight, .. } = settled;
        problems.push(format!(
            "without clients {waiting} requests wait, {running} run, and HTTP has {in_flight} under way"
        ));
    }
    let problem = (!problems.is_empty()).then(|| problems.join("; "));
    tally.findings.look(Check::Accounts, problem);
    for held in [settled.referenced, all.referenced] {
        let problem = (held > 0).then(|| format!("without clients {held} blocks are held"));
        tally.findings.look(Check::Blocks, problem);
    }
}
