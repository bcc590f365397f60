//! The pre-tokenizers that GGUF files name: how text is cut before byte-pair merging.

use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

use crate::TextError;

/// One rule, as the `tokenizer.json` of the models states it.
#[derive(Debug)]
pub(crate) struct PreTokenizerRule {
    /// The values of `tokenizer.ggml.pre` that mean this rule.
    names: &'static [&'static str],
    /// Patterns applied in turn; each match and each gap becomes a piece.
    splits: &'static [&'static str],
    /// Whether a piece that is a token is taken whole, without merging (tiktoken vocabularies).
    pub(crate) whole_words: bool,
    /// Whether text is brought into Unicode normal form C first.
    compose: bool,
}

/// GPT-2 (`encoder.py`).
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// cl100k with digits in threes: Llama 3.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// cl100k with single digits: Qwen 2 to 3.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Mistral NeMo and later: words cut where the case changes, single digits.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const RULES: &[PreTokenizerRule] = &[
    PreTokenizerRule {
        names: &["smollm", "starcoder", "refact"],
        splits: &[r"\p{N}", GPT2],
        whole_words: false,
        compose: false,
    },
    PreTokenizerRule {
        names: &["gpt-2", "phi-2"],
        splits: &[GPT2],
        whole_words: false,
        compose: false,
    },
    PreTokenizerRule {
        names: &["llama-bpe", "llama3", "llama-v3"],
        splits: &[LLAMA3],
        whole_words: true,
        compose: false,
    },
    PreTokenizerRule { names: &["qwen2"], splits: &[QWEN2], whole_words: false, compose: true },
    PreTokenizerRule { names: &["tekken"], splits: &[TEKKEN], whole_words: true, compose: false },
    PreTokenizerRule {
        names: &["falcon"],
        splits: &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
        whole_words: false,
        compose: false,
    },
    // What llama.cpp takes for files written before `tokenizer.ggml.pre` existed.
    PreTokenizerRule {
        names: &["default"],
        splits: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        whole_words: false,
        compose: false,
    },
];

/// Whether `pattern` is one of [`RULES`]: none of them goes on from a letter or digit into a space.
pub(crate) fn is_known_pattern(pattern: &str) -> bool {
    RULES.iter().flat_map(|rule| rule.splits).any(|&split| split == pattern)
}

impl PreTokenizerRule {
    /// The rule called `name`; a file that names none means `default`.
    pub(crate) fn named(name: Option<&str>) -> Result<&'static Self, TextError> {
        let name = name.unwrap_or("default");
        RULES.iter().find(|rule| rule.names.contains(&name)).ok_or_else(|| {
            let supported: Vec<&str> = RULES.iter().flat_map(|rule| rule.names).copied().collect();
            TextError::UnsupportedPreTokenizer {
                name: name.to_owned(),
                supported: supported.join(", "),
            }
        })
    }

    /// The rule for the `tokenizers` library: the splits, then bytes as letters.
    pub(crate) fn pre_tokenizer(&self) -> Result<Sequence, tokenizers::Error> {
        let mut steps: Vec<PreTokenizerWrapper> = Vec::with_capacity(self.splits.len() + 1);
        for &pattern in self.splits {
            let pattern = SplitPattern::Regex(pattern.to_owned());
            steps.push(Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?.into());
        }
        steps.push(ByteLevel::new(false, true, false).into());
        Ok(Sequence::new(steps))
    }

    /// What is done to text before it is cut.
    pub(crate) fn normalizer(&self) -> Option<NFC> {
        self.compose.then_some(NFC)
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

    use super::*;

    fn pieces(name: &str, text: &str) -> Vec<String> {
        let pre_tokenizer = PreTokenizerRule::named(Some(name)).unwrap().pre_tokenizer().unwrap();
        let mut pieces = PreTokenizedString::from(text);
        pre_tokenizer.pre_tokenize(&mut pieces).unwrap();
        pieces
            .get_splits(OffsetReferential::Original, OffsetType::Byte)
            .into_iter()
            .map(|(_, (start, end), _)| text[start..end].to_owned())
            .collect()
    }

    #[test]
    fn digits_are_cut_as_each_family_does() {
        let text = "in 12345 days";
        assert_eq!(pieces("gpt-2", text), ["in", " 12345", " days"]);
        assert_eq!(pieces("smollm", text), ["in", " ", "1", "2", "3", "4", "5", " days"]);
        assert_eq!(pieces("llama-bpe", text), ["in", " ", "123", "45", " days"]);
        assert_eq!(pieces("qwen2", text), ["in", " ", "1", "2", "3", "4", "5", " days"]);
        assert_eq!(pieces("tekken", text), ["in", " ", "1", "2", "3", "4", "5", " days"]);
        assert_eq!(pieces("falcon", text), ["in", " ", "123", "45", " days"]);
    }

    #[test]
    fn words_are_cut_as_each_family_does() {
        let text = "HelloWorld's (x)\n\n  y";
        let gpt2 = ["HelloWorld", "'s", " (", "x", ")", "\n\n ", " y"];
        assert_eq!(pieces("gpt-2", text), gpt2);
        assert_eq!(pieces("smollm", text), gpt2);
        let cl100k = ["HelloWorld", "'s", " (", "x", ")\n\n", " ", " y"];
        assert_eq!(pieces("llama3", text), cl100k);
        assert_eq!(pieces("qwen2", text), cl100k);
        assert_eq!(pieces("tekken", text), ["Hello", "World", "'s", " (", "x", ")\n\n", " ", " y"]);
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = PreTokenizerRule::named(Some("klingon")).unwrap_err().to_string();
        assert!(error.contains("\"klingon\"") && error.contains("smollm"), "{error}");
        assert!(PreTokenizerRule::named(None).is_ok());
    }
}
