//! Names that go to others, through the whole server.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::config::{Plugins, ServerBlock, Upstream as To};
use crate::forward::{ForwardPlans, ForwardSetupError};
use crate::metrics::Metrics;
use crate::testing::upstream::{React, address};

/// A block without cache for a zone, on the usual listener.
fn block(zone: &str, plugins: Plugins) -> Arc<ServerBlock> {
    let mut block = (*DnsConfig::cluster(DnsSettings::default(), Vec::new()).blocks[0]).clone();
    block.keys[0].zone = zone.parse().unwrap();
    block.plugins = plugins;
    Arc::new(block)
}

fn to(zone: &str, upstream: SocketAddr) -> Arc<ForwardSettings> {
    Arc::new(ForwardSettings {
        from: zone.parse().unwrap(),
        ..ForwardSettings::to(vec![To::Plain(upstream)])
    })
}

/// An upstream that answers everything with 10.1.2.N.
async fn answering(last: u8) -> Upstream {
    Upstream::start(move |query, _| vec![React::Reply(address(query, last))]).await
}

#[tokio::test]
async fn dns_forward_stub_domains_go_where_they_belong() {
    local(async {
        let everything = answering(1).await;
        let stub = answering(2).await;
        let line = answering(3).await;
        let excepted = answering(4).await;
        let mut wide = (*to(".", everything.addr)).clone();
        wide.except = vec!["except.test".parse().unwrap()];
        let config = DnsConfig {
            blocks: vec![
                block(
                    ".",
                    Plugins {
                        forward: vec![
                            to("line.test", line.addr),
                            Arc::new(wide),
                            to("except.test", excepted.addr),
                        ],
                        ..Plugins::default()
                    },
                ),
                block(
                    "stub.test",
                    Plugins {
                        forward: vec![to(".", stub.addr)],
                        ..Plugins::default()
                    },
                ),
            ],
            ..DnsConfig::default()
        };
        let server = Running::start(Snapshot::default(), config).await;
        for (name, last) in [
            ("example.test.", 1),
            ("a.STUB.test.", 2),
            ("xstub.test.", 1),
            ("a.line.test.", 3),
            ("a.line.stub.test.", 2),
            ("a.except.test.", 4),
        ] {
            let reply = server.ask(name, "A").await;
            let expected = format!("{name} 60 IN A 10.1.2.{last}");
            assert_eq!(lines(&reply)[1], expected, "{name}");
        }
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_e1_what_an_upstream_cuts_off_is_passed_on() {
    local(async {
        let upstream = Upstream::start(|query, tcp| {
            let mut message = address(query, 3);
            message.metadata.truncation = !tcp;
            vec![React::Reply(message)]
        })
        .await;
        let server = Running::start(Snapshot::default(), forwarding_to(&upstream)).await;
        let reply = server.ask("web.test.", "A").await;
        assert!(reply.metadata.truncation);
        let asked = query("web.test.", "A").to_vec().unwrap();
        let mut stream = tokio::net::TcpStream::connect(server.tcp).await.unwrap();
        stream.write_u16(asked.len() as u16).await.unwrap();
        stream.write_all(&asked).await.unwrap();
        let mut reply = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut reply).await.unwrap();
        let reply = Message::from_vec(&reply).unwrap();
        assert!(!reply.metadata.truncation);
        assert_eq!(lines(&reply)[1], "web.test. 60 IN A 10.1.2.3");
        let seen: Vec<bool> = upstream.seen().iter().map(|seen| seen.tcp).collect();
        assert_eq!(seen, [false, true]);
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_loop_a_server_that_is_its_own_upstream_finds_out() {
    local(async {
        let (_publisher, server) = server(Snapshot::default(), DnsConfig::default());
        let socket = bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = socket.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let (by_udp, stop) = (server.clone(), shutdown.clone());
        let task =
            spawn_local(async move { by_udp.serve_udp(Listener::CLUSTER, socket, stop).await });
        let config = DnsConfig {
            blocks: vec![block(
                "test",
                Plugins {
                    forward: vec![to(".", addr)],
                    loop_detection: true,
                    ..Plugins::default()
                },
            )],
            ..DnsConfig::default()
        };
        let metrics = Metrics::default();
        let config = config.with_forwards(&[], &metrics).unwrap();
        server.reconfigure(&config);
        let watch = config.forwards.watch(HostSockets::here(), shutdown.clone());
        let found = timeout(DEADLINE, watch).await.expect("the loop is found");
        assert!(matches!(found, Err(ForwardSetupError::OnlyOurselves(_))));
        let reply = ask_at(addr, &query("web.test.", "A")).await;
        assert_eq!(lines(&reply), ["SERVFAIL"], "nobody is asked any more");
        // At load it would have been seen as well.
        let known = ForwardPlans::load(&config, &[addr], &metrics);
        assert!(matches!(known, Err(ForwardSetupError::OnlyOurselves(_))));
        shutdown.cancel();
        timeout(DEADLINE, task).await.unwrap().unwrap().unwrap();
    })
    .await;
}
