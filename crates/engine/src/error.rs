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
        "the prompt has {tokens} tokens, but a context of {context} leaves room for {}; shorten \
         it by {} tokens or more",
        context.saturating_sub(1),
        tokens + 1 - context
    )]
    PromptTooLong {
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
