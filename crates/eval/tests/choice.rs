//! Multiple-choice questions on a real, tiny network, against `transformers`
//! (`tools/golden/choices.py` made the data), and in any company.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bantam_checkpoint::Checkpoint;
use bantam_cpu::{Cpu, CpuOptions};
use bantam_engine::Executor;
use bantam_eval::choice::{
    Answer, Answered, ChoiceRun, Encoder, Form, ItemSet, Outcome, Question, Tally,
};
use bantam_eval::{Baseline, EVERYDAY_QUESTIONS, EvalError};
use bantam_model::{Decoder, LoadOptions, Precision};
use bantam_text::Tokenizer;
use serde_json::Value;

/// The context of the tiny model.
const CONTEXT: usize = 128;

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/data/tiny/llama-gqa.gguf")
}

fn tokenizer() -> Tokenizer {
    Tokenizer::load(&Checkpoint::open(&tiny()).unwrap().tokenizer_source().unwrap()).unwrap()
}

fn load(precision: Precision, tokens: usize, sequences: usize, rows: usize) -> Decoder<Cpu> {
    let checkpoint = Checkpoint::open(&tiny()).unwrap();
    let cpu = Cpu::new(CpuOptions { threads: Some(1), isa: None }).unwrap();
    let options = LoadOptions {
        precision,
        max_batch_tokens: tokens,
        max_sequences: sequences,
        max_logit_rows: rows,
        ..LoadOptions::default()
    };
    Decoder::load(cpu, &checkpoint, &options, &|_| {}).unwrap()
}

/// The everyday questions, the last two of them as examples.
fn everyday() -> ItemSet {
    let mut set = ItemSet::from_jsonl(EVERYDAY_QUESTIONS, "everyday").unwrap();
    set.examples = set.items.split_off(set.items.len() - 2);
    set
}

fn encode(set: &ItemSet, tokenizer: &Tokenizer, form: Form, shots: usize) -> Vec<Question> {
    let encoder = Encoder { tokenizer, form, shots, context: CONTEXT };
    (0..set.items.len()).map(|item| encoder.encode(set, item).unwrap()).collect()
}

/// The outcomes of each model, by item, each reported once.
fn answer(
    models: &mut [&mut dyn Executor],
    baseline: Baseline,
    questions: &[Question],
    tokenizer: &Tokenizer,
) -> Vec<BTreeMap<usize, Outcome>> {
    let mut outcomes = vec![BTreeMap::new(); models.len()];
    let mut run = ChoiceRun::new(models, baseline, questions, tokenizer, 2).unwrap();
    let mut tokens = 0;
    while let Some(step) = run.step().unwrap() {
        tokens += step.num_tokens;
        for Answered { model, outcome } in step.answered {
            assert!(outcomes[model].insert(outcome.item, outcome).is_none());
        }
    }
    assert_eq!(tokens, run.total_tokens());
    assert!(outcomes.iter().all(|outcomes| outcomes.len() == questions.len()));
    outcomes
}

#[test]
fn log_likelihoods_are_those_of_transformers() {
    let golden: Value = serde_json::from_str(include_str!("data/choices_golden.json")).unwrap();
    let (set, tokenizer) = (everyday(), tokenizer());
    let mut model = load(Precision::F32, 100, 4, 8);
    for case in golden.as_object().unwrap().values() {
        let form: Form = case["form"].as_str().unwrap().parse().unwrap();
        let shots = case["shots"].as_u64().unwrap() as usize;
        let questions = encode(&set, &tokenizer, form, shots);
        let outcomes = answer(&mut [&mut model], Baseline::None, &questions, &tokenizer).remove(0);
        let expected = case["items"].as_array().unwrap();
        assert_eq!(outcomes.len(), expected.len());
        for (outcome, expected) in outcomes.values().zip(expected) {
            assert_eq!(outcome.truncated, expected["truncated"].as_bool().unwrap());
            let Answer::LogLikelihoods(values) = &outcome.answer else { panic!("{outcome:?}") };
            let expected = expected["log_likelihoods"].as_array().unwrap();
            assert_eq!(values.len(), expected.len());
            for (value, expected) in values.iter().zip(expected) {
                let expected = expected.as_f64().unwrap();
                let error = (f64::from(*value) - expected).abs();
                assert!(error < 1e-4 * expected.abs().max(1.0), "{form}: {value} {expected}");
            }
        }
    }
}

#[test]
fn outcomes_are_the_same_bits_in_any_company() {
    let (set, tokenizer) = (everyday(), tokenizer());
    for (form, shots) in [(Form::Texts, 1), (Form::Letters, 0), (Form::Greedy, 0)] {
        let questions = encode(&set, &tokenizer, form, shots);
        let run = |questions: &[Question], tokens, sequences, rows| {
            let mut first = load(Precision::F32, tokens, sequences, rows);
            let mut second = load(Precision::Int8, tokens, sequences, rows);
            answer(&mut [&mut first, &mut second], Baseline::First, questions, &tokenizer)
        };
        let together = run(&questions, 512, 16, 64);
        assert_eq!(together, run(&questions, 7, 2, 3), "{form}");
        let mut backwards = questions.clone();
        backwards.reverse();
        assert_eq!(together, run(&backwards[..], 40, 5, 5), "{form}");
        let alone = run(&questions[3..4], 128, 1, 1);
        assert!((0..2).all(|model| alone[model][&3] == together[model][&3]), "{form}");

        assert!(together[0].values().all(|outcome| outcome.divergence.is_none()));
        let kl = Tally::new(&set, form, None, together[1].values()).divergence.unwrap().kl_mean();
        assert!((1e-9..0.1).contains(&kl), "{form}: KL {kl}");
    }
}

#[test]
fn what_choices_share_is_run_once() {
    let (set, tokenizer) = (everyday(), tokenizer());
    let mut model = load(Precision::F32, 512, 16, 64);
    let mut tokens = |form, shots| {
        let questions = encode(&set, &tokenizer, form, shots);
        let mut models: [&mut dyn Executor; 1] = [&mut model];
        let run = ChoiceRun::new(&mut models, Baseline::None, &questions, &tokenizer, 1).unwrap();
        let longest: usize = questions.iter().map(Question::longest).sum();
        (run.total_tokens(), longest)
    };
    // One sequence an item, and the example once for all.
    let (letters, prompts) = tokens(Form::Letters, 0);
    assert!(letters <= prompts, "{letters} {prompts}");
    let (texts, prompts) = tokens(Form::Texts, 1);
    assert!(texts < 2 * prompts, "{texts} for prompts of {prompts} and four choices each");
}

#[test]
fn items_that_do_not_suit_are_refused() {
    let tokenizer = tokenizer();
    let encode = |text: &str, form, shots, context| {
        let set = ItemSet::from_jsonl(text, "set").unwrap();
        let encoder = Encoder { tokenizer: &tokenizer, form, shots, context };
        encoder.encode(&set, 0).map_err(|error: EvalError| error.to_string())
    };
    let story = r#"{"context":"Once","choices":["upon","a time"],"answer":0}"#;
    assert!(encode(story, Form::Letters, 0, 64).unwrap_err().contains("--form texts"));
    assert!(encode(story, Form::Texts, 1, 64).unwrap_err().contains("use --shots 0"));
    let long = encode(story, Form::Texts, 0, 3).unwrap_err();
    assert!(long.contains("expected 1 to 3"), "{long}");
    assert!(encode(story, Form::Texts, 0, 64).is_ok());
    let nothing = r#"{"context":"","choices":["upon","a time"],"answer":0}"#;
    assert_eq!(encode(nothing, Form::Texts, 0, 64).unwrap().num_choices, 2);
    // Too long by some tokens: the examples go, then the beginning.
    let cut = encode(story.replace("context", "question").as_str(), Form::Greedy, 0, 9).unwrap();
    assert!(cut.truncated && cut.longest() == 9);
}
