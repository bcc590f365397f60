//! Linear layers, for every weight and every activation that can meet it.

use super::{Check, compare, noise, operand};
use crate::reference::Reference;
use crate::{Backend, Store};
use bantam_numerics::{
    ActivationFormat, Group, PackedWeight, QuantScheme, ScaleBlock, WeightFormat, quantize,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(super) struct LinearCase {
    rows: usize,
    n: usize,
    k: usize,
    scheme: QuantScheme,
    bias: bool,
    store: Store,
    seed: u64,
}

/// Every kind of weight.
fn weight_formats() -> Vec<WeightFormat> {
    let int8 = |group| WeightFormat::Int8 { group };
    let int4 = |size, symmetric| WeightFormat::Int4 { group: Group::Of(size), symmetric };
    let fp8 = |rows, columns| WeightFormat::Fp8 { block: ScaleBlock { rows, columns } };
    vec![
        WeightFormat::F32,
        WeightFormat::BF16,
        int8(Group::PerChannel),
        int8(Group::Of(4)),
        int8(Group::Of(64)),
        int4(16, true),
        int4(32, false),
        int4(128, false),
        WeightFormat::Fp8 { block: ScaleBlock::CHANNEL },
        WeightFormat::Fp8 { block: ScaleBlock::TENSOR },
        WeightFormat::Fp8 { block: ScaleBlock::SQUARE },
        fp8(5, 64),
    ]
}

/// Every weight with every activation that can meet it.
pub(super) fn schemes() -> Vec<QuantScheme> {
    let schemes = |weight: WeightFormat| {
        weight.activations().iter().map(move |&activation| QuantScheme { weight, activation })
    };
    weight_formats().into_iter().flat_map(schemes).collect()
}

/// Layers of a scheme.
pub(super) fn case(scheme: QuantScheme) -> impl Strategy<Value = LinearCase> {
    let (step, columns) = match scheme.weight {
        WeightFormat::Int8 { group: Group::Of(size) }
        | WeightFormat::Int4 { group: Group::Of(size), .. } => (size, size),
        WeightFormat::Fp8 { block } => (1, block.columns),
        _ => (1, usize::MAX),
    };
    // Weight scales that span two of the activations' blocks may be refused, so there is one block.
    let one_block = scheme.activation == ActivationFormat::Fp8Blocks && columns > 128;
    let steps = if one_block { 1..129 } else { 1..(300 / step).max(4) };
    let store = prop_oneof![Just(Store::Replace), Just(Store::Add)];
    (steps, 1usize..25, 1usize..80, any::<bool>(), store, any::<u64>()).prop_map(
        move |(steps, rows, n, bias, store, seed)| LinearCase {
            rows,
            n,
            k: step * steps,
            scheme,
            bias,
            store,
            seed,
        },
    )
}

impl LinearCase {
    fn weight(&self) -> PackedWeight {
        let values = noise(self.seed, self.n * self.k);
        quantize(&values, self.n, self.k, self.scheme).expect("finite weights, whole groups")
    }

    fn x(&self) -> Vec<f32> {
        noise(self.seed ^ 1, self.rows * self.k)
    }

    fn bias(&self) -> Option<Vec<f32>> {
        self.bias.then(|| noise(self.seed ^ 2, self.n))
    }

    fn before(&self) -> Vec<f32> {
        noise(self.seed ^ 3, self.rows * self.n)
    }

    /// The layer's output for rows of x.
    fn run<B: Backend>(&self, backend: &B, x: &[f32], before: &[f32]) -> Vec<f32> {
        let rows = x.len() / self.k;
        let weight = backend.weight(self.weight()).expect("supported scheme");
        let bias = self.bias().map(|bias| backend.vector(&bias));
        let operand = operand(backend, x, self.k, self.scheme.activation);
        let mut out = backend.tensor(rows, self.n);
        backend.write(before, &mut out).expect("rows fit");
        backend
            .linear(&operand, &weight, bias.as_ref(), self.store, &mut out)
            .expect("shapes agree");
        backend.read(&out)
    }
}

pub(super) fn check<B: Backend>(backend: &B, case: LinearCase) -> Check {
    let (x, before) = (case.x(), case.before());
    let got = case.run(backend, &x, &before);
    let want = case.run(&Reference, &x, &before);
    if case.scheme.activation == ActivationFormat::Int8 {
        // Integer sums are exact, and the order of what follows is the contract's.
        return compare("linear", &got, &want, |_| 0.0);
    }
    // f32 accumulation of K products: each addition may lose half a unit of the running sum.
    compare("linear", &got, &want, |i| {
        let row = &x[i / case.n * case.k..][..case.k];
        let size: f32 = row.iter().map(|v| v.abs()).sum();
        2.0 * f32::EPSILON / 2.0 * (case.k + 32) as f32 * (size + 1.0)
    })
}

pub(super) fn check_invariance<B: Backend>(backend: &B, case: LinearCase) -> Check {
    let (x, before) = (case.x(), case.before());
    let together = case.run(backend, &x, &before);
    for row in 0..case.rows {
        let x = &x[row * case.k..][..case.k];
        let before = &before[row * case.n..][..case.n];
        let alone = case.run(backend, x, before);
        prop_assert_eq!(&alone[..], &together[row * case.n..][..case.n], "row {} alone", row);
    }
    Ok(())
}
