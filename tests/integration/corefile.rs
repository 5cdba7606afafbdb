//! `sealane dns -conf`: a Corefile served, changed and drained, by the real binary.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sealane_test_kubernetes::free_port;

use crate::support::{DEADLINE, eventually};

/// `sealane -conf FILE` with the ports that its Corefile uses.
struct Server {
    child: Child,
    log: Arc<Mutex<String>>,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

/// Free ports of this machine.
fn ports<const N: usize>() -> [u16; N] {
    std::array::from_fn(|_| free_port())
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealane"));
    command.args(args).env_remove("RUST_LOG");
    command
}

impl Server {
    fn start(corefile: &str, args: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("Corefile");
        std::fs::write(&file, corefile).unwrap();
        let mut child = command(&["-conf", file.to_str().unwrap(), "--admin", "127.0.0.1:0"])
            .args(args)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, lines) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        Self {
            child,
            log,
            file,
            _directory: directory,
        }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.unwrap().success());
    }

    async fn says(&self, what: &str) {
        eventually(what, async || {
            let log = self.log();
            log.contains(what).then_some(()).ok_or(log)
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A query of type A with id 7 and RD.
fn query(name: &str) -> Vec<u8> {
    let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

/// The reply's code over UDP, or why there is none.
fn rcode(port: u16, name: &str) -> Result<u8, String> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    socket.connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    socket
        .send(&query(name))
        .map_err(|error| error.to_string())?;
    let mut reply = [0; 512];
    let length = socket.recv(&mut reply).map_err(|error| error.to_string())?;
    assert!(length >= 12 && reply[..2] == [0, 7], "a reply to the query");
    Ok(reply[3] & 15)
}

/// The reply's code over TCP.
fn rcode_tcp(port: u16, name: &str) -> Result<u8, String> {
    let ask = || -> std::io::Result<u8> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let query = query(name);
        stream.write_all(&(query.len() as u16).to_be_bytes())?;
        stream.write_all(&query)?;
        let mut head = [0; 6];
        stream.read_exact(&mut head)?;
        Ok(head[5] & 15)
    };
    ask().map_err(|error| error.to_string())
}

/// Status and body of a GET.
fn get(port: u16, path: &str) -> Result<(u16, String), String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| error.to_string())?;
    let status = answer.get(9..12).and_then(|status| status.parse().ok());
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok((status.ok_or_else(|| answer.clone())?, body.to_owned()))
}

/// A block has the name, whatever it says of it.
fn is_served(code: Result<u8, String>) -> bool {
    code.is_ok_and(|code| code != REFUSED)
}

async fn answers(server: &Server, port: u16, name: &str) {
    eventually(&format!("{name} at {port}"), async || {
        match rcode(port, name) {
            Ok(code) if code != REFUSED => Ok(()),
            other => Err(format!("{other:?}\n{}", server.log())),
        }
    })
    .await;
}

const REFUSED: u8 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn dns_corefile_is_served_and_reloaded_without_losing_a_listener() {
    let [dns, other, health, ready, metrics] = ports();
    let corefile = |lines: &str| {
        format!(
            "test:{dns} {{\n  bind 127.0.0.1\n  whoami\n  errors\n  reload 2s 0s\n  \
             health 127.0.0.1:{health} {{\n    lameduck 4s\n  }}\n  ready 127.0.0.1:{ready}\n  \
             prometheus 127.0.0.1:{metrics}\n}}\n{lines}"
        )
    };
    let mut server = Server::start(&corefile(""), &[]);
    answers(&server, dns, "a.test").await;
    assert!(is_served(rcode_tcp(dns, "a.test")));
    assert_eq!(rcode(dns, "a.example"), Ok(REFUSED), "no block has it");
    assert_eq!(get(health, "/health"), Ok((200, "OK".to_owned())));
    assert_eq!(get(health, "/ready").unwrap().0, 404);
    eventually("ready", async || match get(ready, "/ready") {
        Ok((200, body)) if body == "OK" => Ok(()),
        other => Err(format!("{other:?}\n{}", server.log())),
    })
    .await;
    let version = |text: &str| {
        let mut lines = text
            .lines()
            .filter(|line| line.starts_with("coredns_reload_version_info"));
        lines.next().map(str::to_owned)
    };
    let (_, before) = get(metrics, "/metrics").unwrap();
    assert!(
        version(&before).unwrap().contains("hash=\"sha512\""),
        "{before}"
    );

    // Another block at another port, found by the look at the file.
    let more = format!("example:{other} {{\n  bind 127.0.0.1\n  whoami\n}}\n");
    std::fs::write(&server.file, corefile(&more)).unwrap();
    answers(&server, other, "a.example").await;
    assert!(is_served(rcode(dns, "a.test")));
    // The version is told of when all of the change is in force.
    eventually("another version", async || {
        let after = get(metrics, "/metrics")?.1;
        assert!(!after.contains("coredns_reload_failed_total 1"));
        (version(&after) != version(&before))
            .then_some(())
            .ok_or(after)
    })
    .await;

    // A listener that is served in another way has new sockets, and the old ones are closed.
    let sockets = || {
        let table = std::fs::read_to_string("/proc/net/udp").unwrap();
        let ours = format!(" 0100007F:{other:04X} ");
        table.lines().filter(|line| line.contains(&ours)).count()
    };
    let before = sockets();
    let more = more.replace("whoami", "whoami\n  timeouts {\n    idle 7s\n  }");
    let old = version(&get(metrics, "/metrics").unwrap().1);
    std::fs::write(&server.file, corefile(&more)).unwrap();
    server.signal("USR1");
    eventually("the change is in force", async || {
        let text = get(metrics, "/metrics")?.1;
        if version(&text) == old {
            return Err(text);
        }
        match sockets() {
            open if open == before => Ok(()),
            open => Err(format!("{open} sockets, not {before}")),
        }
    })
    .await;
    assert!(before > 0 && is_served(rcode(other, "a.example")));

    // A bad one changes nothing but a counter.
    std::fs::write(&server.file, corefile("example {\n  whomai\n}\n")).unwrap();
    server.signal("USR1");
    let place = format!("{}:13 - unknown directive 'whomai'", server.file.display());
    server.says(&place).await;
    eventually("the failure is counted", async || {
        match get(metrics, "/metrics") {
            Ok((200, text)) if text.contains("coredns_reload_failed_total 1") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    for (port, name) in [(dns, "a.test"), (other, "a.example")] {
        assert!(is_served(rcode(port, name)));
    }
    assert_eq!(get(health, "/health"), Ok((200, "OK".to_owned())));

    // So does one whose port is somebody else's.
    let held = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = held.local_addr().unwrap();
    let lines = format!("x:{} {{\n  bind 127.0.0.1\n  whoami\n}}\n", taken.port());
    std::fs::write(&server.file, corefile(&lines)).unwrap();
    server.signal("HUP");
    server
        .says(&format!(
            "Corefile:12 - {taken} is taken by another program"
        ))
        .await;
    assert!(is_served(rcode(other, "a.example")));

    // Without the second block its port is closed.
    std::fs::write(&server.file, corefile("")).unwrap();
    server.signal("USR1");
    eventually("the port is closed", async || {
        match rcode(other, "a.example") {
            Err(_) => Ok(()),
            Ok(code) => Err(format!("{code}\n{}", server.log())),
        }
    })
    .await;

    // At the end: not ready, healthy, and every query is answered.
    server.signal("TERM");
    let from = Instant::now();
    eventually("not ready", async || match get(ready, "/ready") {
        Ok((503, body)) if body == "draining" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(get(health, "/health"), Ok((200, "OK".to_owned())));
    while from.elapsed() < Duration::from_millis(1500) {
        let code = rcode(dns, "a.test");
        assert!(is_served(code.clone()), "{code:?}\n{}", server.log());
    }
    let until = Instant::now() + DEADLINE;
    let status = loop {
        match server.child.try_wait().unwrap() {
            Some(status) => break status,
            None => assert!(Instant::now() < until, "{}", server.log()),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(from.elapsed() >= Duration::from_secs(4), "lameduck");
}

/// Runs it to its end.
fn run(directory: &Path, args: &[&str]) -> Output {
    command(args).current_dir(directory).output().unwrap()
}

#[test]
fn dns_corefile_that_cannot_be_served_is_an_error_before_anything_starts() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("Corefile");
    let held = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken: SocketAddr = held.local_addr().unwrap();
    for (text, expected) in [
        (
            ".:53 {\n  foo\n  cache x y z {\n    bar\n  }\n}\n".to_owned(),
            "Corefile:2 - unknown directive 'foo'",
        ),
        (
            format!(
                "\n\n.:{} {{\n  bind 127.0.0.1\n  whoami\n}}\n",
                taken.port()
            ),
            "Corefile:3 - 127.0.0.1:",
        ),
        ("tls://. {\n  whoami\n}\n".to_owned(), "Corefile:1 - "),
    ] {
        std::fs::write(&file, &text).unwrap();
        // The file of the working directory is the default.
        let done = run(directory.path(), &["dns"]);
        let errors = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{text}: {errors}");
        assert!(errors.contains(expected), "{text}: {errors}");
    }
    let missing = run(directory.path(), &["-conf", "none"]);
    assert_eq!(missing.status.code(), Some(2));
    let version = run(directory.path(), &["-version"]);
    assert_eq!(String::from_utf8_lossy(&version.stdout), "0.1.0\n");
    let plugins = run(directory.path(), &["dns", "-plugins"]);
    assert!(String::from_utf8_lossy(&plugins.stdout).contains("\nkubernetes\n"));
}
