//! What an attack showed, in tables.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::attackers::{AttackReport, AttackVerdict, Outcomes};
use super::healthy::PhaseReport;
use super::{Phase, Scene};
use crate::load::Distribution;
use crate::load::soak::counters::Counters;
use crate::{Align, Table};

/// What must hold of a server under attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostileCheck {
    /// Those who behave wait no more than so many times as long.
    Waits,
    /// Those who behave are all answered.
    Answered,
    /// `/health` says ready, at all times.
    Alive,
    /// No step failed, and nothing is under way or held when all have left.
    Accounts,
    /// Memory is what it was before.
    Memory,
    /// Every attack is refused or ends.
    Attacks,
}

impl HostileCheck {
    /// What must hold, in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waits => "those who behave wait little longer than before",
            Self::Answered => "those who behave are all answered",
            Self::Alive => "/health says ready at all times",
            Self::Accounts => "no step fails, and nothing is held at the end",
            Self::Memory => "memory is what it was before",
            Self::Attacks => "every attack is refused or ends",
        }
    }
}

impl Serialize for HostileCheck {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What was found for one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostileVerdict {
    /// What must hold.
    pub check: HostileCheck,
    /// What was found, in words.
    pub found: String,
    /// Whether it holds; none if the run cannot tell.
    pub holds: Option<bool>,
}

/// Resident memory of the server, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Resident {
    /// Before the attack.
    pub before: Option<u64>,
    /// The most at any time.
    pub peak: u64,
    /// When all had left.
    pub after: Option<u64>,
}

/// What an attack showed; it displays as tables.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HostileReport {
    /// The model.
    pub model: String,
    /// Clients that behaved.
    pub clients: usize,
    /// From the first request to the last answer, in seconds.
    pub seconds: f64,
    /// Whether somebody stopped it.
    pub interrupted: bool,
    /// What those who behave met, by phase.
    pub phases: Vec<PhaseReport>,
    /// What became of each kind of attack.
    pub attacks: Vec<AttackReport>,
    /// The server's memory.
    pub resident: Resident,
    /// Each check.
    pub checks: Vec<HostileVerdict>,
}

const MIB: f64 = (1u64 << 20) as f64;

/// Sums up. `accounts` are the server's after the run, counted from before it.
pub(super) fn report(
    scene: &Scene,
    interrupted: bool,
    length: Duration,
    before: Option<u64>,
    after: Option<u64>,
    accounts: &Counters,
) -> HostileReport {
    let seen = scene.seen();
    let phases: Vec<PhaseReport> =
        Phase::ALL.map(|phase| seen.felt[phase as usize].report(phase)).into();
    let attacks: Vec<AttackReport> = seen.attacks.iter().map(Outcomes::report).collect();
    let options = &scene.options;
    let checks = vec![
        waits(&phases, options.max_slowdown),
        answered(&phases),
        alive(seen.looks, &seen.unhealthy),
        settled(accounts),
        memory(before, after, options.max_growth),
        held(&attacks),
    ];
    HostileReport {
        model: scene.target.model().to_owned(),
        clients: options.clients.get(),
        seconds: length.as_secs_f64(),
        interrupted,
        phases,
        attacks,
        resident: Resident { before, peak: seen.peak, after },
        checks,
    }
}

/// Waits that are shorter are not felt, however many times as long as before they are: the scheduling
/// of a busy machine alone adds as much.
const UNFELT_SECONDS: f64 = 0.25;

/// Compares the 99th percentiles of the attack with those before.
fn waits(phases: &[PhaseReport], most: f64) -> HostileVerdict {
    let [quiet, attack] =
        [Phase::Quiet, Phase::Attack].map(|phase| phases.iter().find(|found| found.phase == phase));
    let pairs = quiet.zip(attack).map(|(quiet, attack)| {
        let each = quiet.waits.each().into_iter().zip(attack.waits.each());
        each.filter_map(|((name, quiet), (_, attack))| Some((name, quiet?.p99, attack?.p99)))
            .collect::<Vec<_>>()
    });
    let pairs = pairs.unwrap_or_default();
    let in_words = |(name, quiet, attack): &(&str, f64, f64)| {
        format!("{name} p99 {quiet:.2} s → {attack:.2} s, {:.1} times", attack / quiet)
    };
    let holds =
        |(_, quiet, attack): &(&str, f64, f64)| *attack <= (most * quiet).max(UNFELT_SECONDS);
    HostileVerdict {
        check: HostileCheck::Waits,
        found: pairs.iter().map(in_words).collect::<Vec<_>>().join("; "),
        holds: (pairs.len() == 3).then(|| pairs.iter().all(holds)),
    }
}

fn answered(phases: &[PhaseReport]) -> HostileVerdict {
    let answered: usize = phases.iter().map(|phase| phase.answered).sum();
    let failed: usize = phases.iter().map(|phase| phase.failed).sum();
    let example = phases.iter().flat_map(|phase| &phase.examples).next();
    let example = example.map_or(String::new(), |example| format!(", such as: {example}"));
    HostileVerdict {
        check: HostileCheck::Answered,
        found: format!("{answered} answered, {failed} not{example}"),
        holds: (answered > 0).then_some(failed == 0),
    }
}

fn alive(looks: usize, unhealthy: &[String]) -> HostileVerdict {
    let example = unhealthy.first().map_or(String::new(), |first| format!(", such as: {first}"));
    HostileVerdict {
        check: HostileCheck::Alive,
        found: format!("looked {looks} times, wrong {}{example}", unhealthy.len()),
        holds: (looks > 0).then_some(unhealthy.is_empty()),
    }
}

fn settled(accounts: &Counters) -> HostileVerdict {
    let Counters { failed_steps, waiting, running, referenced, .. } = *accounts;
    HostileVerdict {
        check: HostileCheck::Accounts,
        found: format!(
            "{failed_steps} steps failed; at the end {waiting} requests wait, {running} run, \
             {referenced} blocks are held"
        ),
        holds: Some(failed_steps == 0 && accounts.is_idle() && referenced == 0),
    }
}

fn memory(before: Option<u64>, after: Option<u64>, most: u64) -> HostileVerdict {
    let both = before.zip(after);
    let found = both.map(|(before, after)| {
        let (before, after) = (before as f64 / MIB, after as f64 / MIB);
        format!("{before:.0} MiB before, {after:.0} MiB after: {:+.0} MiB", after - before)
    });
    HostileVerdict {
        check: HostileCheck::Memory,
        found: found.unwrap_or_else(|| "the server does not say".to_owned()),
        holds: both.map(|(before, after)| after <= before + most),
    }
}

fn held(attacks: &[AttackReport]) -> HostileVerdict {
    let count = |verdict| attacks.iter().filter(|attack| attack.verdict == verdict).count();
    let (hurt, unknown) = (count(AttackVerdict::Hurt), count(AttackVerdict::Unknown));
    let tried: usize = attacks.iter().flat_map(|attack| attack.outcomes.values()).sum();
    HostileVerdict {
        check: HostileCheck::Attacks,
        found: format!(
            "{tried} attacks in {} ways: {hurt} hurt, {unknown} did not end",
            attacks.len()
        ),
        holds: (tried > 0).then_some(hurt == 0),
    }
}

impl HostileReport {
    /// Checks that did not hold.
    pub fn failed(&self) -> impl Iterator<Item = HostileCheck> {
        self.checks.iter().filter(|verdict| verdict.holds == Some(false)).map(|v| v.check)
    }

    fn verdicts(&self) -> Table {
        let head = [("check", Align::Left), ("", Align::Left), ("found", Align::Left)];
        let mut table = Table::new(head);
        for HostileVerdict { check, found, holds } in &self.checks {
            let holds = match holds {
                None => "unknown",
                Some(true) => "holds",
                Some(false) => "FAILS",
            };
            table.row([check.name(), holds, found]);
        }
        table
    }

    fn waits(&self) -> Table {
        let right = ["count", "mean", "p50", "p99", "max"].map(|name| (name, Align::Right));
        let left = [("waiting (ms)", Align::Left), ("phase", Align::Left)];
        let mut table = Table::new(left.into_iter().chain(right));
        for at in 0..3 {
            for phase in &self.phases {
                let (name, found) = phase.waits.each()[at];
                let Some(Distribution { count, mean, p50, p99, max, .. }) = found else { continue };
                let cells = [mean, p50, p99, max].map(|seconds| format!("{:.1}", 1e3 * seconds));
                let head = [name.to_owned(), phase.phase.name().to_owned(), count.to_string()];
                table.row(head.into_iter().chain(cells));
            }
        }
        table
    }

    fn outcomes(&self) -> Table {
        let mut table = Table::new([
            ("attack", Align::Left),
            ("", Align::Left),
            ("slowest (ms)", Align::Right),
            ("outcomes", Align::Left),
        ]);
        for attack in &self.attacks {
            let verdict = match attack.verdict {
                AttackVerdict::Held => "held",
                AttackVerdict::Hurt => "HURT",
                AttackVerdict::Unknown => "no end",
            };
            let outcomes = attack.outcomes.iter().map(|(name, count)| format!("{count} × {name}"));
            let outcomes = outcomes.collect::<Vec<_>>().join(", ");
            table.row([attack.attack, verdict, &attack.slowest_ms.to_string(), &outcomes]);
        }
        table
    }
}

impl fmt::Display for HostileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stopped = if self.interrupted { "; stopped before its end" } else { "" };
        writeln!(f, "{} clients that behave, {:.0} s in all{stopped}", self.clients, self.seconds)?;
        for table in [self.verdicts(), self.waits(), self.outcomes()] {
            write!(f, "\n{table}")?;
        }
        let Resident { before, peak, after } = self.resident;
        let mebibytes = |bytes: u64| format!("{:.0} MiB", bytes as f64 / MIB);
        let known = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), mebibytes);
        writeln!(
            f,
            "\nResident memory: {} before, {} at most, {} after.",
            known(before),
            mebibytes(peak),
            known(after)
        )?;
        for attack in &self.attacks {
            if let Some(example) = &attack.example {
                writeln!(f, "{}: {example}", attack.attack)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::soak::hostile::healthy::Waits;

    fn phase(phase: Phase, p99: f64) -> PhaseReport {
        let found = Distribution::of_sorted(&[p99; 3]);
        let waits = Waits { first_token: found, end: found, new_connection: found };
        PhaseReport { phase, answered: 3, failed: 0, turned_away: 0, examples: Vec::new(), waits }
    }

    #[test]
    fn waits_are_compared_with_those_before() {
        let holds = |quiet, attack| {
            waits(&[phase(Phase::Quiet, quiet), phase(Phase::Attack, attack)], 3.0).holds
        };
        assert_eq!(holds(1.0, 2.9), Some(true));
        assert_eq!(holds(1.0, 3.1), Some(false));
        // Nobody feels that.
        assert_eq!(holds(0.001, 0.2), Some(true));
        assert_eq!(waits(&[phase(Phase::Quiet, 1.0)], 3.0).holds, None);
    }

    #[test]
    fn memory_is_compared_with_that_before() {
        let holds = |before, after| memory(before, after, 50 << 20).holds;
        assert_eq!(holds(Some(1 << 30), Some((1 << 30) + (49 << 20))), Some(true));
        assert_eq!(holds(Some(1 << 30), Some((1 << 30) + (51 << 20))), Some(false));
        assert_eq!(holds(None, Some(1)), None);
    }
}
