use super::*;

fn written(fields: &[(&'static str, &str)], peer: &Peer) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().unwrap());
    }
    peer.write(&mut headers, || [1, 0xab]);
    headers
}

#[test]
fn ingress_t8_the_gateway_says_who_the_client_is() {
    let peer = Peer::new("::ffff:192.0.2.7".parse().unwrap(), 8443, true);
    let headers = written(&[("host", "a.test:8443")], &peer);
    for (name, value) in [
        ("x-forwarded-for", "192.0.2.7"),
        ("x-real-ip", "192.0.2.7"),
        ("x-forwarded-host", "a.test:8443"),
        ("x-forwarded-port", "8443"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-scheme", "https"),
        ("x-scheme", "https"),
        ("x-request-id", "000000000000000100000000000000ab"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
}

#[test]
fn reliability_b7_what_a_client_claims_is_replaced() {
    let peer = Peer::new("192.0.2.7".parse().unwrap(), 80, false);
    let claims = [
        ("host", "a.test"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-for", "7.7.7.7"),
        ("x-forwarded-host", "evil.test"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-client-cert", "By=x"),
        ("x-forwarded-prefix", "/evil"),
        ("x-real-ip", "6.6.6.6"),
        ("x-original-forwarded-for", "8.8.8.8"),
        ("forwarded", "for=6.6.6.6"),
        ("ssl-client-verify", "SUCCESS"),
        ("x-request-id", "mine-1"),
    ];
    let headers = written(&claims, &peer);
    for (name, values) in [
        ("x-forwarded-for", &["192.0.2.7"][..]),
        ("x-real-ip", &["192.0.2.7"]),
        ("x-forwarded-host", &["a.test"]),
        ("x-forwarded-proto", &["http"]),
        ("x-original-forwarded-for", &["6.6.6.6", "7.7.7.7"]),
        ("x-original-forwarded-host", &["evil.test"]),
        ("x-request-id", &["mine-1"]),
    ] {
        assert_eq!(
            headers.get_all(name).iter().collect::<Vec<_>>(),
            values,
            "{name}"
        );
    }
    for gone in [
        "x-forwarded-client-cert",
        "x-forwarded-prefix",
        "forwarded",
        "ssl-client-verify",
    ] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
}

#[test]
fn ingress_t8_odd_request_ids_are_replaced() {
    let peer = Peer::new("192.0.2.7".parse().unwrap(), 80, false);
    let long = "a".repeat(129);
    for id in ["", "a b", "a\"b", &long] {
        let headers = written(&[("x-request-id", id)], &peer);
        assert_eq!(headers["x-request-id"].len(), 32, "{id}");
    }
}

#[test]
fn ingress_pf7_addresses_and_ports_are_written_as_they_are_displayed() {
    for ip in [
        "0.0.0.0",
        "1.20.255.9",
        "127.0.0.1",
        "255.255.255.255",
        "::1",
        "2001:db8::a:0:0:1",
    ] {
        let mut out = Vec::new();
        write_address(ip.parse().unwrap(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), ip);
    }
    for number in [0, 9, 10, 80, 100, 8080, 65_535] {
        let mut out = Vec::new();
        write_decimal(number, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
    }
}
