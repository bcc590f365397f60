//! Compiles grammars for one vocabulary.

use std::fmt;
use std::sync::Arc;
use std::thread;

use llguidance::api::{GrammarInit, ParserLimits};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::InferenceCapabilities;
use llguidance::{Logger, Matcher, ParserFactory};

use super::gbnf::is_gbnf;
use super::guide::Plan;
use super::message::plain;
use super::spec::Lowered;
use super::vocabulary::environment;
use super::{Grammar, GrammarSpec};
use crate::{Cancel, TextError, Tokenizer};

/// Stack of the thread that compiles: parsers of nested sources recurse. Only what is touched takes
/// memory.
const STACK_BYTES: usize = 64 << 20;

/// Items of a step and of a position of the text, for grammars that may be ambiguous: their work
/// grows with the square of it.
const AMBIGUOUS_ITEMS: (usize, usize) = (5_000, 1_500);

/// The same for grammars that may be walked letter by letter: many positions with few items each.
const LETTER_ITEMS: (usize, usize) = (200_000, 400);

/// Bytes of a compiled grammar, and for each byte of its source: an estimate.
const LEAST_BYTES: usize = 128 << 10;
const BYTES_PER_BYTE: usize = 64;

/// What a grammar may cost. Fuel is counted in steps, not in time, so the same grammar always
/// passes or always fails.
fn limits() -> ParserLimits {
    ParserLimits {
        // Nodes of the lexer's expressions when it is built; a large schema takes half of it.
        initial_lexer_fuel: 500_000,
        // For one step: some 20 ms.
        step_lexer_fuel: 200_000,
        step_max_items: 20_000,
        max_items_in_row: 5_000,
        // One to two kilobytes each.
        max_lexer_states: 25_000,
        max_grammar_size: 500_000,
        precompute_large_lexemes: false,
        verbose_errors: false,
    }
}

/// Compiles grammars for one model. Built once; clones are cheap and share the vocabulary.
///
/// ```no_run
/// use bantam_text::{GrammarCompiler, GrammarSpec, Tokenizer, TokenizerSource};
///
/// # fn main() -> Result<(), bantam_text::TextError> {
/// let tokenizer = Tokenizer::load(&TokenizerSource::Folder("model".into()))?;
/// let ends = tokenizer.eos().to_vec();
/// let compiler = GrammarCompiler::new(&tokenizer, &ends, tokenizer.vocab_size())?;
/// let yes_or_no = GrammarSpec::Choice(vec!["yes".into(), "no".into()]);
/// let mut matcher = compiler.compile(&yes_or_no)?.matcher();
/// let yes = tokenizer.token_id("yes").expect("a word of the vocabulary");
/// assert_ne!(matcher.allowed()?[yes as usize / 32] & 1 << (yes % 32), 0);
/// matcher.accept(yes)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct GrammarCompiler {
    factory: Arc<ParserFactory>,
}

impl fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vocab_size = self.factory.tok_env().tok_trie().vocab_size();
        f.debug_struct("GrammarCompiler").field("vocab_size", &vocab_size).finish_non_exhaustive()
    }
}

impl GrammarCompiler {
    /// Prepares the vocabulary. `end_tokens` are those after which the model's answer is over: all
    /// of them are allowed exactly where the text may end. `vocab_size` is V of the model's logits;
    /// ids that the tokenizer does not know are never allowed.
    ///
    /// Text is what [`StreamDecoder`](crate::StreamDecoder) shows. Special tokens are never allowed
    /// as text: only a Lark grammar that names one (`<|name|>` or `<[id]>`) allows it. Where a
    /// decoder takes a space off the beginning of an answer (SentencePiece), a grammar sees the
    /// text before that.
    ///
    /// # Errors
    /// No end token, or one outside the vocabulary; a vocabulary that is empty or larger than four
    /// million.
    pub fn new(
        tokenizer: &Tokenizer,
        end_tokens: &[u32],
        vocab_size: usize,
    ) -> Result<Self, TextError> {
        let environment = environment(tokenizer, end_tokens, vocab_size)?;
        let slices = SlicedBiasComputer::json_slices();
        let mut factory =
            ParserFactory::new(&environment, InferenceCapabilities::default(), &slices).map_err(
                |error| TextError::InvalidGrammarVocabulary { problem: plain(&error.to_string()) },
            )?;
        factory.quiet();
        *factory.limits_mut() = limits();
        Ok(Self { factory: Arc::new(factory) })
    }

    /// Compiles a grammar: pure computation, milliseconds as a rule, so keep it off the engine's
    /// thread. Time and memory are bounded whatever the grammar says.
    ///
    /// # Errors
    /// A grammar that is malformed, asks for something that cannot be enforced (the message names
    /// it), costs too much, or that no text satisfies.
    pub fn compile(&self, spec: &GrammarSpec) -> Result<Grammar, TextError> {
        self.compile_while_wanted(spec, &Cancel::never())
    }

    /// As [`compile`](Self::compile), and ends between two phases once nobody waits for the result.
    ///
    /// # Errors
    /// As `compile`, and [`TextError::Cancelled`].
    pub fn compile_while_wanted(
        &self,
        spec: &GrammarSpec,
        cancel: &Cancel,
    ) -> Result<Grammar, TextError> {
        let invalid = |problem| TextError::InvalidGrammar { kind: spec.kind(), problem };
        let build = || {
            cancel.check()?;
            let Lowered { grammar, schema } = spec.lower()?;
            cancel.check()?;
            let source: usize = grammar
                .grammars
                .iter()
                .filter_map(|part| part.lark_grammar.as_ref())
                .map(String::len)
                .sum();
            let mut limits = limits();
            if let GrammarSpec::Lark(source) = spec {
                let items = if is_gbnf(source) { LETTER_ITEMS } else { AMBIGUOUS_ITEMS };
                (limits.step_max_items, limits.max_items_in_row) = items;
            }
            let parser = self.factory.create_parser_from_init_ext(
                GrammarInit::Serialized(grammar),
                Logger::new(0, 0),
                InferenceCapabilities::default(),
                limits,
            );
            let mut matcher = Matcher::new(parser);
            cancel.check()?;
            // The first step fails for what no text satisfies, and it fills the lexer's caches.
            let first = matcher.compute_mask_or_eos();
            first.map_err(|error| invalid(plain(&error.to_string())))?;
            let trie = self.factory.tok_env().tok_trie();
            let plan = schema.map(|schema| Arc::new(Plan::new(schema, trie)));
            Ok(Grammar::new(
                matcher,
                self.factory.tok_env().clone(),
                plan,
                LEAST_BYTES + BYTES_PER_BYTE * source,
            ))
        };
        let built = thread::scope(|scope| {
            let thread = thread::Builder::new().name("grammar".into()).stack_size(STACK_BYTES);
            thread.spawn_scoped(scope, build).map(|thread| thread.join())
        });
        match built {
            Ok(Ok(built)) => built,
            Ok(Err(_)) => Err(invalid("the compiler gave up on it; simplify it".to_owned())),
            Err(error) => Err(invalid(format!("no thread to compile it: {error}; retry"))),
        }
    }
}
