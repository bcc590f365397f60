//! Whether memory grows.

use std::time::Duration;

use serde::Serialize;

/// Resident memory of the server over the run, in bytes.
///
/// The cache takes memory as it is first used, and so do threads and connections: what counts is the
/// second half of the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MemoryUse {
    /// Before the load.
    pub start: u64,
    /// After half of the time.
    pub half: u64,
    /// At the end of the load.
    pub end: u64,
    /// The most that was seen.
    pub peak: u64,
    /// Slope of a straight line through the second half, in bytes per minute.
    pub bytes_per_minute: f64,
    /// Growth in the second half by that line.
    pub growth: f64,
    /// Blocks of the cache that were used for the first time in the second half: their memory is no
    /// leak.
    pub blocks_first_used: u64,
}

/// Memory at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// Since the start of the load.
    pub(super) at: Duration,
    /// Resident memory in bytes.
    pub(super) bytes: u64,
    /// Blocks of the cache that hold nothing.
    pub(super) free_blocks: u64,
}

impl MemoryUse {
    /// Of samples in the order of time; `start` is before the load. `None` if fewer than two are in
    /// the second half.
    pub(super) fn of(start: u64, samples: &[Sample]) -> Option<Self> {
        let Sample { at: length, bytes: end, .. } = *samples.last()?;
        let (early, late) = samples.split_at(samples.iter().position(|s| s.at * 2 >= length)?);
        let points = || late.iter().map(|s| (s.at.as_secs_f64(), s.bytes as f64));
        let count = late.len() as f64;
        let mean_at = points().map(|(at, _)| at).sum::<f64>() / count;
        let mean_bytes = points().map(|(_, bytes)| bytes).sum::<f64>() / count;
        let spread = points().map(|(at, _)| (at - mean_at).powi(2)).sum::<f64>();
        if late.len() < 2 || spread == 0.0 {
            return None;
        }
        let common = points().map(|(at, bytes)| (at - mean_at) * (bytes - mean_bytes)).sum::<f64>();
        let slope = common / spread;
        let fewest_free = |samples: &[Sample]| samples.iter().map(|s| s.free_blocks).min();
        let before = fewest_free(early).unwrap_or(late[0].free_blocks);
        Some(Self {
            start,
            half: late[0].bytes,
            end,
            peak: samples.iter().map(|s| s.bytes).max().unwrap_or(end),
            bytes_per_minute: slope * 60.0,
            growth: slope * (length - late[0].at).as_secs_f64(),
            blocks_first_used: before.saturating_sub(fewest_free(late).unwrap_or(before)),
        })
    }

    /// What is wrong if no more than `limit` bytes may be added in the second half. `None` if the
    /// growth may be that of the cache, which takes memory as it is first used.
    pub(super) fn judged(&self, limit: u64) -> Option<Result<(), String>> {
        let mebibytes = |bytes: f64| bytes / (1u64 << 20) as f64;
        match self.growth <= limit as f64 {
            true => Some(Ok(())),
            false if self.blocks_first_used > 0 => None,
            false => Some(Err(format!(
                "{:.1} MiB more at the end of the second half, at most {:.1} MiB expected",
                mebibytes(self.growth),
                mebibytes(limit as f64)
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: u64, bytes: u64, free_blocks: u64) -> Sample {
        Sample { at: Duration::from_secs(second), bytes, free_blocks }
    }

    fn samples(bytes: impl Fn(u64) -> u64) -> Vec<Sample> {
        (0..=100).map(|second| sample(second, bytes(second), 5)).collect()
    }

    #[test]
    fn a_leak_is_told_from_a_warm_up() {
        let warm = samples(|second| 1000 + 100 * second.min(50));
        let found = MemoryUse::of(900, &warm).unwrap();
        assert_eq!((found.start, found.half, found.end, found.peak), (900, 6000, 6000, 6000));
        assert!(found.growth.abs() < 1e-6);
        let leak = MemoryUse::of(0, &samples(|second| 7 * second)).unwrap();
        assert!((leak.growth - 350.0).abs() < 1e-6, "{leak:?}");
        assert!((leak.bytes_per_minute - 420.0).abs() < 1e-6);
        assert!(leak.judged(340).unwrap().is_err() && leak.judged(360).unwrap().is_ok());
        // Noise around a level is no growth.
        let noise = MemoryUse::of(0, &samples(|second| 1_000_000 + second % 7 * 100)).unwrap();
        assert!(noise.growth.abs() < 100.0, "{noise:?}");
    }

    #[test]
    fn a_cache_that_fills_is_no_leak() {
        let filling: Vec<Sample> = (0..=100).map(|s| sample(s, 70 * s, 200 - s)).collect();
        let found = MemoryUse::of(0, &filling).unwrap();
        assert_eq!((found.blocks_first_used, found.judged(100)), (51, None));
        // One that has been as full before takes nothing more.
        let again: Vec<Sample> = (0..=100).map(|s| sample(s, 70 * s, s.abs_diff(20))).collect();
        assert!(MemoryUse::of(0, &again).unwrap().judged(100).unwrap().is_err());
    }

    #[test]
    fn too_few_samples_say_nothing() {
        assert_eq!(MemoryUse::of(1, &[]), None);
        assert_eq!(MemoryUse::of(1, &[sample(0, 1, 1)]), None);
        assert_eq!(MemoryUse::of(1, &[sample(0, 1, 1), sample(4, 1, 1)]), None);
    }
}
