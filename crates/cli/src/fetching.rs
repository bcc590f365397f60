//! Downloads, with a progress bar.

use bantam_checkpoint::CheckpointError;
use bantam_checkpoint::fetch::FetchEvent;
use indicatif::ProgressBar;

use crate::output;

/// Does what may fetch something, and shows how far it has come.
pub(crate) fn shown<T>(
    work: impl FnOnce(&mut dyn FnMut(FetchEvent)) -> Result<T, CheckpointError>,
) -> anyhow::Result<T> {
    let mut bar = ProgressBar::hidden();
    let result = work(&mut |event| match event {
        FetchEvent::Progress { done, total, name } => {
            if bar.is_hidden() {
                bar = output::progress_bar(0, &name);
            }
            bar.set_message(name);
            bar.set_length(total.unwrap_or(done));
            bar.set_position(done);
        }
        // Also for a log: a download is worth a line wherever standard error goes.
        event => bar.suspend(|| eprintln!("{}", output::one_line(&event.to_string()))),
    });
    bar.finish_and_clear();
    Ok(result?)
}
