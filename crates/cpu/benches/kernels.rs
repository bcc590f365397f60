//! The kernels at the shapes of a small model (SmolLM2-135M: C 576, F 1536, 9 query and 3 key/value
//! heads of 64), one operation at a time: `cargo bench -p bantam-cpu`.
//!
//! Linear layers count the bytes of the weight where they are bound by memory (1 row) and the
//! multiplications where they are bound by arithmetic (256 rows).

use bantam_backend::{
    AttentionPrecision, AttentionShape, Backend, Batch, FeedForward, KvFormat, KvLayout,
    LinearInput, Norm, NormKind, Rope, Store,
};
use bantam_cpu::{Cpu, CpuOptions, Isa};
use bantam_numerics::reference::{Activation, RotaryPairs};
use bantam_numerics::{ActivationFormat, QuantScheme, quantize};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};

fn main() {
    divan::main();
}

fn cpu() -> Cpu {
    Cpu::new(CpuOptions::default()).expect("the best set is available")
}

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0).collect()
}

const SCHEMES: [(&str, QuantScheme); 9] = [
    ("f32", QuantScheme::F32),
    ("bf16", QuantScheme::BF16),
    ("int8", QuantScheme::INT8),
    ("int4-g32-sym", QuantScheme::int4(32, true)),
    ("int4-g32", QuantScheme::int4(32, false)),
    ("fp8", QuantScheme::FP8),
    ("fp8/fp8", QuantScheme::FP8.with(ActivationFormat::Fp8)),
    ("int8/int8", QuantScheme::INT8.with(ActivationFormat::Int8)),
    ("int4-g64/int8", QuantScheme::int4(64, false).with(ActivationFormat::Int8)),
];
const NAMES: [&str; 9] = {
    let mut names = [""; 9];
    let mut i = 0;
    while i < names.len() {
        names[i] = SCHEMES[i].0;
        i += 1;
    }
    names
};

fn linear(bencher: Bencher<'_, '_>, cpu: &Cpu, name: &str, rows: usize) {
    let scheme = SCHEMES.iter().find(|(n, _)| *n == name).expect("a listed scheme").1;
    // Enough layers that none is found in the last-level cache by the time it is read again.
    let (n, k) = (3072, 1536);
    let weights: Vec<_> = (0..24)
        .map(|_| cpu.weight(quantize(&values(n * k), n, k, scheme).expect("finite")))
        .map(|weight| weight.expect("supported"))
        .collect();
    let mut x = cpu.tensor(rows, k);
    cpu.write(&values(rows * k), &mut x).expect("rows fit");
    let mut operand = cpu.operand(rows, k, scheme.activation);
    cpu.round(&x, &LinearInput::new(scheme.activation), &mut operand).expect("shapes agree");
    let mut out = cpu.tensor(rows, n);
    let bytes: usize = weights.iter().map(bantam_cpu::CpuWeight::bytes).sum();
    bencher
        .counter(BytesCount::new(bytes))
        .counter(ItemsCount::new(2 * weights.len() * rows * n * k))
        .bench_local(|| {
            for weight in &weights {
                cpu.linear(&operand, weight, None, Store::Replace, &mut out).expect("shapes agree");
            }
        });
}

#[divan::bench(args = NAMES, sample_count = 20)]
fn linear_1_row(bencher: Bencher<'_, '_>, name: &str) {
    linear(bencher, &cpu(), name, 1);
}

#[divan::bench(args = NAMES, sample_count = 10)]
fn linear_16_rows(bencher: Bencher<'_, '_>, name: &str) {
    linear(bencher, &cpu(), name, 16);
}

#[divan::bench(args = NAMES, sample_count = 5)]
fn linear_256_rows(bencher: Bencher<'_, '_>, name: &str) {
    linear(bencher, &cpu(), name, 256);
}

#[divan::bench(args = ["scalar", "avx2", "avx512"], sample_count = 10)]
fn linear_1_row_bf16_by_isa(bencher: Bencher<'_, '_>, isa: &str) {
    let isa: Isa = isa.parse().expect("a listed set");
    if let Ok(cpu) = Cpu::new(CpuOptions { isa: Some(isa), ..CpuOptions::default() }) {
        linear(bencher, &cpu, "bf16", 1);
    }
}

/// One layer's attention: `rows` new tokens after `past` cached ones.
fn attention(bencher: Bencher<'_, '_>, past: usize, rows: usize, format: KvFormat) {
    let cpu = cpu();
    let shape = AttentionShape {
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        scale: 0.125,
        window: None,
        alibi_slopes: None,
        kv_ranges: None,
        precision: AttentionPrecision::Bf16,
    };
    let context = past + rows;
    let blocks = context.div_ceil(16);
    let layout =
        KvLayout { layers: 1, blocks, block_tokens: 16, kv_heads: 3, head_dim: 64, format };
    let mut cache = cpu.cache(&layout).expect("supported");
    let table: Vec<u32> = (0..blocks as u32).collect();
    let rope = Rope {
        rotary_dim: 64,
        pairs: RotaryPairs::HalfSplit,
        cos: vec![0.6; 32 * context],
        sin: vec![0.8; 32 * context],
    };
    let mut fill = |first: usize, tokens: usize| {
        let mut batch = Batch::default();
        batch.push(&vec![0; tokens], first, &table).expect("tokens");
        let mut qkv = cpu.tensor(tokens, shape.qkv_columns());
        cpu.write(&values(tokens * shape.qkv_columns()), &mut qkv).expect("rows fit");
        cpu.append(&mut qkv, &shape, None, Some(&rope), &batch, 0, &mut cache).expect("fits");
        (batch, qkv)
    };
    if past > 0 {
        fill(0, past);
    }
    let (batch, qkv) = fill(past, rows);
    let mut out = cpu.operand(rows, 576, ActivationFormat::BF16);
    let input = LinearInput::new(ActivationFormat::BF16);
    bencher.counter(ItemsCount::new(rows)).bench_local(|| {
        cpu.attention(&qkv, &shape, &batch, 0, &cache, &input, &mut out).expect("shapes agree");
    });
}

#[divan::bench(args = [64, 512, 4096], sample_count = 200)]
fn attention_decode_bf16(bencher: Bencher<'_, '_>, past: usize) {
    attention(bencher, past, 1, KvFormat::BF16);
}

#[divan::bench(args = [512, 2048], sample_count = 10)]
fn attention_prefill_bf16(bencher: Bencher<'_, '_>, rows: usize) {
    attention(bencher, 0, rows, KvFormat::BF16);
}

#[divan::bench(args = [512], sample_count = 10)]
fn attention_prefill_f32(bencher: Bencher<'_, '_>, rows: usize) {
    attention(bencher, 0, rows, KvFormat::F32);
}

#[divan::bench(args = [1, 256])]
fn rms_norm(bencher: Bencher<'_, '_>, rows: usize) {
    let cpu = cpu();
    let mut x = cpu.tensor(rows, 576);
    cpu.write(&values(rows * 576), &mut x).expect("rows fit");
    let norm =
        Norm { kind: NormKind::Rms, weight: cpu.vector(&values(576)), bias: None, eps: 1e-5 };
    let mut out = cpu.operand(rows, 576, ActivationFormat::BF16);
    let input = LinearInput::new(ActivationFormat::BF16);
    bencher
        .counter(ItemsCount::new(rows))
        .bench_local(|| cpu.norm(&x, &norm, &input, &mut out).expect("shapes agree"));
}

#[divan::bench(args = [1, 256])]
fn gated_silu(bencher: Bencher<'_, '_>, rows: usize) {
    let cpu = cpu();
    let mut x = cpu.tensor(rows, 3072);
    cpu.write(&values(rows * 3072), &mut x).expect("rows fit");
    let mut out = cpu.operand(rows, 1536, ActivationFormat::BF16);
    let kind = FeedForward::Gated(Activation::Silu);
    let input = LinearInput::new(ActivationFormat::BF16);
    bencher
        .counter(ItemsCount::new(rows))
        .bench_local(|| cpu.feed_forward(&x, kind, &input, &mut out).expect("shapes agree"));
}
