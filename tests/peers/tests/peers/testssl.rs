//! testssl.sh against the gateway's TLS listener as it is by default (reliability B22).

use std::process::Stdio;
use std::time::Duration;

use sealane_config::model::AppProtocol;
use sealane_proxy::testing::Origin;
use sealane_test_peers::Front;
use tokio::process::Command;

use crate::installed;

/// It takes half a minute where nothing else runs.
const PATIENCE: Duration = Duration::from_secs(900);

/// What it says about the OpenSSL that it has itself.
const OF_THE_TOOL: [&str; 1] = ["engine_problem"];

/// A line of its report.
#[derive(Debug)]
struct Finding {
    id: String,
    severity: String,
    finding: String,
}

/// The report in flat JSON, an array of objects with strings only.
fn read(report: &str) -> Vec<Finding> {
    let field = |object: &str, name: &str| {
        let (_, rest) = object.split_once(&format!("\"{name}\""))?;
        let (_, rest) = rest.split_once('"')?;
        rest.split_once('"').map(|(value, _)| value.to_owned())
    };
    let objects = report.split('{').skip(1);
    let finding = |object: &str| {
        Some(Finding {
            id: field(object, "id")?,
            severity: field(object, "severity")?,
            finding: field(object, "finding")?,
        })
    };
    objects.filter_map(finding).collect()
}

#[tokio::test]
async fn reliability_b22_testssl_finds_no_weakness() {
    if !installed("testssl") {
        return;
    }
    let origin = Origin::named("hello").await;
    let mut front = Front::start();
    front.service(AppProtocol::Detect, &[origin.addr]);
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report.json");
    let mut command = Command::new("testssl");
    command
        .args(["--quiet", "--color", "0", "--warnings", "off"])
        .args(["--nodns", "none", "--ip", "127.0.0.1"])
        // Versions, suites, forward secrecy, whose preference, and known attacks: what a listener
        // decides, not what its certificate or its answers say.
        .args(["-p", "-s", "-f", "-P", "-U", "--jsonfile"])
        .arg(&report)
        .arg(format!("localhost:{}", front.https.port()))
        .stdin(Stdio::null());
    let output = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await;
    let output = output.expect("an end in time").unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let findings = read(&std::fs::read_to_string(&report).unwrap());
    let found = |id: &str| findings.iter().find(|finding| finding.id == id);
    for (id, expected) in [
        ("SSLv3", "not offered"),
        ("TLS1", "not offered"),
        ("TLS1_1", "not offered"),
        ("TLS1_2", "offered"),
        ("TLS1_3", "offered with final"),
    ] {
        let finding = found(id).unwrap_or_else(|| panic!("no {id}: {text}"));
        assert_eq!(finding.finding, expected, "{id}");
    }
    for id in [
        "heartbleed",
        "CCS",
        "ticketbleed",
        "ROBOT",
        "secure_renego",
        "CRIME_TLS",
    ] {
        assert!(found(id).is_some(), "{id} was not looked for: {text}");
    }
    let weak: Vec<&Finding> = findings
        .iter()
        .filter(|finding| !matches!(&*finding.severity, "OK" | "INFO"))
        .filter(|finding| !OF_THE_TOOL.contains(&&*finding.id))
        .collect();
    assert!(weak.is_empty(), "{weak:#?}");
}
