//! Linear layers: `out = x·Wᵀ + b` for any number of rows and any panel format.
//!
//! Few rows read the packed weights once and unpack them in registers: the speed of memory. Many
//! rows unpack two panels into a scratch buffer first and then run the tile of bf16 or of whole bytes
//! over them: the speed of arithmetic. Both do the same sums in the same order.

use crate::layout::{CpuWeight, PanelFormat, QUAD};
use crate::panels::{
    Bf16Panel, F32Panel, Fp8Panel, Int4Panel, Int4QuadPanel, Int8Panel, Int8QuadPanel, Panel,
    Unpack, accumulate, unpack,
};
use crate::simd::{Kernel, LANES, Simd};
use crate::tensor::CpuOperand;
use bantam_numerics::ActivationFormat;
use std::ops::Range;

/// Rows that stay in the cache while the panels of a task pass by.
const ROW_BLOCK: usize = 96;
/// From this many rows on, panels are unpacked once instead of once a tile.
const UNPACK_ROWS: usize = 9;
/// Panels that are unpacked together.
const UNPACKED_PANELS: usize = 2;

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
    pub(crate) x: &'a CpuOperand,
    /// Scales of a row of x.
    pub(crate) scales_per_row: usize,
    pub(crate) weight: &'a CpuWeight,
    pub(crate) panels: Range<usize>,
    /// Σx of each group, `[rows, groups]`; needed where [`CpuWeight::needs_sums`] says so.
    pub(crate) group_sums: &'a [f32],
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) output: Output,
    /// For unpacked panels; see [`scratch_len`].
    pub(crate) scratch: &'a mut [u8],
}

/// Scratch bytes that a task needs.
pub(crate) fn scratch_len(weight: &CpuWeight, rows: usize) -> usize {
    let unpacked = match weight.format {
        PanelFormat::F32 | PanelFormat::Bf16 | PanelFormat::Int8Quads => return 0,
        PanelFormat::Int8 | PanelFormat::Fp8 | PanelFormat::Int4 => PanelFormat::Bf16,
        PanelFormat::Int4Quads => PanelFormat::Int8Quads,
    };
    let panel = weight.quads() * unpacked.quad_bytes();
    if rows >= UNPACK_ROWS { UNPACKED_PANELS * panel } else { 0 }
}

impl Kernel for Gemm<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        // SAFETY: `Isa::run` is our caller, and the fields describe real memory. The back end has
        // compared the operand's format with the weight's, and `elements` checks it again.
        unsafe {
            match self.weight.format {
                PanelFormat::F32 => self.direct::<S, F32Panel>(),
                PanelFormat::Bf16 => self.direct::<S, Bf16Panel>(),
                PanelFormat::Int8 => self.unpacking::<S, Int8Panel>(),
                PanelFormat::Fp8 => self.unpacking::<S, Fp8Panel>(),
                PanelFormat::Int4 => self.unpacking::<S, Int4Panel>(),
                PanelFormat::Int8Quads => self.direct::<S, Int8QuadPanel>(),
                PanelFormat::Int4Quads => self.unpacking::<S, Int4QuadPanel>(),
            }
        }
    }
}

impl Gemm<'_> {
    #[inline(always)]
    unsafe fn direct<S: Simd, P: Panel<S>>(&self) {
        let first = self.weight.data.as_ptr();
        let bytes = self.weight.panel_bytes();
        for start in (0..self.x.rows).step_by(ROW_BLOCK) {
            let rows = start..self.x.rows.min(start + ROW_BLOCK);
            // SAFETY: panel p starts p·bytes into the weight.
            let at = |panel: usize| unsafe { first.add(panel * bytes) };
            unsafe { self.block::<S, P>(rows, self.panels.clone(), at) };
        }
    }

    #[inline(always)]
    unsafe fn unpacking<S: Simd, P: Unpack<S>>(&mut self) {
        if self.x.rows < UNPACK_ROWS {
            // SAFETY: as for `run`.
            return unsafe { self.direct::<S, P>() };
        }
        let quads = self.weight.quads();
        let panel_len = quads * P::Unpacked::QUAD_BYTES;
        assert!(self.scratch.len() >= UNPACKED_PANELS * panel_len, "scratch for unpacked panels");
        let scratch = self.scratch.as_mut_ptr();
        for start in (0..self.x.rows).step_by(ROW_BLOCK) {
            let rows = start..self.x.rows.min(start + ROW_BLOCK);
            for first in self.panels.clone().step_by(UNPACKED_PANELS) {
                let panels = first..self.panels.end.min(first + UNPACKED_PANELS);
                // SAFETY: the scratch holds UNPACKED_PANELS panels, asserted above.
                unsafe {
                    for panel in panels.clone() {
                        let from = self.weight.data.as_ptr().add(panel * self.weight.panel_bytes());
                        unpack::<S, P>(from, quads, scratch.add((panel - first) * panel_len));
                    }
                    let at = |panel: usize| scratch.add((panel - first) * panel_len).cast_const();
                    self.block::<S, P::Unpacked>(rows.clone(), panels, at);
                }
            }
        }
    }

    /// A block of rows against panels, in tiles that fit the registers.
    #[inline(always)]
    unsafe fn block<S: Simd, P: Panel<S>>(
        &self,
        rows: Range<usize>,
        panels: Range<usize>,
        at: impl Fn(usize) -> *const u8 + Copy,
    ) {
        let x = self.x.elements::<P::Element>().as_ptr();
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
                    // Eight sequences that decode together; more rows are faster by six.
                    8 if N <= 2 && S::WIDE => self.tile::<S, P, 8, N>(x, row, panel, panels),
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
        let num_groups = weight.num_groups();
        // SAFETY: rows are `stride` apart and padded to whole quads; panels have `quads` quads.
        unsafe {
            let mut rows = [x; R];
            for (r, pointer) in rows.iter_mut().enumerate() {
                *pointer = x.add((row + r) * self.x.stride);
            }
            let mut total = [[S::splat(0.0); N]; R];
            match &weight.groups {
                None => {
                    let mut sums = self.start::<S, P, R, N>(row, 0);
                    accumulate::<S, P, R, N>(&mut sums, rows, panels, 0..quads);
                    for r in 0..R {
                        for n in 0..N {
                            total[r][n] = P::finish(sums[r][n]);
                        }
                    }
                }
                Some(groups) => {
                    for g in 0..num_groups {
                        let range = g * groups.quads..quads.min((g + 1) * groups.quads);
                        let mut sums = self.start::<S, P, R, N>(row, g);
                        accumulate::<S, P, R, N>(&mut sums, rows, panels, range);
                        let mut x_scales = [None; R];
                        for (r, scale) in x_scales.iter_mut().enumerate() {
                            *scale = self.block_scale(row + r, g * groups.quads);
                        }
                        for n in 0..N {
                            let at = ((panel + n) * num_groups + g) * LANES;
                            let ratio = groups.ratios.load::<S>(at);
                            for r in 0..R {
                                let ratio = scaled::<S>(ratio, x_scales[r]);
                                let sum = P::finish(sums[r][n]);
                                total[r][n] = P::multiply_add(sum, ratio, total[r][n]);
                            }
                            let Some(offsets) = &groups.offsets else {
                                continue;
                            };
                            let offset = offsets.load::<S>(at);
                            for (r, total) in total.iter_mut().enumerate() {
                                let offset = scaled::<S>(offset, x_scales[r]);
                                let sum = S::splat(self.x_sum(row + r, g));
                                total[n] = P::multiply_add(sum, offset, total[n]);
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

    /// Sums of no products yet, of R rows and N panels over group `g`.
    #[inline(always)]
    unsafe fn start<S: Simd, P: Panel<S>, const R: usize, const N: usize>(
        &self,
        row: usize,
        g: usize,
    ) -> [[P::Sum; N]; R] {
        // SAFETY: the caller's.
        unsafe {
            let mut sums = [[P::start(0.0); N]; R];
            if P::ZERO != 0 {
                for (r, sums) in sums.iter_mut().enumerate() {
                    *sums = [P::start(self.x_sum(row + r, g)); N];
                }
            }
            sums
        }
    }

    /// Σx of a group.
    #[inline(always)]
    fn x_sum(&self, row: usize, g: usize) -> f32 {
        self.group_sums[row * self.weight.num_groups() + g]
    }

    /// The scale of a row's block of channels, where a row has several.
    #[inline(always)]
    fn block_scale(&self, row: usize, quad: usize) -> Option<f32> {
        let block = quad * QUAD / ActivationFormat::SCALE_BLOCK;
        let several = self.scales_per_row > 1;
        several.then(|| self.x.scales()[row * self.scales_per_row + block])
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
            if self.scales_per_row == 1 {
                sum = S::mul(sum, S::splat(self.x.scales()[row]));
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

/// A ratio of the weight times the scale of x, if it has one.
#[inline(always)]
unsafe fn scaled<S: Simd>(ratio: S::F, scale: Option<f32>) -> S::F {
    match scale {
        // SAFETY: the caller's.
        Some(scale) => unsafe { S::mul(ratio, S::splat(scale)) },
        None => ratio,
    }
}

/// Σx of each group of one row, in a fixed order.
pub(crate) struct GroupSums<'a> {
    pub(crate) x: &'a CpuOperand,
    pub(crate) row: usize,
    /// Elements of a group.
    pub(crate) group: usize,
    /// `[groups]`.
    pub(crate) out: &'a mut [f32],
}

impl Kernel for GroupSums<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let row = self.row * self.x.stride..self.row * self.x.stride + self.x.columns;
        if self.x.format == ActivationFormat::Int8 {
            let groups = self.x.elements::<i8>()[row].chunks(self.group);
            for (out, codes) in self.out.iter_mut().zip(groups) {
                *out = codes.iter().map(|&code| i32::from(code)).sum::<i32>() as f32;
            }
        } else {
            let groups = self.x.elements::<u16>()[row].chunks(self.group);
            for (out, values) in self.out.iter_mut().zip(groups) {
                *out = sum_bf16(values);
            }
        }
    }
}

#[inline(always)]
fn sum_bf16(values: &[u16]) -> f32 {
    let widen = |bits: u16| f32::from_bits(u32::from(bits) << 16);
    let mut lanes = [0f32; LANES];
    let mut chunks = values.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, &bits) in lanes.iter_mut().zip(chunk) {
            *lane += widen(bits);
        }
    }
    let tail: f32 = chunks.remainder().iter().map(|&bits| widen(bits)).sum();
    lanes.iter().sum::<f32>() + tail
}
