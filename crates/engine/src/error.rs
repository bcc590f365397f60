//! Why a request cannot be served.

use bantam_backend::BatchError;
use bantam_model::ModelError;

use crate::SamplingError;

/// Why a request cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nothing to continue.
    #[error("the prompt is empty; give at least one token to continue")]
    EmptyPrompt,
    /// The prompt leaves no room for an answer.
    #[error(
        "the prompt has {}, but a context of {context} leaves room for {}; shorten it by {} or more",
        count(*tokens),
        context.saturating_sub(1),
        count(tokens + 1 - context)
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that a sequence may have in all.
        context: usize,
    },
    /// A prompt to be scored that is longer than the context.
    #[error(
        "the prompt has {}, but a context holds {context}; shorten it by {} or more",
        count(*tokens),
        count(tokens - context)
    )]
    PromptBeyondContext {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that a sequence may have in all.
        context: usize,
    },
    /// A token id that the model does not have.
    #[error(
        "token {token} at position {position} of the prompt is outside the model's vocabulary of \
         {vocab_size}; the tokenizer belongs to another model"
    )]
    UnknownToken {
        /// The id.
        token: u32,
        /// Where it stands.
        position: usize,
        /// V.
        vocab_size: usize,
    },
    /// The prompt alone fills the cache.
    #[error(
        "the prompt has {tokens} tokens, but the cache has {num_blocks} blocks of {block_tokens} \
         tokens, room for {}; shorten it by {} tokens or more, or serve with a larger cache",
        num_blocks * block_tokens,
        tokens - num_blocks * block_tokens
    )]
    CacheTooSmall {
        /// Tokens of the prompt.
        tokens: usize,
        /// B, blocks of the cache.
        num_blocks: usize,
        /// S, tokens of a block.
        block_tokens: usize,
    },
    /// More tokens asked for than there is room, or none.
    #[error(
        "max_tokens is {asked}, expected 1 to {room} after a prompt of {prompt} tokens; leave it \
         out for as many as fit"
    )]
    MaxTokens {
        /// Tokens asked for.
        asked: usize,
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens that fit after it.
        room: usize,
    },
    /// The least number of tokens is above the largest.
    #[error("min_tokens is {min}, expected at most {max}, the tokens that may be generated")]
    MinTokens {
        /// Least number of tokens.
        min: usize,
        /// Largest number of tokens.
        max: usize,
    },
    /// A constraint on an answer that may not end when its form is complete.
    #[error(
        "ignore_eos is set on an answer with a constraint, which must be able to end; leave out one \
         of the two"
    )]
    ConstrainedWithoutEnd,
    /// More alternatives than there are tokens.
    #[error("{field} is {asked}, expected at most {vocab_size}, the size of the vocabulary")]
    Logprobs {
        /// The field.
        field: &'static str,
        /// Alternatives asked for.
        asked: usize,
        /// V.
        vocab_size: usize,
    },
    /// More alternatives for all tokens together than are worth their memory.
    #[error(
        "{field} is {asked}, expected at most {most} for {}; ask for fewer alternatives or tokens",
        count(*tokens)
    )]
    Alternatives {
        /// The field.
        field: &'static str,
        /// Alternatives asked for with each token.
        asked: usize,
        /// Tokens that would have them.
        tokens: usize,
        /// Alternatives that each may have.
        most: usize,
    },
    /// A list that is longer than any use of it.
    #[error("{field} has {got} entries, expected at most {most}")]
    TooMany {
        /// The field.
        field: &'static str,
        /// Its entries.
        got: usize,
        /// Entries that it may have.
        most: usize,
    },
    /// A field names a token id that the model does not have.
    #[error("token {token} in {field} is outside the model's vocabulary of {vocab_size}")]
    UnknownTokenIn {
        /// The field.
        field: &'static str,
        /// The id.
        token: u32,
        /// V.
        vocab_size: usize,
    },
    /// An executor that cannot serve a single request.
    #[error("the executor's {limit} is {got}, expected {least} or more; load with a larger value")]
    BadLimits {
        /// The limit.
        limit: &'static str,
        /// Its value.
        got: usize,
        /// The least value.
        least: usize,
    },
    /// A slowdown that allows nothing or everything.
    #[error("the prefill slowdown is {got}, expected a number above 1; 2 is the default")]
    Slowdown {
        /// The value given.
        got: f64,
    },
    /// A sampling parameter or a logit is not usable.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The step failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The step was not a batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
}

fn count(tokens: usize) -> String {
    format!("{tokens} token{}", if tokens == 1 { "" } else { "s" })
}
