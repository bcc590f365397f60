//! The Gram matrix and the errors that follow from it, against the data.

mod common;

use bantam_backend::reference::Reference;
use bantam_cpu::{Cpu, CpuOptions};
use bantam_numerics::ActivationFormat;
use bantam_optimize::{OptimizeError, OutputError, StatisticsCollector, StatisticsOptions};
use common::{Random, error_on_data, statistics};
use proptest::prelude::*;

fn bf16(values: &[f32]) -> Vec<f32> {
    values.iter().map(|&v| ActivationFormat::BF16.round(v)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn errors_follow_from_the_gram_matrix_or_from_rows(
        seed: u64, n in 1usize..9, k in 1usize..40, tokens in 1usize..700,
    ) {
        let mut random = Random::new(seed);
        let x = bf16(&random.inputs(tokens, k));
        let delta = random.weight(n, k);
        let want = error_on_data(&delta, &x, k);
        let cpu = Cpu::new(CpuOptions::default()).unwrap();
        let from_cpu = statistics(&cpu, &x, k);
        let mut error = OutputError::new(&cpu, from_cpu.gram().unwrap()).unwrap();
        let got = error.mean(&delta).unwrap();
        prop_assert!((got - want).abs() <= 1e-4 * want, "{got} {want}");
        let mut error = OutputError::on_rows(&cpu, x.clone(), k).unwrap();
        let got = error.mean(&delta).unwrap();
        prop_assert!((got - want).abs() <= 1e-5 * want, "{got} {want}");
        let from_reference = statistics(&Reference, &x, k);
        let mut error = OutputError::new(&Reference, from_reference.gram().unwrap()).unwrap();
        let got = error.mean(&delta).unwrap();
        prop_assert!((got - want).abs() <= 1e-4 * want, "{got} {want}");
    }

    #[test]
    fn magnitudes_are_those_of_the_data(seed: u64, k in 1usize..20, tokens in 1usize..600) {
        let x = Random::new(seed).inputs(tokens, k);
        let statistics = statistics(&Reference, &x, k);
        prop_assert_eq!(statistics.tokens(), tokens);
        for channel in 0..k {
            let column: Vec<f32> = x.iter().skip(channel).step_by(k).map(|v| v.abs()).collect();
            let amax = column.iter().copied().fold(0f32, f32::max);
            prop_assert_eq!(statistics.amax[channel], amax);
            let mean = column.iter().map(|&v| f64::from(v)).sum::<f64>() / tokens as f64;
            prop_assert!((f64::from(statistics.mean_abs[channel]) - mean).abs() <= 1e-5 * mean);
            let square = column.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / tokens as f64;
            let got = f64::from(statistics.mean_square[channel]);
            prop_assert!((got - square).abs() <= 1e-5 * square);
        }
        let token_amax = |row: &[f32]| row.iter().fold(0f32, |l, v| l.max(v.abs()));
        let want: Vec<f32> = x.chunks_exact(k).map(token_amax).collect();
        prop_assert_eq!(&statistics.token_amax, &want);
        prop_assert_eq!(statistics.histogram.unwrap().total(), x.len() as u64);
    }
}

#[test]
fn what_is_not_finite_is_refused_with_its_place() {
    let options = StatisticsOptions::default();
    let mut collector = StatisticsCollector::new(&Reference, 3, options).unwrap();
    collector.add(&[1.0; 6]).unwrap();
    let error = collector.add(&[1.0, 1.0, 1.0, 1.0, f32::NAN, 1.0]).unwrap_err();
    assert!(error.to_string().starts_with("calibration input [token 3, channel 1] is NaN"));
    let empty = StatisticsCollector::new(&Reference, 3, options).unwrap();
    assert!(matches!(empty.finish().unwrap_err(), OptimizeError::NoTokens));
    for options in [options, StatisticsOptions { gram: false, ..options }] {
        let mut collector = StatisticsCollector::new(&Reference, 1, options).unwrap();
        collector.add(&[1e30]).unwrap();
        let error = collector.finish().unwrap_err();
        assert!(error.to_string().starts_with("the Gram matrix at [0, 0] is inf"), "{error}");
    }
}
