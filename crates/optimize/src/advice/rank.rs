//! The order of candidates, and why some are left out.

use super::candidate::{AS_STORED, Candidate};
use super::device::Device;
use super::{Question, Workload};

/// What a recipe must bring for the trouble of quantizing.
const WORTH_DOING: f64 = 1.05;

/// Marks what cannot be used, and sorts: the best first, what is left out last.
pub(super) fn rank(candidates: &mut [Candidate], question: &Question<'_>) {
    for candidate in candidates.iter_mut().filter(|candidate| candidate.left_out.is_none()) {
        candidate.left_out = does_not_fit(candidate, question.device, &question.workload)
            .or_else(|| loses_too_much(candidate, question.max_loss?));
    }
    // Speed-ups are compared as users see them, so that differences without meaning do not decide.
    let seen = |worth: f64| (100.0 * worth).round();
    let worth = |candidate: &Candidate| {
        let speed_up = candidate.speed_up.unwrap_or_default();
        // A limit of the loss says that what is below it is bearable.
        let weight = if question.max_loss.is_some() { 1.0 } else { candidate.loss.class.worth() };
        let trouble = if candidate.recipe == AS_STORED { WORTH_DOING } else { 1.0 };
        seen(speed_up * weight * trouble)
    };
    let most = |candidate: &Candidate| candidate.loss.most().unwrap_or(f64::INFINITY);
    candidates.sort_by(|a, b| {
        let out = a.left_out.is_some().cmp(&b.left_out.is_some());
        out.then(worth(b).total_cmp(&worth(a)))
            .then(a.loss.class.cmp(&b.loss.class))
            .then(most(a).total_cmp(&most(b)))
            .then(a.calibration.magnitude().total_cmp(&b.calibration.magnitude()))
            .then(a.memory.total().cmp(&b.memory.total()))
    });
}

fn does_not_fit(candidate: &Candidate, device: &Device, workload: &Workload) -> Option<String> {
    let (needed, usable) = (candidate.memory.total(), device.usable_bytes?);
    if needed <= usable {
        return None;
    }
    let beside = candidate.memory.weights_bytes + candidate.memory.workspace_bytes;
    let one = (candidate.memory.cache_bytes / workload.batch as u64).max(1);
    let fitting = usable.saturating_sub(beside) / one;
    let way_out = match fitting {
        0 => "not even for one request".to_owned(),
        fitting => format!("--batch {} fits", fitting.min(workload.batch as u64 - 1).max(1)),
    };
    let gib = |bytes: u64| bytes as f64 / f64::from(1u32 << 30);
    Some(format!("needs {:.1} GiB of {:.1} GiB: {way_out}", gib(needed), gib(usable)))
}

fn loses_too_much(candidate: &Candidate, max_loss: f64) -> Option<String> {
    match candidate.loss.most() {
        Some(most) if most <= max_loss => None,
        Some(most) => Some(format!("loses {most:.1} %, more than --max-loss {max_loss}")),
        None => Some(format!(
            "no figure of its loss for --max-loss {max_loss}: quantize, then give --report"
        )),
    }
}
