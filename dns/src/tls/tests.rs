use hickory_proto::op::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::time::Instant;

use super::*;
use crate::testing::secure::{
    Certificate, DEADLINE, NAME, Secure, connect, framed, local, output_of, query,
};
use crate::testing::upstream::{Upstream, slow_web};

type Session = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

async fn read(session: &mut Session) -> io::Result<Message> {
    let length = timeout(DEADLINE, session.read_u16()).await.unwrap()?;
    let mut message = vec![0; length.into()];
    session.read_exact(&mut message).await?;
    Ok(Message::from_vec(&message).unwrap())
}

async fn ask(session: &mut Session, name: &str, id: u16) -> io::Result<Message> {
    session.write_all(&framed(&query(name, id))).await?;
    read(session).await
}

fn served(session: &Session) -> CertificateDer<'static> {
    session.get_ref().1.peer_certificates().unwrap()[0].clone()
}

#[tokio::test]
async fn dns_dot_answers_over_each_version_of_tls() {
    local(async {
        let certificate = Certificate::new();
        let server = Secure::start(certificate.files(), None, ConnectionLimits::default());
        for version in rustls::ALL_VERSIONS {
            let client = certificate.client_of_version(version);
            let mut session = connect(server.tls, client).await.unwrap();
            assert_eq!(session.get_ref().1.alpn_protocol(), Some(&b"dot"[..]));
            for id in [1, 2] {
                let reply = ask(&mut session, NAME, id).await.unwrap();
                assert_eq!(reply.metadata.id, id);
                assert_eq!(reply.answers.len(), 1, "{version:?}");
            }
        }
        // ALPN is optional (RFC 7858 has none), but another protocol is a mistake.
        let mut session = connect(server.tls, certificate.client("")).await.unwrap();
        assert!(ask(&mut session, NAME, 1).await.is_ok());
        assert!(
            connect(server.tls, certificate.client("h2")).await.is_err(),
            "h2"
        );
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_dot_answers_as_answers_come() {
    local(async {
        let upstream = Upstream::start(slow_web(200)).await;
        let certificate = Certificate::new();
        let limits = ConnectionLimits::default();
        let server = Secure::start(certificate.files(), Some(upstream.addr), limits);
        let mut session = connect(server.tls, certificate.client("dot"))
            .await
            .unwrap();
        let both = [framed(&query("web.test.", 1)), framed(&query(NAME, 2))].concat();
        session.write_all(&both).await.unwrap();
        assert_eq!(read(&mut session).await.unwrap().metadata.id, 2);
        assert_eq!(read(&mut session).await.unwrap().metadata.id, 1);
        server.stop().await;
        let end = read(&mut session).await.unwrap_err();
        assert_eq!(
            end.kind(),
            io::ErrorKind::UnexpectedEof,
            "closed by shutdown"
        );
    })
    .await;
}

#[tokio::test]
async fn dns_tls_a_new_certificate_serves_the_next_handshake() {
    local(async {
        let mut certificate = Certificate::new();
        let server = Secure::start(certificate.files(), None, ConnectionLimits::default());
        let first = certificate.der.clone();
        let mut old = connect(server.tls, certificate.client("dot"))
            .await
            .unwrap();
        assert_eq!(served(&old), first);
        assert!(!server.identity.reload().unwrap(), "nothing is new");

        certificate.replace();
        assert!(server.identity.reload().unwrap());
        let new = connect(server.tls, certificate.client("dot"))
            .await
            .unwrap();
        assert_eq!(served(&new), certificate.der);
        // The connection of before goes on.
        assert_eq!(ask(&mut old, NAME, 1).await.unwrap().answers.len(), 1);

        let trusted = certificate.client("dot");
        let key = std::fs::read_to_string(certificate.path("tls.key")).unwrap();
        for (what, file, text) in [
            ("no certificate", "tls.crt", "none"),
            ("no key", "tls.key", "none"),
            ("another key", "tls.key", other_key().as_str()),
            ("half a key", "tls.key", &key[..key.len() / 2]),
        ] {
            let before = std::fs::read(certificate.path(file)).unwrap();
            std::fs::write(certificate.path(file), text).unwrap();
            let error = with_causes(&server.identity.reload().unwrap_err());
            assert!(
                error.contains("tls.crt") || error.contains("tls.key"),
                "{what}: {error}"
            );
            assert!(
                !error.contains(&key[40..60]),
                "{what} puts the key into {error}"
            );
            let session = connect(server.tls, trusted.clone()).await.unwrap();
            assert_eq!(served(&session), certificate.der, "{what}");
            std::fs::write(certificate.path(file), before).unwrap();
        }
        std::fs::remove_file(certificate.path("tls.key")).unwrap();
        let error = server.identity.reload().unwrap_err();
        assert!(matches!(error, TlsError::Read { .. }), "{error:?}");
        server.stop().await;
    })
    .await;
}

fn other_key() -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    made.signing_key.serialize_pem()
}

#[tokio::test(start_paused = true)]
async fn dns_tls_files_are_looked_at_again() {
    let mut certificate = Certificate::new();
    let identity = TlsIdentity::load(certificate.files()).unwrap();
    let shutdown = CancellationToken::new();
    let keeper = tokio::spawn(identity.clone().keep_current(shutdown.clone()));
    let before = identity.current();
    std::fs::write(certificate.path("tls.crt"), "none").unwrap();
    sleep(3 * LOOK).await;
    assert!(
        Arc::ptr_eq(&before, &identity.current()),
        "a bad file changes nothing"
    );
    certificate.replace();
    let start = Instant::now();
    while Arc::ptr_eq(&before, &identity.current()) {
        sleep(Duration::from_secs(1)).await;
        assert!(start.elapsed() < 4 * LOOK, "the new file was not seen");
    }
    shutdown.cancel();
    keeper.await.unwrap();
}

#[tokio::test]
async fn dns_tls_clients_show_a_certificate_where_they_have_to() {
    local(async {
        let certificate = Certificate::new();
        let files = ServerTls {
            client_ca: Some(certificate.path("tls.crt")),
            ..certificate.files()
        };
        let server = Secure::start(files, None, ConnectionLimits::default());
        let client = certificate.client_with_certificate("dot");
        let mut session = connect(server.tls, client).await.unwrap();
        assert_eq!(ask(&mut session, NAME, 1).await.unwrap().answers.len(), 1);
        // With TLS 1.3 the client is done before the server has looked at its certificate.
        let refused = async {
            let mut session = connect(server.tls, certificate.client("dot")).await?;
            ask(&mut session, NAME, 1).await
        };
        assert!(refused.await.is_err());
        server.stop().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn reliability_b31_a_handshake_is_limited_in_time() {
    let certificate = Certificate::new();
    let identity = TlsIdentity::load(certificate.files()).unwrap();
    let (_client, server) = duplex(1024);
    let start = Instant::now();
    let config = Arc::clone(&identity.current().dot);
    assert!(handshake(config, server).await.is_none());
    assert_eq!(start.elapsed(), HANDSHAKE);
}

#[tokio::test]
async fn reliability_b31_what_is_no_tls_ends_the_connection_and_nothing_else() {
    local(async {
        let certificate = Certificate::new();
        let server = Secure::start(certificate.files(), None, ConnectionLimits::default());
        let mut client_hello = vec![0x16, 3, 1, 0x40, 0];
        client_hello.extend([1; 5]);
        for (what, bytes) in [
            ("plain DNS", framed(&query(NAME, 1))),
            ("HTTP", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
            ("zeros", vec![0; 70_000]),
            ("a record that is too long", vec![0x16, 3, 1, 0xff, 0xff]),
            ("an alert", vec![0x15, 3, 1, 0, 2, 2, 40]),
        ] {
            let mut stream = tokio::net::TcpStream::connect(server.tls).await.unwrap();
            // The server may have closed already.
            let _ = stream.write_all(&bytes).await;
            let mut rest = Vec::new();
            let end = timeout(DEADLINE, stream.read_to_end(&mut rest)).await;
            assert!(end.is_ok(), "{what}: still open");
            assert!(rest.len() < 64, "{what}: {rest:02x?}");
        }
        let mut half = tokio::net::TcpStream::connect(server.tls).await.unwrap();
        half.write_all(&client_hello).await.unwrap();
        let mut session = connect(server.tls, certificate.client("dot"))
            .await
            .unwrap();
        assert_eq!(ask(&mut session, NAME, 1).await.unwrap().answers.len(), 1);
        drop((half, session));
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_dot_dig_is_answered() {
    local(async {
        let certificate = Certificate::new();
        let server = Secure::start(certificate.files(), None, ConnectionLimits::default());
        let port = server.tls.port().to_string();
        let args = [
            "@127.0.0.1",
            "-p",
            &port,
            "+tls",
            "+short",
            "+tries=1",
            NAME,
        ];
        if let Some(output) = output_of("dig", &args).await {
            assert_eq!(output.trim(), "10.0.0.1");
        }
        server.stop().await;
    })
    .await;
}

/// The kubelet writes a folder for each version of a Secret, and swaps a link to it.
#[tokio::test]
async fn dns_tls_a_secret_that_is_mounted_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let write = |version: &str| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::create_dir(path(version)).unwrap();
        let key = made.signing_key.serialize_pem();
        std::fs::write(path(version).join("tls.crt"), made.cert.pem()).unwrap();
        std::fs::write(path(version).join("tls.key"), key).unwrap();
        std::os::unix::fs::symlink(version, path("..data_tmp")).unwrap();
        std::fs::rename(path("..data_tmp"), path("..data")).unwrap();
    };
    write("..1");
    for file in ["tls.crt", "tls.key"] {
        std::os::unix::fs::symlink(format!("..data/{file}"), path(file)).unwrap();
    }
    let identity = TlsIdentity::load(ServerTls {
        certificate: path("tls.crt"),
        key: path("tls.key"),
        client_ca: None,
    })
    .unwrap();
    assert!(!identity.reload().unwrap());
    write("..2");
    assert!(identity.reload().unwrap());
    assert!(!identity.reload().unwrap());
}
