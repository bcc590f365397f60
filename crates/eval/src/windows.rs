//! How a text longer than a context is cut, and which of its tokens count.
//!
//! Perplexities compare only under one convention, so the convention is data and is printed with
//! every number. The text is tokenized once, with a begin-of-sequence token in front if the
//! tokenizer adds one. Windows of `window` tokens start every `stride` tokens, and each token counts
//! once, in the first window that reaches it; the first token of a text can never count.
//!
//! * `stride = window` (the default; GPTQ, AWQ and most papers with 2048): windows do not overlap,
//!   and the first token of each has no context in it and is not scored.
//! * `stride < window` (the documentation of `transformers`): every window but the first scores only
//!   its last `stride` tokens, which see at least `window - stride` before them.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use crate::EvalError;

/// The window of the published weight-only results.
pub const DEFAULT_WINDOW: usize = 2048;

/// Everything that a perplexity depends on besides model and text.
///
/// ```
/// use bantam_eval::Convention;
/// let convention = Convention::new(4, Some(2), false)?;
/// let windows = convention.windows(7);
/// let scored: Vec<_> = windows.iter().map(|w| w.scored()).collect();
/// assert_eq!(scored, [1..4, 4..6, 6..7]);
/// assert_eq!(windows[1].tokens, 2..6);
/// assert_eq!(
///     convention.to_string(),
///     "windows of 4 tokens every 2, each token scored once, no begin-of-sequence token"
/// );
/// # Ok::<(), bantam_eval::EvalError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Convention {
    /// Tokens of a window.
    pub window: usize,
    /// Tokens between the beginnings of two windows.
    pub stride: usize,
    /// Whether the text begins with a begin-of-sequence token.
    pub bos: bool,
}

/// A part of the text that a model sees at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The tokens it sees, as a range of the text.
    pub tokens: Range<usize>,
    /// The first token that it scores; all after it are scored too.
    pub first_scored: usize,
}

impl Window {
    /// The tokens it scores, as a range of the text.
    #[must_use]
    pub fn scored(&self) -> Range<usize> {
        self.first_scored..self.tokens.end
    }
}

impl Convention {
    /// Windows of `window` tokens every `stride`; without a stride they do not overlap.
    ///
    /// # Errors
    /// If a window is shorter than 2 tokens, or the stride is 0 or leaves gaps.
    pub fn new(window: usize, stride: Option<usize>, bos: bool) -> Result<Self, EvalError> {
        let stride = stride.unwrap_or(window);
        if window < 2 {
            return Err(EvalError::Window { window });
        }
        if stride == 0 || stride > window {
            return Err(EvalError::Stride { stride, window });
        }
        Ok(Self { window, stride, bos })
    }

    /// The windows over a text of `num_tokens` tokens, those that score something.
    #[must_use]
    pub fn windows(&self, num_tokens: usize) -> Vec<Window> {
        let mut windows = Vec::new();
        let (mut begin, mut scored_until) = (0, 0);
        while scored_until < num_tokens {
            let end = num_tokens.min(begin + self.window);
            let first_scored = scored_until.max(begin + 1);
            if first_scored < end {
                windows.push(Window { tokens: begin..end, first_scored });
            }
            begin += self.stride;
            scored_until = end;
        }
        windows
    }
}

impl fmt::Display for Convention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { window, stride, bos } = self;
        write!(f, "windows of {window} tokens ")?;
        if stride == window {
            f.write_str("without overlap, the first token of each not scored, ")?;
        } else {
            write!(f, "every {stride}, each token scored once, ")?;
        }
        f.write_str(if *bos {
            "one begin-of-sequence token before the text"
        } else {
            "no begin-of-sequence token"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gaps_and_empty_windows_are_refused() {
        assert!(Convention::new(1, None, false).is_err());
        assert!(Convention::new(8, Some(0), false).is_err());
        let gap = Convention::new(8, Some(9), false).unwrap_err();
        assert!(gap.to_string().contains("1 to 8"), "{gap}");
    }

    proptest! {
        #[test]
        fn every_token_is_scored_at_most_once(
            window in 2usize..20,
            stride in 1usize..20,
            n in 0usize..100,
        ) {
            let stride = stride.min(window);
            let windows = Convention::new(window, Some(stride), false).unwrap().windows(n);
            let mut times = vec![0; n];
            for window in &windows {
                prop_assert!(window.tokens.len() >= 2 && window.first_scored > window.tokens.start);
                window.scored().for_each(|token| times[token] += 1);
            }
            for (token, &times) in times.iter().enumerate() {
                // Without overlap the first token of a window has no context.
                let unseen = token == 0 || (stride == window && token % window == 0);
                prop_assert_eq!(times, usize::from(!unseen), "token {}", token);
            }
        }
    }
}
