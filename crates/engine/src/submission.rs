//! A request and what goes with it that is not data.

use std::fmt;

use crate::{EngineError, Limits, Request, TokenConstraint};

/// A [`Request`], and the constraint on its answer if there is one.
///
/// Every function that submits takes anything that becomes a submission, so a request alone will do:
///
/// ```
/// use bantam_engine::{ConstraintError, Request, Submission, TokenConstraint, TokenMask};
///
/// /// Tokens 0 to 31, for ever.
/// struct First32;
/// impl TokenConstraint for First32 {
///     fn allowed(&mut self) -> Result<TokenMask<'_>, ConstraintError> {
///         Ok(TokenMask::new(&[u32::MAX]))
///     }
///     fn accept(&mut self, _token: u32) -> Result<(), ConstraintError> {
///         Ok(())
///     }
/// }
///
/// let free = Submission::from(Request::new(vec![1, 2]));
/// assert!(free.constraint.is_none());
/// let constrained = Request::new(vec![1, 2]).constrained(Box::new(First32));
/// assert!(constrained.constraint.is_some());
/// ```
pub struct Submission {
    /// What is asked.
    pub request: Request,
    /// Limits the tokens of the answer; none allows all.
    pub constraint: Option<Box<dyn TokenConstraint>>,
}

impl Submission {
    /// Checks everything that can be known before the request runs.
    ///
    /// # Errors
    /// As [`Request::validate`], and if the request would let its constraint not end.
    pub fn validate(&self, limits: &Limits) -> Result<(), EngineError> {
        if self.constraint.is_some() && self.request.ignore_eos {
            return Err(EngineError::ConstrainedWithoutEnd);
        }
        self.request.validate(limits)
    }
}

impl From<Request> for Submission {
    fn from(request: Request) -> Self {
        Self { request, constraint: None }
    }
}

impl Request {
    /// This request with a constraint on its answer.
    #[must_use]
    pub fn constrained(self, constraint: Box<dyn TokenConstraint>) -> Submission {
        Submission { request: self, constraint: Some(constraint) }
    }
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let constraint = if self.constraint.is_some() { "constrained" } else { "free" };
        f.debug_tuple("Submission").field(&self.request).field(&constraint).finish()
    }
}
