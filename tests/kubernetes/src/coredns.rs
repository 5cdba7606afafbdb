//! CoreDNS, the DNS server that ours is compared with, built into the target directory.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, bail};

use crate::programs::{Unavailable, target_directory};

/// The version compared with.
pub const COREDNS_VERSION: &str = "v1.12.4";

/// Path of CoreDNS, which is built if it is not there yet: about two minutes.
///
/// # Errors
/// [`Unavailable`] if it is not there and Go is not either.
///
/// # Panics
/// If the build fails.
pub fn coredns() -> Result<PathBuf, Unavailable> {
    static BUILT: OnceLock<Result<PathBuf, Unavailable>> = OnceLock::new();
    let built = BUILT.get_or_init(|| match build() {
        Ok(built) => built,
        Err(error) => panic!("cannot build CoreDNS: {error:#}"),
    });
    built.clone()
}

/// Builds unless this version was built before; other test processes wait meanwhile.
fn build() -> anyhow::Result<Result<PathBuf, Unavailable>> {
    let target = target_directory(Path::new(env!("CARGO_MANIFEST_DIR")));
    let directory = target.join("coredns");
    let bin = directory.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
    let lock = File::create(directory.join("lock")).context("cannot make a lock file")?;
    lock.lock().context("cannot lock the build")?;
    let (program, stamp) = (bin.join("coredns"), directory.join("version"));
    let is_built = fs::read_to_string(&stamp).is_ok_and(|built| built == COREDNS_VERSION);
    if is_built && program.is_file() {
        return Ok(Ok(program));
    }
    eprintln!("building CoreDNS {COREDNS_VERSION} (about two minutes, once)");
    let bin = fs::canonicalize(&bin).context("a directory that was made")?;
    let status = Command::new("go")
        .args(["install", "-trimpath", "-ldflags", "-s -w"])
        .arg(format!("github.com/coredns/coredns@{COREDNS_VERSION}"))
        .env("GOBIN", bin)
        .env("CGO_ENABLED", "0")
        // A module around the caller does not matter to what is installed.
        .current_dir(&directory)
        .stdin(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => {
            fs::write(&stamp, COREDNS_VERSION).context("cannot note what was built")?;
            Ok(Ok(program))
        }
        Ok(status) => bail!("go install: {status}"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Err(Unavailable(
            "Go is not installed, which builds CoreDNS".to_owned(),
        ))),
        Err(error) => Err(error).context("cannot run go"),
    }
}
