//! Every way in which this crate refuses.

use std::path::PathBuf;

/// Why a tokenizer, a chat template or a grammar could not be loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The folder holds no tokenizer this crate reads.
    #[error("no tokenizer in {}: looked for tokenizer.json; {way_out}", folder.display())]
    NoTokenizer {
        /// The folder searched.
        folder: PathBuf,
        /// What to do about it.
        way_out: String,
    },
    /// A file exists but could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A JSON file does not say what it should.
    #[error("{}: {problem}", path.display())]
    InvalidFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        problem: String,
    },
    /// A GGUF token type outside 0..=6.
    #[error(
        "unknown token type {code} in tokenizer.ggml.token_type: expected 0 undefined, 1 normal, 2 unknown, \
         3 control, 4 user-defined, 5 unused or 6 byte"
    )]
    UnknownTokenType {
        /// The number in the file.
        code: u32,
    },
    /// The parts of a GGUF vocabulary contradict each other.
    #[error("invalid GGUF vocabulary: {problem}")]
    InvalidVocabulary {
        /// What is wrong, and what was expected.
        problem: String,
    },
    /// `tokenizer.ggml.pre` names a pre-tokenizer whose rule is not known here.
    #[error("unsupported pre-tokenizer {name:?} (tokenizer.ggml.pre): expected one of {supported}")]
    UnsupportedPreTokenizer {
        /// The name in the file.
        name: String,
        /// The names that work.
        supported: String,
    },
    /// `tokenizer.json` asks for a decoder that cannot be run one token at a time.
    #[error(
        "unsupported decoder in {origin}: {problem}; expected ByteLevel, Metaspace, WordPiece or \
         a Sequence of Replace, ByteFallback, Fuse and a leading Strip"
    )]
    UnsupportedDecoder {
        /// The file or vocabulary.
        origin: String,
        /// The part that is not supported.
        problem: String,
    },
    /// A file that should hold text does not.
    #[error("not a text file: {problem}")]
    NotText {
        /// What it is, and what to do.
        problem: String,
    },
    /// The text could not be tokenized.
    #[error("cannot tokenize the text: {problem}")]
    Encode {
        /// What the tokenizer library said.
        problem: String,
    },
    /// The text has more tokens than are of use.
    #[error("the text has at least {at_least} tokens; expected at most {limit}")]
    TooManyTokens {
        /// Tokens that it has for certain; it was not tokenized to its end.
        at_least: usize,
        /// Tokens allowed.
        limit: usize,
    },
    /// The chat template is not a template this crate can compile.
    #[error("chat template of {origin} does not compile: {problem}")]
    ChatTemplateSyntax {
        /// The file the template was read from.
        origin: String,
        /// The syntax error with its line.
        problem: String,
    },
    /// The chat template itself refused the conversation with `raise_exception`.
    #[error("the chat template refuses these messages: {reason}")]
    ChatTemplateRefused {
        /// The template's own words.
        reason: String,
    },
    /// The chat template failed while it was rendered.
    #[error("chat template of {origin} failed: {problem}")]
    ChatTemplateFailed {
        /// The file the template was read from.
        origin: String,
        /// The run-time error with its line.
        problem: String,
    },
    /// The vocabulary cannot be used with grammars.
    #[error("grammars cannot use this vocabulary: {problem}")]
    InvalidGrammarVocabulary {
        /// What is wrong, and what was expected.
        problem: String,
    },
    /// The grammar of a request cannot be compiled.
    #[error("cannot compile the {kind}: {problem}")]
    InvalidGrammar {
        /// Which form of grammar: JSON schema, regular expression, Lark grammar, choice.
        kind: &'static str,
        /// The part that is wrong, and what works.
        problem: String,
    },
    /// Nobody waits for the result of the work.
    #[error("the work was cancelled: its client has left")]
    Cancelled,
    /// An answer cannot go on along its grammar.
    #[error("the grammar cannot continue: {problem}")]
    GrammarWalk {
        /// What went wrong.
        problem: String,
    },
    /// The tools of a request cannot be used.
    #[error("invalid tools: {problem}")]
    InvalidTools {
        /// What is wrong, and what works.
        problem: String,
    },
    /// A variable for the chat template has a name that is taken.
    #[error(
        "chat template argument {name:?} is set by the request itself; leave it out and use the \
         field of the request"
    )]
    ChatTemplateArgument {
        /// The name.
        name: String,
    },
}
