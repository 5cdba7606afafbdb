//! Programs that are written in Go and that tests need, built into the target directory.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// A directory below the target directory that is this process's alone; others wait for it.
#[derive(Debug)]
pub struct Workplace {
    directory: PathBuf,
    _lock: File,
}

impl Workplace {
    /// Makes the directory of this name if it is missing, and waits until nobody else builds in it.
    ///
    /// # Errors
    /// The directory cannot be made or locked.
    pub fn enter(name: &str) -> anyhow::Result<Self> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
            PathBuf::from,
        );
        let directory = target.join(name);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let lock = File::create(directory.join("lock")).context("cannot make a lock file")?;
        lock.lock().context("cannot lock the build")?;
        Ok(Self {
            directory,
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Runs `go` to its end; `false` if Go is not installed.
///
/// # Errors
/// It cannot be run, or fails: with what it wrote last, which says whether it was the source, the
/// network or the disk.
pub fn run(go: &mut Command) -> anyhow::Result<bool> {
    const LAST_LINES: usize = 20;

    let output = match go.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).context("cannot run go"),
    };
    if output.status.success() {
        return Ok(true);
    }
    let written = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = written.lines().collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    bail!("go: {}\n{}", output.status, last.join("\n"));
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a test that cannot set itself up has failed"
    )]

    use super::*;

    #[test]
    fn a_build_that_fails_says_why() {
        let module = tempfile::tempdir().unwrap();
        fs::write(module.path().join("go.mod"), "module broken\n").unwrap();
        let source = "package main\n\nfunc main() { missing() }\n";
        fs::write(module.path().join("main.go"), source).unwrap();
        let mut go = Command::new("go");
        match run(go.arg("build").current_dir(module.path())) {
            Err(error) => {
                let error = format!("{error:#}");
                assert!(error.contains("undefined: missing"), "{error}");
            }
            Ok(installed) => {
                assert!(!installed, "was built");
                let required =
                    std::env::var("SEALANE_TEST_REQUIRE").is_ok_and(|what| what == "all");
                let reason = "Go is not installed";
                assert!(!required, "required, but {reason}");
                eprintln!("skipped: {reason}");
            }
        }
    }

    #[test]
    fn no_go_is_no_failure() {
        let mut go = Command::new("/nonexistent/go");
        assert!(!run(&mut go).unwrap());
    }
}
