//! A sweep in tables.

use std::fmt;

use serde::Serialize;

use super::{Arrivals, Comparison, Distribution, Point, Rate};
use crate::{Align, Table};

/// Everything a sweep has measured; it displays as tables.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The points in the order of the sweep.
    pub points: Vec<Point>,
    /// In-flight against static batching, where both were measured.
    pub in_flight_against_static: Vec<Comparison>,
}

/// A delay of sending that would show in the latencies, in seconds.
const NOTABLE_DELAY: f64 = 0.01;

impl Report {
    /// Of measured points.
    #[must_use]
    pub fn new(points: Vec<Point>) -> Self {
        Self { in_flight_against_static: Comparison::all(&points), points }
    }

    fn throughput(&self) -> Table {
        let mut table = Table::new([
            ("sent", Align::Left),
            ("answered", Align::Right),
            ("failed", Align::Right),
            ("time (s)", Align::Right),
            ("requests/s", Align::Right),
            ("output (tok/s)", Align::Right),
            ("total (tok/s)", Align::Right),
            ("TokensPerSecond", Align::Right),
        ]);
        for point in &self.points {
            let each = point.output_tokens_per_second_and_slot;
            table.row([
                point.arrivals.to_string(),
                point.complete.to_string(),
                point.failed().to_string(),
                format!("{:.1}", point.duration),
                format!("{:.2}", point.requests_per_second),
                format!("{:.1}", point.output_tokens_per_second),
                format!("{:.1}", point.total_tokens_per_second),
                each.map_or("–".to_owned(), |each| format!("{each:.2}")),
            ]);
        }
        table
    }

    fn latencies(&self) -> Table {
        let right = ["mean", "p50", "p90", "p95", "p99", "max"].map(|name| (name, Align::Right));
        let left = [("sent", Align::Left), ("latency (ms)", Align::Left)];
        let mut table = Table::new(left.into_iter().chain(right));
        for point in &self.points {
            let mut name = point.arrivals.to_string();
            for (what, latency) in [
                ("first token", point.time_to_first_token),
                ("between tokens", point.inter_token_latency),
                ("per token", point.time_per_output_token),
                ("end to end", point.end_to_end_latency),
            ] {
                let Some(Distribution { count: _, mean, p50, p90, p95, p99, max }) = latency else {
                    continue;
                };
                let values = [mean, p50, p90, p95, p99, max];
                let cells = values.map(|seconds| format!("{:.1}", 1e3 * seconds));
                table.row([std::mem::take(&mut name), what.to_owned()].into_iter().chain(cells));
            }
        }
        table
    }

    fn comparisons(&self) -> Table {
        let mut table = Table::new([
            ("batch", Align::Right),
            ("in flight (tok/s)", Align::Right),
            ("static (tok/s)", Align::Right),
            ("ratio", Align::Right),
            ("of rounds", Align::Right),
        ]);
        for compared in &self.in_flight_against_static {
            let (low, high) = compared.ratio_range;
            table.row([
                compared.batch.to_string(),
                format!("{:.1}", compared.in_flight_tokens_per_second),
                format!("{:.1}", compared.static_tokens_per_second),
                format!("{:.2}", compared.ratio),
                format!("{low:.2}–{high:.2}"),
            ]);
        }
        table
    }

    /// What a reader should know before believing the numbers.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for point in &self.points {
            let name = point.arrivals;
            if point.interrupted {
                notes.push(format!(
                    "{name}: stopped early; its throughput lacks the requests that were under way"
                ));
            }
            if !point.failures.is_empty() {
                let kinds = point.failures.iter().map(|(kind, count)| format!("{count} × {kind}"));
                let kinds: Vec<String> = kinds.collect();
                notes.push(format!("{name}: failed: {}", kinds.join(", ")));
            }
            if point.retries > 0 {
                let retries = point.retries;
                notes.push(format!("{name}: turned away and sent again {retries} times"));
            }
            if point.uncounted > 0 {
                notes.push(format!(
                    "{name}: the server did not count the tokens of {} answers; pieces of text \
                     were counted instead",
                    point.uncounted
                ));
            }
            if point.cached_tokens > 0 {
                let share = 100.0 * point.cached_tokens as f64 / point.input_tokens as f64;
                notes.push(format!(
                    "{name}: {share:.0} % of the tokens of prompts came from the server's prefix \
                     cache"
                ));
            }
            let late = point.largest_delay > NOTABLE_DELAY;
            if late && matches!(name, Arrivals::Rate(rate) if rate != Rate::INFINITE) {
                notes.push(format!(
                    "{name}: this client sent up to {:.0} ms late; a rate this high needs a \
                     faster one",
                    1e3 * point.largest_delay
                ));
            }
        }
        let merged = self.points.iter().map(|point| point.tokens_per_chunk);
        let merged = merged.filter(|tokens| *tokens > 0.0).fold(0.0, f64::max);
        if merged > 1.005 {
            notes.push(format!(
                "a piece of text carries up to {merged:.2} tokens on average, so the time between \
                 tokens is that between pieces; the time per token is not affected"
            ));
        }
        notes
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.throughput(), self.latencies())?;
        if !self.in_flight_against_static.is_empty() {
            write!(f, "\n{}", self.comparisons())?;
        }
        let notes = self.notes();
        if !notes.is_empty() {
            writeln!(f)?;
        }
        notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}
