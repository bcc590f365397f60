//! Every part that the decoder accepts, against a dense forward pass written here: no cache, no
//! blocks, no fused layers, all in f64.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::collections::HashMap;

use bantam_backend::reference::Reference;
use bantam_backend::{FeedForward, NormKind};
use bantam_checkpoint::Checkpoint;
use bantam_model::{
    ArchSpec, ConfigKeys, Decoder, FeedForwardSpec, HeadSpec, LoadOptions, NormSpec, Positions,
    Precision, QkvNames, Residual, RopeScaling, Rotary, TensorNames,
};
use bantam_numerics::reference::{Activation, RotaryPairs};
use common::{Files, Random, logits_in_chunks, max_difference};

type Matrix = Vec<Vec<f64>>;

const PLAIN_NAMES: TensorNames = TensorNames {
    embedding: "wte",
    attention_norm: "h.{layer}.norm_1",
    qkv: QkvNames::Separate(["h.{layer}.q", "h.{layer}.k", "h.{layer}.v"]),
    head_norms: ["h.{layer}.q_norm", "h.{layer}.k_norm"],
    attention_out: "h.{layer}.out",
    feed_forward_norm: "h.{layer}.norm_2",
    feed_forward_in: &["h.{layer}.up"],
    feed_forward_out: "h.{layer}.down",
    final_norm: "norm_f",
    head: "lm_head",
};
static SEPARATE: TensorNames = PLAIN_NAMES;
static STACKED: TensorNames =
    TensorNames { qkv: QkvNames::Stacked("h.{layer}.qkv"), ..PLAIN_NAMES };
static GROUPED: TensorNames =
    TensorNames { qkv: QkvNames::Grouped("h.{layer}.qkv"), ..PLAIN_NAMES };
static STACKED_GATED: TensorNames =
    TensorNames { feed_forward_in: &["h.{layer}.gate_up"], ..STACKED };

fn keys() -> &'static ConfigKeys {
    base().keys
}

/// A small Llama, to be varied.
fn base() -> ArchSpec {
    ArchSpec::from_config(&serde_json::json!({
        "model_type": "llama", "hidden_size": 24, "intermediate_size": 40, "hidden_act": "silu",
        "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8,
        "vocab_size": 50, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    }))
    .unwrap()
}

fn rotary(rotary_dim: usize, pairs: RotaryPairs) -> Positions {
    Positions::Rotary(Rotary { rotary_dim, pairs, theta: 1e4, scaling: RopeScaling::None })
}

/// Falcon, MPT, GPT-J and Baichuan2 in miniature, and what else can be said.
fn variants() -> Vec<(&'static str, ArchSpec)> {
    let layer_norm = |bias| NormSpec { kind: NormKind::Layer, eps: 1e-5, bias };
    let plain = |activation, bias| FeedForwardSpec { kind: FeedForward::Plain(activation), bias };
    let untied = HeadSpec { tied: false, normalised: false, bias: false };
    let mut gptj = ArchSpec {
        norm: layer_norm(true),
        positions: rotary(4, RotaryPairs::Interleaved),
        feed_forward: plain(Activation::GeluTanh, true),
        residual: Residual::Parallel { shared_norm: true },
        head: HeadSpec { bias: true, ..untied },
        names: &SEPARATE,
        keys: keys(),
        ..base()
    };
    gptj.attention.kv_heads = 6;
    let falcon = ArchSpec {
        norm: layer_norm(true),
        positions: rotary(8, RotaryPairs::HalfSplit),
        feed_forward: plain(Activation::Gelu, false),
        residual: Residual::Parallel { shared_norm: false },
        names: &GROUPED,
        ..gptj.clone()
    };
    let mut falcon_biased = falcon.clone();
    falcon_biased.attention.qkv_bias = true;
    falcon_biased.attention.out_bias = true;
    falcon_biased.attention.kv_heads = 3;
    let mut mpt = ArchSpec {
        norm: layer_norm(false),
        positions: Positions::Alibi { max_bias: 8.0 },
        feed_forward: plain(Activation::Gelu, false),
        head: HeadSpec { tied: true, ..untied },
        names: &STACKED,
        ..base()
    };
    mpt.attention.scale = Some(0.3);
    let mut baichuan2 = ArchSpec {
        positions: Positions::Alibi { max_bias: 8.0 },
        head: HeadSpec { normalised: true, ..untied },
        names: &STACKED_GATED,
        ..base()
    };
    baichuan2.attention.windows = vec![Some(5), None];
    let mut head_norms = ArchSpec { names: &STACKED_GATED, ..base() };
    head_norms.attention.head_norm = true;
    head_norms.attention.windows = vec![None, Some(3)];
    head_norms.feed_forward.bias = true;
    vec![
        ("gptj", gptj),
        ("falcon", falcon),
        ("falcon_biased", falcon_biased),
        ("mpt", mpt),
        ("baichuan2", baichuan2),
        ("head_norms", head_norms),
    ]
}

#[test]
fn every_variant_gives_the_logits_of_a_dense_forward_pass() {
    for (name, arch) in variants() {
        let mut random = Random(11);
        let mut files = Files { config: serde_json::json!({}), tensors: Vec::new() };
        for tensor in arch.needed_tensors() {
            let scale = if tensor.shape.len() == 2 { 0.3 } else { 1.0 };
            files.add(&tensor.name, &tensor.shape, scale, &mut random);
        }
        let tokens: Vec<u32> = (0..23).map(|_| random.below(50) as u32).collect();
        let want = Dense::new(&arch, &files).logits(&tokens);

        let options = LoadOptions {
            precision: Precision::F32,
            max_batch_tokens: 32,
            max_logit_rows: 32,
            ..Default::default()
        };
        let checkpoint = Checkpoint::open(&files.write(&format!("variant_{name}"))).unwrap();
        let mut decoder =
            Decoder::load_as(arch, Reference, &checkpoint, &options, &|_| {}).unwrap();
        for chunks in [vec![23], vec![7, 1, 9, 1, 5]] {
            let logits = logits_in_chunks(&mut decoder, &tokens, &[3, 1], &chunks);
            for (position, (got, want)) in logits.iter().zip(&want).enumerate() {
                let want: Vec<f32> = want.iter().map(|&v| v as f32).collect();
                let difference = max_difference(got, &want);
                assert!(difference < 1e-4, "{name}: position {position} off by {difference}");
            }
        }
    }
}

/// The network as its papers write it.
struct Dense<'a> {
    arch: &'a ArchSpec,
    tensors: HashMap<&'a str, &'a [f32]>,
}

impl<'a> Dense<'a> {
    fn new(arch: &'a ArchSpec, files: &'a Files) -> Self {
        let tensors = files.tensors.iter().map(|(n, _, v)| (n.as_str(), v.as_slice())).collect();
        Self { arch, tensors }
    }

    fn vector(&self, name: &str) -> Option<Vec<f64>> {
        self.tensors.get(name).map(|values| values.iter().map(|&v| f64::from(v)).collect())
    }

    /// `x·Wᵀ + b`, the bias where there is one.
    fn linear(&self, x: &[f64], module: &str) -> Vec<f64> {
        let weight = self.vector(&format!("{module}.weight")).unwrap();
        let bias = self.vector(&format!("{module}.bias"));
        let rows = weight.chunks_exact(x.len()).enumerate();
        rows.map(|(n, row)| dot(row, x) + bias.as_ref().map_or(0.0, |b| b[n])).collect()
    }

    fn norm(&self, x: &[f64], module: &str) -> Vec<f64> {
        let weight = self.vector(&format!("{module}.weight")).unwrap();
        let bias = self.vector(&format!("{module}.bias")).unwrap_or(vec![0.0; weight.len()]);
        let count = x.len() as f64;
        let mean = match self.arch.norm.kind {
            NormKind::Rms => 0.0,
            NormKind::Layer => x.iter().sum::<f64>() / count,
        };
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
        let deviation = (variance + f64::from(self.arch.norm.eps)).sqrt();
        let scaled = x.iter().map(|v| (v - mean) / deviation);
        scaled.zip(weight.iter().zip(bias)).map(|(v, (w, b))| v * w + b).collect()
    }

    /// Query, key and value heads of a token: H, G and G of `[D]`.
    fn heads(&self, x: &[f64], layer: usize, position: usize) -> [Matrix; 3] {
        let shape = &self.arch.attention;
        let (heads, groups, dim) = (shape.heads, shape.kv_heads, shape.head_dim);
        let split = |v: &[f64]| v.chunks_exact(dim).map(<[f64]>::to_vec).collect::<Matrix>();
        let [mut q, mut k, v] = match self.arch.names.qkv {
            QkvNames::Separate(names) => {
                names.map(|name| split(&self.linear(x, &module(name, layer))))
            }
            QkvNames::Stacked(name) => {
                let all = split(&self.linear(x, &module(name, layer)));
                let (keys, values) = (heads..heads + groups, heads + groups..heads + 2 * groups);
                [all[..heads].to_vec(), all[keys].to_vec(), all[values].to_vec()]
            }
            QkvNames::Grouped(name) => {
                let all = split(&self.linear(x, &module(name, layer)));
                let mut parts = [Vec::new(), Vec::new(), Vec::new()];
                for group in all.chunks_exact(heads / groups + 2) {
                    let (queries, key_value) = group.split_at(heads / groups);
                    parts[0].extend_from_slice(queries);
                    parts[1].push(key_value[0].clone());
                    parts[2].push(key_value[1].clone());
                }
                parts
            }
        };
        for (heads, norm) in [&mut q, &mut k].into_iter().zip(self.arch.names.head_norms) {
            for head in heads {
                if shape.head_norm {
                    *head = self.norm(head, &module(norm, layer));
                }
                self.rotate(head, position);
            }
        }
        [q, k, v]
    }

    fn rotate(&self, head: &mut [f64], position: usize) {
        let Positions::Rotary(rotary) = &self.arch.positions else {
            return;
        };
        let dim = rotary.rotary_dim;
        for i in 0..dim / 2 {
            let frequency = f64::from(rotary.theta).powf(-2.0 * i as f64 / dim as f64);
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            let (a, b) = match rotary.pairs {
                RotaryPairs::HalfSplit => (i, i + dim / 2),
                RotaryPairs::Interleaved => (2 * i, 2 * i + 1),
            };
            (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[b] * cos + head[a] * sin);
        }
    }

    fn feed_forward(&self, x: &[f64], layer: usize) -> Vec<f64> {
        let names = self.arch.names;
        let inner: Vec<f64> = names
            .feed_forward_in
            .iter()
            .flat_map(|name| self.linear(x, &module(name, layer)))
            .collect();
        let apply = |activation: Activation, v: f64| f64::from(activation.apply(v as f32));
        let activated: Vec<f64> = match self.arch.feed_forward.kind {
            FeedForward::Plain(activation) => inner.iter().map(|&v| apply(activation, v)).collect(),
            FeedForward::Gated(activation) => {
                let (gate, up) = inner.split_at(inner.len() / 2);
                gate.iter().zip(up).map(|(&g, u)| apply(activation, g) * u).collect()
            }
        };
        self.linear(&activated, &module(names.feed_forward_out, layer))
    }

    fn attention(&self, x: &Matrix, layer: usize) -> Matrix {
        let shape = &self.arch.attention;
        let tokens: Vec<[Matrix; 3]> =
            x.iter().enumerate().map(|(p, row)| self.heads(row, layer, p)).collect();
        let scale = shape.scale.map_or(1.0 / (shape.head_dim as f64).sqrt(), f64::from);
        let out = module(self.arch.names.attention_out, layer);
        (0..x.len())
            .map(|position| {
                let mut attended = Vec::new();
                for head in 0..shape.heads {
                    let group = head * shape.kv_heads / shape.heads;
                    let seen = |other: usize| {
                        shape.windows[layer].is_none_or(|window| position - other < window)
                    };
                    let weights: Vec<f64> = (0..=position)
                        .map(|other| {
                            let score = dot(&tokens[position][0][head], &tokens[other][1][group]);
                            let penalty = self.slope(head) * (position - other) as f64;
                            if seen(other) { (score * scale - penalty).exp() } else { 0.0 }
                        })
                        .collect();
                    let total: f64 = weights.iter().sum();
                    attended.extend((0..shape.head_dim).map(|d| {
                        let terms = weights.iter().zip(&tokens);
                        terms.map(|(w, token)| w / total * token[2][group][d]).sum::<f64>()
                    }));
                }
                self.linear(&attended, &out)
            })
            .collect()
    }

    /// The slope of a head by the recursion of the ALiBi paper's own code.
    fn slope(&self, head: usize) -> f64 {
        fn slopes(heads: usize) -> Vec<f64> {
            if heads.is_power_of_two() {
                let start = 2f64.powf(-8.0 / heads as f64);
                return (1..=heads).map(|i| start.powi(i as i32)).collect();
            }
            let closest = heads.next_power_of_two() / 2;
            let between = slopes(2 * closest).into_iter().step_by(2).take(heads - closest);
            slopes(closest).into_iter().chain(between).collect()
        }
        match self.arch.positions {
            Positions::Alibi { .. } => slopes(self.arch.attention.heads)[head],
            _ => 0.0,
        }
    }

    fn logits(&self, tokens: &[u32]) -> Matrix {
        let (names, width) = (self.arch.names, self.arch.sizes.hidden);
        let table = self.vector(&format!("{}.weight", names.embedding)).unwrap();
        let mut x: Matrix =
            tokens.iter().map(|&id| table[id as usize * width..][..width].to_vec()).collect();
        for layer in 0..self.arch.sizes.layers {
            let normed = |x: &Matrix, name| -> Matrix {
                x.iter().map(|row| self.norm(row, &module(name, layer))).collect()
            };
            let first = normed(&x, names.attention_norm);
            let attended = self.attention(&first, layer);
            let second = match self.arch.residual {
                Residual::Sequential => {
                    x = add(&x, &attended);
                    normed(&x, names.feed_forward_norm)
                }
                Residual::Parallel { shared_norm: true } => first,
                Residual::Parallel { shared_norm: false } => normed(&x, names.feed_forward_norm),
            };
            let fed: Matrix = second.iter().map(|row| self.feed_forward(row, layer)).collect();
            x = add(&x, &fed);
            if self.arch.residual != Residual::Sequential {
                x = add(&x, &attended);
            }
        }
        x.iter().map(|row| self.head(&self.norm(row, names.final_norm))).collect()
    }

    fn head(&self, x: &[f64]) -> Vec<f64> {
        let names = self.arch.names;
        let mut logits =
            self.linear(x, if self.arch.head.tied { names.embedding } else { names.head });
        if self.arch.head.normalised {
            let weight = self.vector(&format!("{}.weight", names.head)).unwrap();
            for (logit, row) in logits.iter_mut().zip(weight.chunks_exact(x.len())) {
                *logit /= dot(row, row).sqrt();
            }
        }
        logits
    }
}

fn module(name: &str, layer: usize) -> String {
    name.replace("{layer}", &layer.to_string())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(a: &Matrix, b: &Matrix) -> Matrix {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
}
