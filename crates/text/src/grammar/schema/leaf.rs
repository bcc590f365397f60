//! Parts of an answer without inner structure: what several regular expressions say about it.

use llguidance::derivre::{Regex, RegexAst, RegexBuilder};
use llguidance::regex_to_lark;

/// Steps that the first look at an expression may take: some milliseconds.
const FUEL: u64 = 30_000;

/// Text that all of some expressions match from beginning to end, and none of others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::grammar) struct Leaf {
    all: Vec<String>,
    none: Vec<String>,
    multiple: Option<Multiple>,
}

/// Numbers that are multiples of `units` / 10^`places`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Multiple {
    pub(super) units: u32,
    pub(super) places: u32,
    /// The schema of all of the leaf: no regular expression of a reasonable length says it.
    pub(super) schema: String,
}

impl Leaf {
    pub(in crate::grammar) fn new(pattern: impl Into<String>) -> Self {
        Self { all: vec![pattern.into()], ..Self::default() }
    }

    pub(super) fn and(mut self, pattern: impl Into<String>) -> Self {
        self.all.push(pattern.into());
        self
    }

    pub(super) fn and_not(mut self, pattern: impl Into<String>) -> Self {
        self.none.push(pattern.into());
        self
    }

    pub(super) fn and_multiple(mut self, multiple: Multiple) -> Self {
        self.multiple = Some(multiple);
        self
    }

    /// It as a definition in the Lark dialect, of a terminal where that is possible.
    pub(super) fn to_lark(&self) -> LeafSource {
        if let Some(multiple) = &self.multiple {
            return LeafSource::Rule(format!("%json {}", multiple.schema));
        }
        let wanted = self.all.iter().map(|pattern| between_slashes(pattern));
        let unwanted = self.none.iter().map(|pattern| format!("~{}", between_slashes(pattern)));
        LeafSource::Terminal(wanted.chain(unwanted).collect::<Vec<_>>().join(" & "))
    }

    /// The automaton of it; its states appear as they are asked for.
    pub(in crate::grammar) fn automaton(&self) -> Result<Regex, String> {
        let expression = |pattern: &String| RegexAst::Regex(pattern.clone());
        let mut parts: Vec<RegexAst> = self.all.iter().map(expression).collect();
        parts.extend(self.none.iter().map(|pattern| RegexAst::Not(Box::new(expression(pattern)))));
        parts.extend(self.multiple.iter().map(|multiple| {
            let sign = RegexAst::Regex("-?".to_owned());
            RegexAst::Concat(vec![sign, RegexAst::MultipleOf(multiple.units, multiple.places)])
        }));
        let mut builder = RegexBuilder::new();
        let tree = RegexAst::And(parts);
        builder.mk(&tree).and_then(|root| builder.into_regex_limited(root, FUEL)).map_err(|_| {
            "its patterns, lengths and formats together cost too much; use fewer".to_owned()
        })
    }

    /// Whether it matches a text.
    pub(super) fn matches(&self, text: &str) -> Result<bool, String> {
        Ok(self.automaton()?.is_match(text))
    }
}

/// What stands after the name in the definition of a leaf.
pub(super) enum LeafSource {
    Terminal(String),
    Rule(String),
}

/// A regular expression between slashes.
fn between_slashes(pattern: &str) -> String {
    format!("/{}/", regex_to_lark(pattern, ""))
}

/// A regular expression that matches a text and nothing else.
pub(in crate::grammar) fn escaped(text: &str) -> String {
    let mut pattern = String::new();
    for letter in text.chars() {
        if letter.is_ascii_punctuation() {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}
