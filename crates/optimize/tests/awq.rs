//! The AWQ search, against the data it was calibrated on.

mod common;

use bantam_backend::reference::Reference;
use bantam_numerics::{ActivationFormat, Group, WeightFormat};
use bantam_optimize::{
    AwqOptions, ChannelTies, FactorFormula, Rounding, WeightMatrix, awq, round_to_nearest,
};
use common::{Random, error_on_data, statistics};
use proptest::prelude::*;

const INT4: WeightFormat = WeightFormat::Int4 { group: Group::Of(16), symmetric: true };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn the_loss_is_that_of_the_data(seed: u64, n in 1usize..12, tokens in 1usize..80) {
        let (k, mut random) = (32, Random::new(seed));
        let bf16 = |v: f32| ActivationFormat::BF16.round(v);
        let x: Vec<f32> = random.inputs(tokens, k).into_iter().map(bf16).collect();
        let w = random.weight(n, k);
        let weight = WeightMatrix::new(&w, n, k).unwrap();
        let statistics = statistics(&Reference, &x, k);
        let options = AwqOptions::new(Rounding::new(INT4));
        let found = awq(&Reference, weight, &statistics, &options).unwrap();
        // Round the scaled weight, undo the factors, and run the data through both.
        let scaled = weight.for_factors(&found.factors).unwrap();
        let scaled = WeightMatrix::new(&scaled, n, k).unwrap();
        let gram = statistics.gram().unwrap().for_factors(&found.factors).unwrap();
        let packed = round_to_nearest(
            scaled, options.rounding, ActivationFormat::BF16, Some(&gram.diagonal()),
        ).unwrap().decode();
        let undone = packed.iter().enumerate().map(|(i, v)| v * found.factors[i % k] - w[i]);
        let want = error_on_data(&undone.collect::<Vec<f32>>(), &x, k);
        let got = found.best.error;
        prop_assert!((got - want).abs() <= 1e-2 * want, "{got} {want}");
        prop_assert_eq!(found.trials[0].formula, FactorFormula::None);
        prop_assert!(found.trials.iter().all(|trial| trial.error >= got));
        // None, six exponents of each formula, and at most two and two around the best.
        prop_assert!((13..=17).contains(&found.trials.len()));
    }

    #[test]
    fn tied_channels_share_a_factor(seed: u64) {
        let (n, k, mut random) = (8, 48, Random::new(seed));
        let w = random.weight(n, k);
        let weight = WeightMatrix::new(&w, n, k).unwrap();
        let statistics = statistics(&Reference, &random.inputs(60, k), k);
        let ties = ChannelTies::grouped_heads(6, 2, 8);
        let options = AwqOptions { ties: Some(ties.clone()), ..AwqOptions::new(Rounding::new(INT4)) };
        let found = awq(&Reference, weight, &statistics, &options).unwrap();
        let shared = ties.of_classes(&found.factors).unwrap();
        for (channel, &class) in ties.class_of().iter().enumerate() {
            prop_assert_eq!(found.factors[channel], shared[class as usize]);
        }
        prop_assert!(found.best.error <= found.trials[0].error);
    }
}

#[test]
fn loud_channels_are_protected() {
    let (n, k, mut random) = (64, 64, Random::new(3));
    let w = random.weight(n, k);
    let weight = WeightMatrix::new(&w, n, k).unwrap();
    let statistics = statistics(&Reference, &random.inputs(200, k), k);
    let found =
        awq(&Reference, weight, &statistics, &AwqOptions::new(Rounding::new(INT4))).unwrap();
    let gain = found.best.error / found.trials[0].error;
    assert!(gain < 0.7, "{gain}");
    assert!(found.factors[5] < found.factors[4], "{:?}", &found.factors[..8]);
}

#[test]
fn a_channel_that_no_input_reaches_keeps_its_scale() {
    let (n, k, mut random) = (4, 16, Random::new(5));
    let w = random.weight(n, k);
    let mut x = random.inputs(50, k);
    x.iter_mut().skip(3).step_by(k).for_each(|v| *v = 0.0);
    let weight = WeightMatrix::new(&w, n, k).unwrap();
    let found = awq(
        &Reference,
        weight,
        &statistics(&Reference, &x, k),
        &AwqOptions::new(Rounding::new(INT4)),
    );
    let found = found.unwrap();
    assert_eq!(found.factors[3], 1.0);
    assert!(found.factors.iter().all(|p| p.is_finite() && *p > 0.0));
}
