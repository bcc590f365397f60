//! How models write calls of functions.

use crate::Tokenizer;

/// One way of writing calls.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) name: &'static str,
    /// What stands before a call, or before the list of calls.
    pub(super) begin: &'static str,
    /// What stands after it; empty where nothing does.
    pub(super) end: &'static str,
    /// What stands between a mark and the call, and between two calls, when we make the model call.
    pub(super) space: &'static str,
    /// Calls stand in a JSON list.
    pub(super) list: bool,
    /// A call may begin an answer without its mark.
    pub(super) bare: bool,
    /// The key of the arguments.
    pub(super) arguments: &'static str,
    /// Parts of a chat template that give the style away.
    signs: &'static [&'static str],
}

/// The styles, the most telling signs first.
static STYLES: [Style; 3] = [
    Style {
        name: "mistral",
        begin: "[TOOL_CALLS]",
        end: "",
        space: "",
        list: true,
        bare: false,
        arguments: "arguments",
        signs: &["[TOOL_CALLS]"],
    },
    Style {
        name: "hermes",
        begin: "<tool_call>",
        end: "</tool_call>",
        space: "\n",
        list: false,
        bare: false,
        arguments: "arguments",
        signs: &["<tool_call>"],
    },
    Style {
        name: "llama3",
        begin: "<|python_tag|>",
        end: "",
        space: "",
        list: false,
        bare: true,
        arguments: "parameters",
        signs: &["<|python_tag|>", "Environment: ipython", r#""parameters": dictionary"#],
    },
];

/// How a model writes calls of functions:
///
/// | name | a call |
/// |---|---|
/// | `hermes` | `<tool_call>{"name": …, "arguments": …}</tool_call>` |
/// | `llama3` | `{"name": …, "parameters": …}` at the beginning of the answer or after `<\|python_tag\|>` |
/// | `mistral` | `[TOOL_CALLS][{"name": …, "arguments": …}, …]` |
///
/// The parser takes `arguments` and `parameters` for the same thing in all of them.
///
/// ```
/// use bantam_text::ToolFormat;
///
/// assert_eq!(ToolFormat::from_template("{{ '[TOOL_CALLS]' }}").name(), "mistral");
/// assert_eq!(ToolFormat::from_template("no tools here").name(), "hermes");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToolFormat {
    pub(super) style: &'static Style,
    /// The special tokens that are its marks, in a vocabulary that has them.
    pub(super) begin_token: Option<u32>,
    pub(super) end_token: Option<u32>,
}

impl ToolFormat {
    /// The format of a model, from its chat template and its vocabulary.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        let template = tokenizer.chat_template();
        let template = template.map(|template| template.tool_use().unwrap_or(template));
        let format = Self::from_template(template.map_or("", |template| template.source()));
        let special = |mark: &str| {
            let id = if mark.is_empty() { None } else { tokenizer.token_id(mark) };
            id.filter(|&id| tokenizer.is_special(id))
        };
        Self {
            begin_token: special(format.style.begin),
            end_token: special(format.style.end),
            ..format
        }
    }

    /// The format that the source of a chat template gives away; `hermes` if it gives away nothing,
    /// which is also what [`ChatTemplate`](crate::ChatTemplate) teaches a model whose template does
    /// not know tools.
    pub fn from_template(source: &str) -> Self {
        let betrays = |style: &&Style| style.signs.iter().any(|sign| source.contains(sign));
        let style = STYLES.iter().find(betrays).unwrap_or(&STYLES[1]);
        Self { style, begin_token: None, end_token: None }
    }

    /// Its name: `hermes`, `llama3` or `mistral`.
    pub fn name(&self) -> &'static str {
        self.style.name
    }

    /// The special tokens that mark a call, to be shown to the parser:
    /// [`StreamDecoder::showing`](crate::StreamDecoder::showing).
    pub fn special_tokens(&self) -> Vec<u32> {
        self.begin_token.into_iter().chain(self.end_token).collect()
    }
}
