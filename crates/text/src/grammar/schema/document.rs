//! The places of a schema's document, and what its references point to.

use std::collections::HashMap;
use std::ptr;

use serde_json::Value;

/// A schema at its place in the document, or what it does not accept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    pub(super) schema: &'a Value,
    /// A value that the schema accepts is not accepted, and the other way round.
    pub(super) negated: bool,
}

impl<'a> Node<'a> {
    pub(super) fn new(schema: &'a Value) -> Self {
        Self { schema, negated: false }
    }

    pub(super) fn not(schema: &'a Value) -> Self {
        Self { schema, negated: true }
    }

    /// Equal for the same place of the document only.
    pub(super) fn key(self) -> (usize, bool) {
        (ptr::from_ref(self.schema).addr(), self.negated)
    }
}

/// What one value has to satisfy: all of these schemas. None of them means any value.
pub(super) type Position<'a> = Vec<Node<'a>>;

/// Adds schemas to a position; those that are there stay alone.
pub(super) fn join<'a>(position: &mut Position<'a>, more: &[Node<'a>]) {
    for node in more {
        if position.iter().all(|known| known.key() != node.key()) {
            position.push(*node);
        }
    }
}

/// A schema with all that references within it may name.
pub(super) struct Document<'a> {
    pub(super) root: &'a Value,
    /// The values of `$id`, and of `$anchor` with `#` before it.
    names: HashMap<String, &'a Value>,
}

impl<'a> Document<'a> {
    pub(super) fn new(root: &'a Value) -> Self {
        let mut names = HashMap::new();
        let mut waiting = vec![root];
        while let Some(value) = waiting.pop() {
            match value {
                Value::Object(fields) => {
                    for key in ["$id", "id"] {
                        if let Some(id) = fields.get(key).and_then(Value::as_str) {
                            names.insert(id.trim_end_matches('#').to_owned(), value);
                        }
                    }
                    for key in ["$anchor", "$dynamicAnchor"] {
                        if let Some(anchor) = fields.get(key).and_then(Value::as_str) {
                            names.insert(format!("#{anchor}"), value);
                        }
                    }
                    waiting.extend(fields.values());
                }
                Value::Array(items) => waiting.extend(items),
                _ => {}
            }
        }
        Self { root, names }
    }

    /// What a `$ref` points to.
    pub(super) fn resolve(&self, reference: &str) -> Result<&'a Value, String> {
        let (base, pointer) = reference.split_once('#').unwrap_or((reference, ""));
        let within = if base.is_empty() { Some(self.root) } else { self.names.get(base).copied() };
        let Some(within) = within else {
            return Err(format!(
                "$ref {reference:?} leads out of the schema; put its target into $defs and write \
                 \"#/$defs/…\""
            ));
        };
        let pointer = decoded(pointer);
        let target = match pointer.as_str() {
            "" => Some(within),
            path if path.starts_with('/') => within.pointer(path),
            anchor => self.names.get(&format!("#{anchor}")).copied(),
        };
        target.ok_or_else(|| format!("$ref {reference:?} points to nothing in the schema"))
    }
}

/// A fragment without its percent signs: `%24defs` is `$defs`.
fn decoded(fragment: &str) -> String {
    let mut parts = fragment.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).map(|code| u8::from_str_radix(code, 16)) {
            Some(Ok(byte)) => {
                bytes.push(byte);
                bytes.extend(part.bytes().skip(2));
            }
            _ => {
                bytes.push(b'%');
                bytes.extend(part.bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
