use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::*;
use crate::name::Name;

fn observed(record_type: RecordType, rcode: ResponseCode) -> Observed {
    Observed {
        is_udp: true,
        client: IpAddr::from([10, 0, 0, 1]),
        record_type,
        dnssec_ok: false,
        rcode,
        writer: Writer::Loadbalance,
        request_size: 40,
        response_size: 101,
        duration: Duration::from_micros(250),
    }
}

fn lines<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let lines = text.lines();
    lines.filter(|line| line.starts_with(prefix)).collect()
}

#[test]
fn dns_metrics_of_queries_have_the_names_labels_and_buckets_of_coredns() {
    let metrics = Metrics::default();
    let queries = QueryMetrics::new(&metrics, "dns://:53", ".");
    queries.record(&observed(RecordType::A, ResponseCode::NoError));
    queries.record(&Observed {
        is_udp: false,
        client: "2001:db8::1".parse().unwrap(),
        dnssec_ok: true,
        writer: Writer::Server,
        duration: Duration::from_secs(10),
        ..observed(RecordType::Unknown(65_280), ResponseCode::ServFail)
    });
    let text = metrics.render();
    for line in [
        r#"coredns_dns_requests_total{server="dns://:53",zone=".",view="",proto="udp",family="1",type="A"} 1"#,
        r#"coredns_dns_requests_total{server="dns://:53",zone=".",view="",proto="tcp",family="2",type="other"} 1"#,
        r#"coredns_dns_responses_total{server="dns://:53",zone=".",view="",rcode="NOERROR",plugin="loadbalance"} 1"#,
        r#"coredns_dns_responses_total{server="dns://:53",zone=".",view="",rcode="SERVFAIL",plugin=""} 1"#,
        r#"coredns_dns_do_requests_total{server="dns://:53",zone=".",view=""} 1"#,
        r#"coredns_dns_request_duration_seconds_bucket{server="dns://:53",zone=".",view="",le="0.00025"} 1"#,
        r#"coredns_dns_request_duration_seconds_bucket{server="dns://:53",zone=".",view="",le="8.192"} 1"#,
        r#"coredns_dns_request_duration_seconds_bucket{server="dns://:53",zone=".",view="",le="+Inf"} 2"#,
        r#"coredns_dns_request_duration_seconds_sum{server="dns://:53",zone=".",view=""} 10.00025"#,
        r#"coredns_dns_request_duration_seconds_count{server="dns://:53",zone=".",view=""} 2"#,
        r#"coredns_dns_response_size_bytes_bucket{server="dns://:53",zone=".",view="",proto="udp",le="100"} 0"#,
        r#"coredns_dns_response_size_bytes_bucket{server="dns://:53",zone=".",view="",proto="udp",le="200"} 1"#,
        r#"coredns_dns_request_size_bytes_sum{server="dns://:53",zone=".",view="",proto="tcp"} 40"#,
        "# TYPE coredns_dns_request_duration_seconds histogram",
        "# TYPE coredns_dns_requests_total counter",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
    let bounds = |name: &str| -> Vec<String> {
        let bounds = lines(&text, name).into_iter();
        let bounds = bounds.filter_map(|line| Some(line.split_once("le=\"")?.1.split_once('"')?.0));
        bounds.map(str::to_owned).collect()
    };
    assert_eq!(
        bounds("coredns_dns_request_duration_seconds_bucket").join(" "),
        "0.00025 0.0005 0.001 0.002 0.004 0.008 0.016 0.032 0.064 0.128 0.256 0.512 1.024 2.048 4.096 8.192 +Inf"
    );
    let sizes = bounds("coredns_dns_request_size_bytes_bucket");
    assert_eq!(
        sizes[..sizes.len() / 2].join(" "),
        "0 100 200 300 400 511 1023 2047 4095 8291 16000 32000 48000 64000 +Inf"
    );
}

#[test]
fn dns_metrics_labels_are_bounded_whatever_is_asked() {
    let metrics = Metrics::default();
    let queries = QueryMetrics::new(&metrics, "dns://:53", "cluster.local.");
    for number in 0..=u16::MAX {
        let rcode = ResponseCode::from(0xff, (number & 0xf) as u8);
        queries.record(&observed(RecordType::from(number), rcode));
        let rcode = ResponseCode::from((number >> 4) as u8, (number & 0xf) as u8);
        queries.record(&observed(RecordType::A, rcode));
    }
    let text = metrics.render();
    assert_eq!(lines(&text, "coredns_dns_requests_total{").len(), 20);
    assert_eq!(lines(&text, "coredns_dns_responses_total{").len(), 25);
    let other = lines(&text, "coredns_dns_requests_total{");
    let other: Vec<_> = other.iter().filter(|line| line.contains("other")).collect();
    assert_eq!(other.len(), 1);
    assert!(
        other[0].ends_with(&format!(" {}", 65_536 - 19)),
        "{other:?}"
    );
}

#[test]
fn dns_metrics_handles_are_added_up_and_counters_stay_when_one_is_gone() {
    let metrics = Metrics::default();
    let server = |count| {
        let counter = metrics.counter(&names::CACHE_MISSES, &["dns://:53", ".", ""]);
        let gauge = metrics.gauge(&names::CACHE_ENTRIES, &["dns://:53", "success", ".", ""]);
        let histogram = metrics.histogram(&names::HEALTH_DURATION, &[]);
        counter.add(count);
        gauge.set(count as f64);
        histogram.observe(count);
        (counter, gauge, histogram)
    };
    let (first, second) = (server(3), server(4));
    let numbers = || {
        let text = metrics.render();
        let number = |prefix: &str| -> Option<f64> {
            lines(&text, prefix)
                .first()?
                .rsplit_once(' ')?
                .1
                .parse()
                .ok()
        };
        [
            number("coredns_cache_misses_total{"),
            number("coredns_cache_entries{"),
            number("coredns_health_request_duration_seconds_count"),
        ]
    };
    assert_eq!(numbers(), [Some(7.0), Some(7.0), Some(2.0)]);
    drop(first);
    assert_eq!(numbers(), [Some(7.0), Some(4.0), Some(2.0)]);
    drop(second);
    let third = server(1);
    assert_eq!(numbers(), [Some(8.0), Some(1.0), Some(3.0)]);
    drop(third);
    assert_eq!(
        numbers(),
        [Some(8.0), None, Some(3.0)],
        "a gauge goes with its handle"
    );
}

#[test]
fn dns_metrics_of_upstreams_and_caches() {
    let metrics = Metrics::default();
    let upstream = UpstreamMetrics::new(&metrics, "10.0.0.1:53");
    upstream.asked();
    upstream.answered(ResponseCode::NXDomain, Duration::from_millis(1));
    upstream.health_check_failed();
    upstream.connection("udp", true);
    upstream.connection("tcp-tls", false);
    let forward = ForwardMetrics::new(&metrics);
    forward.rejects.increment();
    let cache = CacheMetrics::new(&metrics, "dns://:53", &[Name::root()]);
    cache.hit(Part::Denial);
    cache.entries(Part::Success, 12);
    cache.evicted(Part::Success);
    let text = metrics.render();
    for line in [
        r#"coredns_proxy_request_duration_seconds_count{proxy_name="forward",to="10.0.0.1:53",rcode="NXDOMAIN"} 1"#,
        r#"coredns_proxy_healthcheck_failures_total{proxy_name="forward",to="10.0.0.1:53"} 1"#,
        r#"coredns_proxy_conn_cache_hits_total{proxy_name="forward",to="10.0.0.1:53",proto="udp"} 1"#,
        r#"coredns_proxy_conn_cache_misses_total{proxy_name="forward",to="10.0.0.1:53",proto="tcp-tls"} 1"#,
        "coredns_forward_healthcheck_broken_total 0",
        "coredns_forward_max_concurrent_rejects_total 1",
        r#"coredns_forward_requests_total{to="10.0.0.1:53"} 1"#,
        r#"coredns_forward_responses_total{to="10.0.0.1:53",rcode="NXDOMAIN"} 1"#,
        r#"coredns_forward_request_duration_seconds_count{to="10.0.0.1:53",rcode="NXDOMAIN"} 1"#,
        r#"coredns_forward_healthcheck_failures_total{to="10.0.0.1:53"} 1"#,
        r#"coredns_cache_hits_total{server="dns://:53",type="denial",zones=".",view=""} 1"#,
        r#"coredns_cache_entries{server="dns://:53",type="success",zones=".",view=""} 12"#,
        r#"coredns_cache_evictions_total{server="dns://:53",type="success",zones=".",view=""} 1"#,
        r#"coredns_cache_requests_total{server="dns://:53",zones=".",view=""} 0"#,
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
}

#[test]
fn dns_metrics_of_https_and_quic_have_the_status() {
    let metrics = Metrics::default();
    let statuses = StatusMetrics::new(&metrics, "https://:443".to_owned());
    for status in [200, 200, 415] {
        statuses.count(&names::HTTPS_RESPONSES, status);
    }
    statuses.count(&names::QUIC_RESPONSES, 2);
    let text = metrics.render();
    for line in [
        r#"coredns_dns_https_responses_total{server="https://:443",status="200"} 2"#,
        r#"coredns_dns_https_responses_total{server="https://:443",status="415"} 1"#,
        r#"coredns_dns_quic_responses_total{server="https://:443",status="2"} 1"#,
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
}

#[test]
fn dns_metrics_of_the_process_are_there() {
    let text = process(7);
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_start_time_seconds",
        "process_open_fds",
        "process_max_fds",
    ] {
        let line = lines(&text, &format!("{name} "));
        let value: f64 = line[0].rsplit_once(' ').unwrap().1.parse().unwrap();
        assert!(value >= 0.0, "{name} {value}");
    }
    assert_eq!(lines(&text, "go_goroutines "), ["go_goroutines 7"]);
    let rss: f64 = lines(&text, "process_resident_memory_bytes ")[0][30..]
        .parse()
        .unwrap();
    assert!(rss > 1e6, "{rss}");
}
