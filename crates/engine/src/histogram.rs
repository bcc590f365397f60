//! Counts of measured values in fixed buckets.

/// Upper bounds in seconds, from a decode step of a small model to a long answer.
pub(crate) const SECONDS: &[f64] = &[
    0.000_5, 0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1,
    0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0,
];

/// Upper bounds in tokens or sequences of a step.
pub(crate) const COUNTS: &[f64] =
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0];

/// Values counted by size, as Prometheus does: each bucket has an upper bound.
///
/// ```
/// use bantam_engine::Histogram;
/// let mut histogram = Histogram::new(&[1.0, 2.0, 5.0]);
/// for value in [0.5, 1.0, 1.5, 100.0] {
///     histogram.observe(value);
/// }
/// assert_eq!((histogram.count(), histogram.sum()), (4, 103.0));
/// let cumulative: Vec<_> = histogram.cumulative().collect();
/// assert_eq!(cumulative, [(1.0, 2), (2.0, 3), (5.0, 3), (f64::INFINITY, 4)]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for larger values.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    /// No values yet; `bounds` are the ascending upper bounds of the buckets.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// Counts a value.
    pub fn observe(&mut self, value: f64) {
        self.counts[self.bounds.partition_point(|&bound| bound < value)] += 1;
        self.sum += value;
    }

    /// Number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Sum of all values.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Mean of all values, if there are any.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum / count as f64)
    }

    /// Upper bounds with the number of values up to each; the last bound is infinite.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(&self.counts).scan(0, |total, (bound, count)| {
            *total += count;
            Some((bound, *total))
        })
    }
}
