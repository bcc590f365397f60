//! Questions with choices, and sets of them.

use std::fs;
use std::path::Path;

use crate::EvalError;
use crate::fingerprint::Fingerprint;

/// Choices of an item at most: as many as there are letters.
pub const MAX_CHOICES: usize = 26;
/// Examples shown before an item at most.
pub const MAX_SHOTS: usize = 5;
/// Bytes of the largest file of items that is read.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// What stands before the choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stem {
    /// A question, which a form puts into its own words.
    Question(String),
    /// A text that every choice continues, as it stands.
    Context(String),
}

/// A question with choices, one of which is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The group it is counted in, and from which its examples come; empty for none.
    pub subject: String,
    /// What is asked.
    pub stem: Stem,
    /// 2 to [`MAX_CHOICES`] answers.
    pub choices: Vec<String>,
    /// Which of them is right, from 0.
    pub answer: usize,
}

/// The items of a task, and the examples that may be shown before them.
///
/// ```
/// use bantam_eval::choice::ItemSet;
/// let text = r#"{"question": "How many legs has a spider?", "choices": ["6", "8"], "answer": 1}"#;
/// let set = ItemSet::from_jsonl(text, "legs.jsonl")?;
/// assert_eq!(set.items[0].choices[set.items[0].answer], "8");
/// # Ok::<(), bantam_eval::EvalError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ItemSet {
    /// What is asked, in the order of the file.
    pub items: Vec<Item>,
    /// What may be shown before, in the order of the file.
    pub examples: Vec<Item>,
}

impl Item {
    /// An item, if it has 2 to [`MAX_CHOICES`] choices and the answer is one of them; else what is
    /// wrong with it.
    pub(crate) fn new(
        subject: String,
        stem: Stem,
        choices: Vec<String>,
        answer: usize,
    ) -> Result<Self, String> {
        let count = choices.len();
        if !(2..=MAX_CHOICES).contains(&count) {
            return Err(format!("{count} choices, expected 2 to {MAX_CHOICES}"));
        }
        if let Some(empty) = choices.iter().position(String::is_empty) {
            return Err(format!("choice {empty} is empty"));
        }
        if answer >= count {
            return Err(format!("answer {answer}, expected 0 to {}", count - 1));
        }
        Ok(Self { subject, stem, choices, answer })
    }

    fn add_to(&self, fingerprint: &mut Fingerprint) {
        let (kind, stem) = match &self.stem {
            Stem::Question(text) => ("question", text),
            Stem::Context(text) => ("context", text),
        };
        [&self.subject, kind, stem].into_iter().for_each(|text| fingerprint.add(text.as_bytes()));
        self.choices.iter().for_each(|choice| fingerprint.add(choice.as_bytes()));
        fingerprint.add(&(self.answer as u64).to_le_bytes());
    }
}

impl ItemSet {
    /// The first `shots` examples of the subject of an item.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn shots(&self, item: &Item, shots: usize) -> Result<Vec<&Item>, EvalError> {
        let of_subject = self.examples.iter().filter(|example| example.subject == item.subject);
        let found: Vec<&Item> = of_subject.take(shots).collect();
        if found.len() < shots {
            let subject = item.subject.clone();
            return Err(EvalError::TooFewExamples { subject, shots, found: found.len() });
        }
        Ok(found)
    }

    /// The items, in order, that a run limited to `limit` asks: drawn at random, but always the
    /// same, and those of a smaller limit are among those of a larger one.
    ///
    /// ```
    /// use bantam_eval::choice::ItemSet;
    /// let line = |i| format!(r#"{{"question": "{i}?", "choices": ["a", "b"], "answer": 0}}"#);
    /// let text: Vec<String> = (0..9).map(line).collect();
    /// let set = ItemSet::from_jsonl(&text.join("\n"), "nine.jsonl")?;
    /// let (three, five) = (set.sample(Some(3)), set.sample(Some(5)));
    /// assert!(three.iter().all(|item| five.contains(item)) && five.is_sorted());
    /// assert_eq!(set.sample(None), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    /// # Ok::<(), bantam_eval::EvalError>(())
    /// ```
    #[must_use]
    pub fn sample(&self, limit: Option<usize>) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.items.len()).collect();
        if let Some(limit) = limit {
            // By a hash of the place: as good as a shuffle, and the same everywhere.
            order.sort_by_key(|&item| {
                let mut hash = Fingerprint::default();
                hash.add(&(item as u64).to_le_bytes());
                (hash.mixed(), item)
            });
            order.truncate(limit);
            order.sort_unstable();
        }
        order
    }

    /// The subjects of the items, in order of appearance.
    #[must_use]
    pub fn subjects(&self) -> Vec<&str> {
        let mut subjects: Vec<&str> = Vec::new();
        for item in &self.items {
            // Files hold their subjects one after the other: the last one is the likely one.
            if !subjects.iter().rev().any(|&known| known == item.subject) {
                subjects.push(&item.subject);
            }
        }
        subjects
    }

    /// A hash of all that is asked and shown, to tell results of different sets apart.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        for group in [&self.items, &self.examples] {
            fingerprint.add(&(group.len() as u64).to_le_bytes());
            group.iter().for_each(|item| item.add_to(&mut fingerprint));
        }
        fingerprint
    }
}

/// The text of a file of items, without a mark of byte order.
pub(crate) fn read_file(path: &Path) -> Result<String, EvalError> {
    let refuse =
        |problem: String| EvalError::Unreadable { path: path.display().to_string(), problem };
    let bytes = fs::metadata(path).map_err(|error| refuse(error.to_string()))?.len();
    if bytes > MAX_FILE_BYTES {
        let most = MAX_FILE_BYTES >> 20;
        return Err(refuse(format!("{} MiB long, expected at most {most}", bytes >> 20)));
    }
    let text = fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}
