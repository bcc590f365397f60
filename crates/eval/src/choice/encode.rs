//! Prompts as token sequences.

use std::ops::Range;

use bantam_text::{EncodeOptions, Tokenizer};

use super::form::{Form, Prompt};
use super::item::{Item, ItemSet, Stem};
use crate::EvalError;

/// Turns items into questions for one model.
#[derive(Clone, Copy, Debug)]
pub struct Encoder<'a> {
    /// The model's.
    pub tokenizer: &'a Tokenizer,
    /// How items are put.
    pub form: Form,
    /// Examples before each.
    pub shots: usize,
    /// Tokens that the model sees at most.
    pub context: usize,
}

/// An item in a model's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its place in the set.
    pub item: usize,
    /// How many choices it has.
    pub num_choices: usize,
    /// Whether it was longer than the context: its beginning is missing, or in the form `greedy`
    /// some of its examples.
    pub truncated: bool,
    /// What is run. Choices of one token each share one sequence.
    pub(crate) queries: Vec<Query>,
}

/// A sequence of tokens, and the rows whose logits are wanted: all from one on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) tokens: Vec<u32>,
    pub(crate) first_row: usize,
    /// Tokens whose log-likelihoods count; none where the favourite itself is wanted.
    pub(crate) targets: Vec<Target>,
}

/// A token of a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The position whose row predicts it.
    pub(crate) row: usize,
    pub(crate) token: u32,
    pub(crate) choice: usize,
}

impl Query {
    pub(crate) fn rows(&self) -> Range<usize> {
        self.first_row..self.tokens.len()
    }

    /// The sequence with one more token, which the model wrote; its row is wanted too.
    pub(crate) fn continued(&self, token: u32) -> Self {
        Self { tokens: self.tokens.iter().copied().chain([token]).collect(), ..self.clone() }
    }

    /// Adds a choice: `tokens`, of which the last `scored` are its own.
    fn push(queries: &mut Vec<Self>, mut tokens: Vec<u32>, scored: usize, choice: usize) {
        let scored = tokens.len() - scored..tokens.len();
        let targets: Vec<Target> =
            scored.map(|i| Target { row: i - 1, token: tokens[i], choice }).collect();
        tokens.pop();
        let first_row = targets.first().map_or(0, |target| target.row);
        match queries.iter_mut().find(|query| query.tokens == tokens) {
            Some(query) => {
                query.first_row = query.first_row.min(first_row);
                query.targets.extend(targets);
            }
            None => queries.push(Self { tokens, first_row, targets }),
        }
    }
}

impl Question {
    /// The longest of its sequences in tokens, with what the model may write.
    #[must_use]
    pub fn longest(&self) -> usize {
        let written = usize::from(self.is_written());
        self.queries.iter().map(|query| query.tokens.len() + written).max().unwrap_or(0)
    }

    /// Whether the model writes the answer, instead of weighing the choices.
    pub(crate) fn is_written(&self) -> bool {
        self.queries.iter().all(|query| query.targets.is_empty())
    }

    /// All tokens that are run or scored.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = u32> {
        self.queries.iter().flat_map(|query| {
            let scored = query.targets.iter().map(|target| target.token);
            query.tokens.iter().copied().chain(scored)
        })
    }
}

impl Encoder<'_> {
    /// The question that an item becomes.
    ///
    /// # Errors
    /// If the item does not suit the form, lacks examples, or a choice is longer than the context.
    pub fn encode(&self, set: &ItemSet, item: usize) -> Result<Question, EvalError> {
        let asked = &set.items[item];
        let shots = set.shots(asked, self.shots)?;
        let all = || std::iter::once(asked).chain(shots.iter().copied());
        if self.form.lists_choices() && all().any(|item| matches!(item.stem, Stem::Context(_))) {
            return Err(EvalError::NoQuestion { item, form: self.form.to_string() });
        }
        match self.form {
            Form::Greedy => self.written(asked, &shots, item),
            Form::Letters | Form::Texts => self.scored(&self.form.prompt(asked, &shots), item),
        }
    }

    /// For log-likelihoods of the continuations, each cut from the left as lm-eval does.
    fn scored(&self, prompt: &Prompt, item: usize) -> Result<Question, EvalError> {
        // Spaces at the end of the context belong to what follows: so words are tokenized as words.
        let context = prompt.context.trim_end();
        let spaces = &prompt.context[context.len()..];
        let context_tokens = self.tokens(context)?;
        let (mut queries, mut truncated) = (Vec::new(), false);
        for (choice, continuation) in prompt.continuations.iter().enumerate() {
            // Tokenized as one text, then divided where the context alone would end.
            let mut tokens = self.tokens(&format!("{context}{spaces}{continuation}"))?;
            let mut scored = tokens.len().saturating_sub(context_tokens.len());
            if context_tokens.is_empty() {
                (tokens, scored) = self.without_context(&format!("{spaces}{continuation}"))?;
            }
            if scored == 0 || scored > self.context {
                return Err(EvalError::Unscorable { item, choice, scored, context: self.context });
            }
            // All but the last token are run.
            let surplus = (tokens.len() - 1).saturating_sub(self.context);
            truncated |= surplus > 0;
            Query::push(&mut queries, tokens.split_off(surplus), scored, choice);
        }
        Ok(Question { item, num_choices: prompt.continuations.len(), truncated, queries })
    }

    /// A continuation of nothing, which is predicted from the token that begins or ends a text.
    fn without_context(&self, continuation: &str) -> Result<(Vec<u32>, usize), EvalError> {
        let options = EncodeOptions::default();
        let tokens = self.tokenizer.encode(continuation, options)?;
        let first = self.tokenizer.bos().or(self.tokenizer.eos().first().copied());
        let first = first.ok_or(EvalError::NoFirstToken)?;
        let scored = tokens.len();
        Ok((std::iter::once(first).chain(tokens).collect(), scored))
    }

    /// For two tokens that the model writes. What is too long loses examples from the last, as in
    /// NVIDIA's script, and then its beginning.
    fn written(&self, asked: &Item, shots: &[&Item], item: usize) -> Result<Question, EvalError> {
        // The first token written is run too, for the second.
        let room = self.context.saturating_sub(1).max(1);
        let mut shown = shots.len();
        let mut tokens = self.tokens(&self.form.prompt(asked, shots).context)?;
        let truncated = tokens.len() > room;
        while tokens.len() > room && shown > 0 {
            shown -= 1;
            tokens = self.tokens(&self.form.prompt(asked, &shots[..shown]).context)?;
        }
        let tokens = tokens.split_off(tokens.len().saturating_sub(room));
        let first_row = tokens.len() - 1;
        let queries = vec![Query { tokens, first_row, targets: Vec::new() }];
        Ok(Question { item, num_choices: asked.choices.len(), truncated, queries })
    }

    /// With what the tokenizer adds to a text by itself.
    fn tokens(&self, text: &str) -> Result<Vec<u32>, EvalError> {
        Ok(self
            .tokenizer
            .encode(text, EncodeOptions { add_special: true, parse_special: false })?)
    }
}
