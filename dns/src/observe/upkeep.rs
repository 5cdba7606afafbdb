//! Metrics that nobody counts: they are looked at once in a while, by one task for the process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use sealane_config::Reader;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::metrics::{Gauge, Metrics, names};

/// How often the health page is asked for and the state is looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// How long the health page may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of its answer that are read.
const HEALTH_ANSWER: usize = 512;

/// Says how much is known of the cluster and how old it may be, for ever.
pub async fn watch_state(metrics: Metrics, reader: Reader) {
    let age = metrics.gauge(&names::STATE_AGE, &[]);
    let kinds = ["Service", "Namespace", "Pod"];
    let objects = kinds.map(|kind| metrics.gauge(&names::OBJECTS, &[kind]));
    let mut heard: Vec<(&'static str, Gauge)> = Vec::new();
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let mut oldest = 0.0f64;
        for (kind, silence) in reader.staleness().ages() {
            let silence = silence.as_secs_f64();
            oldest = oldest.max(silence);
            let known = heard.iter().position(|(known, _)| *known == kind);
            let known = known.unwrap_or_else(|| {
                heard.push((kind, metrics.gauge(&names::WATCH_LAST_EVENT, &[kind])));
                heard.len() - 1
            });
            heard[known].1.set(silence);
        }
        age.set(oldest);
        let snapshot = reader.load();
        let counts = [
            snapshot.services.size(),
            snapshot.namespaces.size(),
            snapshot.pods.size(),
        ];
        for (gauge, count) in objects.iter().zip(counts) {
            gauge.set(count as f64);
        }
    }
}

/// Asks for the health page of this process at `addr`, for ever: a page that takes long is a sign that
/// the process, and so its answers, are slow.
pub async fn watch_health(metrics: Metrics, addr: SocketAddr) {
    let duration = metrics.histogram(&names::HEALTH_DURATION, &[]);
    let failures = metrics.counter(&names::HEALTH_FAILURES, &[]);
    let addr = reachable(addr);
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let started = Instant::now();
        let is_answered = timeout(HEALTH_TIMEOUT, ask_health(addr)).await;
        duration.observe_time(started.elapsed());
        if !matches!(is_answered, Ok(Ok(true))) {
            failures.increment();
        }
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// An address that leads to a listener on this one.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        // Such a listener takes both families, and not every host has IPv6.
        IpAddr::V6(ip) if ip.is_unspecified() && has_no_ipv6() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

fn has_no_ipv6() -> bool {
    std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err()
}

/// Whether the page says that all is well.
async fn ask_health(addr: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!("GET /health HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = [0; HEALTH_ANSWER];
    let mut length = 0;
    while length < answer.len() {
        match stream.read(&mut answer[length..]).await? {
            0 => break,
            more => length += more,
        }
    }
    Ok(answer[..length].starts_with(b"HTTP/1.1 200 "))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::testing::World;

    const DEADLINE: Duration = Duration::from_secs(30);

    fn value(metrics: &Metrics, name: &str) -> Option<f64> {
        let text = metrics.render();
        let line = text.lines().find(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(' '))
        })?;
        line.rsplit_once(' ')?.1.parse().ok()
    }

    async fn reached(metrics: &Metrics, name: &str, least: f64) {
        let looking = async {
            while value(metrics, name).is_none_or(|value| value < least) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let found = timeout(DEADLINE, looking).await;
        assert!(found.is_ok(), "{name}\n{}", metrics.render());
    }

    #[tokio::test]
    async fn dns_metrics_of_the_health_page() {
        let metrics = Metrics::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 512];
                let length = stream.read(&mut head).await.unwrap();
                assert!(head[..length].starts_with(b"GET /health HTTP/1.1\r\n"));
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK";
                stream.write_all(answer).await.unwrap();
            }
        });
        let watch = tokio::spawn(watch_health(metrics.clone(), addr));
        reached(
            &metrics,
            "coredns_health_request_duration_seconds_count",
            1.0,
        )
        .await;
        assert_eq!(
            value(&metrics, "coredns_health_request_failures_total"),
            Some(0.0)
        );
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        reached(&metrics, "coredns_health_request_failures_total", 1.0).await;
        watch.abort();
    }

    #[tokio::test]
    async fn dns_metrics_of_the_state() {
        let metrics = Metrics::default();
        let (mut publisher, reader) = sealane_config::snapshot::channel();
        let snapshot = World::new().cluster_ip("svc1", &["10.0.0.1"], &["http/tcp/80"]);
        publisher.publish(snapshot.build());
        let watch = tokio::spawn(watch_state(metrics.clone(), reader));
        reached(&metrics, "sealane_dns_objects{kind=\"Service\"}", 1.0).await;
        assert!(value(&metrics, "sealane_dns_cluster_state_age_seconds").is_some());
        watch.abort();
    }
}
