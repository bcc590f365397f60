//! What is refused before the library sees it, because it could exhaust the stack, the memory or
//! the time of the machine. What remains is bounded by the library's own fuel.

use serde_json::Value;

/// Bytes of a grammar's source.
const MAX_SOURCE_BYTES: usize = 256 * 1024;
/// Brackets, objects and lists within each other.
const MAX_DEPTH: usize = 128;
/// Properties of one object: the work grows with their square.
const MAX_PROPERTIES: usize = 1000;
/// Repetitions that are written out, item by item.
const MAX_REPETITIONS: u64 = 4096;
/// Names of `patternProperties` in all of a schema: each is compared with each.
const MAX_PATTERNS: usize = 64;
/// References in all of a schema: the library follows a chain of them by recursion.
const MAX_REFERENCES: usize = 2000;
/// Lines of a Lark grammar, and so its rules: the library follows a chain of them by recursion.
const MAX_LINES: usize = 1000;
/// Bars of a Lark grammar, and so its alternatives: the work grows with their square.
const MAX_BARS: usize = 5000;
/// Schema keywords whose number is a count of items that are written out.
const COUNTS: [&str; 4] = ["minItems", "maxItems", "minProperties", "maxProperties"];

/// Refuses schemas that are too long, too deep, or count too far.
pub(crate) fn check_schema(schema: &Value) -> Result<(), String> {
    if !matches!(schema, Value::Object(_) | Value::Bool(_)) {
        return Err(format!("expected an object, got {}", shortened(&schema.to_string())));
    }
    check_bytes(schema.to_string().len())?;
    let mut counts = Counts::default();
    check_value(schema, 0, &mut counts)?;
    counts.check()
}

/// What is counted over all of a grammar.
#[derive(Default)]
struct Counts {
    patterns: usize,
    references: usize,
}

impl Counts {
    fn check(&self) -> Result<(), String> {
        let Self { patterns, references } = self;
        if *patterns > MAX_PATTERNS {
            return Err(format!(
                "patternProperties has {patterns} patterns; at most {MAX_PATTERNS} work"
            ));
        }
        if *references > MAX_REFERENCES {
            return Err(format!("it has {references} $ref; at most {MAX_REFERENCES} work"));
        }
        Ok(())
    }
}

fn check_value(value: &Value, depth: usize, counts: &mut Counts) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("values are nested more than {MAX_DEPTH} deep; flatten it with $defs"));
    }
    match value {
        Value::Array(items) => {
            items.iter().try_for_each(|item| check_value(item, depth + 1, counts))
        }
        Value::Object(fields) if fields.len() > MAX_PROPERTIES => {
            Err(format!("an object lists {} names; at most {MAX_PROPERTIES} work", fields.len()))
        }
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| {
            let count = value.as_f64().filter(|_| COUNTS.contains(&key.as_str()));
            if count.is_some_and(|count| count > MAX_REPETITIONS as f64) {
                return Err(format!("{key} is {value}; at most {MAX_REPETITIONS} works"));
            }
            counts.references += usize::from(key == "$ref");
            if key == "patternProperties" {
                counts.patterns += value.as_object().map_or(0, serde_json::Map::len);
            }
            check_value(value, depth + 1, counts)
        }),
        _ => Ok(()),
    }
}

/// Refuses patterns that are too long or too deep.
pub(super) fn check_regex(pattern: &str) -> Result<(), String> {
    check_bytes(pattern.len())?;
    check_brackets(pattern)
}

/// Refuses grammars that are too long, have too many rules, or are too deep.
pub(super) fn check_lark(source: &str) -> Result<(), String> {
    check_bytes(source.len())?;
    let lines = source.lines().count();
    if lines > MAX_LINES {
        return Err(format!("it has {lines} lines; at most {MAX_LINES} work"));
    }
    let bars = source.bytes().filter(|&byte| byte == b'|').count();
    if bars > MAX_BARS {
        return Err(format!("it has {bars} alternatives; at most {MAX_BARS} work"));
    }
    check_brackets(source)?;
    let mut counts = Counts::default();
    for (at, keyword) in source.match_indices("%json") {
        // Whatever follows that is no JSON the library refuses.
        let rest = &source[at + keyword.len()..];
        let schema = serde_json::Deserializer::from_str(rest).into_iter::<Value>().next();
        if let Some(Ok(schema)) = schema {
            check_value(&schema, 0, &mut counts)?;
        }
    }
    counts.check()
}

/// Refuses a choice of nothing, or of too much.
pub(super) fn check_choices(choices: &[String]) -> Result<(), String> {
    if choices.is_empty() {
        return Err("there is nothing to choose from; give at least one text".to_owned());
    }
    if let Some(index) = choices.iter().position(String::is_empty) {
        return Err(format!("choice {index} is empty; leave it out"));
    }
    check_bytes(choices.iter().map(String::len).sum())
}

fn check_bytes(bytes: usize) -> Result<(), String> {
    if bytes > MAX_SOURCE_BYTES {
        return Err(format!("it has {bytes} bytes; at most {MAX_SOURCE_BYTES} work"));
    }
    Ok(())
}

/// Counts brackets as if none were quoted: strict enough, and never fooled.
fn check_brackets(source: &str) -> Result<(), String> {
    let mut depth = 0_usize;
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(format!(
                "brackets are nested more than {MAX_DEPTH} deep; name parts of it"
            ));
        }
    }
    Ok(())
}

/// The beginning of a text that is only shown.
fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}
