//! What this machine can do at best, measured: the limits that speeds are a share of.

use crate::aligned::AlignedBytes;
use crate::cpu::Cpu;
use crate::simd::{Kernel, LANES, Simd};
use bantam_numerics::ActivationFormat;
use std::time::Instant;

/// Bytes that the bandwidth test reads in one pass: more than the caches of all but a few servers.
const READ_BYTES: usize = 512 << 20;
/// Bytes of one task.
const READ_TASK: usize = 1 << 20;
/// Passes of which the best counts.
const PASSES: usize = 15;

/// Read bandwidth of main memory with all threads, in bytes a second: the limit of decoding.
#[must_use]
pub fn read_bandwidth(cpu: &Cpu) -> f64 {
    let data = AlignedBytes::filled(READ_BYTES, 1);
    let seconds = best_of(|| {
        cpu.pool().run(READ_BYTES / READ_TASK, |_, task| {
            cpu.run(Read(&data.bytes()[task * READ_TASK..][..READ_TASK]));
        });
    });
    READ_BYTES as f64 / seconds
}

/// Peak arithmetic on activations of a format with all threads, in operations a second (a
/// multiplication and an addition are two): the limit of prefill. FP8 multiplies as bf16.
///
/// Nothing is loaded in the loop: it is what the multipliers can do.
#[must_use]
pub fn peak_ops(cpu: &Cpu, format: ActivationFormat) -> f64 {
    let tasks = 4 * cpu.threads();
    let seconds = best_of(|| cpu.pool().run(tasks, |_, _| cpu.run(Multiply(format))));
    let products_per_lane = match format {
        ActivationFormat::F32 => 1,
        ActivationFormat::BF16 | ActivationFormat::Fp8 | ActivationFormat::Fp8Blocks => 2,
        ActivationFormat::Int8 => 4,
    };
    let products = MULTIPLY_STEPS * LANES * products_per_lane;
    (tasks * products * 2) as f64 / seconds
}

/// Steps of the arithmetic test, each a multiplication and addition of all lanes.
const MULTIPLY_STEPS: usize = 12 << 17;

/// The shortest of some passes: other tenants of the machine only ever make one longer.
fn best_of(mut pass: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..PASSES {
        let start = Instant::now();
        pass();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

/// Reads whole cache lines into lanes and keeps their maximum alive.
struct Read<'a>(&'a [u8]);

impl Kernel for Read<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut at = self.0.as_ptr().cast::<f32>();
        // SAFETY: the slice is a whole number of groups of eight vectors.
        unsafe {
            let mut largest = [S::splat(0.0); 8];
            for _ in 0..self.0.len() / (8 * 4 * LANES) {
                for lanes in &mut largest {
                    *lanes = S::max(*lanes, S::load(at));
                    at = at.add(LANES);
                }
            }
            for lanes in largest {
                std::hint::black_box(S::largest(lanes));
            }
        }
    }
}

/// Multiplies and adds in registers.
struct Multiply(ActivationFormat);

impl Kernel for Multiply {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // As many independent sums as hide the latency and fit the registers.
        // SAFETY: the caller's.
        unsafe { if S::WIDE { self.sums::<S, 12>() } else { self.sums::<S, 4>() } }
    }
}

impl Multiply {
    #[inline(always)]
    unsafe fn sums<S: Simd, const SUMS: usize>(self) {
        // SAFETY: the array holds what is loaded.
        unsafe {
            let bits = std::hint::black_box([0u16; 2 * LANES]);
            let (w, x) = (S::pairs_bf16(bits.as_ptr()), S::splat_pair(bits.as_ptr()));
            let bytes = bits.as_ptr().cast::<u8>();
            let (quads, quad) = (S::quads_u8(bytes), S::splat_quad(bytes.cast()));
            let lanes = S::splat(std::hint::black_box(0.5));
            let mut sums = [S::splat(0.0); SUMS];
            match self.0 {
                ActivationFormat::F32 => {
                    for _ in 0..MULTIPLY_STEPS / SUMS {
                        for sum in &mut sums {
                            *sum = S::fma(lanes, lanes, *sum);
                        }
                    }
                }
                ActivationFormat::BF16 | ActivationFormat::Fp8 | ActivationFormat::Fp8Blocks => {
                    for _ in 0..MULTIPLY_STEPS / SUMS {
                        for sum in &mut sums {
                            *sum = S::dot(*sum, w, x);
                        }
                    }
                }
                ActivationFormat::Int8 => {
                    let mut integers = [S::splat_i32(0); SUMS];
                    for _ in 0..MULTIPLY_STEPS / SUMS {
                        for sum in &mut integers {
                            *sum = S::dot_i8(*sum, quads, quad);
                        }
                    }
                    for (sum, integer) in sums.iter_mut().zip(integers) {
                        *sum = S::to_f32(integer);
                    }
                }
            }
            for sum in sums {
                std::hint::black_box(S::sum(sum));
            }
        }
    }
}
