//! How long a workload takes: a roofline for each kind of kernel.
//!
//! A step runs its kernels one after the other: products with weights, attention, the head. Each kind
//! takes as long as the slower of reading its bytes and doing its arithmetic (Williams, Waterman and
//! Patterson, *Roofline*, CACM 2009), at the share of these limits that kernels reach; a layer adds
//! what is neither. Activations that are written and read between kernels are not counted.

use std::ops::{Add, Mul};

use bantam_model::{ArchSpec, stored_bytes};
use bantam_numerics::QuantScheme;
use serde::Serialize;

use super::device::{Arithmetic, Device, Kernel};
use super::workload::{Formats, Workload, head};

/// Seconds by what they were spent on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Seconds {
    /// Waiting for memory.
    pub reading: f64,
    /// Multiplying.
    pub arithmetic: f64,
    /// Between kernels.
    pub between: f64,
}

impl Seconds {
    /// Seconds of everything.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.reading + self.arithmetic + self.between
    }

    /// A kernel takes the longer of the two.
    fn longer(reading: f64, arithmetic: f64) -> Self {
        if reading > arithmetic {
            Self { reading, ..Self::default() }
        } else {
            Self { arithmetic, ..Self::default() }
        }
    }
}

impl Add for Seconds {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            reading: self.reading + other.reading,
            arithmetic: self.arithmetic + other.arithmetic,
            between: self.between + other.between,
        }
    }
}

impl Mul<f64> for Seconds {
    type Output = Self;

    fn mul(self, times: f64) -> Self {
        Self {
            reading: self.reading * times,
            arithmetic: self.arithmetic * times,
            between: self.between * times,
        }
    }
}

/// How fast a workload is expected to run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Speed {
    /// Seconds until every request has its first token, all starting at once.
    pub first_token_seconds: f64,
    /// Tokens of all requests per second after that, in the middle of the answers.
    pub decode_tokens_per_second: f64,
    /// Seconds until every answer is complete, by what they are spent on.
    pub total: Seconds,
    /// What multiplies in most of the products.
    pub arithmetic: Arithmetic,
    /// Whether that stands in for a format which the device does not have.
    pub widened: bool,
    /// Bytes of weights and cache that a decode step reads.
    pub decode_bytes: f64,
}

/// Linear layers that share a scheme.
struct Products {
    scheme: QuantScheme,
    weights: f64,
    bytes: f64,
}

impl Products {
    fn new(n: usize, k: usize, scheme: QuantScheme) -> Self {
        let bytes = stored_bytes(n, k, scheme) as f64;
        Self { scheme, weights: n as f64 * k as f64, bytes }
    }

    /// One token for each row; none if the device cannot.
    fn seconds(&self, device: &Device, rows: f64) -> Option<Seconds> {
        let arithmetic = device.kernel(self.scheme).arithmetic()?;
        let weight = self.scheme.weight;
        Some(Seconds::longer(
            self.bytes / device.attained_bytes(weight),
            2.0 * rows * self.weights / device.attained_ops(arithmetic, weight),
        ))
    }
}

/// What the tokens of a model cost.
struct Cost<'a> {
    arch: &'a ArchSpec,
    /// The layers of the blocks by scheme.
    blocks: Vec<Products>,
    head: Products,
    /// Cached bytes of a token in one layer.
    cached_bytes: f64,
    /// Operations of one query with one key and its value in one layer: 4·H·D.
    attention_operations: f64,
}

impl<'a> Cost<'a> {
    fn new(arch: &'a ArchSpec, formats: &Formats) -> Self {
        let mut blocks: Vec<Products> = Vec::new();
        for (layer, schemes) in formats.blocks.iter().enumerate() {
            for (linear, &scheme) in arch.linears(layer).iter().zip(schemes) {
                let more = Products::new(linear.n, linear.k, scheme);
                match blocks.iter_mut().find(|products| products.scheme == scheme) {
                    Some(products) => {
                        products.weights += more.weights;
                        products.bytes += more.bytes;
                    }
                    None => blocks.push(more),
                }
            }
        }
        let (attention, head) = (&arch.attention, head(arch));
        let vectors = 2 * attention.kv_heads * formats.kv.vector_bytes(attention.head_dim);
        Self {
            arch,
            blocks,
            head: Products::new(head.n, head.k, formats.head),
            cached_bytes: vectors as f64,
            attention_operations: 4.0 * (attention.heads * attention.head_dim) as f64,
        }
    }

    /// The products with `rows` tokens, of which `logits` reach the head.
    fn products(&self, device: &Device, rows: f64, logits: f64) -> Option<Seconds> {
        let head = self.head.seconds(device, logits)?;
        self.blocks
            .iter()
            .try_fold(head, |sum, products| Some(sum + products.seconds(device, rows)?))
    }

    /// What a step takes beside its products: attention of each layer and the time between kernels.
    /// `attended` and `read` are keys that queries meet and that memory is read for, by window.
    fn rest(
        &self,
        device: &Device,
        attended: impl Fn(Option<usize>) -> f64,
        read: impl Fn(Option<usize>) -> f64,
    ) -> Seconds {
        let shares = &device.attainable;
        let layer = |window: &Option<usize>| {
            let bytes = read(*window) * self.cached_bytes;
            let operations = attended(*window) * self.attention_operations;
            let attention = Seconds::longer(
                bytes / (device.read_bytes_per_second * shares.cache),
                operations / (device.peaks.bf16 * shares.attention),
            );
            attention + Seconds { between: shares.layer_seconds, ..Seconds::default() }
        };
        self.arch.attention.windows.iter().map(layer).fold(Seconds::default(), Add::add)
    }

    /// The prompts of all requests, with the logits of each one's last token.
    fn prefill(&self, device: &Device, workload: &Workload) -> Option<Seconds> {
        let (batch, tokens) = (workload.batch as f64, workload.input_tokens as f64);
        let attended = |window: Option<usize>| {
            let window = window.map_or(tokens, |window| tokens.min(window as f64));
            batch * (tokens * window - window * (window - 1.0) / 2.0)
        };
        let products = self.products(device, batch * tokens, batch)?;
        Some(products + self.rest(device, attended, |_| batch * tokens))
    }

    /// One token for each request, in the middle of the answers.
    fn decode(&self, device: &Device, workload: &Workload) -> Option<Seconds> {
        let batch = workload.batch as f64;
        let attended = |window| attended_in_decode(workload, window);
        Some(self.products(device, batch, batch)? + self.rest(device, attended, attended))
    }

    /// Bytes that a decode step reads.
    fn decode_bytes(&self, workload: &Workload) -> f64 {
        let windows = self.arch.attention.windows.iter();
        let keys: f64 = windows.map(|window| attended_in_decode(workload, *window)).sum();
        let blocks: f64 = self.blocks.iter().map(|products| products.bytes).sum();
        blocks + self.head.bytes + keys * self.cached_bytes
    }
}

/// Keys that the tokens of a decode step meet in one layer, in the middle of the answers.
fn attended_in_decode(workload: &Workload, window: Option<usize>) -> f64 {
    let context = workload.input_tokens as f64 + workload.output_tokens as f64 / 2.0;
    workload.batch as f64 * window.map_or(context, |window| context.min(window as f64))
}

/// How fast a model runs in these formats.
///
/// # Errors
/// If the device has no kernel for one of them; why.
pub(super) fn speed(
    arch: &ArchSpec,
    formats: &Formats,
    device: &Device,
    workload: &Workload,
) -> Result<Speed, &'static str> {
    let cost = Cost::new(arch, formats);
    let kernels = cost.blocks.iter().map(|products| device.kernel(products.scheme));
    if let Some(why) = kernels.clone().find_map(|kernel| match kernel {
        Kernel::Missing(why) => Some(why),
        Kernel::In(_) | Kernel::Widened => None,
    }) {
        return Err(why);
    }
    let most = cost.blocks.iter().max_by(|a, b| a.weights.total_cmp(&b.weights));
    let kernel = most.map_or(Kernel::Widened, |products| device.kernel(products.scheme));
    let (Some(prefill), Some(decode)) =
        (cost.prefill(device, workload), cost.decode(device, workload))
    else {
        return Err("there is no kernel for its head");
    };
    Ok(Speed {
        first_token_seconds: prefill.total(),
        decode_tokens_per_second: workload.batch as f64 / decode.total(),
        // The first token comes with the prompt.
        total: prefill + decode * (workload.output_tokens as f64 - 1.0),
        arithmetic: kernel.arithmetic().unwrap_or(Arithmetic::Bf16),
        widened: kernel == Kernel::Widened,
        decode_bytes: cost.decode_bytes(workload),
    })
}
