//! Which recipe for which work: memory, predicted speed, expected loss and calibration time of every
//! recipe on a device, the best one first.
//!
//! This is the table of best practices in NVIDIA's guide to TensorRT-LLM's quantization methods as
//! arithmetic. The guide's rules follow from it: at small batches a step waits for memory, so narrow
//! weights win; at large ones it multiplies, so narrow activations win where the device multiplies
//! them faster. What a run of `bantam quantize` has measured takes the place of what is expected.
//!
//! * [`Device`]: limits, formats, and the share of its limits that kernels reach;
//! * [`Speed`]: how long the work takes; [`Memory`]: what it takes;
//! * [`Loss`]: published and measured losses;
//! * [`advise`]: all of it for every recipe, ranked.

mod calibration;
mod candidate;
mod cost;
mod device;
mod loss;
mod rank;
mod reason;
#[cfg(test)]
mod tests;
mod workload;

pub use calibration::CalibrationTime;
pub use candidate::{AS_STORED, Candidate, Measured};
pub use cost::{Seconds, Speed};
pub use device::{Arithmetic, Attainable, ByWidth, Device, Kernel, Peaks};
pub use loss::{Loss, LossBasis, LossClass};
pub use workload::{Memory, Workload};

use bantam_backend::KvFormat;
use bantam_model::ArchSpec;
use serde::Serialize;

use crate::{KvKind, OptimizeError, Recipe};
use candidate::Setting;
use workload::Formats;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The model, in 16 or 32 bits.
    pub arch: &'a ArchSpec,
    /// Where it will run.
    pub device: &'a Device,
    /// What it will do.
    pub workload: Workload,
    /// The cache of recipes that do not calibrate one; none for 16 bits.
    pub kv: Option<KvKind>,
    /// The loss that is bearable, in percent; none to weigh loss against speed.
    pub max_loss: Option<f64>,
    /// What was measured already.
    pub measured: &'a [Measured],
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// Every recipe and every measured folder, the best first; those left out come last.
    pub candidates: Vec<Candidate>,
    /// Why the first is the best, in a few sentences; or that nothing can be used.
    pub reason: String,
    /// What an 8-bit cache would do for the best one; none if it would do little.
    pub cache: Option<CacheAdvice>,
}

/// What an 8-bit cache would do besides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CacheAdvice {
    /// Its format.
    pub kv: KvKind,
    /// Times as fast as 16 bits, recipe and cache together.
    pub speed_up: f64,
    /// Bytes less.
    pub saved_bytes: u64,
}

impl Advice {
    /// The best candidate; none if all were left out.
    #[must_use]
    pub fn recommended(&self) -> Option<&Candidate> {
        self.candidates.first().filter(|candidate| candidate.left_out.is_none())
    }
}

/// Judges every built-in recipe, the model as it is, and what was measured.
///
/// ```
/// use bantam_model::ArchSpec;
/// use bantam_optimize::advice::{Device, Question, Workload, advise};
/// let arch = ArchSpec::from_config(&serde_json::json!({
///     "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672,
///     "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
///     "vocab_size": 32000, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
///     "rope_theta": 1e4, "tie_word_embeddings": false, "hidden_act": "silu",
/// }))?;
/// let h200 = Device::gpu("h200").unwrap();
/// let workload = Workload { batch: 16, input_tokens: 1024, output_tokens: 128 };
/// let question =
///     Question { arch: &arch, device: &h200, workload, kv: None, max_loss: Some(1.0), measured: &[] };
/// let advice = advise(&question)?;
/// let best = advice.recommended().unwrap();
/// assert!(best.recipe.starts_with("fp8"), "{}", best.recipe); // 16 bits take 131 GiB
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If a number is 0, the work is longer than the model's context, or a folder's formats cannot be
/// run.
pub fn advise(question: &Question<'_>) -> Result<Advice, OptimizeError> {
    question.workload.check(question.arch)?;
    let sixteen_bits = Formats::sixteen_bits(question.arch, KvFormat::BF16);
    let Question { arch, device, workload, .. } = *question;
    // Every device multiplies in 16 bits.
    let baseline = cost::speed(arch, &sixteen_bits, device, &workload).map_err(|why| {
        let (option, got) = ("device", device.name.clone());
        OptimizeError::Option { option, got, expected: format!("one with kernels: {why}") }
    })?;
    let seconds_in_16_bits = baseline.total.total();
    let setting = Setting { arch, device, workload, kv: question.kv, seconds_in_16_bits };
    let as_stored = setting.as_stored()?;
    let mut candidates = vec![as_stored.clone()];
    for name in Recipe::built_in_names() {
        let measured = question.measured.iter().any(|measured| measured.report.recipe == name);
        // What `auto` will choose is known when it has chosen.
        let judged = |recipe: &Recipe| recipe.auto.is_none() && !measured;
        let Some(recipe) = Recipe::built_in(name).filter(judged) else { continue };
        candidates.push(setting.planned(&recipe).unwrap_or_else(|error| Candidate {
            recipe: name.to_owned(),
            speed: None,
            speed_up: None,
            left_out: Some(error.to_string()),
            ..as_stored.clone()
        }));
    }
    for measured in question.measured {
        candidates.push(setting.measured(measured)?);
    }
    rank::rank(&mut candidates, question);
    let cache = candidates.first().and_then(|best| cache_advice(best, &setting));
    let reason = reason::reason(&candidates, &baseline);
    Ok(Advice { candidates, reason, cache })
}

/// Gains below this share, of speed and of the device's memory, are not worth a sentence.
const WORTHWHILE: f64 = 0.02;

fn cache_advice(best: &Candidate, setting: &Setting<'_>) -> Option<CacheAdvice> {
    if best.left_out.is_some() || best.folder.is_some() || best.cache != KvFormat::BF16 {
        return None;
    }
    // Where FP8 arithmetic is, FP8 caches lose less in most cases (the guide); here INT8 loses less
    // (docs/reference/accuracy.md).
    let kv = if setting.device.peaks.fp8.is_some() { KvKind::Fp8 } else { KvKind::Int8 };
    let setting = Setting { kv: Some(kv), ..*setting };
    let with = match Recipe::built_in(&best.recipe) {
        Some(recipe) => setting.planned(&recipe),
        None => setting.as_stored(),
    };
    let with = with.ok()?;
    let (speed_up, before) = (with.speed_up?, best.speed_up?);
    let saved_bytes = best.memory.total().saturating_sub(with.memory.total());
    let memory = setting.device.usable_bytes.unwrap_or_else(|| best.memory.total());
    let worthwhile =
        speed_up >= before * (1.0 + WORTHWHILE) || saved_bytes as f64 >= WORTHWHILE * memory as f64;
    worthwhile.then_some(CacheAdvice { kv, speed_up, saved_bytes })
}
