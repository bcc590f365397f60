//! What each of several models may take of the memory.

use anyhow::bail;
use bantam_model::{CacheSize, LoadOptions, MemoryPlan};

use crate::device::Device;
use crate::memory::{self, Available};
use crate::model_arg::OpenModel;

/// Without `--memory` the caches together take at most one part in so many of what is available: a
/// server shares its machine with others, and few need more.
const CACHE_PARTS: u64 = 4;

/// Plans models that are loaded side by side, within `--memory` if stated, else within what this
/// machine has to spare.
///
/// Every model gets what it needs for one sequence of full length; what is left goes to the caches
/// in equal shares, and what one cannot use to the ones after it.
pub(super) fn plan(
    models: &[(&OpenModel, LoadOptions)],
    device: &Device,
    stated: Option<u64>,
) -> anyhow::Result<Vec<(LoadOptions, MemoryPlan)>> {
    let unlimited = |options: &LoadOptions, cache, max_sequences| LoadOptions {
        cache,
        max_sequences,
        memory_budget: None,
        ..options.clone()
    };
    let mut needs = Vec::new();
    for (model, options) in models {
        let total = |sequences| -> anyhow::Result<u64> {
            let options = unlimited(options, CacheSize::FullLength, sequences);
            Ok(model.plan(device, &options)?.total())
        };
        needs.push((total(1)?, total(options.max_sequences)?));
    }
    let least: u64 = needs.iter().map(|(least, _)| least).sum();
    let available = memory::budget();
    let budget = stated.or(available).unwrap_or(u64::MAX);
    if models.len() > 1 && least > budget {
        bail!("{}", too_little(models, &needs, budget));
    }
    let mut left = match (stated, available) {
        (None, Some(available)) => (available / CACHE_PARTS).min(budget.saturating_sub(least)),
        _ => budget.saturating_sub(least),
    };
    let mut plans = Vec::new();
    for (n, ((model, options), (least, most))) in models.iter().zip(needs).enumerate() {
        let more = (left / (models.len() - n) as u64).min(most - least);
        left -= more;
        // Less than the least only where a single model is too large: its plan says what would fit.
        let own = (least + more).min(budget);
        let options =
            LoadOptions { cache: CacheSize::Budget, memory_budget: Some(own), ..options.clone() };
        let plan = model.plan(device, &options)?;
        plans.push((options, plan));
    }
    Ok(plans)
}

/// Refuses to take more bytes than are `available`, `of` saying what for.
pub(super) fn check_available(
    bytes: u64,
    available: Option<Available>,
    of: &str,
) -> anyhow::Result<()> {
    let Some(available) = available.filter(|available| available.bytes < bytes) else {
        return Ok(());
    };
    let mebibytes = |bytes: u64| bytes >> 20;
    bail!(
        "{of} need {} MiB, but {} leaves {} MiB; use a smaller --memory, --max-num-seqs or \
         --max-model-len, --dtype int4, or --lazy-cache to take the cache only as it fills",
        mebibytes(bytes.next_multiple_of(1 << 20)),
        available.bound,
        mebibytes(available.bytes),
    )
}

fn too_little(models: &[(&OpenModel, LoadOptions)], needs: &[(u64, u64)], budget: u64) -> String {
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    let each = models.iter().zip(needs);
    let each: Vec<String> = each
        .map(|((model, _), (least, _))| format!("{} {} MiB", model.name, mebibytes(*least)))
        .collect();
    let least = mebibytes(needs.iter().map(|(least, _)| least).sum());
    format!(
        "the models need {least} MiB side by side ({}), but have {} MiB; use --memory {least}MiB if \
         the machine has that much, a smaller --max-model-len, --dtype int4, or fewer models",
        each.join(", "),
        budget >> 20,
    )
}
