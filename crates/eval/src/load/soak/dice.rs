//! Random choices that a seed repeats.

use std::ops::RangeInclusive;

use bantam_engine::uniform;

/// The choices of one client, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Dice {
    seed: u64,
    thrown: usize,
}

impl Dice {
    /// The choices of this client.
    pub(super) fn new(seed: u64, client: usize) -> Self {
        // Clients far apart in one sequence, which repeats after 2⁶⁴ numbers.
        Self { seed: seed.wrapping_add((client as u64) << 32), thrown: 0 }
    }

    /// A number from 0 up to 1, which is never reached.
    pub(super) fn share(&mut self) -> f64 {
        self.thrown += 1;
        uniform(self.seed, self.thrown)
    }

    /// Whether something of this probability happens.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.share() < probability
    }

    /// A number of a range, each equally likely.
    pub(super) fn number(&mut self, range: RangeInclusive<usize>) -> usize {
        let (low, high) = range.into_inner();
        low + (self.share() * (high - low + 1) as f64) as usize
    }

    /// A number of a range; each power of two in it is about equally likely, so that most are short
    /// and some are long, as real prompts and answers are.
    pub(super) fn length(&mut self, range: RangeInclusive<usize>) -> usize {
        let (low, high) = range.into_inner();
        let (bottom, top) = ((low as f64).ln(), ((high + 1) as f64).ln());
        let number = (bottom + self.share() * (top - bottom)).exp() as usize;
        number.clamp(low, high)
    }

    /// One of several, each equally likely.
    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.number(0..=of.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_stay_in_their_range_and_reach_its_ends() {
        let mut dice = Dice::new(3, 5);
        let numbers: Vec<usize> = (0..2000).map(|_| dice.number(2..=6)).collect();
        let lengths: Vec<usize> = (0..2000).map(|_| dice.length(1..=64)).collect();
        let ends =
            |numbers: &[usize]| (numbers.iter().min().copied(), numbers.iter().max().copied());
        assert_eq!(ends(&numbers), (Some(2), Some(6)));
        assert_eq!(ends(&lengths), (Some(1), Some(64)));
        let short = lengths.iter().filter(|&&length| length < 8).count();
        assert!((800..1200).contains(&short), "half of them are below the middle power: {short}");
        assert_eq!((dice.length(1..=1), dice.number(7..=7)), (1, 7));
    }
}
