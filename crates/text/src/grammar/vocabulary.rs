//! The vocabulary as the grammar library wants it.

use std::sync::Arc;

use llguidance::toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use crate::token_table::TokenClass;
use crate::{TextError, Tokenizer};

/// The bytes of all tokens as a prefix tree.
struct Vocabulary {
    trie: TokTrie,
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    /// Longest token first. Nothing that an answer depends on: the model chooses how to spell.
    fn tokenize_bytes(&self, text: &[u8]) -> Vec<TokenId> {
        self.trie.greedy_tokenize(text)
    }

    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

/// Longest token the library can hold, in bytes.
const MAX_TOKEN_BYTES: usize = 1000;

/// The tokens `0..vocab_size` of `tokenizer`, of which `ends` end an answer.
pub(super) fn environment(
    tokenizer: &Tokenizer,
    ends: &[u32],
    vocab_size: usize,
) -> Result<TokEnv, TextError> {
    let invalid = |problem: String| TextError::InvalidGrammarVocabulary { problem };
    let size = u32::try_from(vocab_size).ok().filter(|size| (1..1 << 22).contains(size));
    let size = size.ok_or_else(|| {
        invalid(format!("the model has {vocab_size} tokens; expected between 1 and 4194303"))
    })?;
    let Some(&end) = ends.first() else {
        return Err(invalid("no token ends an answer; name the end of sequence".to_owned()));
    };
    if let Some(end) = ends.iter().find(|&&end| end >= size) {
        return Err(invalid(format!(
            "end token {end} is not below the {size} tokens of the model"
        )));
    }
    let words: Vec<Vec<u8>> = (0..size).map(|id| word(tokenizer, id)).collect();
    let trie = TokTrie::from(&TokRxInfo::new(size, end), &words).with_eos_tokens(ends);
    Ok(Arc::new(Vocabulary { trie }))
}

/// What a token adds to the text. A special token carries a mark that no text begins with, so only
/// a grammar that names it allows it; tokens that no text contains are empty, and never allowed.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer.rendered_bytes(id, false);
    match tokenizer.class(id) {
        TokenClass::Absent => Vec::new(),
        _ if bytes.len() > MAX_TOKEN_BYTES => Vec::new(),
        TokenClass::Special => [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat(),
        TokenClass::Text if bytes.contains(&TokTrie::SPECIAL_TOKEN_MARKER) => Vec::new(),
        TokenClass::Text => bytes.to_vec(),
    }
}
