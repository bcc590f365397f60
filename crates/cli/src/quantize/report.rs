//! What a run did, as a table, as JSON and as a page.

use std::path::Path;

use anyhow::Context;
use bantam_eval::{Align, Table};
use bantam_optimize::Report;
use bantam_optimize::report::SiteReport;

use super::page;
use crate::output::{mebibytes, significant};

/// Writes `report.json` and `report.html` into the folder.
pub(super) fn write(report: &Report, folder: &Path) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(report)?;
    for (name, text) in [("report.json", json), ("report.html", page::html(report))] {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The sites of a kind: those whose modules have the same last names.
pub(super) struct Kind<'a> {
    pub(super) name: String,
    /// One for each layer of the model.
    pub(super) sites: Vec<&'a SiteReport>,
}

/// The last names of a site's modules, such as `gate_proj+up_proj`.
fn kind_of(site: &SiteReport) -> String {
    let names = site.modules.iter().map(|module| module.rsplit('.').next().unwrap_or(module));
    names.collect::<Vec<_>>().join("+")
}

pub(super) fn kinds(report: &Report) -> Vec<Kind<'_>> {
    let mut kinds: Vec<Kind<'_>> = Vec::new();
    for site in &report.sites {
        let name = kind_of(site);
        match kinds.iter_mut().find(|kind| kind.name == name) {
            Some(kind) => kind.sites.push(site),
            None => kinds.push(Kind { name, sites: vec![site] }),
        }
    }
    kinds
}

impl Kind<'_> {
    /// The mean over layers that have the number.
    fn mean(&self, number: impl Fn(&SiteReport) -> Option<f64>) -> Option<f64> {
        let numbers: Vec<f64> = self.sites.iter().filter_map(|site| number(site)).collect();
        (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
    }

    fn schemes(&self) -> String {
        let kept = || "kept".to_owned();
        let mut names: Vec<String> =
            self.sites.iter().map(|site| site.scheme.clone().unwrap_or_else(kept)).collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    }
}

/// What people read at the end of a run.
pub(super) fn summary(report: &Report, folder: &Path) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(vec![
        ("layers", Left),
        ("stored in", Left),
        ("MiB", Right),
        ("error of nearest (%)", Right),
        ("error (%)", Right),
        ("worst (%)", Right),
    ]);
    let percent = |share: Option<f64>| share.map_or("–".to_owned(), |s| significant(100.0 * s));
    for kind in kinds(report) {
        let worst = kind.sites.iter().filter_map(|site| site.error).reduce(f64::max);
        table.row(vec![
            format!("{} × {}", kind.sites.len(), kind.name),
            kind.schemes(),
            mebibytes(kind.sites.iter().map(|site| site.bytes).sum()),
            percent(kind.mean(|site| site.error_of_nearest)),
            percent(kind.mean(|site| site.error)),
            percent(worst),
        ]);
    }
    let formats = report.formats.as_ref().map_or_else(String::new, |formats| {
        format!(
            "{:.3} bits a weight of {} allowed, chosen by {} in {:.0} s\n",
            formats.bits, formats.bits_asked, formats.score, formats.seconds
        )
    });
    let size = format!(
        "{} MiB, from {} MiB, in {:.0} s\n",
        mebibytes(report.quantized_bytes),
        mebibytes(report.original_bytes),
        report.seconds
    );
    let accuracy = report.accuracy.as_ref().map_or_else(String::new, |accuracy| {
        format!(
            "perplexity {:.3}, of the original {:.3} ({:+.2} %); KL {} nats/token; same first choice \
             {:.1} %\n  on {} tokens of {}\n",
            accuracy.quantized_perplexity,
            accuracy.original_perplexity,
            100.0 * (accuracy.quantized_perplexity / accuracy.original_perplexity - 1.0),
            significant(accuracy.kl),
            100.0 * accuracy.top1_agreement,
            accuracy.tokens,
            accuracy.text
        )
    });
    let error = "Error: squared error of a layer's outputs on the calibration tokens, as a share of \
                 their squares; nearest is plain rounding.\n";
    format!("{table}{error}{formats}{size}{accuracy}Written to {}\n", folder.display())
}
