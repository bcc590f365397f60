//! Items as JSON Lines: one object a line.
//!
//! | field | also called | what |
//! |---|---|---|
//! | `question` | | asked, and put into words by the form; or |
//! | `context` | `ctx` | a text that every choice continues |
//! | `choices` | `endings`, `options` | list of texts, or `{"text": […], "label": […]}` |
//! | `answer` | `label`, `answerKey`, `gold` | number from 0, letter, or one of the labels |
//! | `subject` | `category` | optional group |
//!
//! Other fields (ids, sources) are passed over.

use std::path::Path;

use serde::Deserialize;

use super::item::{Item, ItemSet, Stem, read_file};
use crate::EvalError;

/// A line as it stands.
#[derive(Deserialize)]
struct Line {
    question: Option<String>,
    #[serde(alias = "ctx")]
    context: Option<String>,
    #[serde(alias = "endings", alias = "options")]
    choices: Choices,
    #[serde(alias = "label", alias = "answerKey", alias = "gold")]
    answer: Key,
    #[serde(alias = "category", default)]
    subject: String,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected choices: a list of texts")]
enum Choices {
    Plain(Vec<String>),
    Labelled { text: Vec<String>, label: Vec<String> },
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected an answer: a number from 0, or a letter")]
enum Key {
    Number(usize),
    Name(String),
}

impl Line {
    fn into_item(self) -> Result<Item, String> {
        let stem = match (self.question, self.context) {
            (Some(question), None) => Stem::Question(question),
            (None, Some(context)) => Stem::Context(context),
            (None, None) => return Err("expected a field `question` or `context`".to_owned()),
            (Some(_), Some(_)) => {
                return Err("both `question` and `context`, expected one of them; join the two \
                            texts in `question`"
                    .to_owned());
            }
        };
        let (choices, labels) = match self.choices {
            Choices::Plain(texts) => (texts, None),
            Choices::Labelled { text, label } if text.len() == label.len() => (text, Some(label)),
            Choices::Labelled { text, label } => {
                return Err(format!("{} choices with {} labels", text.len(), label.len()));
            }
        };
        let answer = self.answer.place(labels.as_deref(), choices.len())?;
        Item::new(self.subject, stem, choices, answer)
    }
}

impl Key {
    /// Which choice it means.
    fn place(&self, labels: Option<&[String]>, count: usize) -> Result<usize, String> {
        match (self, labels) {
            (Self::Number(place), _) => Ok(*place),
            (Self::Name(name), Some(labels)) => {
                let place = labels.iter().position(|label| label == name);
                place.ok_or_else(|| format!("answer {name:?} is none of the labels {labels:?}"))
            }
            (Self::Name(name), None) => letter_place(name, count).ok_or_else(|| {
                let last = (b'A' + count.clamp(1, 26) as u8 - 1) as char;
                format!("answer {name:?}, expected a number from 0 or a letter A to {last}")
            }),
        }
    }
}

/// The place of the letter `A`, `B`, … among `count` choices.
pub(super) fn letter_place(name: &str, count: usize) -> Option<usize> {
    let mut letters = (b'A'..=b'Z').take(count);
    letters.position(|letter| name.as_bytes() == [letter])
}

/// Parses the items of a text; `origin` names it in errors.
pub(super) fn parse(text: &str, origin: &str) -> Result<Vec<Item>, EvalError> {
    let mut items = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let refuse = |problem: String| EvalError::BadItem {
            origin: origin.to_owned(),
            line: number as u64 + 1,
            problem,
        };
        let line: Line =
            serde_json::from_str(line).map_err(|error| refuse(without_line(&error)))?;
        items.push(line.into_item().map_err(refuse)?);
    }
    if items.is_empty() {
        return Err(EvalError::NoItems { origin: origin.to_owned() });
    }
    Ok(items)
}

/// The message of an error of a one-line document: its column, but not its line, which is 1.
fn without_line(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message.replace(" at line 1 column 0", "").replace(" at line 1 column", " at column")
}

impl ItemSet {
    /// The items of JSON Lines in memory, without examples; `origin` names them in errors.
    ///
    /// # Errors
    /// If a line is not an item, with its number, or there are none.
    pub fn from_jsonl(text: &str, origin: &str) -> Result<Self, EvalError> {
        Ok(Self { items: parse(text, origin)?, examples: Vec::new() })
    }

    /// The items of a file in JSON Lines, and the examples of another.
    ///
    /// # Errors
    /// If a file cannot be read, or a line is not an item.
    pub fn read_jsonl(items: &Path, examples: Option<&Path>) -> Result<Self, EvalError> {
        let read = |path: &Path| parse(&read_file(path)?, &path.display().to_string());
        Ok(Self {
            items: read(items)?,
            examples: examples.map(read).transpose()?.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> String {
        let text =
            format!("\n{{\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":0}}\n{line}");
        parse(&text, "set.jsonl").unwrap_err().to_string()
    }

    #[test]
    fn the_usual_spellings_mean_the_same() {
        let texts = [
            r#"{"question":"q","choices":["a","b","c"],"answer":1,"id":7}"#,
            r#"{"question":"q","choices":["a","b","c"],"answer":"B"}"#,
            r#"{"question":"q","choices":{"text":["a","b","c"],"label":["1","2","3"]},"answerKey":"2"}"#,
            r#"{"question":"q","options":["a","b","c"],"gold":1,"subject":""}"#,
        ];
        let items = parse(&texts.join("\n"), "set").unwrap();
        assert!(items.iter().all(|item| *item == items[0]));
        assert_eq!(items[0].answer, 1);
        let story = r#"{"ctx":"Once","endings":["upon a time","more"],"label":0}"#;
        assert_eq!(parse(story, "set").unwrap()[0].stem, Stem::Context("Once".to_owned()));
    }

    #[test]
    fn a_bad_line_is_named_with_its_number() {
        for (line, expected) in [
            ("{", "EOF"),
            (r#"{"choices":["a","b"],"answer":0}"#, "`question` or `context`"),
            (r#"{"question":"q","answer":0}"#, "missing field `choices`"),
            (r#"{"question":"q","choices":["a"],"answer":0}"#, "1 choices, expected 2 to 26"),
            (r#"{"question":"q","choices":["a",""],"answer":0}"#, "choice 1 is empty"),
            (r#"{"question":"q","choices":["a","b"],"answer":2}"#, "answer 2, expected 0 to 1"),
            (r#"{"question":"q","choices":["a","b"],"answer":"C"}"#, "a letter A to B"),
            (r#"{"question":"q","choices":["a","b"],"answer":"1"}"#, "expected a number from 0"),
            (r#"{"question":"q","choices":["a","b"],"answer":-1}"#, "a number from 0"),
            (r#"{"question":"q","choices":"ab","answer":0}"#, "a list of texts"),
            (r#"{"question":"q","context":"c","choices":["a","b"],"answer":0}"#, "one of them"),
        ] {
            let message = refusal(line);
            assert!(message.starts_with("set.jsonl:3: "), "{message}");
            assert!(message.contains(expected), "{message}");
            assert!(!message.contains("line 1"), "{message}");
        }
        assert!(parse("\n", "set.jsonl").unwrap_err().to_string().contains("no items"));
    }
}
