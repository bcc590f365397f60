//! Grammars in the notation of llama.cpp: what they allow is what a naive matcher finds.
#![allow(clippy::unwrap_used)]

mod fixtures;

use bantam_text::{EncodeOptions, Grammar, GrammarSpec, Tokenizer};
use fixtures::{compiler, is_allowed, read, smollm2};
use proptest::prelude::*;

fn admits(grammar: &Grammar, tokenizer: &Tokenizer, answer: &str) -> bool {
    let mut matcher = grammar.matcher();
    let ids = tokenizer.encode(answer, EncodeOptions::default()).unwrap();
    ids.into_iter().all(|id| matcher.accept(id).is_ok())
        && matcher.allowed().is_ok_and(|allowed| is_allowed(allowed, tokenizer.eos()[0]))
}

fn check(tokenizer: &Tokenizer, source: &str, allowed: &[&str], forbidden: &[&str]) {
    let spec = GrammarSpec::Lark(source.to_owned());
    let grammar =
        compiler(tokenizer).compile(&spec).unwrap_or_else(|error| panic!("{source}: {error}"));
    for text in allowed {
        assert!(admits(&grammar, tokenizer, text), "{source} should allow {text:?}");
    }
    for text in forbidden {
        assert!(!admits(&grammar, tokenizer, text), "{source} should forbid {text:?}");
    }
}

#[test]
fn the_notation_is_read_as_its_users_write_it() {
    let tokenizer = smollm2();
    check(&tokenizer, "root ::= \"yes\" | \"no\"", &["yes", "no"], &["", "yesno", "maybe"]);
    check(
        &tokenizer,
        "# dates\nroot ::= [0-9]{4} \"-\" month # more\nmonth ::= \"0\" [1-9] |\n  \"1\" [0-2]\n",
        &["2024-05", "1999-12"],
        &["2024-13", "24-05"],
    );
    check(
        &tokenizer,
        "root ::= \"\\\"\" [^\"\\\\]* \"\\\"\" \"\\u00e9\" \"\\x41\" \"\\U0001F600\"",
        &["\"ab\"éA😀"],
        &["\"ab\"éA"],
    );
    check(
        &tokenizer,
        "root ::= . [\\]\\-a] two-words{2,}\ntwo-words ::= (\"x\" | \"yy\"?) \".\"",
        &["é]x..", "b-yy.yy."],
        &["bbx.", "b]x."],
    );
    // The longest word is not the right one.
    check(
        &tokenizer,
        "root ::= [a-z]+ \"b\" root | [a-z]+ \"b\"",
        &["ab", "bb", "abab"],
        &["a", "b", "ba"],
    );
    // A word of a language that recursion brackets.
    check(
        &tokenizer,
        "root ::= list\nlist ::= \"[\" (item (\", \" item)*)? \"]\"\nitem ::= [0-9]+ | list",
        &["[]", "[1, 22, [3]]", "[[[]]]"],
        &["[1 ]", "[", "[1,2]"],
    );
    let left = "root ::= sum\nsum ::= sum \"+\" [0-9]+ | [0-9]+";
    check(&tokenizer, left, &["1", "12+3+4"], &["+", "1+"]);
    let json = r#"root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws (string ":" ws value ("," ws string ":" ws value)*)? "}" ws
array  ::= "[" ws (value ("," ws value)*)? "]" ws
string ::= "\"" ([^"\\\x7F\x00-\x1F] | [\\] (["\\bfnrt] | "u" [0-9a-fA-F]{4}))* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"#;
    check(
        &tokenizer,
        json,
        &["{\"a\": [1, 2.5e3, \"x\\n\", {}], \"b\": null}"],
        &["{\"a\": }", "[1]", "{\"a\" 1}"],
    );
}

#[test]
fn what_is_wrong_is_said() {
    let compiler = compiler(&smollm2());
    for (source, part) in [
        ("start ::= \"a\"", "no rule is called root"),
        ("root ::= other", "rule other is referred to and not defined"),
        ("root ::= \"a\nroot ::= ", "the end of a text or class"),
        ("root ::= (\"a\"", "expected \")\""),
        ("root ::= \"a\"{5,2}", "{m,n} up to 4096"),
        ("root ::= \"a\"\nroot ::= \"b\"", "rule root is defined twice"),
        ("root ::= \"\\q\"", "an escape"),
        ("root ::= [z-a]", "from the smaller to the larger"),
    ] {
        let error = compiler
            .compile(&GrammarSpec::Lark(source.into()))
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{source:?}: {error}");
    }
}

/// An expression over the letters a, b and c; `Ref` is one of three rules.
#[derive(Debug, Clone)]
enum Expr {
    Text(String),
    Class(bool, Vec<char>),
    Ref(usize),
    Sequence(Vec<Expr>),
    Choice(Vec<Expr>),
    Repeat(Box<Expr>, usize, usize),
}

fn exprs() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        "[abc]{0,2}".prop_map(Expr::Text),
        (any::<bool>(), prop::collection::vec(prop::sample::select(vec!['a', 'b', 'c']), 1..3))
            .prop_map(|(negated, letters)| Expr::Class(negated, letters)),
        (0_usize..3).prop_map(Expr::Ref),
    ];
    leaf.prop_recursive(3, 10, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Expr::Sequence),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Expr::Choice),
            (inner, 0_usize..3, 0_usize..3).prop_map(|(body, min, more)| Expr::Repeat(
                Box::new(body),
                min,
                min + more
            )),
        ]
    })
}

const NAMES: [&str; 3] = ["root", "second-rule", "third_rule"];

fn written(expr: &Expr) -> String {
    let joined = |parts: &[Expr], between: &str| {
        format!("({})", parts.iter().map(written).collect::<Vec<_>>().join(between))
    };
    match expr {
        Expr::Text(text) => format!("\"{text}\""),
        Expr::Class(negated, letters) => {
            format!("[{}{}]", if *negated { "^" } else { "" }, letters.iter().collect::<String>())
        }
        Expr::Ref(rule) => NAMES[*rule].to_owned(),
        Expr::Sequence(parts) => joined(parts, " "),
        Expr::Choice(parts) => joined(parts, " | "),
        Expr::Repeat(body, 0, 2) => format!("({})*", written(body)),
        Expr::Repeat(body, 1, 3) => format!("({})+", written(body)),
        Expr::Repeat(body, 0, 1) => format!("({})?", written(body)),
        Expr::Repeat(body, min, max) => format!("({}){{{min},{max}}}", written(body)),
    }
}

/// Which parts of a text each rule matches, found by trying until nothing new is found.
struct Naive<'a> {
    text: &'a [char],
    rules: &'a [Expr],
    /// For each rule and beginning: the ends.
    known: Vec<Vec<std::collections::BTreeSet<usize>>>,
}

impl Naive<'_> {
    fn matches(mut self) -> bool {
        loop {
            let before = self.known.clone();
            for rule in 0..self.rules.len() {
                for from in 0..=self.text.len() {
                    let ends = self.ends(&self.rules[rule].clone(), from);
                    self.known[rule][from].extend(ends);
                }
            }
            if self.known == before {
                return self.known[0][0].contains(&self.text.len());
            }
        }
    }

    fn ends(&self, expr: &Expr, from: usize) -> Vec<usize> {
        let each = |ends: Vec<usize>, part: &Expr| {
            let mut all: Vec<usize> =
                ends.into_iter().flat_map(|end| self.ends(part, end)).collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        match expr {
            Expr::Text(text) => {
                let letters: Vec<char> = text.chars().collect();
                if self.text[from..].starts_with(&letters) {
                    vec![from + letters.len()]
                } else {
                    vec![]
                }
            }
            Expr::Class(negated, letters) => match self.text.get(from) {
                Some(letter) if letters.contains(letter) != *negated => vec![from + 1],
                _ => vec![],
            },
            Expr::Ref(rule) => self.known[*rule][from].iter().copied().collect(),
            Expr::Sequence(parts) => parts.iter().fold(vec![from], each),
            Expr::Choice(parts) => parts.iter().flat_map(|part| self.ends(part, from)).collect(),
            Expr::Repeat(body, min, max) => {
                // What is written as * and + has no end.
                let most =
                    if matches!((min, max), (0, 2) | (1, 3)) { self.text.len() + 2 } else { *max };
                let mut all = Vec::new();
                let mut ends = vec![from];
                for count in 0..=most {
                    if count >= *min {
                        all.extend(&ends);
                    }
                    ends = each(ends, body);
                }
                all
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn random_grammars_allow_what_a_naive_matcher_finds(
        bodies in prop::collection::vec(exprs(), 3),
        texts in prop::collection::vec("[abc]{0,6}", 12),
    ) {
        let tokenizer = read("byte_level");
        let source: String = bodies.iter().zip(NAMES)
            .map(|(body, name)| format!("{name} ::= {}\n", written(body)))
            .collect();
        let compiled = compiler(&tokenizer).compile(&GrammarSpec::Lark(source.clone()));
        for text in texts {
            let letters: Vec<char> = text.chars().collect();
            let known = vec![vec![Default::default(); letters.len() + 1]; 3];
            let expected = Naive { text: &letters, rules: &bodies, known }.matches();
            match &compiled {
                Ok(grammar) => prop_assert_eq!(admits(grammar, &tokenizer, &text), expected, "{}{:?}", source, text),
                Err(error) => prop_assert!(!expected, "{}{:?}: {}", source, text, error),
            }
        }
    }
}
