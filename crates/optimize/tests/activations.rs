//! Ranges of activations: calibrators, outliers and the search of SmoothQuant.

mod common;

use bantam_backend::reference::Reference;
use bantam_backend::{LinearInput, QuantizedLinear};
use bantam_cpu::{Cpu, CpuOptions};
use bantam_numerics::reference::linear;
use bantam_numerics::{ActivationFormat, Group, WeightFormat};
use bantam_optimize::{
    ActivationScale, Calibrator, ChannelTies, InputStatistics, RangeVerdict, Rounding,
    SmoothQuantOptions, StatisticsCollector, StatisticsOptions, Trial, WeightMatrix, outliers,
    round_to_nearest, smoothquant,
};
use common::{Random, statistics};
use proptest::prelude::*;

const INT8: ActivationFormat = ActivationFormat::Int8;

/// Mean squared error of all values with a static scale.
fn error(x: &[f32], scale: f32, format: ActivationFormat) -> f64 {
    let errors = x.iter().map(|v| f64::from(format.round(v / scale) * scale - v).powi(2));
    errors.sum::<f64>() / x.len() as f64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn calibrators_keep_their_promises(seed: u64, percent in 50f64..100.0, loud in 1f32..40.0) {
        let mut random = Random::new(seed);
        let mut x: Vec<f32> = (0..20_000).map(|_| random.normal()).collect();
        x[77] = loud;
        let statistics = statistics(&Reference, &x, 8);
        let max = Calibrator::Max.scale(&statistics, INT8).unwrap();
        prop_assert_eq!(max, statistics.largest() / 127.0);
        let amax = 127.0 * Calibrator::Percentile(percent).scale(&statistics, INT8).unwrap();
        let bin = statistics.histogram.as_ref().unwrap().edge(1);
        let share = |amax: f32| x.iter().filter(|v| v.abs() <= amax).count() as f64 / 200.0;
        prop_assert!(share(amax * 1.0001) >= percent, "{amax} {percent}");
        prop_assert!(share(amax - 1.001 * bin) <= percent, "{amax} {percent}");
        for format in [INT8, ActivationFormat::Fp8] {
            let mse = Calibrator::Mse.scale(&statistics, format).unwrap();
            let max = Calibrator::Max.scale(&statistics, format).unwrap();
            // Bins' centres stand for their values.
            let centres = f64::from(bin).powi(2) / 6.0;
            prop_assert!(error(&x, mse, format) <= error(&x, max, format) + centres);
            for other in [0.6, 0.8] {
                prop_assert!(error(&x, mse, format) <= 1.05 * error(&x, max * other, format) + centres);
            }
        }
        let entropy = 127.0 * Calibrator::Entropy.scale(&statistics, INT8).unwrap();
        prop_assert!(entropy <= statistics.largest() && entropy > 1.5, "{entropy}");
        if loud > 20.0 {
            prop_assert!(entropy < 0.7 * loud, "{entropy} of {loud}");
        }
    }
}

#[test]
fn calibrators_refuse_what_they_cannot_use() {
    let options = StatisticsOptions { histogram: false, ..StatisticsOptions::default() };
    let mut collector = StatisticsCollector::new(&Reference, 2, options).unwrap();
    collector.add(&[1.0, 2.0]).unwrap();
    let statistics = collector.finish().unwrap();
    let error = Calibrator::Mse.scale(&statistics, INT8).unwrap_err().to_string();
    assert!(error.contains("needs the histogram"), "{error}");
    let error = Calibrator::Max.scale(&statistics, ActivationFormat::BF16).unwrap_err().to_string();
    assert_eq!(error, "the format of a static range is bf16, expected int8 or fp8");
    let statistics = common::statistics(&Reference, &[0.0; 8], 2);
    for calibrator in
        [Calibrator::Max, Calibrator::Percentile(99.0), Calibrator::Mse, Calibrator::Entropy]
    {
        assert_eq!(calibrator.scale(&statistics, INT8).unwrap(), 1.0, "{calibrator:?}");
    }
    assert!(Calibrator::Percentile(0.0).scale(&statistics, INT8).is_err());
}

/// Inputs of which one token in two hundred has a massive channel.
fn massive(random: &mut Random, tokens: usize, k: usize) -> Vec<f32> {
    let mut x: Vec<f32> = (0..tokens * k).map(|_| random.normal()).collect();
    x.iter_mut().step_by(200 * k).for_each(|v| *v = 800.0);
    x
}

#[test]
fn massive_activations_are_found_and_factors_may_tame_them() {
    let (k, mut random) = (32, Random::new(1));
    let x = massive(&mut random, 1000, k);
    let statistics = statistics(&Reference, &x, k);
    let found = outliers(&statistics, None).unwrap();
    assert_eq!((found.amax, found.verdict), (800.0, RangeVerdict::PerToken));
    assert!((200.0..500.0).contains(&found.ratio()), "{found:?}");
    let mut factors = vec![1.0; k];
    factors[0] = 1.0 / 400.0;
    let tamed = outliers(&statistics, Some(&factors)).unwrap();
    assert_eq!(tamed.verdict, RangeVerdict::Static);
    assert!(tamed.ratio() < 3.0, "{tamed:?}");
    assert!(outliers(&statistics, Some(&factors[1..])).is_err());
}

fn reference_error(candidate: &QuantizedLinear, w: &[f32], statistics: &InputStatistics) -> f64 {
    let k = candidate.weight.k;
    let rows = statistics.sample.rows();
    let shares = rows.chunks_exact(k).map(|x| {
        let factors = candidate.input.channel_factors.as_ref();
        let scaled: Vec<f32> =
            x.iter().enumerate().map(|(i, v)| factors.map_or(*v, |p| v * p[i])).collect();
        let row = candidate.input.format.quantize(&scaled, candidate.input.scale);
        let got = linear(&row, &candidate.weight, None);
        let want = w
            .chunks_exact(k)
            .map(|w| -> f64 { w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum() });
        let pairs: Vec<(f64, f64)> = got.iter().map(|&v| f64::from(v)).zip(want).collect();
        let error: f64 = pairs.iter().map(|(a, b)| (a - b).powi(2)).sum();
        error / pairs.iter().map(|(_, b)| b * b).sum::<f64>()
    });
    shares.sum::<f64>() / (rows.len() / k) as f64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn trials_measure_what_runs(seed: u64, is_static: bool) {
        let (n, k, mut random) = (12, 32, Random::new(seed));
        let w = random.weight(n, k);
        let weight = WeightMatrix::new(&w, n, k).unwrap();
        let cpu = Cpu::new(CpuOptions::default()).unwrap();
        let statistics = statistics(&cpu, &random.inputs(80, k), k);
        let scale = if is_static { ActivationScale::Static } else { ActivationScale::PerToken };
        let options = SmoothQuantOptions { scale, ..SmoothQuantOptions::default() };
        let found = smoothquant(&cpu, weight, &statistics, &options).unwrap();
        // None, six exponents, and at most two and two around the best.
        prop_assert!((7..=11).contains(&found.trials.len()));
        let linear = options.linear(weight, &statistics, &found.factors).unwrap();
        prop_assert_eq!(linear.input.scale.is_some(), is_static);
        prop_assert!(found.trials.iter().all(|trial| trial.error >= found.best.error));
        let want = reference_error(&linear, &w, &statistics);
        let again = Trial::new(&cpu, weight, &statistics).unwrap().error(&linear).unwrap();
        prop_assert_eq!(again, found.best.error);
        prop_assert!((again - want).abs() <= 1e-3 * want + 1e-9, "{again} {want}");
    }
}

#[test]
fn smoothing_helps_where_channels_are_loud() {
    let (n, k, mut random) = (64, 64, Random::new(4));
    let w = random.weight(n, k);
    let weight = WeightMatrix::new(&w, n, k).unwrap();
    let statistics = statistics(&Reference, &random.inputs(300, k), k);
    let ties = ChannelTies::grouped_heads(4, 2, 16);
    for scale in [ActivationScale::PerToken, ActivationScale::Static] {
        for ties in [None, Some(ties.clone())] {
            let options = SmoothQuantOptions { scale, ties, ..SmoothQuantOptions::default() };
            let found = smoothquant(&Reference, weight, &statistics, &options).unwrap();
            let gain = found.best.error / found.trials[0].error;
            println!("{scale:?}: α {:?}, error times {gain:.3}", found.best.alpha);
            assert!(gain < 0.8, "{scale:?} {gain}");
            if let Some(ties) = &options.ties {
                let shared = ties.of_classes(&found.factors).unwrap();
                let all = ties.class_of().iter().zip(&found.factors);
                assert!(all.into_iter().all(|(&class, p)| shared[class as usize] == *p));
            }
        }
    }
}

#[test]
fn four_bit_weights_meet_eight_bit_activations() {
    let (n, k, mut random) = (32, 64, Random::new(9));
    let w = random.weight(n, k);
    let weight = WeightMatrix::new(&w, n, k).unwrap();
    let statistics = statistics(&Reference, &random.inputs(100, k), k);
    let format = WeightFormat::Int4 { group: Group::Of(32), symmetric: true };
    let mut trial = Trial::new(&Reference, weight, &statistics).unwrap();
    let mut of = |activation| {
        let packed = round_to_nearest(weight, Rounding::new(format), activation, None).unwrap();
        trial.error(&QuantizedLinear::new(packed)).unwrap()
    };
    let (weight_only, int8, fp8) =
        (of(ActivationFormat::BF16), of(INT8), of(ActivationFormat::Fp8));
    assert!(weight_only < int8 && weight_only < fp8, "{weight_only} {int8} {fp8}");
    // A candidate that asks for another format than its weight's is refused, not run.
    let packed = round_to_nearest(weight, Rounding::new(format), INT8, None).unwrap();
    let input = LinearInput::new(ActivationFormat::BF16);
    assert!(trial.error(&QuantizedLinear { weight: packed, input }).is_err());
}
