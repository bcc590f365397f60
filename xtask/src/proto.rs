//! `cargo xtask-proto`: the Rust code of the gRPC protocol from its description.
//!
//! The code is committed: building Bantam needs neither this nor `protoc`.

use std::fs;
use std::path::{Path, PathBuf};

/// The description, and where its code goes.
const PROTO: &str = "crates/server/proto/inference.proto";
const CODE: &str = "crates/server/src/grpc/inference.rs";

/// Writes the code.
pub(crate) fn write() -> Result<(), String> {
    let root = root();
    let code = generate(&root)?;
    fs::write(root.join(CODE), code).map_err(|error| format!("{CODE}: {error}"))
}

/// The code as it should be.
fn generate(root: &Path) -> Result<String, String> {
    let proto = root.join(PROTO);
    let folder = proto.parent().unwrap_or(root);
    let descriptors = protox::compile([&proto], [folder]).map_err(|error| error.to_string())?;
    let out = std::env::temp_dir().join(format!("bantam-proto-{}", std::process::id()));
    fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let compiled = tonic_prost_build::configure()
        .build_client(false)
        .build_server(true)
        .build_transport(false)
        .out_dir(&out)
        .compile_fds(descriptors)
        .and_then(|()| fs::read_to_string(out.join("inference.rs")));
    // What is left in the folder of temporary files harms nobody.
    let _ = fs::remove_dir_all(&out);
    compiled.map_err(|error| format!("{PROTO}: {error}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_code_is_that_of_the_description() {
        let root = root();
        let committed = fs::read_to_string(root.join(CODE)).unwrap();
        let generated = generate(&root).unwrap();
        assert!(committed == generated, "{CODE} is out of date: cargo xtask-proto");
    }
}
