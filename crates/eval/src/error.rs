//! Why something cannot be measured.

use bantam_backend::BatchError;
use bantam_model::ModelError;

/// Why something cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A window that scores nothing.
    #[error("the window is {window} tokens, expected 2 or more; 2048 is the common choice")]
    Window {
        /// The window asked for.
        window: usize,
    },
    /// A stride that never advances or leaves tokens out.
    #[error("the stride is {stride}, expected 1 to {window} (the window)")]
    Stride {
        /// The stride asked for.
        stride: usize,
        /// The window.
        window: usize,
    },
    /// A window longer than a model's context.
    #[error(
        "the window is {window} tokens, but the context holds {context}; use --window {context}"
    )]
    WindowTooLong {
        /// The window asked for.
        window: usize,
        /// Tokens a sequence may have.
        context: usize,
    },
    /// A text without anything to predict.
    #[error(
        "the text has {tokens} token{}, but at least 2 are needed to score one; use a longer text",
        if *tokens == 1 { "" } else { "s" }
    )]
    TextTooShort {
        /// Its tokens.
        tokens: usize,
    },
    /// Two models whose logits are not about the same tokens.
    #[error(
        "the models have vocabularies of {first} and {other} tokens; only models that share a \
         tokenizer can be compared"
    )]
    Vocabularies {
        /// V of the first model.
        first: usize,
        /// V of the other.
        other: usize,
    },
    /// A token id that the model does not have.
    #[error(
        "token {token} is outside the model's vocabulary of {vocab_size}; the tokenizer belongs \
         to another model"
    )]
    UnknownToken {
        /// The id.
        token: u32,
        /// V.
        vocab_size: usize,
    },
    /// Logits that are not numbers.
    #[error(
        "the logits after token {position} are not finite; the weights are damaged, or the number \
         format is too narrow for this model: try --dtype f32"
    )]
    NotFinite {
        /// Position in the text.
        position: usize,
    },
    /// A benchmark that does not fit the cache.
    #[error(
        "the cache is too small for {batch} sequences of {tokens} tokens each; at most {fitting} of \
         that length fit"
    )]
    CacheTooSmall {
        /// Sequences.
        batch: usize,
        /// Tokens of each.
        tokens: usize,
        /// Sequences of that length that fit.
        fitting: usize,
    },
    /// More sequences than a step takes.
    #[error("a step takes {available} sequences, not {batch}; use a batch of at most {available}")]
    StepTooSmall {
        /// Sequences.
        batch: usize,
        /// Sequences that fit.
        available: usize,
    },
    /// A benchmark without work.
    #[error("the {what} size is 0, expected 1 or more")]
    NothingToMeasure {
        /// Which number is 0.
        what: &'static str,
    },
    /// A step failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A step was not a batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
}
