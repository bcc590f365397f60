//! Scoring a text under models that are in memory together: what `eval` and `demo` share.

use bantam_engine::Executor;
use bantam_eval::{Baseline, Convention, EvalError, Score, evaluate, tokens_to_run};
use bantam_model::{Decoder, LoadOptions, OptionNames};
use bantam_text::{EncodeOptions, Tokenizer};

use crate::device::Device;
use crate::format::Format;
use crate::memory;
use crate::model_arg::OpenModel;
use crate::output;

/// Tokens of a step. Their logits are in memory at once, for two models.
const ROWS_AT_ONCE: usize = 256;

/// Tokens of a step of questions; few of them have logits.
const STEP_TOKENS: usize = 512;
/// Tokens that the cache holds for questions, as far as their number side by side allows.
const CACHED_TOKENS: usize = 16 << 10;
const MIN_SEQUENCES: usize = 4;
const MAX_SEQUENCES: usize = 64;

/// A text in a model's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScoredText {
    /// The tokens to score.
    pub(crate) ids: Vec<u32>,
    /// Tokens of the whole text.
    pub(crate) all_tokens: usize,
    /// Whether the first is the begin-of-sequence token.
    pub(crate) bos: bool,
}

impl ScoredText {
    /// The first `limit` tokens of a text; refuses one without anything to predict.
    pub(crate) fn encode(
        tokenizer: &Tokenizer,
        text: &str,
        limit: Option<usize>,
    ) -> anyhow::Result<Self> {
        let options = EncodeOptions { add_special: true, parse_special: false };
        let mut ids = tokenizer.encode(text, options)?;
        let all_tokens = ids.len();
        ids.truncate(limit.unwrap_or(usize::MAX));
        if ids.len() < 2 {
            return Err(EvalError::TextTooShort { tokens: ids.len() }.into());
        }
        let bos = tokenizer.bos() == Some(ids[0]);
        Ok(Self { ids, all_tokens, bos })
    }
}

/// What one step and the cache must hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepShape {
    /// Tokens of a sequence.
    context: usize,
    /// Sequences side by side.
    sequences: usize,
    /// Tokens of a step.
    tokens: usize,
}

impl StepShape {
    /// One window of a text.
    pub(crate) fn window(context: usize) -> Self {
        Self { context, sequences: 1, tokens: ROWS_AT_ONCE.min(context) }
    }

    /// Many short sequences, of which the longest has so many tokens.
    pub(crate) fn questions(longest: usize) -> Self {
        let sequences = (CACHED_TOKENS / longest.max(1)).clamp(MIN_SEQUENCES, MAX_SEQUENCES);
        Self { context: longest, sequences, tokens: STEP_TOKENS }
    }
}

/// Models that are to be in memory together, each with its share.
pub(crate) struct SideBySide<'a> {
    models: Vec<(&'a OpenModel, LoadOptions)>,
}

impl<'a> SideBySide<'a> {
    /// Refuses what loading would refuse, before anything is loaded.
    pub(crate) fn plan(
        models: impl IntoIterator<Item = (&'a OpenModel, Format)>,
        device: &Device,
        shape: &StepShape,
    ) -> anyhow::Result<Self> {
        let mut left = memory::budget();
        let mut planned = Vec::new();
        for (model, format) in models {
            let options = LoadOptions {
                max_batch_tokens: shape.tokens,
                max_logit_rows: ROWS_AT_ONCE.min(shape.tokens),
                memory_budget: left,
                names: OptionNames { context: "--window", ..OptionNames::CONTEXT },
                ..format.load_options(Some(shape.context), shape.sequences)
            };
            let plan = model.plan(device, &options)?;
            left = left.map(|left| left.saturating_sub(plan.total()));
            planned.push((model, options));
        }
        Ok(Self { models: planned })
    }

    /// Loads them all.
    pub(crate) fn load(&self, device: &Device) -> anyhow::Result<Vec<Decoder<Device>>> {
        self.models.iter().map(|(model, options)| model.load(device, options)).collect()
    }
}

/// [`evaluate`] with a progress bar.
pub(crate) fn score(
    decoders: &mut [Decoder<Device>],
    baseline: Baseline,
    ids: &[u32],
    convention: &Convention,
) -> anyhow::Result<Vec<Score>> {
    let bar = output::progress_bar(tokens_to_run(convention, ids.len()) as u64, "scoring");
    let threads = decoders.first().map_or(1, |decoder| decoder.backend().threads());
    let mut executors: Vec<&mut dyn Executor> =
        decoders.iter_mut().map(|decoder| decoder as &mut dyn Executor).collect();
    let scores = evaluate(&mut executors, baseline, ids, convention, threads, &mut |done| {
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    Ok(scores?)
}
