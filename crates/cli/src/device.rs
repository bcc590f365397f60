//! The device that models run on: the one place that names it.

use bantam_cpu::{Cpu, CpuOptions};

/// The back end of this binary.
pub(crate) type Device = Cpu;

/// Opens it with so many threads; none for one on each core.
pub(crate) fn open(threads: Option<usize>) -> anyhow::Result<Device> {
    Ok(Cpu::new(CpuOptions { threads, isa: None })?)
}
