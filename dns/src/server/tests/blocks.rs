//! Which server block answers.

use hickory_proto::op::ResponseCode;

use super::*;
use crate::config::{ForwardSettings, Plugins, Scheme, ServerBlock, ServerKey, Upstream as To};
use crate::testing::World;
use crate::testing::upstream::{React, address, negative};

/// An upstream that answers every name with 10.1.2.LAST.
async fn upstream(last: u8) -> Upstream {
    Upstream::start(move |query, _| vec![React::Reply(address(query, last))]).await
}

fn forward(upstream: &Upstream) -> Plugins {
    let settings = ForwardSettings::to(vec![To::Plain(upstream.addr)]);
    Plugins {
        forward: vec![Arc::new(settings)],
        ..Plugins::default()
    }
}

fn kubernetes(settings: DnsSettings) -> Plugins {
    Plugins {
        kubernetes: Some(Arc::new(settings)),
        ..Plugins::default()
    }
}

/// A block for keys such as `dns://example.org:53`.
fn block(keys: &[&str], plugins: Plugins) -> Arc<ServerBlock> {
    let key = |text: &&str| {
        let (scheme, rest) = text.split_once("://").unwrap();
        let (zone, port) = rest.split_once(':').unwrap();
        ServerKey {
            scheme: match scheme {
                "dns" => Scheme::Dns,
                "tls" => Scheme::Tls,
                other => panic!("scheme {other}"),
            },
            zone: zone.parse().unwrap(),
            port: port.parse().unwrap(),
        }
    };
    Arc::new(ServerBlock {
        place: "Corefile:1".into(),
        keys: keys.iter().map(key).collect(),
        bind: Vec::new(),
        plugins,
    })
}

fn config(blocks: Vec<Arc<ServerBlock>>) -> DnsConfig {
    DnsConfig {
        blocks,
        ..DnsConfig::default()
    }
}

/// Code, and the last byte of each address.
fn short(message: &Message) -> String {
    let mut text = format!("{:?}", message.metadata.response_code).to_uppercase();
    for record in &message.answers {
        let record = record.to_string();
        text.push_str(&format!(" {}", record.rsplit(['.', ' ']).next().unwrap()));
    }
    text
}

#[tokio::test]
async fn dns_corefile_the_longest_zone_of_the_listener_answers() {
    local(async {
        let (root, stub, deep, other) = (
            upstream(1).await,
            upstream(2).await,
            upstream(3).await,
            upstream(4).await,
        );
        let config = config(vec![
            block(&["dns://.:53"], forward(&root)),
            block(
                &["dns://example.local:53", "dns://corp.test:53"],
                forward(&stub),
            ),
            block(&["dns://deep.example.local:53"], forward(&deep)),
            block(
                &["dns://web.example.local:54", "tls://web.example.local:53"],
                forward(&other),
            ),
        ]);
        let server = Running::start(World::new().build(), config).await;
        for (name, expected) in [
            ("example.org.", "NOERROR 1"),
            ("xexample.local.", "NOERROR 1"),
            ("example.local.", "NOERROR 2"),
            ("web.EXAMPLE.local.", "NOERROR 2"),
            ("a.corp.test.", "NOERROR 2"),
            ("a.deep.example.local.", "NOERROR 3"),
        ] {
            assert_eq!(short(&server.ask(name, "A").await), expected, "{name}");
        }
        // DS is on the parent's side, as far up as there is a zone that is not the root.
        let seen = |upstream: &Upstream| upstream.seen().len();
        let before = (seen(&stub), seen(&deep));
        server.ask("deep.example.local.", "DS").await;
        assert_eq!((seen(&stub), seen(&deep)), (before.0 + 1, before.1));
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_corefile_a_name_of_no_block_is_refused_and_of_no_plugin_servfail() {
    local(async {
        let config = config(vec![block(
            &["dns://cluster.local:53", "dns://test:53"],
            kubernetes(DnsSettings::default()),
        )]);
        let server = Running::start(World::new().build(), config).await;
        for (name, expected) in [
            ("example.org.", ResponseCode::Refused),
            ("a.test.", ResponseCode::ServFail),
            ("nope.cluster.local.", ResponseCode::NXDomain),
        ] {
            let found = server.ask(name, "A").await;
            assert_eq!(found.metadata.response_code, expected, "{name}");
        }
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_e1_an_alias_is_looked_up_in_the_block_that_has_its_target() {
    local(async {
        let (root, stub) = (upstream(1).await, upstream(2).await);
        let world = World::new()
            .external("out", "www.example.org")
            .external("stub", "db.example.local")
            .external("across", "svc1.testns.svc.other.test")
            .external("loop", "loop.testns.svc.other.test")
            .external("nowhere", "a.nowhere.test")
            .cluster_ip("svc1", &["10.0.0.9"], &[]);
        let other = DnsSettings {
            zones: vec!["other.test".parse().unwrap()],
            ..DnsSettings::default()
        };
        let config = config(vec![
            block(
                &["dns://cluster.local:53"],
                kubernetes(DnsSettings::default()),
            ),
            block(&["dns://other.test:53"], kubernetes(other)),
            block(&["dns://example.org:53"], forward(&root)),
            block(&["dns://example.local:53"], forward(&stub)),
        ]);
        let server = Running::start(world.build(), config).await;
        for (name, expected) in [
            ("out", &["www.example.org. 60 IN A 10.1.2.1"][..]),
            ("stub", &["db.example.local. 60 IN A 10.1.2.2"]),
            ("across", &["svc1.testns.svc.other.test. 30 IN A 10.0.0.9"]),
        ] {
            let found = server
                .ask(&format!("{name}.testns.svc.cluster.local."), "A")
                .await;
            let found = lines(&found);
            assert_eq!(found[0], "NOERROR", "{name}");
            assert!(found[1].contains(" CNAME "), "{name}");
            assert_eq!(found[2..], *expected, "{name}");
        }
        for name in ["loop", "nowhere"] {
            let name = format!("{name}.testns.svc.cluster.local.");
            let found = server.ask(&name, "A").await;
            assert_eq!(
                found.metadata.response_code,
                ResponseCode::ServFail,
                "{name}"
            );
        }
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_e5_compatible_aliases_out_of_the_cluster_are_noerror() {
    local(async {
        let missing =
            Upstream::start(|query, _| vec![React::Reply(negative(query, ResponseCode::NXDomain))])
                .await;
        let world = || {
            World::new()
                .external("gone", "gone.example.org")
                .external("nowhere", "a.nowhere.test")
                .build()
        };
        for (compat_coredns, codes) in [
            (true, [ResponseCode::NoError, ResponseCode::NoError]),
            (false, [ResponseCode::NXDomain, ResponseCode::ServFail]),
        ] {
            let plugins = Plugins {
                compat_coredns,
                ..kubernetes(DnsSettings {
                    compat_coredns,
                    ..DnsSettings::default()
                })
            };
            let config = config(vec![
                block(&["dns://cluster.local:53"], plugins),
                block(&["dns://example.org:53"], forward(&missing)),
            ]);
            let server = Running::start(world(), config).await;
            for (name, code) in ["gone", "nowhere"].into_iter().zip(codes) {
                let name = format!("{name}.testns.svc.cluster.local.");
                let found = server.ask(&name, "A").await;
                assert_eq!(
                    found.metadata.response_code, code,
                    "{name} {compat_coredns}"
                );
                if compat_coredns {
                    assert_eq!((found.answers.len(), found.authorities.len()), (1, 0));
                }
            }
            server.stop().await;
        }
    })
    .await;
}

#[tokio::test]
async fn dns_corefile_a_new_configuration_counts_from_the_next_query() {
    local(async {
        let (before, after) = (upstream(1).await, upstream(2).await);
        let of = |to: &Upstream| config(vec![block(&["dns://.:53"], forward(to))]);
        let (_publisher, server) = server(World::new().build(), of(&before));
        let socket = bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let at = socket.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let (serving, stop) = (server.clone(), shutdown.clone());
        let task =
            spawn_local(async move { serving.serve_udp(Listener::CLUSTER, socket, stop).await });
        let message = query("example.org.", "A");
        assert_eq!(short(&ask_at(at, &message).await), "NOERROR 1");
        server.reconfigure(&of(&after));
        assert_eq!(short(&ask_at(at, &message).await), "NOERROR 2");
        server.reconfigure(&config(Vec::new()));
        assert_eq!(short(&ask_at(at, &message).await), "REFUSED");
        shutdown.cancel();
        task.await.unwrap().unwrap();
    })
    .await;
}

#[test]
fn dns_corefile_blocks_count_on_the_addresses_they_are_bound_to() {
    let mut bound = ServerBlock::clone(&block(&["dns://.:53", "tls://.:853"], Plugins::default()));
    let addrs = ["10.0.0.1", "fd00::1"].map(|ip| ip.parse().unwrap());
    bound.bind = addrs.to_vec();
    let open = block(&["dns://.:53"], Plugins::default());
    let listener = |addr| Listener {
        addr,
        ..Listener::CLUSTER
    };
    let zones = |block: &ServerBlock, addr| block.zones_on(listener(addr)).count();
    assert_eq!((zones(&bound, None), zones(&open, None)), (0, 1));
    for addr in addrs {
        assert_eq!(
            (zones(&bound, Some(addr)), zones(&open, Some(addr))),
            (1, 0)
        );
    }
    let all = config(vec![Arc::new(bound), open]).listeners();
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    assert_eq!(
        all,
        [
            "dns://:53",
            "dns://10.0.0.1:53",
            "dns://[fd00::1]:53",
            "tls://10.0.0.1:853",
            "tls://[fd00::1]:853"
        ]
    );
}
