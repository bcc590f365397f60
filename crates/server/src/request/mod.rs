//! What requests of every protocol have in common: the conversation, the tools, the form of the
//! answer and how it is drawn, from the fields of a body to the answers of the engine.
//!
//! A protocol has types of its own for what it reads and writes; between the two it speaks to this
//! module in typed values.
//!
//! | file | what it decides |
//! |---|---|
//! | `fields`, `shape` | which fields a body may have, at every depth, and how one is read |
//! | `lists` | how long its lists may be |
//! | `conversation` | a conversation becomes a prompt |
//! | `truncation` | what a long conversation loses |
//! | `kinds` | which kinds of objects it may hold, by their `type` |
//! | `tools` | the functions that a model may or must call |
//! | `structured` | the form of an answer |
//! | `sampling` | how tokens are chosen and when an answer ends |
//! | `asked` | all of that together, checked, for any prompt |
//! | `allowed` | answers of some tokens only |
//! | `ask` | from a checked request to its answers |
//! | `speech` | what an answer says: text and calls |
//! | `narration` | one answer told to one client, whole or as events |
//! | `usage` | what a request took |
//! | `sse` | answers as server-sent events |

mod allowed;
pub(crate) mod ask;
pub(crate) mod asked;
pub(crate) mod conversation;
pub(crate) mod fields;
pub(crate) mod kinds;
pub(crate) mod lists;
pub(crate) mod narration;
pub(crate) mod sampling;
pub(crate) mod shape;
pub(crate) mod speech;
pub(crate) mod sse;
pub(crate) mod structured;
pub(crate) mod tools;
pub(crate) mod truncation;
pub(crate) mod usage;
