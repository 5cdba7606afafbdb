//! `sealane init`: redirects a pod's connections to its `sealane sidecar`, then proves that they are.
//!
//! Runs once, as an init container, in the pod's network namespace and with `CAP_NET_ADMIN`, which the
//! sidecar then does without. Run again it writes the same rules again. It fails, and with it the pod,
//! if a real connection is not redirected: an application that looks meshed and is not is worse than
//! one that does not start.

use std::io;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ipnet::IpNet;
use sealane_proxy::intercept::InterceptError;
use sealane_proxy::intercept::redirect::{self, Probe, RedirectOptions};
use serde_json::json;

use crate::exit::Failure;
use crate::output::{Format, OutputOptions};

/// Mark of the sidecar's own connections, by which the rules know them where it may set one. Not the
/// node's: it means nothing outside of the pod.
pub(crate) const MARK: u32 = 0x534d;

/// How long a connection that ought to be redirected may take to arrive; it does so in microseconds.
const PATIENCE: Duration = Duration::from_millis(500);

/// Most ports, ranges and networks that can be skipped: all rules go to the kernel in one datagram.
const MOST_SKIPPED: usize = 256;

/// Where the sidecar takes redirected connections; `init` and `sidecar` have to be told the same.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct PortOptions {
    /// Port of the sidecar for connections to the pod
    #[arg(long, default_value_t = 15006, value_name = "PORT",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) inbound_port: u16,
    /// Port of the sidecar for connections from the pod
    #[arg(long, default_value_t = 15001, value_name = "PORT",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) outbound_port: u16,
}

impl PortOptions {
    /// # Errors
    /// One port for both: a connection would not say which way it goes.
    pub(crate) fn check(self) -> Result<(), Failure> {
        if self.inbound_port == self.outbound_port {
            return Err(Failure::Input(vec![format!(
                "--inbound-port and --outbound-port are both {}: give two different ports",
                self.inbound_port
            )]));
        }
        Ok(())
    }
}

/// Options as given.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct InitOptions {
    #[command(flatten)]
    ports: PortOptions,
    /// User that the sidecar runs as, whose connections are left alone
    #[arg(long, default_value_t = 65532, value_name = "UID")]
    proxy_uid: u32,
    /// Ports of the pod that are dialled past the sidecar: PORT or FROM-TO (repeatable, or separated by
    /// commas)
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = ports)]
    skip_inbound_ports: Vec<RangeInclusive<u16>>,
    /// Ports that the pod dials past the sidecar
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = ports)]
    skip_outbound_ports: Vec<RangeInclusive<u16>>,
    /// Addresses that the pod dials past the sidecar
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    skip_outbound_cidrs: Vec<IpNet>,
    /// Take the rules away
    #[arg(long, conflicts_with = "check")]
    remove: bool,
    /// Change nothing, only find out whether the rules are in force; before the sidecar runs
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    output: OutputOptions,
}

/// Writes, checks or removes the rules.
///
/// # Errors
/// Options that cannot be used, missing privileges, or rules that are not in force.
pub(crate) fn run(options: &InitOptions) -> Result<(), Failure> {
    options.output.set_color();
    options.ports.check()?;
    options.check_size()?;
    let redirect = options.redirect();
    let begun = Instant::now();
    if options.remove {
        redirect::remove().map_err(cannot_change)?;
        return say(options, &Outcome::removed(begun.elapsed()));
    }
    if !options.check && rustix::process::geteuid().as_raw() == options.proxy_uid {
        return Err(Failure::Input(vec![format!(
            "--proxy-uid {} is the user that this runs as, whose connections are to be left alone: \
             run `sealane init` as root and the sidecar as another user",
            options.proxy_uid
        )]));
    }
    let refuses = if options.check {
        None
    } else {
        Some(redirect::install(&redirect).map_err(cannot_change)?)
    };
    let written = begun.elapsed();
    let probes = redirect::probe(&redirect, redirect::plain_socket, PATIENCE);
    let probes = probes.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Failure::Input(vec![format!(
            "port {} is taken, so that nothing can be proved: run this before the sidecar, or give \
             both another --outbound-port",
            redirect.outbound_port
        )]),
        _ => Failure::Other(anyhow::Error::new(error).context("cannot dial a connection to see")),
    })?;
    in_force(probes)?;
    let outcome = Outcome {
        what: if options.check { "checked" } else { "written" },
        refuses,
        probes: Some(probes),
        written,
        whole: begun.elapsed(),
    };
    say(options, &outcome)
}

impl InitOptions {
    fn check_size(&self) -> Result<(), Failure> {
        let skipped = self.skip_inbound_ports.len()
            + self.skip_outbound_ports.len()
            + self.skip_outbound_cidrs.len();
        if skipped <= MOST_SKIPPED {
            return Ok(());
        }
        Err(Failure::Input(vec![format!(
            "{skipped} ports and networks are to be skipped, {MOST_SKIPPED} are possible: give ranges \
             (4000-4010) and larger networks"
        )]))
    }

    fn redirect(&self) -> RedirectOptions {
        RedirectOptions {
            inbound_port: self.ports.inbound_port,
            outbound_port: self.ports.outbound_port,
            proxy_uid: self.proxy_uid,
            mark: MARK,
            skip_inbound_ports: self.skip_inbound_ports.clone(),
            skip_outbound_ports: self.skip_outbound_ports.clone(),
            skip_outbound_cidrs: self.skip_outbound_cidrs.clone(),
        }
    }
}

/// One port, or a range.
fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let advice = || format!("{text:?}: give a port, 1 to 65535, or a range such as 4000-4010");
    let number = |text: &str| {
        let number = text.trim().parse().ok();
        number.filter(|port| *port > 0).ok_or_else(advice)
    };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (number(from)?, number(to)?);
    if from > to {
        return Err(advice());
    }
    Ok(from..=to)
}

fn cannot_change(error: InterceptError) -> Failure {
    let source = match &error {
        InterceptError::Netlink(source) | InterceptError::Refused { source, .. } => Some(source),
        InterceptError::Unsupported(_) | InterceptError::Unanswered => None,
    };
    if source.is_some_and(|source| source.kind() == io::ErrorKind::PermissionDenied) {
        return Failure::Machine(
            "redirecting a pod's connections takes the capability CAP_NET_ADMIN: run as root and add \
             NET_ADMIN to securityContext.capabilities.add of the init container"
                .to_owned(),
        );
    }
    if matches!(error, InterceptError::Unsupported(_)) {
        return Failure::Machine(
            "the kernel lacks an nf_tables feature that redirecting needs (modules nft_redir, \
             nft_chain_nat, nf_conntrack)"
                .to_owned(),
        );
    }
    let failed = anyhow::Error::new(error).context("cannot redirect the pod's connections");
    Failure::Other(failed)
}

/// Whether what was dialled is proof enough: one family has to be redirected, none may have passed.
fn in_force(probes: [Probe; 2]) -> Result<(), Failure> {
    let passed = |family: &str| {
        Failure::Machine(format!(
            "an {family} connection of this pod was not redirected to the sidecar: are the rules \
             written (`sealane init` without --check), and is there another program that changes \
             the pod's connections?"
        ))
    };
    match probes {
        [Probe::Passed, _] => Err(passed("IPv4")),
        [_, Probe::Passed] => Err(passed("IPv6")),
        [Probe::NoRoute, Probe::NoRoute] => Err(Failure::Machine(
            "the pod has no route to anywhere, so that no connection can be proved to be \
             redirected: run this in a pod's network namespace, after its network was set up"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

/// What was done.
struct Outcome {
    what: &'static str,
    refuses: Option<bool>,
    probes: Option<[Probe; 2]>,
    written: Duration,
    whole: Duration,
}

impl Outcome {
    fn removed(took: Duration) -> Self {
        Self {
            what: "removed",
            refuses: None,
            probes: None,
            written: took,
            whole: took,
        }
    }
}

fn say(options: &InitOptions, outcome: &Outcome) -> Result<(), Failure> {
    let milliseconds = |time: Duration| (time.as_secs_f64() * 1e5).round() / 100.0;
    let (written, whole) = (milliseconds(outcome.written), milliseconds(outcome.whole));
    let PortOptions {
        inbound_port,
        outbound_port,
    } = options.ports;
    let families = outcome.probes.map(|probes| probes.map(word));
    match options.output.output {
        Format::Json => {
            let object = json!({
                "rules": outcome.what,
                "inboundPort": inbound_port,
                "outboundPort": outbound_port,
                "ipv4": families.map(|[v4, _]| v4),
                "ipv6": families.map(|[_, v6]| v6),
                "refusesClosedPorts": outcome.refuses,
                "writtenMilliseconds": written,
                "milliseconds": whole,
            });
            let text = serde_json::to_string(&object).context("cannot print")?;
            anstream::println!("{text}");
        }
        Format::Table => match families {
            None => anstream::println!("rules removed, {whole} ms"),
            Some([v4, v6]) => anstream::println!(
                "rules {}: inbound to {inbound_port}, outbound to {outbound_port}; \
                 IPv4 {v4}, IPv6 {v6}; {whole} ms",
                outcome.what
            ),
        },
    }
    if outcome.refuses == Some(false) {
        tracing::warn!(
            "the kernel has no nft_socket: connections to ports of the pod that nobody listens on are \
             reset instead of refused"
        );
    }
    Ok(())
}

fn word(probe: Probe) -> &'static str {
    match probe {
        Probe::Redirected => "redirected",
        Probe::Passed => "not redirected",
        Probe::NoRoute => "without a route",
        Probe::Skipped => "skipped as asked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_i3_ports_are_single_or_ranges() {
        for (text, expected) in [
            ("80", Some(80..=80)),
            ("4000-4010", Some(4000..=4010)),
            ("7 - 9", Some(7..=9)),
            ("0", None),
            ("9-7", None),
            ("65536", None),
            ("http", None),
            ("", None),
        ] {
            assert_eq!(ports(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn proxy_i3_one_redirected_family_is_proof_and_one_that_passes_is_a_failure() {
        use Probe::{NoRoute, Passed, Redirected, Skipped};
        for (probes, good) in [
            ([Redirected, Redirected], true),
            ([Redirected, NoRoute], true),
            ([NoRoute, Redirected], true),
            ([Skipped, NoRoute], true),
            ([Passed, Redirected], false),
            ([Redirected, Passed], false),
            ([NoRoute, NoRoute], false),
        ] {
            assert_eq!(in_force(probes).is_ok(), good, "{probes:?}");
        }
    }
}
