//! A process that has no descriptors left.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::testing::secure::{Certificate, NAME, Secure, framed, query};

/// What the server's process may have open; the runtime and the listeners take a part.
const DESCRIPTORS: u32 = 48;
/// Clock ticks a second of `/proc/PID/stat`: the same on every Linux.
const TICKS: f64 = 100.0;

/// A server in a process of its own, which ends with this.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Starts it, and says where it answers over TCP and over TLS.
    fn start() -> (Self, [SocketAddr; 2]) {
        let mut child = Command::new("prlimit")
            .arg(format!("--nofile={DESCRIPTORS}"))
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture"])
            .arg("server::tests::descriptors::a_server_for_another_process")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let process = Self(child);
        let mut lines = BufReader::new(stdout).lines().map(Result::unwrap);
        let line = lines.find_map(|line| Some(line.split_once("serves at ")?.1.to_owned()));
        let addrs: Vec<_> = line
            .unwrap()
            .split(' ')
            .map(|it| it.parse().unwrap())
            .collect();
        (process, addrs.try_into().unwrap())
    }

    /// CPU time so far, seconds.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let (_, columns) = stat.rsplit_once(") ").unwrap();
        let columns: Vec<&str> = columns.split(' ').collect();
        let ticks = |at: usize| columns[at].parse::<f64>().unwrap();
        (ticks(11) + ticks(12)) / TICKS
    }
}

async fn answered(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&framed(&query(NAME, 1))).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; length.into()];
    stream.read_exact(&mut reply).await?;
    assert_eq!(reply[7], 1, "one answer");
    Ok(())
}

#[tokio::test]
#[ignore = "what reliability_f14_without_descriptors_nothing_spins starts"]
async fn a_server_for_another_process() {
    local(async {
        let certificate = Certificate::new();
        let server = Secure::start(certificate.files(), None, ConnectionLimits::default());
        writeln!(io::stdout(), "serves at {} {}", server.tcp, server.tls).unwrap();
        // Until the parent has seen enough, or is gone.
        tokio::time::sleep(Duration::from_secs(60)).await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn reliability_f14_without_descriptors_nothing_spins() {
    if Command::new("prlimit").arg("--version").output().is_err() {
        let required = std::env::var("SEALANE_TEST_REQUIRE").as_deref() == Ok("all");
        assert!(!required, "prlimit is not installed");
        eprintln!("skipped: prlimit is not installed");
        return;
    }
    let (process, [tcp, tls]) = Process::start();
    let mut first = TcpStream::connect(tcp).await.unwrap();
    answered(&mut first).await.unwrap();
    // The kernel completes connections that nobody accepts.
    let mut more = Vec::new();
    for n in 0..2 * DESCRIPTORS {
        let to = [tcp, tls][n as usize % 2];
        more.push(TcpStream::connect(to).await.unwrap());
    }
    let before = process.cpu();
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let share = (process.cpu() - before) / start.elapsed().as_secs_f64();
    assert!(share <= 0.05, "{share} of a core");
    timeout(DEADLINE, answered(&mut first))
        .await
        .expect("the connection of before is not served")
        .unwrap();
    drop(more);
    let again = async {
        loop {
            let mut stream = TcpStream::connect(tcp).await.unwrap();
            if answered(&mut stream).await.is_ok() {
                return;
            }
        }
    };
    timeout(DEADLINE, again).await.expect("it does not recover");
}
