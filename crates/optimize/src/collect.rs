//! What calibration remembers of a block: statistics of its sites' inputs, ranges of its cache.

use bantam_backend::Backend;
use bantam_model::{ArchSpec, LinearRole, Tap};

use crate::fold::SITES;
use crate::{InputStatistics, OptimizeError, StatisticsCollector, StatisticsOptions};

/// The largest magnitudes of keys and values that a layer's cache met.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct StoredRanges {
    pub(crate) key: f32,
    pub(crate) value: f32,
}

/// Collects what the sites of a block read.
pub(crate) struct Collect<'a, B: Backend> {
    sites: [Option<StatisticsCollector<'a, B>>; 4],
    ranges: Option<StoredRanges>,
    arch: &'a ArchSpec,
    failed: Option<OptimizeError>,
}

impl<'a, B: Backend> Collect<'a, B> {
    /// Prepares for the statistics that are `wanted` of each site, and the cache's ranges.
    pub(crate) fn new(
        backend: &'a B,
        arch: &'a ArchSpec,
        block: usize,
        wanted: [Option<StatisticsOptions>; 4],
        ranges: bool,
    ) -> Result<Self, OptimizeError> {
        let linears = arch.linears(block);
        let mut sites = [const { None }; 4];
        for ((site, options), linear) in sites.iter_mut().zip(wanted).zip(&linears) {
            let collector =
                options.map(|options| StatisticsCollector::new(backend, linear.k, options));
            *site = collector.transpose()?;
        }
        Ok(Self { sites, ranges: ranges.then(StoredRanges::default), arch, failed: None })
    }

    /// The error of an input that could not be added.
    pub(crate) fn check(&mut self) -> Result<(), OptimizeError> {
        self.failed.take().map_or(Ok(()), Err)
    }

    pub(crate) fn finish(
        self,
    ) -> Result<([Option<InputStatistics>; 4], Option<StoredRanges>), OptimizeError> {
        let mut statistics = [const { None }; 4];
        for (site, statistics) in self.sites.into_iter().zip(&mut statistics) {
            *statistics = site.map(StatisticsCollector::finish).transpose()?;
        }
        Ok((statistics, self.ranges))
    }
}

impl<B: Backend> Tap<B> for Collect<'_, B> {
    fn linear_input(&mut self, backend: &B, role: LinearRole, x: &B::Operand) {
        let site = SITES.iter().position(|known| *known == role);
        let site = site.and_then(|site| self.sites[site].as_mut());
        if let (Some(site), None) = (site, &self.failed) {
            self.failed = site.add(&backend.read_operand(x)).err();
        }
    }

    fn attention_input(&mut self, backend: &B, qkv: &B::Tensor) {
        let Some(ranges) = &mut self.ranges else { return };
        let shape = &self.arch.attention;
        let (queries, keys) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        let largest = |values: &[f32]| values.iter().fold(0f32, |max, v| max.max(v.abs()));
        for row in backend.read(qkv).chunks_exact(queries + 2 * keys) {
            ranges.key = ranges.key.max(largest(&row[queries..queries + keys]));
            ranges.value = ranges.value.max(largest(&row[queries + keys..]));
        }
    }
}
