//! TLS connections that the gateway does not end, as the commands say it, and flags about TLS.

use std::path::Path;

use crate::explain::{explain, sealane, steps};

const MANIFEST: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: sealane}
spec: {controller: sealane.dev/ingress}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: pass
  annotations: {nginx.ingress.kubernetes.io/ssl-passthrough: 'true'}
spec:
  ingressClassName: sealane
  rules:
  - host: pass.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: db, port: {number: 443}}}}]}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {ports: [{port: 443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{port: 8443}]
endpoints: [{addresses: [192.0.2.9], conditions: {ready: true}}]
";

fn write(dir: &Path) -> String {
    let path = dir.join("pass.yaml");
    std::fs::write(&path, MANIFEST).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn ingress_a17_ssl_passthrough_is_explained_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path());
    let files = ["-f", &file];
    let enabled = ["-f", &file, "--enable-ssl-passthrough"];
    for (target, source, certificate) in [
        (
            "https://pass.test/",
            &enabled[..],
            &["no certificate of the gateway's"][..],
        ),
        (
            "https://pass.test/x",
            &enabled,
            &["no certificate of the gateway's"],
        ),
        ("https://pass.test/", &files, &[]),
        ("http://pass.test/", &enabled, &[]),
    ] {
        let (code, explanation) = explain(target, source);
        assert_eq!(code, 0, "{target} {source:?}: {explanation}");
        let shown = steps(&explanation, "certificate", "chosen");
        assert_eq!(shown, certificate, "{target} {source:?}: {explanation}");
        let backends = steps(&explanation, "backend", "chosen");
        assert_eq!(backends, ["Service default/db:443"], "{target} {source:?}");
    }
    for (source, is_told) in [(&files[..], true), (&enabled, false)] {
        let output = sealane(&[&["check"], source].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        let told = "without --enable-ssl-passthrough";
        assert_eq!(text.contains(told), is_told, "{source:?}: {text}");
    }
}

#[test]
fn ingress_t6_versions_that_are_not_spoken_cannot_be_asked_for() {
    for command in ["gateway", "up"] {
        for version in ["TLSv1.1", "SSLv3", "TLSv1.2,TLSv1"] {
            let output = sealane(&[command, "--ssl-protocols", version]);
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!(
                output.status.code(),
                Some(2),
                "{command} {version}: {error}"
            );
            assert!(
                error.contains("TLSv1.2, TLSv1.3"),
                "{command} {version}: {error}"
            );
        }
    }
}

#[test]
fn ingress_t5_http3_and_what_it_cannot_have_are_not_started_together() {
    for command in ["gateway", "up"] {
        for (flags, told) in [
            (
                &["--proxy-protocol=https", "--trusted-proxies=192.0.2.1"],
                "--http3: QUIC has no PROXY headers",
            ),
            (
                &["--ssl-protocols=TLSv1.2", "--ssl-reject-handshake"],
                "--http3: QUIC is TLS 1.3",
            ),
        ] {
            let output = sealane(&[&[command, "--http3"], &flags[..]].concat());
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!(
                output.status.code(),
                Some(2),
                "{command} {flags:?}: {error}"
            );
            assert!(error.contains(told), "{command} {flags:?}: {error}");
        }
    }
}

#[test]
fn ingress_t5_a_udp_port_that_is_taken_is_told_before_anything_starts() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = sealane(&[
        "gateway",
        "--http3",
        "--http=127.0.0.1:0",
        "--admin=127.0.0.1:0",
        "--https",
        &addr,
    ]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    let told = format!("{addr} is taken by another program");
    assert!(error.contains(&told), "{error}");
}
