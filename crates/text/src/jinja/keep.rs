//! What a variable may hold.
//!
//! Only through variables can a loop build a value as deep as it runs long; dropping such a value would
//! overflow the stack. So every assignment looks at what it keeps.

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, State, Value};

use super::methods::engine_type;
use super::{fault, spend};

/// Deeper than anything that a conversation or a template of people holds.
const DEEPEST: usize = 160;

/// The filter that assigned values go through; `inside` says that a namespace takes the value.
pub(super) const KEEP: &str = "set";

pub(super) fn install(environment: &mut Environment<'static>) {
    environment.add_filter(KEEP, |state: &mut State<'_, '_>, value: Value, inside: bool| {
        let mut nodes = 0;
        check(&value, inside, 0, &mut nodes)?;
        spend(state, nodes)?;
        Ok::<Value, Error>(value)
    });
}

fn check(value: &Value, inside: bool, depth: usize, nodes: &mut usize) -> Result<(), Error> {
    *nodes += 1;
    if depth > DEEPEST {
        return Err(fault(format!("a value nests more than {DEEPEST} times")));
    }
    match value.kind() {
        ValueKind::Map => {
            match engine_type(value) {
                // A namespace that held itself would never be freed.
                "Namespace" if inside => {
                    return Err(fault("a namespace cannot be kept in a namespace"));
                }
                "Loop" | "Macro" => return Ok(()),
                _ => {}
            }
            for key in value.try_iter()? {
                check(&value.get_item(&key)?, inside, depth + 1, nodes)?;
            }
        }
        ValueKind::Seq | ValueKind::Iterable => {
            for item in value.try_iter()? {
                check(&item, inside, depth + 1, nodes)?;
            }
        }
        _ => {}
    }
    Ok(())
}
