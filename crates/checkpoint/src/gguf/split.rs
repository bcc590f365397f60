//! Models split over several GGUF files: `NAME-00001-of-00003.gguf`.

use std::path::{Path, PathBuf};

use super::header::Header;
use crate::CheckpointError;

/// The parts of a name `STEM-NUMBER-of-COUNT.gguf`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SplitName<'a> {
    stem: &'a str,
    /// Counted from 1.
    pub(crate) number: u32,
    count: u32,
}

impl<'a> SplitName<'a> {
    /// Takes a file name apart; `None` for a file that is not one of several.
    pub(crate) fn parse(name: &'a str) -> Option<Self> {
        let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let five_digits = |text: &str| {
            let digits = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u32>().ok()).flatten()
        };
        let (number, count) = (five_digits(number)?, five_digits(count)?);
        (1..=count).contains(&number).then_some(Self { stem, number, count })
    }

    /// All parts of the model that the file `path` is, or is a part of, in order.
    pub(crate) fn parts_of(path: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
        let Some(split) =
            path.file_name().and_then(|name| name.to_str()).and_then(SplitName::parse)
        else {
            return Ok(vec![path.to_path_buf()]);
        };
        (1..=split.count)
            .map(|number| {
                let name = format!("{}-{number:05}-of-{:05}.gguf", split.stem, split.count);
                let part = path.with_file_name(&name);
                if part.is_file() {
                    return Ok(part);
                }
                let problem = format!("one part of {}; {name} is missing beside it", split.count);
                Err(CheckpointError::Layout { path: path.to_path_buf(), problem })
            })
            .collect()
    }
}

/// Holds the `split.*` metadata of the parts against what is there.
pub(crate) fn check(headers: &[Header]) -> Result<(), CheckpointError> {
    let check =
        |header: &Header, key: &str, actual: usize| match header.metadata.integer::<usize>(key)? {
            Some(stated) if stated != actual => {
                Err(header.metadata.error(key, format!("is {stated}, the files have {actual}")))
            }
            _ => Ok(()),
        };
    let tensors = headers.iter().map(|header| header.tensors.len()).sum();
    for (number, header) in headers.iter().enumerate() {
        // A model that is not split may still say so: count 0 or 1.
        if headers.len() > 1 || header.metadata.integer::<usize>("split.count")? > Some(1) {
            check(header, "split.count", headers.len())?;
            check(header, "split.no", number)?;
            check(header, "split.tensors.count", tensors)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let split = SplitName::parse("big-Q8_0-00002-of-00003.gguf");
        assert_eq!(split, Some(SplitName { stem: "big-Q8_0", number: 2, count: 3 }));
        for name in
            ["big.gguf", "big-2-of-3.gguf", "big-00004-of-00003.gguf", "x-00000-of-00000.gguf"]
        {
            assert_eq!(SplitName::parse(name), None, "{name}");
        }
    }
}
