//! wrk, and what it says.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::Served;
use crate::case::Variant;
use crate::gate::Gate;
use crate::stage::{Stage, write};

/// One thread, `connections` kept alive, the hosts in turn.
///
/// # Errors
/// wrk is missing, or an answer was not a good one.
pub(crate) fn wrk(
    stage: &Stage,
    addr: SocketAddr,
    connections: usize,
    path: &str,
    variant: &Variant,
    time: Duration,
    gate: &Gate,
) -> anyhow::Result<Served> {
    let name = format!("hosts-{}.lua", addr.port());
    let script = write(stage.dir.path(), &name, &script(path, variant.hosts))?;
    let scheme = if variant.tls { "https" } else { "http" };
    let mut command = Command::new("wrk");
    command
        .args(["-t1", "--latency", "--timeout", "10s"])
        .arg(format!("-c{connections}"))
        .arg(format!("-d{}s", time.as_secs().max(1)))
        .arg("-s")
        .arg(script)
        .arg(format!("{scheme}://{addr}{path}"));
    let output = gate.output(&mut command).context("cannot run `wrk`")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("wrk: {said}{}", String::from_utf8_lossy(&output.stderr));
    }
    parse(&said).with_context(|| format!("wrk said:\n{said}"))
}

/// Requests are written once, so that the generator does not spend its time on them.
fn script(path: &str, hosts: usize) -> String {
    let mut script = String::from("local requests = {}\nlocal at = 0\n");
    let _ = writeln!(
        script,
        "for i = 0, {} do requests[i] = 'GET {path} HTTP/1.1\\r\\nHost: host-' .. i .. '.test\\r\\n\\r\\n' end",
        hosts - 1
    );
    // A step that is prime to the number of hosts visits all of them.
    let _ = writeln!(
        script,
        "function request() at = (at + 7919) % {hosts} return requests[at] end"
    );
    script
}

fn parse(said: &str) -> anyhow::Result<Served> {
    for bad in ["Non-2xx", "Socket errors"] {
        if let Some(line) = said.lines().find(|line| line.contains(bad)) {
            bail!("{}", line.trim());
        }
    }
    let line = |mark: &str| said.lines().map(str::trim).find(|line| line.contains(mark));
    let total = line(" requests in ").context("no number of requests")?;
    let mut words = total.split([' ', ',']);
    let requests = words.next().and_then(|n| n.parse().ok());
    let time = words.nth(2).and_then(duration);
    let quantile =
        |mark: &str| line(mark).and_then(|line| duration(line.split_whitespace().nth(1)?));
    Ok(Served {
        requests: requests.context("no number of requests")?,
        time: time.context("no time")?,
        p50: quantile("50%"),
        p99: quantile("99%"),
        closed: 0,
        each: Vec::new(),
    })
}

/// `6.10s`, `1.25ms`, `860.00us`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..)? {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    let number: f64 = digits.parse().ok()?;
    Some(Duration::from_secs_f64(number * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_understood() {
        let served = parse(
            "Running 6s test @ http://127.0.0.1:7003/\n  1 threads and 64 connections\n  \
             Latency Distribution\n     50%  860.00us\n     75%    1.00ms\n     99%    2.50ms\n  \
             359482 requests in 6.10s, 88.10MB read\nRequests/sec:  58931.97\n",
        )
        .expect("it is what wrk prints");
        assert_eq!(served.requests, 359_482);
        assert_eq!(served.time, Duration::from_millis(6100));
        assert_eq!(served.p50, Some(Duration::from_micros(860)));
        assert_eq!(served.p99, Some(Duration::from_micros(2500)));
    }

    #[test]
    fn bad_answers_are_an_error() {
        for bad in [
            "  Non-2xx or 3xx responses: 5\n",
            "  Socket errors: connect 1\n",
        ] {
            assert!(parse(&format!("10 requests in 6.00s, 1MB read\n{bad}")).is_err());
        }
    }
}
