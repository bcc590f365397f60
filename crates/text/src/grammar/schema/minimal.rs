//! The shortest values of a schema's rules: which rules have values at all, and how an answer that
//! has begun can be brought to an end.

use std::collections::{HashMap, VecDeque};

use llguidance::derivre::{Regex, StateID};

use super::shape::{ListShape, ObjectShape, Property, RuleId, Shape, Shapes};

/// States of a leaf's automaton that are looked at for a shortest text, and steps that making them
/// may take.
const MAX_STATES: usize = 1_000;
const MAX_COST: u64 = 50_000;
/// Bytes of a value that no answer is led to, because it is too long or was not found.
const LONG: usize = 1 << 12;

/// The shortest values, in bytes.
#[derive(Debug, Default)]
pub(in crate::grammar) struct Minimal {
    /// Of each rule; nothing for one that no value follows.
    rules: Vec<Option<usize>>,
    /// Of each leaf.
    leaves: Vec<Option<String>>,
}

impl Minimal {
    /// # Errors
    /// A leaf costs too much.
    pub(super) fn of(shapes: &Shapes) -> Result<Self, String> {
        let mut leaves = Vec::new();
        for leaf in &shapes.leaves {
            let mut automaton = leaf.automaton()?;
            let start = automaton.initial_state();
            let dead = automaton.always_empty();
            let text = (!dead).then(|| shortest_end(&mut automaton, start).unwrap_or_default());
            leaves.push(text);
        }
        let mut minimal = Self { rules: vec![None; shapes.rules.len()], leaves };
        // Rules come before those that they refer to, so mostly two rounds are enough.
        let mut changed = true;
        while changed {
            changed = false;
            for rule in (0..shapes.rules.len()).rev() {
                let lengths = shapes.rules[rule].iter().filter_map(|shape| minimal.length(shape));
                let shortest = lengths.min();
                if shortest.is_some_and(|new| minimal.rules[rule].is_none_or(|old| new < old)) {
                    minimal.rules[rule] = shortest;
                    changed = true;
                }
            }
        }
        Ok(minimal)
    }

    /// Whether a value follows each rule.
    pub(super) fn exist(&self) -> Vec<bool> {
        self.rules.iter().map(Option::is_some).collect()
    }

    /// The shortest value of a rule, unless it is too long.
    pub(in crate::grammar) fn text(&self, shapes: &Shapes, rule: RuleId) -> Option<String> {
        let ways = shapes.rules[rule].iter();
        let ways = ways.filter_map(|shape| Some((self.length(shape)?, shape)));
        self.shape_text(shapes, ways.min_by_key(|(length, _)| *length)?.1)
    }

    /// The shortest value of a shape, unless it is too long.
    pub(in crate::grammar) fn shape_text(&self, shapes: &Shapes, shape: &Shape) -> Option<String> {
        if self.length(shape)? >= LONG {
            return None;
        }
        let mut parts = Vec::new();
        let (open, close) = match shape {
            Shape::Leaf(leaf) => return self.leaves[*leaf].clone(),
            Shape::Set { values, min, .. } => {
                for &leaf in &values[..*min] {
                    parts.push(self.leaves[leaf].clone()?);
                }
                ('[', ']')
            }
            Shape::List(list) => {
                for at in 0..list.min {
                    parts.push(self.text(shapes, list.item(at)?)?);
                }
                ('[', ']')
            }
            Shape::Object(object) => {
                let (listed, more) = self.chosen(object)?;
                for property in listed {
                    parts.push(self.property_text(shapes, property)?);
                }
                for &(key, value) in more {
                    let value = self.text(shapes, value)?;
                    parts.push(format!("{}:{value}", self.leaves[key].as_ref()?));
                }
                ('{', '}')
            }
        };
        Some(format!("{open}{}{close}", parts.join(",")))
    }

    /// The shortest property.
    pub(in crate::grammar) fn property_text(
        &self,
        shapes: &Shapes,
        property: &Property,
    ) -> Option<String> {
        Some(format!("{}:{}", property.key, self.text(shapes, property.value)?))
    }

    fn length(&self, shape: &Shape) -> Option<usize> {
        // Lengths are counted up to what is too long.
        let sum = |parts: Vec<usize>| LONG.min(2 + parts.len() + parts.iter().sum::<usize>());
        match shape {
            Shape::Leaf(leaf) => self.leaf_length(*leaf),
            Shape::Set { values, min, max } => {
                let parts = values[..*min].iter().map(|leaf| self.leaf_length(*leaf));
                (min <= max).then(|| parts.collect()).flatten().map(sum)
            }
            Shape::List(list) => {
                if list.max.is_some_and(|max| list.min > max) {
                    return None;
                }
                let first = list.first.iter().take(list.min).map(|rule| self.rules[*rule]);
                let first: Vec<usize> = first.collect::<Option<_>>()?;
                match list.min - first.len() {
                    0 => Some(sum(first)),
                    others => {
                        let other = self.rules[list.rest?]?;
                        Some(LONG.min(sum(first) + others * (other + 1)))
                    }
                }
            }
            Shape::Object(object) => {
                let (listed, more) = self.chosen(object)?;
                let listed = listed
                    .iter()
                    .map(|property| Some(property.key.len() + 1 + self.rules[property.value]?));
                let more = more
                    .iter()
                    .map(|(key, value)| Some(self.leaf_length(*key)? + 1 + self.rules[*value]?));
                listed.chain(more).collect::<Option<Vec<_>>>().map(sum)
            }
        }
    }

    fn leaf_length(&self, leaf: usize) -> Option<usize> {
        // An empty text stands for one that was not found.
        self.leaves[leaf].as_ref().map(|text| if text.is_empty() { LONG } else { text.len() })
    }

    /// The properties of the shortest object: what is required, and others up to the least count.
    #[expect(clippy::type_complexity, reason = "two lists of what an object holds")]
    fn chosen<'s>(
        &self,
        object: &'s ObjectShape,
    ) -> Option<(Vec<&'s Property>, Vec<&'s (usize, RuleId)>)> {
        let ObjectShape { properties, more, min, max } = object;
        let exists = |property: &&Property| self.rules[property.value].is_some();
        let required = properties.iter().filter(|property| property.required);
        if !required.clone().all(|property| exists(&property)) {
            return None;
        }
        let mut spare = min.saturating_sub(required.count());
        let listed: Vec<_> = properties
            .iter()
            .filter(|property| {
                let chosen = property.required || (spare > 0 && exists(property));
                spare -= usize::from(chosen && !property.required);
                chosen
            })
            .collect();
        let other = more
            .iter()
            .find(|(key, value)| self.leaves[*key].is_some() && self.rules[*value].is_some());
        let others = vec![other; spare].into_iter().collect::<Option<Vec<_>>>()?;
        max.is_none_or(|max| listed.len() + others.len() <= max).then_some((listed, others))
    }
}

impl ListShape {
    /// The rule of the item at a place.
    pub(in crate::grammar) fn item(&self, at: usize) -> Option<RuleId> {
        self.first.get(at).copied().or(self.rest)
    }
}

/// The shortest text that leads from a state of an automaton to where it accepts, if it is found
/// within [`MAX_STATES`].
pub(in crate::grammar) fn shortest_end(automaton: &mut Regex, from: StateID) -> Option<String> {
    let before = automaton.cost();
    let mut came: HashMap<StateID, (StateID, u8)> = HashMap::new();
    let mut waiting = VecDeque::from([from]);
    let mut ascii = (b' '..=b'~').collect::<Vec<u8>>();
    // Closing quotes first, then what is readable.
    ascii.sort_by_key(|byte| (*byte != b'"', !byte.is_ascii_alphanumeric(), *byte));
    while let Some(state) = waiting.pop_front() {
        if automaton.is_accepting(state) {
            let mut bytes = Vec::new();
            let mut at = state;
            while at != from {
                let (before, byte) = came[&at];
                bytes.push(byte);
                at = before;
            }
            bytes.reverse();
            return String::from_utf8(bytes).ok();
        }
        if came.len() > MAX_STATES || automaton.cost() - before > MAX_COST {
            return None;
        }
        for &byte in &ascii {
            let next = automaton.transition(state, byte);
            if !next.is_dead() && next != from && !came.contains_key(&next) {
                came.insert(next, (state, byte));
                waiting.push_back(next);
            }
        }
    }
    None
}
