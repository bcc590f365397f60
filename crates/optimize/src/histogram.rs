//! How the magnitudes of a site's inputs are distributed.

/// Bins of the first range.
const BINS: usize = 2048;
/// Bins after which neighbours merge instead of the number growing: massive activations would else
/// need millions of bins.
const MOST_BINS: usize = 16 * BINS;

/// Counts of |x| in bins of equal width from zero.
///
/// Like ModelOpt's, it starts with 2048 bins over the range of the first values and grows by bins of
/// the same width. Beyond 16 times that range, neighbouring bins merge.
///
/// ```
/// use bantam_optimize::Histogram;
/// let mut histogram = Histogram::default();
/// histogram.add(&[0.5, -1.0]);
/// histogram.add(&[2.0]);
/// assert_eq!(histogram.total(), 3);
/// assert!(histogram.range() >= 2.0);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    width: f32,
    counts: Vec<u64>,
    /// Values before the first that was not zero: the width was not known yet.
    zeros: u64,
}

impl Histogram {
    /// Counts finite values.
    pub fn add(&mut self, values: &[f32]) {
        let largest = values.iter().fold(0f32, |largest, v| largest.max(v.abs()));
        if self.counts.is_empty() {
            let width = largest / BINS as f32;
            if width < f32::MIN_POSITIVE {
                self.zeros += values.len() as u64;
                return;
            }
            (self.width, self.counts) = (width, vec![0; BINS]);
            self.counts[0] = self.zeros;
        }
        self.reach(largest);
        let (last, per_width) = (self.counts.len() - 1, self.width.recip());
        for value in values {
            self.counts[((value.abs() * per_width) as usize).min(last)] += 1;
        }
    }

    /// Grows until the range holds `largest`.
    fn reach(&mut self, largest: f32) {
        while largest / self.width > MOST_BINS as f32 {
            self.counts = self.counts.chunks(2).map(|pair| pair.iter().sum()).collect();
            self.width *= 2.0;
        }
        let bins = ((largest / self.width).ceil() as usize).max(self.counts.len());
        self.counts.resize(bins, 0);
    }

    /// The upper end of the last bin.
    #[must_use]
    pub fn range(&self) -> f32 {
        self.edge(self.counts.len())
    }

    /// The lower end of bin `index`.
    #[must_use]
    pub fn edge(&self, index: usize) -> f32 {
        index as f32 * self.width
    }

    /// Values in each bin.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Values counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        if self.counts.is_empty() { self.zeros } else { self.counts.iter().sum() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_value_lies_in_its_bin_however_the_range_grew(
            parts in proptest::collection::vec(
                proptest::collection::vec((-1f32..1.0, -8i32..12), 1..40), 1..6,
            ),
        ) {
            let mut histogram = Histogram::default();
            let mut all = Vec::new();
            for part in parts {
                let values: Vec<f32> = part.iter().map(|(v, e)| v * 2f32.powi(*e)).collect();
                histogram.add(&values);
                all.extend(values.iter().map(|v| v.abs()));
            }
            prop_assert_eq!(histogram.total(), all.len() as u64);
            prop_assert!(histogram.counts().len() <= MOST_BINS);
            let largest = all.iter().copied().fold(0f32, f32::max);
            prop_assert!(histogram.range() >= largest * 0.999);
            // What lies below an edge is what was counted below it, but for rounding at the edge.
            for bin in [1, histogram.counts().len() / 2] {
                let counted: u64 = histogram.counts()[..bin].iter().sum();
                let edge = histogram.edge(bin);
                let below = |edge: f32| all.iter().filter(|v| **v < edge).count() as u64;
                prop_assert!(below(edge * 0.999) <= counted && counted <= below(edge * 1.001));
            }
        }
    }

    #[test]
    fn zeros_before_the_first_value_are_counted() {
        let mut histogram = Histogram::default();
        histogram.add(&[0.0; 5]);
        histogram.add(&[1.0]);
        assert_eq!((histogram.counts()[0], histogram.total()), (5, 6));
    }
}
