//! Scales as tensors.

use bantam_numerics::DType;
use half::{bf16, f16};

use super::OwnedTensor;

/// Scales in the narrowest type that holds each of them exactly: bf16 or f16, else f32.
pub(super) fn exact_tensor(name: String, shape: &[usize], values: &[f32]) -> OwnedTensor {
    if values.iter().all(|&v| bf16::from_f32(v).to_f32() == v) {
        let bytes = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
        return OwnedTensor { name, dtype: DType::BF16, shape: shape.to_vec(), bytes };
    }
    if values.iter().all(|&v| f16::from_f32(v).to_f32() == v) {
        let bytes = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
        return OwnedTensor { name, dtype: DType::F16, shape: shape.to_vec(), bytes };
    }
    f32_tensor(name, shape, values)
}

/// Numbers as they are.
pub(super) fn f32_tensor(name: String, shape: &[usize], values: &[f32]) -> OwnedTensor {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    OwnedTensor { name, dtype: DType::F32, shape: shape.to_vec(), bytes }
}
