//! Linear layers, for every scheme.

use super::{Check, compare, noise, operand};
use crate::reference::Reference;
use crate::{Backend, Store};
use bantam_numerics::{PackedWeight, QuantScheme, quantize};
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

pub(super) fn case() -> impl Strategy<Value = LinearCase> {
    let dense =
        prop_oneof![Just(QuantScheme::F32), Just(QuantScheme::BF16), Just(QuantScheme::INT8),];
    let dense = (dense, 1usize..300);
    let grouped = (prop::sample::select(vec![16usize, 32, 64, 128]), any::<bool>(), 1usize..5)
        .prop_map(|(group, symmetric, groups)| {
            (QuantScheme::int4(group, symmetric), group * groups)
        });
    let store = prop_oneof![Just(Store::Replace), Just(Store::Add)];
    (prop_oneof![dense, grouped], 1usize..30, 1usize..150, any::<bool>(), store, any::<u64>())
        .prop_map(|((scheme, k), rows, n, bias, store, seed)| LinearCase {
            rows,
            n,
            k,
            scheme,
            bias,
            store,
            seed,
        })
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
