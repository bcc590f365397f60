//! The rules of ARCHITECTURE.md: arrows point down, files hold one idea, unsafe code has its places.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which layer each crate lives on; an arrow only points down. Crates to come have their place.
const LAYERS: [(&str, u32); 15] = [
    ("numerics", 0),
    ("backend", 1),
    ("text", 1),
    ("checkpoint", 2),
    ("cpu", 2),
    ("cuda", 2),
    ("cuda-kernels", 2),
    ("comm", 2),
    ("model", 3),
    ("engine", 4),
    ("optimize", 4),
    ("eval", 5),
    ("server", 5),
    ("cli", 6),
    ("tilesim", 6),
];

/// Lines that a source file may have.
const MAX_LINES: usize = 600;

/// Where `unsafe` may stand: the number formats, the back ends, and the one call that makes the allocator
/// give memory back.
const UNSAFE_PLACES: [&str; 5] = [
    "crates/numerics/",
    "crates/cpu/",
    "crates/cuda/",
    "crates/cuda-kernels/",
    "crates/server/src/allocator.rs",
];

/// Checks every rule; the error lists all faults.
pub(crate) fn check() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut faults = upward_arrows(&dependencies(&root)?);
    let mut files = Vec::new();
    for folder in ["crates", "xtask"] {
        source_files(&root.join(folder), &mut files)?;
    }
    for file in files {
        let text =
            std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let relative = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
        faults.extend(file_faults(&relative, &text));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// The dependencies of each crate of the workspace on others of it, dev-dependencies left out: a
/// test may look anywhere.
fn dependencies(root: &Path) -> Result<BTreeMap<String, Vec<String>>, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output()
        .map_err(|e| format!("cargo metadata: {e}"))?;
    let metadata: Value =
        serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata: {e}"))?;
    let name =
        |v: &Value| v["name"].as_str().and_then(|n| n.strip_prefix("bantam-")).map(str::to_owned);
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    Ok(packages
        .iter()
        .filter_map(|package| {
            let needs = package["dependencies"].as_array()?;
            let needs = needs.iter().filter(|need| need["kind"].as_str() != Some("dev"));
            Some((name(package)?, needs.filter_map(name).collect()))
        })
        .collect())
}

fn upward_arrows(dependencies: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let layer = |name: &str| LAYERS.iter().find(|(n, _)| *n == name).map(|(_, layer)| *layer);
    let mut faults = Vec::new();
    for (from, needs) in dependencies {
        let Some(from_layer) = layer(from) else {
            faults.push(format!("crate {from} has no layer; give it one in xtask/src/house.rs"));
            continue;
        };
        for to in needs {
            match layer(to) {
                Some(to_layer) if to_layer < from_layer => {}
                Some(to_layer) => faults.push(format!(
                    "{from} (layer {from_layer}) depends on {to} (layer {to_layer}); arrows point down"
                )),
                None => faults.push(format!("{from} depends on {to}, which has no layer")),
            }
        }
    }
    faults
}

fn source_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for entry in entries {
        let path = entry.map_err(|e| format!("{}: {e}", folder.display()))?.path();
        if path.is_dir() {
            source_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn file_faults(file: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    let generated = text.lines().next().is_some_and(|first| first.contains("@generated"));
    if lines > MAX_LINES && !generated {
        faults.push(format!("{file} has {lines} lines, more than {MAX_LINES}; one idea a file"));
    }
    // In pieces, so that this file does not accuse itself.
    let signs = [concat!("uns", "afe {"), concat!("uns", "afe fn"), concat!("uns", "afe impl")];
    let allowed = UNSAFE_PLACES.iter().any(|place| file.starts_with(place));
    let code = |line: &&str| !line.trim_start().starts_with("//");
    if !allowed && text.lines().filter(code).any(|line| signs.iter().any(|s| line.contains(s))) {
        faults.push(format!("{file} has unsafe code; its places are {}", UNSAFE_PLACES.join(", ")));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_is_in_order() {
        if let Err(faults) = check() {
            panic!("{faults}");
        }
    }

    #[test]
    fn an_upward_arrow_is_named() {
        let arrow = |from: &str, to: &str| BTreeMap::from([(from.to_owned(), vec![to.to_owned()])]);
        assert!(upward_arrows(&arrow("engine", "model")).is_empty());
        for (from, to) in [("model", "engine"), ("engine", "optimize"), ("numerics", "nowhere")] {
            let faults = upward_arrows(&arrow(from, to));
            assert_eq!(faults.len(), 1, "{from} to {to}");
            assert!(faults[0].contains(from) && faults[0].contains(to));
        }
    }

    #[test]
    fn long_files_and_unsafe_code_are_named() {
        let sin = concat!("uns", "afe { }\n");
        assert!(file_faults("crates/cpu/src/a.rs", sin).is_empty());
        assert_eq!(file_faults("crates/engine/src/a.rs", sin).len(), 1);
        let long = "\n".repeat(MAX_LINES + 1);
        assert_eq!(file_faults("crates/cpu/src/a.rs", &long).len(), 1);
        assert!(file_faults("crates/cpu/src/a.rs", &format!("// @generated{long}")).is_empty());
    }
}
