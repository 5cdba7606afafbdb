//! h2spec, the conformance suite of RFC 9113 and RFC 7541: built from its Go module, run against a
//! server, and read.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Cases with `-S`: recommendations of the standard are tested, too.
pub const CASES: usize = 146;

/// Seconds that h2spec waits for a reaction, per case.
const PATIENCE: &str = "2";

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many cases ran.
    pub cases: usize,
    /// Those that failed.
    pub failed: Vec<Failed>,
}

/// A case that failed.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Section and title.
    pub what: String,
    /// What was expected, and what came.
    pub why: String,
}

/// Path of the program, which is built if it is not there yet; `None` if Go is not installed.
///
/// # Errors
/// The build fails.
pub fn program() -> anyhow::Result<Option<PathBuf>> {
    let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| crate_directory.join("../../target"), PathBuf::from);
    let directory = target.join("h2spec");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    // Other test processes wait; what was built before is checked by Go's own cache.
    let lock = File::create(directory.join("lock")).context("cannot make a lock file")?;
    lock.lock().context("cannot lock the build")?;
    let program = directory.join("h2spec");
    let status = Command::new("go")
        .args(["build", "-trimpath", "-o"])
        .arg(&program)
        .arg("github.com/summerwind/h2spec/cmd/h2spec")
        .current_dir(crate_directory.join("h2spec"))
        .stdin(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => Ok(Some(program)),
        Ok(status) => bail!("go build: {status}"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("cannot run go"),
    }
}

/// Runs all cases against a server, over TLS or with prior knowledge.
///
/// # Errors
/// The program cannot be run, or writes no report.
pub fn run(program: &Path, server: SocketAddr, tls: bool) -> anyhow::Result<Report> {
    let directory = tempfile::tempdir().context("no temporary directory")?;
    let report = directory.path().join("report.xml");
    let mut command = Command::new(program);
    command
        .args(["--strict", "--timeout", PATIENCE, "--host"])
        .arg(server.ip().to_string())
        .arg("--port")
        .arg(server.port().to_string())
        .arg("--junit-report")
        .arg(&report)
        .stdin(Stdio::null());
    if tls {
        command.args(["--tls", "--insecure"]);
    }
    let output = command.output().context("cannot run h2spec")?;
    let text = fs::read_to_string(&report)
        .with_context(|| String::from_utf8_lossy(&output.stdout).into_owned())?;
    Ok(read(&text))
}

/// Reads a report in JUnit's format.
fn read(xml: &str) -> Report {
    let mut report = Report::default();
    for case in xml.split("<testcase").skip(1) {
        report.cases += 1;
        let name = |field| attribute(case, field).unwrap_or_default();
        let what = format!("{}: {}", name("package"), name("classname"));
        // What was expected and what came, a line each.
        let why = case.split_once("<error>").or(case.split_once("<failure>"));
        if let Some((_, why)) = why {
            let why = why.split('<').next().unwrap_or_default();
            report.failed.push(Failed {
                what,
                why: why.replace('\n', ", not "),
            });
        }
    }
    report
}

fn attribute(element: &str, name: &str) -> Option<String> {
    let (_, rest) = element.split_once(&format!(" {name}=\""))?;
    let (value, _) = rest.split_once('"')?;
    Some(value.replace("&#34;", "\"").replace("&amp;", "&"))
}
