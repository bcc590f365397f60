//! The CPU back end.
//!
//! [`Cpu`] implements the seam. Its kernels are written once over sixteen lanes (`simd`) and
//! compiled for AVX-512, AVX2 and plain Rust; the best set that the machine has is chosen when the
//! back end is made, so one binary serves every x86-64 (and any other) processor.
//!
//! The heart is one inner loop (`panels`): rows of activations against panels of sixteen columns.
//! Weights are repacked into panels at load (`layout`), and the key/value cache is written as panels
//! (`cache`), so that linear layers (`gemm`) and attention (`attention`) are the same loop.
#![allow(unsafe_code)] // kernels: every block says why it is sound

mod aligned;
mod attention;
mod backend;
mod cache;
pub mod ceilings;
mod cpu;
mod element;
mod gemm;
mod layout;
mod leave;
mod panels;
mod pool;
mod rowwise;
mod simd;
mod tensor;

pub use cache::CpuCache;
pub use cpu::{Cpu, CpuError, CpuOptions};
pub use layout::CpuWeight;
pub use simd::{Isa, UnknownIsa};
pub use tensor::{CpuOperand, CpuTensor};
