//! Text to ids in bounded time and memory.
//!
//! The `tokenizers` library takes a text whole: about 150 bytes of memory for each byte of text, and no
//! way to stop. So a long text is cut where its pieces are cut anyway, each part is tokenized by itself,
//! and between the parts there is a look at the clock of others: whether the text is too long already,
//! and whether anybody still waits. Where a part ends does not change an id; a property test holds it.

use serde_json::Value;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{Encoding, Model as _, ModelWrapper, Token};

use crate::pre_tokenizer::is_known_pattern;
use crate::token_table::TokenTable;
use crate::{Cancel, TextError, guarded};

/// What encoding a text may cost; see [`Tokenizer::encode_within`](crate::Tokenizer::encode_within).
#[derive(Debug, Clone, Copy)]
pub struct EncodeBounds<'c> {
    /// Tokens that are of use: a text of more is refused, where possible before it is tokenized.
    pub max_tokens: usize,
    /// Ends the work when nobody waits for it.
    pub cancel: &'c Cancel,
}

/// A part is about this long, as far as there are places to cut.
const PART_BYTES: usize = 16 << 10;

/// The longest part without a place to cut that is tokenized for a text of strangers. A word this long
/// takes about a second, in which nothing can stop it.
const LONGEST_RUN_BYTES: usize = 256 << 10;

/// The longest text for a tokenizer that knows no place to cut; it takes about four seconds.
const LONGEST_UNCUT_BYTES: usize = 2 << 20;

/// Unicode normal form C makes no text shorter than this share of its bytes: the extreme is `ΐ`, six
/// bytes in its parts and two composed.
const COMPOSED_SHARE: usize = 3;

/// What is known of a tokenizer before it sees a text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EncodingPlan {
    /// Ids before and after a text with special tokens.
    frame: (Vec<u32>, Vec<u32>),
    cuts: Cuts,
    /// Bytes of text that one token stands for at most; none where text may vanish.
    most_bytes_per_token: Option<usize>,
}

/// Where a text may be cut without a change to its ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cuts {
    Nowhere,
    /// Before a space that follows a letter or digit.
    BeforeSpaces,
    /// There, before a line end that follows an ASCII letter or digit, and before `、。，！？`.
    BeforeSpacesAndLines,
}

impl EncodingPlan {
    /// Looks at the parts of a tokenizer; `origin` names its file in errors.
    pub(crate) fn new(
        tokenizer: &tokenizers::Tokenizer,
        table: &TokenTable,
        origin: &str,
    ) -> Result<Self, TextError> {
        let part = |json: Result<Value, serde_json::Error>| json.unwrap_or(Value::Bool(true));
        let normalizer = part(serde_json::to_value(tokenizer.get_normalizer()));
        let pre_tokenizer = part(serde_json::to_value(tokenizer.get_pre_tokenizer()));
        Ok(Self {
            frame: frame(tokenizer, origin)?,
            cuts: Cuts::of(tokenizer, &normalizer, &pre_tokenizer),
            most_bytes_per_token: kept_share(tokenizer, &normalizer, &pre_tokenizer)
                .map(|share| share * table.longest().max(1)),
        })
    }

    /// Tokens that a text of `bytes` bytes has at least.
    pub(crate) fn fewest_tokens(&self, bytes: usize) -> usize {
        self.most_bytes_per_token.map_or(0, |most| bytes.div_ceil(most))
    }

    /// The ids of `text` by `tokenize`, which appends those of one part.
    pub(crate) fn encode(
        &self,
        text: &str,
        add_special: bool,
        bounds: Option<EncodeBounds<'_>>,
        mut tokenize: impl FnMut(&str, &mut Vec<u32>) -> Result<(), TextError>,
    ) -> Result<Vec<u32>, TextError> {
        let (before, after) = &self.frame;
        let mut ids = if add_special { before.clone() } else { Vec::new() };
        if let Some(EncodeBounds { max_tokens, .. }) = bounds {
            refuse_beyond(max_tokens, self.fewest_tokens(text.len()))?;
        }
        let mut rest = text;
        while !rest.is_empty() {
            let (part, next) = rest.split_at(self.cuts.part(rest));
            rest = next;
            if let Some(EncodeBounds { max_tokens, cancel }) = bounds {
                cancel.check()?;
                self.cuts.check(part)?;
                tokenize(part, &mut ids)?;
                refuse_beyond(max_tokens, ids.len())?;
            } else {
                tokenize(part, &mut ids)?;
            }
        }
        if add_special {
            ids.extend_from_slice(after);
        }
        Ok(ids)
    }
}

fn refuse_beyond(limit: usize, at_least: usize) -> Result<(), TextError> {
    if at_least > limit { Err(TextError::TooManyTokens { at_least, limit }) } else { Ok(()) }
}

/// The ids that the post-processor puts before and after a text.
///
/// It is run once, on a text of one token that no vocabulary has: what it does to long texts it does to
/// that, and what is wrong with it shows when the file is read.
fn frame(
    tokenizer: &tokenizers::Tokenizer,
    origin: &str,
) -> Result<(Vec<u32>, Vec<u32>), TextError> {
    const TEXT: u32 = u32::MAX;
    let invalid = |problem: String| TextError::InvalidVocabulary {
        problem: format!("the post-processor of {origin}: {problem}"),
    };
    let token = Token::new(TEXT, String::new(), (0, 0));
    let processed =
        guarded(|| tokenizer.post_process(Encoding::from_tokens(vec![token], 0), None, true));
    let encoding = processed.map_err(invalid)?.map_err(|error| invalid(error.to_string()))?;
    let mut parts = encoding.get_ids().split(|&id| id == TEXT);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(before), Some(after), None) => Ok((before.to_vec(), after.to_vec())),
        _ => {
            Err(invalid("it does not keep a text once; expected $A one time in single".to_owned()))
        }
    }
}

impl Cuts {
    fn of(tokenizer: &tokenizers::Tokenizer, normalizer: &Value, pre_tokenizer: &Value) -> Self {
        let keeps_spaces = |kind: &str| matches!(kind, "NFC" | "NFD" | "Lowercase");
        let mut added = tokenizer.get_added_vocabulary().get_added_tokens_decoder().values();
        let crossed = added.any(|token| {
            let word = |letter: char| letter.is_alphanumeric();
            token.content.contains(char::is_whitespace)
                || token.content.contains(IDEOGRAPHIC)
                || (token.rstrip && token.content.ends_with(word))
        });
        if crossed || !steps(normalizer, "normalizers").iter().all(|step| keeps_spaces(kind(step)))
        {
            return Self::Nowhere;
        }
        let add_space = steps(pre_tokenizer, "pretokenizers").iter().any(|step| {
            // It goes before every piece that has none.
            step["add_prefix_space"] == true
        });
        let cuts = if add_space { Self::BeforeSpaces } else { Self::BeforeSpacesAndLines };
        for step in steps(pre_tokenizer, "pretokenizers") {
            match kind(step) {
                // These leave words and what follows them together.
                "Digits" | "Punctuation" => (),
                "ByteLevel" if step["use_regex"] == true => return cuts,
                "Whitespace" | "WhitespaceSplit" | "BertPreTokenizer" => return Self::BeforeSpaces,
                "Metaspace" if step["split"] == true => return Self::BeforeSpaces,
                "Split" => {
                    let pattern = step["pattern"]["Regex"].as_str().unwrap_or_default();
                    let whole = step["behavior"] == "Isolated" && step["invert"] == false
                        || step["behavior"] == "Removed" && step["invert"] == true;
                    if !is_known_pattern(pattern) || !whole {
                        return Self::Nowhere;
                    }
                    // A pattern for all text; what comes after it sees its pieces one by one.
                    if pattern.contains(r"\s+(?!\S)") {
                        return cuts;
                    }
                }
                _ => return Self::Nowhere,
            }
        }
        Self::Nowhere
    }

    /// The length of the first part of `text`.
    fn part(self, text: &str) -> usize {
        if self == Self::Nowhere || text.len() <= PART_BYTES {
            return text.len();
        }
        let mut before = ' ';
        for (at, letter) in text.char_indices() {
            if at >= PART_BYTES && self.is_cut(before, letter) {
                return at;
            }
            before = letter;
        }
        text.len()
    }

    fn is_cut(self, before: char, letter: char) -> bool {
        let lines = self == Self::BeforeSpacesAndLines;
        match letter {
            ' ' => before.is_ascii_alphanumeric() || is_letter(before),
            '\n' => lines && before.is_ascii_alphanumeric(),
            _ => lines && IDEOGRAPHIC.contains(&letter) && is_letter(before),
        }
    }

    /// Refuses a part that would hold up others.
    fn check(self, part: &str) -> Result<(), TextError> {
        let (limit, what) = match self {
            Self::Nowhere => (LONGEST_UNCUT_BYTES, "text for this tokenizer"),
            _ => (LONGEST_RUN_BYTES, "text without a space between words"),
        };
        if part.len() <= limit {
            return Ok(());
        }
        let problem = format!("{} bytes of {what}; expected at most {limit}", part.len());
        Err(TextError::Encode { problem })
    }
}

/// Punctuation of Chinese and Japanese that stands right after a letter.
const IDEOGRAPHIC: &[char] = &['、', '。', '，', '！', '？'];

/// Letters of scripts in which every alphabetic character is a letter to regular expressions, too: not
/// a mark, which a pattern may take with the spaces after it.
fn is_letter(letter: char) -> bool {
    letter.is_ascii_alphabetic()
        || matches!(letter, 'À'..='Ö' | 'Ø'..='ö' | 'ø'..='ʯ' | 'Ά'..='Ͽ' | 'А'..='я' | 'ぁ'..='ゖ'
            | 'ァ'..='ヺ' | '\u{4E00}'..='\u{9FFF}' | '가'..='힣')
            && letter.is_alphabetic()
}

/// The steps of a part of a tokenizer: of a sequence, of one, or none.
fn steps<'v>(part: &'v Value, list: &str) -> &'v [Value] {
    match (part, part[list].as_array()) {
        (Value::Null, _) => &[],
        (_, Some(steps)) => steps,
        _ => std::slice::from_ref(part),
    }
}

fn kind(step: &Value) -> &str {
    step["type"].as_str().unwrap_or_default()
}

/// By how much a text may shrink before it becomes tokens that together spell all of it; none where
/// some of it may be lost.
fn kept_share(
    tokenizer: &tokenizers::Tokenizer,
    normalizer: &Value,
    pre_tokenizer: &Value,
) -> Option<usize> {
    let ModelWrapper::BPE(model) = tokenizer.get_model() else { return None };
    let has = |token: String| model.token_to_id(&token).is_some();
    let pre_tokenizers = steps(pre_tokenizer, "pretokenizers");
    let every_byte = if pre_tokenizers.iter().any(|step| kind(step) == "ByteLevel") {
        ByteLevel::alphabet().into_iter().all(|letter| has(letter.to_string()))
    } else {
        model.byte_fallback && (0..=u8::MAX).all(|byte| has(format!("<0x{byte:02X}>")))
    };
    let mut added = tokenizer.get_added_vocabulary().get_added_tokens_decoder().values();
    let keeps = |step: &Value| match kind(step) {
        "ByteLevel" | "Digits" | "Metaspace" | "Punctuation" => step["behavior"] != "Removed",
        "Split" => step["behavior"] != "Removed",
        _ => false,
    };
    if !every_byte
        || added.any(|token| token.lstrip || token.rstrip)
        || !pre_tokenizers.iter().all(keeps)
    {
        return None;
    }
    let mut share = 1;
    for step in steps(normalizer, "normalizers") {
        match kind(step) {
            "NFC" => share = COMPOSED_SHARE,
            "Prepend" => (),
            "Replace" if step["pattern"]["String"] == " " && step["content"] == "▁" => (),
            _ => return None,
        }
    }
    Some(share)
}
