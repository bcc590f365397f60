//! How probable the model found the tokens.

use std::cmp::Ordering;

/// Logarithms of probabilities at one position, before penalties, temperature and filters: what the
/// model said, not what the sampler made of it.
///
/// ```
/// use bantam_engine::TokenLogprobs;
/// let logprobs = TokenLogprobs::new(&[0.0, 1.0, 0.0], 0, 2);
/// assert!((logprobs.chosen - -1.5514).abs() < 1e-4);
/// let alternatives: Vec<u32> = logprobs.top.iter().map(|(token, _)| *token).collect();
/// assert_eq!(alternatives, [1, 0]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// ln p of the token that was chosen, or that stands there.
    pub chosen: f32,
    /// The most probable tokens and their ln p, the most probable first; the chosen one is among
    /// them only if it is that probable.
    pub top: Vec<(u32, f32)>,
}

impl TokenLogprobs {
    /// The `num_top` most probable tokens under `logits: [V]`, and the one `chosen`.
    ///
    /// Total: a token that is not among the logits, or whose logit is NaN, has the ln p of one that
    /// is impossible, -∞.
    #[must_use]
    pub fn new(logits: &[f32], chosen: u32, num_top: usize) -> Self {
        // `max` leaves NaN out; in f64 no difference of two f32 overflows.
        let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let relative =
            |logit: f32| if f64::from(logit) == max { 0.0 } else { f64::from(logit) - max };
        let weights = logits.iter().map(|&logit| relative(logit).exp());
        let log_sum = weights.filter(|weight| !weight.is_nan()).sum::<f64>().ln();
        let logprob = |logit: f32| match (relative(logit) - log_sum) as f32 {
            _ if logit == f32::NEG_INFINITY => f32::NEG_INFINITY,
            logprob if logprob.is_nan() => f32::NEG_INFINITY,
            logprob => logprob,
        };
        let rank = |token: u32| match logits[token as usize] {
            logit if logit.is_nan() => f32::NEG_INFINITY,
            logit => logit,
        };
        let by_logit =
            |a: &u32, b: &u32| -> Ordering { rank(*b).total_cmp(&rank(*a)).then(a.cmp(b)) };
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let num_top = num_top.min(order.len());
        if num_top > 0 && num_top < order.len() {
            order.select_nth_unstable_by(num_top - 1, by_logit);
        }
        order.truncate(num_top);
        order.sort_unstable_by(by_logit);
        let top = order.into_iter().map(|token| (token, logprob(logits[token as usize]))).collect();
        let chosen = logits.get(chosen as usize).map_or(f32::NEG_INFINITY, |&logit| logprob(logit));
        Self { chosen, top }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn probabilities_add_up_and_are_in_order(
            logits in proptest::collection::vec(-30f32..30.0, 1..200),
            chosen: usize,
            num_top in 0usize..250,
        ) {
            let chosen = chosen % logits.len();
            let all = TokenLogprobs::new(&logits, chosen as u32, logits.len());
            let sum: f64 = all.top.iter().map(|(_, logprob)| f64::from(*logprob).exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-4, "{sum}");
            prop_assert!(all.top.is_sorted_by(|a, b| a.1 >= b.1));
            prop_assert!(all.top.contains(&(chosen as u32, all.chosen)));
            let some = TokenLogprobs::new(&logits, chosen as u32, num_top);
            prop_assert_eq!(&some.top[..], &all.top[..num_top.min(logits.len())]);
        }
    }
}
