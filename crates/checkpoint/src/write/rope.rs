//! The rotary rule of a GGUF file, in the words of `config.json`.
//!
//! GGUF files of Llama 3.1 keep a divisor for each frequency in the tensor `rope_freqs.weight`; nobody
//! reads it from a Hugging Face folder. Where the divisors are those of the `llama3` rule, its four
//! numbers are found again; any others are written as `longrope` with equal factors for short and
//! long contexts, whose frequencies `transformers` computes as 1/(factor·θ^(2i/D)): the same.

use std::f64::consts::TAU;

use serde_json::{Value, json};

use crate::{Checkpoint, CheckpointError};

/// The tensor, under the name both formats have for it.
pub(super) const DIVISORS: &str = "rope_freqs.weight";

/// What divisors may differ by from those of a rule: they are stored as f32, and made of f32s.
const TOLERANCE: f64 = 2e-6;

/// The `rope_scaling` of a model that has divisors; none if it has no such tensor.
///
/// # Errors
/// If the tensor is damaged, or stands beside another rule that no configuration can combine it with.
pub(super) fn scaling_of_divisors(source: &Checkpoint) -> Result<Option<Value>, CheckpointError> {
    if !source.has_tensor(DIVISORS) {
        return Ok(None);
    }
    let tensor = source.tensor(DIVISORS)?;
    let mut divisors: Vec<f64> = tensor.to_f32()?.into_iter().map(f64::from).collect();
    let wrong = |problem: &str| CheckpointError::Tensor {
        file: tensor.file().to_path_buf(),
        tensor: DIVISORS.to_owned(),
        problem: problem.to_owned(),
    };
    if divisors.is_empty() || !divisors.iter().all(|d| d.is_finite() && *d > 0.0) {
        return Err(wrong("holds numbers that are not positive; the file is damaged"));
    }
    let config = source.config();
    match &config["rope_scaling"] {
        Value::Null => {}
        linear if linear["rope_type"] == "linear" => {
            let factor = linear["factor"].as_f64().unwrap_or(1.0);
            divisors.iter_mut().for_each(|divisor| *divisor *= factor);
        }
        _ => return Err(wrong("stands beside a rule of its own, and config.json can hold one")),
    }
    if divisors.iter().all(|&divisor| divisor == 1.0) {
        return Ok(Some(Value::Null));
    }
    let theta = config["rope_theta"].as_f64().unwrap_or(10_000.0);
    let context = config["max_position_embeddings"].as_u64();
    let found = Llama3::of(&divisors, theta).map(|rule| rule.as_json());
    Ok(Some(found.unwrap_or_else(|| {
        json!({
            "rope_type": "longrope",
            "factor": 1.0,
            "attention_factor": 1.0,
            "original_max_position_embeddings": context,
            "short_factor": divisors,
            "long_factor": divisors,
        })
    })))
}

/// The rule of Llama 3.1.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Llama3 {
    factor: f64,
    low: f64,
    high: f64,
    original: f64,
}

impl Llama3 {
    /// The rule that makes these divisors.
    fn of(divisors: &[f64], theta: f64) -> Option<Self> {
        let factor = divisors.iter().copied().fold(1.0, f64::max);
        let frequency = |i: usize| theta.powf(-(i as f64) / divisors.len() as f64);
        // Between the two ends 1/divisor is a line in the frequency: how much is kept,
        // original·frequency/2π − low over high − low.
        let kept = |divisor: f64| (1.0 / divisor - 1.0 / factor) / (1.0 - 1.0 / factor);
        let blended: Vec<(f64, f64)> = divisors
            .iter()
            .enumerate()
            .filter(|(_, divisor)| **divisor > 1.0 && **divisor < factor)
            .map(|(i, &divisor)| (frequency(i), kept(divisor)))
            .collect();
        // One point leaves a choice: the models of Meta have low 1 and high 4.
        let published = |&(frequency, kept): &(f64, f64)| {
            let original = ((3.0 * kept + 1.0) * TAU / frequency).round();
            Self { factor, low: 1.0, high: 4.0, original }
        };
        let fitted = match (blended.first(), blended.last()) {
            (Some(first), Some(last)) if first != last => {
                let slope = (first.1 - last.1) / (first.0 - last.0);
                let intercept = last.1 - slope * last.0;
                // All three may be scaled together; 1 for the low one is what models have.
                let span = -1.0 / intercept;
                let original = (slope * TAU * span).round();
                Some(Self { factor, low: 1.0, high: nearly_whole(1.0 + span), original })
            }
            (Some(point), _) => Some(published(point)),
            _ => None,
        };
        fitted.filter(|rule| rule.makes(divisors, frequency))
    }

    fn makes(&self, divisors: &[f64], frequency: impl Fn(usize) -> f64) -> bool {
        let sensible = self.high > self.low && self.original >= 1.0 && self.original < 1e9;
        let divisor = |i: usize| {
            let rotations = self.original * frequency(i) / TAU;
            if rotations < self.low {
                return self.factor;
            }
            if rotations > self.high {
                return 1.0;
            }
            let kept = (rotations - self.low) / (self.high - self.low);
            1.0 / ((1.0 - kept) / self.factor + kept)
        };
        let close = |(i, &stored): (usize, &f64)| (divisor(i) / stored - 1.0).abs() < TOLERANCE;
        sensible && divisors.iter().enumerate().all(close)
    }

    fn as_json(self) -> Value {
        json!({
            "rope_type": "llama3",
            "factor": self.factor,
            "low_freq_factor": self.low,
            "high_freq_factor": self.high,
            "original_max_position_embeddings": self.original as u64,
        })
    }
}

/// A whole number, if rounding errors alone set this one apart from it.
fn nearly_whole(value: f64) -> f64 {
    if (value - value.round()).abs() < 1e-4 { value.round() } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The divisors of a rule as a GGUF file has them.
    fn divisors(rule: &Llama3, theta: f64, count: usize) -> Vec<f64> {
        let frequency = |i: usize| theta.powf(-(i as f64) / count as f64);
        let divisor = |i| {
            let rotations = rule.original * frequency(i) / TAU;
            let kept = ((rotations - rule.low) / (rule.high - rule.low)).clamp(0.0, 1.0);
            f64::from((1.0 / ((1.0 - kept) / rule.factor + kept)) as f32)
        };
        (0..count).map(divisor).collect()
    }

    #[test]
    fn the_rule_of_llama_3_is_found_again() {
        let of = |factor, low, high, original| Llama3 { factor, low, high, original };
        let cases = [
            (of(8.0, 1.0, 4.0, 8192.0), 500_000.0, 64),
            (of(32.0, 1.0, 4.0, 8192.0), 500_000.0, 32),
            (of(16.0, 1.0, 4.0, 8192.0), 500_000.0, 64),
            (of(4.0, 1.0, 2.0, 32_768.0), 1_000_000.0, 64),
            (of(8.0, 1.0, 4.0, 64.0), 10_000.0, 8),
        ];
        for (rule, theta, count) in cases {
            let stored = divisors(&rule, theta, count);
            assert_eq!(Llama3::of(&stored, theta), Some(rule), "{stored:?}");
        }
    }

    #[test]
    fn other_divisors_are_no_llama_3() {
        let rule = Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
        let mut stored = divisors(&rule, 500_000.0, 64);
        stored[40] *= 1.001;
        assert_eq!(Llama3::of(&stored, 500_000.0), None);
        assert_eq!(Llama3::of(&[1.0, 2.0, 4.0, 8.0], 10_000.0), None);
        assert_eq!(Llama3::of(&[1.0, 1.0], 10_000.0), None);
    }
}
