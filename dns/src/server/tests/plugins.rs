//! Plugins in a server's chain, and what is reported of queries.

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::corefile::{self, Loader};
use crate::metrics::Metrics;
use crate::observe::LogSink;
use crate::testing::World;
use crate::testing::upstream::web;

use super::*;

/// No files besides the Corefile.
struct NoFiles;

impl Loader for NoFiles {
    fn read(&self, _path: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn glob(&self, _pattern: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    fn env(&self, _name: &str) -> Option<String> {
        None
    }

    fn interface(&self, _name: &str) -> Option<Vec<IpAddr>> {
        None
    }

    fn addresses(&self) -> Vec<IpAddr> {
        Vec::new()
    }

    fn host_name(&self) -> String {
        "node-1".to_owned()
    }
}

/// What was logged.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Server {
    front: Front,
    observe: Observe,
    logged: Logged,
    _publisher: Publisher,
}

impl Server {
    fn new(corefile: &str) -> Self {
        let config = corefile::parse(corefile, "Corefile", &NoFiles, corefile::Options::default());
        let config = config
            .unwrap_or_else(|problems| panic!("{problems:?}"))
            .config;
        let snapshot = World::new().cluster_ip("svc1", &["10.0.0.1"], &["http/tcp/80"]);
        let (mut publisher, reader) = snapshot::channel();
        publisher.publish(snapshot.build());
        let logged = Logged::default();
        let observe = Observe {
            metrics: Metrics::default(),
            log: LogSink::to(logged.clone()).unwrap(),
        };
        let sockets = HostSockets::here();
        let server = DnsServer::observed(reader, sockets, &config, observe.clone());
        Self {
            front: server.front(Listener::CLUSTER),
            observe,
            logged,
            _publisher: publisher,
        }
    }

    /// The reply, if there is one.
    async fn reply(&self, message: &Message, client: &str) -> Option<Message> {
        let mut out = Vec::new();
        let bytes = message.to_vec().unwrap();
        let client = client.parse().unwrap();
        match self.front.start(&bytes, client, Transport::Udp, &mut out) {
            Step::Silence => return None,
            Step::Replied(..) => {}
            Step::Later(later) => self.front.finish(later, &mut out).await,
        }
        let reply = Message::from_vec(&out).unwrap();
        assert_eq!(
            reply.queries, message.queries,
            "the question is repeated as it came"
        );
        Some(reply)
    }

    /// Code and records; additional ones after a plus sign.
    async fn ask(&self, name: &str, record_type: &str) -> String {
        let reply = self.reply(&query(name, record_type), "10.9.9.9:4242").await;
        reply.map_or("silence".to_owned(), |reply| shown(&reply))
    }

    fn lines(&self) -> Vec<String> {
        self.observe.log.flush(DEADLINE);
        let bytes = std::mem::take(&mut *self.logged.0.lock().unwrap());
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

fn shown(reply: &Message) -> String {
    let mut lines = lines(reply);
    let additional = reply.additionals.iter();
    lines.extend(additional.map(|record| format!("+{record}")));
    lines.join("; ")
}

const ALL: &str = r#"
.:53 {
    errors
    log . "{name} {type} {class} {proto} {>rflags} {rcode}"
    acl example.org {
        block type A net 10.9.9.9
        filter type TXT net *
        drop type MX net *
    }
    any
    chaos Sealane-7 ann
    rewrite name short.test svc1.testns.svc.cluster.local
    rewrite name suffix .old.test .svc.cluster.local answer auto
    rewrite ttl suffix ttl.test 7
    rewrite type HINFO TXT
    template IN A tpl.test {
        match "^(?P<n>\w+)\.tpl\.test\.$"
        answer "{{ .Name }} 60 IN CNAME {{ .Group.n }}.testns.svc.cluster.local."
    }
    template IN ANY nx.test {
        rcode NXDOMAIN
    }
    hosts /nowhere/hosts {
        10.1.1.1 one.hosts.test
        10.1.1.2 a.ttl.test
        fallthrough
    }
    kubernetes cluster.local in-addr.arpa {
        fallthrough in-addr.arpa
    }
    whoami
    prometheus
    loadbalance
}
"#;

#[tokio::test]
async fn dns_plugins_answer_in_their_order() {
    local(async {
        let server = Server::new(ALL);
        let svc1 = "svc1.testns.svc.cluster.local.";
        for (name, record_type, expected) in [
            (svc1, "A", format!("NOERROR; {svc1} 5 IN A 10.0.0.1")),
            (
                "Short.test.",
                "A",
                "NOERROR; Short.test. 5 IN A 10.0.0.1".to_owned(),
            ),
            (
                "svc1.testns.OLD.test.",
                "A",
                "NOERROR; svc1.testns.old.test. 5 IN A 10.0.0.1".to_owned(),
            ),
            (
                "svc1.tpl.test.",
                "A",
                format!("NOERROR; svc1.tpl.test. 60 IN CNAME {svc1}; {svc1} 5 IN A 10.0.0.1"),
            ),
            ("x.nx.test.", "A", "NXDOMAIN".to_owned()),
            (
                "one.hosts.test.",
                "A",
                "NOERROR; one.hosts.test. 3600 IN A 10.1.1.1".to_owned(),
            ),
            ("one.hosts.test.", "AAAA", "NOERROR".to_owned()),
            (
                "a.ttl.test.",
                "A",
                "NOERROR; a.ttl.test. 7 IN A 10.1.1.2".to_owned(),
            ),
            (
                "1.1.1.10.in-addr.arpa.",
                "PTR",
                "NOERROR; 1.1.1.10.in-addr.arpa. 3600 IN PTR one.hosts.test.".to_owned(),
            ),
            (
                "who.test.",
                "A",
                "NOERROR; +who.test. 0 IN A 10.9.9.9; +_udp.who.test. 0 IN SRV 0 0 4242 ."
                    .to_owned(),
            ),
            (
                "who.test.",
                "ANY",
                "NOERROR; who.test. 8482 IN HINFO ANY obsoleted See RFC 8482".to_owned(),
            ),
            ("a.example.org.", "A", "REFUSED".to_owned()),
            ("a.example.org.", "TXT", "NOERROR".to_owned()),
            ("a.example.org.", "MX", "silence".to_owned()),
        ] {
            assert_eq!(
                server.ask(name, record_type).await,
                expected,
                "{name} {record_type}"
            );
        }
        let elsewhere = server
            .reply(&query("a.example.org.", "A"), "10.9.9.8:1")
            .await;
        assert_eq!(
            shown(&elsewhere.unwrap()),
            "NOERROR; +a.example.org. 0 IN A 10.9.9.8; +_udp.a.example.org. 0 IN SRV 0 0 1 ."
        );
    })
    .await;
}

#[test]
fn dns_template_that_is_not_supported_is_refused_with_its_place() {
    let corefile =
        ".:53 {\n template IN A {\n answer \"{{ .Meta \\\"x\\\" }} IN A 10.0.0.1\"\n }\n}\n";
    let options = corefile::Options::default();
    let problems = corefile::parse(corefile, "Corefile", &NoFiles, options).unwrap_err();
    let text = problems[0].to_string();
    assert!(text.starts_with("Corefile:3"), "{text}");
    assert!(text.contains("is not supported; known are .Name"), "{text}");
}

#[tokio::test]
async fn dns_chaos_over_the_wire_is_of_its_class() {
    local(async {
        let server = Server::new(ALL);
        let ask = |name: &str| {
            let mut message = query(name, "TXT");
            message.queries[0].set_query_class(hickory_proto::rr::DNSClass::CH);
            message
        };
        let reply = server
            .reply(&ask("version.bind."), "10.9.9.9:1")
            .await
            .unwrap();
        assert_eq!(shown(&reply), "NOERROR; version.bind. 0 CH TXT Sealane-7");
        let reply = server
            .reply(&ask("svc1.testns.svc.cluster.local."), "10.9.9.9:1")
            .await;
        assert_eq!(shown(&reply.unwrap()), "REFUSED");
        let without = Server::new(".:53 {\n whoami\n}\n");
        let reply = without
            .reply(&ask("version.bind."), "10.9.9.9:1")
            .await
            .unwrap();
        assert_eq!(shown(&reply), "REFUSED");
    })
    .await;
}

#[tokio::test]
async fn dns_metrics_and_logs_of_known_queries() {
    local(async {
        let server = Server::new(ALL);
        let svc1 = "svc1.testns.svc.cluster.local.";
        server.ask(svc1, "A").await;
        server.reply(&with_edns(query("Svc1.testns.svc.cluster.local.", "AAAA"), 1232), "[fd00::1]:1").await;
        server.ask("x.nx.test.", "A").await;
        server.ask("svc1.tpl.test.", "A").await;
        server.ask("a.example.org.", "A").await;
        server.ask("a.example.org.", "MX").await;
        let text = server.observe.metrics.render();
        for line in [
            r#"coredns_dns_requests_total{server="dns://:53",zone=".",view="",proto="udp",family="1",type="A"} 4"#,
            r#"coredns_dns_requests_total{server="dns://:53",zone=".",view="",proto="udp",family="2",type="AAAA"} 1"#,
            r#"coredns_dns_responses_total{server="dns://:53",zone=".",view="",rcode="NOERROR",plugin="loadbalance"} 3"#,
            r#"coredns_dns_responses_total{server="dns://:53",zone=".",view="",rcode="NXDOMAIN",plugin="loadbalance"} 1"#,
            r#"coredns_dns_responses_total{server="dns://:53",zone=".",view="",rcode="REFUSED",plugin="acl"} 1"#,
            r#"coredns_dns_request_duration_seconds_count{server="dns://:53",zone=".",view=""} 5"#,
            r#"coredns_template_matches_total{server="dns://:53",zone=".",view="",class="IN",type="A"} 2"#,
            r#"coredns_acl_blocked_requests_total{server="dns://:53",zone=".",view=""} 1"#,
            r#"coredns_acl_dropped_requests_total{server="dns://:53",zone=".",view=""} 1"#,
            r#"coredns_acl_allowed_requests_total{server="dns://:53",view=""} 4"#,
            r#"coredns_hosts_entries{hostsfile="/nowhere/hosts"} 2"#,
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        assert_eq!(
            server.lines(),
            [
                "[INFO] svc1.testns.svc.cluster.local. A IN udp qr,aa,rd NOERROR",
                "[INFO] svc1.testns.svc.cluster.local. AAAA IN udp qr,aa,rd NOERROR",
                "[INFO] x.nx.test. A IN udp qr,aa,rd NXDOMAIN",
                "[INFO] svc1.tpl.test. A IN udp qr,aa,rd NOERROR",
                "[INFO] a.example.org. A IN udp qr,rd REFUSED",
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn dns_metrics_of_queries_for_nobody_and_by_zone() {
    local(async {
        let server = Server::new("a.test:53 {\n whoami\n}\nb.a.test:53 {\n whoami\n}\n");
        assert_eq!(server.ask("x.other.", "A").await, "REFUSED");
        server.ask("x.a.test.", "A").await;
        server.ask("x.b.a.test.", "A").await;
        let text = server.observe.metrics.render();
        for (zone, rcode, plugin) in [
            ("dropped", "REFUSED", ""),
            ("a.test.", "NOERROR", "whoami"),
            ("b.a.test.", "NOERROR", "whoami"),
        ] {
            let line = format!(
                "coredns_dns_responses_total{{server=\"dns://:53\",zone=\"{zone}\",view=\"\",rcode=\"{rcode}\",plugin=\"{plugin}\"}} 1"
            );
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn dns_errors_and_log_classes_of_forwarded_queries() {
    local(async {
        let upstream = Upstream::start(web).await;
        let dead = {
            // Nothing listens there once the socket is gone.
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.local_addr().unwrap()
        };
        let server = Server::new(&format!(
            ".:53 {{\n errors\n log . {{\n class denial error\n }}\n cache\n \
             forward . {}\n prometheus\n}}\ndead.test:53 {{\n errors\n forward . {dead}\n}}\n",
            upstream.addr
        ));
        for _ in 0..2 {
            assert_eq!(server.ask("web.test.", "A").await, "NOERROR; web.test. 60 IN A 10.1.2.3");
        }
        assert!(server.ask("x.dead.test.", "A").await.starts_with("SERVFAIL"));
        let lines = server.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("[ERROR] plugin/errors: 2 x.dead.test. A: "), "{lines:?}");
        let text = server.observe.metrics.render();
        for line in [
            r#"coredns_dns_responses_total{server="dns://:53",zone=".",view="",rcode="NOERROR",plugin="cache"} 2"#,
            r#"coredns_dns_responses_total{server="dns://:53",zone="dead.test.",view="",rcode="SERVFAIL",plugin=""} 1"#,
            r#"coredns_cache_hits_total{server="dns://:53",type="success",zones=".",view=""} 1"#,
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn dns_rewrite_reaches_upstreams_and_caches() {
    local(async {
        let upstream = Upstream::start(web).await;
        let server = Server::new(&format!(
            ".:53 {{\n rewrite name exact alias.test web.test\n rewrite type HINFO A\n cache\n \
             forward . {}\n minimal\n}}\n",
            upstream.addr
        ));
        for _ in 0..2 {
            assert_eq!(
                server.ask("Alias.test.", "A").await,
                "NOERROR; Alias.test. 60 IN A 10.1.2.3"
            );
            assert_eq!(
                server.ask("web.test.", "HINFO").await,
                "NOERROR; web.test. 60 IN A 10.1.2.3"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn dns_metrics_count_replies_that_are_given_again() {
    local(async {
        let corefile = ".:53 {\n kubernetes cluster.local\n loadbalance\n prometheus\n}\n";
        let options = corefile::Options::default();
        let config = corefile::parse(corefile, "Corefile", &NoFiles, options).unwrap();
        let snapshot = World::new().cluster_ip("svc1", &["10.0.0.1"], &["http/tcp/80"]);
        let (mut publisher, reader) = snapshot::channel();
        publisher.publish(snapshot.build());
        let observe = Observe::default();
        let sockets = HostSockets::here();
        let server = DnsServer::observed(reader, sockets, &config.config, observe.clone());
        let socket = bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = socket.local_addr().unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let served =
            spawn_local(async move { server.serve_udp(Listener::CLUSTER, socket, stopped).await });
        for _ in 0..5 {
            ask_at(addr, &query("svc1.testns.svc.cluster.local.", "A")).await;
        }
        let text = observe.metrics.render();
        let block = r#"server="dns://:53",zone=".",view="""#;
        for line in [
            format!(
                "coredns_dns_requests_total{{{block},proto=\"udp\",family=\"1\",type=\"A\"}} 5"
            ),
            format!(
                "coredns_dns_responses_total{{{block},rcode=\"NOERROR\",plugin=\"loadbalance\"}} 5"
            ),
            format!("coredns_dns_request_duration_seconds_count{{{block}}} 5"),
            format!(
                "coredns_dns_response_size_bytes_sum{{{block},proto=\"udp\"}} {}",
                5 * 63
            ),
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        stop.cancel();
        timeout(DEADLINE, served).await.unwrap().unwrap().unwrap();
    })
    .await;
}
