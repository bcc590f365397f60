//! Chat templates: a conversation becomes the prompt its model was trained on.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, Value, context};
use serde::{Deserialize, Serialize};

use crate::TextError;
use crate::python::{self, RaisedByTemplate};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`; the template decides what it accepts.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// A compiled chat template, as Hugging Face models carry it: Jinja with Python methods on
/// strings, lists and dictionaries, rendered with `trim_blocks` and `lstrip_blocks`.
///
/// Templates see `messages`, `add_generation_prompt`, `bos_token`, `eos_token`, `tools` and
/// `documents` (both none), and the functions `raise_exception` and `strftime_now` (in UTC).
///
/// ```
/// use bantam_text::{ChatTemplate, Message};
///
/// # fn main() -> Result<(), bantam_text::TextError> {
/// let source = "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{{ eos_token }}\
///               {% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";
/// let template = ChatTemplate::new(source, "<s>", "</s>")?;
/// let messages = [Message { role: "user".into(), content: " Hi ".into() }];
/// assert_eq!(template.render(&messages, true)?, "<|user|>Hi</s><|assistant|>");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    origin: String,
    bos: String,
    eos: String,
}

/// The name of the only template in the environment; error messages show it.
const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compiles `source`; `bos` and `eos` are the texts of those tokens, empty where there are
    /// none.
    ///
    /// # Errors
    /// A syntax error, with its line.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, TextError> {
        Self::with_origin(source, bos, eos, "the caller".to_owned())
    }

    /// Compiles the template of the file `origin`.
    pub(crate) fn with_origin(
        source: &str,
        bos: &str,
        eos: &str,
        origin: String,
    ) -> Result<Self, TextError> {
        let syntax_error = |error: Error| TextError::ChatTemplateSyntax {
            origin: origin.clone(),
            problem: error.to_string(),
        };
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(syntax_error)?);
        python::install(&mut environment);
        environment
            .add_template_owned(NAME, without_generation_marks(source))
            .map_err(syntax_error)?;
        Ok(Self {
            environment,
            source: source.to_owned(),
            origin,
            bos: bos.to_owned(),
            eos: eos.to_owned(),
        })
    }

    /// The Jinja source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The file the template was read from.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The prompt for `messages`; with `add_generation_prompt` it ends where the assistant's next
    /// answer begins. Encode it with special tokens parsed and none added.
    ///
    /// # Errors
    /// [`TextError::ChatTemplateRefused`] if the template rejects the conversation (roles in the
    /// wrong order, say), [`TextError::ChatTemplateFailed`] for errors in the template.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, TextError> {
        let context = context! {
            messages => Value::from(Serde(messages)),
            add_generation_prompt,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            tools => (),
            documents => (),
        };
        let template = self.environment.get_template(NAME);
        template.and_then(|template| template.render(context)).map_err(|error| self.failure(&error))
    }

    /// Tells a refusal of the template from a failure in it.
    fn failure(&self, error: &Error) -> TextError {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(raised) = error.downcast_ref::<RaisedByTemplate>() {
                return TextError::ChatTemplateRefused { reason: raised.to_string() };
            }
            cause = error.source();
        }
        TextError::ChatTemplateFailed { origin: self.origin.clone(), problem: error.to_string() }
    }
}

/// Replaces `{% generation %}` blocks, which only mark text for training, by blocks that are always
/// rendered; their whitespace control stays.
fn without_generation_marks(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else {
            break;
        };
        let (before, tag) = (&rest[..start + 2], &rest[start + 2..start + length]);
        result.push_str(before);
        match tag.trim_matches(|c: char| c.is_whitespace() || matches!(c, '-' | '+')) {
            "generation" => result.push_str(&tag.replace("generation", " if true ")),
            "endgeneration" => result.push_str(&tag.replace("endgeneration", " endif ")),
            _ => result.push_str(tag),
        }
        rest = &rest[start + length..];
    }
    result + rest
}
