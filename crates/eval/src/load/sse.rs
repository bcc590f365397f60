//! Server-sent events out of bytes that arrive in any pieces.
//!
//! What the HTML standard says under *Server-sent events*, less what no API of this kind uses:
//! `id` and `retry` are skipped.

use std::collections::VecDeque;

use super::Failure;

/// Bytes that one event may have: far more than any answer, and little memory.
const MAX_EVENT_BYTES: usize = 16 << 20;

/// Cuts a byte stream into the data of its events.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// Bytes of a line that has not ended yet.
    line: Vec<u8>,
    /// Data of the event under way; `None` before its first `data` line.
    data: Option<Vec<u8>>,
    /// Events that are complete.
    events: VecDeque<String>,
}

impl Parser {
    /// Takes bytes in.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.last() == Some(&b'\n') {
                self.end_line()?;
            }
            let held = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
            if held > MAX_EVENT_BYTES {
                let problem = format!("an event of more than {} MiB", MAX_EVENT_BYTES >> 20);
                return Err(Failure::Protocol { problem });
            }
        }
        Ok(())
    }

    /// The data of the next complete event.
    pub(super) fn pop(&mut self) -> Option<String> {
        self.events.pop_front()
    }

    fn end_line(&mut self) -> Result<(), Failure> {
        let mut line = self.line.as_slice();
        while let [rest @ .., b'\n' | b'\r'] = line {
            line = rest;
        }
        if line.is_empty() {
            if let Some(data) = self.data.take() {
                let data = String::from_utf8(data).map_err(|_| Failure::Protocol {
                    problem: "an event that is not UTF-8".to_owned(),
                })?;
                self.events.push_back(data);
            }
        } else if let Some(value) = line.strip_prefix(b"data") {
            // `data` alone is an empty line; `database: x` is a field of another name.
            let value = value.strip_prefix(b":").or(value.is_empty().then_some(value));
            if let Some(value) = value {
                let value = value.strip_prefix(b" ").unwrap_or(value);
                match &mut self.data {
                    Some(data) => {
                        data.push(b'\n');
                        data.extend_from_slice(value);
                    }
                    none => *none = Some(value.to_vec()),
                }
            }
        }
        self.line.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events(pieces: &[&[u8]]) -> Vec<String> {
        let mut parser = Parser::default();
        pieces.iter().for_each(|piece| parser.push(piece).unwrap());
        std::iter::from_fn(|| parser.pop()).collect()
    }

    #[test]
    fn fields_and_comments_are_those_of_the_standard() {
        let text = ": hello\n\ndata: a\ndata:b\nevent: x\nid: 1\n\r\ndata\n\ndatabase: c\n\ndata: d\r\n\r\n\
                    data: never ended";
        assert_eq!(events(&[text.as_bytes()]), ["a\nb", "", "d"]);
    }

    #[test]
    fn endless_events_are_refused() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; 1 << 20];
        let refused = (0..32).find_map(|_| parser.push(&piece).err());
        assert!(refused.unwrap().to_string().contains("16 MiB"));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            data in prop::collection::vec("[a-z词 {}\"]{0,12}", 0..8),
            cuts in prop::collection::vec(0usize..200, 0..12),
        ) {
            let text: String = data.iter().map(|data| format!("data: {data}\n\n")).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let bytes = text.as_bytes();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(events(&pieces), data);
        }
    }
}
