//! What a model made of an item.

use serde::{Deserialize, Serialize};

use super::item::Item;
use crate::Divergence;

/// What a model made of an item; one line of a results file.
///
/// ```
/// use bantam_eval::choice::Outcome;
/// let line = r#"{"item":3,"log_likelihoods":[-2.5,-0.25]}"#;
/// let outcome: Outcome = serde_json::from_str(line)?;
/// assert_eq!(outcome.answer.choice(), Some(1));
/// assert_eq!(serde_json::to_string(&outcome)?, line);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The item's place in its set.
    pub item: usize,
    /// What it answered.
    #[serde(flatten)]
    pub answer: Answer,
    /// Whether the item did not fit the context as a whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// From the baseline, at the rows that decide the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Divergence>,
}

/// What a model answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// log p of each choice after the prompt, nats; the lowest number there is for an impossible
    /// one.
    LogLikelihoods(Vec<f32>),
    /// The choice whose letter it wrote, if it wrote one.
    Written(Option<usize>),
}

impl Answer {
    /// The choice it takes: the most likely, the first of several, or the one written.
    #[must_use]
    pub fn choice(&self) -> Option<usize> {
        match self {
            Self::LogLikelihoods(values) => first_max(values.iter().map(|&value| value.into())),
            Self::Written(choice) => *choice,
        }
    }

    /// The choice it takes when each log-likelihood is divided by the length of the choice's text
    /// in characters, which favours no short answers: lm-eval's `acc_norm`. None for a written one.
    #[must_use]
    pub fn normalized_choice(&self, item: &Item) -> Option<usize> {
        let Self::LogLikelihoods(values) = self else { return None };
        let lengths = item.choices.iter().map(|choice| choice.chars().count() as f64);
        first_max(values.iter().zip(lengths).map(|(&value, length)| f64::from(value) / length))
    }
}

/// The place of the largest value, the first of several.
fn first_max(values: impl Iterator<Item = f64>) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (place, value) in values.enumerate() {
        if best.is_none_or(|(_, most)| value > most) {
            best = Some((place, value));
        }
    }
    best.map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choice::Stem;

    #[test]
    fn length_decides_only_where_it_is_asked_to() {
        let choices = vec!["é".into(), "four".into(), "four".into()];
        let item = Item::new(String::new(), Stem::Context(String::new()), choices, 0).unwrap();
        let answer = Answer::LogLikelihoods(vec![-3.0, -4.0, -4.0]);
        assert_eq!(answer.choice(), Some(0));
        assert_eq!(answer.normalized_choice(&item), Some(1)); // -3/1 against -4/4, the first of two
        assert_eq!(Answer::Written(None).choice(), None);
        assert_eq!(Answer::Written(Some(2)).normalized_choice(&item), None);
    }
}
