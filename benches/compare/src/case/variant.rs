//! What is configured for a case: how many hosts, endpoints and workers.

use super::Case;

/// What is configured.
#[derive(Clone, Debug)]
pub(crate) struct Variant {
    pub(crate) name: String,
    /// Hosts of the gateway, or Services of a DNS server or cluster.
    pub(crate) hosts: usize,
    /// Of each Service.
    pub(crate) endpoints: usize,
    pub(crate) workers: usize,
    /// Clients speak TLS.
    pub(crate) tls: bool,
}

impl Variant {
    fn usual() -> Self {
        Self {
            name: String::new(),
            hosts: 1000,
            endpoints: 3,
            workers: 1,
            tls: false,
        }
    }

    fn one_host() -> Self {
        Self {
            hosts: 1,
            ..Self::usual()
        }
    }
}

/// Services of a large cluster, and endpoints of each.
const LARGE: usize = 10_000;
const EACH: usize = 25;

/// Services of the largest cluster in which kube-proxy is measured: with ten times as many, it has not
/// brought its rules into the kernel after two minutes.
pub(crate) const KUBE_PROXY: usize = 1000;

/// Services of a cluster that is there in a moment.
const SMALL: usize = 100;

impl Case {
    /// What is compared within the case; `quick`, with a tenth of what takes long to set up.
    pub(crate) fn variants(self, quick: bool) -> Vec<Variant> {
        let many = |count: usize| if quick { count / 10 } else { count };
        let hosts = |hosts: usize, of: &str| Variant {
            name: format!("{} {of}", grouped(hosts)),
            hosts,
            ..Variant::usual()
        };
        let cluster = |services| Variant {
            endpoints: EACH,
            ..hosts(services, "Services")
        };
        match self {
            Self::Http1 | Self::Http1Paced | Self::DnsForward => vec![Variant::usual()],
            Self::Body
            | Self::TcpPingPong
            | Self::TcpBulk
            | Self::Connections
            | Self::IdleMemory
            | Self::Up => vec![Variant::one_host()],
            Self::ScalingHosts => vec![hosts(10, "hosts"), hosts(many(20_000), "hosts")],
            Self::ScalingEndpoints => [10, many(10_000)]
                .map(|endpoints| Variant {
                    name: format!("{} endpoints", grouped(endpoints)),
                    endpoints,
                    ..Variant::one_host()
                })
                .into(),
            Self::ScalingWorkers => [(1, "1 worker"), (2, "2 workers")]
                .map(|(workers, name)| Variant {
                    name: name.to_owned(),
                    workers,
                    ..Variant::usual()
                })
                .into(),
            Self::Tls => vec![Variant {
                tls: true,
                ..Variant::usual()
            }],
            Self::Handshakes => vec![Variant {
                tls: true,
                ..Variant::one_host()
            }],
            Self::Http2 => [(true, "over TLS"), (false, "in plain text")]
                .map(|(tls, name)| Variant {
                    name: name.to_owned(),
                    tls,
                    ..Variant::usual()
                })
                .into(),
            Self::Edits => vec![hosts(many(20_000), "hosts")],
            Self::Dns => [1000, 10_000]
                .map(|count| hosts(many(count), "Services"))
                .into(),
            Self::EndpointsChange | Self::ColdStart if !quick => {
                vec![cluster(KUBE_PROXY), cluster(LARGE)]
            }
            Self::DnsColdStart if !quick => vec![cluster(LARGE)],
            Self::EndpointsChange | Self::ColdStart | Self::DnsColdStart => vec![cluster(SMALL)],
        }
    }
}

/// `10,000`.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn numbers_are_read_in_groups_of_three() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn variants_of_a_case_have_different_names() {
        for case in Case::value_variants() {
            for quick in [false, true] {
                let variants = case.variants(quick);
                let mut names: Vec<&str> = variants.iter().map(|it| &*it.name).collect();
                names.dedup();
                assert_eq!(names.len(), variants.len(), "{case:?} {quick}");
            }
        }
    }
}
