//! `bantam run`: continues a prompt or answers it.

use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::bail;
use bantam_engine::{EngineError, GenerateRequest, Generation, SamplingParams, Timings, generate};
use bantam_model::{Decoder, LoadOptions, OptionNames};
use bantam_text::{EncodeOptions, Message, Tokenizer};
use clap::Args;
use serde_json::{Value, json};

use crate::chat;
use crate::device::Device;
use crate::format::Format;
use crate::input::read_text;
use crate::interrupt;
use crate::model_arg::{DeviceArgs, ModelArg, OpenModel, count, positive};
use crate::output;

/// Answer a prompt, or chat
///
/// Without --prompt: an interactive chat on a terminal, else the prompt is read from standard input.
/// Ctrl-C ends the answer and shows what there is.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct RunArgs {
    /// Alias, Hugging Face folder, .gguf file or hub name, with an optional @FORMAT
    #[arg(value_name = "MODEL[@FORMAT]")]
    model: ModelArg,

    /// The prompt
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,

    /// Continue the prompt as it is, without the model's chat template
    #[arg(long)]
    raw: bool,

    /// Tokens to generate at most
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = positive)]
    max_tokens: usize,

    /// 0 always takes the most probable token; higher is more varied
    /// [default: the model's generation_config.json, else 0.7]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,

    /// Keep the fewest tokens that reach this probability together
    /// [default: the model's, else 1 = all]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,

    /// Keep the N most probable tokens [default: the model's, else 0 = all]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = count)]
    top_k: Option<usize>,

    /// Keep tokens at least this probable, relative to the most probable
    /// [default: the model's, else 0 = all]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,

    /// Makes tokens that occurred less probable; above 1
    /// [default: the model's, else 1 = off]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,

    /// Same seed, same answer [default: a new one each time, shown by --json]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// End the answer before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,

    /// Number format, unless MODEL states one: f32, bf16, int8, int4 or fp8-wo
    /// (weights only), fp8, w8a8 or w4a8 (activations too), with +int8 or +fp8 for the key/value
    /// cache
    #[arg(long, value_name = "FORMAT", default_value = "bf16")]
    dtype: Format,

    /// Tokens the cache holds, prompt and answer
    /// [default: as many as prompt and --max-tokens need; for a chat up to 8192]
    #[arg(long, value_name = "N", value_parser = positive)]
    context: Option<usize>,

    #[command(flatten)]
    device: DeviceArgs,

    /// Print one JSON object instead of streaming text
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  bantam run smollm2                                   chat; /clear starts anew, /exit ends
  bantam run smollm2 --prompt 'Name three rivers.'     one answer
  bantam run smollm2 --raw --temperature 0 --prompt 'The capital of France is'
  bantam run ./model --dtype int4 < question.txt       prompt from standard input
  bantam run smollm2 --prompt Hi --seed 7 --json       tokens, timings and the seed";

/// A chat's cache unless stated: models announce contexts that few chats fill and little memory holds.
const CHAT_CONTEXT: usize = 8192;

/// A model ready to answer.
pub(crate) struct Session {
    pub(crate) model: OpenModel,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) decoder: Decoder<Device>,
    pub(crate) request: GenerateRequest,
}

pub(crate) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let prompt = match &args.prompt {
        Some(prompt) => Some(prompt.clone()),
        None if io::stdin().is_terminal() => None,
        None => Some(read_text(io::stdin().lock(), "standard input")?),
    };
    if prompt.is_none() && (args.json || args.raw) {
        bail!("--json and --raw need a prompt; give --prompt TEXT or pipe it in");
    }
    if prompt.as_ref().is_some_and(|prompt| prompt.trim().is_empty()) {
        bail!("the prompt is empty; give --prompt TEXT with some text, or pipe it in");
    }
    interrupt::install()?;
    let model = OpenModel::open(&args.model.name, &args.device.unread)?;
    let tokenizer = model.tokenizer()?;
    let sampling = args.sampling(model.checkpoint.generation_config());
    sampling.validate()?;
    let request = GenerateRequest {
        sampling,
        max_tokens: Some(args.max_tokens),
        stop_tokens: tokenizer.eos().to_vec(),
        stop_strings: args.stop.clone(),
    };

    let prompt_ids = match &prompt {
        Some(text) if args.raw => {
            Some(tokenizer.encode(text, EncodeOptions { add_special: true, parse_special: true })?)
        }
        Some(text) => {
            let message = Message::new("user", text);
            Some(encode_chat(&tokenizer, &[message])?)
        }
        None => None,
    };
    let own = model.arch.sizes.max_positions;
    let context = match (args.context, &prompt_ids) {
        (Some(asked), _) => model.checked_context(asked)?,
        (None, Some(ids)) => ids.len().saturating_add(args.max_tokens).min(own),
        (None, None) => CHAT_CONTEXT.min(model.arch.default_context()),
    };
    // The engine refuses this too, but only once the weights are loaded.
    if let Some(tokens) = prompt_ids.as_ref().map(Vec::len).filter(|&tokens| tokens >= context) {
        return Err(EngineError::PromptTooLong { tokens, context }.into());
    }
    let options = args.model.format_or(args.dtype).load_options(Some(context), 1);
    let options = LoadOptions { names: OptionNames::CONTEXT, ..options };
    let device = args.device.open()?;
    model.plan(&device, &options)?;
    let start = Instant::now();
    let decoder = model.load(&device, &options)?;
    let load_seconds = start.elapsed().as_secs_f64();
    let mut session = Session { model, tokenizer, decoder, request };
    match prompt_ids {
        Some(ids) if args.json => answer_as_json(args, &mut session, &ids, load_seconds),
        Some(ids) => answer_as_text(&mut session, &ids),
        None => chat::run(&mut session),
    }
}

impl RunArgs {
    /// The sampling asked for; what is not stated comes from the model's generation configuration.
    fn sampling(&self, generation_config: Option<&Value>) -> SamplingParams {
        let own = SamplingParams { temperature: DEFAULT_TEMPERATURE, ..SamplingParams::default() };
        let own = match generation_config {
            Some(config) => own.as_stated_by(config),
            None => own,
        };
        SamplingParams {
            temperature: self.temperature.unwrap_or(own.temperature),
            top_k: self.top_k.unwrap_or(own.top_k),
            top_p: self.top_p.unwrap_or(own.top_p),
            min_p: self.min_p.unwrap_or(own.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(own.repetition_penalty),
            seed: self.seed.unwrap_or_else(fresh_seed),
            ..own
        }
    }
}

/// The temperature where neither the options nor the model state one.
const DEFAULT_TEMPERATURE: f32 = 0.7;

/// A seed that differs from run to run, small enough for every JSON reader.
fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) >> 32
}

/// The prompt of a conversation, as the model was trained to see it.
pub(crate) fn encode_chat(tokenizer: &Tokenizer, messages: &[Message]) -> anyhow::Result<Vec<u32>> {
    let Some(template) = tokenizer.chat_template() else {
        bail!("this model has no chat template; use --raw to continue the text as it is");
    };
    let text = template.render_messages(messages, true)?;
    Ok(tokenizer.encode(&text, EncodeOptions { add_special: false, parse_special: true })?)
}

impl Session {
    /// Generates until it is done or Ctrl-C is pressed, handing text on as it comes.
    pub(crate) fn answer(
        &mut self,
        prompt: &[u32],
        on_text: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> anyhow::Result<Generation> {
        let mut failure = None;
        let generation = interrupt::watched(|| {
            let mut deliver = |text: &str| match on_text(text) {
                Ok(()) if interrupt::happened() => ControlFlow::Break(()),
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            };
            generate(&mut self.decoder, &self.tokenizer, prompt, &self.request, &mut deliver)
        })?;
        failure.map_or(Ok(generation), |error| Err(error.into()))
    }

    /// [`answer`](Self::answer), streamed to standard output; ends with a line break.
    pub(crate) fn stream(&mut self, prompt: &[u32]) -> anyhow::Result<Generation> {
        let generation = self.answer(prompt, &mut output::print)?;
        if !generation.text.ends_with('\n') {
            output::print("\n")?;
        }
        if io::stderr().is_terminal() {
            eprintln!("{}", summary(&generation.timings));
        }
        Ok(generation)
    }
}

/// Speeds in a line.
fn summary(timings: &Timings) -> String {
    format!(
        "[{} prompt tokens in {:.2} s, {:.0} tok/s; {} more at {:.0} tok/s]",
        timings.prefill_tokens,
        timings.prefill_seconds,
        timings.prefill_rate(),
        timings.decode_tokens,
        timings.decode_rate(),
    )
}

fn answer_as_text(session: &mut Session, prompt: &[u32]) -> anyhow::Result<()> {
    session.stream(prompt).map(drop)
}

fn answer_as_json(
    args: &RunArgs,
    session: &mut Session,
    prompt: &[u32],
    load_seconds: f64,
) -> anyhow::Result<()> {
    let generation = session.answer(prompt, &mut |_| Ok(()))?;
    let timings = &generation.timings;
    output::print_json(&json!({
        "model": args.model.name,
        "dtype": args.model.format_or(args.dtype).to_string(),
        "seed": session.request.sampling.seed,
        "prompt_tokens": prompt.len(),
        "tokens": generation.tokens,
        "text": generation.text,
        "finish_reason": generation.finish_reason.name(),
        "timings": {
            "load_seconds": load_seconds,
            "prefill_tokens": timings.prefill_tokens,
            "prefill_seconds": timings.prefill_seconds,
            "prefill_tokens_per_second": timings.prefill_rate(),
            "decode_tokens": timings.decode_tokens,
            "decode_seconds": timings.decode_seconds,
            "decode_tokens_per_second": timings.decode_rate(),
        },
    }))
}
