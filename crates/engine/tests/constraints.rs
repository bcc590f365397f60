//! Answers in a given form: what may be chosen, how they end, and what a broken constraint costs.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bantam_engine::{
    ConstraintError, EngineOptions, Event, FinishReason, Limits, Request, RequestFailure,
    SamplingParams, TokenConstraint, TokenMask,
};
use bantam_text::{
    GrammarCompiler, GrammarSpec, TokenType, Tokenizer, TokenizerSource, Vocabulary, VocabularyKind,
};
use common::{
    FORM_END, Form, Hashing, alone, alone_in_form, collect, engine, greedy, limits, run, submit,
};

/// Calls of the two functions.
#[derive(Default)]
struct Calls {
    allowed: AtomicUsize,
    accept: AtomicUsize,
}

struct Counted(Form, Arc<Calls>);

impl TokenConstraint for Counted {
    fn allowed(&mut self) -> Result<TokenMask<'_>, ConstraintError> {
        self.1.allowed.fetch_add(1, Ordering::SeqCst);
        self.0.allowed()
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        self.1.accept.fetch_add(1, Ordering::SeqCst);
        self.0.accept(token)
    }
}

fn ending(max_tokens: usize, prompt: Vec<u32>) -> Request {
    Request { eos_tokens: vec![FORM_END], ..greedy(prompt, max_tokens) }
}

#[test]
fn a_mask_is_asked_for_once_for_each_token_even_when_computed_again() {
    let limits = Limits { num_blocks: 8, max_sequences: 3, max_batch_tokens: 5, ..limits() };
    let mut engine = engine(Hashing::new(limits), EngineOptions::default());
    let requests = [9, 10, 11].map(|length| ending(18, vec![length as u32; length]));
    let all_calls = [(); 3].map(|()| Arc::new(Calls::default()));
    let forms = [(); 3].map(|()| Form::new(5, 14));
    let receivers: Vec<_> = (0..3)
        .map(|n| {
            let counted = Counted(forms[n].clone(), Arc::clone(&all_calls[n]));
            submit(&mut engine, requests[n].clone().constrained(Box::new(counted)))
        })
        .collect();
    run(&mut engine);
    assert!(engine.metrics().preemptions > 0, "nothing was computed again");
    for (n, receiver) in receivers.into_iter().enumerate() {
        let (tokens, _) = collect(receiver);
        let (expected, reason) = alone_in_form(&requests[n], Some(forms[n].clone()), &limits);
        assert_eq!((&tokens, reason), (&expected, FinishReason::Stop));
        assert_eq!(all_calls[n].allowed.load(Ordering::SeqCst), tokens.len());
        // The end is not told.
        assert_eq!(all_calls[n].accept.load(Ordering::SeqCst), tokens.len() - 1);
    }
}

#[test]
fn the_end_wins_over_min_tokens_when_nothing_else_is_allowed() {
    let mut engine = engine(Hashing::new(limits()), EngineOptions::default());
    let request = Request { min_tokens: 10, ..ending(20, vec![1, 2]) };
    let receiver = submit(&mut engine, request.constrained(Box::new(Form::new(1, 4))));
    run(&mut engine);
    let (tokens, others) = collect(receiver);
    // Before, min_tokens holds: the form would allow its end at any time.
    assert_eq!(tokens.iter().position(|&token| token == FORM_END), Some(4));
    assert!(matches!(others.last(), Some(Event::Finished { reason: FinishReason::Stop, .. })));
}

/// Letters a–z are tokens 0–25, 28 is the end.
fn letters() -> (Tokenizer, u32) {
    let mut tokens: Vec<String> = (b'a'..=b'z').map(|c| char::from(c).to_string()).collect();
    tokens.extend(["©", "Ã", "<end>"].map(str::to_owned));
    let mut token_types = vec![TokenType::Normal; tokens.len()];
    token_types[28] = TokenType::Control;
    let vocabulary = Vocabulary {
        kind: VocabularyKind::Gpt2,
        pre: None,
        tokens,
        token_types,
        scores: Vec::new(),
        merges: Vec::new(),
        bos: None,
        eos: Some(28),
        eot: None,
        eom: None,
        unknown: None,
        padding: None,
        add_bos: false,
        add_eos: false,
        add_space_prefix: false,
        chat_template: None,
    };
    (Tokenizer::load(&TokenizerSource::Vocabulary(Box::new(vocabulary))).unwrap(), 28)
}

#[test]
fn answers_obey_a_grammar() {
    let (tokenizer, end) = letters();
    let compiler = GrammarCompiler::new(&tokenizer, &[end], limits().vocab_size).unwrap();
    let grammar = compiler.compile(&GrammarSpec::Regex("x[a-c]{2,4}(yes|no)".to_owned())).unwrap();
    let mut engine = engine(Hashing::new(limits()), EngineOptions::default());
    let sampling = SamplingParams { temperature: 2.0, ..SamplingParams::default() };
    let request = Request { sampling, eos_tokens: vec![end], ..Request::new(vec![1, 2, 3]) };
    let receivers: Vec<_> = request
        .samples(12)
        .map(|sample| submit(&mut engine, sample.constrained(Box::new(grammar.matcher()))))
        .collect();
    run(&mut engine);
    let mut texts = BTreeSet::new();
    for receiver in receivers {
        let (tokens, others) = collect(receiver);
        assert!(matches!(others.last(), Some(Event::Finished { reason: FinishReason::Stop, .. })));
        let (last, tokens) = tokens.split_last().unwrap();
        assert_eq!(*last, end);
        let text = tokenizer.decode(tokens, false);
        let middle = text.strip_prefix('x').unwrap();
        let middle = middle.strip_suffix("yes").or(middle.strip_suffix("no")).unwrap();
        assert!((2..=4).contains(&middle.len()), "{text}");
        assert!(middle.bytes().all(|letter| (b'a'..=b'c').contains(&letter)), "{text}");
        texts.insert(text);
    }
    assert!(texts.len() > 3, "{texts:?}");
}

#[test]
fn an_answer_that_may_not_end_is_refused() {
    let mut engine = engine(Hashing::new(limits()), EngineOptions::default());
    let request = Request { ignore_eos: true, ..ending(20, vec![1, 2]) };
    let (sender, _receiver) = bantam_engine::event_channel();
    let submission = request.constrained(Box::new(Form::new(1, 4)));
    let refused = engine.submit(submission, Box::new(sender)).unwrap_err();
    assert!(refused.to_string().starts_with("ignore_eos is set"), "{refused}");
}

/// Goes wrong after some tokens, in one way or another.
struct Broken {
    how: Fault,
    left: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    NoMask,
    Empty,
    PanicsWhenAsked,
    Refuses,
    PanicsWhenTold,
}

fn error(reason: &str) -> ConstraintError {
    ConstraintError { reason: reason.to_owned() }
}

impl TokenConstraint for Broken {
    fn allowed(&mut self) -> Result<TokenMask<'_>, ConstraintError> {
        match self.how {
            Fault::NoMask if self.left == 0 => Err(error("poisoned")),
            Fault::PanicsWhenAsked if self.left == 0 => panic!("poisoned"),
            Fault::Empty if self.left == 0 => Ok(TokenMask::new(&[0, 0])),
            _ => Ok(TokenMask::new(&[u32::MAX])),
        }
    }

    fn accept(&mut self, _: u32) -> Result<(), ConstraintError> {
        match self.how {
            Fault::Refuses if self.left == 0 => return Err(error("poisoned")),
            Fault::PanicsWhenTold if self.left == 0 => panic!("poisoned"),
            _ => self.left = self.left.saturating_sub(1),
        }
        Ok(())
    }
}

#[test]
fn a_broken_constraint_fails_its_request_only() {
    for (how, message) in [
        (Fault::NoMask, "poisoned"),
        (Fault::Empty, "allows no token after 3 generated ones"),
        (Fault::PanicsWhenAsked, "it panicked: poisoned"),
        (Fault::Refuses, "poisoned"),
        (Fault::PanicsWhenTold, "it panicked: poisoned"),
    ] {
        let mut engine = engine(Hashing::new(limits()), EngineOptions::default());
        let request = greedy(vec![1, 2, 3], 8);
        let broken = request.clone().constrained(Box::new(Broken { how, left: 3 }));
        let receivers = [
            submit(&mut engine, request.clone()),
            submit(&mut engine, broken),
            submit(&mut engine, request.clone()),
        ];
        let reports = run(&mut engine);
        assert!(reports.iter().all(|report| report.failure.is_none()));
        let expected = alone(&request, &limits()).0;
        let [before, broken, after] = receivers.map(collect);
        assert_eq!((&before.0, &after.0), (&expected, &expected));
        assert_eq!(broken.0, expected[..3]);
        let Some(Event::Failed(RequestFailure::Constraint(error))) = broken.1.last() else {
            panic!("{how:?}: {:?}", broken.1)
        };
        assert!(error.reason.contains(message), "{error}");
        assert_eq!((engine.metrics().failed, engine.metrics().failed_steps), (1, 0));
        assert_eq!(engine.block_usage().referenced, 0);
    }
}
