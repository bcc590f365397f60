//! Walks a compiled grammar along one answer.

use std::fmt;
use std::sync::Arc;

use llguidance::Matcher;
use llguidance::toktrie::{SimpleVob, TokEnv};

use super::guide::{Guide, Plan};
use super::message::plain;
use crate::TextError;

/// A compiled grammar. Clones are cheap and share it.
#[derive(Clone)]
pub struct Grammar {
    start: Arc<Matcher>,
    environment: TokEnv,
    /// Of an answer that is JSON from beginning to end.
    plan: Option<Arc<Plan>>,
    bytes: usize,
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

impl Grammar {
    pub(super) fn new(
        start: Matcher,
        environment: TokEnv,
        plan: Option<Arc<Plan>>,
        bytes: usize,
    ) -> Self {
        Self { start: Arc::new(start), environment, plan, bytes }
    }

    /// A walk of its own for one answer, at the beginning. It shares no state with other walks, so
    /// one that fails leaves the others alone.
    pub fn matcher(&self) -> GrammarMatcher {
        GrammarMatcher {
            inner: self.start.deep_clone(),
            environment: self.environment.clone(),
            mask: None,
            ended: false,
            plan: self.plan.clone(),
            guide: None,
        }
    }

    /// Bytes that it takes up, by its source: an estimate.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The walk of one answer through a grammar: [`allowed`](Self::allowed), choose a token,
/// [`accept`](Self::accept) it, and so on until an end token.
pub struct GrammarMatcher {
    inner: Matcher,
    environment: TokEnv,
    /// The tokens allowed next, once computed.
    mask: Option<SimpleVob>,
    /// An end token was accepted.
    ended: bool,
    plan: Option<Arc<Plan>>,
    /// What brings the answer to its end in time.
    guide: Option<Guide>,
}

impl Clone for GrammarMatcher {
    /// A walk of its own that goes on from the same place, to try tokens that may be taken back.
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.deep_clone(),
            environment: self.environment.clone(),
            mask: self.mask.clone(),
            ended: self.ended,
            plan: self.plan.clone(),
            guide: self.guide.clone(),
        }
    }
}

impl fmt::Debug for GrammarMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrammarMatcher").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl GrammarMatcher {
    /// Says, before the first token, how many the answer may take, its end token included.
    ///
    /// An answer that is JSON is then led to its end in time: once no more tokens remain than it
    /// takes to complete it, only the shortest completion is allowed. An answer that has no room
    /// for even that from its beginning is left to be cut.
    pub fn limit(&mut self, tokens: usize) {
        self.guide = self.plan.clone().map(|plan| Guide::new(plan, tokens));
    }

    /// The tokens allowed next: bit t % 32 of word t / 32 for token t, ⌈V / 32⌉ words. At least one
    /// is set; where the text can go no further these are the end tokens. After an end token they
    /// are the end tokens still.
    ///
    /// # Errors
    /// The step takes more work than a grammar may cost; the walk is then over.
    pub fn allowed(&mut self) -> Result<&[u32], TextError> {
        let mask = match self.mask.take() {
            Some(mask) => mask,
            None if self.ended => self.environment.tok_trie().eos_token_set(),
            None => self.next_mask()?,
        };
        let words = mask.len().div_ceil(32);
        Ok(&self.mask.insert(mask).as_slice()[..words])
    }

    /// Takes the token that was chosen.
    ///
    /// # Errors
    /// The token is not allowed here, which changes nothing; or the step takes more work than a
    /// grammar may cost, and the walk is over.
    pub fn accept(&mut self, token: u32) -> Result<(), TextError> {
        let trie = self.environment.tok_trie();
        let is_end = trie.eos_tokens().contains(&token);
        if self.ended || (is_end && self.inner.is_stopped() && !self.inner.is_error()) {
            self.ended = true;
            self.mask = None;
            return if is_end { Ok(()) } else { Err(not_allowed(token)) };
        }
        // The mask is asked first: a token of no bytes, say, would move nothing and be taken.
        let mask = match self.mask.take() {
            Some(mask) => mask,
            None => self.next_mask()?,
        };
        if token as usize >= mask.len() || !mask.is_allowed(token) {
            self.mask = Some(mask);
            return Err(not_allowed(token));
        }
        if is_end {
            self.ended = true;
            return Ok(());
        }
        self.inner.consume_token(token).map_err(failed)?;
        if let Some(guide) = &mut self.guide {
            guide.push(self.environment.tok_trie().token(token));
        }
        Ok(())
    }

    /// The tokens allowed next: of the grammar, and of the way to the end if there is no other.
    fn next_mask(&mut self) -> Result<SimpleVob, TextError> {
        let mask = self.inner.compute_mask_or_eos().map_err(failed)?;
        let trie = self.environment.tok_trie();
        let Some(completion) = self.guide.as_mut().and_then(|guide| guide.completion(trie)) else {
            return Ok(mask);
        };
        let ends = trie.eos_token_set();
        let mut only = trie.alloc_token_set();
        if completion.is_empty() {
            only = ends;
            only.and(&mask);
        } else {
            let lengths = (1..=completion.len()).rev();
            let mut tokens = lengths.filter_map(|length| trie.token_id(&completion[..length]));
            if let Some(token) = tokens.find(|&token| mask.is_allowed(token)) {
                only.allow_token(token);
            }
        }
        Ok(if only.is_zero() { mask } else { only })
    }
}

fn not_allowed(token: u32) -> TextError {
    TextError::GrammarWalk {
        problem: format!("token {token} is not allowed here; choose among allowed()"),
    }
}

fn failed(error: impl fmt::Display) -> TextError {
    TextError::GrammarWalk { problem: plain(&error.to_string()) }
}
