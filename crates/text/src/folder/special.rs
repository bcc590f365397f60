//! Special and added tokens that other files than `tokenizer.json` name.

use std::collections::BTreeMap;

use serde_json::Value;
use tokenizers::AddedToken;

use super::class::Class;
use super::files::Files;

/// The keys of single special tokens, in the order in which they are added.
const KEYS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// The key of a list of more.
const MORE: &str = "additional_special_tokens";
/// The key under which newer files keep more: a list, or an object from names to tokens.
const EXTRA: &str = "extra_special_tokens";

/// What the files name beside `tokenizer.json`.
pub(super) struct Specials {
    /// Each key and its token, then those without a key.
    tokens: Vec<(&'static str, AddedToken)>,
    /// Tokens added to the vocabulary, by the number that a file gives them.
    added: BTreeMap<u64, AddedToken>,
    /// Whether they are from the older files, which give way to `tokenizer.json`.
    older: bool,
}

impl Specials {
    /// Reads them. As in `transformers`: a file with `added_tokens_decoder` says everything itself;
    /// without it, `special_tokens_map.json` overrides it and `added_tokens.json` adds to it.
    pub(super) fn of(files: &Files, class: &Class) -> Self {
        let settings = &files.settings;
        let whole = settings["added_tokens_decoder"].as_object();
        let older = |key: &str| {
            let value = if whole.is_some() { None } else { files.special_tokens_map.get(key) };
            value.or_else(|| settings.get(key))
        };
        let mut tokens = Vec::new();
        for key in KEYS {
            let token = match older(key) {
                Some(value) => special(value),
                None => {
                    let habit = class.specials.iter().find(|(of, _)| *of == key);
                    habit.map(|(_, text)| AddedToken::from(*text, true))
                }
            };
            tokens.extend(token.map(|token| (key, token)));
        }
        let maps =
            [settings, if whole.is_some() { &Value::Null } else { &files.special_tokens_map }];
        for list in maps.into_iter().flat_map(|file| [&file[MORE], &file[EXTRA]]) {
            let listed = list.as_array().into_iter().flatten();
            let named = list.as_object().into_iter().flat_map(|object| object.values());
            for token in listed.chain(named).filter_map(special) {
                if !tokens.iter().any(|(key, known)| *key == MORE && known.content == token.content)
                {
                    tokens.push((MORE, token));
                }
            }
        }
        let is_special =
            |text: &str| tokens.iter().any(|(_, token): &(_, AddedToken)| token.content == text);
        let added = match whole {
            Some(entries) => {
                let entry = |(id, token): (&String, &Value)| Some((id.parse().ok()?, read(token)?));
                entries.iter().filter_map(entry).collect()
            }
            None => {
                let entries = files.added_tokens.as_object().into_iter().flatten();
                let entry = |(text, id): (&String, &Value)| {
                    Some((id.as_u64()?, AddedToken::from(text.as_str(), is_special(text))))
                };
                entries.filter_map(entry).collect()
            }
        };
        Self { tokens, added, older: whole.is_none() }
    }

    /// The text of the special token at a key.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        let found = self.tokens.iter().find(|(of, _)| *of == key);
        found.map(|(_, token)| token.content.as_str())
    }

    /// What has to be added to a tokenizer that has these added tokens. Those it has are among it, as
    /// other files may say that one of them is special.
    pub(super) fn to_add(&self, present: &BTreeMap<u32, AddedToken>) -> Vec<AddedToken> {
        let is_special = |token: &AddedToken| {
            self.tokens.iter().any(|(_, known)| known.content == token.content)
        };
        let mut numbered = self.added.clone();
        if self.older {
            let stored = present.iter().map(|(&id, token)| (u64::from(id), token.clone()));
            numbered.extend(stored);
        }
        let mut to_add: Vec<AddedToken> = numbered
            .into_values()
            .map(|token| AddedToken { special: token.special || is_special(&token), ..token })
            .collect();
        for (_, token) in &self.tokens {
            let mut known = to_add.iter().chain(present.values());
            if known.all(|known| known.content != token.content) {
                to_add.push(AddedToken { special: true, ..token.clone() });
            }
        }
        to_add
    }
}

/// A special token, written as a text or as an object.
fn special(value: &Value) -> Option<AddedToken> {
    match value.as_str() {
        Some(text) => Some(AddedToken::from(text, true)),
        None => read(value).map(|token| AddedToken { special: true, ..token }),
    }
}

/// A token written as an object; what it leaves out is as `transformers` has it.
fn read(value: &Value) -> Option<AddedToken> {
    let flag = |key: &str| value[key].as_bool();
    let special = flag("special").unwrap_or(false);
    Some(AddedToken {
        content: value["content"].as_str()?.to_owned(),
        single_word: flag("single_word").unwrap_or(false),
        lstrip: flag("lstrip").unwrap_or(false),
        rstrip: flag("rstrip").unwrap_or(false),
        normalized: flag("normalized").unwrap_or(!special),
        special,
    })
}
