//! What a soak found, in tables.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::SoakOptions;
use super::checks::{Check, Verdict};
use super::counters::Counters;
use super::memory::MemoryUse;
use super::tally::Tally;
use crate::load::Distribution;
use crate::{Align, Table};

/// What a soak found; it displays as tables.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SoakReport {
    /// What was run.
    #[serde(flatten)]
    pub sizing: Sizing,
    /// From the first request under load to the last answer, in seconds.
    pub seconds: f64,
    /// What the clients saw.
    pub seen: Seen,
    /// What the server counted.
    pub server: Observed,
    /// Each check.
    pub checks: Vec<Verdict>,
}

/// What was run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sizing {
    /// The model.
    pub model: String,
    /// Clients side by side.
    pub clients: usize,
    /// Seconds during which requests were sent, if nobody stopped it.
    pub duration: f64,
    /// Decides everything random.
    pub seed: u64,
    /// Whether somebody stopped it.
    pub interrupted: bool,
}

/// What the clients saw.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Seen {
    /// Complete answers.
    pub answered: usize,
    /// Complete answers, by what was asked.
    pub kinds: BTreeMap<String, usize>,
    /// Of the complete answers, those to the fixed set.
    pub repeated: usize,
    /// Requests that clients broke off.
    pub cancelled: usize,
    /// Malformed requests that were refused, by what is wrong with them.
    pub refused: BTreeMap<&'static str, usize>,
    /// Times that a request was turned away with 429, to come again.
    pub turned_away: usize,
    /// Of these, requests for which the time was over before they could.
    pub given_up: usize,
    /// Tokens of the prompts that have complete answers.
    pub input_tokens: u64,
    /// Tokens of complete answers.
    pub output_tokens: u64,
    /// To the first text of a stream, in seconds.
    pub time_to_first_token: Option<Distribution>,
    /// Between pieces of text of a stream, in seconds.
    pub inter_token_latency: Option<Distribution>,
    /// To the end of an answer, turned away or not, in seconds.
    pub end_to_end_latency: Option<Distribution>,
    /// The most requests that ran side by side, of those looked at.
    pub most_running: u64,
    /// The most that waited.
    pub most_waiting: u64,
    /// The most blocks of the cache that were held.
    pub most_blocks: u64,
}

/// What the server counted, from before the load until nothing was under way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Observed {
    /// Requests that the engine accepted; one with two answers counts as two.
    pub accepted: u64,
    /// Requests that it completed.
    pub finished: u64,
    /// Requests whose reader left.
    pub cancelled: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that it turned away.
    pub rejected: u64,
    /// HTTP requests whose client left before the end.
    pub vanished: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Of these, tokens that were in the cache.
    pub cached_tokens: u64,
    /// Tokens chosen, for requests that were broken off as well.
    pub generated_tokens: u64,
    /// Requests that gave their blocks back to come again.
    pub preemptions: u64,
    /// Cached blocks that were overwritten.
    pub evictions: u64,
    /// Blocks at the end: held, kept for later, never used or free.
    pub blocks: [u64; 3],
    /// Its memory, if it says and the run was long enough.
    pub memory: Option<MemoryUse>,
}

impl Sizing {
    pub(super) fn of(options: &SoakOptions, model: &str, interrupted: bool) -> Self {
        let (clients, seed) = (options.clients.get(), options.seed);
        let duration = options.duration.as_secs_f64();
        Self { model: model.to_owned(), clients, duration, seed, interrupted }
    }
}

impl Observed {
    pub(super) fn new(counters: &Counters, memory: Option<MemoryUse>) -> Self {
        let Counters { referenced, idle, free, .. } = *counters;
        Self {
            accepted: counters.accepted,
            finished: counters.finished,
            cancelled: counters.cancelled,
            failed: counters.failed,
            rejected: counters.rejected,
            vanished: counters.vanished,
            prompt_tokens: counters.prompt_tokens,
            cached_tokens: counters.cached_tokens,
            generated_tokens: counters.generated_tokens,
            preemptions: counters.preemptions,
            evictions: counters.evictions,
            blocks: [referenced, idle, free],
            memory,
        }
    }
}

fn distribution(mut seconds: Vec<f64>) -> Option<Distribution> {
    seconds.sort_unstable_by(f64::total_cmp);
    Distribution::of_sorted(&seconds)
}

impl SoakReport {
    pub(super) fn new(sizing: Sizing, tally: Tally, length: Duration, server: Observed) -> Self {
        let seen = Seen {
            answered: tally.answered,
            kinds: tally.kinds,
            repeated: tally.repeated,
            cancelled: tally.cancelled,
            refused: tally.refused,
            turned_away: tally.turned_away,
            given_up: tally.given_up,
            input_tokens: tally.input_tokens,
            output_tokens: tally.output_tokens,
            time_to_first_token: distribution(tally.first_token),
            inter_token_latency: distribution(tally.inter_token),
            end_to_end_latency: distribution(tally.end_to_end),
            most_running: tally.most_running,
            most_waiting: tally.most_waiting,
            most_blocks: tally.most_blocks,
        };
        let (seconds, checks) = (length.as_secs_f64(), tally.findings.verdicts());
        Self { sizing, seconds, seen, server, checks }
    }

    /// Checks that did not hold.
    pub fn failed(&self) -> impl Iterator<Item = Check> {
        self.checks.iter().filter(|verdict| verdict.wrong > 0).map(|verdict| verdict.check)
    }

    fn verdicts(&self) -> Table {
        let mut table = Table::new([
            ("check", Align::Left),
            ("examined", Align::Right),
            ("wrong", Align::Right),
            ("", Align::Left),
        ]);
        for Verdict { check, examined, wrong, .. } in &self.checks {
            let verdict = match (examined, wrong) {
                (0, _) => "no occasion",
                (_, 0) => "holds",
                _ => "FAILS",
            };
            let (examined, wrong) = (examined.to_string(), wrong.to_string());
            table.row([check.name(), &examined, &wrong, verdict]);
        }
        table
    }

    fn traffic(&self) -> Table {
        let Self { seen, server, seconds, .. } = self;
        let mut table = Table::new([("traffic", Align::Left), ("", Align::Right)]);
        let mut row = |name: &str, value: String| table.row([name, &value]);
        row("complete answers", seen.answered.to_string());
        for (kind, count) in &seen.kinds {
            row(&format!("  {kind}"), count.to_string());
        }
        row("  of these, repeated requests", seen.repeated.to_string());
        row("broken off by the client", seen.cancelled.to_string());
        let refused: usize = seen.refused.values().sum();
        row(&format!("malformed, of {} kinds, refused", seen.refused.len()), refused.to_string());
        row("turned away with 429, to come again", seen.turned_away.to_string());
        row("prompt tokens", server.prompt_tokens.to_string());
        row("  of these, in the prefix cache", server.cached_tokens.to_string());
        row("tokens made", server.generated_tokens.to_string());
        row("  of these, in complete answers", seen.output_tokens.to_string());
        let speed = server.generated_tokens as f64 / seconds;
        row("tokens made per second", format!("{speed:.1}"));
        row("most requests side by side", seen.most_running.to_string());
        row("most requests waiting", seen.most_waiting.to_string());
        row("preemptions", server.preemptions.to_string());
        row("blocks overwritten", server.evictions.to_string());
        table
    }

    fn accounts(&self) -> Table {
        let Observed { accepted, finished, cancelled, failed, blocks, .. } = &self.server;
        let mut table = Table::new([("the server's accounts", Align::Left), ("", Align::Right)]);
        let mut row = |name: &str, value: u64| table.row([name, &value.to_string()]);
        row("requests accepted (each answer is one)", *accepted);
        row("finished", *finished);
        row("cancelled", *cancelled);
        row("failed", *failed);
        let [held, idle, free] = *blocks;
        row("blocks held at the end", held);
        row("blocks kept for prompts that come again", idle);
        row("blocks free", free);
        table
    }

    fn latencies(&self) -> Table {
        let right = ["count", "mean", "p50", "p90", "p99", "max"].map(|name| (name, Align::Right));
        let mut table = Table::new([("latency (ms)", Align::Left)].into_iter().chain(right));
        for (what, found) in [
            ("first token", self.seen.time_to_first_token),
            ("between tokens", self.seen.inter_token_latency),
            ("end to end", self.seen.end_to_end_latency),
        ] {
            let Some(found) = found else { continue };
            let values = [found.mean, found.p50, found.p90, found.p99, found.max];
            let cells = values.map(|seconds| format!("{:.1}", 1e3 * seconds));
            let head = [what.to_owned(), found.count.to_string()];
            table.row(head.into_iter().chain(cells));
        }
        table
    }

    fn memory(&self) -> Option<Table> {
        let memory = self.server.memory?;
        let mebibytes = |bytes: f64| format!("{:.1}", bytes / (1u64 << 20) as f64);
        let mut table = Table::new([("resident memory", Align::Left), ("MiB", Align::Right)]);
        for (name, bytes) in [
            ("before the load", memory.start as f64),
            ("at half time", memory.half as f64),
            ("at the end", memory.end as f64),
            ("most", memory.peak as f64),
            ("growth in the second half, by a straight line", memory.growth),
            ("growth in a minute, by that line", memory.bytes_per_minute),
        ] {
            table.row([name, &mebibytes(bytes)]);
        }
        Some(table)
    }
}

impl fmt::Display for SoakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sizing { clients, duration, seed, interrupted, .. } = &self.sizing;
        let stopped = if *interrupted { "; stopped before its end" } else { "" };
        writeln!(
            f,
            "{clients} clients for {duration} s, seed {seed}; {:.1} s until the last answer{stopped}",
            self.seconds
        )?;
        let tables = [self.traffic(), self.accounts(), self.latencies()];
        for table in [self.verdicts()].into_iter().chain(tables).chain(self.memory()) {
            write!(f, "\n{table}")?;
        }
        let first_used = self.server.memory.map_or(0, |memory| memory.blocks_first_used);
        if first_used > 0 {
            writeln!(
                f,
                "\nThe cache was still taking memory in the second half, for {first_used} blocks used \
                 for the first time; a server with a smaller --memory, or a longer --duration, tells \
                 more."
            )?;
        }
        for Verdict { check, wrong, examples, .. } in &self.checks {
            if *wrong > 0 {
                writeln!(f, "\n{}: {wrong} times not", check.name())?;
                examples.iter().try_for_each(|example| writeln!(f, "  {example}"))?;
            }
        }
        Ok(())
    }
}
