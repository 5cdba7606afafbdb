//! Cases: a Service, and who may reach what of it from where.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::net::Family;
use super::objects::{Endpoint, Made, Service, port};
use super::probe::{Outcome, PATIENCE, Protocol, Said, ask};
use super::serve::PORTS;
use super::world::World;

/// How long nothing comes back before it counts as lost.
const LOST: Duration = Duration::from_millis(300);

/// "At once", for what is refused (S4).
const AT_ONCE: Duration = Duration::from_millis(10);

/// Time for a change of the API to take effect (S24).
const CHANGED: Duration = Duration::from_secs(1);

/// Tries for the quick refusal that a busy machine delays.
const REFUSALS: usize = 10;

/// Tries after which everybody must have answered who should, and tries at least.
const TRIES: (usize, usize) = (300, 6);

/// Probes at once.
const AT_A_TIME: usize = 6;

/// A Service with what is expected of it. The label starts with the requirement that it proves.
pub(super) struct Case {
    label: &'static str,
    service: Service,
    protocols: &'static [Protocol],
    expected: Vec<Expected>,
}

/// What a client gets.
struct Expected {
    from: &'static str,
    to: To,
    family: Family,
    got: Got,
}

/// An address of a Service.
#[derive(Clone, Copy, Debug)]
pub(super) enum To {
    /// The cluster IP.
    Cluster,
    /// Another port of the cluster IP.
    ClusterPort(u16),
    /// The node port, on this node.
    NodePort(&'static str),
    /// The load balancer's address that leads to this node.
    Balancer(&'static str),
    /// The external IP that leads to this node.
    External(&'static str),
    /// The node port, on the loopback address.
    Localhost,
    /// A fixed address of either family.
    Fixed(&'static str),
}

/// What comes back.
#[derive(Clone, Debug)]
pub(super) enum Got {
    /// An answer of each of these pods and of no other.
    AnswerOf {
        /// Pods, with the port if it is not the first one of [`super::serve::PORTS`].
        pods: &'static [&'static str],
        /// Who the pods think the client is, if it matters.
        seen_as: Option<&'static str>,
    },
    /// Refused at once.
    Refused,
    /// Nothing.
    Nothing,
    /// No answer: nobody takes care of the address.
    NoAnswer,
}

/// An answer of each of these pods.
pub(super) fn answer(pods: &'static [&'static str]) -> Got {
    Got::AnswerOf {
        pods,
        seen_as: None,
    }
}

impl Got {
    /// The pods see this client.
    pub(super) fn seeing(self, client: &'static str) -> Self {
        match self {
            Self::AnswerOf { pods, .. } => Self::AnswerOf {
                pods,
                seen_as: Some(client),
            },
            other => other,
        }
    }
}

impl Case {
    /// A Service with these endpoints, named after the case.
    pub(super) fn new(
        label: &'static str,
        endpoints: impl IntoIterator<Item = Endpoint>,
        change: impl FnOnce(Service) -> Service,
    ) -> Self {
        let name = label.trim_start_matches("proxy_").replace('_', "-");
        Self {
            label,
            service: change(Service::new(&name).endpoints(endpoints)),
            protocols: &[Protocol::Http, Protocol::Opaque, Protocol::Datagram],
            expected: Vec::new(),
        }
    }

    /// Only for these protocols.
    pub(super) fn only(mut self, protocols: &'static [Protocol]) -> Self {
        self.protocols = protocols;
        self
    }

    /// A client gets something over IPv4.
    pub(super) fn expect(self, from: &'static str, to: To, got: Got) -> Self {
        self.expect_over(Family::V4, from, to, got)
    }

    /// A client gets something over a family.
    pub(super) fn expect_over(
        mut self,
        family: Family,
        from: &'static str,
        to: To,
        got: Got,
    ) -> Self {
        self.expected.push(Expected {
            from,
            to,
            family,
            got,
        });
        self
    }
}

/// Writes all the Services, waits until the nodes know them, and looks at every case.
pub(super) fn check(world: &World, cases: impl IntoIterator<Item = Case>) {
    let made: Vec<_> = cases
        .into_iter()
        .map(|case| {
            (
                case.service.create(world),
                case.label,
                case.protocols,
                case.expected,
            )
        })
        .collect();
    world.settle();
    let mut probes = Vec::new();
    for (service, label, protocols, expected) in &made {
        for expected in expected {
            for &protocol in *protocols {
                probes.push((service, *label, protocol, expected));
            }
        }
    }
    if !world.has_ipv6() {
        probes.retain(|(.., expected)| expected.family == Family::V4);
    }
    let count = probes.len();
    let (waiting, failed) = (Mutex::new(probes), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((service, label, protocol, expected)) = { waiting.lock().unwrap().pop() } {
                    if let Err(seen) = look(world, service, protocol, expected) {
                        let Expected { from, to, family, got } = expected;
                        let what = format!("{label}: {protocol:?} from {from} to {to:?}, {family:?}: {seen}, not {got:?}");
                        failed.lock().unwrap().push(what);
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    assert!(
        failed.is_empty(),
        "{} of {count}:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

fn look(
    world: &World,
    service: &Made,
    protocol: Protocol,
    expected: &Expected,
) -> Result<(), String> {
    let addr = address(world, service, protocol, expected);
    probe(world, expected.from, protocol, addr, &expected.got)
}

/// Looks whether a client gets this from an address.
pub(super) fn probe(
    world: &World,
    from: &str,
    protocol: Protocol,
    addr: SocketAddr,
    got: &Got,
) -> Result<(), String> {
    probe_for(PATIENCE, world, from, protocol, addr, got)
}

/// Looks, and waits so long for each sign.
fn probe_for(
    patience: Duration,
    world: &World,
    from: &str,
    protocol: Protocol,
    addr: SocketAddr,
    got: &Got,
) -> Result<(), String> {
    let namespace = &world.net.place(from).namespace;
    let expected = got.clone();
    let found = namespace.run(move || match expected {
        Got::AnswerOf { pods, .. } => answers(protocol, addr, pods, patience),
        Got::Refused => refused(protocol, addr, patience).map(|()| Vec::new()),
        Got::Nothing => match ask(protocol, addr, LOST) {
            Outcome::Lost => Ok(Vec::new()),
            other => Err(format!("{other:?}")),
        },
        Got::NoAnswer => match ask(protocol, addr, LOST) {
            Outcome::Answered(said) => Err(format!("{said:?}")),
            _ => Ok(Vec::new()),
        },
    });
    let Got::AnswerOf {
        seen_as: Some(client),
        ..
    } = *got
    else {
        return found.map(drop);
    };
    for said in found? {
        let seen = world.net.name_of(said.client.ip());
        if seen != client {
            return Err(format!("{} sees {seen}", said.pod));
        }
    }
    Ok(())
}

/// Waits until a client gets this from an address; says how long it took.
pub(super) fn becomes(
    world: &World,
    from: &str,
    protocol: Protocol,
    addr: SocketAddr,
    got: &Got,
) -> Duration {
    let begun = Instant::now();
    loop {
        // What is lost while things change is not waited for.
        match probe_for(LOST, world, from, protocol, addr, got) {
            Ok(()) => return begun.elapsed(),
            Err(seen) => assert!(
                begun.elapsed() < CHANGED,
                "{protocol:?} from {from} to {addr}: {seen}, not {got:?}"
            ),
        }
    }
}

/// What the pods said, once each has said something.
fn answers(
    protocol: Protocol,
    addr: SocketAddr,
    pods: &[&str],
    patience: Duration,
) -> Result<Vec<Said>, String> {
    let mut heard: Vec<(Said, &str)> = Vec::new();
    for tried in 1..=TRIES.0 {
        let said = match ask(protocol, addr, patience) {
            Outcome::Answered(said) => said,
            other => return Err(format!("{other:?}")),
        };
        let Some(pod) = pods.iter().find(|pod| is(pod, &said)) else {
            return Err(format!("{said:?}"));
        };
        heard.push((said, pod));
        let all = pods.iter().all(|pod| heard.iter().any(|(_, by)| by == pod));
        if all && tried >= TRIES.1 {
            return Ok(heard.into_iter().map(|(said, _)| said).collect());
        }
    }
    Err(format!("only some answer: {:?}", heard.last()))
}

/// Whether it was this pod, `NAME` or `NAME:PORT`.
fn is(pod: &str, said: &Said) -> bool {
    match pod.split_once(':') {
        Some((name, port)) => said.pod == name && said.port.to_string() == port,
        None => said.pod == pod && said.port == PORTS[0],
    }
}

fn refused(protocol: Protocol, addr: SocketAddr, patience: Duration) -> Result<(), String> {
    let mut fastest = Duration::MAX;
    for _ in 0..REFUSALS {
        match ask(protocol, addr, patience) {
            Outcome::Refused(after) => fastest = fastest.min(after),
            other => return Err(format!("{other:?}")),
        }
        if fastest < AT_ONCE {
            return Ok(());
        }
    }
    Err(format!("refused after {fastest:?}"))
}

fn address(world: &World, service: &Made, protocol: Protocol, expected: &Expected) -> SocketAddr {
    let (number, family) = (port(protocol), expected.family);
    match expected.to {
        To::Cluster => SocketAddr::new(service.cluster_ip(family), number),
        To::ClusterPort(number) => SocketAddr::new(service.cluster_ip(family), number),
        To::NodePort(node) => {
            let ip = world.net.place(node).ip(family);
            SocketAddr::new(ip, service.node_port(protocol))
        }
        To::Balancer(node) => SocketAddr::new(service.balancer_ip(node, family), number),
        To::External(node) => SocketAddr::new(service.external_ip(node, family), number),
        To::Localhost => {
            let ip = match family {
                Family::V4 => Ipv4Addr::LOCALHOST.into(),
                Family::V6 => Ipv6Addr::LOCALHOST.into(),
            };
            SocketAddr::new(ip, service.node_port(protocol))
        }
        To::Fixed(ip) => SocketAddr::new(ip.parse().unwrap(), number),
    }
}
