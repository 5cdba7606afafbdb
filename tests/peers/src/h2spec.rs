//! h2spec, the conformance suite of RFC 9113 and RFC 7541: built from its Go module, run against a
//! server, and read.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::go;

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

/// Path of the program, as [`go::build`] has it.
///
/// # Errors
/// The build fails.
pub fn program() -> anyhow::Result<Option<PathBuf>> {
    go::build("h2spec", "github.com/summerwind/h2spec/cmd/h2spec")
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
