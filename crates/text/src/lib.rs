//! Tokens to text and back.
//!
//! * [`Tokenizer`] reads a Hugging Face folder or the vocabulary of a GGUF file, and encodes and
//!   decodes with the `tokenizers` library in both cases;
//! * [`ChatTemplate`] turns a conversation into the prompt the model was trained on;
//! * [`StreamDecoder`] decodes one token at a time and never shows half a character;
//! * [`StopStrings`] ends a stream at a text, wherever the chunks fall;
//! * [`GrammarCompiler`] turns a JSON schema, a regular expression or a grammar into the tokens
//!   allowed at each step of an answer;
//! * [`Cancel`] ends such work when nobody waits for it any more;
//! * [`ToolFormat`] and [`ToolCallParser`] find the calls of functions in an answer.
//!
//! The life of a prompt: [`ChatTemplate::render`] → [`Tokenizer::encode`] → the engine →
//! [`StreamDecoder::push`] → [`StopStrings::push`] → [`ToolCallParser::push`] → the reader.

mod cancel;
mod chat_template;
mod encoding;
mod error;
mod folder;
mod grammar;
mod guard;
mod jinja;
mod message;
mod plain_text;
mod pre_tokenizer;
pub mod python_json;
mod rendering;
mod sentencepiece;
mod source;
mod special_template;
mod stop_strings;
mod stream_decoder;
mod token_table;
mod tokenizer;
mod tools;
mod vocabulary;

pub use cancel::Cancel;
pub use chat_template::{ChatTemplate, RenderInput};
pub use encoding::EncodeBounds;
pub use error::TextError;
pub use grammar::{Grammar, GrammarCompiler, GrammarMatcher, GrammarSpec};
pub use guard::guarded;
pub use message::Message;
pub use plain_text::decode_text;
pub use source::{TokenType, TokenizerSource, Vocabulary, VocabularyKind};
pub use stop_strings::{StopOutcome, StopStrings};
pub use stream_decoder::StreamDecoder;
pub use tokenizer::{EncodeOptions, Tokenizer};
pub use tools::{
    Function, FunctionCall, Tool, ToolCall, ToolCallParser, ToolChoice, ToolDelta, ToolFormat,
    ToolKind,
};
