//! GPTQ against the paper's algorithm, written down naively in f64 with an explicit inverse.

mod common;

use bantam_backend::reference::Reference;
use bantam_numerics::{
    ActivationFormat, Group, PackedWeight, ScaleBlock, WeightData, WeightFormat,
};
use bantam_optimize::{
    ColumnOrder, Gptq, GptqOptions, Gram, GroupScales, OptimizeError, OutputError, RangeRule,
    Rounding, WeightMatrix, clip, gptq, round_to_nearest,
};
use common::{Random, statistics};
use proptest::prelude::*;

fn int4(group: usize, symmetric: bool) -> WeightFormat {
    WeightFormat::Int4 { group: Group::Of(group), symmetric }
}

fn run(weight: WeightMatrix<'_>, gram: &Gram, options: &GptqOptions) -> Gptq {
    gptq(weight, gram, options, ActivationFormat::BF16).expect("a weight")
}

/// Inverse by Gauss and Jordan, with pivots.
fn inverse(matrix: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let k = matrix.len();
    let unit = |i: usize| (0..k).map(move |j| f64::from(u8::from(i == j)));
    let mut rows: Vec<Vec<f64>> = matrix
        .iter()
        .enumerate()
        .map(|(i, row)| row.iter().copied().chain(unit(i)).collect())
        .collect();
    for c in 0..k {
        let pivot = (c..k).max_by(|&a, &b| rows[a][c].abs().total_cmp(&rows[b][c].abs()));
        rows.swap(c, pivot.expect("a row"));
        let scale = rows[c][c];
        rows[c].iter_mut().for_each(|v| *v /= scale);
        let row = rows[c].clone();
        for (i, other) in rows.iter_mut().enumerate() {
            let factor = other[c];
            if i != c {
                other.iter_mut().zip(&row).for_each(|(a, b)| *a -= factor * b);
            }
        }
    }
    rows.into_iter().map(|row| row[k..].to_vec()).collect()
}

/// U with `Uᵀ·U` = matrix.
fn upper_cholesky(matrix: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let k = matrix.len();
    let mut u = vec![vec![0.0; k]; k];
    for i in 0..k {
        for j in i..k {
            let sum: f64 = (0..i).map(|c| u[c][i] * u[c][j]).sum();
            let value = matrix[i][j] - sum;
            u[i][j] = if i == j { value.sqrt() } else { value / u[i][i] };
        }
    }
    u
}

/// The paper's algorithm 1 on one row with given scales; none if a weight comes so near to the
/// middle between two levels that f32 may decide otherwise.
fn naive(
    w: &[f32],
    gram: &Gram,
    order: &[usize],
    damping: f64,
    step: impl Fn(usize) -> (f64, f64),
) -> Option<Vec<f64>> {
    let k = w.len();
    let mean = gram.diagonal().iter().map(|&h| f64::from(h)).sum::<f64>() / k as f64;
    let damped = |i: usize, j: usize| {
        let extra = if i == j { damping * mean } else { 0.0 };
        f64::from(gram.values()[order[i] * k + order[j]]) + extra
    };
    let h: Vec<Vec<f64>> = (0..k).map(|i| (0..k).map(|j| damped(i, j)).collect()).collect();
    let u = upper_cholesky(&inverse(&h));
    let mut w: Vec<f64> = order.iter().map(|&c| f64::from(w[c])).collect();
    let mut rounded = vec![0.0; k];
    for j in 0..k {
        let (scale, offset) = step(order[j]);
        let level = (w[j] - offset) / scale;
        if (level.fract().abs() - 0.5).abs() < 1e-3 {
            return None;
        }
        let value = level.round_ties_even().clamp(-8.0, 7.0) * scale + offset;
        rounded[order[j]] = value;
        let error = (w[j] - value) / u[j][j];
        for (w, u) in w[j..].iter_mut().zip(&u[j][j..]) {
            *w -= error * u;
        }
    }
    Some(rounded)
}

fn affine_step(packed: &PackedWeight, row: usize, channel: usize) -> (f64, f64) {
    let WeightData::Int4 { affine, .. } = &packed.data else { panic!("an int4 weight") };
    let at = row * (packed.k / affine.group) + channel / affine.group;
    let offset = affine.offsets.as_ref().map_or(0.0, |offsets| offsets[at]);
    (f64::from(affine.scales[at]), f64::from(offset))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn static_groups_are_the_papers_algorithm(
        seed: u64, groups in 1usize..5, symmetric: bool, sorted: bool,
    ) {
        let (n, k, mut random) = (6, 16 * groups, Random::new(seed));
        let w = random.weight(n, k);
        let weight = WeightMatrix::new(&w, n, k).unwrap();
        let statistics = statistics(&Reference, &random.inputs(3 * k, k), k);
        let gram = statistics.gram().unwrap();
        let order = if sorted { ColumnOrder::Activation } else { ColumnOrder::Stored };
        let options = GptqOptions { order, ..GptqOptions::new(Rounding::new(int4(16, symmetric))) };
        let made = run(weight, gram, &options);
        prop_assert_eq!((made.damping, made.dead_channels), (0.01, 0));
        let mut columns: Vec<usize> = (0..k).collect();
        if sorted {
            let diagonal = gram.diagonal();
            columns.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
        }
        let decoded = made.linear.weight.decode();
        for row in 0..n {
            let step = |channel| affine_step(&made.linear.weight, row, channel);
            let Some(want) = naive(weight.row(row), gram, &columns, 0.01, step) else { continue };
            for (got, want) in decoded[row * k..][..k].iter().zip(want) {
                prop_assert!((f64::from(*got) - want).abs() < 1e-5, "{got} {want}");
            }
        }
    }

    #[test]
    fn dynamic_groups_are_sorted_with_their_input(seed: u64, symmetric: bool) {
        // One group as wide as the row: what is fitted first is fitted to the original weights, so
        // both ways must agree but for the order of columns.
        let (n, k, mut random) = (40, 48, Random::new(seed));
        let w = random.weight(n, k);
        let weight = WeightMatrix::new(&w, n, k).unwrap();
        let statistics = statistics(&Reference, &random.inputs(200, k), k);
        let gram = statistics.gram().unwrap();
        let rounding = Rounding::new(WeightFormat::Int4 { group: Group::PerChannel, symmetric });
        let rounding = Rounding { range: RangeRule::Max, ..rounding };
        let at_rest = run(weight, gram, &GptqOptions::new(rounding));
        let options = GptqOptions { groups: GroupScales::Dynamic, ..GptqOptions::new(rounding) };
        let moving = run(weight, gram, &options);
        let order = moving.linear.input.order.expect("an order");
        let (at_rest, moving) = (at_rest.linear.weight.decode(), moving.linear.weight.decode());
        for row in 0..n {
            for (i, &channel) in order.iter().enumerate() {
                prop_assert_eq!(moving[row * k + i], at_rest[row * k + channel as usize]);
            }
        }
    }
}

/// Every variant leaves less error than rounding to nearest, and clipping less than its rule.
#[test]
fn errors_are_ranked_as_promised() {
    let (n, k, mut random) = (96, 256, Random::new(11));
    let w = random.weight(n, k);
    let weight = WeightMatrix::new(&w, n, k).unwrap();
    let statistics = statistics(&Reference, &random.inputs(2000, k), k);
    let gram = statistics.gram().unwrap();
    let mut meter = OutputError::new(&Reference, gram).unwrap();
    let square = WeightFormat::Fp8 { block: ScaleBlock { rows: 32, columns: 64 } };
    let int8 = WeightFormat::Int8 { group: Group::PerChannel };
    for format in [int4(32, true), int4(128, true), int4(64, false), int8, square] {
        let rounding = Rounding::new(format);
        let activation = ActivationFormat::BF16;
        let nearest =
            round_to_nearest(weight, rounding, activation, Some(&gram.diagonal())).unwrap();
        let [nearest] = meter.relative(weight, [&nearest.decode()]).unwrap();
        let mut line = format!("{format}: nearest {nearest:.2e}");
        if format != square {
            let clipped = clip(&Reference, weight, gram, rounding, activation).unwrap();
            let [clipped] = meter.relative(weight, [&clipped.decode()]).unwrap();
            line += &format!(", clipped {clipped:.2e}");
            assert!(clipped <= 1.01 * nearest, "{line}");
        }
        for order in [ColumnOrder::Stored, ColumnOrder::Activation] {
            for groups in [GroupScales::Static, GroupScales::Dynamic] {
                let options = GptqOptions { order, groups, ..GptqOptions::new(rounding) };
                let Ok(made) = gptq(weight, gram, &options, activation) else {
                    assert_eq!((groups, format), (GroupScales::Dynamic, square));
                    continue;
                };
                let mut values = made.linear.weight.decode();
                if let Some(order) = &made.linear.input.order {
                    let sorted = values.clone();
                    for (row, sorted) in values.chunks_exact_mut(k).zip(sorted.chunks_exact(k)) {
                        order.iter().zip(sorted).for_each(|(&to, &v)| row[to as usize] = v);
                    }
                }
                let [error] = meter.relative(weight, [&values]).unwrap();
                line += &format!(", {order:?} {groups:?} {error:.2e}");
                assert!(error < nearest, "{line}");
            }
        }
        println!("{line}");
    }
}

#[test]
fn dead_channels_are_rounded_to_nearest_and_counted() {
    let (n, k, mut random) = (4, 32, Random::new(2));
    let w = random.weight(n, k);
    let mut x = random.inputs(100, k);
    for channel in [0, 7] {
        x.iter_mut().skip(channel).step_by(k).for_each(|v| *v = 0.0);
    }
    let statistics = statistics(&Reference, &x, k);
    let weight = WeightMatrix::new(&w, n, k).unwrap();
    let made =
        run(weight, statistics.gram().unwrap(), &GptqOptions::new(Rounding::new(int4(16, true))));
    assert_eq!(made.dead_channels, 2);
    let decoded = made.linear.weight.decode();
    for row in 0..n {
        for channel in [0, 7] {
            let (scale, _) = affine_step(&made.linear.weight, row, channel);
            let level = (f64::from(w[row * k + channel]) / scale).round().clamp(-8.0, 7.0);
            assert!((f64::from(decoded[row * k + channel]) - level * scale).abs() < 1e-6);
        }
    }
}

#[test]
fn bad_input_is_refused() {
    let weight = WeightMatrix::new(&[0.0; 64], 2, 32).unwrap();
    let nan = Gram::new(vec![f32::NAN; 4], 2).unwrap_err();
    assert!(nan.to_string().starts_with("the Gram matrix at [0, 0] is NaN"), "{nan}");
    let small = Gram::new(vec![1.0], 1).unwrap();
    let options = GptqOptions::new(Rounding::new(int4(16, true)));
    let error = gptq(weight, &small, &options, ActivationFormat::BF16).unwrap_err();
    assert!(matches!(error, OptimizeError::Length { got: 1, expected: 32, .. }), "{error}");
    let gram = Gram::new(vec![0.0; 32 * 32], 32).unwrap();
    let error =
        gptq(weight, &gram, &GptqOptions { damping: -1.0, ..options }, ActivationFormat::BF16);
    assert_eq!(error.unwrap_err().to_string(), "damping is -1, expected 0 to 1");
    let bf16 = GptqOptions::new(Rounding::new(WeightFormat::BF16));
    let error = gptq(weight, &gram, &bf16, ActivationFormat::BF16).unwrap_err();
    assert!(error.to_string().starts_with("GPTQ fits scales, but bf16 has none"), "{error}");
    // Nothing reached the layer: everything is dead, and nothing fails.
    assert_eq!(run(weight, &gram, &options).dead_channels, 32);
}
