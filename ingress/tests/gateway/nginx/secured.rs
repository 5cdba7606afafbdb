//! Hosts with a certificate.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::{Case, Common, Difference, compare, gets};
use crate::tls::Client;

/// An address that leads the next connection to `server` over TLS, under this name.
pub(super) async fn way(server: SocketAddr, name: &str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let name = name.to_owned();
    tokio::spawn(async move {
        let (mut plain, _) = listener.accept().await.unwrap();
        let stream = TcpStream::connect(server).await.unwrap();
        let mut session = Client::new(&["http/1.1"])
            .over(stream, &name)
            .await
            .unwrap();
        // How it ends is seen by the client.
        let _ = copy_bidirectional(&mut plain, &mut session).await;
    });
    addr
}

#[tokio::test]
async fn ingress_a2_hosts_with_a_certificate_are_redirected_as_by_nginx() {
    let targets = ["/", "/a", "/a/", "/a//", "/a/?b=c", "/a?b=c/", "/%66oo"];
    let requests = |host: &str| {
        let mut requests = gets(&targets);
        for also in [
            "GET /.well-known/acme-challenge/token HTTP/1.1".to_owned(),
            format!("GET /a HTTP/1.1\nHost: {host}.test:8080"),
            "GET /a HTTP/1.1\nX-Forwarded-Proto: https".to_owned(),
            "POST /a/ HTTP/1.1\nContent-Length: 1\n\nx".to_owned(),
            "HEAD /a HTTP/1.1".to_owned(),
        ] {
            requests.push(also);
        }
        requests
    };
    let secured = || {
        let claim = "GET /a HTTP/1.1\nX-Forwarded-Proto: http".to_owned();
        [gets(&targets), vec![claim]].concat()
    };
    let cases = vec![
        Case {
            name: "usual",
            server: "
                location /.well-known/acme-challenge { PROXY }
                location / { if ($scheme = http) { return 308 https://$host$without_slash; } PROXY }",
            requests: requests("usual"),
            secured: secured(),
            certificate: true,
            ..Case::default()
        },
        Case {
            name: "slash",
            annotations: &[("preserve-trailing-slash", "true")],
            server: "
                location /.well-known/acme-challenge { PROXY }
                location / { if ($scheme = http) { return 308 https://$host$request_uri; } PROXY }",
            requests: requests("slash"),
            secured: secured(),
            certificate: true,
            ..Case::default()
        },
        Case {
            name: "off",
            annotations: &[("ssl-redirect", "false")],
            requests: requests("off"),
            secured: secured(),
            certificate: true,
            ..Case::default()
        },
        // A redirect comes before access lists, which hold over TLS.
        Case {
            name: "denied",
            annotations: &[("denylist-source-range", "127.0.0.0/8")],
            server: "location / {
                if ($scheme = http) { return 308 https://$host$without_slash; }
                deny 127.0.0.0/8; PROXY }",
            requests: gets(&["/a"]),
            secured: gets(&["/a"]),
            certificate: true,
            ..Case::default()
        },
    ];
    let of = |case, request| Difference {
        case,
        request,
        what: "target",
        nginx: "/%66oo",
        ours: "/foo",
        why: "T12: backends get the path that was compared, so both mean the same file",
    };
    let differences = [
        of("usual", "TLS GET /%66oo"),
        of("slash", "TLS GET /%66oo"),
        of("off", "GET /%66oo"),
        of("off", "TLS GET /%66oo"),
    ];
    compare(cases, Common::default(), &differences).await;
}
