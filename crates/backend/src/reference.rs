//! The obvious back end: `bantam_numerics::reference` behind the [`Backend`] trait.

use crate::{
    AttentionShape, Backend, BackendError, Batch, FeedForward, HeadNorm, KvLayout, KvRanges,
    LinearInput, Norm, NormKind, Rope, Store,
};
use bantam_numerics::reference::{attention, layer_norm, linear, rms_norm, rotate};
use bantam_numerics::{ActivationFormat, ActivationRow, PackedWeight};

/// The reference back end: one thread, f64 sums, no layout but the plain one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

/// Rows of f32.
#[derive(Clone, Debug)]
pub struct Rows {
    values: Vec<f32>,
    columns: usize,
    capacity: usize,
}

impl Rows {
    fn new(rows: usize, columns: usize) -> Self {
        Self { values: Vec::new(), columns, capacity: rows }
    }

    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.columns)
    }

    fn num_rows(&self) -> usize {
        self.values.len() / self.columns
    }

    /// Replaces the contents by `rows`.
    fn fill(
        &mut self,
        op: &'static str,
        rows: impl Iterator<Item = Vec<f32>>,
    ) -> Result<(), BackendError> {
        self.values.clear();
        for row in rows {
            BackendError::check_shape(op, "output columns", row.len(), self.columns)?;
            self.values.extend(row);
        }
        BackendError::check_capacity(op, self.num_rows(), self.capacity)
    }
}

/// Rows as a linear layer reads them.
#[derive(Clone, Debug)]
pub struct RoundedRows {
    rows: Vec<ActivationRow>,
    columns: usize,
    capacity: usize,
    /// What they have room for, and from the first operation on what they are.
    made_for: ActivationFormat,
    format: ActivationFormat,
}

impl RoundedRows {
    /// Replaces the contents by `rows` in the form that a layer asks for.
    fn fill(
        &mut self,
        op: &'static str,
        input: &LinearInput<Vec<f32>>,
        rows: impl Iterator<Item = Vec<f32>>,
    ) -> Result<(), BackendError> {
        BackendError::check_room(op, input.format, self.made_for, "reference")?;
        input.check(op, self.columns, Vec::len)?;
        self.format = input.format;
        self.rows.clear();
        for mut row in rows {
            BackendError::check_shape(op, "output columns", row.len(), self.columns)?;
            if let Some(factors) = &input.channel_factors {
                row.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
            }
            if let Some(order) = &input.order {
                row = order.iter().map(|&channel| row[channel as usize]).collect();
            }
            self.rows.push(input.format.quantize(&row, input.scale));
        }
        BackendError::check_capacity(op, self.rows.len(), self.capacity)
    }
}

/// Cached keys and values, `[L, 2, B·S, G, D]`.
#[derive(Clone, Debug)]
pub struct PlainCache {
    layout: KvLayout,
    values: Vec<f32>,
}

impl PlainCache {
    /// Keys (`which` 0) or values (1) of a slot and head, `[D]`.
    fn head(&self, layer: usize, which: usize, slot: usize, head: usize) -> &[f32] {
        let start = self.start(layer, which, slot, head);
        &self.values[start..start + self.layout.head_dim]
    }

    fn start(&self, layer: usize, which: usize, slot: usize, head: usize) -> usize {
        let KvLayout { blocks, block_tokens, kv_heads, head_dim, .. } = self.layout;
        (((layer * 2 + which) * blocks * block_tokens + slot) * kv_heads + head) * head_dim
    }

    fn store(
        &mut self,
        (layer, which, slot, head): (usize, usize, usize, usize),
        values: &[f32],
        ranges: Option<KvRanges>,
    ) {
        let start = self.start(layer, which, slot, head);
        let cell = &mut self.values[start..start + values.len()];
        cell.copy_from_slice(values);
        let range = ranges.map(|ranges| if which == 0 { ranges.key } else { ranges.value });
        self.layout.format.round(cell, range);
    }
}

impl Backend for Reference {
    type Weight = PackedWeight;
    type Vector = Vec<f32>;
    type Tensor = Rows;
    type Operand = RoundedRows;
    type Cache = PlainCache;

    fn describe(&self) -> String {
        "reference (f64 sums, one thread)".to_owned()
    }

    fn block_tokens(&self) -> usize {
        16
    }

    fn weight(&self, weight: PackedWeight) -> Result<PackedWeight, BackendError> {
        BackendError::check_scheme(weight.scheme(), "reference")?;
        Ok(weight)
    }

    fn vector(&self, values: &[f32]) -> Vec<f32> {
        values.to_vec()
    }

    fn tensor(&self, rows: usize, columns: usize) -> Rows {
        Rows::new(rows, columns)
    }

    fn operand(&self, rows: usize, columns: usize, format: ActivationFormat) -> RoundedRows {
        RoundedRows { rows: Vec::new(), columns, capacity: rows, made_for: format, format }
    }

    fn cache(&self, layout: &KvLayout) -> Result<PlainCache, BackendError> {
        let slots = layout.layers * 2 * layout.blocks * layout.block_tokens;
        let values = vec![0.0; slots * layout.kv_heads * layout.head_dim];
        Ok(PlainCache { layout: *layout, values })
    }

    fn write(&self, values: &[f32], out: &mut Rows) -> Result<(), BackendError> {
        let columns = out.columns;
        BackendError::check_shape("write", "values past whole rows", values.len() % columns, 0)?;
        out.fill("write", values.chunks_exact(columns).map(<[f32]>::to_vec))
    }

    fn read(&self, x: &Rows) -> Vec<f32> {
        x.values.clone()
    }

    fn read_operand(&self, x: &RoundedRows) -> Vec<f32> {
        x.rows.iter().flat_map(ActivationRow::decode).collect()
    }

    fn embed(
        &self,
        table: &PackedWeight,
        tokens: &[u32],
        out: &mut Rows,
    ) -> Result<(), BackendError> {
        if let Some(&id) = tokens.iter().find(|&&id| id as usize >= table.n) {
            return Err(BackendError::Shape {
                op: "embed",
                what: "token id (below the vocabulary's size)",
                got: id as usize,
                expected: table.n,
            });
        }
        let row = |&id: &u32| {
            let mut row = vec![0.0; table.k];
            table.decode_row(id as usize, &mut row);
            row
        };
        out.fill("embed", tokens.iter().map(row))
    }

    fn select_rows(&self, x: &Rows, rows: &[u32], out: &mut Rows) -> Result<(), BackendError> {
        if let Some(&row) = rows.iter().find(|&&row| row as usize >= x.num_rows()) {
            let (got, capacity) = (row as usize + 1, x.num_rows());
            return Err(BackendError::Capacity { op: "select_rows", got, capacity });
        }
        let pick = |&row: &u32| x.values[row as usize * x.columns..][..x.columns].to_vec();
        out.fill("select_rows", rows.iter().map(pick))
    }

    fn round(
        &self,
        x: &Rows,
        input: &LinearInput<Vec<f32>>,
        out: &mut RoundedRows,
    ) -> Result<(), BackendError> {
        out.fill("round", input, x.rows().map(<[f32]>::to_vec))
    }

    fn norm(
        &self,
        x: &Rows,
        norm: &Norm<Vec<f32>>,
        input: &LinearInput<Vec<f32>>,
        out: &mut RoundedRows,
    ) -> Result<(), BackendError> {
        BackendError::check_shape("norm", "weight", norm.weight.len(), x.columns)?;
        let apply = |row: &[f32]| match norm.kind {
            NormKind::Rms => rms_norm(row, &norm.weight, norm.eps),
            NormKind::Layer => layer_norm(row, &norm.weight, norm.bias.as_deref(), norm.eps),
        };
        out.fill("norm", input, x.rows().map(apply))
    }

    fn linear(
        &self,
        x: &RoundedRows,
        weight: &PackedWeight,
        bias: Option<&Vec<f32>>,
        store: Store,
        out: &mut Rows,
    ) -> Result<(), BackendError> {
        BackendError::check_shape("linear", "input columns", x.columns, weight.k)?;
        BackendError::check_shape("linear", "output columns", out.columns, weight.n)?;
        BackendError::check_operand(x.format, weight.scheme(), "reference")?;
        let old = std::mem::take(&mut out.values);
        if store == Store::Add {
            BackendError::check_shape(
                "linear",
                "rows to add to",
                old.len() / weight.n,
                x.rows.len(),
            )?;
        }
        let apply = |row| linear(row, weight, bias.map(Vec::as_slice));
        out.fill("linear", x.rows.iter().map(apply))?;
        if store == Store::Add {
            for (new, old) in out.values.iter_mut().zip(old) {
                *new += old;
            }
        }
        Ok(())
    }

    fn append(
        &self,
        qkv: &mut Rows,
        shape: &AttentionShape,
        head_norm: Option<&HeadNorm<Vec<f32>>>,
        rope: Option<&Rope>,
        batch: &Batch,
        layer: usize,
        cache: &mut PlainCache,
    ) -> Result<(), BackendError> {
        check_attention("append", qkv.columns, qkv.num_rows(), shape, batch, &cache.layout)?;
        check_writes("append", batch, &cache.layout)?;
        let &AttentionShape { heads, kv_heads, head_dim, .. } = shape;
        for span in &batch.spans {
            for (i, row) in span.rows.clone().enumerate() {
                let position = span.start + i;
                let slot = batch.slot(span, position, cache.layout.block_tokens);
                let row = &mut qkv.values[row * qkv.columns..][..qkv.columns];
                for (index, head) in row.chunks_exact_mut(head_dim).enumerate() {
                    if index < heads + kv_heads {
                        if let Some(norm) = head_norm {
                            let weight = if index < heads { &norm.q } else { &norm.k };
                            head.copy_from_slice(&rms_norm(head, weight, norm.eps));
                        }
                        if let Some(rope) = rope {
                            let (cos, sin) = rope.at(position);
                            rotate(head, cos, sin, rope.pairs);
                        }
                    }
                    if index >= heads {
                        let (which, head_index) =
                            ((index - heads) / kv_heads, (index - heads) % kv_heads);
                        cache.store((layer, which, slot, head_index), head, shape.kv_ranges);
                    }
                }
            }
        }
        Ok(())
    }

    fn attention(
        &self,
        qkv: &Rows,
        shape: &AttentionShape,
        batch: &Batch,
        layer: usize,
        cache: &PlainCache,
        input: &LinearInput<Vec<f32>>,
        out: &mut RoundedRows,
    ) -> Result<(), BackendError> {
        check_attention("attention", qkv.columns, qkv.num_rows(), shape, batch, &cache.layout)?;
        let mut results = Vec::new();
        for span in &batch.spans {
            for (i, row) in span.rows.clone().enumerate() {
                let position = span.start + i;
                let visible = shape.first_visible(position)..position + 1;
                let slots: Vec<usize> = visible
                    .clone()
                    .map(|p| batch.slot(span, p, cache.layout.block_tokens))
                    .collect();
                let mut result = Vec::with_capacity(shape.heads * shape.head_dim);
                for head in 0..shape.heads {
                    let kv_head = head / (shape.heads / shape.kv_heads);
                    let q = &qkv.values[row * qkv.columns + head * shape.head_dim..];
                    let keys: Vec<&[f32]> =
                        slots.iter().map(|&s| cache.head(layer, 0, s, kv_head)).collect();
                    let values: Vec<&[f32]> =
                        slots.iter().map(|&s| cache.head(layer, 1, s, kv_head)).collect();
                    let slope = shape.alibi_slopes.as_ref().map_or(0.0, |slopes| slopes[head]);
                    let first = visible.start;
                    let bias = |key: usize| -slope * (position - first - key) as f32;
                    let q = &q[..shape.head_dim];
                    result.extend(attention(q, &keys, &values, shape.scale, bias));
                }
                results.push(result);
            }
        }
        out.fill("attention", input, results.into_iter())
    }

    fn feed_forward(
        &self,
        x: &Rows,
        kind: FeedForward,
        input: &LinearInput<Vec<f32>>,
        out: &mut RoundedRows,
    ) -> Result<(), BackendError> {
        let columns = kind.input_columns(out.columns);
        BackendError::check_shape("feed_forward", "input columns", x.columns, columns)?;
        let apply = |row: &[f32]| match kind {
            FeedForward::Plain(act) => row.iter().map(|&v| act.apply(v)).collect(),
            FeedForward::Gated(act) => {
                let (gate, up) = row.split_at(row.len() / 2);
                gate.iter().zip(up).map(|(&g, &u)| act.apply(g) * u).collect()
            }
        };
        out.fill("feed_forward", input, x.rows().map(apply))
    }
}

/// Checks that no two spans of a batch write into one block: [`Backend::append`] would make a race of
/// it.
///
/// # Errors
/// If two do.
pub fn check_writes(
    op: &'static str,
    batch: &Batch,
    layout: &KvLayout,
) -> Result<(), BackendError> {
    let mut written: Vec<u32> = batch
        .spans
        .iter()
        .flat_map(|span| {
            let first = span.start / layout.block_tokens;
            let last = span.context().div_ceil(layout.block_tokens);
            &batch.table(span)[first..last]
        })
        .copied()
        .collect();
    written.sort_unstable();
    match written.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(BackendError::SharedBlock { op, block: pair[0] }),
    }
}

/// The shape checks that [`Backend::append`] and [`Backend::attention`] share, for all back ends.
///
/// # Errors
/// If columns, rows, heads or block tables do not fit each other.
pub fn check_attention(
    op: &'static str,
    columns: usize,
    rows: usize,
    shape: &AttentionShape,
    batch: &Batch,
    layout: &KvLayout,
) -> Result<(), BackendError> {
    BackendError::check_shape(op, "query/key/value columns", columns, shape.qkv_columns())?;
    BackendError::check_shape(op, "rows", rows, batch.num_tokens())?;
    BackendError::check_shape(op, "kv heads", shape.kv_heads, layout.kv_heads)?;
    BackendError::check_shape(op, "head dimension", shape.head_dim, layout.head_dim)?;
    let ungrouped = shape.heads.checked_rem(shape.kv_heads).unwrap_or(shape.heads.max(1));
    BackendError::check_shape(op, "query heads past whole groups", ungrouped, 0)?;
    let mut next = 0;
    for span in &batch.spans {
        BackendError::check_shape(op, "first row of a span", span.rows.start, next)?;
        next = span.rows.end.max(next);
    }
    BackendError::check_shape(op, "rows of all spans", next, rows)?;
    for span in &batch.spans {
        let reach = span.blocks.len() * layout.block_tokens;
        BackendError::check_capacity(op, span.context(), reach)?;
        if let Some(&block) = batch.table(span).iter().find(|&&b| b as usize >= layout.blocks) {
            return Err(BackendError::Capacity {
                op,
                got: block as usize + 1,
                capacity: layout.blocks,
            });
        }
    }
    Ok(())
}
