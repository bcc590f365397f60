//! Factors on the channels of a site's input, and which channels must share one.

use crate::OptimizeError;

/// Bounds of a factor: far beyond what helps, near enough to never overflow bf16 weights.
pub(crate) const FACTORS: std::ops::RangeInclusive<f32> = 1e-4..=1e4;

/// Channels that must share a factor, because it is folded into one place before them.
///
/// The input of the attention's output projection is the case: with grouped queries, several heads
/// read one value head, and a factor on the value projection's rows reaches all of them.
///
/// ```
/// use bantam_optimize::ChannelTies;
/// // Four query heads over two key/value heads of three elements.
/// let ties = ChannelTies::grouped_heads(4, 2, 3);
/// assert_eq!(ties.class_of(), [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]);
/// // What the value projection's rows are multiplied by.
/// let factors = [2.0, 3.0, 4.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 5.0, 6.0, 7.0];
/// assert_eq!(ties.of_classes(&factors)?, [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
/// # Ok::<(), bantam_optimize::OptimizeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelTies {
    class_of: Vec<u32>,
    classes: usize,
}

impl ChannelTies {
    /// Ties by class: channels with equal numbers share a factor.
    #[must_use]
    pub fn new(class_of: Vec<u32>) -> Self {
        let classes = class_of.iter().map(|&class| class as usize + 1).max().unwrap_or(0);
        Self { class_of, classes }
    }

    /// The output of attention, `[H·D]`: element d of all query heads that share a key/value head.
    ///
    /// # Panics
    /// If `kv_heads` is 0 or does not divide `heads`.
    #[must_use]
    pub fn grouped_heads(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        assert!(heads.is_multiple_of(kv_heads), "{heads} heads over {kv_heads} key/value heads");
        let group = heads / kv_heads;
        let class = |head: usize, d: usize| (head / group * head_dim + d) as u32;
        let of_head = |head| (0..head_dim).map(move |d| class(head, d));
        Self::new((0..heads).flat_map(of_head).collect())
    }

    /// The class of each channel, `[K]`.
    #[must_use]
    pub fn class_of(&self) -> &[u32] {
        &self.class_of
    }

    /// One factor for each class.
    ///
    /// # Errors
    /// If there are not K factors.
    pub fn of_classes(&self, factors: &[f32]) -> Result<Vec<f32>, OptimizeError> {
        OptimizeError::check_length("channel factors", factors.len(), self.class_of.len())?;
        let mut classes = vec![1.0; self.classes];
        for (&class, &factor) in self.class_of.iter().zip(factors) {
            classes[class as usize] = factor;
        }
        Ok(classes)
    }

    /// Gives tied channels the value that `join` makes of theirs.
    pub(crate) fn tie(&self, values: &mut [f32], join: Join) {
        let mut classes = vec![0f32; self.classes];
        let mut members = vec![0f32; self.classes];
        for (&class, &value) in self.class_of.iter().zip(&*values) {
            let joined = &mut classes[class as usize];
            members[class as usize] += 1.0;
            *joined = match join {
                Join::Mean => *joined + value,
                Join::Max => joined.max(value),
            };
        }
        for (&class, value) in self.class_of.iter().zip(values) {
            let joined = classes[class as usize];
            *value = match join {
                Join::Mean => joined / members[class as usize],
                Join::Max => joined,
            };
        }
    }
}

/// How tied channels' magnitudes become one.
#[derive(Clone, Copy)]
pub(crate) enum Join {
    Mean,
    Max,
}
