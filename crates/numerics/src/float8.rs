//! The 8-bit floats of the OCP FP8 specification: E4M3FN and E5M2.
//!
//! Decoding is exact. Encoding rounds to nearest, ties to even, and saturates: a finite value never
//! becomes an infinity or NaN, because one such weight would silence a whole layer.

/// Largest finite E4M3 value.
pub const E4M3_MAX: f32 = 448.0;
/// Largest finite E5M2 value.
pub const E5M2_MAX: f32 = 57344.0;

/// What distinguishes one 8-bit float from another.
struct Format {
    mantissa_bits: u32,
    bias: i32,
    max: f32,
    nan: u8,
}

const E4M3: Format = Format { mantissa_bits: 3, bias: 7, max: E4M3_MAX, nan: 0x7f };
const E5M2: Format = Format { mantissa_bits: 2, bias: 15, max: E5M2_MAX, nan: 0x7f };

impl Format {
    fn decode_finite(&self, bits: u8) -> f32 {
        let mantissa = i32::from(bits) & ((1 << self.mantissa_bits) - 1);
        let exponent = i32::from(bits & 0x7f) >> self.mantissa_bits;
        let (significand, exponent) = if exponent == 0 {
            (mantissa, 1)
        } else {
            (mantissa | (1 << self.mantissa_bits), exponent)
        };
        let magnitude =
            significand as f32 * 2f32.powi(exponent - self.bias - self.mantissa_bits as i32);
        if bits & 0x80 != 0 { -magnitude } else { magnitude }
    }

    fn encode(&self, value: f32) -> u8 {
        let sign = if value.is_sign_negative() { 0x80 } else { 0 };
        if value.is_nan() {
            return sign | self.nan;
        }
        let magnitude = value.abs().min(self.max);
        let min_exponent = 1 - self.bias;
        // The exponent of the binade, but never below the subnormals' own.
        let exponent = ((magnitude.to_bits() >> 23) as i32 - 127).max(min_exponent);
        // 2^(exponent − mantissa bits), by its bits: `powi` would be most of the time.
        let unit = f32::from_bits(((exponent - self.mantissa_bits as i32 + 127) as u32) << 23);
        let steps = (magnitude / unit).round_ties_even() as u32;
        // `steps` carries into the next binade by itself: the code is linear in value per binade.
        let code = steps + (((exponent - min_exponent) as u32) << self.mantissa_bits);
        sign | code as u8
    }
}

/// The value of an E4M3FN code; 0x7f and 0xff are NaN.
///
/// ```
/// use bantam_numerics::float8::e4m3_to_f32;
/// assert_eq!(e4m3_to_f32(0x7e), 448.0);
/// assert_eq!(e4m3_to_f32(0x01), 2f32.powi(-9));
/// assert!(e4m3_to_f32(0x7f).is_nan());
/// ```
#[must_use]
pub fn e4m3_to_f32(bits: u8) -> f32 {
    if bits & 0x7f == 0x7f { f32::NAN } else { E4M3.decode_finite(bits) }
}

/// The E4M3FN code nearest to `value`, ties to even, saturating at ±448.
///
/// ```
/// use bantam_numerics::float8::f32_to_e4m3;
/// assert_eq!(f32_to_e4m3(1e9), 0x7e);
/// assert_eq!(f32_to_e4m3(1.0), 0x38);
/// ```
#[must_use]
pub fn f32_to_e4m3(value: f32) -> u8 {
    E4M3.encode(value)
}

/// The value of an E5M2 code; exponent 31 holds infinity and NaN as in binary16.
#[must_use]
pub fn e5m2_to_f32(bits: u8) -> f32 {
    match (bits >> 2 & 0x1f, bits & 3) {
        (0x1f, 0) if bits & 0x80 != 0 => f32::NEG_INFINITY,
        (0x1f, 0) => f32::INFINITY,
        (0x1f, _) => f32::NAN,
        _ => E5M2.decode_finite(bits),
    }
}

/// The E5M2 code nearest to `value`, ties to even, saturating at ±57344.
#[must_use]
pub fn f32_to_e5m2(value: f32) -> u8 {
    E5M2.encode(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Codec = (fn(u8) -> f32, fn(f32) -> u8);
    const CODECS: [Codec; 2] = [(e4m3_to_f32, f32_to_e4m3), (e5m2_to_f32, f32_to_e5m2)];

    #[test]
    fn every_finite_code_survives_a_round_trip() {
        for (decode, encode) in CODECS {
            for bits in 0..=255u8 {
                let value = decode(bits);
                if value.is_finite() {
                    assert_eq!(encode(value), bits, "code {bits:#x} value {value}");
                }
            }
        }
    }

    #[test]
    fn e5m2_is_truncated_half_precision() {
        for bits in 0..=255u8 {
            let half = half::f16::from_bits(u16::from(bits) << 8).to_f32();
            let ours = e5m2_to_f32(bits);
            assert!(half == ours || (half.is_nan() && ours.is_nan()), "{bits:#x}");
        }
    }

    proptest! {
        #[test]
        fn encoding_picks_the_nearest_code(value in -448f32..448.0, scale in -12i32..1) {
            let value = value * 2f32.powi(scale);
            for (decode, encode) in CODECS {
                let nearest = (0..=255u8)
                    .map(decode)
                    .filter(|code| code.is_finite())
                    .map(|code| (code - value).abs())
                    .fold(f32::INFINITY, f32::min);
                prop_assert_eq!((decode(encode(value)) - value).abs(), nearest);
            }
        }
    }
}
