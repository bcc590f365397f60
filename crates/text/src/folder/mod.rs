//! Reads the tokenizer of a Hugging Face folder.
//!
//! `files` reads every file that has a say, `class` knows what the tokenizer classes of `transformers`
//! do beside, `special` says which tokens other files add. What comes out is what `AutoTokenizer`
//! makes of the same folder; `tests/side_files.rs` holds the two against each other.

mod class;
mod files;
mod special;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;

use crate::tokenizer::{TemplateSources, TokenizerParts};
use crate::{TextError, special_template};
use class::{Around, Class, SpaceHabit};
use files::Files;
use special::Specials;

/// Reads `tokenizer.json` and the files beside it:
///
/// * special tokens: `tokenizer_config.json` and, where that is of the older form without
///   `added_tokens_decoder`, `special_tokens_map.json` and `added_tokens.json`;
/// * tokens around every text and the space before it: the tokenizer's class and `add_bos_token`,
///   `add_eos_token` and `add_prefix_space` of `tokenizer_config.json`;
/// * ends of generation: the end of sequence, and `eos_token_id` of `generation_config.json`, else of
///   `config.json`;
/// * chat templates: see `Files::read`.
///
/// `clean_up_tokenization_spaces` is not applied: it takes spaces away that the model wrote
/// (`a , b`), and could not be applied to a stream.
pub(crate) fn load(folder: &Path) -> Result<TokenizerParts, TextError> {
    let files = Files::read(folder)?;
    let invalid = |problem: String| TextError::InvalidFile { path: files.path.clone(), problem };
    let mut inner = tokenizers::Tokenizer::from_bytes(&files.tokenizer)
        .map_err(|error| invalid(error.to_string()))?;
    // Settings of some training run; how long a prompt may be is for the caller to say.
    inner.with_padding(None);
    inner.with_truncation(None).map_err(|error| invalid(error.to_string()))?;

    let class = class::of(&files.settings, &files.config);
    let specials = Specials::of(&files, class);
    let present: BTreeMap<_, _> = inner.get_added_tokens_decoder().into_iter().collect();
    inner.add_tokens(&specials.to_add(&present));
    let id = |key: &str| specials.text(key).and_then(|text| inner.token_to_id(text));
    let (bos, eos) = (id("bos_token"), id("eos_token"));

    if let Some(around) = class.around {
        let asked = |key: &str, habit| files.settings[key].as_bool().unwrap_or(habit);
        let around = Around {
            bos: asked("add_bos_token", around.bos),
            eos: asked("add_eos_token", around.eos),
        };
        let token = |wanted: bool, key: &str, id: Option<u32>| match (wanted, id) {
            (false, _) => Ok(None),
            (true, Some(id)) => Ok(specials.text(key).map(|text| (id, text.to_owned()))),
            (true, None) => Err(invalid(format!(
                "add_{key} is set, by tokenizer_config.json or by its tokenizer_class, but there is \
                 no {key}; name one, or set add_{key} to false"
            ))),
        };
        let tokens = (token(around.bos, "bos_token", bos)?, token(around.eos, "eos_token", eos)?);
        let template = special_template::around(tokens.0, tokens.1).map_err(invalid)?;
        inner.with_post_processor(template);
    }
    set_space_before(&mut inner, class, files.settings.get("add_prefix_space"));

    let stated = ids(&files.generation["eos_token_id"]);
    let stated = if stated.is_empty() { ids(&files.config["eos_token_id"]) } else { stated };
    let ends = eos.into_iter().chain(stated).collect();
    let templates = templates(&files, folder)?;
    Ok(TokenizerParts {
        origin: files.path.display().to_string(),
        inner,
        bos,
        eos,
        ends,
        nameless: Vec::new(),
        templates,
    })
}

/// Whether byte-level words begin with a space where the text does not. Only a pre-tokenizer that is
/// not one of several is changed, as in `transformers`.
fn set_space_before(inner: &mut tokenizers::Tokenizer, class: &Class, setting: Option<&Value>) {
    let wanted = match (setting, class.space) {
        (Some(setting), _) => setting.as_bool(),
        (None, SpaceHabit::NoUnlessAsked) => Some(false),
        (None, SpaceHabit::AsStored) => None,
    };
    let Some(wanted) = wanted else { return };
    if let Some(PreTokenizerWrapper::ByteLevel(stored)) = inner.get_pre_tokenizer() {
        let mut changed = *stored;
        changed.add_prefix_space = wanted;
        inner.with_pre_tokenizer(Some(changed));
    }
}

/// One id or a list of ids.
fn ids(value: &Value) -> Vec<u32> {
    let one_or_more = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    one_or_more.iter().filter_map(|id| id.as_u64()?.try_into().ok()).collect()
}

/// The templates to render: `default`, and `tool_use` where there are tools. A single template of
/// another name is the default.
fn templates(files: &Files, folder: &Path) -> Result<TemplateSources, TextError> {
    let named = &files.templates;
    let with_tools = named.get("tool_use").cloned();
    let default =
        named.get("default").or_else(|| named.values().next().filter(|_| named.len() == 1));
    if default.is_none() && !named.is_empty() {
        return Err(TextError::InvalidFile {
            path: folder.to_owned(),
            problem: format!(
                "several chat templates, but none named \"default\" (found {:?}); put the one to use \
                 into chat_template.jinja",
                named.keys().collect::<Vec<_>>()
            ),
        });
    }
    Ok(TemplateSources { default: default.cloned(), with_tools })
}
