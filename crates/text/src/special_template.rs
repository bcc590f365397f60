//! The tokens that a tokenizer puts before and after every text.

use tokenizers::processors::template::{SpecialToken, TemplateProcessing};

/// A token: its id and its text.
pub(crate) type Token = (u32, String);

/// Puts one token before and one after a text; none if there are none to put.
///
/// # Errors
/// What the library says.
pub(crate) fn around(
    before: Option<Token>,
    after: Option<Token>,
) -> Result<Option<TemplateProcessing>, String> {
    if before.is_none() && after.is_none() {
        return Ok(None);
    }
    // Stand-ins for the tokens, whose own text may be read as template syntax.
    let mut pieces = vec!["$A"];
    if before.is_some() {
        pieces.insert(0, "bos");
    }
    if after.is_some() {
        pieces.push("eos");
    }
    let tokens = [("bos", before), ("eos", after)];
    let stand_ins = tokens.into_iter().filter_map(|(name, token)| {
        let (id, text) = token?;
        Some(SpecialToken::new(name.to_owned(), vec![id], vec![text]))
    });
    let special = stand_ins.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    let template = TemplateProcessing::builder()
        .try_single(pieces)
        .map_err(|error| error.clone())?
        .special_tokens(special)
        .build()
        .map_err(|error| error.to_string())?;
    Ok(Some(template))
}
