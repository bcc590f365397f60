//! GPTQ: weights rounded one by one, each error made good by the weights that follow (Frantar et al.
//! 2022, algorithm 1), with the order of columns and the static groups of later practice.

use bantam_backend::{LinearInput, QuantizedLinear};
use bantam_numerics::{ActivationFormat, QuantizeError};
use rayon::prelude::*;

use crate::feedback::Feedback;
use crate::rounding::{Grid, Step};
use crate::{Gram, OptimizeError, Rounding, WeightMatrix};

/// In which order columns are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnOrder {
    /// As they are stored.
    Stored,
    /// Those with the largest inputs first, while there are many weights left to make their errors
    /// good (`desc_act`, act-order).
    Activation,
}

/// When the scales of groups are fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupScales {
    /// Before the first column is rounded, to groups of neighbours as stored: no cost at run time,
    /// whatever the order.
    Static,
    /// When a group's first column is reached, to its weights as changed by then. With
    /// [`ColumnOrder::Activation`] a group is then not of neighbours, so columns are stored in that
    /// order and the layer's input must be sorted alike.
    Dynamic,
}

/// How to run GPTQ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GptqOptions {
    /// How weights are rounded.
    pub rounding: Rounding,
    /// Added to the diagonal, as a share of its mean; raised where the matrix needs more.
    pub damping: f64,
    /// In which order.
    pub order: ColumnOrder,
    /// Fitted when.
    pub groups: GroupScales,
}

impl GptqOptions {
    /// Activation order with static groups, a damping of 0.01.
    #[must_use]
    pub const fn new(rounding: Rounding) -> Self {
        let (order, groups) = (ColumnOrder::Activation, GroupScales::Static);
        Self { rounding, damping: 0.01, order, groups }
    }
}

/// What GPTQ made.
#[derive(Clone, Debug, PartialEq)]
pub struct Gptq {
    /// The weight, and the order of its input where that is not as stored.
    pub linear: QuantizedLinear,
    /// The damping it took, as a share of the mean of the diagonal.
    pub damping: f64,
    /// Channels that no calibration input reached; they are rounded to nearest.
    pub dead_channels: usize,
}

/// Columns whose errors reach later blocks together.
const BLOCK: usize = 128;
/// Rows that share a pass over a block of the feedback matrix.
const ROWS: usize = 16;

/// Rounds a weight by GPTQ.
///
/// Channels that no input reached keep their weights, where the paper sets them to zero: what 128
/// samples do not reach, a user's prompt may.
///
/// # Errors
/// If shapes differ, the format has no scales, dynamic scales are asked of a format whose scales
/// span rows, or the matrix is indefinite beyond repair.
///
/// ```
/// use bantam_backend::reference::Reference;
/// use bantam_numerics::{ActivationFormat, Group, WeightFormat};
/// use bantam_optimize::{
///     Gram, GptqOptions, OutputError, Rounding, WeightMatrix, gptq, round_to_nearest,
/// };
/// // Two channels that almost always agree.
/// let gram = Gram::new(vec![1.0, 0.98, 0.98, 1.0], 2)?;
/// let weight = WeightMatrix::new(&[7.0, 2.4], 1, 2)?;
/// let format = WeightFormat::Int4 { group: Group::PerChannel, symmetric: true };
/// let options = GptqOptions::new(Rounding::new(format));
/// let made = gptq(weight, &gram, &options, ActivationFormat::BF16)?;
/// let nearest =
///     round_to_nearest(weight, options.rounding, ActivationFormat::BF16, Some(&gram.diagonal()))?;
/// let mut error = OutputError::new(&Reference, &gram)?;
/// let changed = [&*made.linear.weight.decode(), &*nearest.decode()];
/// let [of_gptq, of_nearest] = error.relative(weight, changed)?;
/// assert!(of_gptq <= of_nearest);
/// # Ok::<(), bantam_optimize::OptimizeError>(())
/// ```
pub fn gptq(
    weight: WeightMatrix<'_>,
    gram: &Gram,
    options: &GptqOptions,
    activation: ActivationFormat,
) -> Result<Gptq, OptimizeError> {
    let k = weight.k();
    OptimizeError::check_length("the Gram matrix's diagonal", gram.k(), k)?;
    OptimizeError::check_range("damping", options.damping, 0.0..=1.0)?;
    let grid = options.rounding.grid("GPTQ", k)?;
    let diagonal = gram.diagonal();
    let mut order: Vec<u32> = (0..k as u32).collect();
    if options.order == ColumnOrder::Activation {
        order.sort_by(|&a, &b| diagonal[b as usize].total_cmp(&diagonal[a as usize]));
    }
    let feedback = Feedback::new(gram, &order, options.damping)?;
    let dead_channels = diagonal.iter().filter(|&&h| h <= 0.0).count();
    let damping = feedback.damping;
    let columns = Columns { weight, grid, order, feedback };
    let (weight, order) = match options.groups {
        GroupScales::Static => {
            let steps = grid.fit(weight, Some(&columns.costs_as_stored()));
            let values = columns.round(&steps);
            (grid.pack(WeightMatrix::new(&values, weight.n(), k)?, &steps, activation), None)
        }
        GroupScales::Dynamic => {
            let group = grid.block();
            if group.rows != 1 || !k.is_multiple_of(group.columns.min(k)) {
                return Err(QuantizeError::Group { k, group: group.columns.min(k) }.into());
            }
            let (values, steps) = columns.round_and_fit();
            let packed = grid.pack(WeightMatrix::new(&values, weight.n(), k)?, &steps, activation);
            (packed, (options.order == ColumnOrder::Activation).then_some(columns.order))
        }
    };
    let input = LinearInput { order, ..LinearInput::new(activation) };
    Ok(Gptq { linear: QuantizedLinear { weight, input }, damping, dead_channels })
}

/// A weight whose columns are rounded one after the other.
struct Columns<'a> {
    weight: WeightMatrix<'a>,
    grid: Grid,
    /// The channel that is rounded as number i.
    order: Vec<u32>,
    feedback: Feedback,
}

impl Columns<'_> {
    /// What an error in each channel costs in the end, `[K]`: the weights that static scales are
    /// fitted by. They measure better than the diagonal of the Gram matrix, by up to an eighth.
    fn costs_as_stored(&self) -> Vec<f32> {
        let mut costs = vec![0.0; self.order.len()];
        for (&channel, &cost) in self.order.iter().zip(&self.feedback.costs) {
            costs[channel as usize] = cost;
        }
        costs
    }

    /// Rounds with known scales; `[N, K]` with columns as stored.
    fn round(&self, steps: &[Step]) -> Vec<f32> {
        let (n, k) = (self.weight.n(), self.weight.k());
        let mut values = vec![0f32; n * k];
        values.par_chunks_mut(ROWS * k).enumerate().for_each(|(tile, values)| {
            let first = tile * ROWS;
            let rounded = self.round_rows(first, values.len() / k, BLOCK, |r, i, target| {
                let channel = self.order[i] as usize;
                self.grid.round(target[i], self.grid.step_at(steps, (n, k), first + r, channel))
            });
            for (values, rounded) in values.chunks_exact_mut(k).zip(rounded.chunks_exact(k)) {
                for (&channel, &value) in self.order.iter().zip(rounded) {
                    values[channel as usize] = value;
                }
            }
        });
        values
    }

    /// Fits the scales of each group when it is reached; `[N, K]` with columns in the order of
    /// rounding, and their scales.
    fn round_and_fit(&self) -> (Vec<f32>, Vec<Step>) {
        let (n, k) = (self.weight.n(), self.weight.k());
        let group = self.grid.block().columns.min(k);
        let block = BLOCK.next_multiple_of(group);
        let tiles: Vec<(Vec<f32>, Vec<Step>)> = (0..n.div_ceil(ROWS))
            .into_par_iter()
            .map(|tile| {
                let first = tile * ROWS;
                let rows = ROWS.min(n - first);
                // One list for each row; a row's groups come one after the other.
                let mut steps = vec![Vec::new(); rows];
                let values = self.round_rows(first, rows, block, |r, i, target| {
                    if i.is_multiple_of(group) {
                        let run = std::iter::once((i, &target[i..i + group]));
                        steps[r].push(self.grid.fit_block(run, &self.feedback.costs));
                    }
                    let step = steps[r].last().expect("the first column begins a group");
                    self.grid.round(target[i], *step)
                });
                (values, steps.concat())
            })
            .collect();
        let (values, steps): (Vec<_>, Vec<_>) = tiles.into_iter().unzip();
        (values.concat(), steps.concat())
    }

    /// Rounds a few rows; `round(row, i, targets)` gives the value of column number i, when all
    /// targets up to the end of its block are known. Columns are in the order of rounding.
    fn round_rows(
        &self,
        first: usize,
        rows: usize,
        block: usize,
        mut round: impl FnMut(usize, usize, &[f32]) -> f32,
    ) -> Vec<f32> {
        let k = self.weight.k();
        let sorted = |row: usize| {
            let row = self.weight.row(row);
            self.order.iter().map(|&channel| row[channel as usize])
        };
        let original: Vec<f32> = (first..first + rows).flat_map(sorted).collect();
        let mut targets = original.clone();
        let mut rounded = vec![0f32; rows * k];
        let mut errors = vec![0f32; block];
        for start in (0..k).step_by(block) {
            let end = k.min(start + block);
            for r in 0..rows {
                let row = r * k..(r + 1) * k;
                let (original, target) = (&original[row.clone()], &mut targets[row.clone()]);
                let rounded = &mut rounded[row];
                for i in start..end {
                    rounded[i] = round(r, i, target);
                    errors[i - start] = original[i] - rounded[i];
                    let later = i + 1..end;
                    add_scaled(
                        &mut target[later.clone()],
                        errors[i - start],
                        self.feedback.of(i, later),
                    );
                }
                // What the block's errors ask of all columns after it, four errors a pass.
                let later = &mut target[end..];
                for (i, errors) in (start..end).step_by(4).zip(errors[..end - start].chunks(4)) {
                    if let &[a, b, c, d] = errors {
                        let of = |j: usize| self.feedback.of(i + j, end..k);
                        let ratios = of(0).iter().zip(of(1)).zip(of(2)).zip(of(3));
                        for (target, (((p, q), r), s)) in later.iter_mut().zip(ratios) {
                            *target += a * p + b * q + (c * r + d * s);
                        }
                    } else {
                        for (j, &error) in errors.iter().enumerate() {
                            add_scaled(later, error, self.feedback.of(i + j, end..k));
                        }
                    }
                }
            }
        }
        rounded
    }
}

/// `to += factor·from`.
fn add_scaled(to: &mut [f32], factor: f32, from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
}
