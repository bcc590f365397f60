//! The formats that layers take by recipe `auto`.

use std::path::Path;

use anyhow::{Context, bail};
use bantam_optimize::report::Report;
use bantam_optimize::{FormatScore, FormatSearch, FoundFormats, Job, Recipe};
use clap::Args;

use super::show;
use crate::device::Device;
use crate::output::{self, mebibytes};

/// What layers may choose from.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of recipe auto")]
pub(super) struct FormatArgs {
    /// Bits a weight, scales included, of all layers together [default: the recipe's, 6]
    #[arg(long, value_name = "BITS")]
    bits: Option<f64>,

    /// Recipes whose rule a layer may take; it may always stay in 16 bits [default: the recipe's,
    /// int4_awq,int8_wo]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    candidates: Vec<String>,

    /// What formats are compared by: kl, what predictions lose, or sensitivity, what the layer's
    /// block changes, which is much quicker [default: the recipe's, kl]
    #[arg(long, value_name = "SCORE", value_parser = parse_score)]
    score: Option<FormatScore>,
}

fn parse_score(text: &str) -> Result<FormatScore, String> {
    let known = [FormatScore::Kl, FormatScore::Sensitivity];
    let found = known.into_iter().find(|score| score.to_string() == text);
    found.ok_or_else(|| "expected kl or sensitivity".to_owned())
}

impl FormatArgs {
    /// Changes what the recipe says.
    pub(super) fn change(&self, recipe: &mut Recipe) -> anyhow::Result<()> {
        let Some(auto) = &mut recipe.auto else {
            if self.bits.is_some() || !self.candidates.is_empty() || self.score.is_some() {
                bail!(
                    "--bits, --candidates and --score are for recipe auto, and {} has rules; \
                     leave them out",
                    recipe.name
                );
            }
            return Ok(());
        };
        auto.bits = self.bits.unwrap_or(auto.bits);
        auto.score = self.score.unwrap_or(auto.score);
        if !self.candidates.is_empty() {
            auto.candidates.clone_from(&self.candidates);
        }
        Ok(recipe.check()?)
    }
}

/// Scores all candidates and chooses.
pub(super) fn choose(
    search: &FormatSearch,
    job: &Job<'_>,
    device: &Device,
) -> anyhow::Result<FoundFormats> {
    let bytes = job.peak_bytes() + search.peak_bytes(job);
    output::note(&format!("choosing formats takes up to {} MiB of memory", mebibytes(bytes)));
    let bar = output::progress_bar(1000, "choosing formats");
    let found = search.run(job, device, &mut |progress| show(&bar, progress));
    bar.finish_and_clear();
    let found = found?;
    let report = &found.report;
    output::note(&format!(
        "{:.3} bits a weight of {} allowed, chosen in {:.0} s",
        report.bits, report.bits_asked, report.seconds
    ));
    Ok(found)
}

/// Leaves the choice in the folder and in the report: recipe.toml can be used again.
pub(super) fn keep(folder: &Path, found: &FoundFormats, report: &mut Report) -> anyhow::Result<()> {
    let path = folder.join("recipe.toml");
    std::fs::write(&path, found.recipe.to_toml()).with_context(|| path.display().to_string())?;
    report.formats = Some(found.report.clone());
    Ok(())
}
