//! From the engine's events to the parts of an answer, whatever the protocol.
//!
//! A stream sends the parts as they come, a response that is not a stream collects the same parts
//! ([`CompleteAnswer`]): so both say the same.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bantam_engine::{Event, EventReceiver, FinishReason, RequestFailure, TokenLogprobs, Usage};
use bantam_text::{StopStrings, StreamDecoder, Tokenizer};
use futures_util::stream::{BoxStream, SelectAll, Stream, StreamExt};

use crate::record::Record;

/// A chosen token, at its place in the text.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerToken {
    /// Its id.
    pub id: u32,
    /// How probable it was, if the request asked.
    pub logprobs: Option<TokenLogprobs>,
    /// Characters of the answer before it.
    pub offset: usize,
    /// Bytes of the answer before it.
    start: usize,
}

/// What happens to an answer: scores of its prompt, texts, then its end.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// How probable the next tokens of the prompt were, if the request asked: from its second token
    /// on, before any text.
    Prompt(Vec<TokenLogprobs>),
    /// The answer grows.
    Text(TextPart),
    /// The answer is complete.
    End(Ending),
}

/// Text that can be shown, and the tokens that begin in it. Never both empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextPart {
    /// The text.
    pub text: String,
    /// The tokens; one that ends the answer is not among them.
    pub tokens: Vec<AnswerToken>,
}

impl TextPart {
    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.tokens.is_empty()
    }
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// Why.
    pub reason: FinishReason,
    /// What stopped it, if something of the request did.
    pub stopped_by: Option<StoppedBy>,
    /// What it took.
    pub usage: Usage,
    /// ln p of all its tokens together, if the request asked for log-probabilities.
    pub logprob: f64,
}

impl Ending {
    /// Whether the answer had more to say.
    #[must_use]
    pub const fn is_cut_off(&self) -> bool {
        matches!(self.reason, FinishReason::Length)
            || matches!(self.stopped_by, Some(StoppedBy::Text(_)))
    }
}

/// What in a request stopped its answer.
#[derive(Clone, Debug, PartialEq)]
pub enum StoppedBy {
    /// A token that ends answers; its text is not shown.
    Token(AnswerToken),
    /// A stop string.
    Text(String),
}

/// How the text of an answer is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerOptions {
    /// Texts that end the answer; the answer ends before them.
    pub stop_strings: Vec<String>,
    /// The answer ends after what stopped it instead: the stop string, or a stop token of the request.
    pub show_stop: bool,
    /// Shows special tokens as their text.
    pub show_special: bool,
    /// Special tokens that are shown even so: the marks of tool calls.
    pub shown: Vec<u32>,
}

/// One answer while it is made: a stream of [`Part`]s that ends after [`Part::End`] or a failure.
/// Dropping it cancels the request.
pub struct Answer {
    /// None after the end.
    events: Option<EventReceiver>,
    text: AnswerText,
    stop_tokens: Vec<u32>,
    stopped_by: Option<StoppedBy>,
    usage: Usage,
    logprob: f64,
    /// The end, when it comes together with the last text.
    ending: Option<Ending>,
    record: Arc<Record>,
}

impl Answer {
    /// The answer whose events arrive at `events`, to a prompt of `prompt_tokens` tokens.
    /// `stop_tokens` end it and add nothing to its text.
    #[must_use]
    pub fn new(
        events: EventReceiver,
        tokenizer: Arc<Tokenizer>,
        prompt_tokens: usize,
        stop_tokens: Vec<u32>,
        options: AnswerOptions,
        record: Arc<Record>,
    ) -> Self {
        Self {
            events: Some(events),
            text: AnswerText::new(tokenizer, options),
            stop_tokens,
            stopped_by: None,
            usage: Usage { prompt_tokens, ..Usage::default() },
            logprob: 0.0,
            ending: None,
            record,
        }
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn complete(mut self) -> Result<CompleteAnswer, RequestFailure> {
        let mut complete = CompleteAnswer::default();
        while let Some(part) = self.next().await {
            complete.push(part?);
        }
        Ok(complete)
    }

    /// What an event adds to the answer: often nothing.
    fn advance(&mut self, event: Event) -> Option<Result<Part, RequestFailure>> {
        match event {
            Event::Started { cached_tokens, queue_time } => {
                self.usage.cached_tokens = cached_tokens;
                self.record.started(cached_tokens, queue_time);
                None
            }
            Event::PromptLogprobs(logprobs) => Some(Ok(Part::Prompt(logprobs))),
            Event::Token { token, logprobs } => {
                self.usage.generated_tokens += 1;
                self.record.generated(1);
                self.logprob += logprobs.as_ref().map_or(0.0, |l| f64::from(l.chosen));
                if self.stop_tokens.contains(&token) {
                    let placed = self.text.place(token, logprobs);
                    let part = self.text.finish_with(token);
                    self.stopped_by = Some(StoppedBy::Token(placed));
                    return (!part.is_empty()).then_some(Ok(Part::Text(part)));
                }
                let (part, stop) = self.text.push(token, logprobs);
                if let Some(stop) = stop {
                    self.stopped_by = Some(StoppedBy::Text(stop));
                    // The engine's work on this request ends.
                    self.events.take().into_iter().for_each(EventReceiver::stop);
                    return self.end(FinishReason::Stop, self.usage, part);
                }
                (!part.is_empty()).then_some(Ok(Part::Text(part)))
            }
            Event::Finished { reason, usage } => {
                let part = self.text.finish();
                self.end(reason, usage, part)
            }
            Event::Failed(failure) => {
                self.events = None;
                Some(Err(failure))
            }
        }
    }

    /// The last text if there is any, then the end.
    fn end(
        &mut self,
        reason: FinishReason,
        usage: Usage,
        last: TextPart,
    ) -> Option<Result<Part, RequestFailure>> {
        self.events = None;
        self.record.finished(reason);
        let stopped_by = self.stopped_by.take();
        let ending = Ending { reason, stopped_by, usage, logprob: self.logprob };
        if last.is_empty() {
            return Some(Ok(Part::End(ending)));
        }
        self.ending = Some(ending);
        Some(Ok(Part::Text(last)))
    }
}

impl Stream for Answer {
    type Item = Result<Part, RequestFailure>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(ending) = self.ending.take() {
            return Poll::Ready(Some(Ok(Part::End(ending))));
        }
        loop {
            let Some(events) = &mut self.events else { return Poll::Ready(None) };
            let event = ready!(events.poll_recv(context));
            // An engine that ends tells its requests; this is for one that could not.
            let event = event.unwrap_or(Event::Failed(RequestFailure::Stopped));
            if let Some(part) = self.advance(event) {
                return Poll::Ready(Some(part));
            }
        }
    }
}

/// The whole of an answer, its end included once it is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompleteAnswer {
    /// How probable the tokens of the prompt were, from the second on, if the request asked.
    pub prompt: Vec<TokenLogprobs>,
    /// Its text.
    pub text: String,
    /// Its tokens, one that ended it left out.
    pub tokens: Vec<AnswerToken>,
    /// How it ended.
    pub ending: Option<Ending>,
}

impl CompleteAnswer {
    /// An answer of which all tokens are known.
    #[must_use]
    pub fn of_tokens(
        tokens: &[u32],
        tokenizer: Arc<Tokenizer>,
        stop_tokens: &[u32],
        options: AnswerOptions,
        ending: Ending,
    ) -> Self {
        let mut text = AnswerText::new(tokenizer, options);
        let mut whole = Self::default();
        for &token in tokens.iter().filter(|token| !stop_tokens.contains(token)) {
            whole.push(Part::Text(text.push(token, None).0));
        }
        whole.push(Part::Text(text.finish()));
        whole.ending = Some(ending);
        whole
    }

    /// Mean ln p of the tokens chosen; negative infinity if there is none.
    #[must_use]
    pub fn mean_logprob(&self) -> f64 {
        let chosen = self.ending.as_ref().filter(|ending| ending.usage.generated_tokens > 0);
        chosen.map_or(f64::NEG_INFINITY, |ending| {
            ending.logprob / ending.usage.generated_tokens as f64
        })
    }

    /// The parts again, as few as can be.
    pub fn into_parts(self) -> impl Iterator<Item = Part> {
        let Self { prompt, text, tokens, ending } = self;
        let text = TextPart { text, tokens };
        let prompt = (!prompt.is_empty()).then_some(Part::Prompt(prompt));
        let text = (!text.is_empty()).then_some(Part::Text(text));
        prompt.into_iter().chain(text).chain(ending.map(Part::End))
    }

    /// Adds the next part.
    pub fn push(&mut self, part: Part) {
        match part {
            Part::Prompt(logprobs) => self.prompt.extend(logprobs),
            Part::Text(TextPart { text, tokens }) => {
                self.text.push_str(&text);
                self.tokens.extend(tokens);
            }
            Part::End(ending) => self.ending = Some(ending),
        }
    }
}

/// Several answers of one request: their parts in order of arrival, with the number of the answer.
/// Dropping it cancels them all.
pub type Answers = BoxStream<'static, (usize, Result<Part, RequestFailure>)>;

/// Puts answers together.
pub fn answers(all: Vec<Answer>) -> Answers {
    all.into_iter()
        .enumerate()
        .map(|(index, answer)| answer.map(move |part| (index, part)).boxed())
        .collect::<SelectAll<_>>()
        .boxed()
}

/// The text of an answer while it grows.
struct AnswerText {
    decoder: StreamDecoder<Arc<Tokenizer>>,
    stops: StopStrings,
    show_stop: bool,
    /// Tokens whose text is held back: a stop string or half a character may begin there.
    held: VecDeque<AnswerToken>,
    decoded_bytes: usize,
    decoded_chars: usize,
    shown_bytes: usize,
}

impl AnswerText {
    fn new(tokenizer: Arc<Tokenizer>, options: AnswerOptions) -> Self {
        let AnswerOptions { stop_strings, show_stop, show_special, shown } = options;
        let decoder = StreamDecoder::new(tokenizer).showing(shown);
        Self {
            decoder: if show_special { decoder.with_special() } else { decoder },
            stops: StopStrings::new(stop_strings),
            show_stop,
            held: VecDeque::new(),
            decoded_bytes: 0,
            decoded_chars: 0,
            shown_bytes: 0,
        }
    }

    /// Takes a token; returns what can be shown now, and the stop string that is reached.
    fn push(&mut self, id: u32, logprobs: Option<TokenLogprobs>) -> (TextPart, Option<String>) {
        let token = self.place(id, logprobs);
        self.held.push_back(token);
        let decoded = self.decoder.push(id);
        self.show(&decoded)
    }

    /// A token that stands after all text so far.
    const fn place(&self, id: u32, logprobs: Option<TokenLogprobs>) -> AnswerToken {
        AnswerToken { id, logprobs, offset: self.decoded_chars, start: self.decoded_bytes }
    }

    fn show(&mut self, decoded: &str) -> (TextPart, Option<String>) {
        self.decoded_bytes += decoded.len();
        self.decoded_chars += decoded.chars().count();
        let mut outcome = self.stops.push(decoded);
        if let Some(stop) = outcome.stop.as_ref().filter(|_| self.show_stop) {
            outcome.text.push_str(stop);
        }
        self.shown_bytes += outcome.text.len();
        let shown = self.held.iter().take_while(|token| token.start < self.shown_bytes).count();
        let tokens = self.held.drain(..shown).collect();
        (TextPart { text: outcome.text, tokens }, outcome.stop)
    }

    /// What was held back, at the end of an answer that a stop token ends.
    fn finish_with(&mut self, stop: u32) -> TextPart {
        let decoded = if self.show_stop { self.decoder.push(stop) } else { String::new() };
        let (mut part, _) = self.show(&decoded);
        let last = self.finish();
        part.text.push_str(&last.text);
        part.tokens.extend(last.tokens);
        part
    }

    /// What was held back, at the end of an answer that reached no stop string.
    fn finish(&mut self) -> TextPart {
        let decoded = self.decoder.finish();
        let (mut part, stop) = self.show(&decoded);
        if stop.is_none() {
            part.text.push_str(&self.stops.finish());
            part.tokens.extend(self.held.drain(..));
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use bantam_text::TokenizerSource;
    use proptest::prelude::*;

    use super::*;

    fn tokenizer() -> Arc<Tokenizer> {
        let folder =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../text/tests/data/byte_level");
        Arc::new(Tokenizer::load(&TokenizerSource::Folder(folder)).unwrap())
    }

    /// The parts of an answer of these tokens, as they come.
    fn parts(tokenizer: &Arc<Tokenizer>, ids: &[u32], stops: &[String]) -> Vec<TextPart> {
        let options = AnswerOptions { stop_strings: stops.to_vec(), ..AnswerOptions::default() };
        let mut text = AnswerText::new(Arc::clone(tokenizer), options);
        let mut parts = Vec::new();
        for &id in ids {
            let (part, stop) = text.push(id, None);
            parts.push(part);
            if stop.is_some() {
                return parts;
            }
        }
        parts.push(text.finish());
        parts
    }

    #[test]
    fn tokens_come_with_the_text_they_begin() {
        let tokenizer = tokenizer();
        // A token for each byte cuts characters into pieces.
        let bytes = |text: &str| -> Vec<u32> {
            let id = |byte: u8| (0..833).find(|&id| tokenizer.token_bytes(id).unwrap() == [byte]);
            text.bytes().map(|byte| id(byte).unwrap()).collect()
        };
        let ids = bytes("aé<|b");
        let shown = parts(&tokenizer, &ids, &["<|".to_owned()]);
        let shown: Vec<(&str, usize)> =
            shown.iter().map(|part| (part.text.as_str(), part.tokens.len())).collect();
        assert_eq!(shown, [("a", 1), ("", 0), ("é", 2), ("", 0), ("", 0)]);
    }

    proptest! {
        #[test]
        fn no_token_and_no_text_is_lost_or_shown_twice(
            ids in prop::collection::vec(0u32..833, 0..40),
            stops in prop::collection::vec("[a-z ]{1,3}", 0..4),
        ) {
            let tokenizer = tokenizer();
            let parts = parts(&tokenizer, &ids, &stops);
            let text: String = parts.iter().map(|part| part.text.as_str()).collect();
            let tokens: Vec<&AnswerToken> = parts.iter().flat_map(|part| &part.tokens).collect();
            let whole = tokenizer.decode(&ids, true);
            prop_assert!(whole.starts_with(&text));
            let stopped = stops.iter().any(|stop| whole.contains(stop.as_str()));
            prop_assert_eq!(text.len() < whole.len(), stopped);
            let shown: Vec<u32> = tokens.iter().map(|token| token.id).collect();
            prop_assert!(ids.starts_with(&shown));
            prop_assert!(stopped || shown.len() == ids.len());
            // Each part holds exactly the tokens that begin in the text up to its end.
            let mut end = 0;
            for part in &parts {
                end += part.text.len();
                let last = std::ptr::eq(part, &parts[parts.len() - 1]);
                prop_assert!(part.tokens.iter().all(|t| t.start < end || (last && !stopped)));
            }
            for token in tokens {
                prop_assert_eq!(text[..token.start].chars().count(), token.offset);
            }
        }
    }
}
