//! From logits to the next token.

use std::cmp::Ordering;

use crate::generator::uniform;
use crate::{SamplingError, SamplingParams, TokenMask};

/// What a token is chosen after.
///
/// ```
/// use bantam_engine::{Sampler, SamplingContext, SamplingParams};
/// let params = SamplingParams { presence_penalty: 1.0, ..SamplingParams::greedy() };
/// // Token 0 was generated, token 1 is only in the prompt.
/// let context =
///     SamplingContext { tokens: &[1, 0], num_prompt: 1, excluded: &[], allowed: None };
/// assert_eq!(Sampler::new(params)?.choose(&[2.0, 1.5], &context)?, 1);
/// # Ok::<(), bantam_engine::SamplingError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SamplingContext<'a> {
    /// All tokens so far; the next one stands at position `tokens.len()`.
    pub tokens: &'a [u32],
    /// How many of them are the prompt.
    pub num_prompt: usize,
    /// Tokens that may not be chosen.
    pub excluded: &'a [u32],
    /// Tokens of which one must be chosen; none for all.
    pub allowed: Option<TokenMask<'a>>,
}

/// A token that may still be chosen.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    token: u32,
    logit: f32,
    /// Relative to the most probable candidate, whose weight is 1.
    weight: f64,
}

/// More probable first, the lower id first among equals.
fn by_probability(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

/// Chooses tokens as [`SamplingParams`] say.
///
/// Steps in order, the convention of `transformers` (llama.cpp applies the temperature last, so its
/// top-p and min-p see other probabilities):
///
/// 1. repetition penalty on every token of the context: a positive logit is divided, a negative one
///    multiplied (Keskar et al., *CTRL*, 2019);
/// 2. presence and frequency penalty on the generated tokens, as in OpenAI's API: the logit less the
///    one, and less the other times the number of occurrences;
/// 3. logit bias: added, after the penalties, so that it acts as stated;
/// 4. exclusion: the last token of a bad word whose other tokens end the context, what the caller
///    excludes (stop tokens before the least number of tokens), and what a constraint does not allow;
/// 5. temperature 0 ends here with the largest logit, the lowest id on a tie;
///    any other temperature divides the logits;
/// 6. top-k: the k largest;
/// 7. top-p: of these, the fewest whose probabilities reach p (Holtzman et al., *The Curious Case of
///    Neural Text Degeneration*, 2020);
/// 8. min-p: of these, the ones at least as probable as min-p times the most probable;
/// 9. typical-p: of these, the fewest whose probabilities reach p, those first whose information
///    -ln p is nearest its mean (Meister et al., *Locally Typical Sampling*, 2023);
/// 10. one draw from what is left, in proportion to the probabilities.
///
/// Equal logits are ordered by id, so the result never depends on the order of a sort.
///
/// It is total: whatever the logits and whatever the parameters within their ranges, it chooses a
/// token or returns an error. A logit that a step would carry past the largest f32 stays there: only
/// step 4 and the model's own -∞ exclude a token.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplingParams,
    adjusted: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler with these parameters.
    ///
    /// # Errors
    /// If a parameter is out of range.
    pub fn new(params: SamplingParams) -> Result<Self, SamplingError> {
        params.validate()?;
        Ok(Self { params, adjusted: Vec::new(), candidates: Vec::new() })
    }

    /// The token for `position`, given its `logits: [V]` and a context of generated tokens.
    ///
    /// # Errors
    /// As [`choose`](Self::choose).
    pub fn sample(
        &mut self,
        logits: &[f32],
        context: &[u32],
        position: usize,
    ) -> Result<u32, SamplingError> {
        let context =
            SamplingContext { tokens: context, num_prompt: 0, excluded: &[], allowed: None };
        self.choose_at(logits, &context, position)
    }

    /// The token after `context`, given its `logits: [V]`.
    ///
    /// # Errors
    /// If a logit is NaN or +∞, or none is left above -∞ (which excludes a token).
    pub fn choose(
        &mut self,
        logits: &[f32],
        context: &SamplingContext<'_>,
    ) -> Result<u32, SamplingError> {
        self.choose_at(logits, context, context.tokens.len())
    }

    fn choose_at(
        &mut self,
        logits: &[f32],
        context: &SamplingContext<'_>,
        position: usize,
    ) -> Result<u32, SamplingError> {
        check_logits(logits, position)?;
        let all_allowed = context.excluded.is_empty() && context.allowed.is_none();
        let logits = if self.params.keep_logits() && all_allowed {
            logits
        } else {
            adjust(logits, context, &self.params, &mut self.adjusted);
            &self.adjusted
        };
        let (best, &max) = logits
            .iter()
            .enumerate()
            .reduce(|best, next| if next.1 > best.1 { next } else { best })
            .filter(|(_, max)| **max > f32::NEG_INFINITY)
            .ok_or(SamplingError::NoCandidate { position })?;
        if self.params.temperature == 0.0 {
            return Ok(best as u32);
        }
        // Both are finite, so the difference is a number; the largest weighs 1 exactly.
        let weight =
            |logit: f32| (f64::from(logit - max) / f64::from(self.params.temperature)).exp();
        self.candidates.clear();
        self.candidates.extend(
            logits
                .iter()
                .zip(0..)
                .filter(|(l, _)| **l > f32::NEG_INFINITY)
                .map(|(&logit, token)| Candidate { token, logit, weight: weight(logit) }),
        );
        filter(&mut self.candidates, &self.params);
        let drawn = draw(&self.candidates, uniform(self.params.seed, position));
        drawn.ok_or(SamplingError::NoCandidate { position })
    }
}

/// Refuses logits for `position` of which one is NaN or +∞; -∞ excludes a token.
pub(crate) fn check_logits(logits: &[f32], position: usize) -> Result<(), SamplingError> {
    let excluded_or_finite = |v: f32| v < f32::INFINITY; // false for NaN
    match logits.iter().position(|&v| !excluded_or_finite(v)) {
        Some(token) => Err(SamplingError::NotFinite { position, token, value: logits[token] }),
        None => Ok(()),
    }
}

impl SamplingParams {
    /// No parameter changes a logit.
    fn keep_logits(&self) -> bool {
        self.repetition_penalty == 1.0
            && self.presence_penalty == 0.0
            && self.frequency_penalty == 0.0
            && self.logit_bias.is_empty()
            && self.bad_words.is_empty()
    }
}

/// A logit after arithmetic that may have left the range of f32; -∞ as it was.
fn within_range(before: f32, after: f32) -> f32 {
    if before == f32::NEG_INFINITY { before } else { after.clamp(f32::MIN, f32::MAX) }
}

/// Copies `logits` with penalties, bias and exclusions: steps 1 to 4.
///
/// Ids past the logits are left out: a prompt may hold some, of a padded vocabulary.
fn adjust(
    logits: &[f32],
    context: &SamplingContext<'_>,
    params: &SamplingParams,
    out: &mut Vec<f32>,
) {
    out.clear();
    out.extend_from_slice(logits);
    let SamplingContext { tokens, num_prompt, excluded, allowed } = *context;
    if params.repetition_penalty != 1.0 {
        for &token in tokens {
            // From the original logit, so a second occurrence changes nothing.
            if let Some(&logit) = logits.get(token as usize) {
                let penalty = params.repetition_penalty;
                let penalised = if logit > 0.0 { logit / penalty } else { logit * penalty };
                out[token as usize] = within_range(logit, penalised);
            }
        }
    }
    if params.presence_penalty != 0.0 || params.frequency_penalty != 0.0 {
        let mut generated = tokens.get(num_prompt..).unwrap_or_default().to_vec();
        generated.sort_unstable();
        for same in generated.chunk_by(|a, b| a == b) {
            if let Some(logit) = out.get_mut(same[0] as usize) {
                let penalty =
                    params.presence_penalty + params.frequency_penalty * same.len() as f32;
                *logit = within_range(*logit, *logit - penalty);
            }
        }
    }
    for &(token, bias) in &params.logit_bias {
        if let Some(logit) = out.get_mut(token as usize) {
            *logit =
                if bias == f32::NEG_INFINITY { bias } else { within_range(*logit, *logit + bias) };
        }
    }
    let last_of_bad_words = params.bad_words.iter().filter_map(|word| {
        let (&last, beginning) = word.split_last()?;
        tokens.ends_with(beginning).then_some(last)
    });
    for token in last_of_bad_words.chain(excluded.iter().copied()) {
        if let Some(logit) = out.get_mut(token as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
    if let Some(allowed) = allowed {
        for (logit, token) in out.iter_mut().zip(0..) {
            if !allowed.contains(token) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

/// Keeps what top-k, top-p, min-p and typical-p allow.
fn filter(candidates: &mut Vec<Candidate>, params: &SamplingParams) {
    if params.top_k > 0 && params.top_k < candidates.len() {
        candidates.select_nth_unstable_by(params.top_k - 1, by_probability);
        candidates.truncate(params.top_k);
        // Restores an order that depends on the logits alone.
        candidates.sort_unstable_by(by_probability);
    }
    if params.top_p < 1.0 {
        keep_nucleus(candidates, f64::from(params.top_p));
    }
    if params.min_p > 0.0 {
        let least = f64::from(params.min_p);
        candidates.retain(|candidate| candidate.weight >= least);
    }
    if params.typical_p < 1.0 {
        keep_typical(candidates, f64::from(params.typical_p));
    }
}

/// Keeps the fewest candidates that hold `share` of the whole weight, the most typical first.
fn keep_typical(candidates: &mut Vec<Candidate>, share: f64) {
    let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
    let information = |candidate: &Candidate| -(candidate.weight / total).ln();
    let expected = candidates.iter().filter(|candidate| candidate.weight > 0.0);
    let entropy: f64 = expected.map(|c| c.weight / total * information(c)).sum();
    let distance = |candidate: &Candidate| (information(candidate) - entropy).abs();
    candidates.sort_unstable_by(|a, b| {
        distance(a).total_cmp(&distance(b)).then_with(|| by_probability(a, b))
    });
    let mut weight = 0.0;
    let enough = candidates.iter().position(|candidate| {
        weight += candidate.weight;
        weight >= share * total
    });
    if let Some(last) = enough {
        candidates.truncate(last + 1);
    }
}

/// Keeps the fewest most probable candidates that hold `share` of the whole weight.
fn keep_nucleus(candidates: &mut Vec<Candidate>, share: f64) {
    let wanted = share * candidates.iter().map(|candidate| candidate.weight).sum::<f64>();
    let (mut sorted, mut weight) = (0, 0.0);
    // A nucleus is small beside a vocabulary: sort ever longer beginnings until one suffices.
    while sorted < candidates.len() {
        let end = (4 * sorted).max(64).min(candidates.len());
        if end < candidates.len() {
            candidates[sorted..].select_nth_unstable_by(end - sorted, by_probability);
        }
        candidates[sorted..end].sort_unstable_by(by_probability);
        for i in sorted..end {
            weight += candidates[i].weight;
            if weight >= wanted {
                candidates.truncate(i + 1);
                return;
            }
        }
        sorted = end;
    }
}

/// The candidate in whose part of the whole weight the number `u` in [0, 1) falls; none if none has
/// any weight.
fn draw(candidates: &[Candidate], u: f64) -> Option<u32> {
    let mut left = u * candidates.iter().map(|candidate| candidate.weight).sum::<f64>();
    for candidate in candidates {
        left -= candidate.weight;
        if left < 0.0 {
            return Some(candidate.token);
        }
    }
    // Reached only by rounding: the last that has any weight.
    candidates.iter().rfind(|candidate| candidate.weight > 0.0).map(|candidate| candidate.token)
}
