//! The text that layers see while they are calibrated.

mod file;
mod record;

use std::path::Path;

use bantam_text::{EncodeOptions, Tokenizer};

use self::file::{Entries, Entry};
use crate::OptimizeError;

/// Sequences of tokens, without padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calibration {
    /// Where they came from, in words.
    pub source: String,
    /// The tokens.
    pub sequences: Vec<Vec<u32>>,
}

/// How texts become sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CalibrationOptions {
    /// Sequences at most.
    pub samples: usize,
    /// Tokens of a sequence at most.
    pub sequence_tokens: usize,
    /// Whether texts are joined and cut into sequences of full length; else each text is one
    /// sequence, cut where it is too long.
    pub packed: bool,
}

/// A text to calibrate with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalibrationText {
    /// The text.
    pub text: String,
    /// Whether a chat template made it: its special tokens are tokens, and none are added.
    pub rendered: bool,
}

impl CalibrationText {
    /// Running text.
    #[must_use]
    pub fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), rendered: false }
    }
}

impl Calibration {
    /// Tokens of all sequences.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(Vec::len).sum()
    }

    /// Tokens of the longest sequence, at least 1.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.sequences.iter().map(Vec::len).max().unwrap_or(0).max(1)
    }

    /// Cuts texts into sequences.
    ///
    /// # Errors
    /// If a text cannot be tokenized.
    pub fn from_texts(
        source: &str,
        texts: impl IntoIterator<Item = Result<CalibrationText, OptimizeError>>,
        tokenizer: &Tokenizer,
        options: CalibrationOptions,
    ) -> Result<Self, OptimizeError> {
        let CalibrationOptions { samples, sequence_tokens, packed } = options;
        let (mut sequences, mut joined) = (Vec::new(), Vec::new());
        for text in texts {
            if sequences.len() >= samples {
                break;
            }
            let text = text?;
            let encode =
                EncodeOptions { parse_special: text.rendered, add_special: !text.rendered };
            let tokens = tokenizer.encode(&text.text, encode).map_err(|error| {
                OptimizeError::Calibration {
                    source_name: source.to_owned(),
                    problem: error.to_string(),
                }
            })?;
            if packed {
                joined.extend(tokens);
                while joined.len() >= sequence_tokens && sequences.len() < samples {
                    let rest = joined.split_off(sequence_tokens);
                    sequences.push(std::mem::replace(&mut joined, rest));
                }
            } else if !tokens.is_empty() {
                let end = tokens.len().min(sequence_tokens);
                sequences.push(tokens[..end].to_vec());
            }
        }
        if packed && sequences.len() < samples && !joined.is_empty() {
            sequences.push(joined);
        }
        Ok(Self { source: source.to_owned(), sequences })
    }

    /// Reads a text file, or a JSON file: an array or a value a line, of texts or of objects with
    /// `text`, `messages` or `conversations` (through the model's chat template), or a question and its
    /// answer under one of their usual names.
    ///
    /// # Errors
    /// If the file cannot be read, or an entry is none of these; the error names its line or element and
    /// its field.
    pub fn from_file(
        path: &Path,
        tokenizer: &Tokenizer,
        options: CalibrationOptions,
    ) -> Result<Self, OptimizeError> {
        let entries = Entries::read(path)?;
        let source = path.display().to_string();
        let texts = entries.iter().map(|(place, entry)| {
            let text = entry.and_then(|entry| match entry {
                Entry::Text(text) => Ok(CalibrationText::plain(&text)),
                Entry::Record(record) => record::text_of(&record, tokenizer.chat_template()),
            });
            text.map_err(|problem| OptimizeError::Calibration {
                source_name: format!("{source}, {place}"),
                problem,
            })
        });
        let calibration = Self::from_texts(&source, texts, tokenizer, options)?;
        if calibration.sequences.is_empty() {
            let problem = "it holds no text".to_owned();
            return Err(OptimizeError::Calibration { source_name: source, problem });
        }
        Ok(calibration)
    }
}
