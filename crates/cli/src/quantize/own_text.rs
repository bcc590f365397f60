//! Calibration without data: the model writes the text itself.
//!
//! What a model writes is distributed as what it has learnt to read, so layers see there what they
//! see in use; nobody's text is needed, and the same seed gives the same text. Source: Liu et al.
//! 2023, LLM-QAT (data-free).

use anyhow::{Context, anyhow};
use bantam_engine::{EngineHandle, Event, HandleOptions, Request, SamplingParams};
use bantam_model::Precision;
use bantam_optimize::Calibration;
use bantam_text::{EncodeOptions, Message, Tokenizer};

use super::CalibrationArgs;
use crate::device::Device;
use crate::format::Format;
use crate::model_arg::OpenModel;
use crate::output;

/// How texts begin: prose, news, letters, lessons, lists, numbers, code, and other languages.
const OPENINGS: [&str; 24] = [
    "The",
    "In the beginning of the year,",
    "\"I don't think so,\" she said",
    "Abstract. We study",
    "Dear Sir or Madam,",
    "How to",
    "1.",
    "def ",
    "#include <",
    "The history of",
    "Once upon a time",
    "Researchers have found that",
    "Question:",
    "According to the",
    "Ingredients:",
    "| Name |",
    "The theorem states that",
    "import ",
    "Le ",
    "Der ",
    "El ",
    "{\"",
    "For many people,",
    "Chapter",
];
/// What a chat begins with; every fourth sequence is one, if the model has a template.
const QUESTIONS: [&str; 6] = [
    "Explain how a bicycle stays upright.",
    "Write a short story about a lighthouse.",
    "What is 17 times 23? Show the steps.",
    "Give me three ideas for a cheap dinner.",
    "Write a function that reverses a list.",
    "Translate 'good morning' into five languages.",
];
const CHAT_EVERY: usize = 4;
/// Sequences that are written side by side.
const SIDE_BY_SIDE: usize = 16;

/// Lets the model write sequences of `seq_len` tokens.
pub(super) fn write(
    model: &OpenModel,
    tokenizer: &Tokenizer,
    device: &Device,
    args: &CalibrationArgs,
) -> anyhow::Result<Calibration> {
    let requests = (0..args.samples).map(|index| {
        let prompt = opening(tokenizer, index)?;
        let left = args.seq_len.saturating_sub(prompt.len());
        // Temperature 1 without cuts is the model's own distribution; the seed of a sequence is its
        // number after the run's seed.
        let seed = args.seed.wrapping_mul(1 << 20).wrapping_add(index as u64);
        let sampling = SamplingParams { temperature: 1.0, seed, ..SamplingParams::default() };
        Ok(Request {
            sampling,
            max_tokens: Some(left.max(1)),
            ignore_eos: true,
            ..Request::new(prompt)
        })
    });
    let requests = requests.collect::<anyhow::Result<Vec<_>>>()?;
    let format = Format { precision: Precision::Bf16, kv: None };
    let context = (args.seq_len + 1).min(model.arch.sizes.max_positions);
    let options = format.load_options(Some(context), SIDE_BY_SIDE);
    model.plan(device, &options)?;
    let decoder = model.load(device, &options)?;
    let handle = HandleOptions { max_waiting: requests.len().max(1), ..HandleOptions::default() };
    let engine =
        EngineHandle::spawn(handle, move || Ok(decoder)).map_err(|error| anyhow!("{error}"))?;
    let bar =
        output::progress_bar((args.samples * args.seq_len) as u64, "writing calibration text");
    let receivers = engine.submit_all(requests.iter().cloned())?;
    let mut sequences = Vec::with_capacity(requests.len());
    for (request, mut events) in requests.into_iter().zip(receivers) {
        let mut tokens = request.prompt;
        loop {
            match events.recv().context("the engine ended before the text was complete")? {
                Event::Token { token, .. } => {
                    tokens.push(token);
                    bar.inc(1);
                }
                Event::Finished { .. } => break,
                Event::Failed(failure) => return Err(failure.into()),
                Event::Started { .. } | Event::PromptLogprobs(_) => {}
            }
        }
        tokens.truncate(args.seq_len);
        sequences.push(tokens);
    }
    bar.finish_and_clear();
    engine.shutdown();
    let source = format!("written by the model itself, seed {}", args.seed);
    Ok(Calibration { source, sequences })
}

/// The tokens that a sequence begins with.
fn opening(tokenizer: &Tokenizer, index: usize) -> anyhow::Result<Vec<u32>> {
    let (text, options) = match tokenizer.chat_template() {
        Some(template) if index % CHAT_EVERY == CHAT_EVERY - 1 => {
            let question = QUESTIONS[index / CHAT_EVERY % QUESTIONS.len()];
            let message = Message {
                role: "user".to_owned(),
                content: Some(question.to_owned()),
                ..Message::default()
            };
            let text = template.render_messages(&[message], true)?;
            (text, EncodeOptions { add_special: false, parse_special: true })
        }
        _ => {
            let text = OPENINGS[index % OPENINGS.len()].to_owned();
            (text, EncodeOptions { add_special: true, parse_special: false })
        }
    };
    Ok(tokenizer.encode(&text, options)?)
}
