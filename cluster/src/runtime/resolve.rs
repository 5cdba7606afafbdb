//! A pod's `/etc/resolv.conf`, `/etc/hosts` and host name.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

/// Longest host name (RFC 1123, and the kernel's limit less one).
const MAX_HOSTNAME: usize = 63;

/// The cluster's DNS.
#[derive(Clone, Debug)]
pub(super) struct ClusterDns {
    /// Address of the DNS server, if there is one.
    pub(super) server: Option<IpAddr>,
    /// The cluster's domain.
    pub(super) domain: String,
}

/// The pod's host name: `spec.hostname` or its name, cut to what fits.
pub(super) fn hostname(pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let wanted = pod.spec.as_ref().and_then(|spec| spec.hostname.as_deref());
    let name = wanted.filter(|name| !name.is_empty()).unwrap_or(name);
    let cut: String = name.chars().take(MAX_HOSTNAME).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// Contents of `/etc/resolv.conf`, `None` for the machine's own.
pub(super) fn resolv_conf(pod: &Pod, dns: &ClusterDns) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let on_host = spec.host_network == Some(true) && policy == "ClusterFirst";
    let (mut servers, mut searches, mut options) = (Vec::new(), Vec::new(), Vec::new());
    match (policy, dns.server) {
        ("Default", _) | ("ClusterFirst" | "ClusterFirstWithHostNet", None) => {
            spec.dns_config.as_ref()?;
            let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            (servers, searches, options) = parse(&host);
        }
        ("ClusterFirst" | "ClusterFirstWithHostNet", Some(server)) if !on_host => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
            let domain = &dns.domain;
            servers.push(server.to_string());
            searches = vec![
                format!("{namespace}.svc.{domain}"),
                format!("svc.{domain}"),
                domain.clone(),
            ];
            options.push("ndots:5".to_owned());
        }
        ("None", _) => {}
        _ => return None,
    }
    add_config(spec, &mut servers, &mut searches, &mut options);
    let mut text: String = servers
        .iter()
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    for (keyword, words) in [("search", searches), ("options", options)] {
        if !words.is_empty() {
            text.push_str(&format!("{keyword} {}\n", words.join(" ")));
        }
    }
    Some(text)
}

/// Name servers, search domains and options of a resolv.conf(5).
fn parse(text: &str) -> (Vec<String>, Vec<String>, Vec<String>) {
    let words = |keyword: &str| {
        text.lines()
            .filter_map(|line| line.split_once([' ', '\t']))
            .filter(|(word, _)| *word == keyword)
            .flat_map(|(_, rest)| rest.split_whitespace().map(str::to_owned))
            .collect()
    };
    (words("nameserver"), words("search"), words("options"))
}

/// Adds `dnsConfig`; an option replaces the one of its name.
fn add_config(
    spec: &PodSpec,
    servers: &mut Vec<String>,
    searches: &mut Vec<String>,
    options: &mut Vec<String>,
) {
    let Some(config) = &spec.dns_config else {
        return;
    };
    for (list, more) in [(servers, &config.nameservers), (searches, &config.searches)] {
        for word in more.iter().flatten() {
            if !list.contains(word) {
                list.push(word.clone());
            }
        }
    }
    for option in config.options.iter().flatten() {
        let Some(name) = &option.name else { continue };
        options.retain(|known| known.split(':').next() != Some(name));
        options.push(match &option.value {
            Some(value) => format!("{name}:{value}"),
            None => name.clone(),
        });
    }
}

/// Contents of `/etc/hosts`.
pub(super) fn hosts(pod: &Pod, ip: IpAddr, dns: &ClusterDns) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let name = hostname(pod);
    let spec = pod.spec.as_ref();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    match spec.and_then(|spec| spec.subdomain.as_deref()) {
        Some(subdomain) if !subdomain.is_empty() => {
            let domain = &dns.domain;
            text.push_str(&format!(
                "{ip}\t{name}.{subdomain}.{namespace}.svc.{domain}\t{name}\n"
            ));
        }
        _ => text.push_str(&format!("{ip}\t{name}\n")),
    }
    for alias in spec
        .iter()
        .flat_map(|spec| spec.host_aliases.iter().flatten())
    {
        let names = alias.hostnames.as_deref().unwrap_or_default();
        text.push_str(&format!("{}\t{}\n", alias.ip, names.join("\t")));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let metadata = json!({ "name": "web-0", "namespace": "shop" });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    fn dns() -> ClusterDns {
        ClusterDns {
            server: Some("10.96.0.10".parse().unwrap()),
            domain: "cluster.local".into(),
        }
    }

    #[test]
    fn cluster_b1_resolv_conf_by_dns_policy() {
        let cluster = "nameserver 10.96.0.10\n\
            search shop.svc.cluster.local svc.cluster.local cluster.local\n\
            options ndots:5\n";
        let extended = "nameserver 10.96.0.10\nnameserver 1.1.1.1\n\
            search shop.svc.cluster.local svc.cluster.local cluster.local x.test\n\
            options ndots:2 rotate\n";
        for (name, spec, expected) in [
            ("default", json!({}), Some(cluster)),
            (
                "config is added",
                json!({ "dnsConfig": {
                    "nameservers": ["1.1.1.1"], "searches": ["x.test"],
                    "options": [{ "name": "ndots", "value": "2" }, { "name": "rotate" }],
                } }),
                Some(extended),
            ),
            ("the machine's", json!({ "dnsPolicy": "Default" }), None),
            (
                "only the config",
                json!({ "dnsPolicy": "None", "dnsConfig": { "nameservers": ["9.9.9.9"] } }),
                Some("nameserver 9.9.9.9\n"),
            ),
        ] {
            assert_eq!(
                resolv_conf(&pod(spec), &dns()).as_deref(),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn cluster_b1_hosts_names_the_pod() {
        let aliases = json!([{ "ip": "10.0.0.9", "hostnames": ["db", "db.test"] }]);
        let pod = pod(json!({ "hostAliases": aliases, "subdomain": "sub" }));
        let text = hosts(&pod, "10.244.0.5".parse().unwrap(), &dns());
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"), "{text}");
        let own = "10.244.0.5\tweb-0.sub.shop.svc.cluster.local\tweb-0\n";
        assert!(text.contains(own), "{text}");
        assert!(text.ends_with("10.0.0.9\tdb\tdb.test\n"), "{text}");
    }

    #[test]
    fn cluster_b1_host_names_fit() {
        let mut pod = pod(json!({}));
        assert_eq!(hostname(&pod), "web-0");
        pod.metadata.name = Some(format!("{}-{}", "x".repeat(62), "tail"));
        assert_eq!(hostname(&pod), "x".repeat(62));
    }
}
