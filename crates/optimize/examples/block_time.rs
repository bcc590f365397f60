//! Times of the algorithms on the sites of one SmolLM2-135M block.
//!
//! `cargo run --release -p bantam-optimize --example block_time`

use std::time::Instant;

use bantam_cpu::{Cpu, CpuOptions};
use bantam_numerics::{ActivationFormat, Group, WeightFormat};
use bantam_optimize::{
    AwqOptions, Rounding, StatisticsCollector, StatisticsOptions, WeightMatrix, awq,
    round_to_nearest,
};

/// Name, N, K.
const SITES: [(&str, usize, usize); 4] = [
    ("q, k, v", 960, 576),
    ("attention out", 576, 576),
    ("gate, up", 3072, 576),
    ("down", 576, 1536),
];
const TOKENS: usize = 16 * 1024;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cpu = Cpu::new(CpuOptions::default())?;
    let format = WeightFormat::Int4 { group: Group::Of(64), symmetric: true };
    let rounding = Rounding::new(format);
    let mut total = 0.0;
    for (name, n, k) in SITES {
        let mut state = 1u32;
        let mut numbers = |count: usize, scale: f32| -> Vec<f32> {
            let next = |_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * scale
            };
            (0..count).map(next).collect()
        };
        let (values, x) = (numbers(n * k, 0.1), numbers(TOKENS * k, 2.0));
        let weight = WeightMatrix::new(&values, n, k)?;
        println!("{name} [{n}, {k}]");
        let mut timed = |what: &str, start: Instant| {
            let seconds = start.elapsed().as_secs_f64();
            println!("  {what:<28} {:7.1} ms", 1e3 * seconds);
            total += seconds;
        };

        let start = Instant::now();
        let mut collector = StatisticsCollector::new(&cpu, k, StatisticsOptions::default())?;
        for rows in x.chunks(2048 * k) {
            collector.add(rows)?;
        }
        let statistics = collector.finish()?;
        timed("statistics of 16,384 tokens", start);

        let start = Instant::now();
        let diagonal = statistics.gram()?.diagonal();
        round_to_nearest(weight, rounding, ActivationFormat::BF16, Some(&diagonal))?;
        timed("rounding to nearest", start);

        let start = Instant::now();
        awq(&cpu, weight, &statistics, &AwqOptions::new(rounding))?;
        timed("AWQ", start);
    }
    println!("the block: {total:.2} s");
    Ok(())
}
