//! CoreDNS, the DNS server that ours is compared with, built into the target directory.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::Context as _;
use sealane_test_go::Workplace;

use crate::programs::Unavailable;

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
    let place = Workplace::enter("coredns")?;
    let bin = place.directory().join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
    let (program, stamp) = (bin.join("coredns"), place.directory().join("version"));
    let is_built = fs::read_to_string(&stamp).is_ok_and(|built| built == COREDNS_VERSION);
    if is_built && program.is_file() {
        return Ok(Ok(program));
    }
    eprintln!("building CoreDNS {COREDNS_VERSION} (about two minutes, once)");
    let bin = fs::canonicalize(&bin).context("a directory that was made")?;
    let mut go = Command::new("go");
    go.args(["install", "-trimpath", "-ldflags", "-s -w"])
        .arg(format!("github.com/coredns/coredns@{COREDNS_VERSION}"))
        .env("GOBIN", bin)
        .env("CGO_ENABLED", "0")
        // A module around the caller does not matter to what is installed.
        .current_dir(place.directory());
    if !sealane_test_go::run(&mut go)? {
        return Ok(Err(Unavailable(
            "Go is not installed, which builds CoreDNS".to_owned(),
        )));
    }
    fs::write(&stamp, COREDNS_VERSION).context("cannot note what was built")?;
    Ok(Ok(program))
}
