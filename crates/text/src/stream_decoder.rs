//! Decodes one token at a time without ever showing half a character.

use std::ops::Deref;

use crate::Tokenizer;
use crate::rendering::LeadingStrip;

/// Turns a stream of tokens into a stream of text.
///
/// For every sequence of ids, the texts of [`push`](Self::push) followed by
/// [`finish`](Self::finish) concatenate to [`Tokenizer::decode`] of the whole sequence. Each token
/// costs time in its own length only: nothing is decoded twice.
///
/// `T` is `&Tokenizer`, or `Arc<Tokenizer>` for a decoder that outlives the function it is made in.
///
/// ```no_run
/// # use bantam_text::{StreamDecoder, TextError, Tokenizer, TokenizerSource};
/// # fn main() -> Result<(), TextError> {
/// let tokenizer = Tokenizer::load(&TokenizerSource::Folder("model".into()))?;
/// let mut decoder = StreamDecoder::new(&tokenizer);
/// for id in [504, 3575, 282, 4649] {
///     print!("{}", decoder.push(id));
/// }
/// println!("{}", decoder.finish());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct StreamDecoder<T> {
    tokenizer: T,
    skip_special: bool,
    /// Special tokens that are shown although others are left out.
    shown: Vec<u32>,
    strip: LeadingStrip,
    /// The bytes of a character that is not complete yet: at most three between calls.
    pending: Vec<u8>,
}

impl<T: Deref<Target = Tokenizer>> StreamDecoder<T> {
    /// A decoder that leaves special tokens out, as for text shown to a reader.
    pub fn new(tokenizer: T) -> Self {
        let strip = tokenizer.leading_strip();
        Self { tokenizer, skip_special: true, shown: Vec::new(), strip, pending: Vec::new() }
    }

    /// Shows special tokens as their text instead of leaving them out.
    #[must_use]
    pub fn with_special(mut self) -> Self {
        self.skip_special = false;
        self
    }

    /// Shows these special tokens as their text: the marks of tool calls, say
    /// ([`ToolFormat::special_tokens`](crate::ToolFormat::special_tokens)).
    #[must_use]
    pub fn showing(mut self, special_tokens: Vec<u32>) -> Self {
        self.shown = special_tokens;
        self
    }

    /// Takes the next token and returns the text it completes, which may be empty.
    ///
    /// Bytes that can no longer become a character are returned as U+FFFD, by the same rule as
    /// [`String::from_utf8_lossy`]; an id outside the vocabulary gives one U+FFFD.
    pub fn push(&mut self, id: u32) -> String {
        let skip_special = self.skip_special && !self.shown.contains(&id);
        let bytes = self.tokenizer.rendered_bytes(id, skip_special);
        self.pending.extend_from_slice(self.strip.apply(bytes));

        let mut text = String::with_capacity(self.pending.len());
        let mut complete = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            complete += chunk.valid().len();
            if chunk.invalid().is_empty() {
                break;
            }
            let at_end = complete + chunk.invalid().len() == self.pending.len();
            if at_end && may_continue(chunk.invalid()) {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            complete += chunk.invalid().len();
        }
        self.pending.drain(..complete);
        text
    }

    /// Ends the stream: returns what is left, an unfinished character as U+FFFD.
    pub fn finish(&mut self) -> String {
        let left = std::mem::take(&mut self.pending);
        String::from_utf8_lossy(&left).into_owned()
    }
}

/// Whether more bytes could make a character of these.
fn may_continue(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
