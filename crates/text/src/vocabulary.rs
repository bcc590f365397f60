//! Builds the tokenizer of a GGUF vocabulary, with the same library that reads `tokenizer.json`.

use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::prepend::Prepend;
use tokenizers::normalizers::replace::Replace;
use tokenizers::normalizers::utils::Sequence as NormalizerSequence;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, NormalizerWrapper};

use crate::pre_tokenizer::PreTokenizerRule;
use crate::sentencepiece::merges_from_scores;
use crate::special_template;
use crate::token_table::NamelessToken;
use crate::tokenizer::{TemplateSources, TokenizerParts};
use crate::{TextError, TokenType, Vocabulary, VocabularyKind};

/// The mark SentencePiece writes for a space.
const SPACE_MARK: &str = "▁";

/// No SentencePiece token is near this long; finding the merges of a token takes time quadratic in
/// its length.
const LONGEST_PIECE_BYTES: usize = 4096;

/// Builds the tokenizer that `vocabulary` describes.
pub(crate) fn load(vocabulary: &Vocabulary) -> Result<TokenizerParts, TextError> {
    check(vocabulary)?;
    let named = NamedTokens::of(vocabulary)?;
    let mut inner = match vocabulary.kind {
        VocabularyKind::Gpt2 => byte_level(vocabulary, &named)?,
        VocabularyKind::Llama => sentencepiece(vocabulary, &named)?,
    };
    inner.add_tokens(&added_tokens(vocabulary, &named));
    if let Some(processor) = special_token_template(vocabulary)? {
        inner.with_post_processor(Some(processor));
    }
    let origin = "the GGUF file".to_owned();
    let default = vocabulary.chat_template.clone().map(|source| (source, origin.clone()));
    Ok(TokenizerParts {
        inner,
        bos: vocabulary.bos,
        eos: vocabulary.eos,
        ends: [vocabulary.eos, vocabulary.eot, vocabulary.eom].into_iter().flatten().collect(),
        nameless: named.nameless,
        templates: TemplateSources { default, ..TemplateSources::default() },
        origin,
    })
}

fn invalid(problem: String) -> TextError {
    TextError::InvalidVocabulary { problem }
}

/// An error of the library while it builds the tokenizer.
fn refused(error: impl std::fmt::Display) -> TextError {
    invalid(error.to_string())
}

/// Checks that the lists are as long as each other and that every id named exists.
fn check(vocabulary: &Vocabulary) -> Result<(), TextError> {
    let size = vocabulary.tokens.len();
    if size == 0 || u32::try_from(size).is_err() {
        return Err(invalid(format!("it has {size} tokens; expected 1 to {}", u32::MAX)));
    }
    let types = vocabulary.token_types.len();
    if types != 0 && types != size {
        return Err(invalid(format!("{types} token types for {size} tokens; expected {size}")));
    }
    let scores = vocabulary.scores.len();
    // Merges, where a file has them, can stand for scores that it lacks.
    let merged = scores == 0 && !vocabulary.merges.is_empty();
    if vocabulary.kind == VocabularyKind::Llama && scores != size && !merged {
        return Err(invalid(format!("{scores} scores for {size} tokens; expected {size}")));
    }
    let named = [
        ("bos_token_id", vocabulary.bos),
        ("eos_token_id", vocabulary.eos),
        ("eot_token_id", vocabulary.eot),
        ("eom_token_id", vocabulary.eom),
        ("unknown_token_id", vocabulary.unknown),
        ("padding_token_id", vocabulary.padding),
    ];
    for (key, id) in named {
        if let Some(id) = id.filter(|&id| id as usize >= size) {
            return Err(invalid(format!(
                "tokenizer.ggml.{key} is {id}; expected less than {size}, the number of tokens"
            )));
        }
    }
    for (wanted, key, id) in
        [(vocabulary.add_bos, "bos", vocabulary.bos), (vocabulary.add_eos, "eos", vocabulary.eos)]
    {
        if wanted && id.is_none() {
            return Err(invalid(format!(
                "tokenizer.ggml.add_{key}_token is set; expected tokenizer.ggml.{key}_token_id too"
            )));
        }
    }
    Ok(())
}

/// The type of token `id`. A file without types marks only the ids it names as control tokens.
fn token_type(vocabulary: &Vocabulary, id: u32) -> TokenType {
    let Vocabulary { bos, eos, eot, eom, unknown, .. } = *vocabulary;
    let named = [bos, eos, eot, eom, unknown];
    match vocabulary.token_types.get(id as usize) {
        Some(&token_type) => token_type,
        None if named.contains(&Some(id)) || vocabulary.padding == Some(id) => TokenType::Control,
        None => TokenType::Normal,
    }
}

/// The tokens with their ids.
fn numbered(vocabulary: &Vocabulary) -> impl Iterator<Item = (u32, &str)> {
    (0..).zip(vocabulary.tokens.iter().map(String::as_str))
}

/// The tokens by their text, of which a vocabulary of the library has each once. Where several ids have
/// one text, the last is what the text becomes, as in llama.cpp and transformers; the others are
/// nameless, and so are ids without a text.
struct NamedTokens {
    ids: Vocab,
    /// In the order of their ids.
    nameless: Vec<NamelessToken>,
}

impl NamedTokens {
    fn of(vocabulary: &Vocabulary) -> Result<Self, TextError> {
        let mut ids: Vocab =
            numbered(vocabulary).map(|(id, token)| (token.to_owned(), id)).collect();
        ids.remove("");
        let mut nameless = Vec::new();
        for (id, token) in numbered(vocabulary).filter(|(id, token)| ids.get(*token) != Some(id)) {
            let special =
                matches!(token_type(vocabulary, id), TokenType::Control | TokenType::Unknown);
            nameless.push(NamelessToken { id, text: token.to_owned(), special });
        }
        for token in &nameless {
            // Texts have no spaces in either alphabet, so nothing becomes this token.
            let stand_in = match token.text.as_str() {
                "" => format!("<empty token {}>", token.id),
                _ => format!("<duplicate token {}>", token.id),
            };
            if ids.insert(stand_in.clone(), token.id).is_some() {
                return Err(invalid(format!("it has a token {stand_in:?}; expected any other")));
            }
        }
        Ok(Self { ids, nameless })
    }

    /// Whether text can become this token.
    fn has_name(&self, id: u32) -> bool {
        self.nameless.binary_search_by_key(&id, |token| token.id).is_err()
    }
}

/// The stated merges.
fn stated_merges(vocabulary: &Vocabulary) -> Result<Vec<(String, String)>, TextError> {
    let pair = |merge: &String| {
        // The first token may begin with a space.
        let at = merge.char_indices().skip(1).find(|(_, letter)| *letter == ' ');
        match at.map(|(at, _)| (&merge[..at], &merge[at + 1..])) {
            Some((left, right)) if !right.is_empty() => Ok((left.to_owned(), right.to_owned())),
            _ => Err(invalid(format!("merge {merge:?}; expected two tokens with a space between"))),
        }
    };
    vocabulary.merges.iter().map(pair).collect()
}

/// `"gpt2"`: byte-level byte-pair encoding with stated merges.
fn byte_level(
    vocabulary: &Vocabulary,
    named: &NamedTokens,
) -> Result<tokenizers::Tokenizer, TextError> {
    let rule = PreTokenizerRule::named(vocabulary.pre.as_deref())?;
    let unreached = |(id, token): &(u32, &str)| {
        token_type(vocabulary, *id) == TokenType::Normal && token.chars().nth(1).is_some()
    };
    if vocabulary.merges.is_empty()
        && !rule.whole_words
        && let Some((id, token)) = numbered(vocabulary).find(unreached)
    {
        return Err(invalid(format!(
            "it has no merges, so that no text becomes token {id}, {token:?}; expected \
             tokenizer.ggml.merges"
        )));
    }
    let model = BPE::builder()
        .vocab_and_merges(named.ids.clone(), stated_merges(vocabulary)?)
        .ignore_merges(rule.whole_words)
        .build()
        .map_err(refused)?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer
        .with_normalizer(rule.normalizer())
        .with_pre_tokenizer(Some(rule.pre_tokenizer().map_err(refused)?))
        .with_decoder(Some(ByteLevel::new(false, true, false)));
    Ok(tokenizer)
}

/// `"llama"`: SentencePiece byte-pair encoding; the merges follow from the scores.
fn sentencepiece(
    vocabulary: &Vocabulary,
    named: &NamedTokens,
) -> Result<tokenizers::Tokenizer, TextError> {
    if let Some((id, token)) =
        numbered(vocabulary).find(|(_, token)| token.len() > LONGEST_PIECE_BYTES)
    {
        return Err(invalid(format!(
            "token {id} has {} bytes; expected at most {LONGEST_PIECE_BYTES}",
            token.len()
        )));
    }
    let ids = &named.ids;
    let spells_bytes = (0..=u8::MAX).all(|byte| ids.contains_key(&format!("<0x{byte:02X}>")));
    if !spells_bytes && !vocabulary.unknown.is_some_and(|id| named.has_name(id)) {
        return Err(invalid(
            "text outside the vocabulary cannot be spelt; expected 256 byte tokens <0x00> to \
             <0xFF>, or tokenizer.ggml.unknown_token_id"
                .to_owned(),
        ));
    }
    let merges = if vocabulary.scores.is_empty() {
        stated_merges(vocabulary)?
    } else {
        let is_piece =
            |id: u32| named.has_name(id) && token_type(vocabulary, id) == TokenType::Normal;
        let pieces: Vec<(&str, f32)> = numbered(vocabulary)
            .zip(&vocabulary.scores)
            .filter(|((id, _), _)| is_piece(*id))
            .map(|((_, token), &score)| (token, score))
            .collect();
        merges_from_scores(&pieces)
    };
    let mut model = BPE::builder()
        .vocab_and_merges(ids.clone(), merges)
        .byte_fallback(spells_bytes)
        .fuse_unk(true);
    if let Some(unknown) = vocabulary.unknown.filter(|id| named.has_name(*id)) {
        model = model.unk_token(vocabulary.tokens[unknown as usize].clone());
    }
    let replace = |from, to| Replace::new(from, to).map_err(refused);
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    let mut decoders: Vec<DecoderWrapper> =
        vec![replace(SPACE_MARK, " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if vocabulary.add_space_prefix {
        normalizers.push(Prepend::new(SPACE_MARK.to_owned()).into());
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    normalizers.push(replace(" ", SPACE_MARK)?.into());

    let mut tokenizer = tokenizers::Tokenizer::new(model.build().map_err(refused)?);
    tokenizer
        .with_normalizer(Some(NormalizerSequence::new(normalizers)))
        .with_decoder(Some(DecoderSequence::new(decoders)));
    Ok(tokenizer)
}

/// The tokens that are matched in text before anything else: control tokens (special) and
/// user-defined ones (plain text).
fn added_tokens(vocabulary: &Vocabulary, named: &NamedTokens) -> Vec<AddedToken> {
    numbered(vocabulary)
        .filter(|(id, _)| named.has_name(*id))
        .filter_map(|(id, token)| {
            let special = match token_type(vocabulary, id) {
                TokenType::Control | TokenType::Unknown => true,
                TokenType::UserDefined => false,
                TokenType::Normal | TokenType::Undefined | TokenType::Unused | TokenType::Byte => {
                    return None;
                }
            };
            Some(AddedToken::from(token, special).normalized(false))
        })
        .collect()
}

/// Puts BOS before and EOS after a text, as far as the file asks for it.
fn special_token_template(
    vocabulary: &Vocabulary,
) -> Result<Option<TemplateProcessing>, TextError> {
    let bos = vocabulary.bos.filter(|_| vocabulary.add_bos);
    let eos = vocabulary.eos.filter(|_| vocabulary.add_eos);
    let token = |id: u32| (id, vocabulary.tokens[id as usize].clone());
    special_template::around(bos.map(token), eos.map(token)).map_err(refused)
}
