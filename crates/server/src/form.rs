//! Answers of a given form: grammars compiled for a model.

use std::collections::VecDeque;
use std::sync::{Mutex, OnceLock, PoisonError};

use bantam_text::{Grammar, GrammarCompiler, GrammarSpec, TextError, Tokenizer};

/// Compiled grammars that are kept: clients tend to ask for the same few.
const KEPT: usize = 32;

/// The grammars of one model.
#[derive(Default)]
pub(crate) struct Forms {
    /// Made with the first grammar.
    compiler: OnceLock<GrammarCompiler>,
    /// The last used in front.
    recent: Mutex<VecDeque<(GrammarSpec, Grammar)>>,
}

impl Forms {
    /// The compiled grammar. Takes milliseconds or more: not for threads that serve connections.
    pub(crate) fn compile(
        &self,
        spec: &GrammarSpec,
        tokenizer: &Tokenizer,
        vocab_size: usize,
    ) -> Result<Grammar, TextError> {
        if let Some(grammar) = self.recall(spec) {
            return Ok(grammar);
        }
        let compiler = match self.compiler.get() {
            Some(compiler) => compiler,
            None => {
                let made = GrammarCompiler::new(tokenizer, tokenizer.eos(), vocab_size)?;
                self.compiler.get_or_init(|| made)
            }
        };
        let grammar = compiler.compile(spec)?;
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_front((spec.clone(), grammar.clone()));
        recent.truncate(KEPT);
        Ok(grammar)
    }

    fn recall(&self, spec: &GrammarSpec) -> Option<Grammar> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let place = recent.iter().position(|(known, _)| known == spec)?;
        let found = recent.remove(place)?;
        let grammar = found.1.clone();
        recent.push_front(found);
        Some(grammar)
    }
}
