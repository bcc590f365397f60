//! `/v1/responses`: a conversation as a list of items, answers as items, typed events.
//!
//! | file | what it decides |
//! |---|---|
//! | `fields` | what a request may say |
//! | `kinds`, `notes` | kinds of objects and fields beside those of the types |
//! | `items`, `tools` | parts of it, translated |
//! | `create` | from a request to its answer |
//! | `object`, `events` | what is answered, whole and streamed |
//! | `narrator` | an answer becomes a response |
//! | `store`, `kept` | responses that are kept for a while, and how they are asked for |

pub(crate) mod create;
pub(crate) mod events;
pub(crate) mod fields;
mod items;
pub(crate) mod kept;
mod kinds;
mod narrator;
pub(crate) mod notes;
pub(crate) mod object;
pub(crate) mod store;
mod tools;
