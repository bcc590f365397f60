//! The pre-tokenizers that GGUF files name: how text is cut before byte-pair merging.
//!
//! The names, and which of them mean one rule, are those of llama.cpp (`src/llama-vocab.cpp`, the files
//! of 2026). A pattern is what the `tokenizer.json` of the models says, where llama.cpp quotes it, else
//! llama.cpp's own. `tools/golden/pre_tokenizers.py` writes what they must do.

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

/// o200k: words cut where the case changes, with what is contracted to them; digits in threes.
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The same with single digits: Youtu.
const YOUTU: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// o200k with Chinese characters apart: Kimi K2.
const KIMI_K2: &str = r"\p{Han}+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// DeepSeek V3: words with their marks, punctuation before letters, symbols.
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

/// Chinese characters and kana.
const CHINESE_AND_KANA: &str = r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+";

/// Chinese characters, Hangul and what lies between, as the first DeepSeek models cut them.
const DEEPSEEK_WIDE: &str = r"[\x{4E00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+";

/// A space and letters that have a case, as the first DeepSeek models cut words.
const DEEPSEEK_CASED: &str = r"\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+";

/// Punctuation of the same, ASCII, wide and general.
const DEEPSEEK_PUNCTUATION: &str =
    r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+";

/// Words that end where a space or one of some commas and full stops is: BLOOM.
const BLOOM: &str = r" ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{0964}\x{06D4}\x{060C})]+";

/// cl100k with spaces in powers of two: Jais 2.
const JAIS2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}";

/// cl100k whose words go on over single spaces: EXAONE MoE.
const EXAONE_MOE: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+";

/// Places in a run of digits after which a multiple of three digits follows.
const THREES_FROM_THE_END: &str = r"(?=(?:\d{3})+(?!\d))";

const RULES: &[PreTokenizerRule] = &[
    PreTokenizerRule {
        names: &["smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"],
        splits: &[r"\p{N}", GPT2],
        whole_words: false,
        compose: false,
    },
    PreTokenizerRule {
        names: &["command-r"],
        splits: &[r"\p{N}", GPT2],
        whole_words: false,
        compose: true,
    },
    PreTokenizerRule {
        names: &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v1-en",
            "jina-v2-code",
            "roberta-bpe",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "exaone4",
            "jais",
            "trillion",
            "granite-docling",
        ],
        splits: &[GPT2],
        whole_words: false,
        compose: false,
    },
    PreTokenizerRule {
        names: &["mpt", "olmo"],
        splits: &[GPT2],
        whole_words: false,
        compose: true,
    },
    PreTokenizerRule {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        splits: &[LLAMA3],
        whole_words: true,
        compose: false,
    },
    PreTokenizerRule {
        names: &["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"],
        splits: &[LLAMA3],
        whole_words: false,
        compose: false,
    },
    PreTokenizerRule { names: &["qwen2"], splits: &[QWEN2], whole_words: false, compose: true },
    PreTokenizerRule {
        names: &[
            "stablelm2",
            "hunyuan",
            "solar-open",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "grok-2",
        ],
        splits: &[QWEN2],
        whole_words: false,
        compose: false,
    },
    PreTokenizerRule {
        names: &["qwen35"],
        splits: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        whole_words: false,
        compose: true,
    },
    PreTokenizerRule { names: &["tekken"], splits: &[TEKKEN], whole_words: true, compose: false },
    PreTokenizerRule {
        names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        splits: &[GPT4O],
        whole_words: false,
        compose: false,
    },
    PreTokenizerRule {
        names: &["granite-embed-multi-97m"],
        splits: &[GPT4O],
        whole_words: true,
        compose: false,
    },
    PreTokenizerRule {
        names: &["tiny_aya", "cohere2moe"],
        splits: &[r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O],
        whole_words: false,
        compose: false,
    },
    PreTokenizerRule {
        names: &["youtu"],
        splits: &[
            r"[\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+|[\x{FF01}\x{2026}\x{201C}\x{201D}\x{2018}\x{2019}\x{2014}\x{FF1A}\x{FF1B}\x{FF0C}\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+|[\x{3105}-\x{312F}]+|[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+",
            YOUTU,
        ],
        whole_words: true,
        compose: false,
    },
    PreTokenizerRule {
        names: &["kimi-k2"],
        splits: &[KIMI_K2],
        whole_words: false,
        compose: false,
    },
    PreTokenizerRule {
        names: &["deepseek-llm"],
        splits: &[
            r"[\r\n]",
            DEEPSEEK_CASED,
            DEEPSEEK_PUNCTUATION,
            r"\s+$",
            DEEPSEEK_WIDE,
            r"\p{N}+",
        ],
        whole_words: false,
        compose: false,
    },
    PreTokenizerRule {
        names: &["deepseek-coder"],
        splits: &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_WIDE, r"\p{N}"],
        whole_words: false,
        compose: false,
    },
    PreTokenizerRule {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        splits: &[r"\p{N}{1,3}", CHINESE_AND_KANA, DEEPSEEK3],
        whole_words: false,
        compose: false,
    },
    PreTokenizerRule {
        names: &["afmoe"],
        splits: &[
            r"\d+",
            THREES_FROM_THE_END,
            r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{F900}-\x{FAFF}\x{3040}-\x{309F}\x{30A0}-\x{30FF}\x{FF65}-\x{FF9F}\x{2F00}-\x{2FDF}\x{0E40}-\x{0E7F}\x{0E80}-\x{0EFF}\x{1780}-\x{17FF}\x{1000}-\x{109F}\x{AA60}-\x{AA7F}\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+",
            DEEPSEEK3,
        ],
        whole_words: false,
        compose: false,
    },
    PreTokenizerRule {
        names: &["superbpe"],
        splits: &[r"\p{N}+", THREES_FROM_THE_END],
        whole_words: false,
        compose: false,
    },
    PreTokenizerRule { names: &["jais-2"], splits: &[JAIS2], whole_words: false, compose: false },
    PreTokenizerRule {
        names: &["minicpm5"],
        splits: &[
            r"\p{N}{1,3}",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        whole_words: true,
        compose: false,
    },
    PreTokenizerRule {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        splits: &[
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        ],
        whole_words: false,
        compose: false,
    },
    PreTokenizerRule {
        names: &["seed-coder"],
        splits: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        whole_words: false,
        compose: false,
    },
    // Contractions stay with their word: Turkish suffixes begin with an apostrophe.
    PreTokenizerRule {
        names: &["ufakzeka"],
        splits: &[
            r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        whole_words: false,
        compose: false,
    },
    PreTokenizerRule {
        names: &["laguna"],
        splits: &[r"[^\n]+|[\n]+", QWEN2],
        whole_words: false,
        compose: false,
    },
    PreTokenizerRule {
        names: &["exaone-moe"],
        splits: &[EXAONE_MOE],
        whole_words: false,
        compose: false,
    },
    PreTokenizerRule {
        names: &["poro-chat", "bloom", "gpt3-finnish"],
        splits: &[BLOOM],
        whole_words: false,
        compose: false,
    },
    PreTokenizerRule {
        names: &["viking"],
        splits: &[BLOOM, r"\p{N}"],
        whole_words: false,
        compose: false,
    },
    PreTokenizerRule {
        names: &["chameleon"],
        splits: &[
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            GPT2,
        ],
        whole_words: false,
        compose: false,
    },
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

/// Names of llama.cpp whose vocabularies are not of byte letters: they spell spaces `▁` and other bytes
/// `<0x0A>` under a model called gpt2.
const WITHOUT_BYTE_LETTERS: [&str; 5] =
    ["gemma4", "granite-embed-multi-311m", "sarvam-moe", "spark2_5", "whitespace"];

/// Whether `pattern` is one of [`RULES`] and does not go on from a letter or digit into a space, as all
/// but one.
pub(crate) fn is_known_pattern(pattern: &str) -> bool {
    pattern != EXAONE_MOE
        && RULES.iter().flat_map(|rule| rule.splits).any(|&split| split == pattern)
}

impl PreTokenizerRule {
    /// The rule called `name`; a file that names none means `default`.
    pub(crate) fn named(name: Option<&str>) -> Result<&'static Self, TextError> {
        let name = name.unwrap_or("default");
        RULES.iter().find(|rule| rule.names.contains(&name)).ok_or_else(|| {
            if WITHOUT_BYTE_LETTERS.contains(&name) {
                let problem = format!(
                    "the pre-tokenizer {name:?} is for a vocabulary without byte letters, which is \
                     not read from GGUF; expected the safetensors folder of the model"
                );
                return TextError::InvalidVocabulary { problem };
            }
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
        pieces_by(&PreTokenizerRule::named(Some(name)).unwrap().pre_tokenizer().unwrap(), text)
    }

    fn pieces_by(pre_tokenizer: &Sequence, text: &str) -> Vec<String> {
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

    /// Pieces by the `regex` library of Python; `tools/golden/pre_tokenizers.py` writes the file.
    #[test]
    fn every_rule_cuts_as_its_pattern_says() {
        let golden = include_str!("../tests/data/pre_tokenizers.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        let texts = golden["texts"].as_array().unwrap();
        let list = |value: &serde_json::Value| value.as_array().unwrap().clone();
        let mut names = Vec::new();
        for case in list(&golden["rules"]) {
            for name in list(&case["names"]) {
                let name = name.as_str().unwrap().to_owned();
                let rule = PreTokenizerRule::named(Some(&name)).unwrap();
                let pre_tokenizer = rule.pre_tokenizer().unwrap();
                for (text, expected) in texts.iter().zip(list(&case["cuts"])) {
                    let text = text.as_str().unwrap();
                    let got = pieces_by(&pre_tokenizer, text);
                    let mut at = 0;
                    let end = |piece: &String| {
                        at += piece.chars().count() as u64;
                        serde_json::Value::from(at)
                    };
                    let ends: Vec<_> = got.iter().map(end).collect();
                    assert_eq!(ends, list(&expected), "{name}: {text:?}: {got:?}");
                }
                names.push(name);
            }
        }
        let known: Vec<&str> = RULES.iter().flat_map(|rule| rule.names).copied().collect();
        assert!(known.iter().all(|name| names.iter().any(|other| other == name)), "{known:?}");
        assert_eq!(names.len(), known.len(), "golden data of names that are no rule");
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = PreTokenizerRule::named(Some("klingon")).unwrap_err().to_string();
        assert!(error.contains("\"klingon\"") && error.contains("smollm"), "{error}");
        assert!(PreTokenizerRule::named(None).is_ok());
    }
}
