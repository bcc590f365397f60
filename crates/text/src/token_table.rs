//! The bytes of every token, by id.

use tokenizers::Model as _;

use crate::TextError;
use crate::rendering::Rendering;

/// What an id stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenClass {
    /// A hole in the numbering.
    Absent,
    /// Text.
    Text,
    /// A control token, left out of text shown to a reader.
    Special,
}

/// An id whose text is that of another id, or empty: it stands for its text in what is decoded, and no
/// text becomes it.
#[derive(Debug, Clone)]
pub(crate) struct NamelessToken {
    pub(crate) id: u32,
    pub(crate) text: String,
    /// Whether it is a control token.
    pub(crate) special: bool,
}

/// The rendered bytes and the class of every id, V entries each.
#[derive(Debug, Clone)]
pub(crate) struct TokenTable {
    /// The bytes of all tokens, one after the other.
    bytes: Vec<u8>,
    /// Where the bytes of each token end.
    ends: Vec<usize>,
    classes: Vec<TokenClass>,
}

/// How many ids a table may have for each token there is: a vocabulary with more holes than this is
/// a broken file, and the table must not take memory for them.
const MOST_IDS_PER_TOKEN: usize = 16;

impl TokenTable {
    /// Renders the vocabulary of `tokenizer`; `origin` names the file in errors.
    pub(crate) fn new(
        tokenizer: &tokenizers::Tokenizer,
        nameless: &[NamelessToken],
        rendering: &Rendering,
        origin: &str,
    ) -> Result<Self, TextError> {
        let added = tokenizer.get_added_tokens_decoder();
        let vocabulary = tokenizer.get_model().get_vocab();
        let tokens = vocabulary.len() + added.len();
        let largest = vocabulary.values().chain(added.keys()).max().copied();
        let size = largest.map_or(0, |id| id as usize + 1);
        if size > tokens.saturating_mul(MOST_IDS_PER_TOKEN) {
            return Err(TextError::InvalidVocabulary {
                problem: format!(
                    "{origin} numbers its {tokens} tokens up to {}; expected ids without large gaps",
                    size - 1
                ),
            });
        }

        let mut texts = vec![None; size];
        for (token, &id) in &vocabulary {
            texts[id as usize] = Some((token.as_str(), TokenClass::Text, false));
        }
        for (&id, token) in &added {
            let class = if token.special { TokenClass::Special } else { TokenClass::Text };
            texts[id as usize] = Some((token.content.as_str(), class, true));
        }

        for token in nameless {
            let class = if token.special { TokenClass::Special } else { TokenClass::Text };
            texts[token.id as usize] = Some((token.text.as_str(), class, token.special));
        }

        let mut table = Self {
            bytes: Vec::with_capacity(8 * size),
            ends: Vec::with_capacity(size),
            classes: Vec::with_capacity(size),
        };
        for entry in texts {
            let class = entry.map_or(TokenClass::Absent, |(_, class, _)| class);
            if let Some((token, _, added)) = entry {
                rendering.render(token, added, &mut table.bytes);
            }
            table.ends.push(table.bytes.len());
            table.classes.push(class);
        }
        Ok(table)
    }

    /// One past the largest id.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of the longest token.
    pub(crate) fn longest(&self) -> usize {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| end - start).max().unwrap_or(0)
    }

    /// What `id` stands for; ids past the end are absent.
    pub(crate) fn class(&self, id: u32) -> TokenClass {
        self.classes.get(id as usize).copied().unwrap_or(TokenClass::Absent)
    }

    /// The bytes of `id`, `None` where there is no such token.
    pub(crate) fn bytes(&self, id: u32) -> Option<&[u8]> {
        if self.class(id) == TokenClass::Absent {
            return None;
        }
        let index = id as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Some(&self.bytes[start..self.ends[index]])
    }
}
