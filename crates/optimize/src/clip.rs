//! Clipping: group scales that give up a few large weights for finer steps on the others (AWQ's
//! second half, Lin et al. 2023, `auto_clip`).
//!
//! The references try ratios of a group's range and compare the group's share of the output on
//! sampled tokens. That share's error is `δ·H_gg·δᵀ`, H_gg being the group's block on the Gram
//! matrix's diagonal: all tokens count, and no data are needed.

use bantam_backend::Backend;
use bantam_numerics::{ActivationFormat, PackedWeight};
use rayon::prelude::*;

use crate::rounding::Step;
use crate::{Gram, OptimizeError, OutputError, Rounding, WeightMatrix};

/// Rows that are tried at a time: it bounds the memory for wide layers.
pub(crate) const ROWS: usize = 4096;

/// Rounds a weight with the clipping of each group that costs the outputs least.
///
/// Candidates are those of [`RangeRule::LeastSquares`](crate::RangeRule::LeastSquares); the
/// rounding's own rule is not used.
///
/// # Errors
/// If shapes differ, or the format has no scales or scales that span rows.
pub fn clip<B: Backend>(
    backend: &B,
    weight: WeightMatrix<'_>,
    gram: &Gram,
    rounding: Rounding,
    activation: ActivationFormat,
) -> Result<PackedWeight, OptimizeError> {
    let (n, k) = (weight.n(), weight.k());
    OptimizeError::check_length("the Gram matrix's diagonal", gram.k(), k)?;
    let grid = rounding.grid("clipping", k)?;
    let group = grid.block().columns.min(k);
    if grid.block().rows != 1 || !k.is_multiple_of(group) {
        return Err(OptimizeError::NoScales { algorithm: "clipping", format: rounding.format });
    }
    let groups = k / group;
    let mut steps = vec![grid.step_of(0.0, 0.0); n * groups];
    for g in 0..groups {
        let channels = g * group..(g + 1) * group;
        let mut error = OutputError::of_block(backend, gram.block(channels.start, group), group)?;
        for first in (0..n).step_by(ROWS) {
            let rows = first..n.min(first + ROWS);
            let candidates: Vec<Step> = rows
                .clone()
                .into_par_iter()
                .flat_map_iter(|row| grid.candidates(&weight.row(row)[channels.clone()]))
                .collect();
            let each = candidates.len() / rows.len();
            let deltas: Vec<f32> = candidates
                .par_iter()
                .enumerate()
                .flat_map_iter(|(i, &step)| {
                    let run = &weight.row(first + i / each)[channels.clone()];
                    run.iter().map(move |&value| grid.round(value, step) - value)
                })
                .collect();
            let errors = error.of_rows(&deltas)?;
            for (i, (errors, steps_of_row)) in
                errors.chunks_exact(each).zip(candidates.chunks_exact(each)).enumerate()
            {
                let trials = errors.iter().zip(steps_of_row);
                let best = trials.min_by(|(a, _), (b, _)| a.total_cmp(b));
                steps[(first + i) * groups + g] = *best.expect("a row has candidates").1;
            }
        }
    }
    Ok(grid.pack(weight, &steps, activation))
}
