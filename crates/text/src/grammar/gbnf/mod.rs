//! Grammars in the notation of llama.cpp (GBNF) and xgrammar (EBNF), as Lark grammars.
//!
//! In these notations a grammar says letter by letter what a text is. The library of this crate cuts
//! a text into the longest words that its terminals match, and then parses words. Both agree for a
//! grammar without recursion, which is one regular expression, and where the next letter always says
//! how to go on ([`deterministic`]). All other grammars become words of one letter each.

mod deterministic;
mod parse;

use std::fmt::Write as _;

use deterministic::Letters;
use llguidance::regex_to_lark;
use parse::Expr;

use super::quoted;

/// Whether a grammar is in this notation: a line of it begins with `name ::=`.
pub(super) fn is_gbnf(source: &str) -> bool {
    source.lines().any(|line| {
        line.split_once("::=").is_some_and(|(name, _)| {
            let name = name.trim();
            !name.is_empty() && name.chars().all(parse::is_name)
        })
    })
}

/// The same grammar in the Lark dialect.
pub(super) fn to_lark(source: &str) -> Result<String, String> {
    let rules = parse::rules(source)?.with_words();
    let recursive = rules.recursive();
    let whole_words = deterministic::is_deterministic(&rules, &recursive);
    let letters = Letters::new(&rules);
    let writer = Writer { recursive: &recursive, whole_words };
    let mut lark = format!("start: {}\n", writer.reference(rules.root));
    for (at, body) in rules.bodies.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = if writer.is_word(at) {
            let word = regex_to_lark(&rules.pattern(at), "");
            // A word has letters; where it may be empty, its rule leaves it out.
            writeln!(
                lark,
                "W{at}: /{word}/ & /(?s:.+)/\nw{at}: W{at}{}",
                if letters.nullable(body) { " | \"\"" } else { "" }
            )
        } else {
            writeln!(lark, "r{at}: {}", writer.rule(body))
        };
    }
    Ok(lark)
}

struct Writer<'g> {
    recursive: &'g [bool],
    whole_words: bool,
}

impl Writer<'_> {
    fn is_word(&self, rule: usize) -> bool {
        self.whole_words && !self.recursive[rule]
    }

    fn reference(&self, rule: usize) -> String {
        format!("{}{rule}", if self.is_word(rule) { 'w' } else { 'r' })
    }

    /// An expression as part of a rule.
    fn rule(&self, expr: &Expr) -> String {
        match expr {
            Expr::Text(text) if text.is_empty() => "\"\"".to_owned(),
            Expr::Text(text) if self.whole_words => quoted(text),
            Expr::Text(text) => {
                let letters = text.chars().map(|letter| quoted(letter.encode_utf8(&mut [0; 4])));
                format!("({})", letters.collect::<Vec<_>>().join(" "))
            }
            Expr::Ref(rule) => self.reference(*rule),
            Expr::Class(ranges) => format!("/{}/", parse::class(ranges)),
            Expr::Sequence(parts) => self.joined(parts, " "),
            Expr::Choice(parts) => self.joined(parts, " | "),
            Expr::Repeat(_, _, Some(0)) => "\"\"".to_owned(),
            Expr::Repeat(body, min, max) => {
                let max = max.map_or(String::new(), |max| max.to_string());
                format!("({}){{{min},{max}}}", self.rule(body))
            }
            Expr::Token(token) => token.clone(),
        }
    }

    fn joined(&self, parts: &[Expr], between: &str) -> String {
        let parts: Vec<String> = parts.iter().map(|part| self.rule(part)).collect();
        if parts.is_empty() { "\"\"".to_owned() } else { format!("({})", parts.join(between)) }
    }
}
