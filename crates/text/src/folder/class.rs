//! What the tokenizer classes of `transformers` do beside reading `tokenizer.json`, as data.
//!
//! Transcribed from the fast tokenizers of transformers 4.57.6. A class may bring special tokens where
//! the files name none, put tokens around a text whatever `tokenizer.json` says, and have a habit of
//! its own for the space before a text.

use serde_json::Value;

/// One class, or several that do the same.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Class {
    /// Names in `tokenizer_class`, less a `Fast` at the end.
    names: &'static [&'static str],
    /// Values of `model_type` that mean the class where the files name none.
    model_types: &'static [&'static str],
    /// Special tokens where the files are silent: key and text.
    pub(super) specials: &'static [(&'static str, &'static str)],
    /// The class puts BOS before and EOS after a text itself: its habit where the files are silent.
    pub(super) around: Option<Around>,
    /// What it does to the space before a text.
    pub(super) space: SpaceHabit,
}

/// Which tokens stand around a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Around {
    pub(super) bos: bool,
    pub(super) eos: bool,
}

/// What `add_prefix_space` means to a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpaceHabit {
    /// Absent means no, whatever `tokenizer.json` says.
    NoUnlessAsked,
    /// Absent means what `tokenizer.json` says.
    AsStored,
}

/// What a class of another name does: the base class, `PreTrainedTokenizerFast`.
static BASE: Class = Class {
    names: &[],
    model_types: &[],
    specials: &[],
    around: None,
    space: SpaceHabit::NoUnlessAsked,
};

const END_OF_TEXT: &str = "<|endoftext|>";

static CLASSES: [Class; 5] = [
    Class {
        names: &["LlamaTokenizer", "CodeLlamaTokenizer"],
        model_types: &["llama", "mistral"],
        specials: &[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")],
        around: Some(Around { bos: true, eos: false }),
        space: SpaceHabit::AsStored,
    },
    Class {
        names: &["GemmaTokenizer"],
        model_types: &[],
        specials: &[
            ("bos_token", "<bos>"),
            ("eos_token", "<eos>"),
            ("unk_token", "<unk>"),
            ("pad_token", "<pad>"),
        ],
        around: Some(Around { bos: true, eos: false }),
        ..BASE
    },
    Class {
        names: &["GPTNeoXTokenizer"],
        model_types: &[],
        specials: &[
            ("bos_token", END_OF_TEXT),
            ("eos_token", END_OF_TEXT),
            ("unk_token", END_OF_TEXT),
        ],
        around: Some(Around { bos: false, eos: false }),
        ..BASE
    },
    Class {
        names: &["GPT2Tokenizer"],
        model_types: &[],
        specials: &[
            ("bos_token", END_OF_TEXT),
            ("eos_token", END_OF_TEXT),
            ("unk_token", END_OF_TEXT),
        ],
        ..BASE
    },
    Class {
        names: &["Qwen2Tokenizer"],
        model_types: &["qwen2", "qwen3"],
        specials: &[
            ("eos_token", END_OF_TEXT),
            ("unk_token", END_OF_TEXT),
            ("pad_token", END_OF_TEXT),
        ],
        ..BASE
    },
];

/// The class of a folder: by `tokenizer_class` of `tokenizer_config.json`, else of `config.json`,
/// else by its `model_type`.
pub(super) fn of(settings: &Value, config: &Value) -> &'static Class {
    let named = [settings, config].into_iter().find_map(|file| file["tokenizer_class"].as_str());
    let found = match named {
        Some(name) => {
            let name = name.strip_suffix("Fast").unwrap_or(name);
            CLASSES.iter().find(|class| class.names.contains(&name))
        }
        None => {
            let model_type = config["model_type"].as_str().unwrap_or_default();
            CLASSES.iter().find(|class| class.model_types.contains(&model_type))
        }
    };
    found.unwrap_or(&BASE)
}
