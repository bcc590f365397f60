//! What this machine can do at best, measured: the limits that speeds are a share of.

use crate::aligned::AlignedBytes;
use crate::backend::Cpu;
use crate::panels::{Bf16Panel, F32Panel, Panel, accumulate};
use crate::simd::{Kernel, LANES, Simd};
use bantam_numerics::ActivationFormat;
use std::time::Instant;

/// Bytes that the bandwidth test reads in one pass: far more than any cache.
const READ_BYTES: usize = 256 << 20;
/// Bytes of one task.
const READ_TASK: usize = 1 << 20;
/// Passes of which the median counts.
const PASSES: usize = 7;

/// Read bandwidth of main memory with all threads, in bytes a second: the limit of decoding.
#[must_use]
pub fn read_bandwidth(cpu: &Cpu) -> f64 {
    let data = AlignedBytes::filled(READ_BYTES, 1);
    let seconds = median(|| {
        cpu.pool().run(READ_BYTES / READ_TASK, |_, task| {
            cpu.run(Read(&data.bytes()[task * READ_TASK..][..READ_TASK]));
        });
    });
    READ_BYTES as f64 / seconds
}

/// Peak arithmetic of the inner loop with all threads, in floating-point operations a second
/// (a multiplication and an addition are two): the limit of prefill.
#[must_use]
pub fn peak_flops(cpu: &Cpu, format: ActivationFormat) -> f64 {
    let tasks = 4 * cpu.threads();
    let seconds = median(|| {
        cpu.pool().run(tasks, |_, _| match format {
            ActivationFormat::F32 => cpu.run(Multiply::<f32>(&[0.0; 6 * MULTIPLY_K])),
            ActivationFormat::BF16 => cpu.run(Multiply::<u16>(&[0; 6 * MULTIPLY_K])),
        });
    });
    (tasks * MULTIPLY_REPEATS * 2 * 6 * MULTIPLY_K * 2 * LANES) as f64 / seconds
}

/// k of the arithmetic test; everything it reads stays in the first-level cache.
const MULTIPLY_K: usize = 64;
const MULTIPLY_REPEATS: usize = 4096;

fn median(mut pass: impl FnMut()) -> f64 {
    pass();
    let mut seconds: Vec<f64> = (0..PASSES)
        .map(|_| {
            let start = Instant::now();
            pass();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[PASSES / 2]
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

/// Multiplies six rows with two panels, again and again.
struct Multiply<'a, E>(&'a [E; 6 * MULTIPLY_K]);

impl Kernel for Multiply<'_, f32> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the array holds six rows.
        unsafe { multiply::<S, F32Panel>(self.0.as_ptr()) }
    }
}

impl Kernel for Multiply<'_, u16> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the array holds six rows.
        unsafe { multiply::<S, Bf16Panel>(self.0.as_ptr()) }
    }
}

#[inline(always)]
unsafe fn multiply<S: Simd, P: Panel<S>>(x: *const P::Element) {
    let panels = AlignedBytes::filled(2 * MULTIPLY_K / 4 * P::QUAD_BYTES, 0);
    // SAFETY: six rows of x and two panels of MULTIPLY_K.
    unsafe {
        let mut rows = [x; 6];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = x.add(r * MULTIPLY_K);
        }
        let first = panels.as_ptr();
        let second = first.add(MULTIPLY_K / 4 * P::QUAD_BYTES);
        for _ in 0..MULTIPLY_REPEATS {
            let pointers = std::hint::black_box([first, second]);
            let mut acc = [[S::splat(0.0); 2]; 6];
            accumulate::<S, P, 6, 2>(&mut acc, rows, pointers, 0..MULTIPLY_K / 4);
            std::hint::black_box(&mut acc);
        }
    }
}
