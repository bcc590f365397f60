//! What limits the tokens of an answer to a given form: a JSON schema, a regular expression, a
//! grammar.

use bantam_text::{GrammarMatcher, TextError};

/// A set of tokens: bit `t % 32` of word `t / 32` says whether token `t` is in it.
///
/// Tokens past the last word are not in it.
///
/// ```
/// use bantam_engine::TokenMask;
/// let mask = TokenMask::new(&[0b1001, 1]);
/// assert!(mask.contains(3) && !mask.contains(4) && !mask.contains(1000));
/// assert_eq!(mask.tokens().collect::<Vec<_>>(), [0, 3, 32]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenMask<'a>(&'a [u32]);

impl<'a> TokenMask<'a> {
    /// The set with these words.
    #[must_use]
    pub const fn new(words: &'a [u32]) -> Self {
        Self(words)
    }

    /// Whether a token is in the set.
    #[must_use]
    pub fn contains(self, token: u32) -> bool {
        self.0.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    /// The tokens of the set, ascending.
    pub fn tokens(self) -> impl Iterator<Item = u32> + 'a {
        self.0.iter().zip(0u32..).flat_map(|(&word, n)| {
            (0..32).filter(move |bit| word >> bit & 1 == 1).map(move |bit| 32 * n + bit)
        })
    }
}

/// Limits what a sequence may choose, and follows what it chose.
///
/// The engine asks for [`allowed`](Self::allowed) once for each token it is about to choose, and
/// tells [`accept`](Self::accept) what it chose, once for each token and in order, also when the
/// sequence is preempted and computed again. Tokens that end the answer (stop and end-of-sequence
/// tokens) are chosen only when the mask holds them, and are not told. Both functions run on the
/// engine's thread between steps: what takes long, such as compiling a grammar, belongs before
/// submission.
///
/// A [`GrammarMatcher`] is one: its end tokens must be among the request's
/// [`eos_tokens`](crate::Request::eos_tokens), or the answer goes on after its form is complete.
///
/// An error, a panic, or a mask without tokens fails the request, and that one only.
pub trait TokenConstraint: Send {
    /// Hears once, before all else, how many tokens the answer may take: one that would be cut may
    /// come to its end in time instead.
    fn begin(&mut self, _max_tokens: usize) {}

    /// The tokens that may come next.
    ///
    /// # Errors
    /// If that cannot be computed.
    fn allowed(&mut self) -> Result<TokenMask<'_>, ConstraintError>;

    /// Goes on to the state after `token`, one of those allowed.
    ///
    /// # Errors
    /// If the token does not fit.
    fn accept(&mut self, token: u32) -> Result<(), ConstraintError>;
}

/// Why a constraint cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct ConstraintError {
    /// What happened.
    pub reason: String,
}

impl TokenConstraint for GrammarMatcher {
    fn begin(&mut self, max_tokens: usize) {
        self.limit(max_tokens);
    }

    fn allowed(&mut self) -> Result<TokenMask<'_>, ConstraintError> {
        Ok(TokenMask::new(Self::allowed(self)?))
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        Ok(Self::accept(self, token)?)
    }
}

impl From<TextError> for ConstraintError {
    fn from(error: TextError) -> Self {
        Self { reason: error.to_string() }
    }
}
