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
use tokenizers::processors::template::{SpecialToken, TemplateProcessing};
use tokenizers::{AddedToken, NormalizerWrapper};

use crate::pre_tokenizer::PreTokenizerRule;
use crate::sentencepiece::merges_from_scores;
use crate::tokenizer::TokenizerParts;
use crate::{TextError, TokenType, Vocabulary, VocabularyKind};

/// The mark SentencePiece writes for a space.
const SPACE_MARK: &str = "▁";

/// No SentencePiece token is near this long; finding the merges of a token takes time quadratic in
/// its length.
const LONGEST_PIECE_BYTES: usize = 4096;

/// Builds the tokenizer that `vocabulary` describes.
pub(crate) fn load(vocabulary: &Vocabulary) -> Result<TokenizerParts, TextError> {
    check(vocabulary)?;
    let mut inner = match vocabulary.kind {
        VocabularyKind::Gpt2 => byte_level(vocabulary)?,
        VocabularyKind::Llama => sentencepiece(vocabulary)?,
    };
    inner.add_tokens(&added_tokens(vocabulary));
    if let Some(processor) = special_token_template(vocabulary)? {
        inner.with_post_processor(Some(processor));
    }
    let origin = "the GGUF file".to_owned();
    let chat_template = vocabulary.chat_template.clone().map(|template| (template, origin.clone()));
    Ok(TokenizerParts {
        inner,
        bos: vocabulary.bos,
        ends: vocabulary.eos.into_iter().chain(vocabulary.eot).collect(),
        chat_template,
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
    if vocabulary.kind == VocabularyKind::Llama && scores != size {
        return Err(invalid(format!("{scores} scores for {size} tokens; expected {size}")));
    }
    let named = [
        ("bos_token_id", vocabulary.bos),
        ("eos_token_id", vocabulary.eos),
        ("eot_token_id", vocabulary.eot),
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
    let named = [vocabulary.bos, vocabulary.eos, vocabulary.eot, vocabulary.unknown];
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

/// The id of every token; a text that stands twice would leave one of its ids without a text.
fn token_ids(vocabulary: &Vocabulary) -> Result<Vocab, TextError> {
    let ids: Vocab = numbered(vocabulary).map(|(id, token)| (token.to_owned(), id)).collect();
    match numbered(vocabulary).find(|(id, token)| ids[*token] != *id) {
        None => Ok(ids),
        Some((id, token)) => Err(invalid(format!(
            "tokens {id} and {} are both {token:?}; expected distinct tokens",
            ids[token]
        ))),
    }
}

/// `"gpt2"`: byte-level byte-pair encoding with stated merges.
fn byte_level(vocabulary: &Vocabulary) -> Result<tokenizers::Tokenizer, TextError> {
    let rule = PreTokenizerRule::named(vocabulary.pre.as_deref())?;
    let merges = vocabulary
        .merges
        .iter()
        .map(|merge| match merge.split_once(' ') {
            Some((left, right)) if !left.is_empty() && !right.is_empty() => {
                Ok((left.to_owned(), right.to_owned()))
            }
            _ => Err(invalid(format!("merge {merge:?}; expected two tokens with a space between"))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let model = BPE::builder()
        .vocab_and_merges(token_ids(vocabulary)?, merges)
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
fn sentencepiece(vocabulary: &Vocabulary) -> Result<tokenizers::Tokenizer, TextError> {
    if let Some((id, token)) =
        numbered(vocabulary).find(|(_, token)| token.len() > LONGEST_PIECE_BYTES)
    {
        return Err(invalid(format!(
            "token {id} has {} bytes; expected at most {LONGEST_PIECE_BYTES}",
            token.len()
        )));
    }
    let ids = token_ids(vocabulary)?;
    let spells_bytes = (0..=u8::MAX).all(|byte| ids.contains_key(&format!("<0x{byte:02X}>")));
    if !spells_bytes && vocabulary.unknown.is_none() {
        return Err(invalid(
            "text outside the vocabulary cannot be spelt; expected 256 byte tokens <0x00> to \
             <0xFF>, or tokenizer.ggml.unknown_token_id"
                .to_owned(),
        ));
    }
    let pieces: Vec<(&str, f32)> = numbered(vocabulary)
        .zip(&vocabulary.scores)
        .filter(|((id, _), _)| token_type(vocabulary, *id) == TokenType::Normal)
        .map(|((_, token), &score)| (token, score))
        .collect();
    let mut model = BPE::builder()
        .vocab_and_merges(ids, merges_from_scores(&pieces))
        .byte_fallback(spells_bytes)
        .fuse_unk(true);
    if let Some(unknown) = vocabulary.unknown {
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
fn added_tokens(vocabulary: &Vocabulary) -> Vec<AddedToken> {
    numbered(vocabulary)
        .filter_map(|(id, token)| {
            let special = match token_type(vocabulary, id) {
                TokenType::Control | TokenType::Unknown => true,
                TokenType::UserDefined => false,
                TokenType::Normal | TokenType::Unused | TokenType::Byte => return None,
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
    if bos.is_none() && eos.is_none() {
        return Ok(None);
    }
    // Stand-ins for the tokens, whose own text may be read as template syntax.
    let mut pieces = vec!["$A"];
    let mut special = Vec::new();
    let mut stand_in = |name: &str, id: u32| {
        let token = vocabulary.tokens[id as usize].clone();
        special.push(SpecialToken::new(name.to_owned(), vec![id], vec![token]).map_err(refused)?);
        Ok(())
    };
    if let Some(id) = bos {
        pieces.insert(0, "bos");
        stand_in("bos", id)?;
    }
    if let Some(id) = eos {
        pieces.push("eos");
        stand_in("eos", id)?;
    }
    let template = TemplateProcessing::builder()
        .try_single(pieces)
        .map_err(refused)?
        .special_tokens(special)
        .build()
        .map_err(refused)?;
    Ok(Some(template))
}
