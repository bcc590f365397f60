//! The grammar of a schema: rules for its values, which refer to each other by number.

use std::collections::HashMap;

use serde_json::Value;

use super::document::{Document, Node, Position};
use super::expand::{Expander, FALSE};
use super::form::{Form, ListForm, ObjectForm, TextForm};
use super::leaf::{Leaf, escaped};
use super::{number, text};
use crate::grammar::limits;

/// The number of a rule.
pub(in crate::grammar) type RuleId = usize;
/// The number of a leaf.
pub(in crate::grammar) type LeafId = usize;

/// The rules of a schema; the first is that of the whole value.
#[derive(Debug, Default)]
pub(in crate::grammar) struct Shapes {
    /// What a value may look like, one of several.
    pub(in crate::grammar) rules: Vec<Vec<Shape>>,
    pub(in crate::grammar) leaves: Vec<Leaf>,
}

/// What a value looks like.
#[derive(Debug, Clone)]
pub(in crate::grammar) enum Shape {
    Leaf(LeafId),
    List(ListShape),
    /// A list of different ones of a few constants.
    Set {
        values: Vec<LeafId>,
        min: usize,
        max: usize,
    },
    Object(ObjectShape),
}

#[derive(Debug, Clone)]
pub(in crate::grammar) struct ListShape {
    /// The first items.
    pub(in crate::grammar) first: Vec<RuleId>,
    /// The items after them.
    pub(in crate::grammar) rest: Option<RuleId>,
    pub(in crate::grammar) min: usize,
    pub(in crate::grammar) max: Option<usize>,
}

#[derive(Debug, Clone)]
pub(in crate::grammar) struct ObjectShape {
    /// Those that are listed, in the order in which they are written.
    pub(in crate::grammar) properties: Vec<Property>,
    /// Others after them: name and value.
    pub(in crate::grammar) more: Vec<(LeafId, RuleId)>,
    pub(in crate::grammar) min: usize,
    pub(in crate::grammar) max: Option<usize>,
}

#[derive(Debug, Clone)]
pub(in crate::grammar) struct Property {
    /// The name as JSON.
    pub(in crate::grammar) key: String,
    pub(in crate::grammar) value: RuleId,
    pub(in crate::grammar) required: bool,
}

/// Makes the rules of a schema.
pub(super) fn shapes(schema: &Value) -> Result<Shapes, String> {
    let mut builder = Builder {
        expander: Expander::new(Document::new(schema)),
        shapes: Shapes::default(),
        rule_of: HashMap::new(),
        leaf_of: HashMap::new(),
        waiting: Vec::new(),
        properties: 0,
        least_items: 0,
    };
    builder.rule(&[Node::new(schema)]);
    while let Some((rule, position)) = builder.waiting.pop() {
        builder.shapes.rules[rule] = builder.describe(&position)?;
    }
    Ok(builder.shapes)
}

struct Builder<'a> {
    expander: Expander<'a>,
    shapes: Shapes,
    rule_of: HashMap<Vec<(usize, bool)>, RuleId>,
    leaf_of: HashMap<Leaf, LeafId>,
    /// Rules that are numbered and not yet described.
    waiting: Vec<(RuleId, Position<'a>)>,
    /// Properties of all objects so far.
    properties: usize,
    /// `minItems` of all lists so far.
    least_items: usize,
}

impl<'a> Builder<'a> {
    /// The rule of a position: the same for the same schemas, so recursion comes to an end.
    fn rule(&mut self, position: &[Node<'a>]) -> RuleId {
        // What is always true says nothing, wherever it stands.
        let says = |node: &&Node<'_>| *node.schema != Value::Bool(!node.negated);
        let position: Position<'a> = position.iter().filter(says).copied().collect();
        let key: Vec<_> = position.iter().map(|node| node.key()).collect();
        let next = self.shapes.rules.len();
        let rule = *self.rule_of.entry(key).or_insert(next);
        if rule == next {
            self.shapes.rules.push(Vec::new());
            self.waiting.push((rule, position));
        }
        rule
    }

    fn leaf(&mut self, leaf: Leaf) -> LeafId {
        let next = self.shapes.leaves.len();
        let id = *self.leaf_of.entry(leaf.clone()).or_insert(next);
        if id == next {
            self.shapes.leaves.push(leaf);
        }
        id
    }

    fn describe(&mut self, position: &[Node<'a>]) -> Result<Vec<Shape>, String> {
        if self.shapes.rules.len() > limits::MAX_RULES {
            return Err(format!("it has more than {} different values", limits::MAX_RULES));
        }
        let mut constants = Vec::new();
        let mut shapes = Vec::new();
        for alternative in self.expander.expand(position)? {
            match alternative.form {
                Form::Constant(value) => constants.push(constant(value)),
                Form::Number(form) => {
                    shapes.extend(number::leaf(&form)?.map(|leaf| Shape::Leaf(self.leaf(leaf))));
                }
                Form::Text(form) => {
                    shapes.extend(text::leaf(&form)?.map(|leaf| Shape::Leaf(self.leaf(leaf))));
                }
                Form::List(form) => shapes.extend(self.list(&form)?),
                Form::Object(form) => shapes.extend(self.object(&form)?),
            }
        }
        if !constants.is_empty() {
            constants.dedup();
            shapes.insert(0, Shape::Leaf(self.leaf(Leaf::new(constants.join("|")))));
        }
        Ok(shapes)
    }

    fn list(&mut self, form: &ListForm<'a>) -> Result<Option<Shape>, String> {
        let min = form.min as usize;
        let max = form.max.map(|max| max as usize);
        if max.is_some_and(|max| min > max) {
            return Ok(None);
        }
        if form.unique && max.is_none_or(|max| max > 1) {
            return self.set(form, min, max);
        }
        self.least_items += min;
        if self.least_items > limits::MAX_LEAST_ITEMS {
            let most = limits::MAX_LEAST_ITEMS;
            return Err(format!("minItems of its lists count to more than {most} in all"));
        }
        Ok(Some(Shape::List(ListShape {
            first: form.first.iter().map(|item| self.rule(item)).collect(),
            rest: Some(self.rule(&form.rest)),
            min,
            max,
        })))
    }

    /// A list without repetitions, of constants.
    fn set(
        &mut self,
        form: &ListForm<'a>,
        min: usize,
        max: Option<usize>,
    ) -> Result<Option<Shape>, String> {
        let mut patterns: Vec<String> = Vec::new();
        let mut endless = !form.first.is_empty();
        for alternative in self.expander.expand(&form.rest)? {
            match alternative.form {
                Form::Constant(value) => patterns.push(constant(value)),
                _ => endless = true,
            }
        }
        patterns.sort_unstable();
        patterns.dedup();
        if endless || patterns.len() > limits::MAX_SET {
            return Err(format!(
                "uniqueItems works for items of at most {} constants (enum, const, boolean); for \
                 others leave it out, and take repetitions out afterwards",
                limits::MAX_SET
            ));
        }
        let max = max.unwrap_or(patterns.len()).min(patterns.len());
        let values = patterns.into_iter().map(|pattern| self.leaf(Leaf::new(pattern))).collect();
        Ok((min <= max).then_some(Shape::Set { values, min, max }))
    }

    fn object(&mut self, form: &ObjectForm<'a>) -> Result<Option<Shape>, String> {
        let (min, max) = (form.min as usize, form.max.map(|max| max as usize));
        if max.is_some_and(|max| min > max || form.required.len() > max) {
            return Ok(None);
        }
        let mut properties = Vec::new();
        let listed = form.properties.iter().map(|(name, position)| (*name, position.clone()));
        let undeclared = form.required.iter().filter(|name| !form.declares(name));
        let undeclared = undeclared.map(|name| Ok((*name, form.property(name, &text::matches)?)));
        let undeclared = undeclared.collect::<Result<Vec<_>, String>>()?;
        for (name, position) in listed.chain(undeclared) {
            let named =
                form.names.is_empty() || self.expander.accepts(&form.names, &Value::from(name))?;
            let position = if named { position } else { vec![Node::new(&FALSE)] };
            let required = form.required.contains(&name);
            let key = text::json_text(name);
            properties.push(Property { key, value: self.rule(&position), required });
        }
        self.properties += properties.len();
        if self.properties > limits::MAX_ALL_PROPERTIES {
            let most = limits::MAX_ALL_PROPERTIES;
            return Err(format!("its objects have more than {most} properties in all"));
        }
        let more = if form.is_open() { self.more(form)? } else { self.matching(form)? };
        Ok(Some(Shape::Object(ObjectShape { properties, more, min, max })))
    }

    /// Properties whose names match a pattern.
    fn matching(&mut self, form: &ObjectForm<'a>) -> Result<Vec<(LeafId, RuleId)>, String> {
        let mut more = Vec::new();
        for (at, (pattern, position)) in form.patterns.iter().enumerate() {
            // A name that several patterns match is left to none of them.
            let others = form.patterns.iter().enumerate().filter(|(other, _)| *other != at);
            let mut patterns = vec![(*pattern, true)];
            patterns.extend(others.map(|(_, (pattern, _))| (*pattern, false)));
            self.names(form, patterns, position, &mut more)?;
        }
        Ok(more)
    }

    /// Properties that the schema does not list, of an open object.
    fn more(&mut self, form: &ObjectForm<'a>) -> Result<Vec<(LeafId, RuleId)>, String> {
        let mut more = self.matching(form)?;
        let position = form.additional.clone().unwrap_or_default();
        let patterns = form.patterns.iter().map(|(pattern, _)| (*pattern, false)).collect();
        self.names(form, patterns, &position, &mut more)?;
        Ok(more)
    }

    /// The names that are not listed and match patterns, with their values.
    fn names(
        &mut self,
        form: &ObjectForm<'a>,
        patterns: Vec<(&'a str, bool)>,
        position: &[Node<'a>],
        more: &mut Vec<(LeafId, RuleId)>,
    ) -> Result<(), String> {
        let value = self.rule(position);
        let listed = form.properties.iter().map(|(name, _)| *name);
        let undeclared = form.required.iter().filter(|name| !form.declares(name)).copied();
        let taken: Vec<String> =
            listed.chain(undeclared).map(|name| escaped(&text::json_text(name))).collect();
        let wanted = TextForm { patterns, ..TextForm::default() };
        for alternative in self.expander.expand(&form.names)? {
            let leaf = match alternative.form {
                Form::Text(names) => text::leaf(&wanted.clone().and(names))?,
                Form::Constant(name) if name.is_string() => {
                    text::leaf(&wanted)?.map(|leaf| leaf.and(constant(name)))
                }
                _ => None,
            };
            let Some(leaf) = leaf else { continue };
            let leaf = if taken.is_empty() { leaf } else { leaf.and_not(taken.join("|")) };
            more.push((self.leaf(leaf), value));
        }
        Ok(())
    }
}

/// The ways to write a constant: with or without a space after a comma or colon.
fn constant(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(constant).collect();
            format!("\\[{}\\]", items.join(", ?"))
        }
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| {
                format!("{}: ?{}", escaped(&text::json_text(name)), constant(value))
            });
            format!("\\{{{}\\}}", fields.collect::<Vec<_>>().join(", ?"))
        }
        other => escaped(&other.to_string()),
    }
}
