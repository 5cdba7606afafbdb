//! Traffic policies and source ranges, by who dials which address of a Service.

use std::io::Read as _;

use sealane_config::model::Scope;

use super::*;

const TIMED_OUT: Result<(String, String), ErrorKind> = Err(ErrorKind::TimedOut);

fn served(server: &str, client: impl ToString) -> Result<(String, String), ErrorKind> {
    Ok((server.to_owned(), client.to_string()))
}

fn cluster() -> TrafficPolicy {
    TrafficPolicy::default()
}

fn local() -> TrafficPolicy {
    TrafficPolicy {
        internal: Scope::Local,
        external: Scope::Local,
        ..TrafficPolicy::default()
    }
}

#[test]
fn proxy_s23_a_pods_address_is_kept_on_the_same_and_another_node() {
    let Some(nodes) = Nodes::new() else { return };
    let client = nodes.one.pod(2);
    let (here, there) = (nodes.one.pod(3), nodes.two.pod(3));
    here.serve_lines("here", 8000);
    there.serve_lines("there", 8000);
    let with = |pod: &Pod| service(&cluster(), &[(pod.ip, 8000).into()], &[]);
    let mut proxy = nodes.one.proxy(with(&here));
    for (pod, name) in [(&here, "here"), (&there, "there")] {
        proxy.publish(with(pod));
        assert_eq!(seen(&client, (VIP, 80)), served(name, client.ip));
        let (server, address) = seen(&nodes.outside, (VIP, 80)).unwrap();
        assert_eq!(server, name, "from outside");
        assert!(nodes.one.is_own(&address), "from outside: {address}");
    }
}

#[test]
fn proxy_s23_http_endpoints_see_the_pods_address_request_by_request() {
    let Some(nodes) = Nodes::new() else { return };
    let clients = [2, 3].map(|last| nodes.one.pod(last));
    let server = nodes.two.pod(3);
    serve_http(&server);
    let endpoint = [(server.ip, 8000).into()];
    // What is left to hyper and what is relayed have pools of their own.
    for protocol in [AppProtocol::Http, AppProtocol::Detect] {
        let snapshot = service_that_speaks(protocol, &cluster(), &endpoint, &[]);
        let _proxy = nodes.one.proxy(snapshot);
        let get = |client: &Pod, upgrade: &str| {
            let mut stream = connect(client, (VIP, 80)).unwrap();
            let request =
                format!("GET / HTTP/1.1\r\nhost: api\r\n{upgrade}connection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer.rsplit("\r\n").next().unwrap().to_owned()
        };
        for client in [&clients[0], &clients[1], &clients[0]] {
            for field in ["", "expect: 100-continue\r\n"] {
                assert_eq!(
                    get(client, field),
                    client.ip.to_string(),
                    "{protocol:?} {field}"
                );
            }
        }
        let own = get(&nodes.outside, "");
        assert!(nodes.one.is_own(&own), "from outside: {own}");
    }
}

#[test]
fn proxy_s5_internal_policy_local_loses_what_only_others_serve() {
    let Some(nodes) = Nodes::new() else { return };
    let clients = (nodes.one.pod(2), nodes.two.pod(2));
    let there = nodes.two.pod(3);
    there.serve_lines("there", 8000);
    let endpoint = [(there.ip, 8000).into()];
    let mut one = nodes.one.proxy(service(&local(), &endpoint, &[]));
    let _two = nodes.two.proxy(service(&local(), &endpoint, &endpoint));
    assert_eq!(seen(&clients.0, (VIP, 80)), TIMED_OUT);
    assert!(nodes.one.lost(Lost::NoLocalInternal) > 0);
    assert_eq!(nodes.one.lost(Lost::NoLocalExternal), 0);
    assert_eq!(seen(&clients.1, (VIP, 80)), served("there", clients.1.ip));
    one.publish(service(&local(), &[], &[]));
    let refused = Err(ErrorKind::ConnectionRefused);
    assert_eq!(seen(&clients.0, (VIP, 80)), refused, "none anywhere");
    drop(one);

    let options = InterceptOptions {
        refuse_instead_of_drop: true,
        ..nodes.one.options()
    };
    let snapshot = service(&local(), &endpoint, &[]);
    let _one = nodes.one.proxy_with(options, snapshot);
    assert_eq!(seen(&clients.0, (VIP, 80)), refused, "as it was asked to");
    assert!(nodes.one.lost(Lost::NoLocalInternal) > 0);
}

#[test]
fn proxy_s7_s8_s9_s10_external_policy_cluster_crosses_nodes_from_the_nodes_address() {
    let Some(nodes) = Nodes::new() else { return };
    let (client, there) = (nodes.one.pod(2), nodes.two.pod(3));
    there.serve_lines("there", 8000);
    let _one = nodes
        .one
        .proxy(service(&cluster(), &[(there.ip, 8000).into()], &[]));
    nodes.balance_to(&nodes.one);
    let node = nodes.one.host.ip;
    for addr in [(node, NODE_PORT), (BALANCER, 80), (EXTERNAL, 80)] {
        for from in [&nodes.outside, &client, &nodes.one.host] {
            let (server, address) = seen(from, addr).unwrap();
            assert_eq!(server, "there", "{addr:?} from {}", from.ip);
            assert!(
                nodes.one.is_own(&address),
                "{addr:?} from {}: {address}",
                from.ip
            );
        }
    }
    let localhost = (Ipv4Addr::LOCALHOST, NODE_PORT);
    let from_here = seen(&nodes.one.host, localhost).unwrap();
    assert_eq!(from_here.0, "there", "localhost");
}

#[test]
fn proxy_s6_external_policy_local_keeps_clients_and_is_not_for_pods() {
    let Some(nodes) = Nodes::new() else { return };
    let (client, there) = (nodes.one.pod(2), nodes.two.pod(3));
    there.serve_lines("there", 8000);
    let endpoint = [(there.ip, 8000).into()];
    let policy = TrafficPolicy {
        internal: Scope::Cluster,
        ..local()
    };
    let _one = nodes.one.proxy(service(&policy, &endpoint, &[]));
    let _two = nodes.two.proxy(service(&policy, &endpoint, &endpoint));
    for (node, number) in [(&nodes.one, 1), (&nodes.two, 2)] {
        nodes.balance_to(node);
        for addr in [(node.host.ip, NODE_PORT), (BALANCER, 80), (EXTERNAL, 80)] {
            let from_outside = seen(&nodes.outside, addr);
            let expected = if number == 1 {
                TIMED_OUT
            } else {
                served("there", nodes.outside.ip)
            };
            assert_eq!(from_outside, expected, "{addr:?} of node {number}");
        }
    }
    assert!(nodes.one.lost(Lost::NoLocalExternal) > 0);
    assert_eq!(nodes.two.lost(Lost::NoLocalExternal), 0);
    let node = nodes.one.host.ip;
    for addr in [(node, NODE_PORT), (BALANCER, 80), (EXTERNAL, 80)] {
        for from in [&client, &nodes.one.host] {
            let (server, _) = seen(from, addr).unwrap();
            assert_eq!(server, "there", "{addr:?} from {}", from.ip);
        }
    }
}

#[test]
fn proxy_s9_source_ranges_turn_others_away_from_the_balancers_address() {
    let Some(nodes) = Nodes::new() else { return };
    let (client, there) = (nodes.one.pod(2), nodes.two.pod(3));
    there.serve_lines("there", 8000);
    let open_to = |ranges: &[&str]| {
        let ranges = ranges.iter().map(|range| range.parse().unwrap());
        let policy = TrafficPolicy {
            source_ranges: Some(ranges.collect()),
            ..TrafficPolicy::default()
        };
        service(&policy, &[(there.ip, 8000).into()], &[])
    };
    let mut one = nodes.one.proxy(open_to(&["10.100.0.3/32"]));
    nodes.balance_to(&nodes.one);
    let is_served = |from: &Pod, addr| match seen(from, addr) {
        Ok(_) => true,
        Err(ErrorKind::TimedOut) => false,
        Err(other) => panic!("{} to {addr:?}: {other}", from.ip),
    };
    for (ranges, outside, pod, host) in [
        (&["10.100.0.3/32"][..], true, false, false),
        (&["10.244.0.0/16", "10.100.0.0/31"], false, true, true),
        (
            &["10.100.0.0/16", "10.100.0.0/24", "10.244.0.0/16"],
            true,
            true,
            true,
        ),
        (&[], false, false, false),
    ] {
        one.publish(open_to(ranges));
        let lost = nodes.one.lost(Lost::SourceRanges);
        let address = (BALANCER, 80);
        assert_eq!(is_served(&nodes.outside, address), outside, "{ranges:?}");
        assert_eq!(is_served(&client, address), pod, "{ranges:?}");
        assert_eq!(is_served(&nodes.one.host, address), host, "{ranges:?}");
        let grew = nodes.one.lost(Lost::SourceRanges) > lost;
        assert_eq!(grew, !(outside && pod && host), "{ranges:?}");
        for open in [(nodes.one.host.ip, NODE_PORT), (EXTERNAL, 80)] {
            assert!(is_served(&nodes.outside, open), "{open:?}: {ranges:?}");
        }
    }
}
