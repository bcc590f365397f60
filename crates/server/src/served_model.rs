//! A model as the server knows it: an engine and the text around it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bantam_engine::{EngineHandle, Request, SamplingParams, Submission};
use bantam_text::{
    Cancel, ChatTemplate, EncodeBounds, EncodeOptions, Grammar, GrammarSpec, Tokenizer, ToolFormat,
};

use crate::answer::{Answer, AnswerOptions};
use crate::error::{ApiError, ErrorKind};
use crate::form::Forms;
use crate::record::Record;

/// A decoder model that is served under a name.
///
/// Encoders will be a type beside this one: they share the name and what `/v1/models` says, but
/// neither engine nor answers.
pub struct ServedModel {
    name: String,
    engine: EngineHandle,
    tokenizer: Arc<Tokenizer>,
    chat_template: Option<ChatTemplate>,
    tool_format: ToolFormat,
    forms: Forms,
    sampling: SamplingParams,
    description: String,
    planned_memory: Vec<(&'static str, u64)>,
    created: u64,
    last_asked: AtomicU64,
}

impl ServedModel {
    /// A model with the tokenizer's own chat template and end tokens.
    #[must_use]
    pub fn new(name: impl Into<String>, engine: EngineHandle, tokenizer: Arc<Tokenizer>) -> Self {
        Self {
            name: name.into(),
            engine,
            chat_template: tokenizer.chat_template().cloned(),
            tool_format: ToolFormat::of(&tokenizer),
            forms: Forms::default(),
            sampling: SamplingParams::default(),
            tokenizer,
            description: String::new(),
            planned_memory: Vec::new(),
            created: now().as_secs(),
            last_asked: AtomicU64::new(0),
        }
    }

    /// Replaces the chat template.
    #[must_use]
    pub fn with_chat_template(mut self, template: ChatTemplate) -> Self {
        self.tool_format = ToolFormat::from_template(template.source());
        self.chat_template = Some(template);
        self
    }

    /// How tokens are chosen where a request does not say.
    #[must_use]
    pub fn with_sampling(mut self, sampling: SamplingParams) -> Self {
        self.sampling = sampling;
        self
    }

    /// How tokens are chosen where a request does not say.
    #[must_use]
    pub const fn sampling(&self) -> &SamplingParams {
        &self.sampling
    }

    /// Says in a line what the model is: its family, size and number formats. `/v1/models` shows it.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Says what memory the model was planned to hold: parts, and bytes of each. `/metrics` shows it
    /// beside what the process really holds.
    #[must_use]
    pub fn with_planned_memory(
        mut self,
        parts: impl IntoIterator<Item = (&'static str, u64)>,
    ) -> Self {
        self.planned_memory = parts.into_iter().collect();
        self
    }

    /// The memory that the model was planned to hold: parts, and bytes of each.
    #[must_use]
    pub fn planned_memory(&self) -> &[(&'static str, u64)] {
        &self.planned_memory
    }

    /// The name by which requests ask for it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The engine.
    #[must_use]
    pub const fn engine(&self) -> &EngineHandle {
        &self.engine
    }

    /// The tokenizer.
    #[must_use]
    pub const fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// What the model is, in a line; may be empty.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// When it was loaded, in seconds since 1970.
    #[must_use]
    pub const fn created(&self) -> u64 {
        self.created
    }

    /// When it was last asked anything, in milliseconds since 1970; 0 if never.
    #[must_use]
    pub fn last_asked(&self) -> u64 {
        self.last_asked.load(Ordering::Relaxed)
    }

    /// Notes that it is asked now.
    pub(crate) fn note_asked(&self) {
        // An age in milliseconds has room for millions of years.
        self.last_asked.store(now().as_millis() as u64, Ordering::Relaxed);
    }

    /// Tokens of a request at most, prompt and answer together.
    #[must_use]
    pub fn context(&self) -> usize {
        self.engine.limits().longest_sequence()
    }

    /// The tokens of a prompt, or an early refusal of one that is longer than the context; `cancel`
    /// ends the work. Takes milliseconds or more: call it in [`ServerState::prepare`].
    ///
    /// [`ServerState::prepare`]: crate::ServerState::prepare
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode_within`].
    pub fn encode(
        &self,
        prompt: &str,
        options: EncodeOptions,
        cancel: &Cancel,
    ) -> Result<Vec<u32>, ApiError> {
        self.encode_within(prompt, options, self.context(), cancel)
    }

    /// As [`encode`](Self::encode), with another bound than the context.
    pub(crate) fn encode_within(
        &self,
        prompt: &str,
        options: EncodeOptions,
        max_tokens: usize,
        cancel: &Cancel,
    ) -> Result<Vec<u32>, ApiError> {
        let bounds = EncodeBounds { max_tokens, cancel };
        Ok(self.tokenizer.encode_within(prompt, options, bounds)?)
    }

    /// The chat template.
    ///
    /// # Errors
    /// If the model has none: it is not made for conversations.
    pub fn chat_template(&self) -> Result<&ChatTemplate, ApiError> {
        self.chat_template.as_ref().ok_or_else(|| {
            let message = format!(
                "the model {} has no chat template; use /v1/completions, or serve it with one",
                self.name
            );
            ApiError::new(ErrorKind::BadRequest, message).param("model")
        })
    }

    /// A compiled grammar for the answers of this model. Takes milliseconds or more: call it from
    /// [`prepare`](crate::ServerState::prepare).
    ///
    /// # Errors
    /// If the grammar is malformed, cannot be enforced, or costs too much; if too many others are
    /// being compiled.
    pub fn grammar(&self, spec: &GrammarSpec, cancel: &Cancel) -> Result<Grammar, ApiError> {
        self.forms.compile(spec, &self.tokenizer, self.engine.limits().vocab_size, cancel)
    }

    /// How the model writes calls of tools.
    #[must_use]
    pub const fn tool_format(&self) -> &ToolFormat {
        &self.tool_format
    }

    /// Asks for one answer to each submission, all or none.
    ///
    /// # Errors
    /// As [`EngineHandle::submit_all`].
    pub fn ask(
        &self,
        submissions: Vec<Submission>,
        options: &AnswerOptions,
        record: &Arc<Record>,
    ) -> Result<Vec<Answer>, ApiError> {
        let known: Vec<(usize, Vec<u32>)> = submissions
            .iter()
            .map(|Submission { request, .. }| (request.prompt.len(), stop_tokens(request)))
            .collect();
        let all_events = self.engine.submit_all(submissions)?;
        let answers = all_events.into_iter().zip(known);
        let answers = answers.map(|(events, (prompt_tokens, stop_tokens))| {
            let (tokenizer, record) = (Arc::clone(&self.tokenizer), Arc::clone(record));
            Answer::new(events, tokenizer, prompt_tokens, stop_tokens, options.clone(), record)
        });
        Ok(answers.collect())
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The tokens that end the answer to a request.
pub(crate) fn stop_tokens(request: &Request) -> Vec<u32> {
    let ends = request.eos_tokens.iter().filter(|_| !request.ignore_eos);
    request.stop_tokens.iter().chain(ends).copied().collect()
}
