//! Rules of a schema as text in the Lark dialect.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::leaf::LeafSource;
use super::shape::{ListShape, ObjectShape, RuleId, Shape, Shapes};
use crate::grammar::limits;

/// What stands between items, and between a name and its value: one space at most.
const SEPARATOR: &str = "/, ?/";
const COLON: &str = "/: ?/";
/// Sets of so few constants come in any order, larger ones in the order of the constants.
const MAX_FREE_ORDER: usize = 5;

/// The rules whose names begin with `prefix`, of which the first is `{prefix}0`. `exists` says for
/// each rule whether a value follows it: others are left out.
pub(super) fn lark(shapes: &Shapes, exists: &[bool], prefix: &str) -> Result<String, String> {
    let mut writer = Writer { shapes, exists, prefix, source: String::new(), lines: 0 };
    for (rule, ways) in shapes.rules.iter().enumerate().filter(|(rule, _)| exists[*rule]) {
        let mut written = Vec::new();
        for (at, shape) in ways.iter().enumerate() {
            written.extend(writer.shape(&format!("{prefix}{rule}_{at}"), shape)?);
        }
        writer.rule(&format!("{prefix}{rule}"), &written)?;
    }
    for (at, leaf) in shapes.leaves.iter().enumerate() {
        let _ = match leaf.to_lark() {
            LeafSource::Terminal(body) => {
                writeln!(writer.source, "{}L{at}: {body}", prefix.to_uppercase())
            }
            LeafSource::Rule(body) => writeln!(writer.source, "{prefix}leaf{at}: {body}"),
        };
    }
    Ok(writer.source)
}

struct Writer<'s> {
    shapes: &'s Shapes,
    exists: &'s [bool],
    prefix: &'s str,
    source: String,
    lines: usize,
}

impl Writer<'_> {
    fn rule(&mut self, name: &str, ways: &[String]) -> Result<(), String> {
        self.lines += ways.len();
        if self.lines > limits::MAX_WRITTEN {
            return Err(format!(
                "it takes more than {} rules to write down; use fewer properties, and smaller \
                 minProperties and maxProperties",
                limits::MAX_WRITTEN
            ));
        }
        // Writing to a string cannot fail.
        let _ = writeln!(self.source, "{name}: {}", ways.join("\n    | "));
        Ok(())
    }

    fn value(&self, rule: RuleId) -> String {
        format!("{}{rule}", self.prefix)
    }

    fn leaf(&self, leaf: usize) -> String {
        match self.shapes.leaves[leaf].to_lark() {
            LeafSource::Terminal(_) => format!("{}L{leaf}", self.prefix.to_uppercase()),
            LeafSource::Rule(_) => format!("{}leaf{leaf}", self.prefix),
        }
    }

    /// The body of a shape; nothing if no value has it.
    fn shape(&mut self, name: &str, shape: &Shape) -> Result<Option<String>, String> {
        match shape {
            Shape::Leaf(leaf) => Ok(Some(self.leaf(*leaf))),
            Shape::List(list) => self.list(name, list),
            Shape::Set { values, min, max } => self.set(name, values, *min, *max).map(Some),
            Shape::Object(object) => self.object(name, object),
        }
    }

    fn list(&mut self, name: &str, list: &ListShape) -> Result<Option<String>, String> {
        let ListShape { first, rest, min, max } = list;
        let known = first.iter().take_while(|rule| self.exists[**rule]).count();
        let rest = rest.filter(|rule| self.exists[*rule] && known == first.len());
        let max = if rest.is_none() { Some(max.unwrap_or(known).min(known)) } else { *max };
        if max.is_some_and(|max| *min > max) {
            return Ok(None);
        }
        // After all of the first items, the others follow.
        let after = |count: usize| format!("{name}_{count}");
        let known = known.min(max.unwrap_or(known));
        for (count, rule) in first.iter().take(known).enumerate() {
            let separator = if count == 0 { "" } else { SEPARATOR };
            let mut ways = vec![format!("{separator} {} {}", self.value(*rule), after(count + 1))];
            if count >= *min {
                ways.push("\"\"".to_owned());
            }
            self.rule(&after(count), &ways)?;
        }
        let left = max.map(|max| max - known);
        let needed = min.saturating_sub(known);
        let mut ways = Vec::new();
        if let Some(rule) = rest.filter(|_| left != Some(0)) {
            let item = self.value(rule);
            let separator = if known == 0 { "" } else { SEPARATOR };
            let few = needed.saturating_sub(1);
            let many = left.map_or(String::new(), |left| (left - 1).to_string());
            ways.push(match left {
                Some(1) => format!("{separator} {item}"),
                _ => format!("{separator} {item} ({SEPARATOR} {item}){{{few},{many}}}"),
            });
        }
        if needed == 0 {
            ways.push("\"\"".to_owned());
        }
        self.rule(&after(known), &ways)?;
        Ok(Some(format!("\"[\" {} \"]\"", after(0))))
    }

    fn set(
        &mut self,
        name: &str,
        values: &[usize],
        min: usize,
        max: usize,
    ) -> Result<String, String> {
        // A state is the values that may still come, and how many came.
        let start = ((0..values.len()).collect::<BTreeSet<_>>(), 0_usize);
        let label = |left: &BTreeSet<usize>, count: usize| {
            let mut label = format!("{name}_{count}");
            left.iter().for_each(|at| label.push_str(&format!("_{at}")));
            label
        };
        let mut known = BTreeSet::from([start.clone()]);
        let mut waiting = vec![start.clone()];
        while let Some((left, count)) = waiting.pop() {
            let mut ways = Vec::new();
            for &at in left.iter().filter(|_| count < max) {
                let free = values.len() <= MAX_FREE_ORDER;
                let rest: BTreeSet<usize> = left
                    .iter()
                    .copied()
                    .filter(|&other| if free { other != at } else { other > at })
                    .collect();
                if count + 1 + rest.len() < min {
                    continue;
                }
                let separator = if count == 0 { "" } else { SEPARATOR };
                let leaf = self.leaf(values[at]);
                ways.push(format!("{separator} {leaf} {}", label(&rest, count + 1)));
                if known.insert((rest.clone(), count + 1)) {
                    waiting.push((rest, count + 1));
                }
            }
            if count >= min {
                ways.push("\"\"".to_owned());
            }
            self.rule(&label(&left, count), &ways)?;
        }
        Ok(format!("\"[\" {} \"]\"", label(&start.0, 0)))
    }

    /// Properties one after another: a rule for each, and for how many came before it as far as
    /// that matters.
    fn object(&mut self, name: &str, object: &ObjectShape) -> Result<Option<String>, String> {
        let ObjectShape { properties, more, min, max } = object;
        if properties.iter().any(|property| property.required && !self.exists[property.value]) {
            return Ok(None);
        }
        let exists = |rule: &usize| self.exists[*rule];
        let listed: Vec<_> = properties.iter().filter(|property| exists(&property.value)).collect();
        let more: Vec<_> = more.iter().filter(|(_, value)| exists(value)).collect();
        let required = listed.iter().filter(|property| property.required).count();
        let open = !more.is_empty();
        let largest = if open { usize::MAX } else { listed.len() };
        let max = max.filter(|&max| max < largest);
        if *min > max.unwrap_or(largest) {
            return Ok(None);
        }
        // Counts beyond this are the same.
        let most = max.unwrap_or(1).max(if *min > required { *min } else { 1 });
        let counted = |count: usize| count.min(most);
        // Whether the properties that are left can still bring the count into its limits.
        let left = |at: usize| listed[at..].iter().filter(|property| property.required).count();
        let possible = |at: usize, count: usize| {
            max.is_none_or(|max| count + left(at) <= max)
                && (open || *min <= required || count + listed.len() - at >= *min)
        };
        let after = |at: usize, count: usize| format!("{name}_{at}_{}", counted(count));
        let mut states = BTreeSet::from([(0, 0)]);
        while let Some((at, count)) = states.pop_first() {
            let separator = if count == 0 { "" } else { SEPARATOR };
            let mut ways = Vec::new();
            if let Some(property) = listed.get(at) {
                if possible(at + 1, count + 1) {
                    let key = crate::grammar::quoted(&property.key);
                    let next = after(at + 1, count + 1);
                    let value = self.value(property.value);
                    ways.push(format!("{separator} {key} {COLON} {value} {next}"));
                    states.insert((at + 1, counted(count + 1)));
                }
                if !property.required && possible(at + 1, count) {
                    ways.push(after(at + 1, count));
                    states.insert((at + 1, count));
                }
            } else {
                let needed = if *min > required { min.saturating_sub(count) } else { 0 };
                if needed == 0 {
                    ways.push("\"\"".to_owned());
                }
                let left = max.map(|max| max.saturating_sub(count));
                if open && left != Some(0) {
                    let one = format!("{name}_more");
                    let few = needed.saturating_sub(1);
                    let many = left.map_or(String::new(), |left| (left - 1).to_string());
                    ways.push(match left {
                        Some(1) => format!("{separator} {one}"),
                        _ => format!("{separator} {one} ({SEPARATOR} {one}){{{few},{many}}}"),
                    });
                }
            }
            self.rule(&after(at, count), &ways)?;
        }
        if open {
            let ways: Vec<String> = more
                .iter()
                .map(|(key, value)| format!("{} {COLON} {}", self.leaf(*key), self.value(*value)))
                .collect();
            self.rule(&format!("{name}_more"), &ways)?;
        }
        Ok(Some(format!("\"{{\" {} \"}}\"", after(0, 0))))
    }
}
