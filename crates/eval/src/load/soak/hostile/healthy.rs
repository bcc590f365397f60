//! Clients that behave, and how long they wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval_at, sleep, timeout};

use super::wire::Wire;
use super::{Phase, Scene};
use crate::load::{AnswerLength, Distribution, Failure, synthetic_requests};

/// Words of a prompt.
const PROMPT_WORDS: usize = 24;
/// Time until an answer must be complete.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time from one newcomer to the next.
const NEWCOMERS: Duration = Duration::from_millis(500);
/// Times that a client comes again when it is turned away.
const MAX_RETRIES: usize = 5;
/// Failures that are kept in words.
const MAX_EXAMPLES: usize = 5;

/// What those who behave felt in a phase, in seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Felt {
    first_token: Vec<f64>,
    end: Vec<f64>,
    new_connection: Vec<f64>,
    turned_away: usize,
    failed: usize,
    examples: Vec<String>,
}

/// How long those who behave waited for one thing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Waits {
    /// For the first text of an answer, in seconds.
    pub first_token: Option<Distribution>,
    /// For its end.
    pub end: Option<Distribution>,
    /// For the answer to a first request on a new connection, `GET /live`.
    pub new_connection: Option<Distribution>,
}

impl Waits {
    /// Each with its name.
    #[must_use]
    pub const fn each(&self) -> [(&'static str, Option<Distribution>); 3] {
        [
            ("first token", self.first_token),
            ("whole answer", self.end),
            ("new connection", self.new_connection),
        ]
    }
}

/// What those who behave met in a phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhaseReport {
    /// The phase.
    pub phase: Phase,
    /// Complete answers.
    pub answered: usize,
    /// Requests without one.
    pub failed: usize,
    /// Times that a request was turned away with 429 and came again.
    pub turned_away: usize,
    /// The first failures, in words.
    pub examples: Vec<String>,
    /// How long they waited.
    pub waits: Waits,
}

impl Felt {
    pub(super) fn answered(&self) -> usize {
        self.end.len()
    }

    fn fail(&mut self, problem: String) {
        self.failed += 1;
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(problem);
        }
    }

    pub(super) fn report(&self, phase: Phase) -> PhaseReport {
        let distribution = |seconds: &[f64]| {
            let mut seconds = seconds.to_vec();
            seconds.sort_unstable_by(f64::total_cmp);
            Distribution::of_sorted(&seconds)
        };
        PhaseReport {
            phase,
            answered: self.answered(),
            failed: self.failed,
            turned_away: self.turned_away,
            examples: self.examples.clone(),
            waits: Waits {
                first_token: distribution(&self.first_token),
                end: distribution(&self.end),
                new_connection: distribution(&self.new_connection),
            },
        }
    }
}

/// One client: a short answer every so often, for ever.
pub(super) async fn client(scene: Arc<Scene>, number: usize) {
    let options = &scene.options;
    // Spread over the time between two requests.
    sleep(options.pace.mul_f64(number as f64 / options.clients.get() as f64)).await;
    let mut ticks = interval_at(tokio::time::Instant::now(), options.pace);
    // One that waits longer than that asks less.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let length = AnswerLength::Exactly(options.answer_tokens.get());
    for turn in 0.. {
        ticks.tick().await;
        let seed = options.seed.wrapping_add((number as u64) << 32).wrapping_add(turn);
        for request in synthetic_requests(1, PROMPT_WORDS, length, seed) {
            let phase = scene.seen().phase;
            let sent = Instant::now();
            let asking = async {
                for _ in 0..MAX_RETRIES {
                    match scene.target.answer(&request, "", sent).await {
                        Err(Failure::Status { status: 429, retry_after, .. }) => {
                            scene.seen().felt[phase as usize].turned_away += 1;
                            sleep(retry_after.unwrap_or(Duration::from_secs(1))).await;
                        }
                        outcome => return outcome,
                    }
                }
                scene.target.answer(&request, "", sent).await
            };
            let late = Failure::Timeout { seconds: PATIENCE.as_secs_f64() };
            let outcome = timeout(PATIENCE, asking).await.unwrap_or(Err(late));
            let felt = &mut scene.seen().felt[phase as usize];
            match outcome {
                Ok(answer) => {
                    felt.first_token.push(answer.time_to_first_token().as_secs_f64());
                    felt.end.push(answer.end.as_secs_f64());
                }
                Err(failure) => felt.fail(failure.to_string()),
            }
        }
    }
}

/// Somebody new again and again: a connection, one request, and gone.
pub(super) async fn newcomer(scene: Arc<Scene>) {
    let wire = Wire::get(&scene.target.client().authority(), "/live");
    loop {
        sleep(NEWCOMERS).await;
        let (phase, begun) = (scene.seen().phase, Instant::now());
        let asked = timeout(PATIENCE, wire.ask(scene.address)).await;
        let seconds = begun.elapsed().as_secs_f64();
        let felt = &mut scene.seen().felt[phase as usize];
        match asked {
            Ok(Ok(reply)) if reply.status == Some(200) => felt.new_connection.push(seconds),
            Ok(Ok(reply)) => felt.fail(format!("GET /live: status {:?}", reply.status)),
            Ok(Err(error)) => felt.fail(format!("GET /live: {error}")),
            Err(_) => felt.fail(format!("GET /live: no answer after {seconds:.0} s")),
        }
    }
}
