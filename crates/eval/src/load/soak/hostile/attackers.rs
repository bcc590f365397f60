//! Attackers: each does one thing again and again, and notes what becomes of it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::Scene;
use super::attacks::{Attack, Expected, Means};
use super::wire::{Reply, hold};

/// Time after which one who leaves is gone.
const LEAVES_AFTER: Duration = Duration::from_millis(300);
/// Characters of an answer that a report quotes.
const MAX_QUOTE: usize = 200;

/// What became of the attacks of one kind.
#[derive(Clone, Debug)]
pub(super) struct Outcomes {
    name: &'static str,
    /// How often each thing happened.
    counts: BTreeMap<String, usize>,
    slowest: Duration,
    wrong: usize,
    example: Option<String>,
}

/// What became of an attack.
struct Outcome {
    /// In a word or two, to be counted.
    name: String,
    /// What is wrong with it, if something is.
    problem: Option<String>,
}

/// Whether an attack did what attacks do to a server that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AttackVerdict {
    /// It was refused, or ended as it should.
    Held,
    /// It was not.
    Hurt,
    /// It has not ended once.
    Unknown,
}

/// What became of the attacks of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AttackReport {
    /// What was done.
    pub attack: &'static str,
    /// Outcomes, counted: statuses, or how the connection ended.
    pub outcomes: BTreeMap<String, usize>,
    /// The longest time until one was known, in milliseconds.
    pub slowest_ms: u64,
    /// Outcomes that a server which holds does not have.
    pub wrong: usize,
    /// The first of these in words.
    pub example: Option<String>,
    /// Whether the server held.
    pub verdict: AttackVerdict,
}

impl Outcomes {
    pub(super) fn of(attack: &Attack) -> Self {
        Self {
            name: attack.name,
            counts: BTreeMap::new(),
            slowest: Duration::ZERO,
            wrong: 0,
            example: None,
        }
    }

    /// How many there are.
    pub(super) fn ended(&self) -> usize {
        self.counts.values().sum()
    }

    fn note(&mut self, Outcome { name, problem }: Outcome, took: Duration) {
        *self.counts.entry(name).or_default() += 1;
        self.slowest = self.slowest.max(took);
        if let Some(problem) = problem {
            self.wrong += 1;
            self.example.get_or_insert(problem);
        }
    }

    pub(super) fn report(&self) -> AttackReport {
        AttackReport {
            attack: self.name,
            outcomes: self.counts.clone(),
            slowest_ms: self.slowest.as_millis() as u64,
            wrong: self.wrong,
            example: self.example.clone(),
            verdict: match (self.ended(), self.wrong) {
                (0, _) => AttackVerdict::Unknown,
                (_, 0) => AttackVerdict::Held,
                _ => AttackVerdict::Hurt,
            },
        }
    }
}

/// Attacks in one way, again and again.
pub(super) async fn attacker(scene: Arc<Scene>, number: usize, attack: Attack) {
    // Not all at the same moment.
    let all = scene.seen().attacks.len();
    sleep(scene.options.pause.mul_f64(number as f64 / all.max(1) as f64)).await;
    loop {
        let begun = Instant::now();
        let outcome = once(&scene, &attack).await;
        scene.seen().attacks[number].note(outcome, begun.elapsed());
        sleep(scene.options.pause).await;
    }
}

async fn once(scene: &Scene, attack: &Attack) -> Outcome {
    let (to, patience) = (scene.address, attack.patience());
    let exchange = async {
        match &attack.means {
            Means::Request(wire) => wire.exchange(to).await,
            Means::SlowBody(wire) => wire.send_slowly(to).await,
            Means::SlowReader(wire) => wire.read_slowly(to).await,
            Means::LeftAlone(_) | Means::HalfOpen { .. } => Ok(Reply::default()),
        }
    };
    match &attack.means {
        Means::LeftAlone(wire) => {
            let _ = wire.leave_after(to, LEAVES_AFTER).await;
            return Outcome { name: "left".to_owned(), problem: None };
        }
        Means::HalfOpen { connections, beginning } => {
            let closed = hold(to, *connections, beginning, patience).await;
            return held(*connections, closed, patience);
        }
        Means::Request(_) | Means::SlowBody(_) | Means::SlowReader(_) => {}
    }
    match timeout(patience, exchange).await {
        Err(_) => {
            let problem = format!("no end after {} s", patience.as_secs());
            // Who reads slowly is not done in any time; the server may wait for it as long as it likes.
            let slow = matches!(attack.means, Means::SlowReader(_));
            Outcome { name: "no end".to_owned(), problem: (!slow).then_some(problem) }
        }
        Ok(reply) => judge(attack.expected, reply),
    }
}

/// What became of connections that were held open.
fn held(connections: usize, closed: io::Result<usize>, patience: Duration) -> Outcome {
    match closed {
        Ok(closed) if closed == connections => {
            Outcome { name: "all closed".to_owned(), problem: None }
        }
        Ok(closed) => {
            let open = connections - closed;
            let problem =
                format!("{open} of {connections} are open after {} s", patience.as_secs());
            Outcome { name: "some held".to_owned(), problem: Some(problem) }
        }
        Err(error) => {
            Outcome { name: "no connection".to_owned(), problem: Some(error.to_string()) }
        }
    }
}

fn judge(expected: Expected, reply: io::Result<Reply>) -> Outcome {
    let (status, body) = match reply {
        Ok(Reply { status: Some(status), body }) => (status, body),
        // A server may hang up on what it does not want to hear.
        Ok(Reply { status: None, .. }) | Err(_) => {
            return Outcome { name: "closed".to_owned(), problem: None };
        }
    };
    let quote = |body: &str| body.chars().take(MAX_QUOTE).collect::<String>();
    let (name, fine) = match (status, expected) {
        // The busy server's own refusal.
        (429 | 503, _) => (status.to_string(), true),
        (400..=499, Expected::Refused | Expected::RefusedOrAnswered) => (status.to_string(), true),
        (200, Expected::RefusedOrAnswered) => (status.to_string(), true),
        (200, Expected::Ended) => {
            let cut = body.contains("\"finish_reason\":\"length\"");
            (if cut { "200, cut" } else { "200, ended" }.to_owned(), !cut)
        }
        _ => (status.to_string(), false),
    };
    let problem = (!fine).then(|| format!("{name}: {}", quote(&body)));
    Outcome { name, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> io::Result<Reply> {
        Ok(Reply { status: Some(status), body: body.to_owned() })
    }

    #[test]
    fn outcomes_are_judged_by_what_is_expected() {
        let fine = |expected, reply| judge(expected, reply).problem.is_none();
        assert!(fine(Expected::Refused, reply(400, "")) && fine(Expected::Refused, reply(415, "")));
        assert!(
            !fine(Expected::Refused, reply(200, "")) && !fine(Expected::Refused, reply(500, ""))
        );
        assert!(fine(Expected::RefusedOrAnswered, reply(200, "")));
        assert!(!fine(Expected::RefusedOrAnswered, reply(500, "")));
        assert!(fine(Expected::Ended, reply(200, r#"{"finish_reason":"stop"}"#)));
        assert!(!fine(Expected::Ended, reply(200, r#"{"finish_reason":"length"}"#)));
        assert!(!fine(Expected::Ended, reply(400, "no such format")));
        assert!(fine(Expected::Refused, Ok(Reply::default())));
    }

    #[test]
    fn one_wrong_outcome_is_enough() {
        let wire = super::super::wire::Wire::get("a", "/");
        let attack = Attack { name: "a", expected: Expected::Refused, means: Means::Request(wire) };
        let mut outcomes = Outcomes::of(&attack);
        assert_eq!(outcomes.report().verdict, AttackVerdict::Unknown);
        outcomes.note(judge(attack.expected, reply(413, "")), Duration::from_secs(1));
        assert_eq!(outcomes.report().verdict, AttackVerdict::Held);
        outcomes.note(judge(attack.expected, reply(200, "fine")), Duration::from_millis(5));
        let report = outcomes.report();
        assert_eq!(
            (report.verdict, report.wrong, report.slowest_ms),
            (AttackVerdict::Hurt, 1, 1000)
        );
        assert_eq!((report.outcomes["413"], report.outcomes["200"]), (1, 1));
        assert_eq!(report.example.as_deref(), Some("200: fine"));
    }

    #[test]
    fn connections_that_stay_open_are_wrong() {
        let fine = |closed| held(400, closed, Duration::from_secs(20)).problem.is_none();
        assert!(fine(Ok(400)) && !fine(Ok(399)) && !fine(Ok(0)));
    }
}
