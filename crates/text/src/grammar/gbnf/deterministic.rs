//! Whether the next letter always says how to go on: then the longest word is the right one.

use std::collections::HashSet;

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

use super::super::schema::Leaf;
use super::parse::{Expr, Rules, is_regular};

/// States of a word's automaton that are looked at.
const MAX_STATES: usize = 1000;

/// What letters parts of a grammar begin with.
pub(super) struct Letters<'g> {
    rules: &'g Rules,
    nullable: Vec<bool>,
    first: Vec<ClassUnicode>,
}

impl<'g> Letters<'g> {
    pub(super) fn new(rules: &'g Rules) -> Self {
        let count = rules.bodies.len();
        let nullable = vec![false; count];
        let mut letters = Self { rules, nullable, first: vec![ClassUnicode::empty(); count] };
        loop {
            let nullable = rules.bodies.iter().map(|body| letters.nullable(body)).collect();
            let first = rules.bodies.iter().map(|body| letters.first(body)).collect();
            if nullable == letters.nullable && first == letters.first {
                return letters;
            }
            (letters.nullable, letters.first) = (nullable, first);
        }
    }

    pub(super) fn nullable(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Text(text) => text.is_empty(),
            Expr::Class(_) | Expr::Token(_) => false,
            Expr::Ref(rule) => self.nullable[*rule],
            Expr::Sequence(parts) => parts.iter().all(|part| self.nullable(part)),
            Expr::Choice(parts) => parts.iter().any(|part| self.nullable(part)),
            Expr::Repeat(body, min, max) => *min == 0 || *max == Some(0) || self.nullable(body),
        }
    }

    fn first(&self, expr: &Expr) -> ClassUnicode {
        match expr {
            Expr::Text(text) => class(text.chars().take(1).map(|letter| (letter, letter))),
            Expr::Class(ranges) => class(ranges.iter().copied()),
            // No letter begins a special token.
            Expr::Token(_) => ClassUnicode::empty(),
            Expr::Ref(rule) => self.first[*rule].clone(),
            Expr::Repeat(body, ..) => self.first(body),
            Expr::Choice(parts) => {
                parts.iter().fold(ClassUnicode::empty(), |all, part| both(&all, &self.first(part)))
            }
            Expr::Sequence(parts) => {
                let mut all = ClassUnicode::empty();
                for part in parts {
                    all = both(&all, &self.first(part));
                    if !self.nullable(part) {
                        break;
                    }
                }
                all
            }
        }
    }
}

/// The bytes by which a complete text of a regular expression may go on, if that is found soon.
fn extensions(pattern: &str) -> Option<[bool; 256]> {
    let mut automaton = Leaf::new(pattern).automaton().ok()?;
    let mut found = [false; 256];
    let start = automaton.initial_state();
    let (mut known, mut waiting) = (HashSet::from([start]), vec![start]);
    while let Some(state) = waiting.pop() {
        let complete = automaton.is_accepting(state);
        for byte in 0..=u8::MAX {
            let next = automaton.transition(state, byte);
            if next.is_dead() {
                continue;
            }
            found[usize::from(byte)] |= complete;
            if known.insert(next) {
                waiting.push(next);
            }
        }
        if known.len() > MAX_STATES {
            return None;
        }
    }
    Some(found)
}

/// Whether one of these bytes begins a letter of a class.
fn begins(bytes: &[bool; 256], class: &ClassUnicode) -> bool {
    let lead = |letter: char| letter.encode_utf8(&mut [0; 4]).as_bytes()[0];
    class
        .iter()
        .any(|range| (lead(range.start())..=lead(range.end())).any(|byte| bytes[usize::from(byte)]))
}

/// Whether a grammar may be cut into the longest words.
pub(super) fn is_deterministic(rules: &Rules, recursive: &[bool]) -> bool {
    // One word needs no cutting.
    if !recursive[rules.root] {
        return true;
    }
    let regular: Vec<bool> = recursive.iter().map(|recursive| !recursive).collect();
    let mut check = Check {
        letters: Letters::new(rules),
        regular,
        follow: vec![ClassUnicode::empty(); rules.bodies.len()],
        conflict: false,
    };
    loop {
        let before = check.follow.clone();
        check.conflict = false;
        for (at, body) in rules.bodies.iter().enumerate().filter(|(at, _)| recursive[*at]) {
            let after = check.follow[at].clone();
            check.visit(body, &after);
        }
        if check.follow == before {
            return !check.conflict;
        }
    }
}

struct Check<'g> {
    letters: Letters<'g>,
    regular: Vec<bool>,
    /// What may stand after each rule.
    follow: Vec<ClassUnicode>,
    conflict: bool,
}

impl Check<'_> {
    fn visit(&mut self, expr: &Expr, after: &ClassUnicode) {
        let first = self.letters.first(expr);
        self.conflict |= self.letters.nullable(expr) && meets(&first, after);
        match expr {
            Expr::Text(_) | Expr::Class(_) | Expr::Token(_) => {}
            Expr::Ref(rule) if self.regular[*rule] => {
                let on = extensions(&self.letters.rules.pattern(*rule));
                self.conflict |= on.is_none_or(|on| begins(&on, after));
            }
            Expr::Ref(rule) => self.follow[*rule] = both(&self.follow[*rule], after),
            Expr::Choice(parts) => {
                for (at, part) in parts.iter().enumerate() {
                    let first = self.letters.first(part);
                    let others = &parts[..at];
                    self.conflict |= others.iter().any(|other| {
                        meets(&first, &self.letters.first(other))
                            || (self.letters.nullable(part) && self.letters.nullable(other))
                    });
                    // Two options that begin with a token are told apart by no letter.
                    let token = |part: &Expr| !is_regular(part, &self.regular);
                    self.conflict |= first.ranges().is_empty() && token(part) && parts.len() > 1;
                    self.visit(part, after);
                }
            }
            Expr::Repeat(body, _, max) => {
                let again = self.letters.first(body);
                self.conflict |= self.letters.nullable(body) || meets(&again, after);
                let after = if *max == Some(1) { after.clone() } else { both(after, &again) };
                self.visit(body, &after);
            }
            Expr::Sequence(parts) => {
                let mut after = after.clone();
                for part in parts.iter().rev() {
                    self.visit(part, &after);
                    let first = self.letters.first(part);
                    after = if self.letters.nullable(part) { both(&after, &first) } else { first };
                }
            }
        }
    }
}

fn class(ranges: impl IntoIterator<Item = (char, char)>) -> ClassUnicode {
    ClassUnicode::new(ranges.into_iter().map(|(from, to)| ClassUnicodeRange::new(from, to)))
}

fn both(one: &ClassUnicode, other: &ClassUnicode) -> ClassUnicode {
    let mut all = one.clone();
    all.union(other);
    all
}

fn meets(one: &ClassUnicode, other: &ClassUnicode) -> bool {
    let mut common = one.clone();
    common.intersect(other);
    !common.ranges().is_empty()
}
