//! Operations that treat each row on its own.

use super::input::{self, InputCase};
use super::{Check, compare, noise, tensor};
use crate::reference::Reference;
use crate::{Backend, FeedForward, Norm, NormKind};
use bantam_numerics::reference::Activation;
use bantam_numerics::{QuantScheme, quantize};
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(super) struct RowwiseCase {
    rows: usize,
    columns: usize,
    input: InputCase,
    norm: NormKind,
    bias: bool,
    activation: Activation,
    gated: bool,
    seed: u64,
}

pub(super) fn case() -> impl Strategy<Value = RowwiseCase> {
    let norm = prop_oneof![Just(NormKind::Rms), Just(NormKind::Layer)];
    let activation =
        prop_oneof![Just(Activation::Silu), Just(Activation::Gelu), Just(Activation::GeluTanh)];
    let flags = (any::<bool>(), any::<bool>());
    (1usize..40, 1usize..700, input::case(), norm, activation, flags, any::<u64>()).prop_map(
        |(rows, columns, input, norm, activation, (bias, gated), seed)| RowwiseCase {
            rows,
            columns,
            input,
            norm,
            bias: bias && norm == NormKind::Layer,
            activation,
            gated,
            seed,
        },
    )
}

pub(super) fn check_embed<B: Backend>(backend: &B, case: RowwiseCase) -> Check {
    let vocabulary = 50;
    let values = noise(case.seed, vocabulary * case.columns);
    let tokens: Vec<u32> = (0..case.rows as u32).map(|i| i * 7 % vocabulary as u32).collect();
    for scheme in [QuantScheme::F32, QuantScheme::BF16, QuantScheme::INT8, QuantScheme::FP8] {
        let packed = quantize(&values, vocabulary, case.columns, scheme).expect("finite");
        let want: Vec<f32> = tokens
            .iter()
            .flat_map(|&id| packed.decode()[id as usize * case.columns..][..case.columns].to_vec())
            .collect();
        let table = backend.weight(packed).expect("supported scheme");
        let mut out = backend.tensor(case.rows, case.columns);
        backend.embed(&table, &tokens, &mut out).expect("shapes agree");
        let got = backend.read(&out);
        compare("embed", &got, &want, |i| want[i].abs() * f32::EPSILON)?;
        let picked: Vec<u32> = (0..case.rows as u32).rev().step_by(2).collect();
        let mut rows = backend.tensor(picked.len(), case.columns);
        backend.select_rows(&out, &picked, &mut rows).expect("rows exist");
        let want: Vec<f32> = picked
            .iter()
            .flat_map(|&r| got[r as usize * case.columns..][..case.columns].to_vec())
            .collect();
        prop_assert_eq!(backend.read(&rows), want);
    }
    Ok(())
}

impl RowwiseCase {
    fn norm<B: Backend>(&self, backend: &B) -> Norm<B::Vector> {
        let bias = self.bias.then(|| backend.vector(&noise(self.seed ^ 2, self.columns)));
        let weight = backend.vector(&noise(self.seed ^ 1, self.columns));
        Norm { kind: self.norm, weight, bias, eps: 1e-5 }
    }

    fn run_norm<B: Backend>(&self, backend: &B, x: &[f32]) -> Vec<f32> {
        let x = tensor(backend, x, self.columns);
        let mut out = backend.operand(self.rows, self.columns, self.input.format);
        let input = self.input.input(backend, self.columns);
        backend.norm(&x, &self.norm(backend), &input, &mut out).expect("shapes agree");
        backend.read_operand(&out)
    }
}

pub(super) fn check_norm<B: Backend>(backend: &B, case: RowwiseCase) -> Check {
    // An offset makes the mean matter, as in real residual streams.
    let x: Vec<f32> =
        noise(case.seed, case.rows * case.columns).iter().map(|v| 3.0 * v + 0.5).collect();
    let got = case.run_norm(backend, &x);
    let want = case.run_norm(&Reference, &x);
    // One column has no variance: ε alone decides, and rounding of the mean shows.
    let slack = if case.columns < 8 { 1e-3 } else { 2e-5 };
    let tolerance = case.input.tolerance(&want, case.columns, slack);
    compare("norm", &got, &want, |i| tolerance[i])?;
    for row in 0..case.rows {
        let range = row * case.columns..(row + 1) * case.columns;
        let alone = case.run_norm(backend, &x[range.clone()]);
        prop_assert_eq!(&alone[..], &got[range], "row {} alone", row);
    }
    Ok(())
}

pub(super) fn check_feed_forward<B: Backend>(backend: &B, case: RowwiseCase) -> Check {
    let kind = if case.gated {
        FeedForward::Gated(case.activation)
    } else {
        FeedForward::Plain(case.activation)
    };
    let columns = kind.input_columns(case.columns);
    let x: Vec<f32> = noise(case.seed, case.rows * columns).iter().map(|v| 8.0 * v).collect();
    fn run<B: Backend>(backend: &B, case: &RowwiseCase, kind: FeedForward, x: &[f32]) -> Vec<f32> {
        let x = tensor(backend, x, kind.input_columns(case.columns));
        let mut out = backend.operand(case.rows, case.columns, case.input.format);
        let input = case.input.input(backend, case.columns);
        backend.feed_forward(&x, kind, &input, &mut out).expect("shapes agree");
        backend.read_operand(&out)
    }
    let got = run(backend, &case, kind, &x);
    let want = run(&Reference, &case, kind, &x);
    let tolerance = case.input.tolerance(&want, case.columns, 1.2e-5);
    compare("feed_forward", &got, &want, |i| tolerance[i])
}
