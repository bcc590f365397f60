//! Advice for people.

use std::fmt;

use bantam_eval::{Align, Table};
use bantam_optimize::advice::ByWidth;
use bantam_optimize::advice::{
    AS_STORED, Attainable, CalibrationTime, Candidate, LossBasis, Memory,
};

use super::{Answer, CPU};
use crate::inspect::heading;

/// What marks measured numbers.
const MEASURED: &str = "*";

impl fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", heading(self.model))?;
        writeln!(f, "{}", self.device_line())?;
        writeln!(f, "{}\n", self.workload_line())?;
        let recommended = if self.advice.recommended().is_some() { "Recommended: " } else { "" };
        writeln!(f, "{}", wrapped(&format!("{recommended}{}", self.advice.reason)))?;
        if let Some(cache) = &self.advice.cache {
            let (kv, saved, unit) = (cache.kv, self.unit().of(cache.saved_bytes), self.unit().name);
            let option = match self.advice.recommended() {
                Some(best) if best.recipe == AS_STORED => format!("MODEL@bf16+{kv}"),
                _ => format!("--kv {kv} besides"),
            };
            let text = format!(
                "With {option}: {:.2} times as fast as 16 bits, and {saved} {unit} less.",
                cache.speed_up
            );
            writeln!(f, "{text}")?;
        }
        writeln!(f, "\n{}", self.table())?;
        let left_out = self.left_out();
        if !left_out.is_empty() {
            writeln!(f, "Left out:")?;
            left_out.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
            writeln!(f)?;
        }
        writeln!(f, "{}", self.notes())?;
        self.next_steps().map_or(Ok(()), |steps| writeln!(f, "\nNext:\n{steps}"))
    }
}

impl Answer<'_> {
    fn device_line(&self) -> String {
        let device = self.device;
        let peaks = device.peaks;
        let fp8 = peaks
            .fp8
            .map_or_else(|| "no fp8".to_owned(), |peak| format!("{} in fp8", operations(peak)));
        let memory = device.usable_bytes.map_or(String::new(), |bytes| {
            format!("; {:.1} GiB for models", bytes as f64 / f64::from(1u32 << 30))
        });
        let known = if self.args.device == CPU { "measured now" } else { "published" };
        format!(
            "on {}: reads {:.1} GB/s, computes {} in bf16, {} in int8, {fp8} ({known}){memory}",
            device.name,
            device.read_bytes_per_second / 1e9,
            operations(peaks.bf16),
            operations(peaks.int8),
        )
    }

    fn workload_line(&self) -> String {
        let work = self.workload;
        let requests = if work.batch == 1 { "request" } else { "requests side by side" };
        format!(
            "for {} {requests}, {} tokens in and {} out",
            work.batch, work.input_tokens, work.output_tokens
        )
    }

    fn candidates(&self) -> &[Candidate] {
        &self.advice.candidates
    }

    /// MiB for small models, GiB for large ones.
    fn unit(&self) -> Unit {
        let largest = self.candidates().iter().map(|candidate| candidate.memory.total()).max();
        if largest.unwrap_or_default() < 10 << 30 { Unit::MIB } else { Unit::GIB }
    }

    fn table(&self) -> Table {
        use Align::{Left, Right};
        let unit = self.unit();
        let mut table = Table::new([
            ("recipe".to_owned(), Left),
            ("computes in".to_owned(), Left),
            ("cache".to_owned(), Left),
            (format!("memory ({})", unit.name), Right),
            ("first token (ms)".to_owned(), Right),
            ("decode (tok/s)".to_owned(), Right),
            ("speed-up".to_owned(), Right),
            ("loss (%)".to_owned(), Left),
            ("calibration".to_owned(), Left),
        ]);
        for candidate in self.candidates() {
            let mark = if candidate.folder.is_some() { MEASURED } else { "" };
            let mut cells = vec![
                candidate.recipe.clone(),
                computes_in(candidate),
                candidate.cache.to_string(),
                unit.of(candidate.memory.total()) + mark,
            ];
            match &candidate.speed {
                Some(speed) => cells.extend([
                    short(1e3 * speed.first_token_seconds),
                    short(speed.decode_tokens_per_second),
                ]),
                None => cells.extend(["–", "–"].map(str::to_owned)),
            }
            cells.push(candidate.speed_up.map_or("–".to_owned(), |times| format!("{times:.2}")));
            cells.push(loss(candidate));
            cells.push(calibration(candidate.calibration));
            table.row(cells);
        }
        table
    }

    fn left_out(&self) -> Vec<String> {
        let out = self.candidates().iter().filter_map(|candidate| {
            candidate.left_out.as_ref().map(|why| format!("{}: {why}", candidate.recipe))
        });
        out.collect()
    }

    /// What every number means.
    fn notes(&self) -> String {
        let mut notes = vec![self.note_on_memory(), note_on_speed(&self.device.attainable)];
        if self.args.device == CPU {
            notes.push(
                "Limits are those of this moment: other work on the machine lowers them.".into(),
            );
        }
        if self.candidates().iter().any(|candidate| candidate.speed.is_some_and(|s| s.widened)) {
            notes.push(format!(
                "bf16, no fp8: {} multiplies FP8 in bf16, so it saves memory only.",
                self.device.name
            ));
        }
        notes.extend(self.notes_on_loss());
        let classes = |candidate: &Candidate| {
            matches!(
                candidate.calibration,
                CalibrationTime::Minutes | CalibrationTime::TensOfMinutes
            )
        };
        if self.candidates().iter().any(classes) {
            notes.push(
                "Calibration: for models of some ten billion parameters on a GPU; it grows with the \
                 model."
                    .to_owned(),
            );
        }
        for candidate in self.candidates() {
            if let Some(folder) = &candidate.folder {
                notes.push(format!("{MEASURED} measured: {}, {folder}", candidate.recipe));
            }
        }
        notes.iter().map(|note| wrapped(note)).collect::<Vec<_>>().join("\n")
    }

    fn note_on_memory(&self) -> String {
        let stored = self.candidates().iter().find(|candidate| candidate.recipe == AS_STORED);
        let parts = stored.map_or(String::new(), |candidate| {
            let Memory { weights_bytes, cache_bytes, workspace_bytes } = candidate.memory;
            let unit = self.unit();
            format!(
                "; in 16 bits {} + {} + {} {}",
                unit.of(weights_bytes),
                unit.of(cache_bytes),
                unit.of(workspace_bytes),
                unit.name
            )
        });
        format!("Memory: weights, the cache of all requests, workspace{parts}.")
    }

    fn notes_on_loss(&self) -> Vec<String> {
        let has = |basis| self.candidates().iter().any(|candidate| candidate.loss.basis == basis);
        let notes = [
            (
                LossBasis::Mmlu,
                "Loss: of MMLU's score, as published for models of 7 to 180 billion parameters.",
            ),
            (
                LossBasis::Smollm2,
                "Loss: rise of perplexity of SmolLM2-135M, which models below 2 billion parameters \
                 are judged by; its weights lie on a 4-bit grid, so INT4 may differ on others.",
            ),
            (
                LossBasis::Measured,
                "Loss with *: rise of perplexity on the text that bantam quantize compares on.",
            ),
            (
                LossBasis::Class,
                "Loss without a number: the class of NVIDIA's guide; high where it has none, and for \
                 models smaller than those it measured.",
            ),
        ];
        let notes = notes.into_iter().filter(|(basis, _)| has(*basis));
        notes.map(|(_, note)| note.to_owned()).collect()
    }

    /// The commands that make and prove what is recommended.
    fn next_steps(&self) -> Option<String> {
        let best = self.advice.recommended()?;
        if best.recipe == AS_STORED || best.folder.is_some() {
            return None;
        }
        let (model, recipe) = (&self.args.model, &best.recipe);
        let kv = match (self.args.kv, &self.advice.cache) {
            (Some(kv), _) => format!(" --kv {kv}"),
            (None, Some(cache)) => format!(" [--kv {}]", cache.kv),
            (None, None) => String::new(),
        };
        Some(format!(
            "  bantam quantize {model} --recipe {recipe}{kv} --output ./{recipe}\n  \
             bantam advise {model} … --report ./{recipe}    measured beside predicted"
        ))
    }
}

struct Unit {
    name: &'static str,
    bytes: f64,
}

impl Unit {
    const MIB: Self = Self { name: "MiB", bytes: (1u64 << 20) as f64 };
    const GIB: Self = Self { name: "GiB", bytes: (1u64 << 30) as f64 };

    fn of(&self, bytes: u64) -> String {
        format!("{:.1}", bytes as f64 / self.bytes)
    }
}

fn computes_in(candidate: &Candidate) -> String {
    match &candidate.speed {
        Some(speed) if speed.widened => format!("{}, no fp8", speed.arithmetic),
        Some(speed) => speed.arithmetic.to_string(),
        None => "–".to_owned(),
    }
}

fn loss(candidate: &Candidate) -> String {
    let loss = &candidate.loss;
    match (loss.percent, loss.basis) {
        (_, LossBasis::Exact) => "none".to_owned(),
        (Some((_, most)), LossBasis::Measured) => format!("{} {most:.2}{MEASURED}", loss.class),
        (Some((least, most)), _) if least == most => format!("{} {most:.1}", loss.class),
        (Some((least, most)), _) => format!("{} {least:.1}–{most:.1}", loss.class),
        (None, _) => loss.class.to_string(),
    }
}

fn calibration(time: CalibrationTime) -> String {
    let mark = if matches!(time, CalibrationTime::Measured(_)) { MEASURED } else { "" };
    format!("{time}{mark}")
}

fn note_on_speed(shares: &Attainable) -> String {
    let percent = |share: f64| format!("{:.0}", 100.0 * share);
    let ByWidth { sixteen, eight, four } = shares.reading;
    let widths = [sixteen, eight, four].map(percent);
    let reading = if sixteen == eight && eight == four {
        format!("{} %", widths[0])
    } else {
        format!("{} % (16, 8, 4 bits)", widths.join(", "))
    };
    let between = match shares.layer_seconds {
        0.0 => String::new(),
        seconds => format!(", and {:.0} µs a layer between kernels", 1e6 * seconds),
    };
    format!(
        "Speed: predicted, the slower of reading weights at {reading} of the bandwidth and \
         multiplying at {} % (16 bits) or {} % (8 bits) of the peak{between}; attention apart.",
        percent(shares.bf16),
        percent(shares.eight_bit),
    )
}

/// Operations per second in a readable unit.
fn operations(per_second: f64) -> String {
    if per_second >= 1e12 {
        format!("{:.0} TFLOP/s", per_second / 1e12)
    } else {
        format!("{:.0} GFLOP/s", per_second / 1e9)
    }
}

/// Three digits that count, no more.
fn short(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// Characters of a line.
const WIDTH: usize = 100;

/// Breaks a text at spaces; lines after the first are indented.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is a line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(format!("  {word}"));
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}
