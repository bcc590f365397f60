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
            let problem = format!("is {other:?}; gpt2 and llama are read");
            return Err(metadata.error(MODEL, problem));
        }
    };
    let tokens = metadata.required(TOKENS, metadata.texts(TOKENS)?)?.to_vec();
    let text = |key: &str| Ok::<_, CheckpointError>(metadata.text(key)?.map(str::to_owned));
    let flag =
        |key: &str, default| Ok::<_, CheckpointError>(metadata.bool(key)?.unwrap_or(default));
    let id = |key: &str| token_id(metadata, key, tokens.len());
    // Where a file is silent, its converter meant the habit of the algorithm: SentencePiece models
    // begin a text with BOS and a space, byte-level models with neither.
    let sentence_piece = kind == VocabularyKind::Llama;
    Ok(Vocabulary {
        kind,
        pre: text("tokenizer.ggml.pre")?,
        token_types: token_types(metadata, tokens.len())?,
        scores: scores(metadata, tokens.len())?,
        merges: metadata.texts("tokenizer.ggml.merges")?.unwrap_or_default().to_vec(),
        bos: id("tokenizer.ggml.bos_token_id")?,
        eos: id("tokenizer.ggml.eos_token_id")?,
        eot: id("tokenizer.ggml.eot_token_id")?,
        unknown: id("tokenizer.ggml.unknown_token_id")?,
        padding: id("tokenizer.ggml.padding_token_id")?,
        add_bos: flag("tokenizer.ggml.add_bos_token", sentence_piece)?,
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
                .ok_or_else(|| metadata.error(KEY, format!("has the type {code}, expected 1 to 6")))
        })
        .collect()
}

fn scores(metadata: &Metadata, tokens: usize) -> Result<Vec<f32>, CheckpointError> {
    const KEY: &str = "tokenizer.ggml.scores";
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

fn token_id(metadata: &Metadata, key: &str, tokens: usize) -> Result<Option<u32>, CheckpointError> {
    let id = metadata.integer::<u32>(key)?;
    match id {
        Some(id) if id as usize >= tokens => {
            Err(metadata.error(key, format!("is {id}, the vocabulary has {tokens} tokens")))
        }
        id => Ok(id),
    }
}
