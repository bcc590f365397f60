//! What an answer says: text and calls of tools, one after another, in no protocol's words.

use bantam_text::{ToolCallParser, ToolDelta};

use crate::answer::{AnswerToken, TextPart};
use crate::request::tools::ToolUse;

/// The next thing that an answer says. Text and calls never lie in each other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Said {
    /// A text begins.
    TextBegins,
    /// More of the text, and the tokens that begin in it.
    Text(TextPart),
    /// The text is complete, or was cut off.
    TextEnds,
    /// A call of the function of this name begins.
    CallBegins(String),
    /// More of the JSON text of its arguments.
    Arguments(String),
    /// The call is complete, or was cut off.
    CallEnds,
}

/// Makes sense of the text of one answer.
pub(crate) struct Speech {
    /// Finds calls, if there may be any; none after the end.
    parser: Option<ToolCallParser>,
    /// Calls after the first are left out.
    only_one: bool,
    /// A text has begun and not ended.
    in_text: bool,
    /// Tokens whose text the parser holds back.
    held: Vec<AnswerToken>,
    calls: usize,
}

impl Speech {
    /// The speech of an answer that may use these tools.
    pub(crate) fn new(tools: &ToolUse) -> Self {
        Self {
            parser: tools.format.map(|format| {
                let parser = ToolCallParser::new(format);
                if tools.must_call { parser.calls_only() } else { parser }
            }),
            only_one: tools.only_one,
            in_text: false,
            held: Vec::new(),
            calls: 0,
        }
    }

    /// Calls so far.
    pub(crate) const fn calls(&self) -> usize {
        self.calls
    }

    /// Takes the next part of the answer's text.
    pub(crate) fn push(&mut self, part: TextPart) -> Vec<Said> {
        let mut said = Vec::new();
        match &mut self.parser {
            None => self.text(part, &mut said),
            Some(parser) => {
                let found = parser.push(&part.text);
                self.held.extend(part.tokens);
                self.found(found, &mut said);
            }
        }
        said
    }

    /// The answer is over: what was held back, and the end of what is open. `cut` if it had more to
    /// say.
    pub(crate) fn finish(&mut self, cut: bool) -> Vec<Said> {
        let mut said = Vec::new();
        let rest = if cut { ToolCallParser::cut_off } else { ToolCallParser::finish };
        let found = self.parser.take().map(rest).unwrap_or_default();
        self.found(found, &mut said);
        self.end_text(&mut said);
        said
    }

    fn found(&mut self, found: Vec<ToolDelta>, said: &mut Vec<Said>) {
        for delta in found {
            let beyond = |index: usize| self.only_one && index > 0;
            match delta {
                ToolDelta::Text(text) => {
                    let tokens = std::mem::take(&mut self.held);
                    self.text(TextPart { text, tokens }, said);
                }
                ToolDelta::Begin { index, name } if !beyond(index) => {
                    self.end_text(said);
                    self.calls = index + 1;
                    said.push(Said::CallBegins(name));
                }
                ToolDelta::Arguments { index, fragment } if !beyond(index) => {
                    said.push(Said::Arguments(fragment));
                }
                ToolDelta::End { index } if !beyond(index) => {
                    // The tokens of a call are no tokens of a text.
                    self.held.clear();
                    said.push(Said::CallEnds);
                }
                ToolDelta::Begin { .. } | ToolDelta::Arguments { .. } | ToolDelta::End { .. } => {}
            }
        }
    }

    fn text(&mut self, part: TextPart, said: &mut Vec<Said>) {
        if !self.in_text {
            self.in_text = true;
            said.push(Said::TextBegins);
        }
        said.push(Said::Text(part));
    }

    fn end_text(&mut self, said: &mut Vec<Said>) {
        if std::mem::take(&mut self.in_text) {
            said.push(Said::TextEnds);
        }
    }
}

#[cfg(test)]
mod tests {
    use bantam_text::ToolFormat;

    use super::*;

    fn said(text: &str, chunk: usize, only_one: bool) -> Vec<Said> {
        let format = Some(ToolFormat::from_template("<tool_call>"));
        let mut speech = Speech::new(&ToolUse { format, only_one, ..ToolUse::default() });
        let bytes = text.as_bytes().chunks(chunk);
        let parts = bytes.map(|bytes| TextPart {
            text: String::from_utf8_lossy(bytes).into_owned(),
            tokens: Vec::new(),
        });
        let mut all: Vec<Said> = parts.flat_map(|part| speech.push(part)).collect();
        all.extend(speech.finish(false));
        all
    }

    /// One letter for each kind; neighbours of the same kind are one.
    fn shape(said: &[Said]) -> String {
        let mut letters: Vec<char> = said
            .iter()
            .map(|said| match said {
                Said::TextBegins => '(',
                Said::Text(_) => 't',
                Said::TextEnds => ')',
                Said::CallBegins(_) => '[',
                Said::Arguments(_) => 'a',
                Said::CallEnds => ']',
            })
            .collect();
        letters.dedup();
        letters.into_iter().collect()
    }

    #[test]
    fn texts_and_calls_stand_one_after_another_however_they_are_cut() {
        let call = r#"<tool_call>{"name": "find", "arguments": {"id": 7}}</tool_call>"#;
        let both = format!("Look. {call}\n{call}");
        for (text, only_one, expected) in [
            ("Hello there.", false, "(t)"),
            (call, false, "[a]"),
            (&both, false, "(t)[a][a]"),
            (&both, true, "(t)[a]"),
            (&format!("{call} So."), false, "[a](t)"),
            (&call[..50], false, "[a]"),
            ("", false, ""),
        ] {
            for chunk in [1, 3, 7, text.len().max(1)] {
                assert_eq!(shape(&said(text, chunk, only_one)), expected, "{text:?} by {chunk}");
            }
        }
    }
}
