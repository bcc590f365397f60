//! Why a candidate is the best, in words.

use super::candidate::{AS_STORED, Candidate};
use super::cost::Speed;
use super::loss::Loss;

/// A few sentences on candidates in order; `baseline` is the work in 16 bits.
pub(super) fn reason(candidates: &[Candidate], baseline: &Speed) -> String {
    let usable = || candidates.iter().filter(|candidate| candidate.left_out.is_none());
    let Some(best) = usable().next() else {
        return "Nothing can be used for this; the reasons are below.".to_owned();
    };
    let mut sentences = vec![headline(best)];
    if let Some(speed) = &best.speed {
        sentences.push(because(best, speed, baseline));
    }
    let stored = candidates.iter().find(|candidate| candidate.recipe == AS_STORED);
    if let Some(why) = stored.and_then(|stored| stored.left_out.as_ref()) {
        sentences.push(format!("16 bits: {why}."));
    }
    let speed_up = |candidate: &Candidate| candidate.speed_up.unwrap_or_default();
    let fastest = usable().max_by(|a, b| speed_up(a).total_cmp(&speed_up(b)));
    if let Some(faster) = fastest.filter(|faster| speed_up(faster) > 1.03 * speed_up(best)) {
        sentences.push(format!(
            "{} would be {:.2} times as fast as 16 bits, but at {}.",
            faster.recipe,
            speed_up(faster),
            at(&faster.loss)
        ));
    }
    sentences.join(" ")
}

fn headline(best: &Candidate) -> String {
    if best.recipe == AS_STORED {
        return "keep 16 bits: no recipe is faster by as much as its loss is worth.".to_owned();
    }
    let speed_up = best.speed_up.unwrap_or_default();
    format!("{}: {speed_up:.2} times as fast as 16 bits, at {}.", best.recipe, at(&best.loss))
}

/// A loss in words.
fn at(loss: &Loss) -> String {
    match loss.percent {
        Some((least, most)) if least == most => format!("{} loss ({most:.1} %)", loss.class),
        Some((least, most)) => format!("{} loss ({least:.1} to {most:.1} %)", loss.class),
        None => format!("{} loss", loss.class),
    }
}

fn because(best: &Candidate, speed: &Speed, baseline: &Speed) -> String {
    let total = baseline.total;
    let percent = |part: f64| 100.0 * part / total.total();
    let parts = [
        (total.reading, "waiting for memory"),
        (total.arithmetic, "arithmetic"),
        (total.between, "the time between kernels, which no format shortens"),
    ];
    let most = parts.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
    let (part, what) = most.unwrap_or_default();
    let spent = format!("{:.0} % of the work in 16 bits is {what}", percent(part));
    if best.recipe == AS_STORED || part == total.between {
        return format!("{spent}.");
    }
    let fewer = 100.0 * speed.decode_bytes / baseline.decode_bytes;
    let reads = format!("a decode step reads {fewer:.0} % of the bytes");
    let multiplies = match (speed.arithmetic == baseline.arithmetic, speed.widened) {
        (false, _) => format!("it multiplies in {}", speed.arithmetic),
        (true, false) => format!("it multiplies in {} all the same", speed.arithmetic),
        (true, true) => format!("it multiplies in {}: there is no FP8 here", speed.arithmetic),
    };
    if part == total.arithmetic {
        format!("{spent}; {multiplies}, and {reads}.")
    } else {
        format!("{spent}; {reads}, and {multiplies}.")
    }
}
