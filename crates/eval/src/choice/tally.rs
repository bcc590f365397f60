//! Accuracy and its error.

use super::form::Form;
use super::item::ItemSet;
use super::outcome::Outcome;
use crate::Divergence;

/// A share of right answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accuracy {
    /// Right answers.
    pub right: usize,
    /// Of so many.
    pub total: usize,
}

impl Accuracy {
    fn add(&mut self, right: bool) {
        self.right += usize::from(right);
        self.total += 1;
    }

    /// p = right / total, 0 to 1.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.right as f64 / self.total as f64
    }

    /// √(p(1−p)/n): how far the value would move with other items of the same kind. Two models on
    /// the same items move together, so their difference is known better: see
    /// [`Paired`](super::Paired).
    ///
    /// ```
    /// use bantam_eval::choice::Accuracy;
    /// let mmlu = Accuracy { right: 7021, total: 14042 };
    /// assert_eq!(format!("{:.2} %", 100.0 * mmlu.standard_error()), "0.42 %");
    /// ```
    #[must_use]
    pub fn standard_error(&self) -> f64 {
        let p = self.value();
        (p * (1.0 - p) / self.total as f64).sqrt()
    }
}

/// What outcomes add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// By the answer.
    pub accuracy: Accuracy,
    /// By the answer normalized by length, for [`Form::Texts`].
    pub normalized: Option<Accuracy>,
    /// Items that did not fit the context as a whole.
    pub truncated: usize,
    /// From the baseline, if there was one.
    pub divergence: Option<Divergence>,
}

impl Tally {
    /// Adds up outcomes of one subject, or of all. Every item counts the same, whatever the size of
    /// its subject.
    #[must_use]
    pub fn new<'o>(
        set: &ItemSet,
        form: Form,
        subject: Option<&str>,
        outcomes: impl IntoIterator<Item = &'o Outcome>,
    ) -> Self {
        let mut tally = Self::default();
        for outcome in outcomes {
            let item = &set.items[outcome.item];
            if subject.is_some_and(|subject| subject != item.subject) {
                continue;
            }
            tally.accuracy.add(outcome.answer.choice() == Some(item.answer));
            if form == Form::Texts {
                let right = outcome.answer.normalized_choice(item) == Some(item.answer);
                tally.normalized.get_or_insert_default().add(right);
            }
            tally.truncated += usize::from(outcome.truncated);
            if let Some(divergence) = &outcome.divergence {
                tally.divergence.get_or_insert_default().merge(divergence);
            }
        }
        tally
    }
}
