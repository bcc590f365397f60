//! Every instruction set does the same.

use super::*;

struct ExpOf<'a>(&'a mut [f32; LANES]);

impl Kernel for ExpOf<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the array has 16 elements.
        unsafe { S::store(self.0.as_mut_ptr(), S::exp(S::load(self.0.as_ptr()))) }
    }
}

#[test]
fn exp_is_accurate_on_every_isa() {
    for isa in Isa::available() {
        for step in 0..4000 {
            let mut x = [0.0; LANES];
            for (i, x) in x.iter_mut().enumerate() {
                *x = -87.0 + (step * LANES + i) as f32 * (175.0 / 64000.0);
            }
            let mut got = x;
            isa.run(ExpOf(&mut got));
            for (x, got) in x.into_iter().zip(got) {
                let want = f64::from(x).exp();
                let error = (f64::from(got) - want).abs() / want;
                assert!(error < 2.5e-7, "{isa}: exp({x}) = {got}, expected {want}");
            }
        }
        let mut special = [f32::NEG_INFINITY; LANES];
        isa.run(ExpOf(&mut special));
        assert_eq!(special, [0.0; LANES], "{isa}");
    }
}

/// What a kernel reads in `Primitives`, and where it writes.
struct Primitives<'a> {
    bytes: &'a [u8; 64],
    x: [u16; 2],
    out: &'a mut [[f32; LANES]; 7],
    stored: &'a mut [u16; LANES],
}

impl Kernel for Primitives<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let p = self.bytes.as_ptr();
        // SAFETY: every read below stays within 64 bytes, every write within its array.
        unsafe {
            let x = S::splat_pair(self.x.as_ptr());
            let zero = S::splat(0.0);
            let [low, high] = S::pairs_i4(p);
            let rows = [
                S::dot(zero, S::pairs_bf16(p.cast()), x),
                S::dot(zero, S::pairs_i8(p.cast()), x),
                S::dot(zero, low, x),
                S::dot(zero, high, x),
                S::load_f16(p.cast()),
                S::round(S::mul(S::load_f16(p.cast()), S::splat(3.0))),
                S::dot(zero, S::pairs_e4m3(p), x),
            ];
            for (out, row) in self.out.iter_mut().zip(rows) {
                S::store(out.as_mut_ptr(), row);
            }
            S::store_bf16(self.stored.as_mut_ptr(), rows[4]);
        }
    }
}

struct E4m3<'a>(&'a [u8; 32], &'a mut [u16; 32]);

impl Kernel for E4m3<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: both arrays hold 32 elements.
        unsafe { S::store_pairs(self.1.as_mut_ptr(), S::pairs_e4m3(self.0.as_ptr())) }
    }
}

#[test]
fn every_e4m3_code_is_widened_exactly() {
    for isa in Isa::available() {
        for first in (0..=255u8).step_by(32) {
            let codes: [u8; 32] = std::array::from_fn(|i| first + i as u8);
            let mut out = [0; 32];
            isa.run(E4m3(&codes, &mut out));
            for (code, bits) in codes.into_iter().zip(out) {
                let want = bantam_numerics::float8::e4m3_to_f32(code);
                let got = half::bf16::from_bits(bits).to_f32();
                let nan = want.is_nan() && got.abs() == 480.0;
                assert!(got == want || nan, "{isa}: code {code:#x} is {got}, not {want}");
            }
        }
    }
}

#[test]
fn every_isa_reads_panels_alike() {
    // Small finite bf16 and f16 patterns: high bytes 0x3c..0x40, arbitrary low bytes.
    let mut bytes = [0u8; 64];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = if i % 2 == 1 { 0x3c + (i / 2 % 4) as u8 } else { (i * 37 % 251) as u8 };
    }
    let x = [half::bf16::from_f32(1.5).to_bits(), half::bf16::from_f32(-0.25).to_bits()];
    let bf16_at = |i: usize| {
        half::bf16::from_bits(u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])).to_f32()
    };
    let i4_at = |i: usize, shift: u32| f32::from(bytes[i] >> shift & 0xf) - 8.0;
    let pair = |f: &dyn Fn(usize) -> f32, n: usize| f(2 * n) * 1.5 + f(2 * n + 1) * -0.25;
    for isa in Isa::available() {
        let mut out = [[0.0; LANES]; 7];
        let mut stored = [0u16; LANES];
        isa.run(Primitives { bytes: &bytes, x, out: &mut out, stored: &mut stored });
        for n in 0..LANES {
            let f16 = half::f16::from_bits(u16::from_le_bytes([bytes[2 * n], bytes[2 * n + 1]]));
            let want = [
                pair(&bf16_at, n),
                pair(&|i| f32::from(bytes[i] as i8), n),
                pair(&|i| i4_at(i, 0), n),
                pair(&|i| i4_at(i, 4), n),
                f16.to_f32(),
                (f16.to_f32() * 3.0).round_ties_even(),
                pair(&|i| bantam_numerics::float8::e4m3_to_f32(bytes[i]), n),
            ];
            for (row, want) in want.into_iter().enumerate() {
                let got = out[row][n];
                assert!(
                    (got - want).abs() <= want.abs() * 1e-6,
                    "{isa} row {row} lane {n}: {got} instead of {want}"
                );
            }
            assert_eq!(stored[n], half::bf16::from_f32(f16.to_f32()).to_bits(), "{isa}");
        }
    }
}

/// Integer products of one panel quad in both packings, and what rows are left as.
struct Integers<'a> {
    bytes: &'a [u8; 64],
    x: [i8; 4],
    /// Of whole bytes, then of nibbles.
    dots: &'a mut [[f32; LANES]; 2],
    unpacked: &'a mut [u8; 64],
    values: &'a [f32; LANES],
    codes: &'a mut [i8; LANES],
    powers: &'a mut [f32; LANES],
}

impl Kernel for Integers<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: all arrays hold as many elements as are read and written.
        unsafe {
            let (from, x) = (self.bytes.as_ptr(), S::splat_quad(self.x.as_ptr()));
            let start = S::splat_i32(-1000);
            let dots = [S::quads_u8(from), S::quads_u4(from)].map(|w| S::dot_i8(start, w, x));
            for (out, dot) in self.dots.iter_mut().zip(dots) {
                S::store(out.as_mut_ptr(), S::to_f32(dot));
            }
            S::store_quads(self.unpacked.as_mut_ptr(), S::quads_u4(from));
            let values = S::load(self.values.as_ptr());
            S::store_i8(self.codes.as_mut_ptr(), values);
            S::store(self.powers.as_mut_ptr(), S::power_below(values));
        }
    }
}

#[test]
fn every_isa_multiplies_integers_exactly() {
    let patterns: [&dyn Fn(usize) -> u8; 3] = [&|i| (i * 37 % 251) as u8, &|_| 255, &|_| 0];
    let quads = [[127, -128, 5, -77], [127; 4], [-128; 4]];
    for (isa, pattern) in Isa::available().iter().flat_map(|isa| patterns.map(|p| (isa, p))) {
        for x in quads {
            let bytes: [u8; 64] = std::array::from_fn(pattern);
            let values = std::array::from_fn(|i| (i as f32 - 8.5) * 15.0);
            let (mut dots, mut unpacked) = ([[0.0; LANES]; 2], [0; 64]);
            let (mut codes, mut powers) = ([0; LANES], [0.0; LANES]);
            isa.run(Integers {
                bytes: &bytes,
                x,
                dots: &mut dots,
                unpacked: &mut unpacked,
                values: &values,
                codes: &mut codes,
                powers: &mut powers,
            });
            for n in 0..LANES {
                let dot = |w: &[u8]| -> i32 {
                    w.iter().zip(x).map(|(&w, x)| i32::from(w) * i32::from(x)).sum()
                };
                let nibbles = [0, 1].map(|j| bytes[2 * n + j]).map(|b| [b & 0xf, b >> 4]);
                assert_eq!(dots[0][n], (dot(&bytes[4 * n..][..4]) - 1000) as f32, "{isa}");
                assert_eq!(dots[1][n], (dot(nibbles.as_flattened()) - 1000) as f32, "{isa}");
                assert_eq!(unpacked[4 * n..][..4], *nibbles.as_flattened(), "{isa}");
                assert_eq!(codes[n], values[n].round_ties_even() as i8, "{isa}");
                let power = values[n].abs().log2().floor().exp2();
                assert_eq!(powers[n], power, "{isa}: {}", values[n]);
            }
        }
    }
}
