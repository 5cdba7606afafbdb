//! Peers that are written in Go, built from modules beside this crate's sources.

use std::path::{Path, PathBuf};
use std::process::Command;

use sealane_test_go::Workplace;

/// Path of the program that `package` of this module is, which is built if it is not there yet; `None`
/// if Go is not installed. The program has the module's name.
///
/// # Errors
/// The build fails.
pub fn build(module: &str, package: &str) -> anyhow::Result<Option<PathBuf>> {
    // What was built before is checked by Go's own cache.
    let place = Workplace::enter(module)?;
    let program = place.directory().join(module);
    let mut go = Command::new("go");
    go.args(["build", "-trimpath", "-o"])
        .arg(&program)
        .arg(package)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(module));
    Ok(sealane_test_go::run(&mut go)?.then_some(program))
}
