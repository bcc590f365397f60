//! Files of calibration text: which form a file has, and where in it each text stands.

use std::path::Path;

use serde_json::Value;

use crate::OptimizeError;

/// The largest file read: it is held in memory, and a calibration takes a thousandth of it.
const MAX_BYTES: u64 = 1 << 30;

/// Endings of tables, and what separates their columns.
const TABLES: [(&str, &str); 2] = [("csv", "commas"), ("tsv", "tabs")];

/// One piece of a file that becomes a text.
#[derive(Debug, PartialEq)]
pub(super) enum Entry {
    /// Running text.
    Text(String),
    /// A JSON value: a text, or an object with fields that are known.
    Record(Value),
}

/// An entry, or what is wrong with it, and its place in words.
pub(super) type Placed = (String, Result<Entry, String>);

/// The entries of a file, each with its place in words, such as `line 3`; an entry that is not JSON
/// where it should be is the error of its place.
#[derive(Debug)]
pub(super) struct Entries {
    text: String,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Paragraphs,
    /// A JSON value a line.
    Lines,
    /// The elements of an array, or the only object.
    Elements(Vec<Value>),
}

impl Entries {
    /// Reads a file. Files that end with `.json`, `.jsonl` or `.ndjson` hold JSON: an array, one
    /// object, or a value a line, whatever of them the name says; all others are text.
    pub(super) fn read(path: &Path) -> Result<Self, OptimizeError> {
        let refused = |problem: String| OptimizeError::Calibration {
            source_name: path.display().to_string(),
            problem,
        };
        let bytes = std::fs::metadata(path).map_err(OptimizeError::io(path))?.len();
        if bytes > MAX_BYTES {
            return Err(refused(format!(
                "it has {} MiB, and at most {} are read; give a part of it",
                bytes >> 20,
                MAX_BYTES >> 20
            )));
        }
        let bytes = std::fs::read(path).map_err(OptimizeError::io(path))?;
        let text = bantam_text::decode_text(bytes).map_err(|error| refused(error.to_string()))?;
        if text.trim().is_empty() {
            return Err(refused("it holds no text".to_owned()));
        }
        let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
        if let Some((_, separated)) = TABLES.iter().find(|(table, _)| ending == *table) {
            return Err(refused(format!(
                "a table separated by {separated}; write JSON Lines of it first, with pandas: \
                 read_csv(FILE{}).to_json(OUT, orient='records', lines=True)",
                if *separated == "tabs" { ", sep='\\t'" } else { "" }
            )));
        }
        let is_json = ["json", "jsonl", "ndjson"].iter().any(|json| ending == *json);
        if !is_json {
            return Ok(Self { text: text.replace("\r\n", "\n"), form: Form::Paragraphs });
        }
        let form = json_form(&text).map_err(refused)?;
        Ok(Self { text, form })
    }

    /// Each entry and its place.
    pub(super) fn iter(&self) -> Box<dyn Iterator<Item = Placed> + '_> {
        match &self.form {
            Form::Paragraphs => {
                let paragraphs = self.text.split("\n\n").filter(|text| !text.trim().is_empty());
                Box::new(paragraphs.enumerate().map(|(number, text)| {
                    (format!("paragraph {}", number + 1), Ok(Entry::Text(format!("{text}\n\n"))))
                }))
            }
            Form::Lines => {
                let lines = self.text.lines().enumerate();
                Box::new(lines.filter(|(_, line)| !line.trim().is_empty()).map(|(number, line)| {
                    let value = serde_json::from_str(line).map(Entry::Record);
                    (format!("line {}", number + 1), value.map_err(|error| in_line(&error)))
                }))
            }
            Form::Elements(elements) => Box::new(elements.iter().enumerate().map(|(at, value)| {
                (format!("element {}", at + 1), Ok(Entry::Record(value.clone())))
            })),
        }
    }
}

/// What is wrong with one line: its number is said elsewhere.
fn in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    format!("not JSON: {what} at column {}", error.column())
}

/// The form of a file that holds JSON.
fn json_form(text: &str) -> Result<Form, String> {
    match serde_json::from_str(text) {
        Ok(Value::Array(elements)) => Ok(Form::Elements(elements)),
        Ok(value) => Ok(Form::Elements(vec![value])),
        // Not one value: a value a line, unless it begins as an array does.
        Err(error) if text.trim_start().starts_with('[') => Err(format!("not JSON: {error}")),
        Err(_) => Ok(Form::Lines),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The entries of a file of this name and these bytes.
    fn read(name: &str, bytes: &[u8]) -> Result<Vec<Placed>, String> {
        let folder = std::env::temp_dir().join(format!("bantam-entries-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        let entries = Entries::read(&path).map_err(|error| error.to_string());
        std::fs::remove_file(&path).unwrap();
        Ok(entries?.iter().collect())
    }

    fn records(values: &[(&str, Value)]) -> Vec<Placed> {
        let record = |(place, value): &(&str, Value)| {
            ((*place).to_owned(), Ok(Entry::Record(value.clone())))
        };
        values.iter().map(record).collect()
    }

    #[test]
    fn json_is_read_in_every_form_whatever_the_name() {
        let (a, b) = (json!({"text": "a"}), json!("b"));
        let lines = records(&[("line 1", a.clone()), ("line 3", b.clone())]);
        let elements = records(&[("element 1", a.clone()), ("element 2", b.clone())]);
        for (number, name) in ["a.json", "b.jsonl", "c.ndjson", "D.JSONL"].into_iter().enumerate() {
            let name = format!("{number}-{name}");
            for line_form in
                ["{\"text\": \"a\"}\n\n\"b\"\n", "\u{feff}{\"text\": \"a\"}\r\n\r\n\"b\""]
            {
                assert_eq!(read(&name, line_form.as_bytes()).unwrap(), lines, "{name}");
            }
            let array = "\u{feff} [\n{\"text\": \"a\"},\n\"b\"]\n";
            assert_eq!(read(&name, array.as_bytes()).unwrap(), elements, "{name}");
            let wide: Vec<u8> =
                "\u{feff}{\"text\":\"a\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
            assert_eq!(read(&name, &wide).unwrap(), records(&[("element 1", a.clone())]), "{name}");
        }
    }

    #[test]
    fn other_files_are_paragraphs() {
        let text = |place: &str, text: &str| (place.to_owned(), Ok(Entry::Text(text.to_owned())));
        let expected = vec![text("paragraph 1", "a\nb\n\n"), text("paragraph 2", "c\n\n")];
        for bytes in ["a\nb\n\nc", "\u{feff}a\r\nb\r\n\r\nc"] {
            assert_eq!(read("p.txt", bytes.as_bytes()).unwrap(), expected);
        }
        let line = "x".repeat(1 << 20);
        assert_eq!(read("q.md", line.as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn what_cannot_be_read_says_where_and_what_works() {
        let cases: [(&str, &[u8], &str); 9] = [
            ("e1.jsonl", b"", "holds no text"),
            ("e2.txt", b" \n\n \n", "holds no text"),
            ("e3.json", b"[{\"text\": \"a\"},\n{\"text\": ]", "not JSON: expected value at line 2"),
            ("e4.csv", b"a,b\n", "a table separated by commas; write JSON Lines"),
            ("e5.tsv", b"a\tb\n", "sep='\\t'"),
            ("e6.parquet", b"PAR1....", "read_parquet"),
            ("e7.jsonl.gz", b"\x1f\x8b\x08", "gunzip"),
            ("e8.txt", b"a\n\xff\xfeb", "line 2 is not UTF-8"),
            ("e9.txt", b"\xff\xfea", "damaged UTF-16"),
        ];
        for (name, bytes, expected) in cases {
            let error = read(name, bytes).unwrap_err();
            assert!(error.contains(expected) && error.contains(name), "{error}");
        }
        let entries = read("f.jsonl", b"{\"text\": \"a\"}\n{\"text\": }\n").unwrap();
        assert_eq!(entries[1].0, "line 2");
        let error = entries[1].1.as_ref().unwrap_err();
        assert!(error.contains("not JSON: expected value at column 10"), "{error}");
    }
}
