//! Structured output: a grammar becomes, at each step of an answer, the set of tokens allowed next.
//!
//! [`GrammarCompiler`] knows the vocabulary and is built once for a model; it turns a
//! [`GrammarSpec`] into a [`Grammar`], away from the engine's thread; every answer walks a
//! [`GrammarMatcher`] of its own. The automata are those of the `llguidance` crate.

mod compiler;
mod gbnf;
mod guide;
mod lark;
mod limits;
mod matcher;
mod message;
mod schema;
mod spec;
mod vocabulary;

pub use compiler::GrammarCompiler;
pub use matcher::{Grammar, GrammarMatcher};
pub use spec::GrammarSpec;
pub(crate) use spec::{check_schema, quoted};
