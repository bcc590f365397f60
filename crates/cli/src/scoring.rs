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

/// Models that are to be in memory together, each with its share.
pub(crate) struct SideBySide<'a> {
    models: Vec<(&'a OpenModel, LoadOptions)>,
}

impl<'a> SideBySide<'a> {
    /// Refuses what loading would refuse, before anything is loaded. The cache holds one window of
    /// `context` tokens, and steps give the logits of every token.
    pub(crate) fn plan(
        models: impl IntoIterator<Item = (&'a OpenModel, Format)>,
        device: &Device,
        context: usize,
    ) -> anyhow::Result<Self> {
        let mut left = memory::budget();
        let mut planned = Vec::new();
        for (model, format) in models {
            let rows = ROWS_AT_ONCE.min(context);
            let options = LoadOptions {
                max_batch_tokens: rows,
                max_logit_rows: rows,
                memory_budget: left,
                names: OptionNames { context: "--window", ..OptionNames::CONTEXT },
                ..format.load_options(Some(context), 1)
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
