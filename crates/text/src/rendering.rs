//! How tokens become text: the decoder of `tokenizer.json`, reduced to a rule per token.
//!
//! The decoders of the `tokenizers` library work on whole sequences. All that matter here render
//! every token on its own, up to some spaces taken off the very beginning, so they are reduced to
//! two things: the bytes of each token, and that [`LeadingStrip`]. Streams and grammar masks need
//! exactly these.

use std::collections::HashMap;

use serde_json::Value;

use crate::TextError;

/// How the text of a token in the vocabulary spells its bytes.
#[derive(Debug, Clone, PartialEq)]
enum Spelling {
    /// Each letter stands for one byte (GPT-2).
    ByteLevel { bytes: HashMap<char, u8> },
    /// Pieces of text after some replacements, and `<0x0A>` for single bytes (SentencePiece).
    Pieces { replacements: Vec<(String, String)>, byte_fallback: bool },
    /// Words set apart by a space, except continuations and glued punctuation (BERT).
    Words { continuation: Option<String>, glued: &'static [&'static str] },
}

/// What the WordPiece decoder's clean-up sets without a space before it.
const GLUED: &[&str] = &[".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re"];

/// The decoder of a tokenizer as rules per token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rendering {
    spelling: Spelling,
    /// What is taken off the beginning of a decoded sequence.
    pub(crate) strip: LeadingStrip,
}

/// Takes up to `remaining` spaces off the beginning of a stream of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LeadingStrip {
    remaining: usize,
}

impl LeadingStrip {
    /// The next bytes of the stream without the spaces still to be taken off.
    pub(crate) fn apply<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let spaces = bytes.iter().take(self.remaining).take_while(|&&byte| byte == b' ').count();
        let text = &bytes[spaces..];
        self.remaining = if text.is_empty() { self.remaining - spaces } else { 0 };
        text
    }
}

impl Rendering {
    /// Reads the `decoder` object of a `tokenizer.json`; `None` where it has none.
    ///
    /// `origin` names the file in errors.
    pub(crate) fn from_decoder(decoder: Option<&Value>, origin: &str) -> Result<Self, TextError> {
        let unsupported =
            |problem: String| TextError::UnsupportedDecoder { origin: origin.to_owned(), problem };
        let Some(decoder) = decoder else {
            // The library joins the tokens of such a tokenizer with spaces.
            return Ok(Self::words(None, &[]));
        };
        let steps = match decoder["decoders"].as_array() {
            Some(steps) => steps.as_slice(),
            None => std::slice::from_ref(decoder),
        };
        let (mut replacements, mut byte_fallback, mut fused) = (Vec::new(), false, false);
        let mut strip = LeadingStrip::default();
        for step in steps {
            let kind = step["type"].as_str().unwrap_or_default();
            let alone = steps.len() == 1;
            match kind {
                "ByteLevel" if alone => return Ok(Self::byte_level()),
                "WordPiece" if alone => {
                    let prefix = step["prefix"].as_str().map(str::to_owned);
                    let glued = if step["cleanup"] == true { GLUED } else { &[] };
                    return Ok(Self::words(prefix, glued));
                }
                "Metaspace" if alone => {
                    let mark = step["replacement"].as_str().unwrap_or("▁").to_owned();
                    replacements.push((mark, " ".to_owned()));
                    strip.remaining = usize::from(step["prepend_scheme"] != "never");
                }
                "Replace" if !fused => {
                    let (Some(from), Some(to)) =
                        (step["pattern"]["String"].as_str(), step["content"].as_str())
                    else {
                        return Err(unsupported(format!(
                            "Replace with pattern {}",
                            step["pattern"]
                        )));
                    };
                    replacements.push((from.to_owned(), to.to_owned()));
                }
                "ByteFallback" if !fused => byte_fallback = true,
                "Fuse" => fused = true,
                "Strip" if fused && step["content"] == " " && step["stop"] == 0 => {
                    let start = step["start"].as_u64().and_then(|start| start.try_into().ok());
                    strip.remaining += start.unwrap_or(0_usize);
                }
                kind => return Err(unsupported(format!("{kind} in {decoder}"))),
            }
        }
        Ok(Self { spelling: Spelling::Pieces { replacements, byte_fallback }, strip })
    }

    fn byte_level() -> Self {
        let spelling = Spelling::ByteLevel { bytes: byte_level_alphabet() };
        Self { spelling, strip: LeadingStrip::default() }
    }

    fn words(continuation: Option<String>, glued: &'static [&'static str]) -> Self {
        Self {
            spelling: Spelling::Words { continuation, glued },
            strip: LeadingStrip { remaining: 1 },
        }
    }

    /// Appends the bytes that `token` contributes to decoded text.
    ///
    /// `added` marks tokens outside the model's own vocabulary (`<|im_start|>`): their text is
    /// plain text, not spelt in byte-level letters.
    pub(crate) fn render(&self, token: &str, added: bool, bytes: &mut Vec<u8>) {
        match &self.spelling {
            Spelling::ByteLevel { .. } if added => bytes.extend_from_slice(token.as_bytes()),
            Spelling::ByteLevel { bytes: letters } => {
                let start = bytes.len();
                for letter in token.chars() {
                    let Some(&byte) = letters.get(&letter) else {
                        // Not spelt in letters after all: plain text.
                        bytes.truncate(start);
                        bytes.extend_from_slice(token.as_bytes());
                        return;
                    };
                    bytes.push(byte);
                }
            }
            Spelling::Pieces { replacements, byte_fallback } => {
                let mut text = token.to_owned();
                for (from, to) in replacements {
                    text = text.replace(from, to);
                }
                match byte_token(&text).filter(|_| *byte_fallback) {
                    Some(byte) => bytes.push(byte),
                    None => bytes.extend_from_slice(text.as_bytes()),
                }
            }
            Spelling::Words { continuation, glued } => {
                let joined = continuation.as_deref().and_then(|prefix| token.strip_prefix(prefix));
                let is_glued = glued.iter().any(|glued| token.starts_with(glued));
                if joined.is_none() && !is_glued {
                    bytes.push(b' ');
                }
                bytes.extend_from_slice(joined.unwrap_or(token).as_bytes());
            }
        }
    }
}

/// The byte that a token such as `<0x0A>` stands for.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_byte = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if is_byte { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// The letters of byte-level vocabularies (GPT-2, `bytes_to_unicode`): printable Latin-1 bytes
/// stand for themselves, the others are counted up from U+0100.
fn byte_level_alphabet() -> HashMap<char, u8> {
    let mut next_substitute = 0x100_u32;
    (0..=u8::MAX)
        .map(|byte| {
            let letter = match byte {
                b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
                _ => {
                    next_substitute += 1;
                    char::from_u32(next_substitute - 1).unwrap_or(char::REPLACEMENT_CHARACTER)
                }
            };
            (letter, byte)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::json;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    use super::*;

    fn rendered(rendering: &Rendering, token: &str) -> String {
        let mut bytes = Vec::new();
        rendering.render(token, false, &mut bytes);
        String::from_utf8(bytes).expect("test tokens are text")
    }

    #[test]
    fn the_alphabet_is_that_of_the_library() {
        let ours: HashSet<char> = byte_level_alphabet().into_keys().collect();
        let theirs: HashSet<char> = ByteLevel::alphabet().into_iter().collect();
        assert_eq!(ours, theirs);
        assert_eq!(byte_level_alphabet()[&'Ġ'], b' ');
    }

    #[test]
    fn byte_tokens() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        assert_eq!(byte_token("<0xff>"), Some(255));
        for token in ["<0x+A>", "<0xA>", "<0x0A", "0x0A", "<0x00A>", "<0xé>"] {
            assert_eq!(byte_token(token), None, "{token}");
        }
    }

    #[test]
    fn word_pieces_join_as_bert_does() {
        let decoder = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
        let rendering = Rendering::from_decoder(Some(&decoder), "test").unwrap();
        let text: String = ["un", "##happy", ",", "is", "##n't", "it", "?"]
            .map(|t| rendered(&rendering, t))
            .concat();
        assert_eq!(text, " unhappy, isn't it?");
    }

    #[test]
    fn decoders_that_need_the_whole_sequence_are_refused() {
        for decoder in [
            json!({"type": "CTC"}),
            json!({"type": "Sequence", "decoders": [
                {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 0, "stop": 1}]}),
            json!({"type": "Replace", "pattern": {"Regex": "a+"}, "content": "b"}),
        ] {
            let error = Rendering::from_decoder(Some(&decoder), "tokenizer.json").unwrap_err();
            assert!(error.to_string().contains("tokenizer.json"), "{error}");
        }
    }

    #[test]
    fn the_strip_spans_tokens() {
        let mut strip = LeadingStrip { remaining: 2 };
        assert_eq!(strip.apply(b" "), b"");
        assert_eq!(strip.apply(b""), b"");
        assert_eq!(strip.apply(b"  a "), b" a ");
        assert_eq!(strip.apply(b"  b"), b"  b");
    }
}
