//! The property tests that every back end must pass.
//!
//! [`check`] draws shapes, ragged batches and block tables at random, runs each operation on the
//! device and on [`Reference`], and compares: exactly where the contract is exact, else within the
//! rounding that the contract allows. It then checks batch invariance bit for bit.
//!
//! ```no_run
//! use bantam_backend::{conformance, reference::Reference};
//! conformance::check(&Reference);
//! ```

use crate::reference::Reference;
use crate::{
    AttentionShape, Backend, Batch, FeedForward, HeadNorm, KvFormat, KvLayout, Norm, NormKind,
    Rope, Store,
};
use bantam_numerics::reference::{Activation, RotaryPairs};
use bantam_numerics::{ActivationFormat, PackedWeight, QuantScheme, quantize};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

type Check = Result<(), TestCaseError>;

/// Random cases of each property.
const CASES: u32 = 48;

/// Holds a back end against the reference arithmetic.
///
/// # Panics
/// With the smallest failing case, if the back end breaks a contract.
pub fn check<B: Backend>(backend: &B) {
    property(backend, linear_case(), check_linear);
    property(backend, rowwise_case(), check_embed);
    property(backend, rowwise_case(), check_norm);
    property(backend, rowwise_case(), check_feed_forward);
    property(backend, attention_case(), check_attention);
    property(backend, linear_case(), check_linear_invariance);
    property(backend, attention_case(), check_attention_invariance);
    check_refusals(backend);
}

fn property<B: Backend, S: Strategy>(backend: &B, cases: S, check: fn(&B, S::Value) -> Check) {
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&cases, |case| check(backend, case));
    if let Err(error) = result {
        panic!("{}: {error}", backend.describe());
    }
}

/// Numbers in −1..1 that depend on a seed only.
fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Fails unless each pair differs by at most `tolerance(index)`.
fn compare(what: &str, got: &[f32], want: &[f32], tolerance: impl Fn(usize) -> f32) -> Check {
    prop_assert_eq!(got.len(), want.len(), "{}: length", what);
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let allowed = tolerance(i);
        prop_assert!(
            (got - want).abs() <= allowed,
            "{what}[{i}] = {got}, reference {want}, allowed difference {allowed}"
        );
    }
    Ok(())
}

/// Rounding of one stored activation, relative to its size.
fn activation_step(format: ActivationFormat) -> f32 {
    match format {
        ActivationFormat::F32 => 4e-6,
        ActivationFormat::BF16 => 1.0 / 128.0, // the two sides may round to different neighbours
    }
}

#[derive(Clone, Debug)]
struct LinearCase {
    rows: usize,
    n: usize,
    k: usize,
    scheme: QuantScheme,
    bias: bool,
    store: Store,
    seed: u64,
}

fn linear_case() -> impl Strategy<Value = LinearCase> {
    let dense = prop_oneof![
        Just(QuantScheme::F32),
        Just(QuantScheme::BF16),
        Just(QuantScheme::INT8),
    ];
    let dense = (dense, 1usize..300);
    let grouped = (
        prop::sample::select(vec![16usize, 32, 64, 128]),
        any::<bool>(),
        1usize..5,
    )
        .prop_map(|(group, symmetric, groups)| {
            (QuantScheme::int4(group, symmetric), group * groups)
        });
    let store = prop_oneof![Just(Store::Replace), Just(Store::Add)];
    (
        prop_oneof![dense, grouped],
        1usize..30,
        1usize..150,
        any::<bool>(),
        store,
        any::<u64>(),
    )
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

/// An operand that holds given rows.
fn operand<B: Backend>(
    backend: &B,
    x: &[f32],
    columns: usize,
    format: ActivationFormat,
) -> B::Operand {
    let tensor = tensor(backend, x, columns);
    let mut operand = backend.operand(x.len() / columns, columns, format);
    backend.round(&tensor, &mut operand).expect("same shape");
    operand
}

/// A tensor that holds given rows.
fn tensor<B: Backend>(backend: &B, x: &[f32], columns: usize) -> B::Tensor {
    let mut tensor = backend.tensor(x.len() / columns, columns);
    backend.write(x, &mut tensor).expect("rows fit");
    tensor
}

fn check_linear<B: Backend>(backend: &B, case: LinearCase) -> Check {
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

fn check_linear_invariance<B: Backend>(backend: &B, case: LinearCase) -> Check {
    let (x, before) = (case.x(), case.before());
    let together = case.run(backend, &x, &before);
    for row in 0..case.rows {
        let x = &x[row * case.k..][..case.k];
        let before = &before[row * case.n..][..case.n];
        let alone = case.run(backend, x, before);
        prop_assert_eq!(
            &alone[..],
            &together[row * case.n..][..case.n],
            "row {} alone",
            row
        );
    }
    Ok(())
}

#[derive(Clone, Debug)]
struct RowwiseCase {
    rows: usize,
    columns: usize,
    format: ActivationFormat,
    norm: NormKind,
    bias: bool,
    activation: Activation,
    gated: bool,
    seed: u64,
}

fn rowwise_case() -> impl Strategy<Value = RowwiseCase> {
    let format = prop_oneof![Just(ActivationFormat::F32), Just(ActivationFormat::BF16)];
    let norm = prop_oneof![Just(NormKind::Rms), Just(NormKind::Layer)];
    let activation = prop_oneof![
        Just(Activation::Silu),
        Just(Activation::Gelu),
        Just(Activation::GeluTanh)
    ];
    let flags = (any::<bool>(), any::<bool>());
    (
        1usize..40,
        1usize..700,
        format,
        norm,
        activation,
        flags,
        any::<u64>(),
    )
        .prop_map(
            |(rows, columns, format, norm, activation, (bias, gated), seed)| RowwiseCase {
                rows,
                columns,
                format,
                norm,
                bias: bias && norm == NormKind::Layer,
                activation,
                gated,
                seed,
            },
        )
}

fn check_embed<B: Backend>(backend: &B, case: RowwiseCase) -> Check {
    let vocabulary = 50;
    let values = noise(case.seed, vocabulary * case.columns);
    let tokens: Vec<u32> = (0..case.rows as u32)
        .map(|i| i * 7 % vocabulary as u32)
        .collect();
    for scheme in [QuantScheme::F32, QuantScheme::BF16, QuantScheme::INT8] {
        let packed = quantize(&values, vocabulary, case.columns, scheme).expect("finite");
        let want: Vec<f32> = tokens
            .iter()
            .flat_map(|&id| packed.decode()[id as usize * case.columns..][..case.columns].to_vec())
            .collect();
        let table = backend.weight(packed).expect("supported scheme");
        let mut out = backend.tensor(case.rows, case.columns);
        backend
            .embed(&table, &tokens, &mut out)
            .expect("shapes agree");
        let got = backend.read(&out);
        compare("embed", &got, &want, |i| want[i].abs() * f32::EPSILON)?;
        let picked: Vec<u32> = (0..case.rows as u32).rev().step_by(2).collect();
        let mut rows = backend.tensor(picked.len(), case.columns);
        backend
            .select_rows(&out, &picked, &mut rows)
            .expect("rows exist");
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
        let bias = self
            .bias
            .then(|| backend.vector(&noise(self.seed ^ 2, self.columns)));
        let weight = backend.vector(&noise(self.seed ^ 1, self.columns));
        Norm {
            kind: self.norm,
            weight,
            bias,
            eps: 1e-5,
        }
    }

    fn run_norm<B: Backend>(&self, backend: &B, x: &[f32]) -> Vec<f32> {
        let x = tensor(backend, x, self.columns);
        let mut out = backend.operand(self.rows, self.columns, self.format);
        backend
            .norm(&x, &self.norm(backend), &mut out)
            .expect("shapes agree");
        backend.read_operand(&out)
    }
}

fn check_norm<B: Backend>(backend: &B, case: RowwiseCase) -> Check {
    // An offset makes the mean matter, as in real residual streams.
    let x: Vec<f32> = noise(case.seed, case.rows * case.columns)
        .iter()
        .map(|v| 3.0 * v + 0.5)
        .collect();
    let got = case.run_norm(backend, &x);
    let want = case.run_norm(&Reference, &x);
    let step = activation_step(case.format);
    // One column has no variance: ε alone decides, and rounding of the mean shows.
    let slack = if case.columns < 8 { 1e-3 } else { 2e-5 };
    compare("norm", &got, &want, |i| want[i].abs() * step + slack)?;
    for row in 0..case.rows {
        let range = row * case.columns..(row + 1) * case.columns;
        let alone = case.run_norm(backend, &x[range.clone()]);
        prop_assert_eq!(&alone[..], &got[range], "row {} alone", row);
    }
    Ok(())
}

fn check_feed_forward<B: Backend>(backend: &B, case: RowwiseCase) -> Check {
    let kind = if case.gated {
        FeedForward::Gated(case.activation)
    } else {
        FeedForward::Plain(case.activation)
    };
    let columns = kind.input_columns(case.columns);
    let x: Vec<f32> = noise(case.seed, case.rows * columns)
        .iter()
        .map(|v| 8.0 * v)
        .collect();
    fn run<B: Backend>(backend: &B, case: &RowwiseCase, kind: FeedForward, x: &[f32]) -> Vec<f32> {
        let x = tensor(backend, x, kind.input_columns(case.columns));
        let mut out = backend.operand(case.rows, case.columns, case.format);
        backend
            .feed_forward(&x, kind, &mut out)
            .expect("shapes agree");
        backend.read_operand(&out)
    }
    let got = run(backend, &case, kind, &x);
    let want = run(&Reference, &case, kind, &x);
    let step = activation_step(case.format);
    compare("feed_forward", &got, &want, |i| {
        want[i].abs() * step + 1.2e-5
    })
}

/// Sequences that share a cache: each has a history, then tokens in the step under test.
#[derive(Clone, Debug)]
struct AttentionCase {
    shape: AttentionShape,
    rotary_dim: usize,
    pairs: RotaryPairs,
    head_norm: bool,
    format: KvFormat,
    /// (tokens already cached, tokens of this step) of each sequence.
    lengths: Vec<(usize, usize)>,
    seed: u64,
}

fn attention_case() -> impl Strategy<Value = AttentionCase> {
    let heads = (
        1usize..4,
        1usize..5,
        prop::sample::select(vec![4usize, 12, 16, 32, 64, 80]),
    );
    let window = prop_oneof![3 => Just(None), 1 => (1usize..60).prop_map(Some)];
    let pairs = prop_oneof![Just(RotaryPairs::HalfSplit), Just(RotaryPairs::Interleaved)];
    let format = prop_oneof![Just(KvFormat::F32), Just(KvFormat::BF16)];
    let length = prop_oneof![
        4 => (0usize..40, 1usize..20),
        1 => (250usize..600, 1usize..3), // past the first chunk of a split kernel
    ];
    let lengths = prop::collection::vec(length, 1..4);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (heads, window, pairs, format, lengths, flags, any::<u64>()).prop_map(
        |((kv_heads, group, head_dim), window, pairs, format, lengths, flags, seed)| {
            let (alibi, partial, head_norm) = flags;
            let heads = kv_heads * group;
            let slopes = || (1..=heads).map(|h| 2f32.powf(-8.0 * h as f32 / heads as f32));
            let shape = AttentionShape {
                heads,
                kv_heads,
                head_dim,
                scale: (head_dim as f32).sqrt().recip(),
                window,
                alibi_slopes: alibi.then(|| slopes().collect()),
            };
            let rotary_dim = if partial { head_dim / 2 } else { head_dim };
            AttentionCase {
                shape,
                rotary_dim,
                pairs,
                head_norm,
                format,
                lengths,
                seed,
            }
        },
    )
}

impl AttentionCase {
    fn layout(&self, block_tokens: usize) -> KvLayout {
        let blocks = self
            .lengths
            .iter()
            .map(|(past, new)| (past + new).div_ceil(block_tokens));
        KvLayout {
            layers: 2,
            blocks: blocks.sum::<usize>() + 3,
            block_tokens,
            kv_heads: self.shape.kv_heads,
            head_dim: self.shape.head_dim,
            format: self.format,
        }
    }

    /// Block tables whose blocks lie scattered over the cache.
    fn tables(&self, layout: &KvLayout) -> Vec<Vec<u32>> {
        // A step coprime to the number of blocks visits each once.
        let step = (1..)
            .map(|i| 2 * i + 3)
            .find(|step| gcd(*step, layout.blocks) == 1);
        let step = step.unwrap_or(1);
        let mut order = (0..layout.blocks).map(|i| (i * step % layout.blocks) as u32);
        let count = |(past, new): &(usize, usize)| (past + new).div_ceil(layout.block_tokens);
        self.lengths
            .iter()
            .map(|len| order.by_ref().take(count(len)).collect())
            .collect()
    }

    fn rope(&self) -> Rope {
        let positions = self
            .lengths
            .iter()
            .map(|(past, new)| past + new)
            .max()
            .unwrap_or(0);
        let angles = (0..positions * self.rotary_dim / 2).map(|i| i as f32 * 0.37);
        Rope {
            rotary_dim: self.rotary_dim,
            pairs: self.pairs,
            cos: angles.clone().map(f32::cos).collect(),
            sin: angles.map(f32::sin).collect(),
        }
    }

    /// The projections of a sequence's tokens, `[past + new, columns]`.
    fn projections(&self, sequence: usize) -> Vec<f32> {
        let (past, new) = self.lengths[sequence];
        let columns = self.shape.qkv_columns();
        noise(self.seed ^ sequence as u64, (past + new) * columns)
            .iter()
            .map(|v| 2.0 * v)
            .collect()
    }

    /// Runs the sequences in `steps`, each a list of (sequence, first token, tokens), and returns the
    /// rows of every sequence: projections after `append`, and attention outputs.
    fn run<B: Backend>(
        &self,
        backend: &B,
        steps: &[Vec<(usize, usize, usize)>],
    ) -> Vec<[Vec<f32>; 2]> {
        let layout = self.layout(backend.block_tokens());
        let tables = self.tables(&layout);
        let mut cache = backend.cache(&layout).expect("supported layout");
        let head_norm = self.head_norm.then(|| HeadNorm {
            q: backend.vector(&noise(self.seed ^ 77, self.shape.head_dim)),
            k: backend.vector(&noise(self.seed ^ 78, self.shape.head_dim)),
            eps: 1e-6,
        });
        let rope = self.rope();
        let columns = self.shape.qkv_columns();
        let out_columns = self.shape.heads * self.shape.head_dim;
        let mut results = vec![[Vec::new(), Vec::new()]; self.lengths.len()];
        for step in steps {
            let mut batch = Batch::default();
            let mut rows = Vec::new();
            for &(sequence, first, tokens) in step {
                batch
                    .push(&vec![0; tokens], first, &tables[sequence])
                    .expect("tokens");
                let projections = self.projections(sequence);
                rows.extend_from_slice(&projections[first * columns..][..tokens * columns]);
            }
            let mut qkv = tensor(backend, &rows, columns);
            let norm = head_norm.as_ref();
            backend
                .append(
                    &mut qkv,
                    &self.shape,
                    norm,
                    Some(&rope),
                    &batch,
                    1,
                    &mut cache,
                )
                .expect("shapes agree");
            let mut out = backend.operand(batch.num_tokens(), out_columns, ActivationFormat::F32);
            backend
                .attention(&qkv, &self.shape, &batch, 1, &cache, &mut out)
                .expect("shapes agree");
            let (qkv, out) = (backend.read(&qkv), backend.read_operand(&out));
            for (span, &(sequence, ..)) in batch.spans.iter().zip(step) {
                let rows = &span.rows;
                results[sequence][0]
                    .extend_from_slice(&qkv[rows.start * columns..rows.end * columns]);
                results[sequence][1]
                    .extend_from_slice(&out[rows.start * out_columns..rows.end * out_columns]);
            }
        }
        results
    }

    /// All histories, one by one, then one step with every sequence's new tokens.
    fn mixed_steps(&self) -> Vec<Vec<(usize, usize, usize)>> {
        let lengths = || self.lengths.iter().enumerate();
        let histories = lengths().filter(|(_, (past, _))| *past > 0);
        let mut steps: Vec<_> = histories
            .map(|(s, &(past, _))| vec![(s, 0, past)])
            .collect();
        steps.push(lengths().map(|(s, &(past, new))| (s, past, new)).collect());
        steps
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn check_attention<B: Backend>(backend: &B, case: AttentionCase) -> Check {
    let steps = case.mixed_steps();
    let got = case.run(backend, &steps);
    let want = case.run(&Reference, &steps);
    // A bf16 cache may be read with bf16 queries and probabilities: scores then move by about
    // 2^-8 of |q|·|k|·scale, and outputs by as much of the largest value, which is below 3.
    let tolerance = match case.format {
        KvFormat::F32 => 2e-5,
        KvFormat::BF16 => 0.06,
    };
    for (got, want) in got.iter().zip(&want) {
        compare("append", &got[0], &want[0], |i| {
            1e-5 * want[0][i].abs().max(1.0)
        })?;
        compare("attention", &got[1], &want[1], |_| tolerance)?;
    }
    Ok(())
}

fn check_attention_invariance<B: Backend>(backend: &B, case: AttentionCase) -> Check {
    let mixed = case.run(backend, &case.mixed_steps());
    // The same sequences alone, in chunks of uneven size, ending token by token.
    let mut steps = Vec::new();
    for (sequence, (past, new)) in case.lengths.iter().enumerate() {
        let (mut at, end) = (0, past + new);
        while at < end {
            let chunk = (3 + (at + case.seed as usize % 97) % 61).min(end - at);
            let chunk = if end - at < 6 { 1 } else { chunk };
            steps.push(vec![(sequence, at, chunk)]);
            at += chunk;
        }
    }
    let alone = case.run(backend, &steps);
    prop_assert!(alone == mixed, "rows differ between chunked and mixed runs");
    Ok(())
}

/// Wrong shapes are errors, never panics or writes out of bounds.
fn check_refusals<B: Backend>(backend: &B) {
    let x = tensor(backend, &[0.5; 32], 16);
    let mut small = backend.tensor(1, 16);
    assert!(
        backend.write(&[0.0; 32], &mut small).is_err(),
        "more rows than capacity"
    );
    assert!(
        backend.write(&[0.0; 17], &mut small).is_err(),
        "not whole rows"
    );
    assert!(
        backend.select_rows(&x, &[2], &mut small).is_err(),
        "row out of range"
    );
    let table = quantize(&[0.5; 64], 4, 16, QuantScheme::F32).expect("finite");
    let table = backend.weight(table).expect("f32 is always supported");
    assert!(
        backend.embed(&table, &[4], &mut small).is_err(),
        "token out of range"
    );
    let mut narrow = backend.operand(2, 15, ActivationFormat::F32);
    assert!(backend.round(&x, &mut narrow).is_err(), "columns differ");
    let input = operand(backend, &[0.5; 30], 15, ActivationFormat::F32);
    let mut out = backend.tensor(2, 4);
    let linear = backend.linear(&input, &table, None, Store::Replace, &mut out);
    assert!(linear.is_err(), "K differs");
    let input = operand(backend, &[0.5; 32], 16, ActivationFormat::F32);
    let linear = backend.linear(&input, &table, None, Store::Replace, &mut small);
    assert!(linear.is_err(), "N differs");
}
