//! The operations of the seam: shapes checked, then cut into tasks for the pool.

use crate::attention::schedule;
use crate::cache::CpuCache;
use crate::cpu::Cpu;
use crate::gemm::{Gemm, Output, scratch_len};
use crate::layout::{CpuWeight, QUAD};
use crate::rowwise::{FeedForwardRow, NormRow, RoundRow};
use crate::tensor::{CpuOperand, CpuTensor, Shared};
use bantam_backend::{
    AttentionShape, Backend, BackendError, Batch, FeedForward, HeadNorm, KvLayout, Norm, Rope,
    Store,
};
use bantam_numerics::{ActivationFormat, GroupAffine, PackedWeight, WeightData};
use std::ops::Range;

/// Panels of a linear layer's task: a multiple of every tile's, small enough to balance.
const TASK_PANELS: Range<usize> = 4..32;

impl Backend for Cpu {
    type Weight = CpuWeight;
    type Vector = Vec<f32>;
    type Tensor = CpuTensor;
    type Operand = CpuOperand;
    type Cache = CpuCache;

    fn describe(&self) -> String {
        let threads = self.threads();
        format!("cpu ({}, {threads} thread{})", self.isa(), if threads == 1 { "" } else { "s" })
    }

    fn block_tokens(&self) -> usize {
        16
    }

    fn weight(&self, weight: PackedWeight) -> Result<CpuWeight, BackendError> {
        if let WeightData::Int8 { affine, .. } | WeightData::Int4 { affine, .. } = &weight.data {
            let GroupAffine { group, offsets, .. } = affine;
            let per_channel = *group == weight.k && offsets.is_none();
            if !per_channel && !group.is_multiple_of(QUAD) {
                return Err(BackendError::Unsupported {
                    op: "weight",
                    what: format!("a group size of {group}"),
                    backend: "cpu".to_owned(),
                    way_out: "use a multiple of 4".to_owned(),
                });
            }
        }
        Ok(CpuWeight::new(weight))
    }

    fn vector(&self, values: &[f32]) -> Vec<f32> {
        values.to_vec()
    }

    fn tensor(&self, rows: usize, columns: usize) -> CpuTensor {
        CpuTensor::new(rows, columns)
    }

    fn operand(&self, rows: usize, columns: usize, format: ActivationFormat) -> CpuOperand {
        CpuOperand::new(rows, columns, format)
    }

    fn cache(&self, layout: &KvLayout) -> Result<CpuCache, BackendError> {
        CpuCache::new(layout)
    }

    fn write(&self, values: &[f32], out: &mut CpuTensor) -> Result<(), BackendError> {
        let columns = out.columns.max(1);
        BackendError::check_shape("write", "values past whole rows", values.len() % columns, 0)?;
        out.set_rows("write", values.len() / columns)?;
        out.values_mut().copy_from_slice(values);
        Ok(())
    }

    fn read(&self, x: &CpuTensor) -> Vec<f32> {
        x.values().to_vec()
    }

    fn read_operand(&self, x: &CpuOperand) -> Vec<f32> {
        x.to_f32()
    }

    fn embed(
        &self,
        table: &CpuWeight,
        tokens: &[u32],
        out: &mut CpuTensor,
    ) -> Result<(), BackendError> {
        BackendError::check_shape("embed", "output columns", out.columns, table.k)?;
        if let Some(&id) = tokens.iter().find(|&&id| id as usize >= table.n) {
            return Err(BackendError::Shape {
                op: "embed",
                what: "token id (below the vocabulary's size)",
                got: id as usize,
                expected: table.n,
            });
        }
        out.set_rows("embed", tokens.len())?;
        let columns = out.columns.max(1);
        for (row, &id) in out.values_mut().chunks_exact_mut(columns).zip(tokens) {
            table.decode_row(id as usize, row);
        }
        Ok(())
    }

    fn select_rows(
        &self,
        x: &CpuTensor,
        rows: &[u32],
        out: &mut CpuTensor,
    ) -> Result<(), BackendError> {
        BackendError::check_shape("select_rows", "output columns", out.columns, x.columns)?;
        if let Some(&row) = rows.iter().find(|&&row| row as usize >= x.rows) {
            let (got, capacity) = (row as usize + 1, x.rows);
            return Err(BackendError::Capacity { op: "select_rows", got, capacity });
        }
        out.set_rows("select_rows", rows.len())?;
        let columns = x.columns.max(1);
        for (to, &row) in out.values_mut().chunks_exact_mut(columns).zip(rows) {
            to.copy_from_slice(&x.values()[row as usize * columns..][..columns]);
        }
        Ok(())
    }

    fn round(&self, x: &CpuTensor, out: &mut CpuOperand) -> Result<(), BackendError> {
        BackendError::check_shape("round", "output columns", out.columns, x.columns)?;
        out.set_rows("round", x.rows)?;
        let row = |r: usize| &x.values()[r * x.columns..][..x.columns];
        self.fill_operand(
            out,
            |r, out| RoundRow { x: row(r), out },
            |r, out| RoundRow { x: row(r), out },
        );
        Ok(())
    }

    fn norm(
        &self,
        x: &CpuTensor,
        norm: &Norm<Vec<f32>>,
        out: &mut CpuOperand,
    ) -> Result<(), BackendError> {
        BackendError::check_shape("norm", "weight", norm.weight.len(), x.columns)?;
        BackendError::check_shape("norm", "output columns", out.columns, x.columns)?;
        out.set_rows("norm", x.rows)?;
        let row = |r: usize| &x.values()[r * x.columns..][..x.columns];
        let (kind, eps) = (norm.kind, norm.eps);
        let (weight, bias) = (norm.weight.as_slice(), norm.bias.as_deref());
        self.fill_operand(
            out,
            |r, out| NormRow { kind, x: row(r), weight, bias, eps, out },
            |r, out| NormRow { kind, x: row(r), weight, bias, eps, out },
        );
        Ok(())
    }

    fn linear(
        &self,
        x: &CpuOperand,
        weight: &CpuWeight,
        bias: Option<&Vec<f32>>,
        store: Store,
        out: &mut CpuTensor,
    ) -> Result<(), BackendError> {
        BackendError::check_shape("linear", "input columns", x.columns, weight.k)?;
        BackendError::check_shape("linear", "output columns", out.columns, weight.n)?;
        BackendError::check_shape("linear", "bias", bias.map_or(weight.n, Vec::len), weight.n)?;
        if x.format() != weight.activation {
            return Err(BackendError::Unsupported {
                op: "linear",
                what: format!("a {:?} operand for a {:?} weight", x.format(), weight.format),
                backend: "cpu".to_owned(),
                way_out: format!("make the operand as {:?}", weight.activation),
            });
        }
        match store {
            Store::Replace => out.set_rows("linear", x.rows)?,
            Store::Add => BackendError::check_shape("linear", "rows to add to", out.rows, x.rows)?,
        }
        let sums = self.sum_groups(x, weight);
        let columns = out.columns;
        let values = Shared(out.values_mut().as_mut_ptr());
        let panels = weight.panels();
        let per_task = panels
            .div_ceil(4 * self.threads())
            .next_multiple_of(TASK_PANELS.start)
            .clamp(TASK_PANELS.start, TASK_PANELS.end);
        self.pool().run(panels.div_ceil(per_task), |worker, task| {
            let mut worker = self.scratch(worker);
            let needed = scratch_len(weight, x.rows);
            if worker.panels.len() < needed {
                worker.panels.resize(needed, 0);
            }
            self.run(Gemm {
                input: x.input(),
                stride: x.stride,
                rows: x.rows,
                weight,
                panels: task * per_task..panels.min((task + 1) * per_task),
                group_sums: &sums,
                bias: bias.map(Vec::as_slice),
                output: Output { values: values.get(), columns, add: store == Store::Add },
                scratch: &mut worker.panels,
            });
        });
        Ok(())
    }

    fn append(
        &self,
        qkv: &mut CpuTensor,
        shape: &AttentionShape,
        head_norm: Option<&HeadNorm<Vec<f32>>>,
        rope: Option<&Rope>,
        batch: &Batch,
        layer: usize,
        cache: &mut CpuCache,
    ) -> Result<(), BackendError> {
        schedule::append(self, qkv, shape, head_norm, rope, batch, layer, cache)
    }

    fn attention(
        &self,
        qkv: &CpuTensor,
        shape: &AttentionShape,
        batch: &Batch,
        layer: usize,
        cache: &CpuCache,
        out: &mut CpuOperand,
    ) -> Result<(), BackendError> {
        schedule::attention(self, qkv, shape, batch, layer, cache, out)
    }

    fn feed_forward(
        &self,
        x: &CpuTensor,
        kind: FeedForward,
        out: &mut CpuOperand,
    ) -> Result<(), BackendError> {
        let columns = kind.input_columns(out.columns);
        BackendError::check_shape("feed_forward", "input columns", x.columns, columns)?;
        out.set_rows("feed_forward", x.rows)?;
        let row = |r: usize| &x.values()[r * columns..][..columns];
        self.fill_operand(
            out,
            |r, out| FeedForwardRow { kind, x: row(r), out },
            |r, out| FeedForwardRow { kind, x: row(r), out },
        );
        Ok(())
    }
}
