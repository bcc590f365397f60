//! How much memory models may take on this machine.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that models may take, so that too much is refused instead of ending the process; none where
/// the system does not say (only Linux does).
///
/// A tenth stays free for what no plan counts: the tokenizer, logits that are handed out, threads.
pub(crate) fn budget() -> Option<u64> {
    let available = available(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let least = cgroup_limit().map_or(available, |limit| limit.min(available));
    Some(least - least / 10)
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The lowest `memory.max` of this process's control group and of those around it (cgroup v2).
fn cgroup_limit() -> Option<u64> {
    let own = own_group(&fs::read_to_string("/proc/self/cgroup").ok()?)?;
    let root = Path::new("/sys/fs/cgroup");
    // Inside a container the path may be one of the host's that is not visible: the root remains.
    let groups = own.ancestors().map(|group| root.join(group));
    groups.filter_map(|group| limit(&fs::read_to_string(group.join("memory.max")).ok()?)).min()
}

/// The group of version 2, relative to the root of all groups.
fn own_group(cgroup: &str) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(PathBuf::from(path))
}

/// The bytes that a `memory.max` states; none for `max`.
fn limit(memory_max: &str) -> Option<u64> {
    memory_max.trim().parse().ok()
}

/// Reads a number of bytes such as `12GiB`, `800MB` or `1.5G`; a bare G is a GiB.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let refuse = || format!("{text:?} is no number of bytes; expected one such as 12GiB or 800MiB");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "k" | "kib" => 1u64 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(refuse()),
    };
    let number: f64 = number.parse().map_err(|_| refuse())?;
    let bytes = number * factor as f64;
    // Beyond that a float is no whole number of bytes, and no machine has as much.
    if (1.0..=9e15).contains(&bytes) { Ok(bytes as u64) } else { Err(refuse()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_memory_are_read() {
        let good = [
            ("12GiB", 12 << 30),
            ("12g", 12 << 30),
            ("1.5 GiB", 3 << 29),
            ("800MB", 800_000_000),
            ("4096", 4096),
            ("1t", 1 << 40),
        ];
        for (text, expected) in good {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "GiB", "-1G", "0", "1e9", "12 parsecs", "1.2.3G", "99999999T"] {
            assert!(bytes(text).unwrap_err().contains("12GiB"), "{text}");
        }
    }

    #[test]
    fn the_system_is_understood() {
        let meminfo = "MemTotal:  24672060 kB\nMemFree: 1 kB\nMemAvailable:   1000 kB\n";
        assert_eq!(available(meminfo), Some(1_024_000));
        assert_eq!(available("MemTotal: 5 kB\n"), None);
        assert_eq!(limit("1073741824\n"), Some(1 << 30));
        assert_eq!(limit("max\n"), None);
        assert_eq!(own_group("1:cpu:/x\n0::/a/b\n"), Some("a/b".into()));
        assert_eq!(own_group("0::/\n"), Some("".into()));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_states_a_budget() {
        assert!(budget().is_some_and(|bytes| bytes > 0));
    }
}
