//! Why something cannot be measured.

use bantam_backend::BatchError;
use bantam_model::ModelError;
use bantam_text::TextError;

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
    /// A file or folder that cannot be read or written.
    #[error("{path}: {problem}")]
    Unreadable {
        /// Where it is.
        path: String,
        /// What the system says.
        problem: String,
    },
    /// A line that is not an item.
    #[error("{origin}:{line}: {problem}")]
    BadItem {
        /// The file.
        origin: String,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// A file without questions.
    #[error("{origin} holds no items, expected one JSON object a line")]
    NoItems {
        /// The file.
        origin: String,
    },
    /// A folder that is not MMLU.
    #[error(
        "{path} is not MMLU: expected test/SUBJECT_test.csv and dev/SUBJECT_dev.csv, or test.jsonl \
         and dev.jsonl"
    )]
    NotMmlu {
        /// The folder.
        path: String,
    },
    /// Fewer examples than are to be shown.
    #[error(
        "{shots} examples are to be shown, but there are {found}{}; use --shots {found}, or give \
         more with --examples",
        if subject.is_empty() { String::new() } else { format!(" for {subject}") }
    )]
    TooFewExamples {
        /// Of the items.
        subject: String,
        /// Examples asked for.
        shots: usize,
        /// Examples there are.
        found: usize,
    },
    /// A form that lists choices, for an item that does not ask.
    #[error(
        "item {item} continues a context and asks no question, which --form {form} needs; use --form \
         texts"
    )]
    NoQuestion {
        /// The item, from 0.
        item: usize,
        /// The form.
        form: String,
    },
    /// A choice that cannot be scored.
    #[error(
        "choice {choice} of item {item} has {scored} tokens of its own, expected 1 to {context} (the \
         context)"
    )]
    Unscorable {
        /// The item, from 0.
        item: usize,
        /// The choice, from 0.
        choice: usize,
        /// Its tokens.
        scored: usize,
        /// Tokens a sequence may have.
        context: usize,
    },
    /// A choice that continues nothing, for a tokenizer that has nothing to begin with.
    #[error(
        "an item has no context, and the tokenizer has no begin-of-sequence token to put there; give \
         the item a context"
    )]
    NoFirstToken,
    /// A question made for a longer context.
    #[error("item {item} has {tokens} tokens, but the context holds {context}")]
    QuestionTooLong {
        /// The item, from 0.
        item: usize,
        /// Its tokens.
        tokens: usize,
        /// Tokens a sequence may have.
        context: usize,
    },
    /// Models whose caches are cut differently.
    #[error(
        "the models' cache blocks hold {first} and {other} tokens; only models on one kind of device \
         can run side by side"
    )]
    Blocks {
        /// S of the first model.
        first: usize,
        /// S of the other.
        other: usize,
    },
    /// Results that this run cannot continue.
    #[error("{path}: {problem}; use another folder for --results, or remove the file")]
    Results {
        /// The results file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A text that the tokenizer refuses.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A step failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A step was not a batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
}
