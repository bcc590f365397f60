//! A parsed template with Python's rules in place of the engine's.
//!
//! Operators whose rules differ become filters of names that no template can write (`%`, `~`), and so do
//! slices and what loops go through. On the way what is not here is found, and refused by name.

use std::collections::BTreeSet;

use minijinja::machinery::Span;
use minijinja::machinery::ast::{self, CallArg, CallType, Expr, Spanned, Stmt};
use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::keep::KEEP;
use super::{filters, globals, methods, refusal, tests};

/// The rewritten tree, and the variables that it reads.
///
/// With `check`, what the template asks for and is not here is an error.
pub(super) fn rewritten<'a>(
    tree: &Stmt<'a>,
    check: bool,
) -> Result<(Stmt<'a>, BTreeSet<String>), Error> {
    let mut rewriter = Rewriter {
        check,
        conditions: 0,
        read: BTreeSet::new(),
        set: BTreeSet::new(),
        macros: BTreeSet::new(),
    };
    let tree = rewriter.stmt(tree)?;
    let variables = rewriter.read.iter().map(|name| (*name).to_owned()).collect();
    Ok((tree, variables))
}

struct Rewriter<'a> {
    check: bool,
    /// Conditions around the place: what stands in one may never be reached, as jinja2 has it.
    conditions: usize,
    read: BTreeSet<&'a str>,
    set: BTreeSet<&'a str>,
    macros: BTreeSet<&'a str>,
}

/// The filter `name` on `subject`.
fn filter<'a>(name: &'a str, subject: Expr<'a>, arguments: Vec<Expr<'a>>, span: Span) -> Expr<'a> {
    let args = arguments.into_iter().map(CallArg::Pos).collect();
    Expr::Filter(Spanned::new(ast::Filter { name, expr: Some(subject), args }, span))
}

fn constant<'a>(value: Value, span: Span) -> Expr<'a> {
    Expr::Const(Spanned::new(ast::Const { value }, span))
}

/// A value that a variable keeps, or, `inside`, a namespace.
fn kept<'a>(value: Expr<'a>, inside: bool, span: Span) -> Expr<'a> {
    filter(KEEP, value, vec![constant(Value::from(inside), span)], span)
}

impl<'a> Rewriter<'a> {
    fn refuse(&self, span: Span, problem: String) -> Result<(), Error> {
        if self.check {
            Err(refusal(format!("{problem} (line {})", span.start_line)))
        } else {
            Ok(())
        }
    }

    fn stmts(&mut self, body: &[Stmt<'a>]) -> Result<Vec<Stmt<'a>>, Error> {
        body.iter().map(|stmt| self.stmt(stmt)).collect()
    }

    /// A body that may never be reached.
    fn conditional(&mut self, body: &[Stmt<'a>]) -> Result<Vec<Stmt<'a>>, Error> {
        self.conditions += 1;
        let body = self.stmts(body);
        self.conditions -= 1;
        body
    }

    fn stmt(&mut self, stmt: &Stmt<'a>) -> Result<Stmt<'a>, Error> {
        Ok(match stmt {
            Stmt::Template(s) => Stmt::Template(Spanned::new(
                ast::Template { children: self.stmts(&s.children)? },
                s.span(),
            )),
            Stmt::EmitExpr(s) => {
                Stmt::EmitExpr(Spanned::new(ast::EmitExpr { expr: self.expr(&s.expr)? }, s.span()))
            }
            // Written as a value, so that it counts against the bytes of a rendering.
            Stmt::EmitRaw(s) => {
                let expr = constant(Value::from_safe_string(s.raw.to_owned()), s.span());
                Stmt::EmitExpr(Spanned::new(ast::EmitExpr { expr }, s.span()))
            }
            Stmt::ForLoop(s) => Stmt::ForLoop(Spanned::new(
                ast::ForLoop {
                    target: self.target(&s.target)?,
                    iter: {
                        let iter = self.expr(&s.iter)?;
                        filter("for", iter, Vec::new(), s.span())
                    },
                    filter_expr: s.filter_expr.as_ref().map(|e| self.expr(e)).transpose()?,
                    recursive: s.recursive,
                    body: self.stmts(&s.body)?,
                    else_body: self.stmts(&s.else_body)?,
                },
                s.span(),
            )),
            Stmt::IfCond(s) => Stmt::IfCond(Spanned::new(
                ast::IfCond {
                    expr: self.expr(&s.expr)?,
                    true_body: self.conditional(&s.true_body)?,
                    false_body: self.conditional(&s.false_body)?,
                },
                s.span(),
            )),
            Stmt::WithBlock(s) => {
                Stmt::WithBlock(Spanned::new(self.with_block(s, s.span())?, s.span()))
            }
            Stmt::Set(s) => {
                let inside = matches!(s.target, Expr::GetAttr(_));
                let expr = kept(self.expr(&s.expr)?, inside, s.span());
                let target = self.target(&s.target)?;
                Stmt::Set(Spanned::new(ast::Set { target, expr }, s.span()))
            }
            Stmt::SetBlock(s) => Stmt::SetBlock(Spanned::new(
                ast::SetBlock {
                    target: self.target(&s.target)?,
                    filter: s.filter.as_ref().map(|e| self.expr(e)).transpose()?,
                    body: self.stmts(&s.body)?,
                },
                s.span(),
            )),
            Stmt::AutoEscape(s) => Stmt::AutoEscape(Spanned::new(
                ast::AutoEscape { enabled: self.expr(&s.enabled)?, body: self.stmts(&s.body)? },
                s.span(),
            )),
            Stmt::FilterBlock(s) => Stmt::FilterBlock(Spanned::new(
                ast::FilterBlock { filter: self.expr(&s.filter)?, body: self.stmts(&s.body)? },
                s.span(),
            )),
            Stmt::Block(s) => Stmt::Block(Spanned::new(
                ast::Block { name: s.name, required: s.required, body: self.stmts(&s.body)? },
                s.span(),
            )),
            Stmt::Macro(s) => Stmt::Macro(self.declaration(s, false)?),
            Stmt::CallBlock(s) => Stmt::CallBlock(Spanned::new(
                ast::CallBlock {
                    call: self.call(&s.call)?,
                    macro_decl: self.declaration(&s.macro_decl, true)?,
                },
                s.span(),
            )),
            Stmt::Continue(s) => Stmt::Continue(Spanned::new(ast::Continue, s.span())),
            Stmt::Break(s) => Stmt::Break(Spanned::new(ast::Break, s.span())),
            Stmt::Import(s) => return Err(other_templates("import", s.span())),
            Stmt::FromImport(s) => return Err(other_templates("from", s.span())),
            Stmt::Extends(s) => return Err(other_templates("extends", s.span())),
            Stmt::Include(s) => return Err(other_templates("include", s.span())),
            Stmt::Do(s) => {
                let line = s.span().start_line;
                return Err(refusal(format!(
                    "the tag do is not one of chat templates (line {line})"
                )));
            }
        })
    }

    fn with_block(
        &mut self,
        block: &ast::WithBlock<'a>,
        span: Span,
    ) -> Result<ast::WithBlock<'a>, Error> {
        let mut assignments = Vec::with_capacity(block.assignments.len());
        let mut earlier: BTreeSet<&str> = BTreeSet::new();
        for (target, value) in &block.assignments {
            let known = std::mem::take(&mut self.read);
            let value = self.expr(value)?;
            // All values are those of before the block; the engine has the new ones already.
            if let Some(name) = self.read.intersection(&earlier).next() {
                let problem =
                    format!("with reads {name}, which it sets itself; use two with blocks");
                self.refuse(span, problem)?;
            }
            self.read.extend(known);
            if let Expr::Var(name) = target {
                earlier.insert(name.id);
            }
            assignments.push((self.target(target)?, kept(value, false, span)));
        }
        Ok(ast::WithBlock { assignments, body: self.stmts(&block.body)? })
    }

    fn declaration(
        &mut self,
        s: &Spanned<ast::Macro<'a>>,
        is_call: bool,
    ) -> Result<Spanned<ast::Macro<'a>>, Error> {
        if !is_call {
            self.set.insert(s.name);
            self.macros.insert(s.name);
        }
        let known = std::mem::take(&mut self.read);
        let defaults: Vec<Expr<'a>> =
            s.defaults.iter().map(|e| self.expr(e)).collect::<Result<_, _>>()?;
        for argument in &s.args {
            if let Expr::Var(name) = argument
                && self.read.contains(name.id)
            {
                let problem = format!(
                    "a default of the macro {} reads its argument {}; set it in the macro",
                    s.name, name.id
                );
                self.refuse(s.span(), problem)?;
            }
        }
        let args = s.args.iter().map(|e| self.target(e)).collect::<Result<_, _>>()?;
        let body = self.stmts(&s.body)?;
        for special in ["varargs", "kwargs"] {
            if self.read.contains(special) {
                let problem = format!("{special} of the macro {} is not known here", s.name);
                self.refuse(s.span(), problem)?;
            }
        }
        self.read.extend(known);
        Ok(Spanned::new(ast::Macro { name: s.name, args, defaults, body }, s.span()))
    }

    /// What is assigned to.
    fn target(&mut self, target: &Expr<'a>) -> Result<Expr<'a>, Error> {
        Ok(match target {
            Expr::Var(s) => {
                self.set.insert(s.id);
                Expr::Var(Spanned::new(ast::Var { id: s.id }, s.span()))
            }
            Expr::GetAttr(s) => Expr::GetAttr(Spanned::new(
                ast::GetAttr { expr: self.expr(&s.expr)?, name: s.name },
                s.span(),
            )),
            Expr::List(s) => Expr::List(Spanned::new(
                ast::List {
                    items: s.items.iter().map(|e| self.target(e)).collect::<Result<_, _>>()?,
                },
                s.span(),
            )),
            Expr::Tuple(s) => Expr::Tuple(Spanned::new(
                ast::Tuple {
                    items: s.items.iter().map(|e| self.target(e)).collect::<Result<_, _>>()?,
                },
                s.span(),
            )),
            other => self.expr(other)?,
        })
    }

    fn exprs(&mut self, list: &[Expr<'a>]) -> Result<Vec<Expr<'a>>, Error> {
        list.iter().map(|expr| self.expr(expr)).collect()
    }

    fn expr(&mut self, expr: &Expr<'a>) -> Result<Expr<'a>, Error> {
        Ok(match expr {
            Expr::Var(s) => {
                self.read.insert(s.id);
                if s.id == "self" {
                    self.refuse(s.span(), "self is not known here; use a macro".to_owned())?;
                }
                if globals::UNKNOWN.contains(&s.id) && !self.set.contains(s.id) {
                    self.refuse(s.span(), format!("the function {} is not known here", s.id))?;
                }
                Expr::Var(Spanned::new(ast::Var { id: s.id }, s.span()))
            }
            Expr::Const(s) => constant(s.value.clone(), s.span()),
            Expr::Slice(s) => {
                let mut bound = |bound: &Option<Expr<'a>>| match bound {
                    Some(bound) => self.expr(bound),
                    None => Ok(constant(Value::from(()), s.span())),
                };
                let bounds = vec![bound(&s.start)?, bound(&s.stop)?, bound(&s.step)?];
                filter("[:]", self.expr(&s.expr)?, bounds, s.span())
            }
            Expr::UnaryOp(s) => {
                let operand = self.expr(&s.expr)?;
                match s.op {
                    ast::UnaryOpKind::Neg => filter("neg", operand, Vec::new(), s.span()),
                    ast::UnaryOpKind::Not => Expr::UnaryOp(Spanned::new(
                        ast::UnaryOp { op: ast::UnaryOpKind::Not, expr: operand },
                        s.span(),
                    )),
                }
            }
            Expr::BinOp(s) => self.operator(s)?,
            Expr::Compare(s) => self.comparison(s)?,
            Expr::IfExpr(s) => {
                let test_expr = self.expr(&s.test_expr)?;
                self.conditions += 1;
                let true_expr = self.expr(&s.true_expr);
                let false_expr = s.false_expr.as_ref().map(|e| self.expr(e)).transpose();
                self.conditions -= 1;
                Expr::IfExpr(Spanned::new(
                    ast::IfExpr { test_expr, true_expr: true_expr?, false_expr: false_expr? },
                    s.span(),
                ))
            }
            Expr::Filter(s) => {
                self.check_name("filter", s.name, filters::is_known(s.name), s.span())?;
                let filtered = Expr::Filter(Spanned::new(
                    ast::Filter {
                        name: s.name,
                        expr: s.expr.as_ref().map(|e| self.expr(e)).transpose()?,
                        args: self.args(&s.args)?,
                    },
                    s.span(),
                ));
                if s.expr.is_some() && filters::GENERATORS.contains(&s.name) {
                    filter("generator", filtered, Vec::new(), s.span())
                } else {
                    filtered
                }
            }
            Expr::Test(s) => {
                self.check_name("test", s.name, tests::is_known(s.name), s.span())?;
                Expr::Test(Spanned::new(
                    ast::Test {
                        name: s.name,
                        expr: self.expr(&s.expr)?,
                        args: self.args(&s.args)?,
                    },
                    s.span(),
                ))
            }
            Expr::GetAttr(s) => {
                if let Expr::Var(name) = &s.expr
                    && self.macros.contains(name.id)
                {
                    let problem = format!("{} of the macro {} is not known here", s.name, name.id);
                    self.refuse(s.span(), problem)?;
                }
                let subject = self.expr(&s.expr)?;
                if methods::is_attribute(s.name) {
                    let name = constant(Value::from(s.name), s.span());
                    filter(".", subject, vec![name], s.span())
                } else {
                    let attribute = ast::GetAttr { expr: subject, name: s.name };
                    Expr::GetAttr(Spanned::new(attribute, s.span()))
                }
            }
            Expr::GetItem(s) => Expr::GetItem(Spanned::new(
                ast::GetItem {
                    expr: self.expr(&s.expr)?,
                    subscript_expr: self.expr(&s.subscript_expr)?,
                },
                s.span(),
            )),
            Expr::Call(s) => Expr::Call(self.call(s)?),
            Expr::List(s) => {
                Expr::List(Spanned::new(ast::List { items: self.exprs(&s.items)? }, s.span()))
            }
            Expr::Tuple(s) => {
                Expr::Tuple(Spanned::new(ast::Tuple { items: self.exprs(&s.items)? }, s.span()))
            }
            Expr::Map(s) if s.keys.iter().any(is_truth) && s.keys.len() > 1 => {
                let problem = "true and false as keys beside others are not known here";
                self.refuse(s.span(), problem.to_owned())?;
                Expr::Map(Spanned::new(
                    ast::Map { keys: self.exprs(&s.keys)?, values: self.exprs(&s.values)? },
                    s.span(),
                ))
            }
            Expr::Map(s) => Expr::Map(Spanned::new(
                ast::Map { keys: self.exprs(&s.keys)?, values: self.exprs(&s.values)? },
                s.span(),
            )),
        })
    }

    fn operator(&mut self, s: &Spanned<ast::BinOp<'a>>) -> Result<Expr<'a>, Error> {
        use ast::BinOpKind as Kind;
        let left = self.expr(&s.left)?;
        let lazy = matches!(s.op, Kind::ScAnd | Kind::ScOr);
        self.conditions += usize::from(lazy);
        let right = self.expr(&s.right);
        self.conditions -= usize::from(lazy);
        let right = right?;
        let name = match s.op {
            Kind::Add => "+",
            Kind::Mul => "*",
            Kind::Rem => "%",
            Kind::Concat => "~",
            Kind::In => "in",
            Kind::Lt => "<",
            Kind::Lte => "<=",
            Kind::Gt => ">",
            Kind::Gte => ">=",
            op => return Ok(Expr::BinOp(Spanned::new(ast::BinOp { op, left, right }, s.span()))),
        };
        Ok(filter(name, left, vec![right], s.span()))
    }

    fn comparison(&mut self, s: &Spanned<ast::Compare<'a>>) -> Result<Expr<'a>, Error> {
        use ast::CompareOpKind as Kind;
        let first = self.expr(&s.expr)?;
        let mut ops = Vec::with_capacity(s.ops.len());
        for op in &s.ops {
            ops.push(ast::CompareOp { op: op.op, expr: self.expr(&op.expr)? });
        }
        let name = match (ops.len(), s.ops[0].op) {
            (1, Kind::Lt) => "<",
            (1, Kind::Lte) => "<=",
            (1, Kind::Gt) => ">",
            (1, Kind::Gte) => ">=",
            (1, Kind::In) => "in",
            (1, Kind::NotIn) => "not in",
            _ => {
                return Ok(Expr::Compare(Spanned::new(
                    ast::Compare { expr: first, ops },
                    s.span(),
                )));
            }
        };
        let right = ops.into_iter().map(|op| op.expr).collect();
        Ok(filter(name, first, right, s.span()))
    }

    fn call(&mut self, s: &Spanned<ast::Call<'a>>) -> Result<Spanned<ast::Call<'a>>, Error> {
        let expr = match s.identify_call() {
            CallType::Method(subject, name) => {
                if methods::is_missing(name) {
                    let problem = format!("the method {name} of Python is not known here");
                    self.refuse(s.span(), problem)?;
                }
                if let Expr::Const(text) = subject
                    && name == "format"
                    && let Some(problem) = methods::missing_format(&text.value)
                {
                    self.refuse(s.span(), problem)?;
                }
                let expr = self.expr(subject)?;
                Expr::GetAttr(Spanned::new(ast::GetAttr { expr, name }, s.span()))
            }
            CallType::Block(name) => {
                self.refuse(s.span(), format!("self.{name} is not known here; use a macro"))?;
                self.expr(&s.expr)?
            }
            _ => self.expr(&s.expr)?,
        };
        Ok(Spanned::new(ast::Call { expr, args: self.args(&s.args)? }, s.span()))
    }

    fn args(&mut self, args: &[CallArg<'a>]) -> Result<Vec<CallArg<'a>>, Error> {
        let arg = |arg: &CallArg<'a>| {
            Ok(match arg {
                CallArg::Pos(e) => CallArg::Pos(self.expr(e)?),
                CallArg::Kwarg(name, e) => CallArg::Kwarg(name, self.expr(e)?),
                CallArg::PosSplat(e) => CallArg::PosSplat(self.expr(e)?),
                CallArg::KwargSplat(e) => CallArg::KwargSplat(self.expr(e)?),
            })
        };
        args.iter().map(arg).collect()
    }

    /// A name that jinja2 does not know either is an error where it cannot be passed over.
    fn check_name(&self, what: &str, name: &str, known: bool, span: Span) -> Result<(), Error> {
        let theirs = filters::MISSING.contains(&name);
        if known || (self.conditions > 0 && !theirs) {
            return Ok(());
        }
        self.refuse(span, format!("the {what} {name} is not known here"))
    }
}

/// Whether an expression is `true` or `false`, which are the numbers 1 and 0 to Python's dictionaries.
fn is_truth(expr: &Expr<'_>) -> bool {
    matches!(expr, Expr::Const(s) if s.value.kind() == ValueKind::Bool)
}

fn other_templates(tag: &str, span: Span) -> Error {
    let line = span.start_line;
    refusal(format!(
        "the tag {tag} reads another template, and a chat template stands alone (line {line})"
    ))
}
