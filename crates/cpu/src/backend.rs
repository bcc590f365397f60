//! The operations of the seam: shapes checked, then cut into tasks for the pool.

use crate::aligned::AlignedBytes;
use crate::attention::schedule;
use crate::cache::CpuCache;
use crate::cpu::Cpu;
use crate::gemm::{Gemm, Output, scratch_len};
use crate::layout::{CpuWeight, QUAD};
use crate::rowwise::{FeedForwardRows, NormRows, SameRows};
use crate::tensor::{CpuOperand, CpuTensor, Shared};
use bantam_backend::{
    AttentionShape, Backend, BackendError, Batch, FeedForward, HeadNorm, KvLayout, LinearInput,
    Norm, Rope, Store,
};
use bantam_numerics::{ActivationFormat, PackedWeight, WeightData};
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
        BackendError::check_scheme(weight.scheme(), "cpu")?;
        check_groups(&weight)?;
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

    fn reserve(&self, cache: &mut CpuCache) {
        cache.reserve(self.pool());
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

    fn round(
        &self,
        x: &CpuTensor,
        input: &LinearInput<Vec<f32>>,
        out: &mut CpuOperand,
    ) -> Result<(), BackendError> {
        BackendError::check_shape("round", "output columns", out.columns, x.columns)?;
        out.begin("round", x.rows, input)?;
        self.fill_operand(&SameRows { x: x.values() }, input, out);
        Ok(())
    }

    fn norm(
        &self,
        x: &CpuTensor,
        norm: &Norm<Vec<f32>>,
        input: &LinearInput<Vec<f32>>,
        out: &mut CpuOperand,
    ) -> Result<(), BackendError> {
        BackendError::check_shape("norm", "weight", norm.weight.len(), x.columns)?;
        BackendError::check_shape("norm", "output columns", out.columns, x.columns)?;
        let bias = norm.bias.as_ref().map_or(x.columns, Vec::len);
        BackendError::check_shape("norm", "bias", bias, x.columns)?;
        out.begin("norm", x.rows, input)?;
        self.fill_operand(&NormRows { norm, x: x.values() }, input, out);
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
        BackendError::check_operand(x.format, weight.scheme, "cpu")?;
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
                worker.panels = AlignedBytes::filled(needed, 0);
            }
            self.run(Gemm {
                x,
                scales_per_row: x.scales_per_row(),
                weight,
                panels: task * per_task..panels.min((task + 1) * per_task),
                group_sums: &sums,
                bias: bias.map(Vec::as_slice),
                output: Output { values: values.get(), columns, add: store == Store::Add },
                scratch: worker.panels.bytes_mut(),
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
        input: &LinearInput<Vec<f32>>,
        out: &mut CpuOperand,
    ) -> Result<(), BackendError> {
        schedule::attention(self, qkv, shape, batch, layer, cache, input, out)
    }

    fn feed_forward(
        &self,
        x: &CpuTensor,
        kind: FeedForward,
        input: &LinearInput<Vec<f32>>,
        out: &mut CpuOperand,
    ) -> Result<(), BackendError> {
        let columns = kind.input_columns(out.columns);
        BackendError::check_shape("feed_forward", "input columns", x.columns, columns)?;
        out.begin("feed_forward", x.rows, input)?;
        self.fill_operand(&FeedForwardRows { kind, x: x.values() }, input, out);
        Ok(())
    }
}

/// Inputs that share a scale at most, so that an integer sum cannot overflow and Σx is exact in f32.
const MAX_INTEGER_GROUP: usize = (1 << 17) - 1;

/// Refuses groups that panels cannot be cut into.
fn check_groups(weight: &PackedWeight) -> Result<(), BackendError> {
    let (group, offsets) = match &weight.data {
        WeightData::F32(_) | WeightData::BF16(_) => return Ok(()),
        WeightData::Int8 { affine, .. } | WeightData::Int4 { affine, .. } => {
            (affine.group, affine.offsets.is_some())
        }
        WeightData::Fp8 { block, .. } => (block.columns.min(weight.k), false),
    };
    let refuse = |what: String, way_out: &str| {
        let (backend, way_out) = ("cpu".to_owned(), way_out.to_owned());
        Err(BackendError::Unsupported { op: "weight", what, backend, way_out })
    };
    let whole_row = group == weight.k && !offsets;
    if !whole_row && !group.is_multiple_of(QUAD) {
        return refuse(format!("a group size of {group}"), "use a multiple of 4");
    }
    if weight.activation == ActivationFormat::Int8 && group > MAX_INTEGER_GROUP {
        let way_out = "use groups along K, or bf16 activations";
        return refuse(format!("an integer sum of {group} products"), way_out);
    }
    let block = weight.activation.scale_block(weight.k);
    if weight.k > block && !block.is_multiple_of(group) {
        let what = format!("a group size of {group} with activation scales every {block} channels");
        return refuse(what, "use groups that divide 128, or one activation scale a row");
    }
    Ok(())
}
