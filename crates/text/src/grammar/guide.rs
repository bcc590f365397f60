//! Leads an answer in JSON to its end when the room for it runs out.
//!
//! A schema may be truly open: free strings, lists without `maxItems`, recursion. The guide knows
//! the rules of the schema and the text so far, hence the shortest text that completes the answer.
//! While more tokens remain than that takes, with what one more token may add to it, the model is
//! free; then only the completion is allowed.

use std::collections::HashMap;
use std::sync::Arc;

use llguidance::derivre::Regex;
use llguidance::toktrie::TokTrie;

use super::schema::{
    ListShape, Minimal, ObjectShape, RuleId, SchemaGrammar, Shape, Shapes, shortest_end,
};

/// Objects and lists within each other, beyond which an answer is brought to its end: readers of
/// JSON take no more.
const MAX_OPEN: usize = 64;
/// Tokens that are kept besides: one may end a value and begin the next, and the last is the end.
const SPARE: usize = 4;

/// What is known of a schema once it is compiled.
#[derive(Debug)]
pub(super) struct Plan {
    shapes: Shapes,
    minimal: Minimal,
    /// The most tokens by which one token of an answer may lengthen its shortest completion.
    jump: usize,
}

impl Plan {
    pub(super) fn new(grammar: SchemaGrammar, trie: &TokTrie) -> Self {
        let SchemaGrammar { shapes, minimal, .. } = grammar;
        let tokens = |text: Option<String>| text.map_or(0, |text| count(trie, text.as_bytes()));
        let mut jump = 0;
        for ways in &shapes.rules {
            // A value may turn out longer than the shortest of its kind.
            let lengths = ways.iter().map(|shape| tokens(minimal.shape_text(&shapes, shape)));
            let lengths: Vec<usize> = lengths.filter(|&length| length > 0).collect();
            let least = lengths.iter().min().copied().unwrap_or(0);
            jump = jump.max(lengths.iter().max().copied().unwrap_or(0) - least);
            for shape in ways {
                jump = jump.max(match shape {
                    Shape::Object(object) => {
                        let listed = object.properties.iter().filter(|property| !property.required);
                        let listed =
                            listed.map(|property| tokens(minimal.property_text(&shapes, property)));
                        let more = object
                            .more
                            .iter()
                            .map(|(_, value)| SPARE + tokens(minimal.text(&shapes, *value)));
                        listed.chain(more).max().unwrap_or(0)
                    }
                    Shape::List(list) => {
                        let items = list.first.iter().skip(list.min).chain(&list.rest);
                        items.map(|rule| tokens(minimal.text(&shapes, *rule))).max().unwrap_or(0)
                    }
                    Shape::Leaf(_) | Shape::Set { .. } => SPARE,
                });
            }
        }
        Self { shapes, minimal, jump: jump + SPARE }
    }
}

/// The guide of one answer.
#[derive(Clone)]
pub(super) struct Guide {
    plan: Arc<Plan>,
    /// The answer so far.
    text: Vec<u8>,
    /// Tokens that it may still take.
    room: usize,
    /// The room at which to look again.
    look_at: usize,
    automata: HashMap<usize, Regex>,
    nesting: Nesting,
}

impl Guide {
    pub(super) fn new(plan: Arc<Plan>, room: usize) -> Self {
        let nesting = Nesting::default();
        Self { plan, text: Vec::new(), room, look_at: room, automata: HashMap::new(), nesting }
    }

    /// Takes what a token added to the answer.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.text.extend(bytes);
        self.nesting.push(bytes);
        self.room = self.room.saturating_sub(1);
    }

    /// The text that has to follow now, if the answer is to end in time.
    pub(super) fn completion(&mut self, trie: &TokTrie) -> Option<Vec<u8>> {
        let too_deep = self.nesting.depth >= MAX_OPEN;
        if self.room > self.look_at && !too_deep {
            return None;
        }
        let completion = self.shortest_completion()?;
        let needed = count(trie, &completion) + SPARE;
        let jump = self.plan.jump;
        let spare = self.room.saturating_sub(needed);
        // No token adds more than the jump, so nothing can happen before.
        self.look_at = self.room.saturating_sub(spare.saturating_sub(jump) / (jump + 1) + 1);
        // An answer that has no room to end is left to be cut.
        (too_deep || (spare <= jump && self.room + SPARE >= needed)).then_some(completion)
    }

    fn shortest_completion(&mut self) -> Option<Vec<u8>> {
        let plan = Arc::clone(&self.plan);
        let text = std::mem::take(&mut self.text);
        let mut reader = Reader { plan: &plan, text: &text, automata: &mut self.automata };
        let places = reader.value(0, 0, 0);
        self.text = text;
        if places.ends.contains(&self.text.len()) { Some(Vec::new()) } else { places.open }
    }
}

/// Tokens of a text, the longest first.
fn count(trie: &TokTrie, text: &[u8]) -> usize {
    trie.greedy_tokenize(text).len()
}

/// How many objects and lists are open in a JSON text.
#[derive(Clone, Default)]
struct Nesting {
    depth: usize,
    quoted: bool,
    escaped: bool,
}

impl Nesting {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let escaped = std::mem::take(&mut self.escaped);
            match byte {
                b'\\' if self.quoted => self.escaped = !escaped,
                b'"' if !escaped => self.quoted = !self.quoted,
                b'{' | b'[' if !self.quoted => self.depth += 1,
                b'}' | b']' if !self.quoted => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }
}

/// What a part of an answer may be, from one place of the text on.
#[derive(Default)]
struct Places {
    /// Where it may end within the text.
    ends: Vec<usize>,
    /// The shortest text that completes it, if the text ends within it.
    open: Option<Vec<u8>>,
}

impl Places {
    fn add(&mut self, other: Places) {
        for end in other.ends {
            if !self.ends.contains(&end) {
                self.ends.push(end);
            }
        }
        self.propose(other.open);
    }

    fn propose(&mut self, completion: Option<Vec<u8>>) {
        let open = self.open.take().into_iter().chain(completion);
        self.open = open.min_by_key(Vec::len);
    }
}

/// Reads a text that is the beginning of an answer.
struct Reader<'r> {
    plan: &'r Plan,
    text: &'r [u8],
    automata: &'r mut HashMap<usize, Regex>,
}

impl Reader<'_> {
    fn value(&mut self, rule: RuleId, from: usize, depth: usize) -> Places {
        let plan = self.plan;
        if from == self.text.len() {
            let open = plan.minimal.text(&plan.shapes, rule).map(String::into_bytes);
            return Places { ends: Vec::new(), open };
        }
        let mut places = Places::default();
        // The guide ends an answer before it is that deep.
        if depth > 2 * MAX_OPEN {
            return places;
        }
        for shape in &plan.shapes.rules[rule] {
            let some = match shape {
                Shape::Leaf(leaf) => self.leaf(*leaf, from),
                Shape::List(list) => self.list(list, from, depth),
                Shape::Set { values, min, max } => self.set(values, *min, *max, from),
                Shape::Object(object) => self.object(object, from, depth),
            };
            places.add(some);
        }
        places
    }

    /// A leaf as far as it goes: where two ends are possible, the later is meant.
    fn leaf(&mut self, leaf: usize, from: usize) -> Places {
        let mut places = Places::default();
        let automaton = match self.automata.entry(leaf) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                let Ok(automaton) = self.plan.shapes.leaves[leaf].automaton() else {
                    return places;
                };
                new.insert(automaton)
            }
        };
        let mut state = automaton.initial_state();
        let mut last = None;
        for (at, &byte) in self.text.iter().enumerate().skip(from) {
            if automaton.is_accepting(state) {
                last = Some(at);
            }
            state = automaton.transition(state, byte);
            if state.is_dead() {
                places.ends.extend(last);
                return places;
            }
        }
        if automaton.is_accepting(state) {
            places.ends.push(self.text.len());
        } else {
            places.open = shortest_end(automaton, state).map(String::into_bytes);
        }
        places
    }

    /// A fixed text, with spaces where one may stand after it.
    fn sign(&self, sign: &str, from: usize) -> Places {
        let sign = sign.as_bytes();
        let rest = &self.text[from..];
        if rest.starts_with(sign) {
            let end = from + sign.len();
            let spaced = matches!(sign, b"," | b":") && self.text.get(end) == Some(&b' ');
            return Places { ends: vec![end + usize::from(spaced)], open: None };
        }
        let open = sign.starts_with(rest).then(|| sign[rest.len()..].to_vec());
        Places { ends: Vec::new(), open }
    }

    fn list(&mut self, list: &ListShape, from: usize, depth: usize) -> Places {
        let mut places = Places::default();
        let start = self.sign("[", from);
        let closing = |reader: &Self, count: usize| reader.list_end(list, count);
        places.propose(after(start.open, closing(self, 0)));
        let Some(&start) = start.ends.first() else { return places };
        let mut reached = vec![(start, 0_usize)];
        while let Some((at, count)) = reached.pop() {
            if at == self.text.len() {
                places.propose(closing(self, count));
                continue;
            }
            if count >= list.min {
                places.add(self.sign("]", at));
            }
            let Some(rule) = list.item(count) else { continue };
            if list.max.is_some_and(|max| count >= max) {
                continue;
            }
            let item =
                if count == 0 { Places { ends: vec![at], open: None } } else { self.sign(",", at) };
            for at in item.ends {
                let value = self.value(rule, at, depth + 1);
                places.propose(after(value.open, closing(self, count + 1)));
                reached.extend(value.ends.into_iter().map(|end| (end, count + 1)));
            }
        }
        places
    }

    /// What ends a list after so many items.
    fn list_end(&self, list: &ListShape, count: usize) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        for at in count..list.min.max(count) {
            text.extend((at > 0).then_some(b','));
            let item = self.plan.minimal.text(&self.plan.shapes, list.item(at)?)?;
            text.extend(item.into_bytes());
        }
        text.push(b']');
        Some(text)
    }

    fn set(&mut self, values: &[usize], min: usize, max: usize, from: usize) -> Places {
        let mut places = Places::default();
        let start = self.sign("[", from);
        let text = |reader: &Self, leaf: usize| {
            let plan = reader.plan;
            plan.minimal.shape_text(&plan.shapes, &Shape::Leaf(leaf)).map(String::into_bytes)
        };
        let closing = |reader: &Self, used: &[usize]| {
            let later = used.last().map_or(0, |last| last + 1);
            // Larger sets keep the order of their values; smaller ones can, too, or begin again.
            let unused = (later..values.len()).chain(0..later).filter(|at| !used.contains(at));
            let mut end = Vec::new();
            for (n, at) in unused.take(min.saturating_sub(used.len())).enumerate() {
                end.extend((n > 0 || !used.is_empty()).then_some(b','));
                end.extend(text(reader, values[at])?);
            }
            end.push(b']');
            Some(end)
        };
        places.propose(after(start.open, closing(self, &[])));
        let Some(&start) = start.ends.first() else { return places };
        let mut reached = vec![(start, Vec::new())];
        while let Some((at, used)) = reached.pop() {
            if at == self.text.len() {
                places.propose(closing(self, &used));
                continue;
            }
            if used.len() >= min {
                places.add(self.sign("]", at));
            }
            if used.len() >= max {
                continue;
            }
            let item = if used.is_empty() {
                Places { ends: vec![at], open: None }
            } else {
                self.sign(",", at)
            };
            for at in item.ends {
                for value in (0..values.len()).filter(|value| !used.contains(value)) {
                    let used: Vec<usize> = used.iter().copied().chain([value]).collect();
                    let read = if at == self.text.len() {
                        Places { ends: Vec::new(), open: text(self, values[value]) }
                    } else {
                        self.leaf(values[value], at)
                    };
                    places.propose(after(read.open, closing(self, &used)));
                    reached.extend(read.ends.into_iter().map(|end| (end, used.clone())));
                }
            }
        }
        places
    }

    fn object(&mut self, object: &ObjectShape, from: usize, depth: usize) -> Places {
        let mut places = Places::default();
        let start = self.sign("{", from);
        places.propose(after(start.open, self.object_end(object, 0, 0)));
        let Some(&start) = start.ends.first() else { return places };
        // Where in the text, before which of the listed properties, after how many in all.
        let mut reached = vec![(start, 0_usize, 0_usize)];
        while let Some((at, next, count)) = reached.pop() {
            if at == self.text.len() {
                places.propose(self.object_end(object, next, count));
                continue;
            }
            let left = object.properties.get(next..).unwrap_or_default();
            let needed = left.iter().filter(|property| property.required).count();
            if needed == 0 && count >= object.min {
                places.add(self.sign("}", at));
            }
            let name =
                if count == 0 { Places { ends: vec![at], open: None } } else { self.sign(",", at) };
            for at in name.ends {
                if at == self.text.len() {
                    // A comma that waits for its property.
                    places.propose(self.object_next(object, next, count));
                    continue;
                }
                for (skipped, property) in left.iter().enumerate() {
                    let key = self.sign(&property.key, at);
                    let next = next + skipped + 1;
                    self.property(
                        object,
                        property.value,
                        (key, next, count),
                        depth,
                        &mut places,
                        &mut reached,
                    );
                    if property.required {
                        break;
                    }
                }
                if needed == 0 {
                    for (key, value) in &object.more {
                        let key = self.leaf(*key, at);
                        let next = object.properties.len();
                        self.property(
                            object,
                            *value,
                            (key, next, count),
                            depth,
                            &mut places,
                            &mut reached,
                        );
                    }
                }
            }
        }
        places
    }

    /// The colon and the value after a name.
    fn property(
        &mut self,
        object: &ObjectShape,
        value: RuleId,
        (key, next, count): (Places, usize, usize),
        depth: usize,
        places: &mut Places,
        reached: &mut Vec<(usize, usize, usize)>,
    ) {
        let plan = self.plan;
        let end = self.object_end(object, next, count + 1);
        let least = plan.minimal.text(&plan.shapes, value).map(String::into_bytes);
        let named = after(key.open, after(Some(b":".to_vec()), after(least.clone(), end.clone())));
        places.propose(named);
        for at in key.ends {
            let colon = self.sign(":", at);
            places.propose(after(colon.open, after(least.clone(), end.clone())));
            for at in colon.ends {
                let read = self.value(value, at, depth + 1);
                places.propose(after(read.open, end.clone()));
                reached.extend(read.ends.into_iter().map(|end| (end, next, count + 1)));
            }
        }
    }

    /// What ends an object after so many properties, of which the next listed one is given.
    fn object_end(&self, object: &ObjectShape, next: usize, count: usize) -> Option<Vec<u8>> {
        let left = object.properties.get(next..).unwrap_or_default();
        let needed = left.iter().filter(|property| property.required).count();
        if needed == 0 && count >= object.min {
            return Some(b"}".to_vec());
        }
        let comma = if count == 0 { Vec::new() } else { b",".to_vec() };
        after(Some(comma), self.object_next(object, next, count))
    }

    /// The next property of the shortest end, and all after it.
    fn object_next(&self, object: &ObjectShape, next: usize, count: usize) -> Option<Vec<u8>> {
        let plan = self.plan;
        let left = object.properties.get(next..).unwrap_or_default();
        let needed = left.iter().filter(|property| property.required).count();
        let spare = object.min.saturating_sub(count + needed);
        let text = |property| plan.minimal.property_text(&plan.shapes, property);
        for (skipped, property) in left.iter().enumerate() {
            // After a comma something has to come, required or not.
            let wanted = property.required || spare > 0 || needed == 0;
            if let Some(text) = text(property).filter(|_| wanted) {
                let end = self.object_end(object, next + skipped + 1, count + 1);
                return after(Some(text.into_bytes()), end);
            }
        }
        let (key, value) = object.more.first()?;
        let key = plan.minimal.shape_text(&plan.shapes, &Shape::Leaf(*key))?;
        let value = plan.minimal.text(&plan.shapes, *value)?;
        let end = self.object_end(object, object.properties.len(), count + 1);
        after(Some(format!("{key}:{value}").into_bytes()), end)
    }
}

/// Two completions, one after the other.
fn after(first: Option<Vec<u8>>, second: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let (mut first, second) = (first?, second?);
    first.extend(second);
    Some(first)
}
