//! MMLU (Hendrycks et al., 2021): 57 subjects, read from a folder.
//!
//! Either the original release, `test/SUBJECT_test.csv` and `dev/SUBJECT_dev.csv` (question, four
//! choices, letter; no header), or `test.jsonl` and `dev.jsonl` with a field `subject`. `test` is
//! asked, `dev` shown. A folder `data` inside is found too, since the release unpacks to one.

use std::fs;
use std::path::{Path, PathBuf};

use super::item::{Item, ItemSet, Stem, read_file};
use super::jsonl::letter_place;
use crate::EvalError;

/// Fields of a line of a CSV file: question, choices A to D, answer.
const FIELDS: usize = 6;

impl ItemSet {
    /// Reads MMLU from a folder.
    ///
    /// # Errors
    /// If the folder holds neither form, or a file cannot be read as that.
    pub fn read_mmlu(folder: &Path) -> Result<Self, EvalError> {
        for folder in [folder.to_owned(), folder.join("data")] {
            if folder.join("test.jsonl").is_file() {
                let examples = Some(folder.join("dev.jsonl")).filter(|path| path.is_file());
                return Self::read_jsonl(&folder.join("test.jsonl"), examples.as_deref());
            }
            if folder.join("test").is_dir() {
                let items = read_split(&folder.join("test"), "_test.csv")?;
                if items.is_empty() {
                    continue;
                }
                let dev = folder.join("dev");
                let examples =
                    if dev.is_dir() { read_split(&dev, "_dev.csv")? } else { Vec::new() };
                return Ok(Self { items, examples });
            }
        }
        Err(EvalError::NotMmlu { path: folder.display().to_string() })
    }
}

/// The items of all files of a split, in the order of their names.
fn read_split(folder: &Path, ending: &str) -> Result<Vec<Item>, EvalError> {
    let refuse = |error: std::io::Error| EvalError::Unreadable {
        path: folder.display().to_string(),
        problem: error.to_string(),
    };
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder).map_err(refuse)? {
        let path = entry.map_err(refuse)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(subject) = name.and_then(|name| name.strip_suffix(ending)) {
            files.push((subject.to_owned(), path));
        }
    }
    files.sort();
    let mut items = Vec::new();
    for (subject, path) in files {
        items.extend(parse_csv(&read_file(&path)?, &subject, &path.display().to_string())?);
    }
    Ok(items)
}

/// The items of one file of the release.
fn parse_csv(text: &str, subject: &str, origin: &str) -> Result<Vec<Item>, EvalError> {
    let refuse = |line, problem| EvalError::BadItem { origin: origin.to_owned(), line, problem };
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut items = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| {
            refuse(error.position().map_or(0, csv::Position::line), error.to_string())
        })?;
        let line = record.position().map_or(0, csv::Position::line);
        let fields: Vec<&str> = record.iter().collect();
        let &[question, ref choices @ .., answer] = fields.as_slice() else { continue };
        if fields.len() != FIELDS {
            let problem = format!("{} fields, expected {FIELDS}", fields.len());
            return Err(refuse(line, problem));
        }
        let place = letter_place(answer.trim(), choices.len())
            .ok_or_else(|| refuse(line, format!("answer {answer:?}, expected A, B, C or D")))?;
        let choices = choices.iter().map(|&choice| choice.to_owned()).collect();
        let item =
            Item::new(subject.to_owned(), Stem::Question(question.to_owned()), choices, place);
        items.push(item.map_err(|problem| refuse(line, problem))?);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_csv_file_of_the_release_is_read() {
        let text = "\"Which of these,\nif any?\",\"one, \"\"two\"\"\",b,c,d,C\nNext?,a,b,c,d,A\n";
        let items = parse_csv(text, "high_school_biology", "x.csv").unwrap();
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].stem, Stem::Question("Which of these,\nif any?".to_owned()));
        assert_eq!(items[0].choices[0], "one, \"two\"");
        assert_eq!((items[0].answer, items[1].answer), (2, 0));
        assert_eq!(items[1].subject, "high_school_biology");
    }

    #[test]
    fn a_bad_line_is_named_with_its_number() {
        let refusal = |line: &str| {
            let text = format!("\"two\nlines\",a,b,c,d,C\n{line}\n");
            parse_csv(&text, "s", "x.csv").unwrap_err().to_string()
        };
        assert_eq!(refusal("q,a,b,c,d"), "x.csv:3: 5 fields, expected 6");
        assert!(refusal("q,a,b,c,d,E").starts_with("x.csv:3: answer \"E\""));
        assert!(refusal("q,a,,c,d,A").starts_with("x.csv:3: choice 1 is empty"));
    }
}
