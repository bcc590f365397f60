//! From what a user calls a model to a model that runs.

use std::path::Path;
use std::str::FromStr;

use anyhow::bail;
use bantam_backend::Backend;
use bantam_checkpoint::Checkpoint;
use bantam_checkpoint::fetch;
use bantam_model::{ArchSpec, Decoder, LoadOptions, MemoryPlan};
use bantam_text::Tokenizer;
use clap::Args;

use crate::device::{self, Device};
use crate::fetching;
use crate::format::Format;
use crate::output;

/// How a model is loaded, for the commands that run one.
#[derive(Clone, Debug, Args)]
pub(crate) struct DeviceArgs {
    /// CPU threads [default: one on each core this process may use]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,

    #[command(flatten)]
    pub(crate) unread: UnreadArgs,
}

/// Which tensors of a checkpoint need not be read.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct UnreadArgs {
    /// Load a checkpoint that holds tensors of such names, which the network does not read; * stands
    /// for any text; may be given several times
    #[arg(long = "allow-unread", value_name = "PATTERN")]
    pub(crate) allowed: Vec<String>,
}

impl DeviceArgs {
    pub(crate) fn open(&self) -> anyhow::Result<Device> {
        device::open(self.threads)
    }
}

/// `MODEL` or `MODEL@FORMAT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelArg {
    /// Alias, folder, file or hub name.
    pub(crate) name: String,
    /// The format, where one is stated.
    pub(crate) format: Option<Format>,
}

impl FromStr for ModelArg {
    type Err = <Format as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.rsplit_once('@') {
            // A path may hold an @ too, but no format holds a separator.
            Some((name, format)) if !format.contains('/') && !Path::new(text).exists() => {
                Ok(Self { name: name.to_owned(), format: Some(format.parse()?) })
            }
            _ => Ok(Self { name: text.to_owned(), format: None }),
        }
    }
}

impl ModelArg {
    /// Its format, or that of `--dtype` where it states none.
    pub(crate) fn format_or(&self, default: Format) -> Format {
        self.format.unwrap_or(default)
    }
}

/// Most sequences side by side that are believed.
const MAX_BATCH: usize = 1 << 20;

/// Reads a number of which 0 makes no sense.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected 1 or more, a whole number".to_owned()),
        Ok(number) => Ok(number),
    }
}

/// Reads a number of which 0 makes sense.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected 0 or more, a whole number".to_owned())
}

/// Reads a number of sequences side by side.
pub(crate) fn batch_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=MAX_BATCH) => Ok(number),
        _ => Err(format!("expected 1 to {MAX_BATCH}")),
    }
}

/// A checkpoint that is open, and what its configuration says.
pub(crate) struct OpenModel {
    pub(crate) name: String,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) arch: ArchSpec,
    /// What is worth saying of its files: names put right, tensors that are not read.
    pub(crate) notes: Vec<String>,
}

impl OpenModel {
    /// Finds the model, fetching it if need be, opens it, and says what is unusual in it. Reads no
    /// weights yet.
    pub(crate) fn open(name: &str, unread: &UnreadArgs) -> anyhow::Result<Self> {
        let path = fetching::shown(|progress| fetch::resolve(name, progress))?;
        let model = Self::of(name.to_owned(), Checkpoint::open(&path)?, unread)?;
        for note in &model.notes {
            output::note(&format!("{name}: {note}"));
        }
        Ok(model)
    }

    /// The same for a checkpoint that is open.
    pub(crate) fn of(
        name: String,
        checkpoint: Checkpoint,
        unread: &UnreadArgs,
    ) -> anyhow::Result<Self> {
        let checkpoint = checkpoint.allow_unread(&unread.allowed);
        let arch = ArchSpec::from_checkpoint(&checkpoint)?;
        let ignored = arch.check_tensors(&checkpoint)?;
        let ignored = ignored.iter().map(ToString::to_string);
        let notes = checkpoint.notes().iter().cloned().chain(ignored).collect();
        Ok(Self { name, checkpoint, arch, notes })
    }

    /// The context asked for with `--context`, if the model reaches that far.
    pub(crate) fn checked_context(&self, asked: usize) -> anyhow::Result<usize> {
        let own = self.arch.sizes.max_positions;
        if asked == 0 || asked > own {
            bail!(
                "--context is {asked}, but {} was made for {own} tokens; use 1 to {own}",
                self.name
            );
        }
        Ok(asked)
    }

    pub(crate) fn tokenizer(&self) -> anyhow::Result<Tokenizer> {
        Ok(Tokenizer::load(&self.checkpoint.tokenizer_source()?)?)
    }

    /// The memory that these options take; refuses what loading would refuse, before it.
    pub(crate) fn plan(
        &self,
        device: &Device,
        options: &LoadOptions,
    ) -> anyhow::Result<MemoryPlan> {
        Ok(MemoryPlan::new(&self.arch, options, device.block_tokens())?)
    }

    /// Loads the weights, with a progress bar.
    pub(crate) fn load(
        &self,
        device: &Device,
        options: &LoadOptions,
    ) -> anyhow::Result<Decoder<Device>> {
        let bar =
            output::progress_bar(self.checkpoint.total_bytes(), &format!("loading {}", self.name));
        let options = LoadOptions { load_threads: Some(device.threads()), ..options.clone() };
        let decoder = Decoder::load(device.clone(), &self.checkpoint, &options, &|progress| {
            bar.set_length(progress.total_bytes);
            bar.set_position(progress.done_bytes);
        });
        bar.finish_and_clear();
        Ok(decoder?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_follows_the_last_at_sign() {
        let arg: ModelArg = "org/model@int8".parse().unwrap();
        assert_eq!(arg, ModelArg { name: "org/model".into(), format: "int8".parse().ok() });
        let plain: ModelArg = "smollm2".parse().unwrap();
        assert_eq!(plain.format, None);
        let path = "no@such/model".parse::<ModelArg>().unwrap();
        assert_eq!((path.name.as_str(), path.format), ("no@such/model", None));
        let wrong = "smollm2@fp3".parse::<ModelArg>().unwrap_err();
        assert!(wrong.contains("fp3") && wrong.contains("int8"), "{wrong}");
    }
}
