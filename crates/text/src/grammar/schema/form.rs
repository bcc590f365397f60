//! What is left of a schema when its keywords are brought together: for one value, a list of
//! alternatives, each of one kind.

use serde_json::Value;

use super::decimal::Decimal;
use super::document::{Node, Position, join};
use super::formats::Format;

/// One way in which a value may satisfy a schema.
#[derive(Clone, Debug)]
pub(super) struct Alternative<'a> {
    pub(super) form: Form<'a>,
    /// The schema names this kind, by `type`, a constant, or what it excludes.
    pub(super) typed: bool,
    /// A keyword says something about values of this kind.
    pub(super) shaped: bool,
    /// Schemas that must not accept the value: the other options of a `oneOf`.
    pub(super) excluded: Vec<Node<'a>>,
}

/// Values of one kind. `null` and the truth values are constants.
#[derive(Clone, Debug)]
pub(super) enum Form<'a> {
    Constant(&'a Value),
    Number(NumberForm<'a>),
    Text(TextForm<'a>),
    List(ListForm<'a>),
    Object(ObjectForm<'a>),
}

/// A limit of a range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bound {
    pub(super) value: Decimal,
    pub(super) exclusive: bool,
}

/// Numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct NumberForm<'a> {
    pub(super) integer: bool,
    /// Not an integer.
    pub(super) broken: bool,
    pub(super) min: Option<Bound>,
    pub(super) max: Option<Bound>,
    pub(super) multiples: Vec<Decimal>,
    pub(super) excluded: Vec<&'a Value>,
}

/// Strings.
#[derive(Clone, Debug, Default)]
pub(super) struct TextForm<'a> {
    pub(super) min: u64,
    pub(super) max: Option<u64>,
    /// Patterns, and whether the text must match or must not.
    pub(super) patterns: Vec<(&'a str, bool)>,
    pub(super) formats: Vec<&'static Format>,
    pub(super) excluded: Vec<&'a str>,
}

/// Arrays.
#[derive(Clone, Debug, Default)]
pub(super) struct ListForm<'a> {
    /// The first items, one by one.
    pub(super) first: Vec<Position<'a>>,
    /// All others.
    pub(super) rest: Position<'a>,
    pub(super) min: u64,
    pub(super) max: Option<u64>,
    pub(super) unique: bool,
}

/// Objects.
#[derive(Clone, Debug, Default)]
pub(super) struct ObjectForm<'a> {
    /// In the order in which the schema lists them.
    pub(super) properties: Vec<(&'a str, Position<'a>)>,
    /// `properties` is there, even if it lists none.
    pub(super) listed: bool,
    pub(super) required: Vec<&'a str>,
    pub(super) patterns: Vec<(&'a str, Position<'a>)>,
    /// What other properties satisfy; nothing where the schema does not say.
    pub(super) additional: Option<Position<'a>>,
    /// What all names satisfy.
    pub(super) names: Position<'a>,
    pub(super) min: u64,
    pub(super) max: Option<u64>,
}

impl<'a> Alternative<'a> {
    /// Of a kind about which nothing is said.
    pub(super) fn untold(form: Form<'a>) -> Self {
        Self { form, typed: false, shaped: false, excluded: Vec::new() }
    }

    /// Of a kind that is named.
    pub(super) fn told(form: Form<'a>) -> Self {
        Self { typed: true, shaped: true, ..Self::untold(form) }
    }
}

impl<'a> NumberForm<'a> {
    pub(super) fn and(mut self, other: Self) -> Self {
        self.integer |= other.integer;
        self.broken |= other.broken;
        self.min = tighter(self.min, other.min, |a, b| a > b);
        self.max = tighter(self.max, other.max, |a, b| a < b);
        self.multiples.extend(other.multiples);
        self.excluded.extend(other.excluded);
        self
    }
}

/// The bound that excludes more.
fn tighter(
    one: Option<Bound>,
    other: Option<Bound>,
    beyond: fn(Decimal, Decimal) -> bool,
) -> Option<Bound> {
    match (one, other) {
        (Some(one), Some(other)) if one.value == other.value => {
            Some(Bound { value: one.value, exclusive: one.exclusive || other.exclusive })
        }
        (Some(one), Some(other)) => Some(if beyond(one.value, other.value) { one } else { other }),
        (one, other) => one.or(other),
    }
}

impl TextForm<'_> {
    pub(super) fn and(mut self, other: Self) -> Self {
        self.min = self.min.max(other.min);
        self.max = least(self.max, other.max);
        self.patterns.extend(other.patterns);
        self.formats.extend(other.formats);
        self.excluded.extend(other.excluded);
        self
    }
}

impl<'a> ListForm<'a> {
    pub(super) fn and(mut self, other: Self) -> Self {
        let length = self.first.len().max(other.first.len());
        let first = (0..length).map(|at| {
            let mut item = self.item(at).clone();
            join(&mut item, other.item(at));
            item
        });
        self.first = first.collect();
        join(&mut self.rest, &other.rest);
        self.min = self.min.max(other.min);
        self.max = least(self.max, other.max);
        self.unique |= other.unique;
        self
    }

    /// What the item at a place satisfies.
    pub(super) fn item(&self, at: usize) -> &Position<'a> {
        self.first.get(at).unwrap_or(&self.rest)
    }
}

impl<'a> ObjectForm<'a> {
    pub(super) fn and(self, other: Self, matches: Matches<'_>) -> Result<Self, String> {
        let mut properties = Vec::new();
        for (name, position) in &self.properties {
            let mut position = position.clone();
            join(&mut position, &other.property(name, matches)?);
            properties.push((*name, position));
        }
        for (name, position) in &other.properties {
            if self.declares(name) {
                continue;
            }
            let mut both = self.property(name, matches)?;
            join(&mut both, position);
            properties.push((*name, both));
        }
        // A name that one side knows by a pattern only is additional to the other side.
        let mut patterns = Vec::new();
        for (side, opposite) in [(&self, &other), (&other, &self)] {
            for (pattern, position) in &side.patterns {
                let mut position = position.clone();
                if opposite.patterns.iter().all(|(known, _)| known != pattern) {
                    join(&mut position, opposite.additional.as_deref().unwrap_or_default());
                }
                patterns.push((*pattern, position));
            }
        }
        let mut required = self.required;
        required.extend(
            other.required.iter().filter(|name| !required.contains(name)).collect::<Vec<_>>(),
        );
        let mut names = self.names;
        join(&mut names, &other.names);
        let additional = match (self.additional, other.additional) {
            (Some(mut one), Some(other)) => {
                join(&mut one, &other);
                Some(one)
            }
            (one, other) => one.or(other),
        };
        Ok(Self {
            properties,
            listed: self.listed || other.listed,
            required,
            patterns,
            additional,
            names,
            min: self.min.max(other.min),
            max: least(self.max, other.max),
        })
    }

    /// Whether a property is listed.
    pub(super) fn declares(&self, name: &str) -> bool {
        self.properties.iter().any(|(known, _)| *known == name)
    }

    /// What the value of a property satisfies, whether it is listed or not.
    pub(super) fn property(
        &self,
        name: &str,
        matches: Matches<'_>,
    ) -> Result<Position<'a>, String> {
        let mut position = Position::new();
        let mut known = false;
        for (listed, schemas) in &self.properties {
            if *listed == name {
                known = true;
                join(&mut position, schemas);
            }
        }
        for (pattern, schemas) in &self.patterns {
            if matches(pattern, name)? {
                known = true;
                join(&mut position, schemas);
            }
        }
        if !known {
            join(&mut position, self.additional.as_deref().unwrap_or_default());
        }
        Ok(position)
    }

    /// Whether a property that is not listed may be written: where the schema says so, and where it
    /// says nothing about properties at all.
    pub(super) fn is_open(&self) -> bool {
        self.additional.is_some()
            || !(self.listed || !self.properties.is_empty() || !self.patterns.is_empty())
    }
}

/// Whether a text matches a pattern.
pub(super) type Matches<'m> = &'m dyn Fn(&str, &str) -> Result<bool, String>;

fn least(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
