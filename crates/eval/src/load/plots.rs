//! What a sweep looks like.

use super::{Arrivals, Distribution, Point};
use crate::{Chart, Horizontal, Line};

/// Steps of a cumulative distribution: enough for a smooth line.
const CDF_STEPS: usize = 200;

/// The kinds of points, each with a chart of its own.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Concurrency,
    StaticBatch,
    Rate,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Concurrency, Self::StaticBatch, Self::Rate];

    fn of(point: &Point) -> Self {
        match point.arrivals {
            Arrivals::Concurrency(_) => Self::Concurrency,
            Arrivals::StaticBatch(_) => Self::StaticBatch,
            Arrivals::Rate(_) => Self::Rate,
        }
    }

    /// What the sweep varies, with its unit.
    fn axis(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::StaticBatch => "static batch",
            Self::Rate => "requests per second",
        }
    }

    /// The beginning of a file's name, and of a line's.
    fn file(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::StaticBatch => "static-batch",
            Self::Rate => "rate",
        }
    }
}

/// The charts of a sweep, each with the name of its file.
///
/// Throughput against latency; time to first token and inter-token latency against what the sweep
/// varies, for each way of sending; the distribution of end-to-end latencies; and in-flight against
/// static batching where both were measured.
#[must_use]
pub fn plots(points: &[Point]) -> Vec<(String, Chart)> {
    let mut plots = vec![
        ("throughput-latency.svg".to_owned(), throughput_against_latency(points)),
        ("latency-distribution.svg".to_owned(), latency_distribution(points)),
    ];
    for kind in Kind::ALL {
        let of_kind: Vec<&Point> = points.iter().filter(|point| Kind::of(point) == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        let mut add = |name: &str, title: &str, latency: fn(&Point) -> Option<Distribution>| {
            let chart = percentiles(&of_kind, kind, title, latency);
            plots.push((format!("{}-{name}.svg", kind.file()), chart));
        };
        add("first-token", "Time to first token", |point| point.time_to_first_token);
        add("inter-token", "Inter-token latency", |point| point.inter_token_latency);
    }
    if points.iter().any(|point| Kind::of(point) == Kind::StaticBatch) {
        plots.push(("in-flight-against-static.svg".to_owned(), in_flight_against_static(points)));
    }
    plots
}

/// A point as the places of an axis name it.
fn place(point: &Point) -> String {
    match point.arrivals {
        Arrivals::Concurrency(n) | Arrivals::StaticBatch(n) => n.to_string(),
        Arrivals::Rate(rate) => rate.to_string(),
    }
}

fn milliseconds(seconds: f64) -> f64 {
    1e3 * seconds
}

fn throughput_against_latency(points: &[Point]) -> Chart {
    let mut lines = Vec::new();
    for kind in Kind::ALL {
        let of_kind = || points.iter().filter(|point| Kind::of(point) == kind);
        let mut add = |name: &str, labels: Vec<String>, value: fn(&Distribution) -> f64| {
            let at = |point: &Point| {
                let latency = point.end_to_end_latency.as_ref().map_or(f64::NAN, value);
                (point.output_tokens_per_second, latency)
            };
            lines.push(Line {
                name: format!("{}, {name}", kind.file()),
                points: of_kind().map(at).collect(),
                labels,
                marks: true,
            });
        };
        if of_kind().next().is_some() {
            add("p50", Vec::new(), |latency| latency.p50);
            add("p99", of_kind().map(place).collect(), |latency| latency.p99);
        }
    }
    Chart {
        title: "Throughput against latency".to_owned(),
        horizontal: (Horizontal::Numbers, "output tokens per second".to_owned()),
        vertical: "end-to-end latency (s)".to_owned(),
        lines,
    }
}

fn percentiles(
    points: &[&Point],
    kind: Kind,
    title: &str,
    latency: fn(&Point) -> Option<Distribution>,
) -> Chart {
    let line = |name: &str, value: fn(Distribution) -> f64| Line {
        name: name.to_owned(),
        points: points
            .iter()
            .enumerate()
            .map(|(at, point)| (at as f64, latency(point).map_or(f64::NAN, value)))
            .map(|(at, seconds)| (at, milliseconds(seconds)))
            .collect(),
        labels: Vec::new(),
        marks: true,
    };
    Chart {
        title: title.to_owned(),
        horizontal: (
            Horizontal::Places(points.iter().map(|point| place(point)).collect()),
            kind.axis().to_owned(),
        ),
        vertical: format!("{} (ms)", title.to_lowercase()),
        lines: vec![
            line("p99", |latency| latency.p99),
            line("p90", |latency| latency.p90),
            line("p50", |latency| latency.p50),
        ],
    }
}

fn latency_distribution(points: &[Point]) -> Chart {
    let line = |point: &Point| {
        let values = &point.latencies.end_to_end;
        let last = values.len().saturating_sub(1);
        let steps = last.min(CDF_STEPS);
        let at = |step: usize| {
            let rank = (step * last).checked_div(steps).unwrap_or(0);
            (values[rank], 100.0 * (rank + 1) as f64 / values.len() as f64)
        };
        let points = if values.is_empty() { Vec::new() } else { (0..=steps).map(at).collect() };
        Line { name: point.arrivals.to_string(), points, labels: Vec::new(), marks: false }
    };
    Chart {
        title: "Answers complete after so much time".to_owned(),
        horizontal: (Horizontal::Numbers, "end-to-end latency (s)".to_owned()),
        vertical: "share of answers (%)".to_owned(),
        lines: points.iter().map(line).collect(),
    }
}

fn in_flight_against_static(points: &[Point]) -> Chart {
    let of_kind = |kind| points.iter().filter(move |point| Kind::of(point) == kind);
    let places: Vec<String> = of_kind(Kind::StaticBatch).map(place).collect();
    let line = |name: &str, kind| Line {
        name: name.to_owned(),
        points: of_kind(kind)
            .filter_map(|point| {
                let at = places.iter().position(|name| *name == place(point))?;
                Some((at as f64, point.output_tokens_per_second))
            })
            .collect(),
        labels: Vec::new(),
        marks: true,
    };
    let lines = vec![line("in flight", Kind::Concurrency), line("static", Kind::StaticBatch)];
    Chart {
        title: "In-flight against static batching".to_owned(),
        horizontal: (Horizontal::Places(places), "batch size".to_owned()),
        vertical: "output tokens per second".to_owned(),
        lines,
    }
}
