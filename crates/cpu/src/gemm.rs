//! Linear layers: `out = x·Wᵀ + b` for any number of rows and any panel format.
//!
//! Few rows read the packed weights once and widen them in registers: the speed of memory. Many
//! rows widen two panels into a scratch buffer first and then run the bf16 tile over them: the
//! speed of arithmetic. Both do the same sums in the same order.

use crate::layout::{CpuWeight, PanelFormat, QUAD};
use crate::panels::{Bf16Panel, F32Panel, Int4Panel, Int8Panel, Panel, accumulate, widen};
use crate::simd::{Kernel, LANES, Simd};
use std::ops::Range;

/// Rows that stay in the cache while the panels of a task pass by.
const ROW_BLOCK: usize = 96;
/// From this many rows on, integer panels are widened once instead of once a tile.
const WIDEN_ROWS: usize = 8;
/// Panels that are widened together.
const WIDENED_PANELS: usize = 2;

/// x as linear layers read it: rows of f32 or bf16, zero-padded to whole quads.
#[derive(Clone, Copy)]
pub(crate) enum Input<'a> {
    F32(&'a [f32]),
    Bf16(&'a [u16]),
}

/// Where results go, `[rows, columns]`. Tasks write disjoint columns.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) values: *mut f32,
    pub(crate) columns: usize,
    /// Whether to add to what is there.
    pub(crate) add: bool,
}

/// One task of a linear layer: all rows against a range of panels.
pub(crate) struct Gemm<'a> {
    pub(crate) input: Input<'a>,
    /// Elements from one row of x to the next.
    pub(crate) stride: usize,
    pub(crate) rows: usize,
    pub(crate) weight: &'a CpuWeight,
    pub(crate) panels: Range<usize>,
    /// Σx of each group, `[rows, groups]`; needed where the weight has offsets.
    pub(crate) group_sums: &'a [f32],
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) output: Output,
    /// For widened panels; see [`scratch_len`].
    pub(crate) scratch: &'a mut [u16],
}

/// Scratch elements that a task needs.
pub(crate) fn scratch_len(weight: &CpuWeight, rows: usize) -> usize {
    let integer = matches!(weight.format, PanelFormat::Int8 | PanelFormat::Int4);
    if integer && rows >= WIDEN_ROWS { WIDENED_PANELS * weight.quads() * QUAD * LANES } else { 0 }
}

impl Kernel for Gemm<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        // SAFETY: `Isa::run` is our caller, and the fields describe real memory.
        unsafe {
            match (self.weight.format, self.input) {
                (PanelFormat::F32, Input::F32(x)) => self.direct::<S, F32Panel>(x.as_ptr()),
                (PanelFormat::Bf16, Input::Bf16(x)) => self.direct::<S, Bf16Panel>(x.as_ptr()),
                (PanelFormat::Int8, Input::Bf16(x)) => self.widening::<S, Int8Panel>(x.as_ptr()),
                (PanelFormat::Int4, Input::Bf16(x)) => self.widening::<S, Int4Panel>(x.as_ptr()),
                _ => unreachable!("the back end compares operand and weight formats"),
            }
        }
    }
}

impl Gemm<'_> {
    #[inline(always)]
    unsafe fn direct<S: Simd, P: Panel<S>>(&self, x: *const P::Element) {
        let first = self.weight.data.as_ptr();
        let bytes = self.weight.panel_bytes();
        for start in (0..self.rows).step_by(ROW_BLOCK) {
            let rows = start..self.rows.min(start + ROW_BLOCK);
            // SAFETY: panel p starts p·bytes into the weight.
            let at = |panel: usize| unsafe { first.add(panel * bytes) };
            unsafe { self.block::<S, P>(x, rows, self.panels.clone(), at) };
        }
    }

    #[inline(always)]
    unsafe fn widening<S: Simd, P>(&mut self, x: *const u16)
    where
        P: Panel<S, Element = u16, Weights = [S::Pairs; 2], Inputs = [S::Pair; 2]>,
    {
        if self.rows < WIDEN_ROWS {
            // SAFETY: as for `run`.
            return unsafe { self.direct::<S, P>(x) };
        }
        let quads = self.weight.quads();
        let panel_len = quads * QUAD * LANES;
        assert!(self.scratch.len() >= WIDENED_PANELS * panel_len, "scratch for widened panels");
        let scratch = self.scratch.as_mut_ptr();
        for start in (0..self.rows).step_by(ROW_BLOCK) {
            let rows = start..self.rows.min(start + ROW_BLOCK);
            for first in self.panels.clone().step_by(WIDENED_PANELS) {
                let panels = first..self.panels.end.min(first + WIDENED_PANELS);
                // SAFETY: the scratch holds WIDENED_PANELS panels, asserted above.
                unsafe {
                    for panel in panels.clone() {
                        let from = self.weight.data.as_ptr().add(panel * self.weight.panel_bytes());
                        widen::<S, P>(from, quads, scratch.add((panel - first) * panel_len));
                    }
                    let at = |panel: usize| {
                        scratch.add((panel - first) * panel_len).cast::<u8>().cast_const()
                    };
                    self.block::<S, Bf16Panel>(x, rows.clone(), panels, at);
                }
            }
        }
    }

    /// A block of rows against panels, in tiles that fit the registers.
    #[inline(always)]
    unsafe fn block<S: Simd, P: Panel<S>>(
        &self,
        x: *const P::Element,
        rows: Range<usize>,
        panels: Range<usize>,
        at: impl Fn(usize) -> *const u8 + Copy,
    ) {
        let mut panel = panels.start;
        // SAFETY: all tiles stay within the ranges.
        unsafe {
            if S::WIDE && rows.len() <= 2 {
                while panel + 4 <= panels.end {
                    self.column::<S, P, 4>(x, rows.clone(), panel, at);
                    panel += 4;
                }
            }
            if S::WIDE {
                while panel + 2 <= panels.end {
                    self.column::<S, P, 2>(x, rows.clone(), panel, at);
                    panel += 2;
                }
            }
            while panel < panels.end {
                self.column::<S, P, 1>(x, rows.clone(), panel, at);
                panel += 1;
            }
        }
    }

    /// All rows of a block against N panels.
    #[inline(always)]
    unsafe fn column<S: Simd, P: Panel<S>, const N: usize>(
        &self,
        x: *const P::Element,
        rows: Range<usize>,
        panel: usize,
        at: impl Fn(usize) -> *const u8,
    ) {
        let mut panels = [at(panel); N];
        for (n, pointer) in panels.iter_mut().enumerate() {
            *pointer = at(panel + n);
        }
        let mut row = rows.start;
        while row < rows.end {
            // As many rows at a time as the registers hold: each tile reads the panels once.
            // SAFETY: rows and panels exist.
            row += unsafe {
                // Four panels are for one or two rows only.
                match rows.end - row {
                    1 => self.tile::<S, P, 1, N>(x, row, panel, panels),
                    3 if N <= 2 => self.tile::<S, P, 3, N>(x, row, panel, panels),
                    5 if N <= 2 && S::WIDE => self.tile::<S, P, 5, N>(x, row, panel, panels),
                    6.. if N <= 2 && S::WIDE => self.tile::<S, P, 6, N>(x, row, panel, panels),
                    4.. if N <= 2 => self.tile::<S, P, 4, N>(x, row, panel, panels),
                    _ => self.tile::<S, P, 2, N>(x, row, panel, panels),
                }
            };
        }
    }

    /// R rows against N panels, sums in registers; returns R.
    #[inline(always)]
    unsafe fn tile<S: Simd, P: Panel<S>, const R: usize, const N: usize>(
        &self,
        x: *const P::Element,
        row: usize,
        panel: usize,
        panels: [*const u8; N],
    ) -> usize {
        let weight = self.weight;
        let quads = weight.quads();
        // SAFETY: rows are `stride` apart and padded to whole quads; panels have `quads` quads.
        unsafe {
            let mut rows = [x; R];
            for (r, pointer) in rows.iter_mut().enumerate() {
                *pointer = x.add((row + r) * self.stride);
            }
            let zero = S::splat(0.0);
            let mut total = [[zero; N]; R];
            match &weight.groups {
                None => accumulate::<S, P, R, N>(&mut total, rows, panels, 0..quads),
                Some(groups) => {
                    let num_groups = quads / groups.quads;
                    for g in 0..num_groups {
                        let mut partial = [[zero; N]; R];
                        let range = g * groups.quads..(g + 1) * groups.quads;
                        accumulate::<S, P, R, N>(&mut partial, rows, panels, range);
                        for n in 0..N {
                            let at = ((panel + n) * num_groups + g) * LANES;
                            let ratio = S::load_f16(groups.ratios.as_ptr().add(at));
                            for r in 0..R {
                                total[r][n] = S::fma(partial[r][n], ratio, total[r][n]);
                            }
                            let Some(offsets) = &groups.offsets else {
                                continue;
                            };
                            let offset = S::load_f16(offsets.as_ptr().add(at));
                            for (r, total) in total.iter_mut().enumerate() {
                                let sum = self.group_sums[(row + r) * num_groups + g];
                                total[n] = S::fma(offset, S::splat(sum), total[n]);
                            }
                        }
                    }
                }
            }
            for (r, sums) in total.iter().enumerate() {
                for (n, &sum) in sums.iter().enumerate() {
                    self.finish::<S>(sum, row + r, (panel + n) * LANES);
                }
            }
        }
        R
    }

    /// Scales a sum, adds the bias and stores up to 16 columns of a row.
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, mut sum: S::F, row: usize, column: usize) {
        let columns = LANES.min(self.weight.n - column);
        // SAFETY: factors cover whole panels; bias and output have n columns.
        unsafe {
            if let Some(factors) = &self.weight.factors {
                sum = S::mul(sum, S::load(factors.as_ptr().add(column)));
            }
            if let Some(bias) = self.bias {
                sum = S::add(sum, S::load_part(bias.as_ptr().add(column), columns, 0.0));
            }
            let out = self.output.values.add(row * self.output.columns + column);
            if self.output.add {
                sum = S::add(S::load_part(out, columns, 0.0), sum);
            }
            S::store_part(out, columns, sum);
        }
    }
}

/// Σx of each group of one row, `out: [groups]`, in a fixed order.
pub(crate) fn group_sums(row: &[u16], group: usize, out: &mut [f32]) {
    let widen = |bits: u16| f32::from_bits(u32::from(bits) << 16);
    for (out, values) in out.iter_mut().zip(row.chunks_exact(group)) {
        let mut lanes = [0f32; LANES];
        let mut chunks = values.chunks_exact(LANES);
        for chunk in &mut chunks {
            for (lane, &bits) in lanes.iter_mut().zip(chunk) {
                *lane += widen(bits);
            }
        }
        let tail: f32 = chunks.remainder().iter().map(|&bits| widen(bits)).sum();
        *out = lanes.iter().sum::<f32>() + tail;
    }
}
