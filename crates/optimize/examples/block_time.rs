//! Times of the algorithms on the sites of one SmolLM2-135M block.
//!
//! `cargo run --release -p bantam-optimize --example block_time`

use std::time::Instant;

use bantam_cpu::{Cpu, CpuOptions};
use bantam_numerics::{ActivationFormat, Group, WeightFormat};
use bantam_optimize::{
    AwqOptions, GptqOptions, Rounding, SmoothQuantOptions, StatisticsCollector, StatisticsOptions,
    WeightMatrix, awq, clip, gptq, round_to_nearest, smoothquant,
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
    let activation = ActivationFormat::BF16;
    let format = WeightFormat::Int4 { group: Group::Of(64), symmetric: true };
    let rounding = Rounding::new(format);
    println!("{:<20}statistics  nearest      AWQ     clip     GPTQ  SmoothQuant  [ms]", "");
    let mut totals = [0.0; 6];
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

        let mut times = [0.0; 6];
        let start = Instant::now();
        let mut collector = StatisticsCollector::new(&cpu, k, StatisticsOptions::default())?;
        for rows in x.chunks(2048 * k) {
            collector.add(rows)?;
        }
        let statistics = collector.finish()?;
        times[0] = start.elapsed().as_secs_f64();
        let gram = statistics.gram()?;

        let start = Instant::now();
        round_to_nearest(weight, rounding, activation, Some(&gram.diagonal()))?;
        times[1] = start.elapsed().as_secs_f64();

        let start = Instant::now();
        awq(&cpu, weight, &statistics, &AwqOptions::new(rounding))?;
        times[2] = start.elapsed().as_secs_f64();

        let start = Instant::now();
        clip(&cpu, weight, gram, rounding, activation)?;
        times[3] = start.elapsed().as_secs_f64();

        let start = Instant::now();
        gptq(weight, gram, &GptqOptions::new(rounding), activation)?;
        times[4] = start.elapsed().as_secs_f64();

        let start = Instant::now();
        smoothquant(&cpu, weight, &statistics, &SmoothQuantOptions::default())?;
        times[5] = start.elapsed().as_secs_f64();

        print_row(&format!("{name} [{n}, {k}]"), times);
        totals.iter_mut().zip(times).for_each(|(total, time)| *total += time);
    }
    print_row("the block", totals);
    Ok(())
}

fn print_row(name: &str, seconds: [f64; 6]) {
    let [statistics, nearest, awq, clip, gptq, smoothquant] = seconds.map(|s| 1e3 * s);
    println!(
        "{name:<20}{statistics:>10.0} {nearest:>8.0} {awq:>8.0} {clip:>8.0} {gptq:>8.0} {smoothquant:>12.0}"
    );
}
