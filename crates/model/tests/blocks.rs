//! Blocks run one at a time compute what the decoder computes.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use bantam_backend::{Backend, Batch, Norm, QuantizedLinear, Store};
use bantam_checkpoint::Checkpoint;
use bantam_cpu::{Cpu, CpuOptions};
use bantam_model::{
    ArchSpec, Block, BlockRunner, BlockWeights, LinearRole, LoadOptions, Precision, Tap,
};
use bantam_numerics::{QuantScheme, quantize};
use common::{Random, data, load};

const TOKENS: usize = 37;

/// Counts what passes by.
#[derive(Default)]
struct Widths(Vec<(LinearRole, usize)>, usize);

impl<B: Backend> Tap<B> for Widths {
    fn linear_input(&mut self, backend: &B, role: LinearRole, x: &B::Operand) {
        self.0.push((role, backend.read_operand(x).len() / TOKENS));
    }

    fn attention_input(&mut self, backend: &B, qkv: &B::Tensor) {
        self.1 += backend.read(qkv).len() / TOKENS;
    }
}

/// The logits of every token, from the residual stream after the last layer.
fn logits(backend: &Cpu, checkpoint: &Checkpoint, arch: &ArchSpec, hidden: &[f32]) -> Vec<f32> {
    let (c, v) = (arch.sizes.hidden, arch.sizes.vocabulary);
    let tensor =
        |name: &str| checkpoint.tensor(&format!("{name}.weight")).unwrap().to_f32().unwrap();
    let head = if arch.head.tied { arch.names.embedding } else { arch.names.head };
    let weight = quantize(&tensor(head), v, c, QuantScheme::F32).unwrap();
    let norm = Norm {
        kind: arch.norm.kind,
        weight: backend.vector(&tensor(arch.names.final_norm)),
        bias: None,
        eps: arch.norm.eps,
    };
    let input = bantam_backend::LinearInput::new(QuantScheme::F32.activation);
    let mut stream = backend.tensor(TOKENS, c);
    let mut normed = backend.operand(TOKENS, c, input.format);
    let mut out = backend.tensor(TOKENS, v);
    backend.write(hidden, &mut stream).unwrap();
    backend.norm(&stream, &norm, &input, &mut normed).unwrap();
    let weight = backend.weight(weight).unwrap();
    backend.linear(&normed, &weight, None, Store::Replace, &mut out).unwrap();
    backend.read(&out)
}

#[test]
fn blocks_one_at_a_time_are_the_decoder() {
    for (name, scheme) in [
        ("llama-gqa", QuantScheme::F32),
        ("qwen3", QuantScheme::F32),
        ("qwen2", QuantScheme::F32),
        ("llama-gqa", QuantScheme::INT8),
    ] {
        let path = data(&format!("tiny/{name}"));
        let checkpoint = Checkpoint::open(&path).unwrap();
        let arch = ArchSpec::from_checkpoint(&checkpoint).unwrap();
        let mut random = Random(7);
        let tokens: Vec<u32> =
            (0..TOKENS).map(|_| random.below(arch.sizes.vocabulary) as u32).collect();

        let cpu = Cpu::new(CpuOptions::default()).unwrap();
        let mut runner = BlockRunner::new(&cpu, &arch, 64).unwrap();
        let mut hidden = runner.embed(&checkpoint, &tokens).unwrap();
        let mut widths = Widths::default();
        for layer in 0..arch.sizes.layers {
            let weights = BlockWeights::read(&checkpoint, &arch, layer).unwrap();
            let quantized = weights.linears.each_ref().map(|linear| {
                let (n, k) = (linear.stored.n, linear.stored.k);
                vec![QuantizedLinear::new(quantize(&linear.weight, n, k, scheme).unwrap())]
            });
            let chosen = quantized
                .each_ref()
                .map(|parts| (scheme != QuantScheme::F32).then_some(parts.as_slice()));
            let block = Block::new(&cpu, arch.norm, &weights, chosen, QuantScheme::F32).unwrap();
            runner.run(&block, layer, &mut hidden, &mut widths).unwrap();
        }
        let got = logits(&cpu, &checkpoint, &arch, &hidden);

        let precision = if scheme == QuantScheme::F32 { Precision::F32 } else { Precision::Int8 };
        let kv_format = Some(bantam_backend::KvFormat::F32);
        let options = LoadOptions {
            precision,
            kv_format,
            max_context: Some(64),
            max_batch_tokens: 64,
            max_logit_rows: 64,
            ..Default::default()
        };
        let mut decoder = load(Cpu::new(CpuOptions::default()).unwrap(), &path, &options).unwrap();
        let mut batch = Batch::default();
        let blocks: Vec<u32> = (0..decoder.num_blocks() as u32).collect();
        batch.push(&tokens, 0, &blocks).unwrap();
        batch.want_all_logits();
        let want = decoder.forward(&batch).unwrap();
        if scheme == QuantScheme::F32 {
            assert_eq!(got, want, "{name}");
        } else {
            // The decoder's head and embedding are INT8 too, the blocks' are not.
            let scale = want.iter().fold(0f32, |max, x| max.max(x.abs()));
            let worst = got.iter().zip(&want).fold(0f32, |max, (a, b)| max.max((a - b).abs()));
            assert!(worst < 0.05 * scale, "{name}: {worst} of {scale}");
        }

        let [qkv, out, inner, down] = arch.linears(0).map(|linear| (linear.role, linear.k));
        let one = [qkv, out, inner, down];
        assert_eq!(widths.0, one.repeat(arch.sizes.layers), "{name}");
        assert_eq!(widths.1, arch.sizes.layers * arch.linears(0)[0].n, "{name}");
    }
}
