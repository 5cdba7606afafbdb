//! Certificates of clients and what outlives a handshake: names, sessions, open connections.

use tokio::io::{AsyncRead, AsyncWrite};

use super::*;

#[tokio::test]
async fn reliability_b9_another_name_is_no_way_round() {
    on_worker(async {
        let ours = Authority::new("Ours");
        let optional = [SECRET, ("auth-tls-verify-client", "optional")];
        let good = ours.vouch("shop");
        for annotations in [&[SECRET][..], &optional] {
            let site = Site::new(annotations, &[("ca.crt", &ours.pem)]).await;
            let client = Client::new(Some(&good));
            for (name, host, status) in [
                ("open.test", HOST, 421),
                ("open.test", "PAY.test.:8443", 421),
                ("127.0.0.1", HOST, 421),
                ("unknown.test", HOST, 421),
                ("PAY.test", "Pay.Test:443", 200),
                (HOST, "open.test", 200),
            ] {
                let answer = client.get(&site.edge, name, host).await;
                assert_eq!(answer.status, status, "{name} {host}");
                let is_named = answer.text.contains("sealane-error: misdirected_request");
                assert_eq!(is_named, status == 421, "{}", answer.text);
            }
            let answers = client
                .get_http2(&site.edge, "open.test", &["open.test", HOST])
                .await;
            let statuses: Vec<u16> = answers.iter().map(|a| a.status().as_u16()).collect();
            assert_eq!(statuses, [200, 421]);
            let answers = client.get_http2(&site.edge, HOST, &[HOST]).await;
            assert_eq!(answers[0].status(), 200);
        }
    })
    .await;
}

#[tokio::test]
async fn reliability_b24_only_a_good_certificate_comes_in() {
    on_worker(async {
        let (ours, same_name) = (Authority::new("Ours"), Authority::new("Ours"));
        let site = Site::new(&[SECRET], &[("ca.crt", &ours.pem)]).await;
        let narrow = ours.below_for("Narrow", "good.test");
        let of = |name: &str| {
            let name = name.to_owned();
            move |params: &mut CertificateParams| {
                params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
            }
        };
        for (name, identity, status) in [
            ("none", None, 400),
            ("expired", Some(ours.vouch_as("shop", expired)), 400),
            ("for servers", Some(ours.vouch_as("shop", for_servers)), 400),
            (
                "an authority of the same name",
                Some(same_name.vouch("shop")),
                400,
            ),
            (
                "a name within bounds",
                Some(narrow.vouch_as("a", of("a.good.test"))),
                200,
            ),
            (
                "a name out of bounds",
                Some(narrow.vouch_as("a", of("a.bad.test"))),
                400,
            ),
            ("good", Some(ours.vouch("shop")), 200),
        ] {
            for versions in [&[&TLS13][..], &[&TLS12]] {
                let client = Client::of_versions(identity.as_ref(), versions);
                let (got, _) = site.get_with(&client).await;
                assert_eq!(got, status, "{name} {versions:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn reliability_b24_a_certificate_without_its_key_ends_the_handshake() {
    on_worker(async {
        let ours = Authority::new("Ours");
        let site = Site::new(&[SECRET], &[("ca.crt", &ours.pem)]).await;
        let stolen = Identity {
            pem: ours.vouch("shop").pem,
            key: ours.vouch("thief").key,
        };
        for versions in [&[&TLS13][..], &[&TLS12]] {
            let client = Client::of_versions(Some(&stolen), versions);
            let connected = client.connect(&site.edge, HOST, b"http/1.1").await;
            // In TLS 1.3 the client is done before the server has looked at its certificate.
            let read = match connected {
                Ok(mut stream) => stream.read_u8().await,
                Err(error) => Err(error),
            };
            let error = read.unwrap_err().to_string();
            assert!(error.contains("received fatal alert"), "{error}");
        }
        assert_eq!(site.origin.hits(), 0);
    })
    .await;
}

#[tokio::test]
async fn reliability_b24_a_resumed_session_is_held_against_the_authorities_of_now() {
    on_worker(async {
        let (ours, next) = (Authority::new("Ours"), Authority::new("Next"));
        let good = ours.vouch("shop");
        for versions in [&[&TLS13][..], &[&TLS12]] {
            let mut site = Site::new(&[SECRET], &[("ca.crt", &ours.pem)]).await;
            let client = Client::of_versions(Some(&good), versions);
            for kind in ["first", "resumed"] {
                let answer = client.get(&site.edge, HOST, HOST).await;
                assert_eq!(answer.status, 200, "{kind}");
                let is_resumed = answer.handshake == HandshakeKind::Resumed;
                assert_eq!(is_resumed, kind == "resumed");
            }
            // Another authority: the session cannot be resumed, and the client is not known.
            site.annotate(&[SECRET], &[("ca.crt", &next.pem)]);
            let answer = client.get(&site.edge, HOST, HOST).await;
            assert_eq!(answer.status, 400);
            assert_ne!(answer.handshake, HandshakeKind::Resumed);
            // A session that was made without a certificate is none of a host that wants one.
            site.annotate(&[], &[]);
            let silent = Client::of_versions(Some(&good), versions);
            for _ in 0..2 {
                assert_eq!(silent.get(&site.edge, HOST, HOST).await.status, 200);
            }
            site.annotate(&[SECRET], &[("ca.crt", &ours.pem)]);
            let answer = silent.get(&site.edge, HOST, HOST).await;
            assert_eq!(answer.status, 200, "it is asked now, and has one");
            assert_ne!(answer.handshake, HandshakeKind::Resumed);
        }
    })
    .await;
}

#[tokio::test]
async fn reliability_b24_an_open_connection_does_not_outlive_its_authority() {
    on_worker(async {
        let (ours, next) = (Authority::new("Ours"), Authority::new("Next"));
        let mut site = Site::new(&[SECRET], &[("ca.crt", &ours.pem)]).await;
        let client = Client::new(Some(&ours.vouch("shop")));
        let mut stream = client.connect(&site.edge, HOST, b"http/1.1").await.unwrap();
        for (authority, status) in [(&ours, 200), (&next, 400), (&ours, 200)] {
            site.annotate(&[SECRET], &[("ca.crt", &authority.pem)]);
            assert_eq!(again(&mut stream).await, status);
        }
    })
    .await;
}

#[tokio::test]
async fn reliability_b24_an_open_connection_is_held_against_the_rules_of_now() {
    on_worker(async {
        let ours = Authority::new("Ours");
        let mut site = Site::new(&[SECRET], &[("ca.crt", &ours.pem)]).await;
        let client = Client::new(Some(&ours.below("Second").vouch("shop")));
        let mut stream = client.connect(&site.edge, HOST, b"http/1.1").await.unwrap();
        // The Secret stays as it is.
        for (rule, status) in [
            (("auth-tls-verify-depth", "1"), 200),
            (("auth-tls-verify-depth", "0"), 400),
            (("auth-tls-verify-depth", "2"), 200),
            (("auth-tls-match-cn", "CN=other"), 403),
            (("auth-tls-match-cn", "CN=shop"), 200),
        ] {
            let annotations = [SECRET, rule];
            site.manifests.ingress("pay", &annotations, HOST, ALL);
            site.manifests.publish(&mut site.edge);
            assert_eq!(again(&mut stream).await, status, "{rule:?}");
        }
    })
    .await;
}

/// The status of one more request on a connection.
async fn again(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> u16 {
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 4096];
    let mut text = String::new();
    while !text.contains("\r\n\r\n") || text.ends_with("\r\n\r\n") {
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    text.split(' ').nth(1).unwrap().parse().unwrap()
}
