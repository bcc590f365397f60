//! Where a tokenizer comes from: a Hugging Face folder, or the vocabulary inside a GGUF file.

use std::path::PathBuf;

use crate::TextError;

/// What [`Tokenizer::load`](crate::Tokenizer::load) reads.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenizerSource {
    /// A Hugging Face folder with `tokenizer.json` and, where present, `tokenizer_config.json`,
    /// `special_tokens_map.json` and `chat_template.jinja`.
    Folder(PathBuf),
    /// The vocabulary read from a GGUF file.
    Vocabulary(Box<Vocabulary>),
}

/// The tokenizer as a GGUF file states it, in the `tokenizer.ggml.*` metadata (GGUF specification,
/// section "Tokenizer"). Token ids are positions in [`tokens`](Self::tokens).
#[derive(Debug, Clone, PartialEq)]
pub struct Vocabulary {
    /// `tokenizer.ggml.model`: which algorithm the vocabulary belongs to.
    pub kind: VocabularyKind,
    /// `tokenizer.ggml.pre`: the name of the pre-tokenizer; only byte-level vocabularies have one.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`: the text of every token, V entries, in the algorithm's own
    /// alphabet (byte-level letters such as `Ġ`, or SentencePiece pieces such as `▁the`).
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.token_type`: V entries, or none when every token is normal.
    pub token_types: Vec<TokenType>,
    /// `tokenizer.ggml.scores`: V SentencePiece scores (higher merges first); none for
    /// byte-level vocabularies.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.merges`: `"left right"` pairs, the first merged first; none for
    /// SentencePiece vocabularies.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`: begin of sequence.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`: end of sequence.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.eot_token_id`: end of turn.
    pub eot: Option<u32>,
    /// `tokenizer.ggml.eom_token_id`: end of a message that waits for a tool.
    pub eom: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`: stands for text the vocabulary cannot spell.
    pub unknown: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`.
    pub padding: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`: whether encoding begins with [`bos`](Self::bos).
    pub add_bos: bool,
    /// `tokenizer.ggml.add_eos_token`: whether encoding ends with [`eos`](Self::eos).
    pub add_eos: bool,
    /// `tokenizer.ggml.add_space_prefix`: whether SentencePiece text begins with a space.
    pub add_space_prefix: bool,
    /// `tokenizer.chat_template`: the Jinja source of the chat template.
    pub chat_template: Option<String>,
}

/// The algorithm of a GGUF vocabulary, `tokenizer.ggml.model`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VocabularyKind {
    /// `"gpt2"`: byte-level byte-pair encoding with stated merges.
    Gpt2,
    /// `"llama"`: SentencePiece byte-pair encoding with scores and byte fallback.
    Llama,
}

/// The kind of a token, one entry of `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum TokenType {
    /// Not said. As unused ones, such tokens are in no text.
    Undefined = 0,
    /// Ordinary text.
    Normal = 1,
    /// The token of text that cannot be spelt.
    Unknown = 2,
    /// A control token such as `<|im_start|>`: never part of plain text.
    Control = 3,
    /// Text added to the vocabulary by its user: always one token, and visible.
    UserDefined = 4,
    /// Reserved.
    Unused = 5,
    /// One byte, written `<0x0A>`.
    Byte = 6,
}

impl TryFrom<u32> for TokenType {
    type Error = TextError;

    fn try_from(code: u32) -> Result<Self, TextError> {
        Ok(match code {
            0 => Self::Undefined,
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            code => return Err(TextError::UnknownTokenType { code }),
        })
    }
}
