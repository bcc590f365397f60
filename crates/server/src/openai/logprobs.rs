//! How probable tokens were, in the two forms of the OpenAI API.

use bantam_text::Tokenizer;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::answer::AnswerToken;

/// OpenAI's number for a token that cannot be.
const IMPOSSIBLE: f32 = -9999.0;

/// Logarithms of probabilities in the chat form.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct ChatLogprobs {
    /// One for each token of the content.
    pub(crate) content: Vec<ChatLogprob>,
}

/// A token and its alternatives.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ChatLogprob {
    #[serde(flatten)]
    pub(crate) token: TokenLogprob,
    /// The most probable tokens at this place.
    pub(crate) top_logprobs: Vec<TokenLogprob>,
}

/// A token.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct TokenLogprob {
    /// Its text; bytes that are no whole characters are shown as U+FFFD.
    pub(crate) token: String,
    /// The natural logarithm of its probability.
    pub(crate) logprob: f32,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

impl TokenLogprob {
    fn new(tokenizer: &Tokenizer, id: u32, logprob: f32) -> Self {
        let bytes = tokenizer.token_bytes(id).unwrap_or_default();
        let token = String::from_utf8_lossy(&bytes).into_owned();
        Self { token, logprob: finite(logprob), bytes }
    }
}

impl ChatLogprobs {
    /// The log probabilities of these tokens, if they were asked for.
    pub(crate) fn new(tokenizer: &Tokenizer, tokens: &[AnswerToken]) -> Self {
        let content = tokens.iter().filter_map(|AnswerToken { id, logprobs, .. }| {
            let logprobs = logprobs.as_ref()?;
            let top = logprobs.top.iter();
            Some(ChatLogprob {
                token: TokenLogprob::new(tokenizer, *id, logprobs.chosen),
                top_logprobs: top
                    .map(|&(id, logprob)| TokenLogprob::new(tokenizer, id, logprob))
                    .collect(),
            })
        });
        Self { content: content.collect() }
    }
}

/// Logarithms of probabilities in the form of `/v1/completions`: lists of the same length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct CompletionLogprobs {
    /// The texts of the tokens; one that is no whole characters as `bytes:\xe2\x82`.
    pub(crate) tokens: Vec<String>,
    /// The natural logarithms of their probabilities; none for the first token of an echoed prompt.
    pub(crate) token_logprobs: Vec<Option<f32>>,
    /// The most probable tokens at each place, the chosen one always among them.
    #[schema(value_type = Vec<Option<std::collections::HashMap<String, f32>>>)]
    pub(crate) top_logprobs: Vec<Option<Map<String, Value>>>,
    /// Characters of the text before each token.
    pub(crate) text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    /// Adds tokens; their offsets count from `offset`.
    pub(crate) fn push(&mut self, tokenizer: &Tokenizer, tokens: &[AnswerToken], offset: usize) {
        for token in tokens {
            let text = text_or_bytes(tokenizer, token.id);
            let top = token.logprobs.as_ref().map(|logprobs| {
                let top = logprobs.top.iter().copied().chain([(token.id, logprobs.chosen)]);
                top.map(|(id, logprob)| (text_or_bytes(tokenizer, id), finite(logprob).into()))
                    .collect()
            });
            self.tokens.push(text);
            self.token_logprobs.push(token.logprobs.as_ref().map(|l| finite(l.chosen)));
            self.top_logprobs.push(top);
            self.text_offset.push(offset + token.offset);
        }
    }
}

impl CompletionLogprobs {
    /// Adds those of a later chunk.
    pub(crate) fn extend(&mut self, later: Self) {
        self.tokens.extend(later.tokens);
        self.token_logprobs.extend(later.token_logprobs);
        self.top_logprobs.extend(later.top_logprobs);
        self.text_offset.extend(later.text_offset);
    }
}

/// JSON has no infinity.
fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { IMPOSSIBLE }
}

fn text_or_bytes(tokenizer: &Tokenizer, id: u32) -> String {
    let bytes = tokenizer.token_bytes(id).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_else(|error| {
        error
            .as_bytes()
            .iter()
            .fold("bytes:".to_owned(), |text, byte| text + &format!("\\x{byte:02x}"))
    })
}
