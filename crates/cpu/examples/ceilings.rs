//! Prints what this machine can do at best, for each instruction set it has:
//! `cargo run --release -p bantam-cpu --example ceilings`.

use bantam_backend::Backend;
use bantam_cpu::{Cpu, CpuOptions, Isa, ceilings};
use bantam_numerics::ActivationFormat;

fn main() -> Result<(), bantam_cpu::CpuError> {
    for isa in Isa::available() {
        let cpu = Cpu::new(CpuOptions { isa: Some(isa), ..CpuOptions::default() })?;
        println!(
            "{:28} {:6.1} GB/s read, {:6.1} Gop/s f32, {:6.1} Gop/s bf16, {:6.1} Gop/s int8",
            cpu.describe(),
            ceilings::read_bandwidth(&cpu) / 1e9,
            ceilings::peak_ops(&cpu, ActivationFormat::F32) / 1e9,
            ceilings::peak_ops(&cpu, ActivationFormat::BF16) / 1e9,
            ceilings::peak_ops(&cpu, ActivationFormat::Int8) / 1e9,
        );
    }
    Ok(())
}
