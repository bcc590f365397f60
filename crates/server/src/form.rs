//! Answers of a given form: grammars compiled for a model.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use bantam_text::{Cancel, Grammar, GrammarCompiler, GrammarSpec, Tokenizer};

use crate::error::{ApiError, ErrorKind};

/// Bytes of compiled grammars that are kept: clients tend to ask for the same few.
const KEPT_BYTES: usize = 64 << 20;
/// How long a grammar waits for its turn. Each takes a fraction of that.
const PATIENCE: Duration = Duration::from_secs(1);

/// The grammars of one model.
#[derive(Default)]
pub(crate) struct Forms {
    /// Made with the first grammar.
    compiler: OnceLock<GrammarCompiler>,
    recent: Mutex<Recent>,
    turns: Turns,
}

/// The grammars last used, the very last in front.
#[derive(Default)]
struct Recent {
    grammars: VecDeque<(GrammarSpec, Grammar)>,
    bytes: usize,
}

/// Who compiles. Half of the processors may, so that other requests find one.
#[derive(Default)]
struct Turns {
    taken: Mutex<usize>,
    given_back: Condvar,
}

/// The right to compile, until it is dropped.
struct Turn<'a>(&'a Turns);

impl Forms {
    /// The compiled grammar. Takes milliseconds or more: not for threads that serve connections.
    ///
    /// # Errors
    /// As [`GrammarCompiler::compile`]; if others are compiled for a second.
    pub(crate) fn compile(
        &self,
        spec: &GrammarSpec,
        tokenizer: &Tokenizer,
        vocab_size: usize,
        cancel: &Cancel,
    ) -> Result<Grammar, ApiError> {
        if let Some(grammar) = lock(&self.recent).recall(spec) {
            return Ok(grammar);
        }
        let _turn = self.turns.take()?;
        // Another request may have asked for the same meanwhile.
        if let Some(grammar) = lock(&self.recent).recall(spec) {
            return Ok(grammar);
        }
        let compiler = match self.compiler.get() {
            Some(compiler) => compiler,
            None => {
                let made = GrammarCompiler::new(tokenizer, tokenizer.eos(), vocab_size)?;
                self.compiler.get_or_init(|| made)
            }
        };
        let grammar = compiler.compile_while_wanted(spec, cancel)?;
        lock(&self.recent).keep(spec.clone(), grammar.clone());
        Ok(grammar)
    }
}

impl Recent {
    fn recall(&mut self, spec: &GrammarSpec) -> Option<Grammar> {
        let place = self.grammars.iter().position(|(known, _)| known == spec)?;
        let found = self.grammars.remove(place)?;
        let grammar = found.1.clone();
        self.grammars.push_front(found);
        Some(grammar)
    }

    fn keep(&mut self, spec: GrammarSpec, grammar: Grammar) {
        self.bytes += grammar.bytes();
        self.grammars.push_front((spec, grammar));
        while self.bytes > KEPT_BYTES {
            let Some((_, oldest)) = self.grammars.pop_back() else { break };
            self.bytes -= oldest.bytes();
        }
    }
}

impl Turns {
    fn take(&self) -> Result<Turn<'_>, ApiError> {
        let most = (thread::available_parallelism().map_or(1, usize::from) / 2).max(1);
        let waiting =
            self.given_back.wait_timeout_while(lock(&self.taken), PATIENCE, |taken| *taken >= most);
        let (mut taken, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        if *taken >= most {
            let message =
                format!("{most} grammars are being compiled, as many as may be; retry in 1 s");
            return Err(ApiError::new(ErrorKind::Overloaded, message).retry_after(PATIENCE));
        }
        *taken += 1;
        Ok(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.taken) -= 1;
        self.0.given_back.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_no_turn_is_told_to_come_again() {
        let turns = Turns::default();
        let most = (thread::available_parallelism().map_or(1, usize::from) / 2).max(1);
        let taken: Vec<Turn<'_>> = (0..most).filter_map(|_| turns.take().ok()).collect();
        assert_eq!(taken.len(), most);
        assert!(turns.take().is_err());
        drop(taken);
        assert!(turns.take().is_ok());
    }
}
