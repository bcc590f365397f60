//! The report as one page: no script, nothing from elsewhere, readable in light and dark.

use std::fmt::Write;

use bantam_eval::{Chart, Horizontal, Line};
use bantam_optimize::Report;
use bantam_optimize::report::SiteReport;

use super::report::kinds;
use crate::output::{mebibytes, significant};

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color:#222;background:#fff}table{border-collapse:collapse;margin:1rem 0}\
td,th{padding:.2rem .7rem;border-bottom:1px solid #ddd;text-align:right}\
td:first-child,th:first-child,td.l{text-align:left}svg{max-width:100%;height:auto}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#16181c}td,th{border-color:#333}}";

/// The page.
pub(super) fn html(report: &Report) -> String {
    let mut page = String::new();
    let title = format!("{} of {}", report.recipe, report.model);
    let _ = writeln!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{0}</title>\
         <style>{STYLE}</style><h1>{0}</h1>",
        escape(&title)
    );
    facts(&mut page, report);
    for (title, number) in CHARTS {
        chart(&mut page, report, title, *number);
    }
    formats(&mut page, report);
    layers(&mut page, report);
    kv_scales(&mut page, report);
    page.push_str("</html>\n");
    page
}

/// A number of a site, for a chart.
type Number = fn(&SiteReport) -> Option<f64>;

const CHARTS: &[(&str, Number)] = &[
    ("Error of outputs (%), as stored", |site| Some(100.0 * site.error?)),
    ("Error of outputs (%), rounded to nearest", |site| Some(100.0 * site.error_of_nearest?)),
    ("Largest input over that of a usual token", |site| site.outlier_ratio.map(f64::from)),
];

fn facts(page: &mut String, report: &Report) {
    page.push_str("<table>\n");
    let mut row = |name: &str, value: String| {
        let _ = writeln!(page, "<tr><td>{name}<td class=l>{}", escape(&value));
    };
    row(
        "size",
        format!(
            "{} MiB, from {} MiB",
            mebibytes(report.quantized_bytes),
            mebibytes(report.original_bytes)
        ),
    );
    row("format", report.dialect.clone());
    row("time", format!("{:.0} s", report.seconds));
    if let Some(calibration) = &report.calibration {
        let (sequences, tokens) = (calibration.sequences, calibration.tokens);
        row(
            "calibration",
            format!("{sequences} sequences, {tokens} tokens: {}", calibration.source),
        );
    }
    if let Some(accuracy) = &report.accuracy {
        row(
            "perplexity",
            format!(
                "{:.3}, of the original {:.3}",
                accuracy.quantized_perplexity, accuracy.original_perplexity
            ),
        );
        row("KL divergence", format!("{} nats/token", significant(accuracy.kl)));
        row("same first choice", format!("{:.1} %", 100.0 * accuracy.top1_agreement));
        row("measured on", format!("{} tokens of {}", accuracy.tokens, accuracy.text));
    }
    for note in &report.notes {
        row("layers", note.clone());
    }
    page.push_str("</table>\n");
}

/// A line for each kind of site, over the layers.
fn chart(page: &mut String, report: &Report, title: &str, number: Number) {
    let lines = kinds(report).into_iter().map(|kind| {
        let sites = kind.sites.iter().enumerate();
        let points = sites.filter_map(|(layer, site)| Some((layer as f64, number(site)?)));
        Line { name: kind.name, points: points.collect(), labels: Vec::new(), marks: false }
    });
    let lines: Vec<Line> = lines.filter(|line| !line.points.is_empty()).collect();
    if lines.is_empty() {
        return;
    }
    let chart = Chart {
        title: title.to_owned(),
        horizontal: (Horizontal::Numbers, "layer".to_owned()),
        vertical: String::new(),
        lines,
    };
    let _ = writeln!(page, "{chart}");
}

/// What could be chosen for each site; what was is in bold.
fn formats(page: &mut String, report: &Report) {
    let Some(formats) = &report.formats else { return };
    let _ = write!(
        page,
        "<h2>Formats</h2>\n<p>{:.3} bits a weight of {} allowed. Beside each format: what it alone \
         costs the model, by {}.</p>\n<table><tr><th>layers<th>choices\n",
        formats.bits, formats.bits_asked, formats.score
    );
    for site in &formats.sites {
        let _ = write!(page, "<tr><td>{}", site.modules.join("<br>"));
        for (i, choice) in site.choices.iter().enumerate() {
            let text = format!("{}: {}", escape(&choice.scheme), significant(choice.score));
            let bold = if i == site.chosen { format!("<b>{text}</b>") } else { text };
            let _ = write!(page, "<td>{bold}");
        }
        page.push('\n');
    }
    page.push_str("</table>\n");
}

fn layers(page: &mut String, report: &Report) {
    page.push_str(
        "<h2>Layers</h2>\n<table><tr><th>layers<th>stored in<th>MiB<th>error of nearest (%)\
         <th>error (%)<th>factors<th>input scale<th>damping\n",
    );
    for site in &report.sites {
        let percent = |share: Option<f64>| share.map(|share| significant(100.0 * share));
        let modules = site.modules.join("<br>");
        let _ = write!(page, "<tr><td>{modules}");
        let cells = [
            Some(site.scheme.clone().unwrap_or_else(|| "kept".to_owned())),
            Some(mebibytes(site.bytes)),
            percent(site.error_of_nearest),
            percent(site.error),
            site.factors.clone(),
            site.static_scale.map(|scale| significant(scale.into())),
            site.damping.map(significant),
        ];
        for cell in cells {
            let _ = write!(page, "<td>{}", escape(&cell.unwrap_or_default()));
        }
        page.push('\n');
    }
    page.push_str("</table>\n");
}

fn kv_scales(page: &mut String, report: &Report) {
    if report.kv_scales.is_empty() {
        return;
    }
    page.push_str("<h2>Key/value cache</h2>\n<table><tr><th>layer<th>key scale<th>value scale\n");
    for (layer, scales) in report.kv_scales.iter().enumerate() {
        let (key, value) = (significant(scales.key.into()), significant(scales.value.into()));
        let _ = writeln!(page, "<tr><td>{layer}<td>{key}<td>{value}");
    }
    page.push_str("</table>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
