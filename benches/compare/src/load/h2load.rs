//! h2load, and what it says.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::Served;
use crate::gate::Gate;

/// Streams of the one connection.
const STREAMS: usize = 100;

/// One connection with 100 streams.
///
/// # Errors
/// h2load is missing, or an answer was not a good one.
pub(crate) fn h2load(
    addr: SocketAddr,
    tls: bool,
    time: Duration,
    gate: &Gate,
) -> anyhow::Result<Served> {
    let scheme = if tls { "https" } else { "http" };
    let mut command = Command::new("h2load");
    command
        .args(["-t1", "-c1", "-H", ":authority: host-0.test"])
        .arg(format!("-m{STREAMS}"))
        .arg(format!("-D{}", time.as_secs().max(1)))
        .arg(format!("{scheme}://{addr}/"));
    let output = gate.output(&mut command);
    let output = output.context("cannot run `h2load` (nghttp2-client)")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("h2load: {said}{}", String::from_utf8_lossy(&output.stderr));
    }
    parse(&said, time).with_context(|| format!("h2load said:\n{said}"))
}

/// It knows no percentiles. `time` is how long it measured, because what it says of that includes
/// the wait for the last answers.
fn parse(said: &str, time: Duration) -> anyhow::Result<Served> {
    let counts = said
        .lines()
        .find_map(|line| line.strip_prefix("requests: "));
    let counts = counts.context("no number of requests")?;
    let count = |what: &str| {
        let part = counts.split(", ").find_map(|part| part.strip_suffix(what));
        part.and_then(|number| number.trim().parse::<u64>().ok())
            .with_context(|| format!("no number of{what}"))
    };
    for bad in [" failed", " errored", " timeout"] {
        ensure!(count(bad)? == 0, "some requests{bad}");
    }
    let requests = count(" succeeded")?;
    ensure!(requests > 0, "no request succeeded");
    Ok(Served {
        requests,
        time,
        p50: None,
        p99: None,
        closed: 0,
        each: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_h2load_says_is_understood() {
        let said = "finished in 6.00s, 53211.83 req/s, 5.34MB/s\n\
                    requests: 319271 total, 319371 started, 319271 done, 319271 succeeded, \
                    0 failed, 0 errored, 0 timeout\n\
                    status codes: 319271 2xx, 0 3xx, 0 4xx, 0 5xx\n";
        let time = Duration::from_secs(6);
        let served = parse(said, time).expect("it is what h2load prints");
        assert_eq!((served.requests, served.time), (319_271, time));
        for bad in ["1 failed", "1 errored", "1 timeout"] {
            let said = said.replace(&format!("0{}", &bad[1..]), bad);
            assert!(parse(&said, time).is_err(), "{bad}");
        }
    }
}
