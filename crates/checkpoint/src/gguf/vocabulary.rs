//! The tokenizer inside a GGUF file.

use bantam_text::{TokenType, Vocabulary, VocabularyKind};

use super::metadata::Metadata;
use crate::CheckpointError;

/// Reads the `tokenizer.*` metadata.
pub(crate) fn vocabulary(metadata: &Metadata) -> Result<Vocabulary, CheckpointError> {
    const MODEL: &str = "tokenizer.ggml.model";
    const TOKENS: &str = "tokenizer.ggml.tokens";
    let kind = match metadata.required(MODEL, metadata.text(MODEL)?)? {
        "gpt2" => VocabularyKind::Gpt2,
        "llama" => VocabularyKind::Llama,
        other => {
            let known = match other {
                "bert" => " (WordPiece)",
                "t5" => " (a unigram model)",
                "rwkv" | "plamo2" | "none" | "gemma4" | "hybriddna" => " of llama.cpp",
                _ => "",
            };
            let problem = format!(
                "is {other:?}{known}; gpt2 and llama are read; pass the safetensors folder of the model"
            );
            return Err(metadata.error(MODEL, problem));
        }
    };
    let tokens = metadata.required(TOKENS, metadata.texts(TOKENS)?)?.to_vec();
    let text = |key: &str| Ok::<_, CheckpointError>(metadata.text(key)?.map(str::to_owned));
    let flag =
        |key: &str, default| Ok::<_, CheckpointError>(metadata.bool(key)?.unwrap_or(default));
    // An id that no token has says nothing, as llama.cpp has it. What an answer would then never end
    // by is refused where the vocabulary is loaded.
    let id = |key: &str| {
        let id = special_id(metadata, key)?;
        Ok::<_, CheckpointError>(id.filter(|id| (*id as usize) < tokens.len()))
    };
    // Where a file is silent, its converter meant the habit of the algorithm: SentencePiece models
    // begin a text with BOS and a space, byte-level models with neither.
    let sentence_piece = kind == VocabularyKind::Llama;
    check_ends(metadata, tokens.len())?;
    let token_types = token_types(metadata, tokens.len())?;
    // The ids that SentencePiece itself gives, in files that leave them out.
    let usual = |id: u32, token_type| {
        let is_it = token_types.get(id as usize) == Some(&token_type);
        (sentence_piece && is_it).then_some(id)
    };
    let bos = id("tokenizer.ggml.bos_token_id")?;
    let bos = if metadata.has("tokenizer.ggml.bos_token_id") {
        bos
    } else {
        usual(1, TokenType::Control)
    };
    let unknown = id("tokenizer.ggml.unknown_token_id")?.or(usual(0, TokenType::Unknown));
    Ok(Vocabulary {
        kind,
        pre: text("tokenizer.ggml.pre")?,
        token_types,
        scores: scores(metadata, tokens.len())?,
        merges: metadata.texts("tokenizer.ggml.merges")?.unwrap_or_default().to_vec(),
        bos,
        eos: id("tokenizer.ggml.eos_token_id")?,
        eot: id("tokenizer.ggml.eot_token_id")?,
        eom: id("tokenizer.ggml.eom_token_id")?,
        unknown,
        padding: id("tokenizer.ggml.padding_token_id")?,
        add_bos: flag("tokenizer.ggml.add_bos_token", sentence_piece && bos.is_some())?,
        add_eos: flag("tokenizer.ggml.add_eos_token", false)?,
        add_space_prefix: flag("tokenizer.ggml.add_space_prefix", sentence_piece)?,
        chat_template: text("tokenizer.chat_template")?,
        tokens,
    })
}

fn token_types(metadata: &Metadata, tokens: usize) -> Result<Vec<TokenType>, CheckpointError> {
    const KEY: &str = "tokenizer.ggml.token_type";
    let codes = metadata.integers(KEY)?.unwrap_or_default();
    check_length(metadata, KEY, codes.len(), tokens)?;
    codes
        .into_iter()
        .map(|code| {
            u32::try_from(code)
                .ok()
                .and_then(|code| TokenType::try_from(code).ok())
                .ok_or_else(|| metadata.error(KEY, format!("has the type {code}, expected 0 to 6")))
        })
        .collect()
}

fn scores(metadata: &Metadata, tokens: usize) -> Result<Vec<f32>, CheckpointError> {
    const KEY: &str = "tokenizer.ggml.scores";
    // The converters of a few models wrote whole numbers.
    if let Ok(Some(scores)) = metadata.integers(KEY) {
        check_length(metadata, KEY, scores.len(), tokens)?;
        return Ok(scores.into_iter().map(|score| score as f32).collect());
    }
    let scores = metadata.floats(KEY)?.unwrap_or_default();
    check_length(metadata, KEY, scores.len(), tokens)?;
    Ok(scores.to_vec())
}

/// One entry per token, or none.
fn check_length(
    metadata: &Metadata,
    key: &str,
    got: usize,
    tokens: usize,
) -> Result<(), CheckpointError> {
    if got == 0 || got == tokens {
        return Ok(());
    }
    Err(metadata.error(key, format!("has {got} entries, the vocabulary {tokens}")))
}

/// Refuses a file whose only ends of an answer are tokens that it does not have: no answer would end.
fn check_ends(metadata: &Metadata, tokens: usize) -> Result<(), CheckpointError> {
    const KEYS: [&str; 3] = [
        "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id",
    ];
    let mut beyond = None;
    for key in KEYS {
        match special_id(metadata, key)? {
            Some(id) if (id as usize) < tokens => return Ok(()),
            Some(id) => beyond = beyond.or(Some((key, id))),
            None => {}
        }
    }
    let Some((key, id)) = beyond else { return Ok(()) };
    let problem = format!(
        "is {id}, the vocabulary has {tokens} tokens, and no other token ends an answer; convert the \
         model again"
    );
    Err(metadata.error(key, problem))
}

/// A special token's id; −1, also as the largest number of 32 bits, means that there is none.
pub(super) fn special_id(metadata: &Metadata, key: &str) -> Result<Option<u32>, CheckpointError> {
    const NONE: [i128; 2] = [-1, u32::MAX as i128];
    match metadata.integer::<i128>(key)? {
        Some(id) if NONE.contains(&id) => Ok(None),
        _ => metadata.integer(key),
    }
}
