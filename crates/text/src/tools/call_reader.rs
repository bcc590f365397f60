//! Reads one call, `{"name": …, "arguments": …}`, one character at a time.

use super::json_scanner::{JsonScanner, NotJson, Place};

/// What the reader knows after a character.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The function's name, once it and the beginning of its arguments are known.
    pub(super) name: Option<String>,
    /// More of the text of the arguments.
    pub(super) arguments: String,
    /// The call is complete.
    pub(super) done: bool,
}

/// The key whose value is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Name,
    Arguments,
    Other,
}

/// One call, as far as it has been read.
#[derive(Debug, Clone)]
pub(super) struct CallReader {
    scanner: JsonScanner,
    /// The text so far.
    text: String,
    key: Key,
    /// Where the key or the value being read begins.
    start: usize,
    name: Option<String>,
    /// Where the arguments begin and, once known, end.
    arguments: Option<(usize, Option<usize>)>,
    /// The name was handed out.
    begun: bool,
    /// Up to where the text was handed out, or has served its purpose.
    sent: usize,
}

impl CallReader {
    pub(super) fn new() -> Self {
        Self {
            scanner: JsonScanner::new(),
            text: String::new(),
            key: Key::Other,
            start: 0,
            name: None,
            arguments: None,
            begun: false,
            sent: 0,
        }
    }

    /// Whether the name was handed out: the call can then no longer be taken for text.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// The name, once it is complete.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref().filter(|name| !name.is_empty())
    }

    /// The text after what was handed out.
    pub(super) fn unsent(&self) -> &str {
        &self.text[self.sent..]
    }

    /// Takes the next character, also one that is an error.
    pub(super) fn push(&mut self, c: char) -> Result<Progress, NotJson> {
        let at = self.text.len();
        self.text.push(c);
        let (before, depth) = (self.scanner.place(), self.scanner.depth());
        self.scanner.push(c)?;
        let after = self.scanner.place();
        match (depth, self.scanner.depth()) {
            (1, 2) => self.value_begins(at, c)?,
            (2, 1) => self.moved(after, at, c)?,
            (1, 1) if before != after => self.moved(after, at, c)?,
            _ => {}
        }
        self.progress(after == Place::End)
    }

    /// A key or value of the call itself begins or ends.
    fn moved(&mut self, place: Place, at: usize, c: char) -> Result<(), NotJson> {
        match place {
            Place::InKey => self.start = at,
            Place::Colon => {
                let key: String = self.json(self.start)?;
                self.key = match key.as_str() {
                    "name" => Key::Name,
                    "arguments" | "parameters" => Key::Arguments,
                    _ => Key::Other,
                };
            }
            Place::InString | Place::InScalar => self.value_begins(at, c)?,
            Place::AfterValue => match (self.key, &mut self.arguments) {
                (Key::Name, _) => self.name = Some(self.json(self.start)?),
                (Key::Arguments, Some((_, end))) => *end = Some(at + 1),
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }

    /// A value begins: a name must be text, arguments an object, and each must be the only one.
    fn value_begins(&mut self, at: usize, c: char) -> Result<(), NotJson> {
        self.start = at;
        match self.key {
            Key::Name if c != '"' || self.name.is_some() => Err(NotJson),
            Key::Arguments if c != '{' || self.arguments.is_some() => Err(NotJson),
            Key::Arguments => {
                self.arguments = Some((at, None));
                Ok(())
            }
            Key::Name | Key::Other => Ok(()),
        }
    }

    /// What can be handed out now.
    fn progress(&mut self, done: bool) -> Result<Progress, NotJson> {
        let mut progress = Progress { done, ..Progress::default() };
        let Some(name) = self.name().map(str::to_owned) else {
            return if done { Err(NotJson) } else { Ok(progress) };
        };
        let known = self.arguments.map(|(start, end)| (start, end.unwrap_or(self.text.len())));
        if !self.begun && (known.is_some() || done) {
            self.begun = true;
            progress.name = Some(name);
            self.sent = known.map_or(self.text.len(), |(start, _)| start);
            if known.is_none() {
                progress.arguments.push_str("{}");
            }
        }
        if let Some((_, end)) = known.filter(|&(_, end)| self.begun && end > self.sent) {
            progress.arguments.push_str(&self.text[self.sent..end]);
            self.sent = end;
        }
        Ok(progress)
    }

    /// The text from `start` as a JSON string.
    fn json(&self, start: usize) -> Result<String, NotJson> {
        serde_json::from_str(&self.text[start..]).map_err(|_| NotJson)
    }
}
