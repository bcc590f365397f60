//! Rounding to nearest, held against numerics' own and against its promises.

mod common;

use bantam_backend::reference::Reference;
use bantam_numerics::{
    ActivationFormat, Group, PackedWeight, QuantScheme, ScaleBlock, WeightData, WeightFormat,
    quantize,
};
use bantam_optimize::{
    OutputError, RangeRule, Rounding, ScalePrecision, WeightMatrix, round_to_nearest,
};
use common::{Random, statistics};
use proptest::prelude::*;

const INT8: WeightFormat = WeightFormat::Int8 { group: Group::PerChannel };
const FP8_BLOCKS: [ScaleBlock; 4] = [
    ScaleBlock::TENSOR,
    ScaleBlock::CHANNEL,
    ScaleBlock { rows: 3, columns: 16 },
    ScaleBlock { rows: 2, columns: 7 },
];

fn int4(group: usize, symmetric: bool) -> WeightFormat {
    WeightFormat::Int4 { group: Group::Of(group), symmetric }
}

fn formats() -> impl Iterator<Item = WeightFormat> {
    let int = [INT8, WeightFormat::Int8 { group: Group::Of(16) }, int4(16, true), int4(32, false)];
    int.into_iter().chain(FP8_BLOCKS.map(|block| WeightFormat::Fp8 { block }))
}

fn pack(w: WeightMatrix<'_>, rounding: Rounding) -> PackedWeight {
    round_to_nearest(w, rounding, ActivationFormat::BF16, None).expect("a packed weight")
}

fn squared_error(packed: &PackedWeight, w: &[f32]) -> f64 {
    packed.decode().iter().zip(w).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_largest_code_rule_is_that_of_numerics(seed: u64, n in 1usize..6) {
        let w = Random::new(seed).weight(n, 64);
        let matrix = WeightMatrix::new(&w, n, 64).unwrap();
        for format in [INT8].into_iter().chain(FP8_BLOCKS.map(|block| WeightFormat::Fp8 { block })) {
            let rounding = Rounding { range: RangeRule::Max, ..Rounding::new(format) };
            let theirs =
                quantize(&w, n, 64, QuantScheme { weight: format, ..QuantScheme::INT8 }).unwrap();
            let ours = pack(matrix, rounding);
            // Ties may fall otherwise: numerics multiplies by the reciprocal of integer scales.
            match (&ours.data, &theirs.data) {
                (WeightData::Int8 { affine: a, .. }, WeightData::Int8 { affine: b, .. }) => {
                    prop_assert_eq!(a, b);
                }
                (
                    WeightData::Fp8 { scales: a, block: a_block, .. },
                    WeightData::Fp8 { scales: b, block: b_block, .. },
                ) => {
                    prop_assert_eq!((a, a_block), (b, b_block));
                    // As numbers: of the two zeros ours is always the positive one.
                    prop_assert_eq!(ours.decode(), theirs.decode());
                }
                (a, b) => prop_assert!(false, "{:?} {:?}", a, b),
            }
            prop_assert!((squared_error(&ours, &w) / squared_error(&theirs, &w) - 1.0).abs() < 1e-4);
        }
    }

    #[test]
    fn every_weight_is_within_half_a_step(
        seed: u64, n in 1usize..6, shift in -0.1f32..0.1, bf16: bool,
    ) {
        let w: Vec<f32> = Random::new(seed).weight(n, 64).iter().map(|v| v + shift).collect();
        let matrix = WeightMatrix::new(&w, n, 64).unwrap();
        let scales = if bf16 { ScalePrecision::BF16 } else { ScalePrecision::Packed };
        for format in [INT8, int4(16, true), int4(32, false)] {
            let packed = pack(matrix, Rounding { format, range: RangeRule::Max, scales });
            let (WeightData::Int8 { affine, .. } | WeightData::Int4 { affine, .. }) = &packed.data
            else { unreachable!() };
            for (i, (got, want)) in packed.decode().iter().zip(&w).enumerate() {
                // Rounding the scale itself moves the range's ends by 2^-9 of 127 steps at most.
                let step = affine.scales[i / affine.group];
                let moved = if bf16 { 127.0 / 256.0 } else { 0.02 };
                prop_assert!((got - want).abs() <= step * (0.501 + moved), "{got} {want} {step}");
                if bf16 {
                    prop_assert_eq!(ActivationFormat::BF16.round(step), step);
                }
            }
            if let Some(offsets) = &affine.offsets {
                for (offset, scale) in offsets.iter().zip(&affine.scales) {
                    let zero = -offset / scale;
                    prop_assert!(zero.fract() == 0.0 && (-8.0..=7.0).contains(&zero), "{zero}");
                }
            }
        }
    }

    #[test]
    fn the_least_squares_rule_is_never_worse(seed: u64, n in 1usize..6) {
        let mut random = Random::new(seed);
        let w = random.weight(n, 64);
        let importance: Vec<f32> = (0..64).map(|_| random.normal().powi(2)).collect();
        let matrix = WeightMatrix::new(&w, n, 64).unwrap();
        for format in formats() {
            let errors = [RangeRule::LeastSquares, RangeRule::Max].map(|range| {
                let rounding = Rounding { range, ..Rounding::new(format) };
                let packed = round_to_nearest(
                    matrix, rounding, ActivationFormat::BF16, Some(&importance),
                ).unwrap();
                let decoded = packed.decode();
                let terms = decoded.iter().zip(&w).enumerate();
                terms.map(|(i, (a, b))| f64::from(importance[i % 64] * (a - b).powi(2))).sum::<f64>()
            });
            prop_assert!(errors[0] <= errors[1] * 1.00001, "{format}: {errors:?}");
        }
    }
}

/// The default of [`Rounding::new`] is the rule that measures best.
#[test]
fn the_default_range_is_the_best_on_bell_shaped_weights() {
    let mut random = Random::new(7);
    let (n, k) = (64, 128);
    let w = random.weight(n, k);
    let statistics = statistics(&Reference, &random.inputs(256, k), k);
    let gram = statistics.gram().unwrap();
    let matrix = WeightMatrix::new(&w, n, k).unwrap();
    let mut error = OutputError::new(&Reference, gram).unwrap();
    let int4s = [int4(32, true), int4(64, true), int4(128, true), int4(64, false)];
    let fp8s = [ScaleBlock::TENSOR, ScaleBlock::CHANNEL].map(|block| WeightFormat::Fp8 { block });
    for format in int4s.into_iter().chain(fp8s).chain([INT8]) {
        let mut of = |range| {
            let rounding = Rounding { range, ..Rounding::new(format) };
            let diagonal = gram.diagonal();
            let packed =
                round_to_nearest(matrix, rounding, ActivationFormat::BF16, Some(&diagonal));
            let [error] = error.relative(matrix, [&packed.unwrap().decode()]).unwrap();
            error
        };
        let default = of(Rounding::new(format).range);
        let all = [RangeRule::Max, RangeRule::FullRange, RangeRule::LeastSquares].map(&mut of);
        println!("{format}: max {:.6}, full {:.6}, least squares {:.6}", all[0], all[1], all[2]);
        assert!(all.iter().all(|other| default <= 1.02 * other), "{format}: {all:?}");
    }
}

#[test]
fn refusals_say_what_would_work() {
    let w = WeightMatrix::new(&[0.0; 96], 1, 96).unwrap();
    let rounding = Rounding::new(int4(64, true));
    let error = round_to_nearest(w, rounding, ActivationFormat::BF16, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "input size 96 is not divisible by the group size 64; use a group size of 32 or 16"
    );
    let error =
        round_to_nearest(w, Rounding::new(INT8), ActivationFormat::BF16, Some(&[1.0])).unwrap_err();
    assert_eq!(error.to_string(), "channel importance has 1 values, expected 96");
    assert!(WeightMatrix::new(&[0.0; 3], 2, 2).is_err());
    let zeros = round_to_nearest(w, Rounding::new(INT8), ActivationFormat::BF16, None).unwrap();
    assert_eq!(zeros.decode(), [0.0; 96]);
}
