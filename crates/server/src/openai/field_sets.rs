//! The fields of each request of the OpenAI API.

use std::sync::LazyLock;

use crate::openai::chat::ChatRequest;
use crate::openai::completions::CompletionRequest;
use crate::openai::notes::NOTES;
use crate::openai::tokenize::{DetokenizeRequest, TokenizeRequest};
use crate::request::fields::FieldSet;

/// `/v1/chat/completions`.
pub(crate) static CHAT: LazyLock<FieldSet> =
    LazyLock::new(|| FieldSet::of::<ChatRequest>(&[&NOTES]));

/// `/v1/completions`.
pub(crate) static COMPLETIONS: LazyLock<FieldSet> =
    LazyLock::new(|| FieldSet::of::<CompletionRequest>(&[&NOTES]));

/// `/tokenize`.
pub(crate) static TOKENIZE: LazyLock<FieldSet> =
    LazyLock::new(|| FieldSet::of::<TokenizeRequest>(&[&NOTES]));

/// `/detokenize`.
pub(crate) static DETOKENIZE: LazyLock<FieldSet> =
    LazyLock::new(|| FieldSet::of::<DetokenizeRequest>(&[&NOTES]));
