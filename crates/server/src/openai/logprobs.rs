//! How probable tokens were, in the two forms of the OpenAI API.

use std::collections::BTreeMap;
use std::sync::Arc;

use bantam_engine::TokenLogprobs;
use bantam_text::Tokenizer;
use serde::{Serialize, Serializer};
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

/// How tokens are shown.
#[derive(Clone)]
pub(crate) struct TokenNames {
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// As `token_id:` and the id, not by their text.
    pub(crate) as_ids: bool,
}

impl TokenNames {
    fn name(&self, id: u32, text: impl FnOnce(&Tokenizer) -> String) -> String {
        if self.as_ids { format!("token_id:{id}") } else { text(&self.tokenizer) }
    }
}

impl TokenLogprob {
    fn new(names: &TokenNames, id: u32, logprob: f32) -> Self {
        let bytes = names.tokenizer.token_bytes(id).unwrap_or_default();
        let token = names.name(id, |_| String::from_utf8_lossy(&bytes).into_owned());
        Self { token, logprob: finite(logprob), bytes }
    }
}

impl ChatLogprobs {
    /// The log probabilities of these tokens, if they were asked for.
    pub(crate) fn new(names: &TokenNames, tokens: &[AnswerToken]) -> Self {
        let content = tokens.iter().filter_map(|AnswerToken { id, logprobs, .. }| {
            let logprobs = logprobs.as_ref()?;
            let top = logprobs.top.iter();
            Some(ChatLogprob {
                token: TokenLogprob::new(names, *id, logprobs.chosen),
                top_logprobs: top
                    .map(|&(id, logprob)| TokenLogprob::new(names, id, logprob))
                    .collect(),
            })
        });
        Self { content: content.collect() }
    }
}

/// Logarithms of probabilities in the form of `/v1/completions`: lists of the same length, with one
/// entry for each token made. A token that ends the answer is the last, though its text is not shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct CompletionLogprobs {
    /// The texts of the tokens; one that is no whole characters as `bytes:\xe2\x82`.
    pub(crate) tokens: Vec<String>,
    /// The natural logarithms of their probabilities; none for the first token of an echoed prompt.
    pub(crate) token_logprobs: Vec<Option<f32>>,
    /// The most probable tokens at each place, the chosen one always among them.
    #[schema(value_type = Vec<Option<std::collections::HashMap<String, f32>>>)]
    pub(crate) top_logprobs: Vec<Option<TopLogprobs>>,
    /// Characters of the text before each token.
    pub(crate) text_offset: Vec<usize>,
}

/// Texts of tokens with the logarithms of their probabilities: a JSON object, best first.
///
/// The numbers are those of `token_logprobs` to the last digit: clients find out by comparing them
/// whether the most probable token was chosen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TopLogprobs(Vec<(String, f32)>);

impl TopLogprobs {
    fn new(entries: impl Iterator<Item = (String, f32)>) -> Self {
        let mut top = Vec::<(String, f32)>::new();
        for (text, logprob) in entries {
            // Different tokens may have one text: an object can show the last only.
            top.retain(|(other, _)| *other != text);
            top.push((text, finite(logprob)));
        }
        top.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        Self(top)
    }
}

impl Serialize for TopLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(text, logprob)| (text, logprob)))
    }
}

impl CompletionLogprobs {
    /// Adds a token that stands at `offset`.
    pub(crate) fn push(
        &mut self,
        names: &TokenNames,
        id: u32,
        logprobs: Option<&TokenLogprobs>,
        offset: usize,
    ) {
        let name = |id| names.name(id, |tokenizer| text_or_bytes(tokenizer, id));
        let top = logprobs.map(|logprobs| {
            let others = logprobs.top.iter().copied().filter(|&(other, _)| other != id);
            let all = others.chain([(id, logprobs.chosen)]);
            TopLogprobs::new(all.map(|(id, logprob)| (name(id), logprob)))
        });
        self.tokens.push(name(id));
        self.token_logprobs.push(logprobs.map(|logprobs| finite(logprobs.chosen)));
        self.top_logprobs.push(top);
        self.text_offset.push(offset);
    }

    /// Adds those of a later chunk.
    pub(crate) fn extend(&mut self, later: Self) {
        self.tokens.extend(later.tokens);
        self.token_logprobs.extend(later.token_logprobs);
        self.top_logprobs.extend(later.top_logprobs);
        self.text_offset.extend(later.text_offset);
    }
}

/// How probable the tokens of a prompt were, in vLLM's form: for each token its id and those of the
/// alternatives, none for the first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Vec<Option<std::collections::HashMap<String, PromptLogprob>>>)]
pub(crate) struct PromptLogprobs(Vec<Option<RankedLogprobs>>);

/// How probable a token of a prompt was.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct PromptLogprob {
    logprob: f32,
    /// 1 for the most probable; none below the alternatives that were asked for.
    rank: Option<usize>,
    decoded_token: String,
}

impl PromptLogprobs {
    /// The scores of these tokens of a prompt; `first` if nothing came before, so that its first
    /// token, which has none, is still to be told.
    pub(crate) fn new(
        tokenizer: &Tokenizer,
        tokens: &[u32],
        scores: &[TokenLogprobs],
        first: bool,
    ) -> Self {
        let scored = tokens.iter().zip(scores);
        let scored = scored.map(|(&token, score)| Some(ranked(tokenizer, token, score)));
        Self(first.then_some(None).into_iter().chain(scored).collect())
    }

    /// Adds those of later tokens.
    pub(crate) fn extend(&mut self, later: Self) {
        self.0.extend(later.0);
    }
}

/// A token and the most probable ones at its place, by id.
pub(crate) type RankedLogprobs = BTreeMap<u32, PromptLogprob>;

/// How probable a token was, and the most probable ones at its place.
pub(crate) fn ranked(
    tokenizer: &Tokenizer,
    token: u32,
    logprobs: &TokenLogprobs,
) -> RankedLogprobs {
    let entry = |logprob, id, rank| {
        let decoded_token = text_or_bytes(tokenizer, id);
        (id, PromptLogprob { logprob: finite(logprob), rank, decoded_token })
    };
    let top = logprobs.top.iter().zip(1..);
    let top = top.map(|(&(id, logprob), rank)| entry(logprob, id, Some(rank)));
    // The token itself comes first, so that its rank replaces none.
    [entry(logprobs.chosen, token, None)].into_iter().chain(top).collect()
}

/// JSON has no infinity.
pub(crate) fn finite(logprob: f32) -> f32 {
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
