//! The Services of the DNS case, and the questions about them.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

use crate::load::{self, Question};
use crate::process::Program;

/// Namespaces that they are in.
const NAMESPACES: usize = 10;
/// Services of one file, which has a limit.
const FILE: usize = 1000;
/// The first cluster IP, in the range of an API server whose pods have loopback addresses.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 96, 1, 0);
/// Between one question and the next: prime to the number of questions, so that all are asked, kinds
/// mixed and no name twice in a row.
const STEP: usize = 7919;

/// Types of records.
const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;
/// A code.
const NXDOMAIN: u8 = 3;

/// A Service with a cluster IP and the TCP port `http`.
pub(crate) struct Service {
    index: usize,
    pub(crate) ip: Ipv4Addr,
}

impl Service {
    fn namespace(&self) -> String {
        format!("ns-{}", self.index % NAMESPACES)
    }

    /// Its DNS name, without the final dot.
    pub(crate) fn name(&self) -> String {
        format!("svc-{}.{}.svc.cluster.local", self.index, self.namespace())
    }

    fn questions(&self) -> [Question; 4] {
        let name = self.name();
        [
            Question::new(&name, A, 0, 1),
            Question::new(&name, AAAA, 0, 0),
            Question::new(&format!("_http._tcp.{name}"), SRV, 0, 1),
            Question::new(&format!("no-{name}"), A, NXDOMAIN, 0),
        ]
    }
}

/// So many Services.
pub(crate) fn services(count: usize) -> impl Iterator<Item = Service> {
    (0..count).map(|index| Service {
        index,
        ip: Ipv4Addr::from(u32::from(FIRST) + index as u32),
    })
}

/// One of each kind for each Service, in an order that mixes them.
pub(crate) fn questions(count: usize) -> Vec<Question> {
    let all: Vec<Question> = services(count).flat_map(|s| s.questions()).collect();
    let mixed = (0..all.len()).map(|index| all[index * STEP % all.len()].clone());
    mixed.collect()
}

/// Files that make the Services, namespaces first.
pub(crate) fn manifests(count: usize) -> impl Iterator<Item = String> {
    let mut namespaces = String::new();
    for index in 0..NAMESPACES {
        let _ = writeln!(
            namespaces,
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: ns-{index}}}"
        );
    }
    let all: Vec<Service> = services(count).collect();
    let files: Vec<String> = all.chunks(FILE).map(of_file).collect();
    std::iter::once(namespaces).chain(files)
}

fn of_file(services: &[Service]) -> String {
    let mut text = String::new();
    for service in services {
        let _ = writeln!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: svc-{}, namespace: {}}}\n\
             spec: {{clusterIP: {}, ports: [{{name: http, port: 80}}]}}",
            service.index,
            service.namespace(),
            service.ip
        );
    }
    text
}

/// Waits until every file's Services are answered for.
///
/// # Errors
/// The program ended, or it takes too long.
pub(crate) fn wait_until_served(
    program: &mut Program,
    addr: SocketAddr,
    count: usize,
) -> anyhow::Result<()> {
    program.listens(addr)?;
    let all: Vec<Service> = services(count).collect();
    for service in all.iter().rev().step_by(FILE) {
        for question in &service.questions() {
            program.until(|| load::is_answered(addr, question))?;
        }
    }
    Ok(())
}
