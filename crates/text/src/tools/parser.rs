//! Finds the calls of functions in an answer, however it is cut into chunks.

use std::collections::VecDeque;

use super::ToolFormat;
use super::call_reader::CallReader;

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolDelta {
    /// Text for the reader.
    Text(String),
    /// A call begins.
    Begin {
        /// Its number in this answer, from 0.
        index: usize,
        /// The function's name, as the model wrote it.
        name: String,
    },
    /// More of the arguments of the call that began last.
    Arguments {
        /// The number of the call.
        index: usize,
        /// The next part of the JSON text of the arguments.
        fragment: String,
    },
    /// The call is complete, or was cut off.
    End {
        /// The number of the call.
        index: usize,
    },
}

/// Separates text from calls, one chunk at a time: the one parser for streamed and whole answers.
///
/// The deltas, neighbours of the same kind joined, do not depend on the chunks. Text comes out byte
/// for byte as it came in; only whitespace before a call, and at the end after one, is left out. What
/// only begins like a call is text. A call begins for the reader once its name is certain and its arguments have
/// begun; if it breaks off after that, its [`End`](ToolDelta::End) comes early and what follows is
/// text, so nothing is lost, but the arguments are then no JSON.
///
/// ```
/// use bantam_text::{ToolCallParser, ToolDelta, ToolFormat};
///
/// let mut parser = ToolCallParser::new(ToolFormat::from_template("<tool_call>"));
/// let mut deltas = parser.push("Let me look. <tool_call>{\"name\": \"find\", \"argu");
/// assert_eq!(deltas, [ToolDelta::Text("Let me look.".to_owned())]);
/// deltas = parser.push("ments\": {\"id\": 7}}</tool_call>");
/// deltas.extend(parser.finish());
/// assert_eq!(
///     deltas,
///     [
///         ToolDelta::Begin { index: 0, name: "find".to_owned() },
///         ToolDelta::Arguments { index: 0, fragment: "{\"id\": 7}".to_owned() },
///         ToolDelta::End { index: 0 },
///     ]
/// );
/// ```
#[derive(Debug, Clone)]
pub struct ToolCallParser {
    format: ToolFormat,
    /// The answer is nothing but calls: there is no text.
    calls_only: bool,
    state: State,
    /// Characters to be read, again or for the first time.
    queue: VecDeque<char>,
    /// Whitespace before what is held; it is dropped beside a call.
    space: String,
    /// What has been read and may still turn out to be text.
    held: String,
    /// Text or a call has come out.
    started: bool,
    /// A call is what came out last.
    after_call: bool,
    /// The number of the next call.
    index: usize,
    deltas: Vec<ToolDelta>,
}

/// What the next character is part of.
#[derive(Debug, Clone)]
enum State {
    /// Text, or the mark before a call.
    Text,
    /// The space between the mark and the call or list.
    Marked,
    /// A call.
    Call(Box<CallReader>),
    /// The space before a call in a list.
    BeforeItem,
    /// What follows a call in a list.
    AfterItem,
    /// The mark after a call.
    Closing,
}

impl ToolCallParser {
    /// A parser for one answer.
    pub fn new(format: ToolFormat) -> Self {
        Self {
            format,
            calls_only: false,
            state: State::Text,
            queue: VecDeque::new(),
            space: String::new(),
            held: String::new(),
            started: false,
            after_call: false,
            index: 0,
            deltas: Vec::new(),
        }
    }

    /// For an answer that must be calls and nothing else, by its grammar: what is no part of a call is
    /// a mark or a space, or a call that was cut off before it could be told, and never text.
    #[must_use]
    pub fn calls_only(self) -> Self {
        Self { calls_only: true, ..self }
    }

    /// Takes the next chunk of text and returns what it makes certain, which may be nothing.
    pub fn push(&mut self, text: &str) -> Vec<ToolDelta> {
        self.queue.extend(text.chars());
        self.read_queue();
        std::mem::take(&mut self.deltas)
    }

    /// Ends the answer and returns what was held back. A call that was cut off ends here.
    pub fn finish(mut self) -> Vec<ToolDelta> {
        // What is not certain to be a call is text, which may hold a call in turn.
        while matches!(&self.state, State::Marked | State::BeforeItem | State::Call(_))
            && !self.follows_call()
        {
            self.give_back();
            self.read_queue();
        }
        match &self.state {
            State::Call(call) if call.has_begun() => {
                let unsent = call.unsent().trim_end().to_owned();
                self.end_call();
                self.text(&unsent);
            }
            // Marks that were to follow a call.
            _ if self.follows_call() => self.held.clear(),
            _ => {}
        }
        if !(self.held.is_empty() && self.after_call) {
            let left = std::mem::take(&mut self.space) + &std::mem::take(&mut self.held);
            self.text(&left);
        }
        self.deltas
    }

    /// Ends an answer that was cut off, by its longest length or a stop string. As
    /// [`finish`](Self::finish), but what began with the mark of a call is a call that was not
    /// completed, and no text: it is told if its name is known, and else left out.
    ///
    /// ```
    /// use bantam_text::{ToolCallParser, ToolDelta, ToolFormat};
    ///
    /// let parser = || ToolCallParser::new(ToolFormat::from_template("<tool_call>"));
    /// let mut cut = parser();
    /// assert!(cut.push("<tool_call>\n{\"name\": \"fin").is_empty());
    /// assert!(cut.clone().cut_off().is_empty());
    /// assert_eq!(cut.push("d\", ").len(), 0);
    /// let begun = ToolDelta::Begin { index: 0, name: "find".to_owned() };
    /// assert_eq!(cut.cut_off(), [begun, ToolDelta::End { index: 0 }]);
    /// ```
    #[must_use]
    pub fn cut_off(mut self) -> Vec<ToolDelta> {
        let begin = self.format.style.begin;
        let marked = self.calls_only || self.held.starts_with(begin) || self.follows_call();
        match &self.state {
            State::Call(call) if marked || call.has_begun() => {
                let unheard = call.name().filter(|_| !call.has_begun()).map(str::to_owned);
                let begun = call.has_begun() || unheard.is_some();
                if let Some(name) = unheard {
                    self.deltas.push(ToolDelta::Begin { index: self.index, name });
                }
                if begun {
                    self.end_call();
                }
                self.deltas
            }
            State::Marked | State::BeforeItem if marked => self.deltas,
            _ => self.finish(),
        }
    }

    /// Whether what is held came after a call and is no text yet, or belongs to a call that began.
    fn follows_call(&self) -> bool {
        match &self.state {
            State::AfterItem | State::Closing => true,
            State::BeforeItem => self.held.starts_with(','),
            State::Call(call) => call.has_begun() || self.held.starts_with(','),
            State::Text | State::Marked => false,
        }
    }

    fn read_queue(&mut self) {
        while let Some(c) = self.queue.pop_front() {
            self.read(c);
        }
    }

    fn read(&mut self, c: char) {
        match &mut self.state {
            State::Text => self.read_text(c),
            State::Marked if self.format.style.list && c == '[' => {
                self.held.push(c);
                self.state = State::BeforeItem;
            }
            State::Marked | State::BeforeItem if c.is_whitespace() => self.held.push(c),
            State::Marked if !self.format.style.list && c == '{' => self.read_call(c),
            State::BeforeItem if c == '{' => self.read_call(c),
            State::Call(_) => self.read_call(c),
            State::AfterItem | State::Closing if self.held.is_empty() && c.is_whitespace() => {
                self.space.push(c);
            }
            State::AfterItem => self.read_after_item(c),
            State::Closing => self.read_closing(c),
            State::Marked | State::BeforeItem => {
                self.held.push(c);
                self.give_back();
            }
        }
    }

    /// Text goes out as soon as it cannot be the beginning of a mark.
    fn read_text(&mut self, c: char) {
        if self.held.is_empty() && c.is_whitespace() {
            self.space.push(c);
            return;
        }
        if self.held.is_empty() && c == '{' && self.format.style.bare && !self.started {
            self.read_call(c);
            return;
        }
        self.held.push(c);
        let begin = self.format.style.begin;
        if self.held == begin {
            self.state = State::Marked;
        } else if !begin.starts_with(self.held.as_str()) {
            self.give_back();
        }
    }

    fn read_call(&mut self, c: char) {
        if !matches!(self.state, State::Call(_)) {
            self.state = State::Call(Box::new(CallReader::new()));
        }
        let State::Call(call) = &mut self.state else {
            return;
        };
        self.held.push(c);
        let Ok(progress) = call.push(c) else {
            if call.has_begun() {
                let unsent = call.unsent().to_owned();
                self.end_call();
                self.after_call = false;
                self.state = State::Text;
                self.requeue(&unsent);
            } else {
                self.give_back();
            }
            return;
        };
        let index = self.index;
        if let Some(name) = progress.name {
            // Whitespace and the mark before a call are no text.
            self.space.clear();
            self.started = true;
            self.deltas.push(ToolDelta::Begin { index, name });
        }
        if !progress.arguments.is_empty() {
            self.arguments(&progress.arguments);
        }
        if progress.done {
            self.end_call();
            let style = self.format.style;
            self.state = match (style.list, style.end) {
                (true, _) => State::AfterItem,
                (false, "") => State::Text,
                _ => State::Closing,
            };
        }
    }

    fn read_after_item(&mut self, c: char) {
        self.held.push(c);
        match c {
            ',' => self.state = State::BeforeItem,
            ']' => self.calls_are_over(),
            _ => self.give_back(),
        }
    }

    fn read_closing(&mut self, c: char) {
        self.held.push(c);
        let end = self.format.style.end;
        if self.held == end {
            self.calls_are_over();
        } else if !end.starts_with(self.held.as_str()) {
            self.give_back();
        }
    }

    /// The mark after a call, or the end of a list of calls, was read.
    fn calls_are_over(&mut self) {
        self.space.clear();
        self.held.clear();
        self.state = State::Text;
    }

    /// What was held is no part of a call. It is read again as text; where it would only lead here
    /// again, its first character goes out as text before.
    fn give_back(&mut self) {
        let follows_call = self.follows_call();
        self.state = State::Text;
        let held = std::mem::take(&mut self.held);
        let first = if follows_call { 0 } else { held.chars().next().map_or(0, char::len_utf8) };
        if first > 0 {
            let text = std::mem::take(&mut self.space) + &held[..first];
            self.text(&text);
        }
        self.requeue(&held[first..]);
    }

    fn requeue(&mut self, text: &str) {
        for c in text.chars().rev() {
            self.queue.push_front(c);
        }
    }

    fn text(&mut self, text: &str) {
        if text.is_empty() || self.calls_only {
            return;
        }
        self.started |= !text.trim().is_empty();
        self.after_call = false;
        match self.deltas.last_mut() {
            Some(ToolDelta::Text(last)) => last.push_str(text),
            _ => self.deltas.push(ToolDelta::Text(text.to_owned())),
        }
    }

    fn arguments(&mut self, text: &str) {
        match self.deltas.last_mut() {
            Some(ToolDelta::Arguments { fragment, .. }) => fragment.push_str(text),
            _ => {
                let (index, fragment) = (self.index, text.to_owned());
                self.deltas.push(ToolDelta::Arguments { index, fragment });
            }
        }
    }

    fn end_call(&mut self) {
        self.deltas.push(ToolDelta::End { index: self.index });
        self.index += 1;
        self.after_call = true;
        self.held.clear();
    }
}
