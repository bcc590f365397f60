//! Jinja as `transformers` renders it: jinja2's sandbox with `trim_blocks`, `lstrip_blocks` and loop
//! controls, over the engine of `minijinja`.
//!
//! The engine is close to jinja2 and not equal. What differs is put right in three places: the parsed
//! template is rewritten, so that operators follow Python's rules ([`rewrite`]); filters, tests, globals
//! and methods are Python's where the engine's are not ([`filters`], [`methods`]); and values print as
//! Python prints them ([`python`]). A template that asks for what is not here is refused when it is
//! loaded, by name. `tests/jinja.rs` holds all of it against jinja2.
//!
//! A template comes with a model from strangers: each rendering has a [`Budget`] of steps and of bytes.
//!
//! | file | what it holds |
//! |---|---|
//! | `rewrite` | the parsed template with Python's operators; what is refused |
//! | `source` | what is done to the text of a template before it is parsed |
//! | `arguments` | arguments by place or by name, as Python binds them |
//! | `python` | how values print, compare and count |
//! | `filters`, `tests`, `globals` | by name |
//! | `operators`, `printf` | `+`, slices and their like; `%` on texts |
//! | `methods`, `strings`, `letters` | methods of dictionaries, lists and texts |
//! | `keep` | what a variable may hold |
//! | `json`, `strftime`, `wrap` | `tojson`; dates; breaking and shortening of texts |

mod arguments;
mod filters;
mod globals;
mod json;
mod keep;
mod letters;
mod methods;
mod operators;
mod printf;
mod python;
mod rewrite;
mod source;
mod strftime;
mod strings;
mod tests;
mod wrap;

use std::collections::BTreeSet;

use minijinja::machinery::{CodeGenerator, eval, make_string_output, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};

pub(crate) use globals::RaisedByTemplate;

/// The name of the only template in the environment; error messages show it.
const NAME: &str = "chat_template";

/// Instructions that one rendering may run: a thousand times what the longest conversation needs.
const FUEL: u64 = 20_000_000;

/// Bytes that one rendering may write and pass through filters, methods and operators.
const MOST_BYTES: usize = 256 << 20;

/// The longest template: the largest that people publish have a twentieth of it.
const LONGEST_SOURCE_BYTES: usize = 1 << 20;

/// The most that a template may nest blocks; the parser and the tree are recursive.
const DEEPEST: usize = 100;

/// Operators of one expression, for the same reason.
const MOST_OPERATORS: usize = 600;

/// A template that compiles, and uses nothing that is not here.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    environment: Environment<'static>,
    source: String,
    /// The variables that the template reads.
    variables: BTreeSet<String>,
}

impl Program {
    /// Compiles a template.
    pub(crate) fn new(source: &str) -> Result<Self, Error> {
        if source.len() > LONGEST_SOURCE_BYTES {
            return Err(refusal(format!(
                "the template has {} bytes; expected at most {LONGEST_SOURCE_BYTES}",
                source.len()
            )));
        }
        let source = source::prepared(source);
        source::check_depth(&source)?;
        let mut program = Self { environment: environment(), source, variables: BTreeSet::new() };
        program.variables = {
            let tree = parse(&program.source, NAME, syntax()?)?;
            rewrite::rewritten(&tree, true)?.1
        };
        Ok(program)
    }

    /// Whether the template reads a variable of this name.
    pub(crate) fn reads(&self, variable: &str) -> bool {
        self.variables.contains(variable)
    }

    /// Renders the template with these variables.
    pub(crate) fn render(&self, variables: Value) -> Result<String, Error> {
        let tree = parse(&self.source, NAME, syntax()?)?;
        let (tree, _) = rewrite::rewritten(&tree, false)?;
        let mut generator = CodeGenerator::new(NAME, &self.source);
        generator.compile_stmt(&tree);
        let (instructions, blocks) = generator.finish();
        let mut text = String::new();
        let mut output = make_string_output(&mut text);
        eval(&self.environment, &instructions, variables, &blocks, &mut output, AutoEscape::None)?;
        Ok(text)
    }
}

fn syntax() -> Result<SyntaxConfig, Error> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(|output, state, value| {
        let text = python::display(value)?;
        let text = if *state.auto_escape() == AutoEscape::None || value.is_safe() {
            text
        } else {
            python::escaped(&text)
        };
        spend(state, text.len())?;
        Ok(output.write_str(&text)?)
    });
    environment.set_unknown_method_callback(methods::call);
    keep::install(&mut environment);
    filters::install(&mut environment);
    tests::install(&mut environment);
    globals::install(&mut environment);
    environment
}

/// Bytes that a rendering has moved so far.
#[derive(Debug, Default)]
struct Budget {
    spent: usize,
}

/// Takes bytes out of the budget of a rendering.
fn spend(state: &mut State<'_, '_>, bytes: usize) -> Result<(), Error> {
    let budget = state.get_or_insert_extension_with(Budget::default);
    budget.spent = budget.spent.saturating_add(bytes);
    if budget.spent > MOST_BYTES {
        let problem = format!("it writes and copies more than {MOST_BYTES} bytes");
        return Err(Error::new(ErrorKind::OutOfFuel, problem));
    }
    Ok(())
}

/// An error about what a template asks for.
fn refusal(problem: String) -> Error {
    Error::new(ErrorKind::SyntaxError, problem)
}

/// An error about a value, in Python's words where it is an operator's.
fn fault(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.into())
}
