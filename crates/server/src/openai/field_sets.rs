//! The fields of each request of the OpenAI API.

use std::sync::LazyLock;

use crate::openai::chat::ChatFields;
use crate::openai::completions::CompletionFields;
use crate::openai::messages::ChatMessage;
use crate::openai::refused;
use crate::openai::tokenize::{DetokenizeRequest, TokenizeFields};
use crate::request::conversation::TemplateFields;
use crate::request::fields::{FieldSet, Honoured, honoured};
use crate::request::sampling::SamplingFields;

/// `/v1/chat/completions`.
pub(crate) static CHAT: LazyLock<FieldSet> = LazyLock::new(|| FieldSet {
    honoured: [
        honoured::<ChatFields>(),
        honoured::<TemplateFields>(),
        honoured::<SamplingFields>(),
    ]
    .concat_all(),
    refused: refused::SHARED.iter().chain(&refused::CHAT).collect(),
});

/// A message of `/v1/chat/completions`.
pub(crate) static MESSAGE: LazyLock<FieldSet> = LazyLock::new(|| FieldSet {
    honoured: honoured::<ChatMessage>(),
    refused: refused::MESSAGE.iter().collect(),
});

/// `/v1/completions`.
pub(crate) static COMPLETIONS: LazyLock<FieldSet> = LazyLock::new(|| FieldSet {
    honoured: [honoured::<CompletionFields>(), honoured::<SamplingFields>()].concat_all(),
    refused: refused::SHARED.iter().chain(&refused::COMPLETIONS).collect(),
});

/// `/tokenize`.
pub(crate) static TOKENIZE: LazyLock<FieldSet> = LazyLock::new(|| FieldSet {
    honoured: [honoured::<TokenizeFields>(), honoured::<TemplateFields>()].concat_all(),
    refused: refused::TOKENIZE.iter().collect(),
});

/// `/detokenize`.
pub(crate) static DETOKENIZE: LazyLock<FieldSet> =
    LazyLock::new(|| FieldSet { honoured: honoured::<DetokenizeRequest>(), refused: Vec::new() });

/// Lists in a row.
trait ConcatAll {
    fn concat_all(self) -> Vec<Honoured>;
}

impl<const N: usize> ConcatAll for [Vec<Honoured>; N] {
    fn concat_all(self) -> Vec<Honoured> {
        self.into_iter().flatten().collect()
    }
}
