//! A real nginx on loopback, started without privileges and stopped with the test.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sealane_proxy::testing::RawClient;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::certificates::Identity;

/// Where Debian and others keep it, for users without `sbin` in their path.
const PROGRAMS: [&str; 3] = ["nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx"];

/// The host at which it says who it is.
const SELF: &str = "self.test";

/// What ingress-nginx tells backends of a request besides its host, unless it is told otherwise;
/// stands for `TOLD` in the directives of a case. `PROXY` stands for the same with the host.
const TOLD: &str = "\
    proxy_set_header X-Request-ID $asked_id;
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Host $said_host;
    proxy_set_header X-Forwarded-Port $said_port;
    proxy_set_header X-Forwarded-Proto $said_scheme;
    proxy_set_header X-Forwarded-Scheme $said_scheme;
    proxy_set_header X-Scheme $said_scheme;
    proxy_set_header X-Original-Forwarded-For $http_x_forwarded_for;
    proxy_set_header X-Original-Forwarded-Host $http_x_forwarded_host;
    proxy_set_header Proxy '';
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
    proxy_http_version 1.1;
    proxy_redirect off;
    proxy_pass http://backend;
";

/// Who was asked, and how, if clients are not believed about it.
const FIRST_HAND: &str = "\
    map $host $said_scheme { default $scheme; }
    map $host $said_port { default $server_port; }
    map $host $said_host { default $http_host; }
";

/// The same if they are.
const SECOND_HAND: &str = "\
    map $http_x_forwarded_proto $said_scheme { default $http_x_forwarded_proto; '' $scheme; }
    map $http_x_forwarded_port $said_port { default $http_x_forwarded_port; '' $server_port; }
    map $http_x_forwarded_host $said_host { default $http_x_forwarded_host; '' $http_host; }
    set_real_ip_from 127.0.0.1;
    real_ip_header X-Forwarded-For;
    real_ip_recursive on;
";

/// What an nginx is started with.
pub(super) struct Setup<'a> {
    pub(super) program: &'a str,
    /// Where `PROXY` leads.
    pub(super) backend: SocketAddr,
    /// Directives outside of servers.
    pub(super) http: String,
    /// Each a host and what it does.
    pub(super) servers: Vec<(String, &'a str)>,
    /// Files with users.
    pub(super) users: &'a [(&'a str, &'a str)],
    /// Whether clients are believed about the one behind them.
    pub(super) trusted: bool,
    /// What all hosts show over TLS.
    pub(super) identity: &'a Identity,
}

/// A running nginx.
pub(super) struct Nginx {
    /// Where it listens.
    pub(super) addr: SocketAddr,
    /// The same for TLS.
    pub(super) secured: SocketAddr,
    process: Child,
    directory: tempfile::TempDir,
}

impl Nginx {
    /// Path of the program; `None`, with a word about it, on a machine that has none.
    pub(super) fn program() -> Option<&'static str> {
        let runs = |program: &&str| {
            let mut command = Command::new(program);
            command.arg("-v").stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let found = PROGRAMS.into_iter().find(|program| runs(program));
        if found.is_none() {
            let required = std::env::var("SEALANE_TEST_REQUIRE").is_ok_and(|what| what == "all");
            assert!(!required, "there is no nginx");
            eprintln!("skipped: there is no nginx");
        }
        found
    }

    /// Starts it.
    pub(super) async fn start(setup: Setup<'_>) -> Self {
        // A port that is free now may be somebody else's a moment later.
        for _ in 0..5 {
            let [addr, secured] = free_addresses();
            let directory = tempfile::tempdir().unwrap();
            let configuration = configuration(addr, secured, &setup);
            let files = setup.users.iter().copied().chain([
                ("certificate.pem", setup.identity.pem.as_str()),
                ("key.pem", setup.identity.key.as_str()),
                ("nginx.conf", &configuration),
            ]);
            for (name, text) in files {
                std::fs::write(directory.path().join(name), text).unwrap();
            }
            let process = Command::new(setup.program)
                .arg("-p")
                .arg(directory.path())
                .args(["-c", "nginx.conf", "-e", "error.log"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut nginx = Self {
                addr,
                secured,
                process,
                directory,
            };
            if nginx.is_up().await {
                return nginx;
            }
        }
        panic!("nginx did not start five times");
    }

    /// Whether it is this process that listens, within twenty seconds; that it cannot read its
    /// configuration ends the test.
    async fn is_up(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if self.process.try_wait().unwrap().is_some() {
                let log = self.log();
                assert!(log.contains("bind()"), "nginx ended: {log}");
                return false;
            }
            if TcpStream::connect(self.addr).await.is_ok() {
                let mut client = RawClient::connect(self.addr).await;
                let question = format!("GET / HTTP/1.1\r\nHost: {SELF}\r\n\r\n");
                client.send(question).await;
                let answer = client.try_response(false).await;
                return answer.is_some_and(|answer| answer.text() == self.addr.to_string());
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("nginx does not listen: {}", self.log());
    }

    fn log(&self) -> String {
        let read = std::fs::read_to_string(self.directory.path().join("error.log"));
        read.unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It has no workers, which would outlive it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Addresses that nobody has, for a moment.
fn free_addresses() -> [SocketAddr; 2] {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    [bind(), bind()].map(|listener| listener.local_addr().unwrap())
}

fn configuration(addr: SocketAddr, secured: SocketAddr, setup: &Setup<'_>) -> String {
    let Setup { backend, http, .. } = setup;
    let said = if setup.trusted {
        SECOND_HAND
    } else {
        FIRST_HAND
    };
    let mut text = format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {{}}\nhttp {{
access_log off;
client_body_temp_path body;
proxy_temp_path proxy;
fastcgi_temp_path fastcgi;
uwsgi_temp_path uwsgi;
scgi_temp_path scgi;
client_max_body_size 1m;
ssl_certificate certificate.pem;
ssl_certificate_key key.pem;
upstream backend {{ server {backend}; }}
port_in_redirect off;
map $http_x_request_id $asked_id {{ default $http_x_request_id; '' $request_id; }}
map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
map $request_uri $without_slash {{ default $request_uri; ~^(?<kept>.*)/$ $kept; }}
{said}
server {{ listen {addr}; server_name {SELF}; location / {{ return 200 '{addr}'; }} }}
{http}
"
    );
    for (host, server) in &setup.servers {
        let server = server.replace("PROXY", "proxy_set_header Host $said_host; TOLD");
        let server = server.replace("TOLD", TOLD);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "server {{\nlisten {addr};\nlisten {secured} ssl;\nserver_name {host};\n{server}\n}}\n"
        );
    }
    text + "}\n"
}
