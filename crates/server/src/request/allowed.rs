//! Answers of some tokens only.

use bantam_engine::{ConstraintError, TokenConstraint, TokenMask};

use crate::ServedModel;
use crate::error::ApiError;

/// Only these tokens are chosen, whatever came before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AllowedTokens {
    /// A bit for each token of the vocabulary.
    words: Vec<u32>,
}

/// What two constraints allow.
pub(crate) struct Both {
    allowed: AllowedTokens,
    other: Box<dyn TokenConstraint>,
    words: Vec<u32>,
}

impl AllowedTokens {
    /// These tokens of a model's vocabulary.
    pub(crate) fn new(ids: &[u32], model: &ServedModel) -> Result<Self, ApiError> {
        let refuse = |problem: String| {
            let message = format!("allowed_token_ids {problem}");
            Err(ApiError::bad_request(message).param("allowed_token_ids"))
        };
        let vocab_size = model.engine().limits().vocab_size;
        let mut words = vec![0; vocab_size.div_ceil(32)];
        for &id in ids {
            if id as usize >= vocab_size {
                return refuse(format!(
                    "has token {id}, outside the model's vocabulary of {vocab_size}"
                ));
            }
            words[id as usize / 32] |= 1 << (id % 32);
        }
        if ids.is_empty() {
            return refuse("is empty, expected one token or more".to_owned());
        }
        Ok(Self { words })
    }

    /// Those of the tokens that another constraint allows.
    pub(crate) fn within(self, other: Box<dyn TokenConstraint>) -> Both {
        Both { words: vec![0; self.words.len()], allowed: self, other }
    }
}

impl TokenConstraint for AllowedTokens {
    fn allowed(&mut self) -> Result<TokenMask<'_>, ConstraintError> {
        Ok(TokenMask::new(&self.words))
    }

    fn accept(&mut self, _: u32) -> Result<(), ConstraintError> {
        Ok(())
    }
}

impl TokenConstraint for Both {
    fn begin(&mut self, max_tokens: usize) {
        self.other.begin(max_tokens);
    }

    fn allowed(&mut self) -> Result<TokenMask<'_>, ConstraintError> {
        let Self { allowed, other, words } = self;
        words.fill(0);
        let others = other.allowed()?;
        let own = TokenMask::new(&allowed.words);
        for token in others.tokens().filter(|&token| own.contains(token)) {
            words[token as usize / 32] |= 1 << (token % 32);
        }
        Ok(TokenMask::new(words))
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        self.other.accept(token)
    }
}
