//! Random numbers without state: each is a function of (seed, position).
//!
//! A request's tokens may not depend on what else the engine does, on being preempted and computed
//! again, or on speculation that is thrown away. So there is no generator to advance: the number for
//! a position is computed from the seed and the position alone.
//!
//! The function is SplitMix64 (Steele, Lea and Flood, *Fast Splittable Pseudorandom Number
//! Generators*, OOPSLA 2014), whose n-th output is a mixing function of `seed + n·γ` and so can be
//! reached directly. The seed is mixed once before, or the seeds 0, γ, 2γ … would share one stream.

/// γ of SplitMix64: the odd number nearest 2⁶⁴ divided by the golden ratio.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The uniform number in [0, 1) that belongs to `position` under `seed`.
///
/// ```
/// use bantam_engine::uniform;
/// assert_eq!(uniform(42, 7), uniform(42, 7));
/// assert_ne!(uniform(42, 7), uniform(42, 8));
/// assert_ne!(uniform(42, 7), uniform(43, 7));
/// ```
#[must_use]
pub fn uniform(seed: u64, position: usize) -> f64 {
    let bits = split_mix(split_mix(seed, 0), position as u64);
    // The upper 53 bits: every value is exact in f64, and 1 is never reached.
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// The seed of answer number `index` to a request with this `seed`; answer 0 has the seed itself.
///
/// ```
/// use bantam_engine::sample_seed;
/// assert_eq!(sample_seed(7, 0), 7);
/// assert_ne!(sample_seed(7, 1), sample_seed(8, 1));
/// ```
#[must_use]
pub fn sample_seed(seed: u64, index: usize) -> u64 {
    if index == 0 { seed } else { split_mix(seed, index as u64) }
}

/// Output number `n` of SplitMix64 started at `seed`.
fn split_mix(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(GAMMA));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_those_of_split_mix() {
        // The sequence for seed 1234567 that implementations of SplitMix64 commonly test against.
        let outputs: Vec<u64> = (0..3).map(|n| split_mix(1_234_567, n)).collect();
        assert_eq!(
            outputs,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    /// χ² of `draws` against a uniform distribution over 16 cells (15 degrees of freedom).
    fn chi_square(draws: impl Iterator<Item = f64>) -> f64 {
        let mut cells = [0f64; 16];
        for draw in draws {
            assert!((0.0..1.0).contains(&draw));
            cells[(draw * 16.0) as usize] += 1.0;
        }
        let expected = cells.iter().sum::<f64>() / 16.0;
        cells.iter().map(|count| (count - expected).powi(2) / expected).sum()
    }

    #[test]
    fn numbers_are_uniform_along_positions_and_along_seeds() {
        // 44.3 is exceeded once in 10 000 times by chance.
        assert!(chi_square((0..20_000).map(|position| uniform(1, position))) < 44.3);
        assert!(chi_square((0..20_000).map(|seed| uniform(seed, 5))) < 44.3);
        assert!(chi_square((0..20_000).map(|n| uniform(n * 0x9e37, n as usize))) < 44.3);
    }

    #[test]
    fn neighbouring_positions_and_seeds_are_uncorrelated() {
        let correlation = |other: &dyn Fn(u64) -> f64| {
            let n = 20_000;
            let sum: f64 =
                (0..n).map(|i| (uniform(3, i as usize) - 0.5) * (other(i) - 0.5) * 12.0).sum();
            sum / n as f64
        };
        // Standard deviation 0.007 under independence.
        assert!(correlation(&|i| uniform(3, i as usize + 1)).abs() < 0.03);
        assert!(correlation(&|i| uniform(4, i as usize)).abs() < 0.03);
    }
}
