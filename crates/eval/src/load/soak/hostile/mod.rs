//! A server under attack: what those who behave notice, and what becomes of each attack.
//!
//! [`hostile()`] has well-behaved clients ask for short answers at a steady pace, and measures how long
//! they wait in three phases: *quiet*, alone; *attack*, beside attackers who each do one thing that
//! has hurt a server before, again and again at a bounded rate; and *after*, alone again. What must
//! hold is in [`HostileCheck`].
//!
//! It attacks servers of this machine only, unless told otherwise.

mod attackers;
mod attacks;
mod healthy;
mod report;
mod wire;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

pub use attackers::{AttackReport, AttackVerdict};
pub use healthy::{PhaseReport, Waits};
pub use report::{HostileCheck, HostileReport, HostileVerdict, Resident};

use super::counters::{Counters, health_problem, when_idle};
use crate::load::{Failure, LoadError, Target};
use attackers::Outcomes;
use healthy::Felt;

/// How a server is attacked.
#[derive(Clone, Debug, PartialEq)]
pub struct HostileOptions {
    /// Clients that behave, side by side.
    pub clients: NonZeroUsize,
    /// Time from one request of such a client to its next.
    pub pace: Duration,
    /// Tokens of each answer to them.
    pub answer_tokens: NonZeroUsize,
    /// Time before and after the attack.
    pub quiet: Duration,
    /// Time of the attack.
    pub attack: Duration,
    /// Time from the end of an attack to the next of its kind.
    pub pause: Duration,
    /// Bytes that resident memory may be above that before the attack, when it is over.
    pub max_growth: u64,
    /// How many times as long those who behave may wait during the attack, at the 99th percentile.
    pub max_slowdown: f64,
    /// Attacks a server of another machine as well.
    pub any_host: bool,
    /// Decides what those who behave ask.
    pub seed: u64,
}

impl Default for HostileOptions {
    /// 50 clients that ask for 16 tokens every 10 s, for a minute, two minutes under attack, and 45 s.
    fn default() -> Self {
        const fn size(size: usize) -> NonZeroUsize {
            NonZeroUsize::new(size).expect("the sizes below are not 0")
        }
        Self {
            clients: size(50),
            pace: Duration::from_secs(10),
            answer_tokens: size(16),
            quiet: Duration::from_secs(60),
            attack: Duration::from_secs(120),
            pause: Duration::from_secs(5),
            max_growth: 50 << 20,
            max_slowdown: 3.0,
            any_host: false,
            seed: 0,
        }
    }
}

/// A part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Those who behave are alone.
    Quiet,
    /// Attackers are there.
    Attack,
    /// They have left.
    After,
}

impl Phase {
    /// All, in the order of the run.
    pub const ALL: [Self; 3] = [Self::Quiet, Self::Attack, Self::After];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Attack => "attack",
            Self::After => "after",
        }
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostileProgress {
    /// The phase.
    pub phase: Phase,
    /// Time since the run began.
    pub elapsed: Duration,
    /// Answers to those who behave.
    pub answered: usize,
    /// Attacks that have ended.
    pub attacks: usize,
}

/// Time after which `progress` is asked again.
const TICK: Duration = Duration::from_millis(100);
/// Time from one look at health and memory to the next.
const SAMPLE: Duration = Duration::from_secs(1);
/// Time that the server has to notice that all attackers have left, and to give memory back.
const SETTLE: Duration = Duration::from_secs(20);

/// What all tasks share.
struct Scene {
    target: Target,
    address: SocketAddr,
    options: HostileOptions,
    /// The counts; whoever holds them must not wait for anything.
    seen: Mutex<Seen>,
}

/// What has been seen so far.
struct Seen {
    phase: Phase,
    /// What those who behave felt, by phase.
    felt: [Felt; 3],
    attacks: Vec<Outcomes>,
    /// Times that health was looked at, and what was wrong.
    looks: usize,
    unhealthy: Vec<String>,
    /// The most resident memory.
    peak: u64,
}

impl Scene {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        // A panic elsewhere ends the run anyway.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Attacks the server of the model. `progress` is told how it goes, again and again; when it breaks,
/// everyone leaves at once, and the report is about what there is.
///
/// Needs a tokio runtime with timers and I/O.
///
/// # Errors
/// If the server is not on this machine, is not Bantam, or is busy with others.
pub async fn hostile(
    target: &Target,
    options: &HostileOptions,
    progress: &mut dyn FnMut(HostileProgress) -> ControlFlow<()>,
) -> Result<HostileReport, LoadError> {
    let (client, model) = (target.client(), target.model());
    let address = resolve(target, options.any_host).await?;
    let before = Counters::read(client, model).await.map_err(LoadError::metrics)?;
    if !before.is_idle() {
        let under_way = before.in_flight.saturating_sub(1).max(before.waiting + before.running);
        return Err(LoadError::Busy { under_way });
    }
    let attacks = attacks::all(&client.authority(), model, client.authorization());
    let seen = Seen {
        phase: Phase::Quiet,
        felt: Default::default(),
        attacks: attacks.iter().map(Outcomes::of).collect(),
        looks: 0,
        unhealthy: Vec::new(),
        peak: 0,
    };
    let scene = Arc::new(Scene {
        target: target.clone(),
        address,
        options: options.clone(),
        seen: Mutex::new(seen),
    });
    let mut behaving = JoinSet::new();
    for number in 0..options.clients.get() {
        behaving.spawn(healthy::client(Arc::clone(&scene), number));
    }
    behaving.spawn(healthy::newcomer(Arc::clone(&scene)));
    behaving.spawn(watch(Arc::clone(&scene)));

    let begun = Instant::now();
    let mut interrupted = wait(&scene, begun, options.quiet, progress).await.is_break();
    let resident_before = resident(&scene).await;
    if !interrupted {
        scene.seen().phase = Phase::Attack;
        let mut attackers = JoinSet::new();
        for (number, attack) in attacks.into_iter().enumerate() {
            attackers.spawn(attackers::attacker(Arc::clone(&scene), number, attack));
        }
        let until = options.quiet + options.attack;
        interrupted = wait(&scene, begun, until, progress).await.is_break();
        // Attacks under way are left where they are.
        attackers.shutdown().await;
    }
    if !interrupted {
        scene.seen().phase = Phase::After;
        let until = options.quiet + options.attack + options.quiet;
        interrupted = wait(&scene, begun, until, progress).await.is_break();
    }
    behaving.shutdown().await;
    let settled = when_idle(client, model, SETTLE).await.map_err(LoadError::metrics)?;
    let resident_after = resident(&scene).await;
    let accounts = settled.since(&before);
    Ok(report::report(
        &scene,
        interrupted,
        begun.elapsed(),
        resident_before,
        resident_after,
        &accounts,
    ))
}

/// The address of a target that may be attacked.
async fn resolve(target: &Target, any_host: bool) -> Result<SocketAddr, LoadError> {
    let (host, port) = target.client().address();
    let failed = |problem: String| LoadError::Unreachable {
        failure: Failure::Connect { address: format!("{host}:{port}"), problem },
    };
    let found = tokio::net::lookup_host((host, port)).await;
    let found: Vec<SocketAddr> = found.map_err(|error| failed(error.to_string()))?.collect();
    if !any_host && !is_this_machine(&found) {
        return Err(LoadError::NotThisMachine { host: host.to_owned() });
    }
    // The one that the client's connections are to as well, if a name has several.
    for address in &found {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return Ok(*address);
        }
    }
    Err(failed("none of its addresses answers".to_owned()))
}

/// Whether all addresses of a name are of this machine: a name may be anybody's tomorrow.
fn is_this_machine(addresses: &[SocketAddr]) -> bool {
    addresses.iter().all(|address| address.ip().to_canonical().is_loopback())
}

/// Waits until `until` after `begun`; breaks if everyone is to leave.
async fn wait(
    scene: &Scene,
    begun: Instant,
    until: Duration,
    progress: &mut dyn FnMut(HostileProgress) -> ControlFlow<()>,
) -> ControlFlow<()> {
    while begun.elapsed() < until {
        sleep(TICK).await;
        let (phase, answered, attacks) = {
            let seen = scene.seen();
            let answered = seen.felt.iter().map(Felt::answered).sum();
            (seen.phase, answered, seen.attacks.iter().map(Outcomes::ended).sum())
        };
        progress(HostileProgress { phase, elapsed: begun.elapsed(), answered, attacks })?;
    }
    ControlFlow::Continue(())
}

/// Looks at health and memory again and again.
async fn watch(scene: Arc<Scene>) {
    let mut ticks = interval(SAMPLE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let problem = health_problem(scene.target.client()).await;
        let resident = resident(&scene).await;
        let mut seen = scene.seen();
        seen.looks += 1;
        seen.unhealthy.extend(problem);
        seen.peak = seen.peak.max(resident.unwrap_or(0));
    }
}

/// Resident memory of the server, if it tells.
async fn resident(scene: &Scene) -> Option<u64> {
    let counters = Counters::read(scene.target.client(), scene.target.model()).await;
    counters.ok()?.resident_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_attacked() {
        let of_this_machine = |addresses: &[&str]| {
            let addresses: Vec<SocketAddr> =
                addresses.iter().map(|address| address.parse().unwrap()).collect();
            is_this_machine(&addresses)
        };
        assert!(of_this_machine(&["127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80"]));
        for other in ["192.168.0.1:80", "0.0.0.0:80", "[fe80::1]:80", "[::ffff:10.0.0.1]:80"] {
            assert!(!of_this_machine(&["127.0.0.1:80", other]), "{other}");
        }
    }
}
