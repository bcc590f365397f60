//! The file that keeps what was answered, so that a run can go on where another stopped.
//!
//! JSON Lines: first what the results depend on, then one [`Outcome`] a line, written as soon as it
//! is known. A line that an interrupted write left unfinished is cut off and its item asked again.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::item::ItemSet;
use super::outcome::{Answer, Outcome};
use crate::EvalError;

/// Everything that outcomes depend on besides their items; results with another header are not
/// continued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultsHeader {
    /// Version of the form of the file.
    pub bantam_results: u32,
    /// What is asked: `mmlu`, or the file's name.
    pub task: String,
    /// [`ItemSet::fingerprint`].
    pub items: String,
    /// [`Form`](super::Form).
    pub form: String,
    /// Examples before each item.
    pub shots: usize,
    /// Tokens that the model sees at most.
    pub context: usize,
    /// Who answers, with the number format.
    pub model: String,
    /// What tells its weights apart from others of that name.
    pub weights: String,
    /// The same of the model that the divergence is from, with its weights.
    pub against: Option<String>,
}

impl ResultsHeader {
    /// [`Self::bantam_results`] of the files that are written.
    pub const VERSION: u32 = 1;
}

/// An open results file.
///
/// ```
/// use bantam_eval::choice::{Answer, ItemSet, Outcome, ResultsFile, ResultsHeader};
/// # let folder = std::env::temp_dir().join(format!("bantam-results-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// let set = ItemSet::from_jsonl(r#"{"question": "?", "choices": ["a", "b"], "answer": 0}"#, "one")?;
/// let header = ResultsHeader {
///     bantam_results: ResultsHeader::VERSION, task: "one".into(),
///     items: set.fingerprint().to_string(), form: "greedy".into(), shots: 0, context: 64,
///     model: "smollm2@f32".into(), weights: "0".into(), against: None,
/// };
/// let path = folder.join("smollm2@f32.jsonl");
/// let (mut file, known) = ResultsFile::open(&path, &header, &set)?;
/// assert!(known.is_empty());
/// let outcome =
///     Outcome { item: 0, answer: Answer::Written(Some(1)), truncated: false, divergence: None };
/// file.append(&outcome)?;
/// drop(file);
/// let (_file, known) = ResultsFile::open(&path, &header, &set)?;
/// assert_eq!(known[&0], outcome);
/// # std::fs::remove_dir_all(folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ResultsFile {
    path: PathBuf,
    file: File,
}

impl ResultsFile {
    /// Opens a file, or begins it, and reads what it knows, by item.
    ///
    /// # Errors
    /// If the file cannot be written, is in use by another run, is of another model, task or
    /// setting, or a line is not an outcome of `set`.
    pub fn open(
        path: &Path,
        header: &ResultsHeader,
        set: &ItemSet,
    ) -> Result<(Self, BTreeMap<usize, Outcome>), EvalError> {
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
        let mut results = match file {
            Ok(file) => Self { path: path.to_owned(), file },
            Err(error) => return Err(unwritable(path, &error)),
        };
        // A file system that knows no locks has to do without.
        if let Err(TryLockError::WouldBlock) = results.file.try_lock() {
            return Err(results.refuse("another run is writing it; wait for its end".to_owned()));
        }
        let mut text = String::new();
        results.file.read_to_string(&mut text).map_err(|error| unwritable(path, &error))?;
        let complete = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..complete].lines();
        let known = match lines.next() {
            None => {
                results.restart(0)?;
                results.write_line(header)?;
                BTreeMap::new()
            }
            Some(first) => {
                results.check_header(first, header)?;
                results.restart(complete as u64)?;
                results.outcomes(lines, set)?
            }
        };
        Ok((results, known))
    }

    /// Writes one more outcome.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn append(&mut self, outcome: &Outcome) -> Result<(), EvalError> {
        self.write_line(outcome)
    }

    /// Goes to a place and cuts off what follows.
    fn restart(&mut self, place: u64) -> Result<(), EvalError> {
        let moved = self.file.set_len(place).and_then(|()| self.file.seek(SeekFrom::Start(place)));
        moved.map(drop).map_err(|error| unwritable(&self.path, &error))
    }

    fn write_line(&mut self, value: &impl Serialize) -> Result<(), EvalError> {
        let mut line = serde_json::to_vec(value).map_err(|error| self.refuse(error.to_string()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|error| unwritable(&self.path, &error))
    }

    fn check_header(&self, line: &str, expected: &ResultsHeader) -> Result<(), EvalError> {
        let found: Value = serde_json::from_str(line).unwrap_or_default();
        let expected = serde_json::to_value(expected).map_err(|e| self.refuse(e.to_string()))?;
        if found.get("bantam_results").is_none() {
            return Err(self.refuse("not a results file of bantam".to_owned()));
        }
        let fields = expected.as_object().into_iter().flatten();
        for (name, value) in fields {
            let got = found.get(name).unwrap_or(&Value::Null);
            if got != value {
                return Err(self.refuse(format!("its {name} is {got}, but this run's is {value}")));
            }
        }
        Ok(())
    }

    fn outcomes<'t>(
        &self,
        lines: impl Iterator<Item = &'t str>,
        set: &ItemSet,
    ) -> Result<BTreeMap<usize, Outcome>, EvalError> {
        let mut outcomes = BTreeMap::new();
        for (number, line) in lines.enumerate() {
            let outcome: Option<Outcome> = serde_json::from_str(line).ok();
            let Some(outcome) = outcome.filter(|outcome| belongs(outcome, set)) else {
                let line = number + 2;
                return Err(self.refuse(format!("line {line} is not a result of this task")));
            };
            outcomes.insert(outcome.item, outcome);
        }
        Ok(outcomes)
    }

    fn refuse(&self, problem: String) -> EvalError {
        EvalError::Results { path: self.path.display().to_string(), problem }
    }
}

/// Whether an outcome is about an item of this set.
fn belongs(outcome: &Outcome, set: &ItemSet) -> bool {
    let Some(item) = set.items.get(outcome.item) else { return false };
    match &outcome.answer {
        Answer::LogLikelihoods(values) => values.len() == item.choices.len(),
        Answer::Written(choice) => choice.is_none_or(|choice| choice < item.choices.len()),
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> EvalError {
    EvalError::Unreadable { path: path.display().to_string(), problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Divergence;

    fn set() -> ItemSet {
        let line = r#"{"question":"?","choices":["a","b"],"answer":0}"#;
        ItemSet::from_jsonl(&[line; 3].join("\n"), "three").unwrap()
    }

    fn header() -> ResultsHeader {
        ResultsHeader {
            bantam_results: ResultsHeader::VERSION,
            task: "three".into(),
            items: set().fingerprint().to_string(),
            form: "letters".into(),
            shots: 0,
            context: 64,
            model: "m@f32".into(),
            weights: "abc".into(),
            against: None,
        }
    }

    fn path(name: &str) -> PathBuf {
        let name = format!("bantam-results-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_file(&path);
        path
    }

    fn outcome(item: usize) -> Outcome {
        let values = vec![-1.0 / 3.0, -5.123_457e-7];
        let divergence = Divergence { kl_sum: 0.375, compared_tokens: 1, ..Default::default() };
        Outcome {
            item,
            answer: Answer::LogLikelihoods(values),
            truncated: item == 1,
            divergence: Some(divergence),
        }
    }

    #[test]
    fn what_an_interrupted_write_left_is_asked_again() {
        let path = path("cut");
        let (mut file, _) = ResultsFile::open(&path, &header(), &set()).unwrap();
        file.append(&outcome(2)).unwrap();
        file.append(&outcome(1)).unwrap();
        drop(file);
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() - 4]).unwrap();
        let (mut file, known) = ResultsFile::open(&path, &header(), &set()).unwrap();
        assert_eq!(known, BTreeMap::from([(2, outcome(2))]));
        file.append(&outcome(1)).unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), text);
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn results_of_anything_else_are_refused() {
        let path = path("else");
        let open = |header: ResultsHeader| ResultsFile::open(&path, &header, &set());
        let first = open(header()).unwrap();
        let busy = open(header()).unwrap_err().to_string();
        assert!(busy.contains("another run is writing"), "{busy}");
        drop(first);
        let other = ResultsHeader { shots: 5, ..header() };
        let message = open(other).unwrap_err().to_string();
        assert!(message.contains("its shots is 0, but this run's is 5"), "{message}");
        let mut text = fs::read_to_string(&path).unwrap();
        text += "{\"item\":3,\"log_likelihoods\":[0.0,0.0]}\n";
        fs::write(&path, &text).unwrap();
        let message = open(header()).unwrap_err().to_string();
        assert!(message.contains("line 2 is not a result"), "{message}");
        fs::write(&path, "notes\n").unwrap();
        assert!(open(header()).unwrap_err().to_string().contains("not a results file"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "notes\n", "left as it was");
        fs::remove_file(path).unwrap();
    }
}
