//! Chat templates: a conversation becomes the prompt its model was trained on.

use minijinja::value::Serde;
use minijinja::{Error, Value, context};
use serde_json::{Map, Value as Json};

use crate::jinja::{Program, RaisedByTemplate};
use crate::tools::without_tools;
use crate::{Message, TextError, Tool, guarded};

/// What a prompt is made of.
#[derive(Debug, Clone, Copy, Default)]
pub struct RenderInput<'a> {
    /// The conversation so far.
    pub messages: &'a [Message],
    /// The functions that the model may call.
    pub tools: &'a [Tool],
    /// Ends the prompt where the assistant's next answer begins.
    pub add_generation_prompt: bool,
    /// More variables for the template (`chat_template_kwargs`, such as `enable_thinking`).
    pub extra: Option<&'a Map<String, Json>>,
}

/// The variables that every template sees; others cannot take their names.
const VARIABLES: [&str; 6] =
    ["messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"];

/// A compiled chat template, as Hugging Face models carry it: Jinja as `transformers` renders it.
///
/// A template that uses what is not known here is refused when it is compiled, by name. A rendering has
/// a bound on its steps and on the bytes that it moves, so that a hostile template ends.
///
/// Templates see `messages`, `add_generation_prompt`, `bos_token`, `eos_token`, `tools` and
/// `documents` (none where there are none), and the functions `raise_exception` and `strftime_now`
/// (in UTC).
///
/// A template that does not read `tools` still serves them: they are then described in the system
/// message (in the first message, if the template refuses one) in the convention of the Hermes
/// models, earlier calls are written as text of the assistant, and a `tool` message becomes a `user`
/// message with the result in `<tool_response>`.
///
/// ```
/// use bantam_text::{ChatTemplate, Message};
///
/// # fn main() -> Result<(), bantam_text::TextError> {
/// let source = "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{{ eos_token }}\
///               {% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";
/// let template = ChatTemplate::new(source, "<s>", "</s>")?;
/// let messages = [Message::new("user", " Hi ")];
/// assert_eq!(template.render_messages(&messages, true)?, "<|user|>Hi</s><|assistant|>");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    program: Program,
    knows_tools: bool,
    /// The one to use where there are tools.
    tool_use: Option<Box<ChatTemplate>>,
    source: String,
    origin: String,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Compiles `source`; `bos` and `eos` are the texts of those tokens, empty where there are
    /// none.
    ///
    /// # Errors
    /// A syntax error, or something of Jinja or Python that is not known here, with its line.
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
        let compiled = guarded(|| Program::new(source).map_err(|error| error.to_string()));
        let program = compiled
            .and_then(|compiled| compiled)
            .map_err(|problem| TextError::ChatTemplateSyntax { origin: origin.clone(), problem })?;
        Ok(Self {
            knows_tools: program.reads("tools"),
            program,
            tool_use: None,
            source: source.to_owned(),
            origin,
            bos: bos.to_owned(),
            eos: eos.to_owned(),
        })
    }

    /// The same, but where there are tools another template is rendered: the one that a model's files
    /// name `tool_use`.
    ///
    /// ```
    /// use bantam_text::{ChatTemplate, Message, RenderInput};
    /// use serde_json::json;
    ///
    /// let tools = serde_json::from_value::<Vec<bantam_text::Tool>>(json!([
    ///     {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}},
    /// ]))?;
    /// let tool_use = ChatTemplate::new("{{ tools | length }} tools", "", "")?;
    /// let template = ChatTemplate::new("no tools", "", "")?.with_tool_use(Some(tool_use));
    /// let with = RenderInput { tools: &tools, ..RenderInput::default() };
    /// assert_eq!(template.render(&with)?, "1 tools");
    /// assert_eq!(template.render(&RenderInput::default())?, "no tools");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_tool_use(mut self, template: Option<Self>) -> Self {
        self.tool_use = template.map(Box::new);
        self
    }

    /// The template for conversations with tools, where it is another one.
    pub fn tool_use(&self) -> Option<&Self> {
        self.tool_use.as_deref()
    }

    /// The Jinja source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The file the template was read from.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Whether the template reads `tools` itself.
    pub fn knows_tools(&self) -> bool {
        self.knows_tools
    }

    /// The prompt for a conversation without tools; [`render`](Self::render) takes all there is.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn render_messages(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, TextError> {
        self.render(&RenderInput { messages, add_generation_prompt, ..RenderInput::default() })
    }

    /// The prompt. Encode it with special tokens parsed and none added.
    ///
    /// # Errors
    /// [`TextError::ChatTemplateRefused`] if the template rejects the conversation (roles in the
    /// wrong order, say), [`TextError::ChatTemplateFailed`] for errors in the template,
    /// [`TextError::ChatTemplateArgument`] if `extra` names a variable that is set already.
    pub fn render(&self, input: &RenderInput<'_>) -> Result<String, TextError> {
        if let Some(tool_use) = self.tool_use.as_ref().filter(|_| !input.tools.is_empty()) {
            return tool_use.render(input);
        }
        if self.knows_tools || !uses_tools(input) {
            return self.render_as_given(input);
        }
        let plain = |system| {
            let messages = &without_tools(input.messages, input.tools, system);
            self.render_as_given(&RenderInput { messages, tools: &[], ..*input })
        };
        match plain(true) {
            Err(TextError::ChatTemplateRefused { .. }) => plain(false),
            rendered => rendered,
        }
    }

    /// Renders the messages as they are.
    fn render_as_given(&self, input: &RenderInput<'_>) -> Result<String, TextError> {
        let RenderInput { messages, tools, add_generation_prompt, extra } = *input;
        let taken = |name: &&String| VARIABLES.contains(&name.as_str());
        if let Some(name) = extra.and_then(|extra| extra.keys().find(taken)) {
            return Err(TextError::ChatTemplateArgument { name: name.clone() });
        }
        let context = context! {
            messages => Value::from(Serde(messages)),
            add_generation_prompt,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            tools => if tools.is_empty() { Value::from(()) } else { Value::from(Serde(tools)) },
            documents => (),
            ..extra.map_or_else(Value::default, |extra| Value::from(Serde(extra)))
        };
        let rendered = guarded(|| self.program.render(context));
        match rendered {
            Ok(rendered) => rendered.map_err(|error| self.failure(&error)),
            Err(problem) => {
                Err(TextError::ChatTemplateFailed { origin: self.origin.clone(), problem })
            }
        }
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

/// Whether a conversation has tools or calls in it. Alone, a message of the role `tool` is one of any
/// other role, for the template to judge.
fn uses_tools(input: &RenderInput<'_>) -> bool {
    !input.tools.is_empty() || input.messages.iter().any(|message| !message.tool_calls.is_empty())
}
