//! A sample of a site's input rows, for judging what no second moment can: rounded activations.

/// Rows with the largest magnitudes that are kept besides: massive activations are rare.
pub(crate) const LARGEST: usize = 16;

/// Input rows at even distances, and those with the largest magnitudes.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenSample {
    k: usize,
    /// Even rows that are kept at most.
    limit: usize,
    /// Every `stride`-th row is kept.
    stride: usize,
    seen: usize,
    even: Vec<f32>,
    /// Magnitude and row, the smallest first.
    largest: Vec<(f32, Vec<f32>)>,
}

impl TokenSample {
    /// A sample of at most `limit` rows `[K]`, besides the largest.
    pub(crate) fn new(k: usize, limit: usize) -> Self {
        let (even, largest) = (Vec::new(), Vec::new());
        Self { k, limit, stride: 1, seen: 0, even, largest }
    }

    /// Looks at the next row, whose largest magnitude is `amax`.
    pub(crate) fn add(&mut self, row: &[f32], amax: f32) {
        if self.limit == 0 {
            return;
        }
        if self.seen.is_multiple_of(self.stride) {
            if self.even.len() == self.limit * self.k {
                self.halve();
            }
            if self.seen.is_multiple_of(self.stride) {
                self.even.extend_from_slice(row);
            }
        }
        self.seen += 1;
        let full = self.largest.len() == LARGEST;
        if !full || self.largest[0].0 < amax {
            self.largest.drain(..usize::from(full));
            let at = self.largest.partition_point(|(other, _)| *other < amax);
            self.largest.insert(at, (amax, row.to_vec()));
        }
    }

    /// Keeps every other row.
    fn halve(&mut self) {
        self.even = self.even.chunks_exact(self.k).step_by(2).flatten().copied().collect();
        self.stride *= 2;
    }

    /// Rows at even distances, `[_, K]`: what a mean over them estimates is the mean over tokens.
    #[must_use]
    pub fn even_rows(&self) -> &[f32] {
        &self.even
    }

    /// The rows with the largest magnitudes, smallest first.
    pub fn largest_rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.largest.iter().map(|(_, row)| row.as_slice())
    }

    /// Even rows, then those with the largest magnitudes, `[_, K]`.
    #[must_use]
    pub fn rows(&self) -> Vec<f32> {
        let largest = self.largest.iter().flat_map(|(_, row)| row);
        self.even.iter().chain(largest).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_are_evenly_spread_and_the_largest_are_there(
            values in proptest::collection::vec(0f32..100.0, 1..400), limit in 1usize..20,
        ) {
            let mut sample = TokenSample::new(2, limit);
            for (token, &value) in values.iter().enumerate() {
                sample.add(&[token as f32, value], value);
            }
            let tokens: Vec<usize> = sample.even.chunks_exact(2).map(|row| row[0] as usize).collect();
            prop_assert!(tokens.len() <= limit && 2 * tokens.len() >= limit.min(values.len()));
            prop_assert!(tokens.iter().enumerate().all(|(i, token)| i * sample.stride == *token));
            prop_assert!(values.len() - tokens.last().unwrap() <= sample.stride);
            let mut largest: Vec<f32> = sample.largest_rows().map(|row| row[1]).collect();
            let mut sorted = values.clone();
            sorted.sort_by(f32::total_cmp);
            let expected = &sorted[sorted.len().saturating_sub(LARGEST)..];
            largest.sort_by(f32::total_cmp);
            prop_assert_eq!(largest, expected);
        }
    }
}
