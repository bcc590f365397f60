//! Appending to the cache and attending over it, with ragged batches and scattered blocks.

use super::input::{self, InputCase};
use super::{Check, compare, noise, tensor};
use crate::reference::Reference;
use crate::{
    AttentionPrecision, AttentionShape, Backend, Batch, HeadNorm, KvFormat, KvLayout, KvRanges,
    Rope,
};
use bantam_numerics::ActivationFormat;
use bantam_numerics::reference::RotaryPairs;
use proptest::prelude::*;

/// Sequences that share a cache: each has a history, then tokens in the step under test.
#[derive(Clone, Debug)]
pub(super) struct AttentionCase {
    shape: AttentionShape,
    rotary_dim: usize,
    pairs: RotaryPairs,
    head_norm: bool,
    format: KvFormat,
    /// How the outputs are left.
    input: InputCase,
    /// (tokens already cached, tokens of this step) of each sequence.
    lengths: Vec<(usize, usize)>,
    seed: u64,
}

pub(super) fn case() -> impl Strategy<Value = AttentionCase> {
    let heads = (1usize..4, 1usize..5, prop::sample::select(vec![4usize, 12, 16, 32, 64, 80]));
    let window = prop_oneof![3 => Just(None), 1 => (1usize..60).prop_map(Some)];
    let pairs = prop_oneof![Just(RotaryPairs::HalfSplit), Just(RotaryPairs::Interleaved)];
    let format = prop::sample::select(KvFormat::ALL.to_vec());
    let length = prop_oneof![
        4 => (0usize..40, 1usize..20),
        1 => (250usize..600, 1usize..3), // past the first chunk of a split kernel
    ];
    let lengths = prop::collection::vec(length, 1..4);
    // Projections reach 2: some of these ranges clip.
    let range = || 0.5f32..4.0;
    let ranges = (range(), range()).prop_map(|(key, value)| Some(KvRanges { key, value }));
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), prop_oneof![Just(None), ranges]);
    let precision = prop_oneof![Just(AttentionPrecision::F32), Just(AttentionPrecision::Bf16)];
    let numbers = (format, precision, input::case());
    (heads, window, pairs, numbers, lengths, flags, any::<u64>()).prop_map(
        |((kv_heads, group, head_dim), window, pairs, numbers, lengths, flags, seed)| {
            let (format, precision, input) = numbers;
            let (alibi, partial, head_norm, kv_ranges) = flags;
            let heads = kv_heads * group;
            let slopes = || (1..=heads).map(|h| 2f32.powf(-8.0 * h as f32 / heads as f32));
            let shape = AttentionShape {
                heads,
                kv_heads,
                head_dim,
                scale: (head_dim as f32).sqrt().recip(),
                window,
                alibi_slopes: alibi.then(|| slopes().collect()),
                kv_ranges,
                precision,
            };
            let rotary_dim = if partial { head_dim / 2 } else { head_dim };
            // A norm's last bit may move a number across a rounding border of the cache, which only
            // the tolerance of bf16 covers.
            let head_norm = head_norm
                && match format {
                    KvFormat::F32 => true,
                    KvFormat::BF16 => precision == AttentionPrecision::Bf16,
                    KvFormat::Int8 | KvFormat::Fp8 => false,
                };
            AttentionCase { shape, rotary_dim, pairs, head_norm, format, input, lengths, seed }
        },
    )
}

/// A few tokens with rows as wide as the largest models have.
pub(super) fn wide_case() -> AttentionCase {
    AttentionCase {
        shape: AttentionShape {
            heads: 66,
            kv_heads: 33,
            head_dim: 128,
            scale: 0.09,
            window: None,
            alibi_slopes: None,
            kv_ranges: None,
            precision: AttentionPrecision::Bf16,
        },
        rotary_dim: 128,
        pairs: RotaryPairs::HalfSplit,
        head_norm: false,
        format: KvFormat::BF16,
        input: InputCase::plain(ActivationFormat::BF16),
        lengths: vec![(2, 3)],
        seed: 1,
    }
}

impl AttentionCase {
    fn layout(&self, block_tokens: usize) -> KvLayout {
        let blocks = self.lengths.iter().map(|(past, new)| (past + new).div_ceil(block_tokens));
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
        let step = (1..).map(|i| 2 * i + 3).find(|step| gcd(*step, layout.blocks) == 1);
        let step = step.unwrap_or(1);
        let mut order = (0..layout.blocks).map(|i| (i * step % layout.blocks) as u32);
        let count = |(past, new): &(usize, usize)| (past + new).div_ceil(layout.block_tokens);
        self.lengths.iter().map(|len| order.by_ref().take(count(len)).collect()).collect()
    }

    fn rope(&self) -> Rope {
        let positions = self.lengths.iter().map(|(past, new)| past + new).max().unwrap_or(0);
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
        noise(self.seed ^ sequence as u64, (past + new) * columns).iter().map(|v| 2.0 * v).collect()
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
                batch.push(&vec![0; tokens], first, &tables[sequence]).expect("tokens");
                let projections = self.projections(sequence);
                rows.extend_from_slice(&projections[first * columns..][..tokens * columns]);
            }
            let mut qkv = tensor(backend, &rows, columns);
            let norm = head_norm.as_ref();
            backend
                .append(&mut qkv, &self.shape, norm, Some(&rope), &batch, 1, &mut cache)
                .expect("shapes agree");
            let mut out = backend.operand(batch.num_tokens(), out_columns, self.input.format);
            let input = self.input.input(backend, out_columns);
            backend
                .attention(&qkv, &self.shape, &batch, 1, &cache, &input, &mut out)
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
        let mut steps: Vec<_> = histories.map(|(s, &(past, _))| vec![(s, 0, past)]).collect();
        steps.push(lengths().map(|(s, &(past, new))| (s, past, new)).collect());
        steps
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

pub(super) fn check<B: Backend>(backend: &B, case: AttentionCase) -> Check {
    let steps = case.mixed_steps();
    let got = case.run(backend, &steps);
    let want = case.run(&Reference, &steps);
    // With bf16 queries and probabilities scores move by about 2^-8 of |q|·|k|·scale, and outputs by
    // as much of the largest value, which is below 3.
    let tolerance = match (case.format, case.shape.precision) {
        (KvFormat::F32, _) | (_, AttentionPrecision::F32) => 2e-5,
        (KvFormat::BF16 | KvFormat::Int8 | KvFormat::Fp8, AttentionPrecision::Bf16) => 0.06,
    };
    for (got, want) in got.iter().zip(&want) {
        compare("append", &got[0], &want[0], |i| 1e-5 * want[0][i].abs().max(1.0))?;
        let columns = case.shape.heads * case.shape.head_dim;
        let tolerance = case.input.tolerance(&want[1], columns, tolerance);
        compare("attention", &got[1], &want[1], |i| tolerance[i])?;
    }
    Ok(())
}

pub(super) fn check_invariance<B: Backend>(backend: &B, case: AttentionCase) -> Check {
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

/// Batches that would write out of bounds or make two threads write one place.
pub(super) fn check_refusals<B: Backend>(backend: &B) {
    let shape = AttentionShape {
        heads: 2,
        kv_heads: 1,
        head_dim: 16,
        scale: 0.25,
        window: None,
        alibi_slopes: None,
        kv_ranges: None,
        precision: AttentionPrecision::F32,
    };
    let block_tokens = backend.block_tokens();
    let layout = KvLayout {
        layers: 1,
        blocks: 4,
        block_tokens,
        kv_heads: 1,
        head_dim: 16,
        format: KvFormat::F32,
    };
    let mut cache = backend.cache(&layout).expect("supported layout");
    let mut refused = |what: &str, shape: &AttentionShape, change: &dyn Fn(&mut Batch)| {
        let mut batch = Batch::default();
        batch.push(&[0, 0], 0, &[2]).expect("tokens");
        batch.push(&[0], block_tokens, &[1, 3]).expect("tokens");
        change(&mut batch);
        let mut qkv = tensor(backend, &vec![0.5; 3 * 64], 64);
        let result = backend.append(&mut qkv, shape, None, None, &batch, 0, &mut cache);
        assert!(result.is_err(), "{what} was accepted");
    };
    refused("a block outside the cache", &shape, &|batch| batch.block_tables[0] = 4);
    refused("two writers of a block", &shape, &|batch| batch.block_tables[0] = 3);
    refused("a table too short", &shape, &|batch| batch.spans[1].start = 2 * block_tokens);
    refused("rows past the end", &shape, &|batch| batch.spans[1].rows = 2..4);
    refused("rows that overlap", &shape, &|batch| batch.spans[1].rows = 1..3);
    let no_heads = AttentionShape { kv_heads: 0, ..shape.clone() };
    refused("no key/value head", &no_heads, &|_| {});
    // A shared block that both only read is what a prefix cache makes.
    let mut batch = Batch::default();
    batch.push(&[0], block_tokens, &[0, 1]).expect("tokens");
    batch.push(&[0], block_tokens, &[0, 2]).expect("tokens");
    let mut qkv = tensor(backend, &[0.5; 2 * 64], 64);
    backend.append(&mut qkv, &shape, None, None, &batch, 0, &mut cache).expect("a shared prefix");
}
