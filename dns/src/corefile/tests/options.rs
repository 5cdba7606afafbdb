//! Every option of every directive.

use super::*;
use crate::limit::OverLimit;

#[test]
fn dns_corefile_every_option_of_kubernetes() {
    let plugins = plugins_of(
        "kubernetes cluster.local other.test 10.96.0.0/15 ip6.arpa {
            endpoint https://10.0.0.1:6443
            tls cert key ca
            kubeconfig /k8s/config admin
            namespaces a b
            labels app in (x, y),tier=front
            pods verified
            endpoint_pod_names
            ttl 0
            noendpoints
            fallthrough in-addr.arpa
            ignore empty_service
            startup_timeout 10s
            apiserver_qps 20.5
            apiserver_burst 30
            apiserver_max_inflight 0
            ptr_hostname_only
        }
        compat coredns
        bind 10.0.0.53",
    );
    let settings = plugins.kubernetes.unwrap();
    assert_eq!(settings.zones, names(&["cluster.local", "other.test"]));
    assert_eq!(
        settings.reverse_zones,
        names(&["96.10.in-addr.arpa", "97.10.in-addr.arpa", "ip6.arpa"])
    );
    assert_eq!(
        settings.api.endpoint.as_deref(),
        Some("https://10.0.0.1:6443")
    );
    assert_eq!(settings.api.tls.as_ref().unwrap().ca, Path::new("ca"));
    let kubeconfig = settings.api.kubeconfig.as_ref().unwrap();
    assert_eq!(kubeconfig.1.as_deref(), Some("admin"));
    assert_eq!(settings.namespaces, ["a", "b"]);
    assert_eq!(settings.labels.as_deref(), Some("app in (x, y),tier=front"));
    assert_eq!((settings.pods, settings.ttl), (PodsMode::Verified, 0));
    assert!(settings.endpoint_pod_names && settings.no_endpoints);
    assert!(settings.ignore_empty_service && settings.ptr_hostname_only);
    assert_eq!(
        settings.fallthrough,
        Fallthrough::Zones(names(&["in-addr.arpa"]))
    );
    assert_eq!(settings.startup_timeout, seconds(10));
    assert!(settings.compat_coredns && plugins.compat_coredns);
    assert_eq!(
        settings.own_addresses,
        ["10.0.0.53".parse::<IpAddr>().unwrap()]
    );
    let plain = plugins_of("kubernetes cluster.local");
    let plain = plain.kubernetes.unwrap();
    assert_eq!((plain.ttl, plain.pods), (5, PodsMode::Disabled));
    assert_eq!(plain.fallthrough, Fallthrough::No);
    assert!(plain.reverse_zones.is_empty() && !plain.compat_coredns);
    assert_eq!(plain.startup_timeout, seconds(5));
}

#[test]
fn dns_corefile_every_option_of_forward() {
    let plugins = plugins_of(
        "root /certs
        forward example.org 10.0.0.1 [fd00::1]:5353 tls://9.9.9.9%dns.quad9.net:8853 https://1.1.1.1 {
            except a.example.org b.example.org
            max_fails 3
            max_connect_attempts 4
            health_check 1s no_rec domain example.net
            prefer_udp
            force_tcp
            tls cert key ca
            expire 20s
            max_age 1m
            max_idle_conns 5
            read_timeout 500ms
            doh_method POST
            policy latency
            max_concurrent 1000
            next nxdomain REFUSED
            next_on_nodata
            failfast_all_unhealthy_upstreams
            failover SERVFAIL
            source_address 10.0.0.53
        }
        forward . /etc/resolv.conf",
    );
    let forward = &plugins.forward[0];
    assert_eq!(forward.from, name("example.org"));
    let plain = |addr: &str| Upstream::Plain(addr.parse().unwrap());
    assert_eq!(
        forward.upstreams,
        [
            plain("10.0.0.1:53"),
            plain("[fd00::1]:5353"),
            Upstream::Tls(
                "9.9.9.9:8853".parse().unwrap(),
                Some("dns.quad9.net".to_owned())
            ),
            Upstream::Https(
                "1.1.1.1:443".parse().unwrap(),
                "https://1.1.1.1/dns-query".to_owned()
            ),
        ]
    );
    assert_eq!(forward.except, names(&["a.example.org", "b.example.org"]));
    assert_eq!((forward.max_fails, forward.max_connect_attempts), (3, 4));
    let check = &forward.health_check;
    assert_eq!(
        (check.interval, check.recursion_desired),
        (seconds(1), false)
    );
    assert_eq!(check.domain, name("example.net"));
    assert_eq!(
        (forward.protocol, forward.policy),
        (Protocol::Tcp, Policy::Latency)
    );
    assert_eq!(
        (forward.expire, forward.max_age),
        (seconds(20), seconds(60))
    );
    assert_eq!(
        (forward.max_idle_connections, forward.max_concurrent),
        (5, 1000)
    );
    assert_eq!(forward.read_timeout, Duration::from_millis(500));
    assert_eq!(
        forward.next,
        [ResponseCode::NXDomain, ResponseCode::Refused]
    );
    assert_eq!(forward.failover, [ResponseCode::ServFail]);
    assert!(forward.next_on_nodata && forward.failfast_all_unhealthy_upstreams);
    assert_eq!(forward.source_address, Some("10.0.0.53".parse().unwrap()));
    assert_eq!(forward.tls.ca.as_deref(), Some(Path::new("/certs/ca")));
    let (certificate, _) = forward.tls.identity.as_ref().unwrap();
    assert_eq!(certificate, Path::new("/certs/cert"));
    assert_eq!(
        plugins.forward[1].files,
        [PathBuf::from("/etc/resolv.conf")]
    );
    let plugins = plugins_of("forward . tls://1.1.1.1 {\n tls_servername one.one\n}");
    assert_eq!(
        plugins.forward[0].tls.server_name.as_deref(),
        Some("one.one")
    );
}

#[test]
fn dns_corefile_every_option_of_cache() {
    let plugins = plugins_of(
        "cache 100 example.org {
            success 5000 60 10
            denial 10 30
            prefetch 5 10m 20%
            serve_stale 2h immediate 10s 30s
            serve_stale_policy prefer_positive
            servfail 0
            disable success a.example.org
            disable denial
            keepttl
            max_bytes 1000000
            search_guard corp.example.com
        }",
    );
    let cache = plugins.cache.unwrap();
    assert_eq!(cache.zones, names(&["example.org"]));
    let success = cache.success;
    assert_eq!(
        (
            success.capacity,
            success.max_ttl,
            success.min_ttl,
            success.max_bytes
        ),
        (5000, seconds(60), seconds(10), 1_000_000)
    );
    let denial = cache.denial;
    assert_eq!(
        (denial.capacity, denial.max_ttl, denial.min_ttl),
        (1024, seconds(30), seconds(5))
    );
    let prefetch = cache.prefetch.unwrap();
    assert_eq!(
        (prefetch.amount, prefetch.duration, prefetch.percentage),
        (5, seconds(600), 20)
    );
    let stale = cache.serve_stale.unwrap();
    assert_eq!(
        (stale.max_age, stale.refresh),
        (seconds(7200), StaleRefresh::Immediate)
    );
    assert_eq!(
        (stale.ttl, stale.recheck, stale.prefer_positive),
        (10, seconds(30), true)
    );
    assert_eq!(cache.servfail, Duration::ZERO);
    assert_eq!(cache.disable_success, names(&["a.example.org"]));
    assert_eq!(cache.disable_denial, [Name::root()]);
    assert!(cache.keep_ttl);
    assert_eq!(cache.search_guard, names(&["corp.example.com"]));
    for (line, timeout, ttl, recheck) in [
        ("serve_stale", Some(400), 30, 30),
        ("serve_stale 1h", Some(400), 30, 30),
        ("serve_stale 1h immediate", None, 0, 0),
        ("serve_stale 1h verify", Some(0), 0, 0),
        ("serve_stale 1h verify 200ms 5s 1m", Some(200), 5, 60),
    ] {
        let cache = plugins_of(&format!("cache {{\n{line}\n}}")).cache.unwrap();
        let stale = cache.serve_stale.unwrap();
        let refresh = match timeout {
            Some(timeout) => StaleRefresh::Verify {
                timeout: Duration::from_millis(timeout),
            },
            None => StaleRefresh::Immediate,
        };
        assert_eq!(
            (stale.max_age, stale.refresh),
            (seconds(3600), refresh),
            "{line}"
        );
        assert_eq!(
            (stale.ttl, stale.recheck),
            (ttl, seconds(recheck)),
            "{line}"
        );
    }
    let cache = plugins_of("cache").cache.unwrap();
    assert_eq!(cache.zones, [Name::root()]);
    assert_eq!(
        (cache.success.max_ttl, cache.denial.max_ttl),
        (seconds(3600), seconds(1800))
    );
    assert_eq!((cache.servfail, cache.success.capacity), (seconds(5), 9984));
}

#[test]
fn dns_corefile_every_option_of_ratelimit() {
    let plugins = plugins_of(
        "ratelimit 100 500 {
            exempt 10.0.0.0/8 fd00::1
            over drop
        }",
    );
    let rates = plugins.client_limit.unwrap();
    let limit = rates.limit();
    assert_eq!((limit.per_second, limit.burst), (100, 500));
    assert_eq!(limit.over, OverLimit::Drop);
    let exempt = [("10.0.0.0", 8), ("fd00::1", 128)];
    let exempt = exempt.map(|(net, prefix)| (net.parse().unwrap(), prefix));
    assert_eq!(limit.exempt, exempt);

    let plugins = plugins_of("ratelimit 100");
    let rates = plugins.client_limit.unwrap();
    assert_eq!(rates.limit().burst, 100);
    assert_eq!(rates.limit().over, OverLimit::Truncate);
    assert!(plugins_of("errors").client_limit.is_none(), "off");
}
