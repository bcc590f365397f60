//! Mixed precision: for each site the format that, all together, costs least within a size.
//!
//! Source: the search of ModelOpt's AutoQuantize, an integer programme over (bits, score) of every
//! site. Here it is solved by dynamic programming over the bits beyond each site's smallest choice.

use crate::OptimizeError;

/// What one format costs a site.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Bits of the whole site, scales included.
    pub bits: u64,
    /// What it does to the model: KL, or any score that adds up and is better the smaller.
    pub score: f64,
}

/// Steps in which sizes are counted at most; what is smaller is rounded up, so that the limit holds.
const MOST_STEPS: u64 = 1 << 15;

/// Chooses a format for each site so that the sum of scores is least within `effective_bits` a
/// weight, the sites holding `weights` weights together. Returns the index of each site's choice.
///
/// A choice that takes more bits than another but scores worse counts as noise of the measurement
/// and is not taken. The result is optimal where sizes have a common divisor of at least a 2¹⁵th of
/// the whole, as in any real model, and within that rounding otherwise.
///
/// # Errors
/// If a site has no choices, a score is not a number, or the smallest choices exceed the limit.
///
/// ```
/// use bantam_optimize::{Choice, choose_formats};
/// let site = |small: f64, large: f64| vec![
///     Choice { bits: 400, score: small },
///     Choice { bits: 800, score: large },
/// ];
/// // Room for one site in eight bits: the one that suffers more from four.
/// let chosen = choose_formats(&[site(0.2, 0.1), site(0.9, 0.1)], 200, 6.0)?;
/// assert_eq!(chosen, [0, 1]);
/// # Ok::<(), bantam_optimize::OptimizeError>(())
/// ```
pub fn choose_formats(
    sites: &[Vec<Choice>],
    weights: u64,
    effective_bits: f64,
) -> Result<Vec<usize>, OptimizeError> {
    for (i, site) in sites.iter().enumerate() {
        if site.is_empty() || site.iter().any(|choice| choice.score.is_nan()) {
            let got = format!("{} choices for site {i}", site.len());
            let expected = "one or more, each with a score that is a number".to_owned();
            return Err(OptimizeError::Option { option: "mixed precision", got, expected });
        }
    }
    let sites: Vec<Site> = sites.iter().map(|choices| Site::new(choices)).collect();
    let smallest: u64 = sites.iter().map(|site| site.smallest).sum();
    let limit = (effective_bits * weights as f64).max(0.0) as u64;
    if smallest > limit {
        let cheapest = smallest as f64 / weights.max(1) as f64;
        return Err(OptimizeError::Budget { asked: effective_bits, cheapest });
    }
    let largest: u64 =
        sites.iter().filter_map(|site| site.extras.last()).map(|(_, bits)| bits).sum();
    let room = (limit - smallest).min(largest);
    let divisor = sites.iter().flat_map(|site| &site.extras).fold(0, |d, (_, bits)| gcd(d, *bits));
    let step = divisor.max(room.div_ceil(MOST_STEPS)).max(1);
    Ok(solve(&sites, step, (room / step) as usize))
}

/// A site's choices that are worth their size.
struct Site {
    /// Bits of its smallest choice.
    smallest: u64,
    /// Index of each choice and its bits beyond the smallest, ascending.
    extras: Vec<(usize, u64)>,
    /// Their scores, descending.
    scores: Vec<f64>,
}

impl Site {
    fn new(choices: &[Choice]) -> Self {
        let mut order: Vec<usize> = (0..choices.len()).collect();
        order.sort_by(|&a, &b| {
            let (a, b) = (choices[a], choices[b]);
            a.bits.cmp(&b.bits).then(a.score.total_cmp(&b.score))
        });
        let smallest = choices[order[0]].bits;
        let (mut extras, mut scores) = (Vec::new(), Vec::<f64>::new());
        for i in order {
            if scores.last().is_none_or(|&best| choices[i].score < best) {
                extras.push((i, choices[i].bits - smallest));
                scores.push(choices[i].score);
            }
        }
        Self { smallest, extras, scores }
    }
}

/// The best choices for every size up to `room` steps, site after site; then back from the last.
fn solve(sites: &[Site], step: u64, room: usize) -> Vec<usize> {
    let mut best = vec![0f64; room + 1];
    let mut taken: Vec<Vec<u8>> = Vec::with_capacity(sites.len());
    let steps = |bits: u64| bits.div_ceil(step) as usize;
    for site in sites {
        let mut next = vec![f64::INFINITY; room + 1];
        let mut choices = vec![0u8; room + 1];
        let trials = site.extras.iter().zip(&site.scores).take(usize::from(u8::MAX) + 1);
        for (choice, ((_, bits), score)) in trials.enumerate() {
            let extra = steps(*bits);
            for size in extra..=room {
                let total = best[size - extra] + score;
                if total < next[size] {
                    (next[size], choices[size]) = (total, choice as u8);
                }
            }
        }
        best = next;
        taken.push(choices);
    }
    let mut size = room;
    let mut chosen: Vec<usize> = Vec::with_capacity(sites.len());
    for (site, choices) in sites.iter().zip(&taken).rev() {
        let (index, bits) = site.extras[usize::from(choices[size])];
        chosen.push(index);
        size -= steps(bits);
    }
    chosen.reverse();
    chosen
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Size and score of a combination.
    fn total(sites: &[Vec<Choice>], chosen: &[usize]) -> (u64, f64) {
        let choices = sites.iter().zip(chosen).map(|(site, &i)| site[i]);
        choices.fold((0, 0.0), |(bits, score), c| (bits + c.bits, score + c.score))
    }

    fn brute_force(sites: &[Vec<Choice>], limit: u64) -> Option<f64> {
        let combinations: usize = sites.iter().map(Vec::len).product();
        let scores = (0..combinations).filter_map(|mut i| {
            let chosen: Vec<usize> = sites
                .iter()
                .map(|site| {
                    let choice = i % site.len();
                    i /= site.len();
                    choice
                })
                .collect();
            let (bits, score) = total(sites, &chosen);
            (bits <= limit).then_some(score)
        });
        scores.min_by(f64::total_cmp)
    }

    proptest! {
        #[test]
        fn the_choice_is_that_of_trying_all(
            sites in proptest::collection::vec(
                proptest::collection::vec((1u64..60, 0f64..10.0), 1..5), 1..6,
            ),
            bits in 0f64..60.0,
        ) {
            let choice = |(bits, score)| Choice { bits, score };
            let sites: Vec<Vec<Choice>> =
                sites.into_iter().map(|site| site.into_iter().map(choice).collect()).collect();
            let weights = sites.len() as u64;
            let limit = (bits * weights as f64) as u64;
            match choose_formats(&sites, weights, bits) {
                Ok(chosen) => {
                    let (size, score) = total(&sites, &chosen);
                    let best = brute_force(&sites, limit).expect("something fits");
                    prop_assert!(size <= limit);
                    prop_assert!(score <= best + 1e-9, "{score} {best}");
                }
                Err(error) => {
                    prop_assert!(brute_force(&sites, limit).is_none(), "{error}");
                }
            }
        }
    }

    #[test]
    fn sizes_without_a_common_divisor_stay_within_the_limit() {
        let odd = |i: u64| {
            vec![
                Choice { bits: 4_000_037 + i, score: 1.0 },
                Choice { bits: 8_000_009 + 3 * i, score: 0.1 },
            ]
        };
        let sites: Vec<Vec<Choice>> = (0..200).map(odd).collect();
        let chosen = choose_formats(&sites, 200_000_000, 6.0).unwrap();
        let (bits, _) = total(&sites, &chosen);
        assert!(bits <= 1_200_000_000);
        assert!(chosen.iter().filter(|&&choice| choice == 1).count() >= 98, "{chosen:?}");
    }

    #[test]
    fn refusals_say_what_would_fit() {
        let site = vec![Choice { bits: 450, score: 1.0 }];
        let error = choose_formats(&[site], 100, 4.0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "4.000 bits a weight are too few: the cheapest choice takes 4.500"
        );
        assert!(choose_formats(&[vec![]], 1, 4.0).is_err());
        assert!(choose_formats(&[vec![Choice { bits: 1, score: f64::NAN }]], 1, 4.0).is_err());
        assert_eq!(choose_formats(&[], 0, 4.0).unwrap(), Vec::<usize>::new());
    }
}
