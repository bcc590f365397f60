//! What must hold, and what was found.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

/// What must hold of a server, whatever its clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// Every request that is not cancelled ends in a complete answer.
    Answered,
    /// No status from 500 on.
    NoServerError,
    /// The tokens that came are those that the server counted, and spell the text.
    Tokens,
    /// A request that is sent again has the same answer: streamed or not, alone or under load.
    Repeats,
    /// Constrained answers are of their schema.
    Forms,
    /// A malformed request gets a status from 400 to 499 and one line that says why.
    Refusals,
    /// Who is turned away is told when to come again.
    RetryAfter,
    /// `/health` says ready.
    Health,
    /// Requests accepted are requests finished, cancelled and failed; none failed.
    Accounts,
    /// All blocks of the cache are given back.
    Blocks,
    /// Memory does not grow once the server is warm.
    Memory,
}

impl Check {
    /// All, in the order of a report.
    pub const ALL: [Self; 11] = [
        Self::Answered,
        Self::NoServerError,
        Self::Tokens,
        Self::Repeats,
        Self::Forms,
        Self::Refusals,
        Self::RetryAfter,
        Self::Health,
        Self::Accounts,
        Self::Blocks,
        Self::Memory,
    ];

    /// What must hold, in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "every request that is not cancelled is answered",
            Self::NoServerError => "no status from 500 on",
            Self::Tokens => "no token is lost or comes twice",
            Self::Repeats => "repeated requests have equal answers",
            Self::Forms => "constrained answers are of their schema",
            Self::Refusals => "malformed requests get a 4xx and one line",
            Self::RetryAfter => "who is turned away is told when to come again",
            Self::Health => "/health says ready",
            Self::Accounts => "accepted = finished + cancelled, none failed",
            Self::Blocks => "all blocks of the cache are given back",
            Self::Memory => "memory does not grow once warm",
        }
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What was found for one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// What must hold.
    pub check: Check,
    /// Times that it was looked at.
    pub examined: usize,
    /// Times that it did not hold.
    pub wrong: usize,
    /// The first of these, in words.
    pub examples: Vec<String>,
}

/// Problems that are kept in words, for each check.
const MAX_EXAMPLES: usize = 5;
/// Characters of such a problem.
const MAX_WORDS: usize = 500;

/// What has been found so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings(BTreeMap<Check, Verdict>);

impl Findings {
    /// Looks once: `problem` is what is wrong.
    pub(super) fn look(&mut self, check: Check, problem: Option<String>) {
        let none = Verdict { check, examined: 0, wrong: 0, examples: Vec::new() };
        let verdict = self.0.entry(check).or_insert(none);
        verdict.examined += 1;
        let Some(mut problem) = problem else { return };
        verdict.wrong += 1;
        if verdict.examples.len() < MAX_EXAMPLES {
            if let Some((end, _)) = problem.char_indices().nth(MAX_WORDS) {
                problem.truncate(end);
                problem.push('…');
            }
            verdict.examples.push(problem);
        }
    }

    /// Problems so far.
    pub(super) fn wrong(&self) -> usize {
        self.0.values().map(|verdict| verdict.wrong).sum()
    }

    /// Every check, those included that there was no occasion for.
    pub(super) fn verdicts(mut self) -> Vec<Verdict> {
        let none = |check| Verdict { check, examined: 0, wrong: 0, examples: Vec::new() };
        Check::ALL.map(|check| self.0.remove(&check).unwrap_or_else(|| none(check))).into()
    }
}
