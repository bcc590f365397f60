//! What a device can do at best, which formats it multiplies in, and how much of its limits kernels
//! reach.

use std::fmt;

use bantam_numerics::{ActivationFormat, QuantScheme, WeightFormat};
use serde::Serialize;

/// A device to predict speeds for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Device {
    /// What users call it.
    pub name: String,
    /// Bytes that a model may take; none where that is not known.
    pub usable_bytes: Option<u64>,
    /// Reading memory, bytes per second.
    pub read_bytes_per_second: f64,
    /// Arithmetic by number format.
    pub peaks: Peaks,
    /// Shares of these limits that kernels reach.
    #[serde(skip)]
    pub attainable: Attainable,
    /// Whether it is a GPU.
    #[serde(skip)]
    is_gpu: bool,
}

/// Dense arithmetic in operations per second, a multiplication and an addition counted as two.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Peaks {
    /// bf16 with f32 sums.
    pub bf16: f64,
    /// 8-bit integers with 32-bit sums.
    pub int8: f64,
    /// E4M3 with f32 sums; none where there is no such arithmetic.
    pub fp8: Option<f64>,
}

/// A number format that a device multiplies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arithmetic {
    /// 16 bits.
    Bf16,
    /// 8-bit integers.
    Int8,
    /// E4M3.
    Fp8,
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Fp8 => "fp8",
        })
    }
}

/// How a device runs a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// In the format of its activations.
    In(Arithmetic),
    /// In bf16, because the device does not multiply in the format of its activations.
    Widened,
    /// Not at all; why.
    Missing(&'static str),
}

impl Kernel {
    /// What multiplies; none if nothing does.
    #[must_use]
    pub fn arithmetic(self) -> Option<Arithmetic> {
        match self {
            Self::In(arithmetic) => Some(arithmetic),
            Self::Widened => Some(Arithmetic::Bf16),
            Self::Missing(_) => None,
        }
    }
}

/// Something that depends on the bits of a weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByWidth {
    /// 16 bits and more.
    pub sixteen: f64,
    /// 8 bits.
    pub eight: f64,
    /// 4 bits.
    pub four: f64,
}

impl ByWidth {
    /// The value for a format.
    #[must_use]
    pub fn of(&self, weight: WeightFormat) -> f64 {
        match weight {
            WeightFormat::F32 | WeightFormat::BF16 => self.sixteen,
            WeightFormat::Int8 { .. } | WeightFormat::Fp8 { .. } => self.eight,
            WeightFormat::Int4 { .. } => self.four,
        }
    }
}

/// Shares of a device's limits that kernels reach, 0 to 1, and what neither limit explains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attainable {
    /// Of the bandwidth, reading weights.
    pub reading: ByWidth,
    /// Of the 16-bit arithmetic.
    pub bf16: f64,
    /// Of the 8-bit arithmetic, integers or floats.
    pub eight_bit: f64,
    /// What unpacking weights leaves of the arithmetic.
    pub unpacking: ByWidth,
    /// Of the bandwidth, reading the key/value cache.
    pub cache: f64,
    /// Of the 16-bit arithmetic, in attention.
    pub attention: f64,
    /// Seconds of a layer beside its products: starting kernels, norms, waiting for one another.
    pub layer_seconds: f64,
}

/// What GPU engines reached in the measurements that NVIDIA and Baichuan published for TensorRT-LLM
/// on H100 and H200: rounded so that predicted speed-ups stay near theirs (the tests of this module
/// hold them side by side). Engines that capture a step as one graph spend less on a layer.
const GPU: Attainable = Attainable {
    reading: ByWidth { sixteen: 0.85, eight: 0.85, four: 0.7 },
    bf16: 0.6,
    eight_bit: 0.5,
    unpacking: ByWidth { sixteen: 1.0, eight: 1.0, four: 0.75 },
    cache: 0.5,
    attention: 0.4,
    layer_seconds: 80e-6,
};

/// What this engine's own kernels reach (`bantam bench model` on two cores with AVX-512).
const CPU: Attainable = Attainable {
    reading: ByWidth { sixteen: 0.85, eight: 0.75, four: 0.6 },
    bf16: 0.75,
    eight_bit: 0.6,
    unpacking: ByWidth { sixteen: 1.0, eight: 0.95, four: 0.8 },
    cache: 0.5,
    attention: 0.5,
    layer_seconds: 0.0,
};

/// A GPU as its data sheet has it.
struct Published {
    name: &'static str,
    /// Memory in bytes. What data sheets call GB is nearer to GiB: an H200 of "141 GB" has 140.4 GiB.
    memory_bytes: u64,
    read_bytes_per_second: f64,
    peaks: Peaks,
}

const HOPPER: Peaks = Peaks { bf16: 989.5e12, int8: 1979e12, fp8: Some(1979e12) };

/// Source: NVIDIA's data sheets of the SXM modules; arithmetic without sparsity.
const GPUS: [Published; 3] = [
    Published {
        name: "h200",
        memory_bytes: 141 << 30,
        read_bytes_per_second: 4.8e12,
        peaks: HOPPER,
    },
    Published {
        name: "h100",
        memory_bytes: 80 << 30,
        read_bytes_per_second: 3.35e12,
        peaks: HOPPER,
    },
    Published {
        name: "a100",
        memory_bytes: 80 << 30,
        read_bytes_per_second: 2.039e12,
        peaks: Peaks { bf16: 312e12, int8: 624e12, fp8: None },
    },
];

impl Device {
    /// The names of the GPUs that [`gpu`](Self::gpu) knows.
    pub fn gpu_names() -> impl Iterator<Item = &'static str> {
        GPUS.iter().map(|gpu| gpu.name)
    }

    /// A GPU by its published figures. A twentieth of its memory stays free, for what no plan
    /// counts.
    ///
    /// ```
    /// use bantam_optimize::advice::Device;
    /// let a100 = Device::gpu("a100").unwrap();
    /// assert_eq!(a100.usable_bytes, Some(76 << 30));
    /// assert_eq!(a100.peaks.fp8, None);
    /// assert!(Device::gpu("abacus").is_none());
    /// ```
    #[must_use]
    pub fn gpu(name: &str) -> Option<Self> {
        let gpu = GPUS.iter().find(|gpu| gpu.name == name)?;
        Some(Self {
            name: gpu.name.to_owned(),
            usable_bytes: Some(gpu.memory_bytes - gpu.memory_bytes / 20),
            read_bytes_per_second: gpu.read_bytes_per_second,
            peaks: gpu.peaks,
            attainable: GPU,
            is_gpu: true,
        })
    }

    /// A CPU whose limits were measured.
    #[must_use]
    pub fn cpu(
        name: String,
        usable_bytes: Option<u64>,
        read_bytes_per_second: f64,
        peaks: Peaks,
    ) -> Self {
        Self { name, usable_bytes, read_bytes_per_second, peaks, attainable: CPU, is_gpu: false }
    }

    /// How it runs a linear layer.
    #[must_use]
    pub fn kernel(&self, scheme: QuantScheme) -> Kernel {
        let int4 = matches!(scheme.weight, WeightFormat::Int4 { .. });
        match scheme.activation {
            ActivationFormat::F32 | ActivationFormat::BF16 => Kernel::In(Arithmetic::Bf16),
            ActivationFormat::Int8 if int4 && self.is_gpu => Kernel::Missing(
                "GPU engines multiply INT4 weights by 16-bit or FP8 activations, not by INT8",
            ),
            ActivationFormat::Int8 => Kernel::In(Arithmetic::Int8),
            ActivationFormat::Fp8 | ActivationFormat::Fp8Blocks if self.peaks.fp8.is_some() => {
                Kernel::In(Arithmetic::Fp8)
            }
            ActivationFormat::Fp8 | ActivationFormat::Fp8Blocks if int4 && self.is_gpu => {
                Kernel::Missing("INT4 weights with FP8 activations need FP8 arithmetic")
            }
            ActivationFormat::Fp8 | ActivationFormat::Fp8Blocks => Kernel::Widened,
        }
    }

    /// Operations per second that products of a weight reach.
    pub(super) fn attained_ops(&self, arithmetic: Arithmetic, weight: WeightFormat) -> f64 {
        let Attainable { bf16, eight_bit, unpacking, .. } = self.attainable;
        let peak = match arithmetic {
            Arithmetic::Bf16 => bf16 * self.peaks.bf16,
            Arithmetic::Int8 => eight_bit * self.peaks.int8,
            Arithmetic::Fp8 => self.peaks.fp8.map_or(bf16 * self.peaks.bf16, |p| eight_bit * p),
        };
        peak * unpacking.of(weight)
    }

    /// Bytes per second at which a weight is read.
    pub(super) fn attained_bytes(&self, weight: WeightFormat) -> f64 {
        self.read_bytes_per_second * self.attainable.reading.of(weight)
    }
}
