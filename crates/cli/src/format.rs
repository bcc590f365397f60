//! How a model is stored, in one word: `int8`, or `int8+fp8` with an FP8 key/value cache.

use std::fmt;
use std::str::FromStr;

use bantam_backend::KvFormat;
use bantam_model::{LoadOptions, Precision};

use crate::memory;

/// The number format of the weights, and that of the key/value cache where it is stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) precision: Precision,
    /// None for what suits the weights: f32 beside f32, else bf16.
    pub(crate) kv: Option<KvFormat>,
}

impl Format {
    /// Options for so many sequences side by side, with the logits of each one's last token, within
    /// the memory of this machine.
    pub(crate) fn load_options(self, max_context: Option<usize>, sequences: usize) -> LoadOptions {
        LoadOptions {
            precision: self.precision,
            max_context,
            max_batch_tokens: LoadOptions::default().max_batch_tokens.max(sequences),
            max_sequences: sequences,
            kv_format: self.kv,
            max_logit_rows: sequences,
            memory_budget: memory::budget(),
            ..LoadOptions::default()
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (weights, kv) = match text.split_once('+') {
            Some((weights, kv)) => (weights, Some(kv)),
            None => (text, None),
        };
        let precision = weights.parse::<Precision>().map_err(|error| error.to_string())?;
        let kv = kv.map(str::parse::<KvFormat>).transpose().map_err(|error| error.to_string())?;
        Ok(Self { precision, kv })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.precision.fmt(f)?;
        self.kv.map_or(Ok(()), |kv| write!(f, "+{kv}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_round_trip_and_others_are_refused() {
        for word in ["f32", "bf16+fp8", "int4-g32+int8", "int8+bf16"] {
            assert_eq!(word.parse::<Format>().unwrap().to_string(), word);
        }
        let refusal = |word: &str| word.parse::<Format>().unwrap_err();
        assert!(refusal("int8+int4").contains("use f32, bf16, int8 or fp8"));
        assert!(refusal("+fp8").contains("use f32, bf16, int8, int4"));
    }
}
