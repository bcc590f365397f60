//! How much memory models may take on this machine.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that models may take, so that too much is refused instead of ending the process; none where
/// the system does not say (only Linux does).
///
/// A tenth stays free for what no plan counts: the tokenizer, logits that are handed out, threads.
pub(crate) fn budget() -> Option<u64> {
    let least = available()?.bytes;
    Some(least - least / 10)
}

/// Memory that this process can still take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Available {
    pub(crate) bytes: u64,
    /// What leaves no more.
    pub(crate) bound: &'static str,
}

/// The least of what the machine, the control groups and the process's own limits leave; none where
/// the system does not say.
pub(crate) fn available() -> Option<Available> {
    let limits = [
        (address_space_room(), "the address space limit (ulimit -v) of this process"),
        (data_room(), "the data size limit (ulimit -d) of this process"),
    ];
    let limits =
        limits.into_iter().filter_map(|(room, bound)| Some(Available { bytes: room?, bound }));
    limits.chain([unused()?]).min_by_key(|available| available.bytes)
}

/// The least of what the machine and the control groups leave for memory that is allocated already and
/// not yet used: the process's own limits count it from its allocation on.
pub(crate) fn unused() -> Option<Available> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let machine = Available { bytes: kibibytes(&meminfo, "MemAvailable:")?, bound: "this machine" };
    let bound = "the control group (container) of this process";
    let group = cgroup_room().map(|bytes| Available { bytes, bound });
    group.into_iter().chain([machine]).min_by_key(|available| available.bytes)
}

/// A line of `/proc/meminfo` or `/proc/self/status`, in bytes.
fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// What the limit on the address space leaves.
fn address_space_room() -> Option<u64> {
    room_within("Max address space", "VmSize:")
}

/// What the limit on private memory leaves.
fn data_room() -> Option<u64> {
    room_within("Max data size", "VmData:")
}

fn room_within(limit: &str, used: &str) -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some(process_limit(&limits, limit)?.saturating_sub(kibibytes(&status, used)?))
}

/// The soft limit of this name; none if it is `unlimited`.
fn process_limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The files in which a version of control groups says what it limits and counts.
struct GroupFiles {
    root: &'static str,
    limit: &'static str,
    used: &'static str,
    /// The line of `memory.stat` with the file pages that are given up first.
    reclaimable: &'static str,
}

const GROUPS_V2: GroupFiles = GroupFiles {
    root: "/sys/fs/cgroup",
    limit: "memory.max",
    used: "memory.current",
    reclaimable: "inactive_file ",
};

const GROUPS_V1: GroupFiles = GroupFiles {
    root: "/sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file ",
};

/// The least that this process's control group and those around it leave, of either version.
fn cgroup_room() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let rooms = |files: &GroupFiles, group: Option<PathBuf>| {
        // Inside a container the path may be one of the host's that is not visible: the root remains.
        let room = |group: &Path| {
            let folder = Path::new(files.root).join(group);
            group_room(files, |name| fs::read_to_string(folder.join(name)).ok())
        };
        group?.ancestors().filter_map(room).min()
    };
    let (v2, v1) = (rooms(&GROUPS_V2, own_group(&own)), rooms(&GROUPS_V1, own_memory_group(&own)));
    v2.into_iter().chain(v1).min()
}

/// What one group leaves, whose files `read` gives: its limit, less what it uses and cannot give up.
fn group_room(files: &GroupFiles, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let limit = limit(&read(files.limit)?)?;
    let used = read(files.used).and_then(|used| used.trim().parse::<u64>().ok()).unwrap_or(0);
    let stat = read("memory.stat").unwrap_or_default();
    let reclaimable = stat.lines().find_map(|line| line.strip_prefix(files.reclaimable));
    let reclaimable = reclaimable.and_then(|bytes| bytes.trim().parse::<u64>().ok()).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(reclaimable)))
}

/// The group of version 2, relative to the root of all groups.
fn own_group(cgroup: &str) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(PathBuf::from(path))
}

/// The group of version 1 that limits memory, relative to the root of those groups.
fn own_memory_group(cgroup: &str) -> Option<PathBuf> {
    let group = cgroup.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(":/")?;
        controllers.split(',').any(|controller| controller == "memory").then_some(path)
    })?;
    Some(PathBuf::from(group))
}

/// The bytes that a group's limit states; none for `max`. A group of version 1 without a limit states
/// one beyond every machine, which bounds nothing.
fn limit(limit: &str) -> Option<u64> {
    limit.trim().parse().ok()
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
        assert_eq!(kibibytes(meminfo, "MemAvailable:"), Some(1_024_000));
        assert_eq!(kibibytes("MemTotal: 5 kB\n", "MemAvailable:"), None);
        assert_eq!(limit("1073741824\n"), Some(1 << 30));
        assert_eq!(limit("max\n"), None);
        assert_eq!(own_group("1:cpu:/x\n0::/a/b\n"), Some("a/b".into()));
        assert_eq!(own_group("0::/\n"), Some("".into()));
        let v1 = "3:cpu,cpuacct:/a\n2:name=systemd:/x\n1:hugetlb,memory:/docker/b\n";
        assert_eq!(own_memory_group(v1), Some("docker/b".into()));
        assert_eq!(own_memory_group("0::/a\n"), None);
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max data size             unlimited            unlimited            bytes\n\
                      Max address space         5000000              unlimited            bytes\n";
        assert_eq!(process_limit(limits, "Max address space"), Some(5_000_000));
        assert_eq!(process_limit(limits, "Max data size"), None);
    }

    #[test]
    fn a_group_leaves_what_it_does_not_need() {
        let room = |version: &GroupFiles, files: &[(&str, &str)]| {
            let text =
                |name: &str| files.iter().find(|(file, _)| *file == name).map(|(_, text)| text);
            group_room(version, |name| text(name).map(|text| (*text).to_owned()))
        };
        assert_eq!(room(&GROUPS_V2, &[]), None);
        assert_eq!(room(&GROUPS_V2, &[("memory.max", "max\n")]), None);
        assert_eq!(room(&GROUPS_V2, &[("memory.max", "1000\n")]), Some(1000));
        let used = [
            ("memory.max", "1000\n"),
            ("memory.current", "700\n"),
            ("memory.stat", "anon 300\nfile 400\ninactive_file 250\n"),
        ];
        assert_eq!(room(&GROUPS_V2, &used), Some(550));
        let full = [("memory.limit_in_bytes", "900\n"), ("memory.usage_in_bytes", "1000\n")];
        assert_eq!(room(&GROUPS_V1, &full), Some(0));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_states_a_budget() {
        assert!(budget().is_some_and(|bytes| bytes > 0));
        assert!(available().is_some_and(|available| !available.bound.is_empty()));
    }
}
