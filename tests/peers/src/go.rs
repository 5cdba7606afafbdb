//! Peers that are written in Go, built from modules beside this crate's sources.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Path of the program that `package` of this module is, which is built if it is not there yet; `None`
/// if Go is not installed. The program has the module's name.
///
/// # Errors
/// The build fails.
pub fn build(module: &str, package: &str) -> anyhow::Result<Option<PathBuf>> {
    let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| crate_directory.join("../../target"), PathBuf::from);
    let directory = target.join(module);
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    // Other test processes wait; what was built before is checked by Go's own cache.
    let lock = File::create(directory.join("lock")).context("cannot make a lock file")?;
    lock.lock().context("cannot lock the build")?;
    let program = directory.join(module);
    let status = Command::new("go")
        .args(["build", "-trimpath", "-o"])
        .arg(&program)
        .arg(package)
        .current_dir(crate_directory.join(module))
        .stdin(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => Ok(Some(program)),
        Ok(status) => bail!("go build: {status}"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("cannot run go"),
    }
}
