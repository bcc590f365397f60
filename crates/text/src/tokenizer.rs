//! The tokenizer: text to ids and back.

use tokenizers::{AddedVocabulary, Model as _, OffsetReferential, OffsetType, PreTokenizer as _};

use crate::encoding::EncodingPlan;
use crate::rendering::{LeadingStrip, Rendering};
use crate::token_table::{NamelessToken, TokenClass, TokenTable};
use crate::{ChatTemplate, EncodeBounds, TextError, TokenizerSource, folder, guarded, vocabulary};

/// How text is turned into tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Adds what the tokenizer adds around every text by default, such as the begin-of-sequence
    /// token. Leave it off for a rendered chat template, which writes those tokens itself.
    pub add_special: bool,
    /// Reads the text of special tokens, such as `<|im_start|>`, as those tokens. Leave it off for
    /// text that is not trusted to give commands. Tokens added to the vocabulary that are not
    /// special are recognised either way.
    pub parse_special: bool,
}

/// Text to tokens and back, for one model. `Send + Sync`; share it in an `Arc`.
///
/// ```no_run
/// use bantam_text::{EncodeOptions, Tokenizer, TokenizerSource};
///
/// # fn main() -> Result<(), bantam_text::TextError> {
/// let tokenizer = Tokenizer::load(&TokenizerSource::Folder("model".into()))?;
/// let ids = tokenizer.encode("The capital of France is", EncodeOptions::default())?;
/// assert_eq!(tokenizer.decode(&ids, true), "The capital of France is");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The added tokens of `inner`, with the special ones not recognised in text.
    without_special: AddedVocabulary,
    table: TokenTable,
    plan: EncodingPlan,
    strip: LeadingStrip,
    bos: Option<u32>,
    eos: Vec<u32>,
    chat_template: Option<ChatTemplate>,
}

/// What a source of tokenizers provides.
#[derive(Debug)]
pub(crate) struct TokenizerParts {
    /// The file, for messages.
    pub(crate) origin: String,
    pub(crate) inner: tokenizers::Tokenizer,
    pub(crate) bos: Option<u32>,
    /// The end-of-sequence token, as chat templates write it.
    pub(crate) eos: Option<u32>,
    /// Ends of sequence and of turn the source names itself, the main one first.
    pub(crate) ends: Vec<u32>,
    /// Ids that `inner` knows by a stand-in for their text.
    pub(crate) nameless: Vec<NamelessToken>,
    pub(crate) templates: TemplateSources,
}

/// The chat templates of a source, each with the file it is from.
#[derive(Debug, Default)]
pub(crate) struct TemplateSources {
    /// The one for every conversation.
    pub(crate) default: Option<(String, String)>,
    /// The one for conversations with tools, where there is one of its own (`tool_use`).
    pub(crate) with_tools: Option<(String, String)>,
}

/// Tokens that end an answer in models whose configuration names only the end of the document.
const ENDS_OF_TURN: [&str; 5] = ["<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|eot|>"];

impl Tokenizer {
    /// Loads a tokenizer, and compiles its chat template if it has one.
    ///
    /// # Errors
    /// A missing, unreadable or contradictory source; a pre-tokenizer, decoder or chat template
    /// that is not supported.
    pub fn load(source: &TokenizerSource) -> Result<Self, TextError> {
        let (origin, loaded) = match source {
            TokenizerSource::Folder(path) => {
                (path.display().to_string(), guarded(|| Self::from_parts(folder::load(path)?)))
            }
            TokenizerSource::Vocabulary(vocabulary) => (
                "the GGUF file".to_owned(),
                guarded(|| Self::from_parts(vocabulary::load(vocabulary)?)),
            ),
        };
        loaded.unwrap_or_else(|problem| {
            let problem = format!("the tokenizer of {origin} cannot be read: {problem}");
            Err(TextError::InvalidVocabulary { problem })
        })
    }

    fn from_parts(parts: TokenizerParts) -> Result<Self, TextError> {
        let TokenizerParts { origin, inner, bos, eos: end, ends, nameless, templates } = parts;
        let decoder =
            inner.get_decoder().map(serde_json::to_value).transpose().map_err(|error| {
                TextError::UnsupportedDecoder { origin: origin.clone(), problem: error.to_string() }
            })?;
        let rendering = Rendering::from_decoder(decoder.as_ref(), &origin)?;
        let table = TokenTable::new(&inner, &nameless, &rendering, &origin)?;
        let plan = EncodingPlan::new(&inner, &table, &origin)?;
        let mut without_special = inner.get_added_vocabulary().clone();
        without_special.set_encode_special_tokens(true);
        let mut tokenizer = Self {
            inner,
            without_special,
            table,
            plan,
            strip: rendering.strip,
            bos,
            eos: Vec::new(),
            chat_template: None,
        };

        let mut eos = Vec::new();
        for id in ends.into_iter().chain(tokenizer.ends_of_turn(&templates)) {
            if tokenizer.table.class(id) != TokenClass::Absent && !eos.contains(&id) {
                eos.push(id);
            }
        }
        tokenizer.eos = eos;
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.inner.id_to_token(id));
        let (bos, end) = (text(bos).unwrap_or_default(), text(end).unwrap_or_default());
        let compiled =
            |(source, file): (String, String)| ChatTemplate::with_origin(&source, &bos, &end, file);
        let with_tools = templates.with_tools.map(compiled).transpose()?;
        let default = templates.default.map(compiled).transpose()?;
        tokenizer.chat_template = default.map(|template| template.with_tool_use(with_tools));
        Ok(tokenizer)
    }

    /// The well-known ends of turn that are special tokens here and that a template writes.
    fn ends_of_turn(&self, templates: &TemplateSources) -> Vec<u32> {
        let writes = |token: &str| {
            let mut sources = templates.default.iter().chain(&templates.with_tools);
            sources.any(|(source, _)| source.contains(token))
        };
        ENDS_OF_TURN
            .iter()
            .filter(|token| writes(token))
            .filter_map(|token| self.token_id(token))
            .filter(|&id| self.is_special(id))
            .collect()
    }

    /// The ids of `text`.
    ///
    /// Text that the vocabulary cannot spell becomes the unknown token, or, in a byte-level
    /// vocabulary without a token for some byte, is left out, both as in the `tokenizers` library.
    ///
    /// # Errors
    /// The model of the tokenizer refuses the text (a word-level vocabulary without an unknown
    /// token, say).
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TextError> {
        self.encode_parts(text, options, None)
    }

    /// The ids of `text`, as [`encode`](Self::encode) has them, or an early refusal.
    ///
    /// A text that has more than [`EncodeBounds::max_tokens`] by the number of its bytes is refused
    /// before any of it is tokenized; any other when that many tokens have been found. Time is linear
    /// in the text, and memory beyond the ids is that of some ten thousand bytes of it.
    ///
    /// # Errors
    /// [`TextError::TooManyTokens`]; [`TextError::Cancelled`]; [`TextError::Encode`] for the reasons of
    /// `encode`, and for a word of a quarter of a MiB, which could not be cancelled.
    ///
    /// ```no_run
    /// # use bantam_text::{Cancel, EncodeBounds, EncodeOptions, TextError, Tokenizer};
    /// # fn example(tokenizer: &Tokenizer) {
    /// let bounds = EncodeBounds { max_tokens: 8192, cancel: &Cancel::never() };
    /// let refused = tokenizer.encode_within(&"9".repeat(5_000_000), EncodeOptions::default(), bounds);
    /// assert!(matches!(refused, Err(TextError::TooManyTokens { .. })));
    /// # }
    /// ```
    pub fn encode_within(
        &self,
        text: &str,
        options: EncodeOptions,
        bounds: EncodeBounds<'_>,
    ) -> Result<Vec<u32>, TextError> {
        self.encode_parts(text, options, Some(bounds))
    }

    fn encode_parts(
        &self,
        text: &str,
        options: EncodeOptions,
        bounds: Option<EncodeBounds<'_>>,
    ) -> Result<Vec<u32>, TextError> {
        let added = if options.parse_special {
            self.inner.get_added_vocabulary()
        } else {
            &self.without_special
        };
        let problem = |problem: String| TextError::Encode { problem };
        self.plan.encode(text, options.add_special, bounds, |part, ids| {
            guarded(|| self.encode_part(added, part, ids))
                .map_err(problem)?
                .map_err(|error| problem(error.to_string()))
        })
    }

    /// Appends the ids of a part of a text, without what is added around a text.
    fn encode_part(
        &self,
        added: &AddedVocabulary,
        part: &str,
        ids: &mut Vec<u32>,
    ) -> Result<(), tokenizers::Error> {
        let mut pieces = added.extract_and_normalize(self.inner.get_normalizer(), part);
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces)?;
        }
        let model = self.inner.get_model();
        for (piece, _, token) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::None)
        {
            match token {
                Some(tokens) => ids.extend(tokens.iter().map(|token| token.id)),
                None => ids.extend(model.tokenize(piece)?.iter().map(|token| token.id)),
            }
        }
        Ok(())
    }

    /// The text of `ids`; with `skip_special`, special tokens are left out.
    ///
    /// Bytes that are not UTF-8 become U+FFFD by the rule of [`String::from_utf8_lossy`], and so
    /// does every id outside the vocabulary. (The `tokenizers` library drops such ids, and of
    /// invalid byte-fallback tokens in a row it replaces even those that spell a character.)
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut strip = self.strip;
        let mut bytes = Vec::new();
        for &id in ids {
            bytes.extend_from_slice(strip.apply(self.rendered_bytes(id, skip_special)));
        }
        String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    /// The bytes that `id` contributes to decoded text: byte-level letters and `<0x0A>` tokens
    /// resolved, `▁` as a space, a special token as its own text. `None` outside the vocabulary.
    ///
    /// They need not be whole characters. Spaces that decoding takes off the beginning of a
    /// sequence are still there.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        self.table.bytes(id).map(<[u8]>::to_vec)
    }

    /// V as the tokenizer sees it: one past its largest id. The model's embedding may have more
    /// rows (padding); those ids have no text.
    pub fn vocab_size(&self) -> usize {
        self.table.len()
    }

    /// The id of a token by its text in the vocabulary (`<|im_end|>`, `Ġthe`, `▁the`).
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether `id` is a control token, which `skip_special` leaves out of text.
    pub fn is_special(&self, id: u32) -> bool {
        self.table.class(id) == TokenClass::Special
    }

    /// The begin-of-sequence token.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The tokens that end generation: the end of sequence first, then ends of turn such as
    /// `<|im_end|>`. Empty where the source names none.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// The chat template, where the source has one.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat_template.as_ref()
    }

    /// The content of a `tokenizer.json` that stands for it: what a folder made from a GGUF file
    /// needs.
    ///
    /// # Errors
    /// The library cannot write one of its parts.
    pub fn to_json(&self) -> Result<String, TextError> {
        let problem = |error: tokenizers::Error| error.to_string();
        let json = self.inner.to_string(true).map_err(problem);
        json.map_err(|problem| TextError::InvalidVocabulary { problem })
    }

    /// What `id` stands for.
    pub(crate) fn class(&self, id: u32) -> TokenClass {
        self.table.class(id)
    }

    /// What decoding takes off the beginning of a sequence.
    pub(crate) fn leading_strip(&self) -> LeadingStrip {
        self.strip
    }

    /// The bytes of `id` in decoded text: none for a skipped special token, U+FFFD for an id
    /// outside the vocabulary.
    pub(crate) fn rendered_bytes(&self, id: u32, skip_special: bool) -> &[u8] {
        match self.table.class(id) {
            TokenClass::Special if skip_special => &[],
            _ => self.table.bytes(id).unwrap_or("\u{FFFD}".as_bytes()),
        }
    }
}
