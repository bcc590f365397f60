//! What linear layers may ask of their input, drawn at random.

use super::{Check, compare, noise, tensor};
use crate::reference::Reference;
use crate::{Backend, LinearInput};
use bantam_numerics::ActivationFormat;
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(super) struct InputCase {
    pub(super) format: ActivationFormat,
    scale: Option<f32>,
    factors: bool,
    order: bool,
    seed: u64,
}

pub(super) fn case() -> impl Strategy<Value = InputCase> {
    let format = prop::sample::select(ActivationFormat::ALL.to_vec());
    let scale = prop::option::of(0.001f32..0.05);
    (format, scale, any::<bool>(), any::<bool>(), any::<u64>()).prop_map(
        |(format, scale, factors, order, seed)| InputCase { format, scale, factors, order, seed },
    )
}

impl InputCase {
    /// Rows in a format, as they are.
    pub(super) fn plain(format: ActivationFormat) -> Self {
        Self { format, scale: None, factors: false, order: false, seed: 0 }
    }

    pub(super) fn input<B: Backend>(&self, backend: &B, columns: usize) -> LinearInput<B::Vector> {
        let factors: Vec<f32> = noise(self.seed, columns).iter().map(|v| 1.0 + 0.5 * v).collect();
        let mut order: Vec<u32> = (0..columns as u32).collect();
        order.sort_by_key(|&k| u64::from(k + 1).wrapping_mul(self.seed | 1) % 1009);
        LinearInput {
            format: self.format,
            scale: self.scale,
            channel_factors: self.factors.then(|| backend.vector(&factors)),
            order: self.order.then_some(order),
        }
    }

    /// How far results may lie apart if what is rounded differs in its last bits: one step of the
    /// format, and `slack` of the numbers themselves.
    pub(super) fn tolerance(&self, want: &[f32], columns: usize, slack: f32) -> Vec<f32> {
        let block = self.format.scale_block(columns);
        let blocks = want.chunks(columns.max(1)).flat_map(|row| row.chunks(block));
        let of_block = |values: &[f32]| {
            let largest = values.iter().fold(0f32, |largest, v| largest.max(v.abs()));
            let scale = self.format.largest_code().map_or(0.0, |code| largest / code);
            let scale = self.scale.unwrap_or(scale);
            let step = |v: &f32| match self.format {
                ActivationFormat::F32 => 4e-6 * v.abs(),
                ActivationFormat::BF16 => v.abs() / 128.0,
                ActivationFormat::Int8 => 1.01 * scale,
                ActivationFormat::Fp8 | ActivationFormat::Fp8Blocks => {
                    v.abs() / 7.9 + 1.01 * scale / 512.0
                }
            };
            // Factors are below 1.5.
            values.iter().map(|v| step(v) + 1.5 * slack).collect::<Vec<f32>>()
        };
        blocks.flat_map(of_block).collect()
    }
}

#[derive(Clone, Debug)]
pub(super) struct RoundCase {
    rows: usize,
    columns: usize,
    input: InputCase,
}

pub(super) fn round_case() -> impl Strategy<Value = RoundCase> {
    (1usize..20, 1usize..500, case()).prop_map(|(rows, columns, input)| RoundCase {
        rows,
        columns,
        input,
    })
}

/// Rounding what is given is exact.
pub(super) fn check_round<B: Backend>(backend: &B, case: RoundCase) -> Check {
    fn run<B: Backend>(backend: &B, case: &RoundCase, x: &[f32]) -> Vec<f32> {
        // Room for the widest format, as a step of a model with several formats has it.
        let mut out = backend.operand(case.rows, case.columns, ActivationFormat::F32);
        let input = case.input.input(backend, case.columns);
        backend.round(&tensor(backend, x, case.columns), &input, &mut out).expect("shapes agree");
        backend.read_operand(&out)
    }
    let mut x: Vec<f32> =
        noise(case.input.seed ^ 9, case.rows * case.columns).iter().map(|v| v * v * v).collect();
    x[..case.columns].fill(0.0);
    let (got, want) = (run(backend, &case, &x), run(&Reference, &case, &x));
    compare("round", &got, &want, |_| 0.0)?;
    x[0] = f32::NAN;
    let got = run(backend, &case, &x);
    prop_assert!(got[..case.columns].iter().any(|v| v.is_nan()), "a NaN was rounded away");
    compare("round", &got[case.columns..], &want[case.columns..], |_| 0.0)
}
