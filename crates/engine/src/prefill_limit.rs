//! How much of a prompt may join a step in which other requests wait for their next token.

use std::num::NonZeroUsize;

/// How many prompt tokens may join a step that also decodes. Steps without decoding requests are
/// limited by the executor's token budget alone.
///
/// The right number depends on the machine and the load: on a CPU a handful of prompt tokens takes
/// as long as a decode step, on a GPU several hundred are nearly free. The default is therefore
/// measured. Answers do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PrefillLimit {
    /// As many as keep a step below this multiple of a step without prompt tokens; above 1.
    Slowdown(f64),
    /// Always this many.
    Tokens(NonZeroUsize),
}

impl Default for PrefillLimit {
    /// A long prompt at most doubles the time between the tokens of others, and gets about half of
    /// the machine.
    fn default() -> Self {
        Self::Slowdown(2.0)
    }
}

/// Prompt tokens of a step before anything is measured.
const INITIAL_TOKENS: usize = 32;
/// Prompt tokens of a mixed step at least: matrix kernels work on several rows at once, so fewer
/// would hardly take less time.
const MIN_TOKENS: usize = 4;
/// Share of the allowed time that is planned; the rest is for noise, and for what a step does beside
/// the model: with 0.8 the median step of a 1,500-token prompt took 2.1 times as long, not 1.8.
const MARGIN: f64 = 0.6;
/// Mixed steps after which one without prompt tokens shows again how long decoding takes: the number
/// of decoding requests and their contexts change.
const REMEASURE_AFTER: usize = 32;
/// Weight of a new measurement.
const SMOOTHING: f64 = 0.2;

/// Applies a [`PrefillLimit`]: a step takes about `decode + tokens · token` seconds.
#[derive(Clone, Debug)]
pub(crate) struct PrefillGovernor {
    limit: PrefillLimit,
    decode_seconds: Option<f64>,
    token_seconds: Option<f64>,
    /// Prompt tokens of the last mixed step; the next has at most twice as many, so a wrong
    /// measurement costs little.
    last_tokens: usize,
    /// Mixed steps since one that only decoded.
    mixed_steps: usize,
}

impl PrefillGovernor {
    pub(crate) fn new(limit: PrefillLimit) -> Self {
        let (decode_seconds, token_seconds) = (None, None);
        let (last_tokens, mixed_steps) = (INITIAL_TOKENS, 0);
        Self { limit, decode_seconds, token_seconds, last_tokens, mixed_steps }
    }

    /// Prompt tokens that may join a step with decoding requests, of `budget` at most. None in a
    /// step that measures decoding alone.
    pub(crate) fn tokens(&self, budget: usize) -> usize {
        let wanted = match (self.limit, self.decode_seconds, self.token_seconds) {
            (PrefillLimit::Tokens(tokens), ..) => tokens.get(),
            (PrefillLimit::Slowdown(_), None, _) => 0,
            (PrefillLimit::Slowdown(_), ..) if self.mixed_steps >= REMEASURE_AFTER => 0,
            (PrefillLimit::Slowdown(_), _, None) => INITIAL_TOKENS,
            (PrefillLimit::Slowdown(factor), Some(decode), Some(token)) => {
                let seconds = decode * (factor - 1.0) * MARGIN;
                // A conversion from f64 saturates, and makes 0 of NaN.
                ((seconds / token) as usize).clamp(MIN_TOKENS, MIN_TOKENS.max(2 * self.last_tokens))
            }
        };
        wanted.min(budget)
    }

    /// Learns from a step of `decodes` decoding requests and `prefill` prompt tokens.
    pub(crate) fn observe(&mut self, decodes: usize, prefill: usize, seconds: f64) {
        let smooth =
            |old: Option<f64>, new: f64| Some(old.map_or(new, |old| old + SMOOTHING * (new - old)));
        match (decodes, prefill) {
            (_, 0) => {
                self.mixed_steps = 0;
                self.decode_seconds = smooth(self.decode_seconds, seconds);
            }
            // An upper bound, until a mixed step is measured.
            (0, _) => self.token_seconds = self.token_seconds.or(Some(seconds / prefill as f64)),
            (_, _) => {
                self.mixed_steps += 1;
                self.last_tokens = prefill;
                if let Some(decode) = self.decode_seconds {
                    let token = (seconds - decode).max(0.0) / prefill as f64;
                    self.token_seconds = smooth(self.token_seconds, token);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs mixed steps on a machine with these costs; the longest step after a warm-up, and the
    /// tokens of the last.
    fn settle(decode: f64, token: f64, noise: f64) -> (f64, usize) {
        let mut governor = PrefillGovernor::new(PrefillLimit::default());
        let (mut longest, mut last): (f64, usize) = (0.0, 0);
        for n in 0..200 {
            let tokens = governor.tokens(4096);
            let seconds = (decode + tokens as f64 * token) * (1.0 + noise * f64::from(n % 3 - 1));
            governor.observe(4, tokens, seconds);
            if n >= 40 {
                longest = longest.max(decode + tokens as f64 * token);
            }
            last = if tokens > 0 { tokens } else { last };
        }
        (longest, last)
    }

    #[test]
    fn a_step_takes_at_most_twice_as_long_on_slow_and_fast_machines() {
        for (decode, token) in [(5.5e-3, 1.25e-3), (4e-3, 2e-5), (20e-3, 1e-5)] {
            let (longest, tokens) = settle(decode, token, 0.05);
            assert!(longest <= 2.0 * decode, "{longest} s for {decode} s, {token} s a token");
            // And the time that is allowed is used.
            let allowed = decode / token;
            assert!(tokens as f64 >= 0.4 * allowed.min(4096.0), "{tokens} of {allowed}");
        }
    }

    #[test]
    fn at_least_a_few_tokens_and_at_most_the_budget() {
        let (longest, tokens) = settle(1e-3, 1.0, 0.0);
        assert_eq!((longest, tokens), (4.001, MIN_TOKENS));
        assert_eq!(settle(1.0, 0.0, 0.0).1, 4096);
        let fixed = PrefillLimit::Tokens(NonZeroUsize::new(9).unwrap());
        assert_eq!(PrefillGovernor::new(fixed).tokens(100), 9);
        assert_eq!(PrefillGovernor::new(fixed).tokens(5), 5);
    }

    #[test]
    fn slower_decoding_is_noticed_beside_a_long_prompt() {
        let mut governor = PrefillGovernor::new(PrefillLimit::default());
        let mut tokens_at = |decode: f64| {
            for _ in 0..1000 {
                let tokens = governor.tokens(4096);
                governor.observe(4, tokens, decode + tokens as f64 * 1e-4);
            }
            governor.last_tokens
        };
        let (before, after) = (tokens_at(1e-3), tokens_at(8e-3));
        assert!(after >= 4 * before, "{before}, {after}");
    }

    #[test]
    fn a_slow_first_step_is_corrected_at_once() {
        let mut governor = PrefillGovernor::new(PrefillLimit::default());
        assert_eq!(governor.tokens(4096), 0, "decoding is measured first");
        governor.observe(1, 0, 1e-3);
        let first = governor.tokens(4096);
        governor.observe(1, first, 1e-3 + first as f64 * 1e-3);
        assert_eq!(governor.tokens(4096), MIN_TOKENS);
    }
}
