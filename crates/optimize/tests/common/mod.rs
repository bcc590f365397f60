//! Weights and inputs as layers of transformers have them: heavy tails, loud channels, correlations.

#![allow(dead_code)] // each test file uses its part

pub(crate) mod models;

use bantam_backend::Backend;
use bantam_optimize::{InputStatistics, StatisticsCollector, StatisticsOptions};

/// A small generator of reproducible numbers (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Evenly in −1..1.
    pub(crate) fn even(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// About normal with deviation 1.
    pub(crate) fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.even()).sum::<f32>() * 0.5
    }

    pub(crate) fn weight(&mut self, n: usize, k: usize) -> Vec<f32> {
        (0..n * k).map(|_| 0.05 * self.normal()).collect()
    }

    /// `[tokens, k]`: neighbours are correlated, every 16th channel is loud.
    pub(crate) fn inputs(&mut self, tokens: usize, k: usize) -> Vec<f32> {
        let loud: Vec<f32> = (0..k).map(|c| if c % 16 == 5 { 12.0 } else { 1.0 }).collect();
        (0..tokens)
            .flat_map(|_| {
                let mut last = self.normal();
                (0..k)
                    .map(|c| {
                        last = 0.7 * last + 0.7 * self.normal();
                        last * loud[c]
                    })
                    .collect::<Vec<f32>>()
            })
            .collect()
    }
}

pub(crate) fn statistics<B: Backend>(backend: &B, x: &[f32], k: usize) -> InputStatistics {
    let options = StatisticsOptions::default();
    let mut collector = StatisticsCollector::new(backend, k, options).expect("a collector");
    for rows in x.chunks(37 * k) {
        collector.add(rows).expect("finite rows");
    }
    collector.finish().expect("statistics of tokens")
}

/// Mean over tokens and outputs of `(x·Δᵀ)²`, from the data.
pub(crate) fn error_on_data(delta: &[f32], x: &[f32], k: usize) -> f64 {
    let rows = delta.chunks_exact(k);
    let squares = rows.clone().flat_map(|d| {
        x.chunks_exact(k).map(move |x| {
            let y: f64 = d.iter().zip(x).map(|(&d, &x)| f64::from(d) * f64::from(x)).sum();
            y * y
        })
    });
    squares.sum::<f64>() / (rows.len() * (x.len() / k)) as f64
}
