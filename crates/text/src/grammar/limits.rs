//! What is refused before the library sees it, because it could exhaust the stack, the memory or
//! the time of the machine. What remains is bounded by the library's own fuel.

use serde_json::Value;

/// Bytes of a grammar's source.
const MAX_SOURCE_BYTES: usize = 256 * 1024;
/// Brackets, objects and lists within each other.
const MAX_DEPTH: usize = 128;
/// Names of one object.
const MAX_NAMES: usize = 1000;
/// References in all of a schema.
const MAX_REFERENCES: usize = 2000;
/// Lines of a Lark grammar, and so its rules: the library follows a chain of them by recursion.
const MAX_LINES: usize = 1000;
/// Bars of a Lark grammar, and so its alternatives: the work grows with their square.
const MAX_BARS: usize = 5000;
/// Bytes of a pattern within a schema.
const MAX_PATTERN_BYTES: usize = 4096;

/// Values of a schema that differ in what they satisfy.
pub(super) const MAX_RULES: usize = 4000;
/// Properties of all objects of a schema, one that several places refer to counted once.
pub(super) const MAX_ALL_PROPERTIES: usize = 4000;
/// Alternatives of the rules that a schema becomes.
pub(super) const MAX_WRITTEN: usize = 20_000;
/// Constants in a list without repetitions.
pub(super) const MAX_SET: usize = 64;
/// Bytes of the rules that schemas become.
const MAX_RULE_BYTES: usize = 2 << 20;
/// Patterns of `patternProperties` of one object, and the comparisons of names with them.
const MAX_PATTERNS: usize = 16;
const MAX_COMPARISONS: usize = 1000;
/// Letters of the shortest text that a pattern matches.
pub(super) const MAX_PATTERN_LETTERS: usize = 1000;

/// The most that a keyword may count to: the library tells every count apart.
const COUNTS: [(&str, u64); 7] = [
    ("enum", 10_000),
    ("minItems", 4096),
    ("maxItems", 4096),
    ("minProperties", 1000),
    ("maxProperties", 4096),
    ("minLength", 4096),
    ("maxLength", 20_000),
];

/// The most that `minItems` of all lists may count to.
pub(super) const MAX_LEAST_ITEMS: usize = 20_000;

/// Refuses a count of a schema that goes too far.
pub(super) fn check_count(keyword: &str, count: u64) -> Result<(), String> {
    match COUNTS.iter().find(|(known, most)| *known == keyword && count > *most) {
        Some((_, most)) => Err(format!(
            "{keyword} is {count}; at most {most} works; leave it out, and check it afterwards"
        )),
        None => Ok(()),
    }
}

/// Refuses schemas that are too long or too deep.
pub(super) fn check_schema(schema: &Value) -> Result<(), String> {
    if !matches!(schema, Value::Object(_) | Value::Bool(_)) {
        return Err(format!("expected an object, got {}", shortened(&schema.to_string())));
    }
    check_bytes(schema.to_string().len())?;
    let mut references = 0;
    check_value(schema, 0, &mut references)?;
    if references > MAX_REFERENCES {
        return Err(format!("it has {references} $ref; at most {MAX_REFERENCES} work"));
    }
    Ok(())
}

fn check_value(value: &Value, depth: usize, references: &mut usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("values are nested more than {MAX_DEPTH} deep; flatten it with $defs"));
    }
    match value {
        Value::Array(items) => {
            items.iter().try_for_each(|item| check_value(item, depth + 1, references))
        }
        Value::Object(fields) if fields.len() > MAX_NAMES => {
            Err(format!("an object lists {} names; at most {MAX_NAMES} work", fields.len()))
        }
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| {
            *references += usize::from(key == "$ref");
            check_value(value, depth + 1, references)
        }),
        _ => Ok(()),
    }
}

/// Refuses an object whose names take too much to be told apart by patterns.
pub(super) fn check_patterns(patterns: usize, names: usize) -> Result<(), String> {
    if patterns > MAX_PATTERNS {
        return Err(format!(
            "patternProperties has {patterns} patterns; at most {MAX_PATTERNS} work"
        ));
    }
    if patterns * names > MAX_COMPARISONS {
        return Err(format!(
            "patternProperties has {patterns} patterns beside {names} properties; at most \
             {MAX_COMPARISONS} pairs of a pattern and a property work"
        ));
    }
    Ok(())
}

/// Refuses patterns of a schema that are too long or too deep.
pub(super) fn check_pattern(pattern: &str) -> Result<(), String> {
    if pattern.len() > MAX_PATTERN_BYTES {
        let bytes = pattern.len();
        return Err(format!("has {bytes} bytes; at most {MAX_PATTERN_BYTES} work"));
    }
    check_brackets(pattern)
}

/// Refuses regular expressions that are too long or too deep.
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
    check_brackets(source)
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

/// Refuses rules that take too much to write down.
pub(super) fn check_length(bytes: usize) -> Result<(), String> {
    if bytes > MAX_RULE_BYTES {
        return Err(format!("its rules take {bytes} bytes; at most {MAX_RULE_BYTES} work"));
    }
    Ok(())
}
