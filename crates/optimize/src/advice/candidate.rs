//! One way to store a model, with all that is known of it.

use bantam_backend::KvFormat;
use bantam_model::{ArchSpec, ModelError};
use serde::{Serialize, Serializer};

use super::calibration::CalibrationTime;
use super::cost::{Speed, speed};
use super::device::Device;
use super::loss::Loss;
use super::workload::{Formats, Memory, Workload};
use crate::{KvKind, OptimizeError, QuantizationPlan, Recipe, Report, Treatment};

/// What [`advise`](super::advise) calls the model as it is, in 16 bits.
pub const AS_STORED: &str = "none";

/// One way to store a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// The recipe, or [`AS_STORED`].
    pub recipe: String,
    /// The folder whose report was measured; none for predictions.
    pub folder: Option<String>,
    /// Number format of the cache.
    #[serde(serialize_with = "as_text")]
    pub cache: KvFormat,
    /// What it takes.
    pub memory: Memory,
    /// How fast it runs; none without kernels.
    pub speed: Option<Speed>,
    /// Times as fast as 16 bits, over the whole workload; none without kernels.
    pub speed_up: Option<f64>,
    /// What it costs.
    pub loss: Loss,
    /// How long it takes to make.
    pub calibration: CalibrationTime,
    /// Why it cannot be used here; none if it can.
    pub left_out: Option<String>,
}

fn as_text<S: Serializer>(value: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

/// A folder that `bantam quantize` wrote.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What users call it.
    pub folder: String,
    /// The quantized checkpoint's network.
    pub arch: ArchSpec,
    /// What the run measured.
    pub report: Report,
}

/// What all candidates are judged for.
pub(super) struct Setting<'a> {
    pub(super) arch: &'a ArchSpec,
    pub(super) device: &'a Device,
    pub(super) workload: Workload,
    /// The cache of recipes that do not calibrate one.
    pub(super) kv: Option<KvKind>,
    /// The workload in 16 bits.
    pub(super) seconds_in_16_bits: f64,
}

impl Setting<'_> {
    /// The model as it is.
    pub(super) fn as_stored(&self) -> Result<Candidate, OptimizeError> {
        let formats = Formats::sixteen_bits(self.arch, self.cache(None));
        let loss = Loss::expected(&[], formats.kv, parameters(self.arch));
        // A cache without calibrated scales finds them as it is written.
        let made = CalibrationTime::NotNeeded;
        Ok(self.candidate(AS_STORED, &formats, loss, made)?)
    }

    /// What a recipe would make of it; none if it does nothing to this model.
    pub(super) fn planned(&self, recipe: &Recipe) -> Result<Candidate, OptimizeError> {
        let recipe = Recipe { kv: recipe.kv.or(self.kv), ..recipe.clone() };
        let plan = QuantizationPlan::new(&recipe, self.arch)?;
        let formats = Formats::planned(&plan);
        let loss = self.expected_loss(&plan);
        Ok(self.candidate(&recipe.name, &formats, loss, CalibrationTime::of(&plan))?)
    }

    fn expected_loss(&self, plan: &QuantizationPlan) -> Loss {
        let mut treatments: Vec<Treatment> = Vec::new();
        for treatment in plan.blocks.iter().flatten().flatten() {
            if !treatments.contains(treatment) {
                treatments.push(*treatment);
            }
        }
        Loss::expected(&treatments, self.cache(plan.kv), parameters(self.arch))
    }

    /// What a run has made of it.
    pub(super) fn measured(&self, measured: &Measured) -> Result<Candidate, OptimizeError> {
        let report = &measured.report;
        let formats = Formats::stored(&measured.arch)?;
        let loss = match &report.accuracy {
            Some(accuracy) => {
                let ratio = accuracy.quantized_perplexity / accuracy.original_perplexity;
                Loss::measured(100.0 * (ratio - 1.0))
            }
            // Not compared: what is expected of the recipe, if it is known.
            None => {
                let recipe = Recipe::built_in(&report.recipe);
                let plan = recipe.and_then(|r| QuantizationPlan::new(&r, self.arch).ok());
                plan.map_or(Loss::UNKNOWN, |plan| self.expected_loss(&plan))
            }
        };
        let made = CalibrationTime::Measured(report.seconds);
        let mut candidate = self.candidate(&report.recipe, &formats, loss, made)?;
        candidate.folder = Some(measured.folder.clone());
        candidate.memory.weights_bytes = report.quantized_bytes;
        Ok(candidate)
    }

    fn cache(&self, planned: Option<KvFormat>) -> KvFormat {
        planned.or(self.kv.map(KvKind::format)).unwrap_or(KvFormat::BF16)
    }

    fn candidate(
        &self,
        recipe: &str,
        formats: &Formats,
        loss: Loss,
        calibration: CalibrationTime,
    ) -> Result<Candidate, ModelError> {
        let speed = speed(self.arch, formats, self.device, &self.workload);
        Ok(Candidate {
            recipe: recipe.to_owned(),
            folder: None,
            cache: formats.kv,
            memory: Memory::of(self.arch, formats, &self.workload)?,
            speed_up: speed.ok().map(|speed| self.seconds_in_16_bits / speed.total.total()),
            speed: speed.ok(),
            loss,
            calibration,
            left_out: speed.err().map(ToOwned::to_owned),
        })
    }
}

/// Weights of all matrices.
pub(super) fn parameters(arch: &ArchSpec) -> u64 {
    let count = |linear: &bantam_model::StoredLinear| (linear.n * linear.k) as u64;
    let layer: u64 = arch.linears(0).iter().map(count).sum();
    let untied = arch.untied_head().map_or(0, |head| count(&head));
    arch.sizes.layers as u64 * layer + count(&arch.embedding()) + untied
}
