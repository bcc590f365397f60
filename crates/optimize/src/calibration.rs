//! The text that layers see while they are calibrated.

use std::path::Path;

use bantam_text::{EncodeOptions, Message, Tokenizer};
use serde_json::Value;

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

    /// Reads a text file, or a JSON Lines file whose objects have `text`, `messages` (through the
    /// model's chat template) or `instruction`, `input` and `output`.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is none of these; the error names the line.
    pub fn from_file(
        path: &Path,
        tokenizer: &Tokenizer,
        options: CalibrationOptions,
    ) -> Result<Self, OptimizeError> {
        let text = std::fs::read_to_string(path).map_err(OptimizeError::io(path))?;
        let source = path.display().to_string();
        let json_lines = path.extension().is_some_and(|extension| extension == "jsonl");
        let calibration = if json_lines {
            let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
            let texts = lines.map(|(number, line)| {
                text_of(line, tokenizer).map_err(|problem| OptimizeError::Calibration {
                    source_name: format!("{source}, line {}", number + 1),
                    problem,
                })
            });
            Self::from_texts(&source, texts, tokenizer, options)?
        } else {
            let paragraphs = text.split("\n\n").filter(|text| !text.trim().is_empty());
            let texts = paragraphs.map(|text| Ok(CalibrationText::plain(&format!("{text}\n\n"))));
            Self::from_texts(&source, texts, tokenizer, options)?
        };
        if calibration.sequences.is_empty() {
            let problem = "it holds no text".to_owned();
            return Err(OptimizeError::Calibration { source_name: source, problem });
        }
        Ok(calibration)
    }
}

/// The text of one line of a JSON Lines file.
fn text_of(line: &str, tokenizer: &Tokenizer) -> Result<CalibrationText, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let field = |key: &str| value.get(key).and_then(Value::as_str);
    if let Some(text) = field("text") {
        return Ok(CalibrationText::plain(text));
    }
    if let Some(messages) = value.get("messages").and_then(Value::as_array) {
        let template = tokenizer.chat_template();
        let template =
            template.ok_or("`messages`, but the model has no chat template; give `text`")?;
        let messages = messages.iter().map(|message| serde_json::from_value(message.clone()));
        let messages: Vec<Message> =
            messages.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let text = template.render_messages(&messages, false).map_err(|error| error.to_string())?;
        return Ok(CalibrationText { text, rendered: true });
    }
    if let (Some(instruction), Some(output)) = (field("instruction"), field("output")) {
        let input = field("input").filter(|input| !input.is_empty());
        let input = input.map_or_else(String::new, |input| format!("{input}\n\n"));
        return Ok(CalibrationText::plain(&format!("{instruction}\n\n{input}{output}\n")));
    }
    Err("expected an object with `text`, `messages`, or `instruction` and `output`".to_owned())
}
