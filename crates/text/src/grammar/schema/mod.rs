//! JSON schemas as grammars.
//!
//! Three steps, each bounded: [`expand`] brings the keywords that are about one value together, in
//! the language of [`form`]; [`shape`] makes rules of all values, so that recursion is a rule that
//! refers to itself; [`render`] writes them down for the library that walks them. What the schema
//! leaves open, the steps close: objects have no properties that are not listed unless the schema
//! says so, numbers and formats have digits that end, letters stand for themselves.

mod accept;
mod decimal;
mod document;
mod expand;
mod form;
mod formats;
mod keywords;
mod leaf;
mod minimal;
mod negate;
mod number;
mod render;
mod shape;
mod text;

use serde_json::Value;

pub(super) use leaf::{Leaf, escaped};
pub(super) use minimal::{Minimal, shortest_end};
pub(super) use shape::{ListShape, ObjectShape, RuleId, Shape, Shapes};

/// Schemas that refer to each other for one and the same value.
const MAX_DEPTH: usize = 64;

/// A schema as rules.
#[derive(Debug)]
pub(super) struct SchemaGrammar {
    pub(super) shapes: Shapes,
    pub(super) minimal: Minimal,
    /// The rules in the Lark dialect. Their names begin with the prefix that was asked for; the
    /// first is the prefix and `0`.
    pub(super) rules: String,
}

/// The rules of a schema that has been checked.
///
/// # Errors
/// It says something that is malformed, that cannot be enforced, that costs too much, or that no
/// value satisfies.
pub(super) fn compile(schema: &Value, prefix: &str) -> Result<SchemaGrammar, String> {
    let shapes = shape::shapes(schema)?;
    let minimal = Minimal::of(&shapes)?;
    let exist = minimal.exist();
    if !exist[0] {
        return Err("no text satisfies it: its keywords exclude each other".to_owned());
    }
    let rules = render::lark(&shapes, &exist, prefix)?;
    Ok(SchemaGrammar { shapes, minimal, rules })
}
