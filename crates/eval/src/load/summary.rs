//! From records to numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::{Answered, Arrivals, Record, Run};

/// How values are distributed; here always seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Distribution {
    /// Number of values.
    pub count: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// 90 % are smaller.
    pub p90: f64,
    /// 95 % are smaller.
    pub p95: f64,
    /// 99 % are smaller.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Distribution {
    /// Of these values in ascending order; `None` if there are none.
    ///
    /// ```
    /// use bantam_eval::load::Distribution;
    /// let values: Vec<f64> = (0..=100).map(f64::from).collect();
    /// let found = Distribution::of_sorted(&values).unwrap();
    /// assert_eq!((found.mean, found.p50, found.p99, found.max), (50.0, 50.0, 99.0, 100.0));
    /// ```
    #[must_use]
    pub fn of_sorted(values: &[f64]) -> Option<Self> {
        let max = *values.last()?;
        let rank = |share| percentile(values, share);
        Some(Self {
            count: values.len(),
            mean: values.iter().sum::<f64>() / values.len() as f64,
            p50: rank(0.50),
            p90: rank(0.90),
            p95: rank(0.95),
            p99: rank(0.99),
            max,
        })
    }
}

/// The value below which a share (0 to 1) of the values lies: between the two nearest in rank,
/// linearly, as NumPy does. `sorted` is ascending and not empty.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = share * (sorted.len() - 1) as f64;
    let (below, between) = (rank.floor() as usize, rank.fract());
    let above = sorted[(below + 1).min(sorted.len() - 1)];
    sorted[below] + between * (above - sorted[below])
}

/// The four times that users feel, in seconds and ascending.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latencies {
    /// Time to first token of each request.
    pub first_token: Vec<f64>,
    /// Gaps between pieces of text, of all requests.
    pub inter_token: Vec<f64>,
    /// Time per output token after the first, of each request.
    pub per_token: Vec<f64>,
    /// From sending to the end, of each request.
    pub end_to_end: Vec<f64>,
}

impl Latencies {
    fn of<'a>(answers: impl Iterator<Item = &'a Answered>) -> Self {
        let seconds = |time: Duration| time.as_secs_f64();
        let mut all = Self::default();
        for answer in answers {
            all.first_token.push(seconds(answer.time_to_first_token()));
            all.inter_token.extend(answer.inter_token_latencies().map(seconds));
            all.per_token.extend(answer.time_per_output_token().map(seconds));
            all.end_to_end.push(seconds(answer.end));
        }
        let Self { first_token, inter_token, per_token, end_to_end } = &mut all;
        for values in [first_token, inter_token, per_token, end_to_end] {
            values.sort_unstable_by(f64::total_cmp);
        }
        all
    }
}

/// What was measured at one point of a sweep, in one run or several.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// When requests were sent.
    pub arrivals: Arrivals,
    /// Runs that are taken together.
    pub rounds: usize,
    /// Whether a run was stopped before its end: what was under way then took time, but counts
    /// nowhere.
    pub interrupted: bool,
    /// Requests that ended, one way or the other.
    pub requests: usize,
    /// Requests with a complete answer; all that follows is about them.
    pub complete: usize,
    /// The others by kind.
    pub failures: BTreeMap<String, usize>,
    /// Times that requests were turned away and sent again.
    pub retries: usize,
    /// Seconds from the first request sent to the end of the last, summed over the rounds.
    pub duration: f64,
    /// Tokens of all prompts.
    pub input_tokens: usize,
    /// Those of them that the server had in its prefix cache, as far as it says.
    pub cached_tokens: usize,
    /// Tokens of all answers.
    pub output_tokens: usize,
    /// Answers whose tokens the server did not count; then each piece of text counts as one, and
    /// tokens of prompts as none.
    pub uncounted: usize,
    /// Complete requests per second.
    pub requests_per_second: f64,
    /// Tokens of answers per second.
    pub output_tokens_per_second: f64,
    /// Tokens of prompts and answers per second.
    pub total_tokens_per_second: f64,
    /// `TokensPerSecond`: output tokens per second and place of the batch; `None` in an open loop,
    /// which has no batch size. See [`tokens_per_second_and_slot`].
    pub output_tokens_per_second_and_slot: Option<f64>,
    /// Tokens of an answer for each piece of text. At 1 an inter-token latency is that of a token.
    pub tokens_per_chunk: f64,
    /// The most that the client sent a request later than planned, in seconds.
    pub largest_delay: f64,
    /// Time to first token.
    pub time_to_first_token: Option<Distribution>,
    /// Gaps between pieces of text.
    pub inter_token_latency: Option<Distribution>,
    /// Time per output token after the first.
    pub time_per_output_token: Option<Distribution>,
    /// From sending to the end.
    pub end_to_end_latency: Option<Distribution>,
    /// Output tokens per second of each round.
    pub rounds_output_tokens_per_second: Vec<f64>,
    /// Every single value.
    #[serde(skip)]
    pub latencies: Latencies,
}

/// `TokensPerSecond` as serving tables of TensorRT-LLM state it:
/// `(total_output_tokens / batch_size) / total_latency` (Nie and Chen, *Accelerating End-to-End
/// Large Language Models System using a Unified Inference Architecture and FP8*, GTC 2024, S61691).
///
/// They print the formula alone. Here `batch_size` is the largest number of requests under way, and
/// `total_latency` the seconds from the first request sent to the end of the last. So it is the
/// speed at which one place of the batch brings tokens; times `batch_size` it is the throughput.
///
/// ```
/// use bantam_eval::load::tokens_per_second_and_slot;
/// assert_eq!(tokens_per_second_and_slot(120_000, 4, 1_000.0), 30.0);
/// ```
#[must_use]
pub fn tokens_per_second_and_slot(output_tokens: usize, batch_size: usize, seconds: f64) -> f64 {
    output_tokens as f64 / batch_size as f64 / seconds
}

impl Point {
    /// Sums up one run, or several with the same arrivals; `None` for no run.
    #[must_use]
    pub fn of(runs: &[Run]) -> Option<Self> {
        let arrivals = runs.first()?.arrivals;
        let records = || runs.iter().flat_map(|run| &run.records);
        let answers = || answers(records());
        let mut failures = BTreeMap::new();
        for failure in records().filter_map(|record| record.outcome.as_ref().err()) {
            *failures.entry(failure.kind()).or_insert(0) += 1;
        }
        let duration = runs.iter().map(|run| run.duration.as_secs_f64()).sum();
        let input_tokens = answers().map(|answer| answer.input_tokens).sum();
        let output_tokens = answers().map(|answer| answer.output_tokens).sum();
        let chunks: usize = answers().map(|answer| answer.chunks.len()).sum();
        let complete = answers().count();
        let per_second = |count: usize| ratio(count as f64, duration);
        let of_round = |run: &Run| {
            let tokens: usize =
                self::answers(run.records.iter()).map(|answer| answer.output_tokens).sum();
            ratio(tokens as f64, run.duration.as_secs_f64())
        };
        let latencies = Latencies::of(answers());
        Some(Self {
            arrivals,
            rounds: runs.len(),
            interrupted: runs.iter().any(|run| run.interrupted),
            requests: records().count(),
            complete,
            failures,
            retries: records().map(|record| record.retries).sum(),
            duration,
            input_tokens,
            cached_tokens: answers().map(|answer| answer.cached_tokens).sum(),
            output_tokens,
            uncounted: answers().filter(|answer| !answer.counted).count(),
            requests_per_second: per_second(complete),
            output_tokens_per_second: per_second(output_tokens),
            total_tokens_per_second: per_second(input_tokens + output_tokens),
            output_tokens_per_second_and_slot: arrivals
                .batch()
                .filter(|_| complete > 0)
                .map(|batch| tokens_per_second_and_slot(output_tokens, batch.get(), duration)),
            tokens_per_chunk: ratio(output_tokens as f64, chunks as f64),
            largest_delay: records().map(|record| record.delay.as_secs_f64()).fold(0.0, f64::max),
            time_to_first_token: Distribution::of_sorted(&latencies.first_token),
            inter_token_latency: Distribution::of_sorted(&latencies.inter_token),
            time_per_output_token: Distribution::of_sorted(&latencies.per_token),
            end_to_end_latency: Distribution::of_sorted(&latencies.end_to_end),
            rounds_output_tokens_per_second: runs.iter().map(of_round).collect(),
            latencies,
        })
    }

    /// Requests without a complete answer.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.requests - self.complete
    }
}

/// The complete answers among records.
fn answers<'a>(records: impl Iterator<Item = &'a Record>) -> impl Iterator<Item = &'a Answered> {
    records.filter_map(|record| record.outcome.as_ref().ok())
}

/// A quotient, 0 if there is nothing to divide by.
fn ratio(numerator: f64, denominator: f64) -> f64 {
    if denominator > 0.0 { numerator / denominator } else { 0.0 }
}

/// In-flight batching against static batching on the same requests.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Requests under way at most, in both.
    pub batch: usize,
    /// Output tokens per second with the next request in each place that comes free.
    pub in_flight_tokens_per_second: f64,
    /// Output tokens per second when the next requests wait for the whole batch.
    pub static_tokens_per_second: f64,
    /// The first divided by the second.
    pub ratio: f64,
    /// The smallest and largest ratio of a round.
    pub ratio_range: (f64, f64),
}

impl Comparison {
    /// Of each batch size that was measured both ways, to the end.
    #[must_use]
    pub fn all(points: &[Point]) -> Vec<Self> {
        let partner = |point: &Point| {
            let Arrivals::StaticBatch(batch) = point.arrivals else { return None };
            let in_flight =
                points.iter().find(|other| other.arrivals == Arrivals::Concurrency(batch))?;
            Self::of(batch.get(), in_flight, point)
        };
        points.iter().filter_map(partner).collect()
    }

    fn of(batch: usize, in_flight: &Point, fixed: &Point) -> Option<Self> {
        let rounds = in_flight.rounds_output_tokens_per_second.iter();
        let ratios = rounds.zip(&fixed.rounds_output_tokens_per_second);
        let ratios: Vec<f64> = ratios.map(|(a, b)| ratio(*a, *b)).collect();
        let measured = ratios.iter().all(|&ratio| ratio > 0.0)
            && in_flight.rounds == fixed.rounds
            && !(in_flight.interrupted || fixed.interrupted);
        measured.then(|| Self {
            batch,
            in_flight_tokens_per_second: in_flight.output_tokens_per_second,
            static_tokens_per_second: fixed.output_tokens_per_second,
            ratio: in_flight.output_tokens_per_second / fixed.output_tokens_per_second,
            ratio_range: (
                ratios.iter().copied().fold(f64::INFINITY, f64::min),
                ratios.iter().copied().fold(0.0, f64::max),
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Failure;
    use proptest::prelude::*;
    use std::num::NonZeroUsize;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// An answer with a piece of text at each of these milliseconds.
    fn record(request: usize, sent: u64, chunks: &[u64], end: u64, tokens: usize) -> Record {
        let answered = Answered {
            chunks: chunks.iter().map(|&at| ms(at)).collect(),
            end: ms(end),
            input_tokens: 10,
            cached_tokens: 4,
            output_tokens: tokens,
            counted: true,
            finish_reason: "stop".into(),
        };
        let (sent, ended) = (ms(sent), ms(sent + end));
        Record { request, sent, delay: ms(0), ended, retries: 0, outcome: Ok(answered) }
    }

    fn run(arrivals: Arrivals, records: Vec<Record>, duration: u64) -> Run {
        Run { arrivals, records, duration: ms(duration), interrupted: false }
    }

    #[test]
    fn numbers_are_those_of_pen_and_paper() {
        let two = NonZeroUsize::new(2).unwrap();
        let mut failed = record(2, 100, &[], 0, 0);
        failed.outcome =
            Err(Failure::Status { status: 429, message: String::new(), retry_after: None });
        failed.retries = 3;
        let records =
            vec![record(0, 0, &[100, 150, 250], 260, 3), record(1, 0, &[200, 400], 400, 5), failed];
        let point = Point::of(&[run(Arrivals::Concurrency(two), records, 2000)]).unwrap();
        assert_eq!((point.requests, point.complete, point.failed()), (3, 2, 1));
        assert_eq!((point.failures["429"], point.retries), (1, 3));
        assert_eq!((point.input_tokens, point.cached_tokens, point.output_tokens), (20, 8, 8));
        assert_eq!(point.requests_per_second, 1.0);
        assert_eq!(point.output_tokens_per_second, 4.0);
        assert_eq!(point.total_tokens_per_second, 14.0);
        assert_eq!(point.output_tokens_per_second_and_slot, Some(2.0));
        assert_eq!(point.tokens_per_chunk, 8.0 / 5.0);
        assert_eq!(point.latencies.first_token, [0.1, 0.2]);
        assert_eq!(point.latencies.inter_token, [0.05, 0.1, 0.2]);
        assert_eq!(point.latencies.per_token, [0.05, 0.075]);
        assert_eq!(point.latencies.end_to_end, [0.26, 0.4]);
    }

    #[test]
    fn a_run_without_answers_has_no_latencies() {
        let arrivals = Arrivals::Rate(crate::load::Rate::INFINITE);
        let point = Point::of(&[run(arrivals, Vec::new(), 0)]).unwrap();
        assert_eq!(point.end_to_end_latency, None);
        assert_eq!(point.output_tokens_per_second, 0.0);
        assert_eq!(point.output_tokens_per_second_and_slot, None);
        assert!(Point::of(&[]).is_none());
    }

    #[test]
    fn in_flight_is_compared_with_static_at_the_same_batch() {
        let batch = |n| NonZeroUsize::new(n).unwrap();
        let point = |arrivals, durations: [u64; 2]| {
            let one = |duration| run(arrivals, vec![record(0, 0, &[1, 2], 2, 100)], duration);
            Point::of(&durations.map(one)).unwrap()
        };
        let points = [
            point(Arrivals::Concurrency(batch(4)), [1000, 1000]),
            point(Arrivals::StaticBatch(batch(4)), [1000, 3000]),
            point(Arrivals::StaticBatch(batch(8)), [1000, 3000]),
        ];
        let [compared] = Comparison::all(&points).try_into().unwrap();
        assert_eq!((compared.batch, compared.ratio), (4, 2.0));
        assert_eq!(compared.ratio_range, (1.0, 3.0));
        let mut stopped = points;
        stopped[1].interrupted = true;
        assert_eq!(Comparison::all(&stopped), []);
    }

    proptest! {
        /// Against the definition: a percentile's rank splits the values in that proportion.
        #[test]
        fn percentiles_split_the_values(mut values in prop::collection::vec(0.0..1e3f64, 1..200)) {
            values.sort_unstable_by(f64::total_cmp);
            let found = Distribution::of_sorted(&values).unwrap();
            let last = (values.len() - 1) as f64;
            for (share, value) in
                [(0.5, found.p50), (0.9, found.p90), (0.95, found.p95), (0.99, found.p99)]
            {
                let naive = (0..values.len() - 1)
                    .map(|i| (i as f64, values[i], values[i + 1]))
                    .find(|(i, ..)| (*i..=i + 1.0).contains(&(share * last)))
                    .map_or(values[0], |(i, low, high)| {
                        low * (i + 1.0 - share * last) + high * (share * last - i)
                    });
                prop_assert!((value - naive).abs() < 1e-9, "{} {} {}", share, value, naive);
                let below = values.iter().filter(|&&v| v < value).count() as f64;
                prop_assert!(below <= share * last + 1.0);
            }
            prop_assert!(found.p50 <= found.p90 && found.p90 <= found.p95);
            prop_assert!(found.p95 <= found.p99 && found.p99 <= found.max);
        }
    }
}
