//! Schemas within Lark grammars: `%json { … }` becomes a rule.

use serde_json::Value;

use super::{limits, schema};

/// A grammar in which every `%json` is replaced by the name of a rule, and those rules after it.
pub(super) fn with_schemas(source: &str) -> Result<String, String> {
    let mut written = String::new();
    let mut rules = String::new();
    let mut rest = source;
    for number in 0.. {
        let Some(at) = next_schema(rest) else { break };
        let (before, after) = rest.split_at(at);
        let after = &after["%json".len()..];
        let mut values = serde_json::Deserializer::from_str(after).into_iter::<Value>();
        let value = values.next().unwrap_or(Ok(Value::Null));
        let value = value.map_err(|error| format!("%json is followed by no JSON: {error}"))?;
        rest = &after[values.byte_offset()..];
        let prefix = unused(source, number);
        limits::check_schema(&value)?;
        rules.push_str(&schema::compile(&value, &prefix)?.rules);
        written.push_str(&format!("{before}{prefix}0 "));
        limits::check_length(rules.len())?;
    }
    written.push_str(rest);
    Ok(format!("{written}\n{rules}"))
}

/// A beginning of names that the source does not have.
fn unused(source: &str, number: usize) -> String {
    let mut prefix = format!("json{number}_");
    while source.to_lowercase().contains(&prefix) {
        prefix.insert(0, 'x');
    }
    prefix
}

/// Where the next `%json` is that is not quoted.
fn next_schema(source: &str) -> Option<usize> {
    let bytes = source.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        at += match rest {
            [b'%', ..] if rest.starts_with(b"%json") => return Some(at),
            [b'/', b'/', ..] | [b'#', ..] => {
                rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())
            }
            [quote @ (b'"' | b'/'), ..] => quoted(rest, *quote),
            _ => 1,
        };
    }
    None
}

/// The length of what begins with a quote, up to the one that ends it.
fn quoted(bytes: &[u8], quote: u8) -> usize {
    let mut escaped = false;
    for (at, &byte) in bytes.iter().enumerate().skip(1) {
        if escaped {
            escaped = false;
        } else if byte == quote {
            return at + 1;
        } else {
            escaped = byte == b'\\';
        }
    }
    bytes.len()
}
