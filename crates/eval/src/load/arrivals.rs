//! When requests are sent.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use bantam_engine::uniform;
use serde::{Serialize, Serializer};

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// So many at any time: each answer lets the next request go (a closed loop). On a server that
    /// batches in flight, the next one takes the place that came free.
    Concurrency(NonZeroUsize),
    /// So many together, and the next ones when all of them are answered: static batching. Places
    /// of short answers stay empty until the longest ends.
    StaticBatch(NonZeroUsize),
    /// At random moments, whatever the server does (an open loop).
    Rate(Rate),
}

/// Requests per second on average, with exponentially distributed gaps (a Poisson process).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate(f64);

impl Rate {
    /// All at once.
    pub const INFINITE: Self = Self(f64::INFINITY);

    /// Requests per second, infinite for all at once.
    #[must_use]
    pub fn per_second(self) -> f64 {
        self.0
    }

    /// When each of `count` requests is due: the first at once.
    ///
    /// ```
    /// use bantam_eval::load::Rate;
    /// let rate: Rate = "2.5".parse()?;
    /// let due = rate.schedule(10_000, 7);
    /// let mean_gap = due[9_999].as_secs_f64() / 9_999.0;
    /// assert!((mean_gap - 0.4).abs() < 0.02);
    /// # Ok::<(), String>(())
    /// ```
    #[must_use]
    pub fn schedule(self, count: usize, seed: u64) -> Vec<Duration> {
        let gap = |index| -(1.0 - uniform(seed, index)).ln() / self.0;
        let due = |sum: &mut f64, index| {
            let now = Duration::try_from_secs_f64(*sum).unwrap_or(Duration::MAX);
            *sum += gap(index);
            Some(now)
        };
        (0..count).scan(0.0, due).collect()
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            // Below, the next request might be due in years.
            Ok(rate) if rate >= 1e-6 => Ok(Self(rate)),
            _ => Err("expected requests per second, such as 0.5 or 4, or inf".to_owned()),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Arrivals {
    /// The largest number of requests under way, unless nothing limits it: the batch size.
    #[must_use]
    pub fn batch(self) -> Option<NonZeroUsize> {
        match self {
            Self::Concurrency(batch) | Self::StaticBatch(batch) => Some(batch),
            Self::Rate(_) => None,
        }
    }
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Concurrency(n) => write!(f, "concurrency {n}"),
            Self::StaticBatch(n) => write!(f, "static batch {n}"),
            Self::Rate(Rate::INFINITE) => write!(f, "all at once"),
            Self::Rate(rate) => write!(f, "{rate} requests/s"),
        }
    }
}

impl Serialize for Arrivals {
    /// One key that says which, and its number; an infinite rate is the text `inf`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Concurrency(n) => serializer.collect_map([("concurrency", n)]),
            Self::StaticBatch(n) => serializer.collect_map([("static_batch", n)]),
            Self::Rate(Rate::INFINITE) => serializer.collect_map([("rate", "inf")]),
            Self::Rate(rate) => serializer.collect_map([("rate", rate.0)]),
        }
    }
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send a request, which was planned for this time after the start.
    Send(Duration),
    /// Send one at this time after the start.
    SendAt(Duration),
    /// Send one when one of those under way has ended.
    Wait,
    /// All are sent.
    Done,
}

/// Decides when the next request goes.
#[derive(Debug)]
pub(super) struct Pacer {
    arrivals: Arrivals,
    /// Requests not sent yet.
    left: usize,
    /// When each is due, the last first; open loop only.
    due: Vec<Duration>,
    /// Places of the static batch that are not filled yet.
    places: usize,
}

impl Pacer {
    pub(super) fn new(arrivals: Arrivals, count: usize, seed: u64) -> Self {
        let mut due = match arrivals {
            Arrivals::Rate(rate) => rate.schedule(count, seed),
            Arrivals::Concurrency(_) | Arrivals::StaticBatch(_) => Vec::new(),
        };
        due.reverse();
        Self { arrivals, left: count, due, places: 0 }
    }

    /// What to do when so many requests are under way, and so much time has passed.
    pub(super) fn next(&mut self, under_way: usize, now: Duration) -> Next {
        if self.left == 0 {
            return Next::Done;
        }
        let may_send = match self.arrivals {
            Arrivals::Concurrency(n) => under_way < n.get(),
            Arrivals::StaticBatch(n) => {
                if under_way == 0 {
                    self.places = n.get();
                }
                self.places > 0
            }
            Arrivals::Rate(_) => true,
        };
        match self.due.last() {
            _ if !may_send => Next::Wait,
            Some(&due) if due > now => Next::SendAt(due),
            _ => {
                self.left -= 1;
                self.places = self.places.saturating_sub(1);
                Next::Send(self.due.pop().unwrap_or(now))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn size(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).unwrap()
    }

    /// Sends until the pacer waits; the number sent.
    fn send(pacer: &mut Pacer, under_way: usize) -> usize {
        let mut sent = 0;
        while let Next::Send(_) = pacer.next(under_way + sent, Duration::ZERO) {
            sent += 1;
        }
        sent
    }

    #[test]
    fn a_static_batch_waits_for_its_last_answer() {
        let mut pacer = Pacer::new(Arrivals::StaticBatch(size(3)), 7, 0);
        assert_eq!(send(&mut pacer, 0), 3);
        assert_eq!((send(&mut pacer, 2), send(&mut pacer, 1)), (0, 0));
        assert_eq!((send(&mut pacer, 0), send(&mut pacer, 0)), (3, 1));
        assert_eq!(pacer.next(1, Duration::ZERO), Next::Done);
    }

    #[test]
    fn a_closed_loop_fills_each_place_at_once() {
        let mut pacer = Pacer::new(Arrivals::Concurrency(size(3)), 7, 0);
        assert_eq!(send(&mut pacer, 0), 3);
        assert_eq!(send(&mut pacer, 2), 1);
        assert_eq!(send(&mut pacer, 0), 3);
        assert_eq!(pacer.next(3, Duration::ZERO), Next::Done);
    }

    #[test]
    fn all_at_once_means_at_once() {
        let schedule = Rate::INFINITE.schedule(5, 1);
        assert_eq!(schedule, [Duration::ZERO; 5]);
        assert_eq!("inf".parse(), Ok(Rate::INFINITE));
        for wrong in ["0", "-1", "nan", "x", "", "1e-300"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn gaps_are_exponential() {
        let due = "4".parse::<Rate>().unwrap().schedule(20_001, 3);
        let gaps: Vec<f64> = due.windows(2).map(|w| (w[1] - w[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        // Standard deviation of the mean: 0.25 / √20000 = 0.0018.
        assert!((mean - 0.25).abs() < 0.007, "{mean}");
        // The median of an exponential distribution is ln 2 of its mean.
        let below = gaps.iter().filter(|&&gap| gap < 0.25 * std::f64::consts::LN_2).count();
        assert!((below as f64 / gaps.len() as f64 - 0.5).abs() < 0.015);
    }

    proptest! {
        #[test]
        fn an_open_loop_sends_each_when_it_is_due(count in 1usize..50, rate in 0.01..1e4, seed: u64) {
            let rate = Rate(rate);
            let mut pacer = Pacer::new(Arrivals::Rate(rate), count, seed);
            for due in rate.schedule(count, seed) {
                if due > Duration::ZERO {
                    let before = due - Duration::from_nanos(1);
                    prop_assert_eq!(pacer.next(7, before), Next::SendAt(due));
                }
                prop_assert_eq!(pacer.next(7, due + Duration::from_millis(3)), Next::Send(due));
            }
            prop_assert_eq!(pacer.next(7, Duration::MAX), Next::Done);
        }
    }
}
