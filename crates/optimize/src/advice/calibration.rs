//! How long quantizing takes.

use std::fmt;

use serde::Serialize;

use crate::{FactorMethod, QuantizationPlan, RoundMethod, Treatment};

/// How long calibration takes: the classes of NVIDIA's guide to TensorRT-LLM's methods, which mean
/// models of some ten billion parameters on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CalibrationTime {
    /// Weights are rounded by themselves: no text is needed.
    NotNeeded,
    /// Statistics of the inputs, and searches over them.
    Minutes,
    /// AWQ and GPTQ.
    TensOfMinutes,
    /// Measured on this model: seconds of the whole quantization.
    Measured(f64),
}

impl CalibrationTime {
    /// What a plan takes.
    pub(super) fn of(plan: &QuantizationPlan) -> Self {
        let thorough = |treatment: &Treatment| {
            treatment.factors == FactorMethod::Awq || treatment.round != RoundMethod::Nearest
        };
        if plan.blocks.iter().flatten().flatten().any(thorough) {
            Self::TensOfMinutes
        } else if plan.needs_calibration() {
            Self::Minutes
        } else {
            Self::NotNeeded
        }
    }

    /// Seconds in order of magnitude, to choose between equals.
    pub(super) fn magnitude(self) -> f64 {
        match self {
            Self::NotNeeded => 0.0,
            Self::Minutes => 300.0,
            Self::TensOfMinutes => 2000.0,
            Self::Measured(seconds) => seconds,
        }
    }
}

impl fmt::Display for CalibrationTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNeeded => f.write_str("none"),
            Self::Minutes => f.write_str("minutes"),
            Self::TensOfMinutes => f.write_str("tens of minutes"),
            Self::Measured(seconds) => write!(f, "{seconds:.0} s"),
        }
    }
}
