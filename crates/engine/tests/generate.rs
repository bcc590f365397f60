//! Generation against a model whose next token is known.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bantam_backend::Batch;
use bantam_engine::{
    EngineError, Executor, FinishReason, GenerateRequest, Generation, Limits, SamplingParams,
    generate,
};
use bantam_model::ModelError;
use bantam_text::{TokenType, Tokenizer, TokenizerSource, Vocabulary, VocabularyKind};
use proptest::prelude::*;

const VOCAB: usize = 64;
const LAST_BYTE_OF_E_ACUTE: u32 = 26;
const FIRST_BYTE_OF_E_ACUTE: u32 = 27;
const END: u32 = 28;

/// Letters a–z are tokens 0–25; then the two bytes of é, and an end of sequence.
fn tokenizer() -> Tokenizer {
    let mut tokens: Vec<String> = (b'a'..=b'z').map(|c| char::from(c).to_string()).collect();
    // Byte-level letters of A9 and C3.
    tokens.extend(["©", "Ã", "<end>"].map(str::to_owned));
    let mut token_types = vec![TokenType::Normal; tokens.len()];
    token_types[END as usize] = TokenType::Control;
    let vocabulary = Vocabulary {
        kind: VocabularyKind::Gpt2,
        pre: None,
        tokens,
        token_types,
        scores: Vec::new(),
        merges: Vec::new(),
        bos: None,
        eos: Some(END),
        eot: None,
        eom: None,
        unknown: None,
        padding: None,
        add_bos: false,
        add_eos: false,
        add_space_prefix: false,
        chat_template: None,
    };
    Tokenizer::load(&TokenizerSource::Vocabulary(Box::new(vocabulary))).unwrap()
}

/// Follows a script after a prompt of `prompt_len` tokens, and keeps a cache as a real model does:
/// a token it was never given, or given twice, fails the test.
struct Scripted {
    limits: Limits,
    prompt_len: usize,
    script: Vec<u32>,
    cache: BTreeMap<usize, u32>,
    steps: Vec<usize>,
}

impl Scripted {
    fn new(prompt_len: usize, script: &[u32]) -> Self {
        let limits = Limits {
            vocab_size: VOCAB,
            context: 100,
            max_batch_tokens: 4,
            max_sequences: 1,
            max_logit_rows: 1,
            num_blocks: 25,
            block_tokens: 4,
        };
        Self { limits, prompt_len, script: script.to_vec(), cache: BTreeMap::new(), steps: vec![] }
    }
}

impl Executor for Scripted {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn forward(&mut self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
        assert!(batch.num_tokens() <= self.limits.max_batch_tokens);
        assert!(batch.logit_rows.len() <= self.limits.max_logit_rows);
        let span = &batch.spans[0];
        for (row, position) in span.rows.clone().zip(span.start..) {
            let slot = batch.slot(span, position, self.limits.block_tokens);
            assert!(slot < self.limits.num_blocks * self.limits.block_tokens);
            assert_eq!(self.cache.insert(slot, batch.tokens[row]), None, "slot written twice");
        }
        assert_eq!(self.cache.len(), span.context(), "a position was left out");
        self.steps.push(batch.num_tokens());
        if batch.logit_rows.is_empty() {
            return Ok(Vec::new());
        }
        assert_eq!(batch.logit_rows, [batch.num_tokens() as u32 - 1]);
        let mut logits = vec![0.0; VOCAB];
        logits[self.script[span.context() - self.prompt_len] as usize] = 1.0;
        Ok(logits)
    }
}

fn request() -> GenerateRequest {
    GenerateRequest {
        sampling: SamplingParams::greedy(),
        max_tokens: Some(10),
        stop_tokens: vec![END],
        stop_strings: Vec::new(),
    }
}

/// Runs and also returns the streamed text.
fn run(model: &mut Scripted, prompt: &[u32], request: &GenerateRequest) -> (Generation, String) {
    let mut streamed = String::new();
    let generation = generate(model, &tokenizer(), prompt, request, &mut |text| {
        streamed.push_str(text);
        ControlFlow::Continue(())
    });
    (generation.unwrap(), streamed)
}

#[test]
fn prompts_are_computed_in_chunks_and_answers_one_by_one() {
    let mut model = Scripted::new(10, &[7, 8, 9, END]);
    let (generation, streamed) = run(&mut model, &[1; 10], &request());
    assert_eq!(model.steps, [4, 4, 2, 1, 1, 1]);
    assert_eq!(generation.tokens, [7, 8, 9, END]);
    assert_eq!(generation.text, "hij");
    assert_eq!(streamed, "hij");
    assert_eq!(generation.finish_reason, FinishReason::Stop);
    assert_eq!(generation.timings.prefill_tokens, 10);
    assert_eq!(generation.timings.decode_tokens, 3);
    assert!(generation.timings.prefill_seconds > 0.0 && generation.timings.decode_seconds > 0.0);
}

#[test]
fn max_tokens_and_the_context_end_with_length() {
    let mut model = Scripted::new(3, &[0; 200]);
    let (generation, _) = run(&mut model, &[1, 2, 3], &request());
    assert_eq!((generation.tokens.len(), generation.finish_reason), (10, FinishReason::Length));

    for max_tokens in [None, Some(1000)] {
        let mut model = Scripted::new(3, &[0; 200]);
        let (generation, _) =
            run(&mut model, &[1; 3], &GenerateRequest { max_tokens, ..request() });
        assert_eq!((generation.tokens.len(), generation.finish_reason), (97, FinishReason::Length));
    }

    let mut model = Scripted::new(3, &[]);
    let none = GenerateRequest { max_tokens: Some(0), ..request() };
    let (generation, _) = run(&mut model, &[1; 3], &none);
    assert_eq!((generation.tokens.len(), generation.finish_reason), (0, FinishReason::Length));
    assert!(model.steps.is_empty());
}

#[test]
fn stop_strings_span_tokens_and_are_cut_off() {
    let script = [0, 1, 2, 3, 4, 5]; // abcdef
    let stops = GenerateRequest { stop_strings: vec!["cd".into(), "bx".into()], ..request() };
    let (generation, streamed) = run(&mut Scripted::new(1, &script), &[9], &stops);
    assert_eq!(generation.text, "ab");
    assert_eq!(streamed, "ab");
    assert_eq!(generation.tokens, [0, 1, 2, 3]);
    assert_eq!(generation.finish_reason, FinishReason::Stop);
}

#[test]
fn what_was_held_back_is_delivered_at_the_end() {
    let limited =
        GenerateRequest { stop_strings: vec!["bcz".into()], max_tokens: Some(3), ..request() };
    let (generation, streamed) = run(&mut Scripted::new(1, &[0, 1, 2]), &[9], &limited);
    assert_eq!((generation.text.as_str(), streamed.as_str()), ("abc", "abc"));
}

#[test]
fn characters_of_several_tokens_are_streamed_whole() {
    let script = [0, FIRST_BYTE_OF_E_ACUTE, LAST_BYTE_OF_E_ACUTE, END];
    let mut pieces = Vec::new();
    let mut model = Scripted::new(1, &script);
    generate(&mut model, &tokenizer(), &[9], &request(), &mut |text| {
        pieces.push(text.to_owned());
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(pieces, ["a", "", "é", ""]);
}

#[test]
fn cancelling_works_in_prefill_and_in_decode() {
    for steps_before in [1, 2, 4] {
        let mut model = Scripted::new(10, &[0; 50]);
        let mut calls = 0;
        let generation = generate(&mut model, &tokenizer(), &[1; 10], &request(), &mut |_| {
            calls += 1;
            if calls == steps_before { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        assert_eq!(generation.finish_reason, FinishReason::Cancelled);
        assert_eq!(model.steps.len(), steps_before);
        // Three steps of prefill, the last of which gives the first token.
        assert_eq!(generation.tokens.len(), usize::saturating_sub(steps_before, 2));
        assert_eq!(generation.timings.prefill_tokens, (4 * steps_before).min(10));
    }
}

#[test]
fn requests_that_cannot_be_served_never_reach_the_model() {
    let refuse = |prompt: &[u32], request: &GenerateRequest| {
        let mut model = Scripted::new(prompt.len(), &[0; 5]);
        let mut on_text = |_: &str| ControlFlow::Continue(());
        let error = generate(&mut model, &tokenizer(), prompt, request, &mut on_text).unwrap_err();
        assert!(model.steps.is_empty());
        error
    };
    assert!(matches!(refuse(&[], &request()), EngineError::EmptyPrompt));
    let long = refuse(&[1; 104], &request()).to_string();
    assert!(long.contains("104 tokens") && long.contains("by 5 tokens"), "{long}");
    assert!(matches!(refuse(&[1; 100], &request()), EngineError::PromptTooLong { .. }));
    let unknown = refuse(&[1, 64], &request()).to_string();
    assert!(unknown.starts_with("token 64 at position 1"), "{unknown}");
    let sampling = SamplingParams { top_p: 2.0, ..SamplingParams::default() };
    let parameter = refuse(&[1], &GenerateRequest { sampling, ..request() });
    assert!(matches!(parameter, EngineError::Sampling(_)));
}

proptest! {
    #[test]
    fn neither_the_chunk_size_nor_the_length_of_the_prompt_changes_the_answer(
        script in proptest::collection::vec(0u32..29, 12),
        prompt_len in 1usize..30,
        max_batch_tokens in 1usize..40,
        seed: u64,
    ) {
        // With equal logits but one, sampling at temperature 1 is a real draw.
        let sampling = SamplingParams { temperature: 1.0, seed, ..SamplingParams::default() };
        let request = GenerateRequest { sampling, stop_tokens: vec![], ..request() };
        let prompt = vec![3; prompt_len];
        let expected = run(&mut Scripted::new(prompt_len, &script), &prompt, &request).0;
        let mut model = Scripted::new(prompt_len, &script);
        model.limits.max_batch_tokens = max_batch_tokens;
        let (generation, streamed) = run(&mut model, &prompt, &request);
        prop_assert_eq!(&generation.tokens, &expected.tokens);
        prop_assert_eq!(&streamed, &generation.text);
    }
}
