//! The memory that a run takes, stated before it starts: that of the block and the step of work that
//! need most.

use bantam_checkpoint::RowOrder;
use bantam_model::{StoredLinear, stored_bytes};
use bantam_numerics::{Encoding, WeightFormat};

use crate::pipeline::Job;
use crate::treat::needed_statistics;
use crate::{FactorMethod, RoundMethod, Treatment, awq, clip, gram, product, sample, treat};

/// The program itself, its tables and buffers of files.
const PROGRAM: u64 = 32 << 20;
/// Rows that a product of matrices takes at a time.
const ROWS: u64 = product::ROWS as u64;
/// Rows that candidates of AWQ are judged on.
const JUDGED: u64 = awq::JUDGED_ROWS as u64;
/// Tokens of one update of a Gram matrix.
const STEP: u64 = gram::STEP as u64;
/// Rows of a sample, in a list that grows by doubling.
const SAMPLE: u64 = 2 * (treat::SAMPLED_ROWS + sample::LARGEST) as u64;
/// Rows and candidates that clipping tries at a time.
const CLIPPED: (u64, u64) = (clip::ROWS as u64, 25);
/// Bytes of f32 and of f64.
const F32: u64 = 4;
const F64: u64 = 8;

impl Job<'_> {
    /// Bytes of memory that the run takes at most.
    #[must_use]
    pub fn peak_bytes(&self) -> u64 {
        let blocks = 0..self.plan.blocks.len();
        let largest = blocks.map(|block| self.block_bytes(block)).max().unwrap_or(0);
        // What is freed between the steps is not all used again.
        PROGRAM + (largest + self.decoded_bytes()) * 5 / 4
    }

    /// Bytes of one block at the step that needs most.
    fn block_bytes(&self, block: usize) -> u64 {
        let linears = self.arch.linears(block);
        let sites: Vec<_> = linears.iter().zip(&self.plan.blocks[block]).collect();
        let all: u64 = linears.iter().map(elements).sum();
        let largest = linears.iter().map(elements).max().unwrap_or(0);
        let weights = F32 * all;
        let treated = || sites.iter().filter_map(|(linear, t)| Some((*linear, t.as_ref()?)));
        let quantized: u64 =
            treated().map(|(linear, t)| stored_bytes(linear.n, linear.k, t.scheme)).sum();
        let rounding = |(linear, t)| working_bytes(linear, t, self.plan.needs_calibration());
        let working = treated().map(rounding).max().unwrap_or(0);
        let written = 2 * F32 * largest;
        if !self.plan.needs_calibration() {
            return weights + quantized + working.max(written);
        }
        let collected: u64 = treated().map(|(linear, t)| collected_bytes(linear, t)).sum();
        let remembered: u64 = treated().map(|(linear, t)| remembered_bytes(linear, t)).sum();
        let most = treated().map(|(linear, _)| F32 * square(linear)).max().unwrap_or(0);
        let calibrating = weights + F32 * largest + collected.max(remembered + most);
        let treating = remembered + quantized + working.max(written);
        // Parts, stacked, and packed; what stays in f32 is packed alone.
        let propagating = 3 * quantized + weights;
        self.activation_bytes() + weights + calibrating.max(treating).max(propagating)
    }

    /// The residual stream, and a block's activations on the longest sequence.
    fn activation_bytes(&self) -> u64 {
        let attention = &self.arch.attention;
        let heads = (attention.heads + 2 * attention.kv_heads) * attention.head_dim;
        let (hidden, inner) = (self.arch.sizes.hidden, self.arch.sizes.feed_forward);
        // As tensors, as operands, in the cache, and read back.
        let columns = 4 * hidden + 3 * heads + 5 * inner;
        let (longest, tokens) = (self.calibration.longest(), self.calibration.tokens());
        F32 * (longest as u64 * columns as u64 + tokens as u64 * hidden as u64)
    }

    /// What the largest tensor takes that is not copied as it is stored: as f32 and as bf16.
    fn decoded_bytes(&self) -> u64 {
        let tensors = self.checkpoint.tensors().filter(|tensor| {
            !matches!((tensor.encoding, tensor.row_order), (Encoding::Scalar(_), RowOrder::Plain))
        });
        let elements = tensors.map(|tensor| tensor.shape.iter().product::<usize>() as u64);
        6 * elements.max().unwrap_or(0)
    }
}

fn elements(linear: &StoredLinear) -> u64 {
    linear.n as u64 * linear.k as u64
}

/// K².
fn square(linear: &StoredLinear) -> u64 {
    (linear.k as u64).pow(2)
}

/// Weights along K that share a scale.
fn group_size(format: WeightFormat, k: usize) -> usize {
    match format {
        WeightFormat::Int8 { group } | WeightFormat::Int4 { group, .. } => group.size(k),
        WeightFormat::Fp8 { .. } | WeightFormat::F32 | WeightFormat::BF16 => k,
    }
}

/// What a collector holds: sums, the tokens of an update in three forms and packed, a sample.
fn collected_bytes(linear: &StoredLinear, treatment: &Treatment) -> u64 {
    let step = if needed_statistics(treatment).gram { 4 * F32 * STEP * linear.k as u64 } else { 0 };
    remembered_bytes(linear, treatment) + step
}

/// What is left of it when all tokens have passed.
fn remembered_bytes(linear: &StoredLinear, treatment: &Treatment) -> u64 {
    let needed = needed_statistics(treatment);
    let gram = if needed.gram { square(linear) } else { 0 };
    let rows = if needed.sample > 0 { SAMPLE } else { 0 };
    F32 * (gram + rows * linear.k as u64)
}

/// What finding factors, rounding and measuring a site takes at most, beside what it leaves.
fn working_bytes(linear: &StoredLinear, treatment: &Treatment, calibrated: bool) -> u64 {
    let (n, k, weights, square) =
        (linear.n as u64, linear.k as u64, elements(linear), square(linear));
    // Codes one by one, packed, and by parts.
    let nearest = 3 * weights;
    if !calibrated {
        return nearest;
    }
    // A matrix to multiply by, as it is given and packed, and rows in four forms.
    let product = |n: u64, k: u64| 2 * F32 * n * k + F32 * ROWS * (2 * k + 2 * n);
    let factors = match treatment.factors {
        FactorMethod::Nothing => 0,
        // Judged rows as they are, scaled, and rounded.
        FactorMethod::Awq => product(k, k) + 5 * F32 * n.min(JUDGED) * k,
        FactorMethod::SmoothQuant => {
            product(n, k) + F32 * weights + nearest + F32 * SAMPLE * (2 * n + k)
        }
    };
    let rounded = match treatment.round {
        RoundMethod::Nearest => nearest,
        RoundMethod::Gptq => (F64 + F32) * square + F32 * weights + nearest,
        RoundMethod::Clip => {
            let (rows, candidates) = CLIPPED;
            let group = group_size(treatment.scheme.weight, linear.k) as u64;
            2 * n.min(rows) * candidates * (F32 * group + 2 * F32) + nearest
        }
    };
    // The weight decoded, its change, and the same of plain rounding.
    let (inputs, copied) =
        if needed_statistics(treatment).gram { (k, square) } else { (SAMPLE, 0) };
    let measured = product(inputs, k) + 3 * F32 * weights + nearest;
    factors.max(F32 * copied + rounded.max(measured))
}
