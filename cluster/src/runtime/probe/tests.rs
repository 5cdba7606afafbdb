use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const LIMIT: Duration = Duration::from_secs(1);

fn settings(probe: serde_json::Value) -> Settings {
    Settings::of(&serde_json::from_value(probe).unwrap())
}

/// What a probe said, each with the time since its start.
#[derive(Default)]
struct Said {
    verdicts: Vec<(Duration, bool)>,
    told: Vec<Duration>,
}

/// Runs a probe for 1,000 s whose attempts come out as written (`+`, `-`, `?`). An attempt after the
/// last one never ends, or, where `…` follows, all come out as the last one did.
async fn probe(kind: Kind, settings: Settings, script: &str) -> Said {
    let start = Instant::now();
    let script: Vec<char> = script.chars().collect();
    let (next, told, mut seen) = (Cell::new(0), RefCell::default(), Vec::new());
    let (verdicts, mut heard) = mpsc::channel(1);
    let attempt = || {
        let at = next.get();
        let step = match script.get(at).copied() {
            Some('…') => Some(script[at - 1]),
            step => {
                next.set(at + 1);
                step
            }
        };
        async move {
            match step {
                Some('+') => Attempt::Success,
                Some('-') => Attempt::Failure(String::new()),
                Some(_) => Attempt::Unknown(String::new()),
                None => std::future::pending().await,
            }
        }
    };
    let tell = |_: &Attempt| RefCell::<Vec<_>>::borrow_mut(&told).push(start.elapsed());
    let listen = async {
        while let Some((_, result)) = heard.recv().await {
            seen.push((start.elapsed(), result));
        }
    };
    let probing = repeat(kind, settings, attempt, tell, verdicts);
    let _ = timeout(Duration::from_secs(1000), async {
        tokio::join!(probing, listen)
    })
    .await;
    Said {
        verdicts: seen,
        told: told.into_inner(),
    }
}

#[tokio::test(start_paused = true)]
async fn cluster_b7_thresholds_delay_and_period() {
    let quick = || json!({ "periodSeconds": 1 });
    for (name, kind, given, script, expected) in [
        (
            "ready at once",
            Kind::Readiness,
            json!({}),
            "+",
            vec![(0, true)],
        ),
        (
            "delay and default period",
            Kind::Readiness,
            json!({ "initialDelaySeconds": 5 }),
            "+-+",
            vec![(5, true), (25, true)],
        ),
        (
            "three failures in a row",
            Kind::Readiness,
            quick(),
            "+--+---",
            vec![(0, true), (3, true), (6, false)],
        ),
        (
            "success threshold",
            Kind::Readiness,
            json!({ "periodSeconds": 1, "successThreshold": 2, "failureThreshold": 1 }),
            "+-++",
            vec![(1, false), (3, true)],
        ),
        (
            "unknown counts as nothing",
            Kind::Liveness,
            quick(),
            "--?-",
            vec![(3, false)],
        ),
        (
            "liveness ends at its failure",
            Kind::Liveness,
            quick(),
            "+----",
            vec![(0, true), (3, false)],
        ),
        (
            "startup ends at its success",
            Kind::Startup,
            quick(),
            "-++",
            vec![(1, true)],
        ),
    ] {
        let said = probe(kind, settings(given), script).await;
        let seen: Vec<(u64, bool)> = said
            .verdicts
            .iter()
            .map(|(at, result)| (at.as_secs(), *result))
            .collect();
        assert_eq!(seen, expected, "{name}");
    }
}

/// The timer rounds up to whole milliseconds, so a little more is allowed for the waits before.
fn is_near(at: Duration, millis: u64) -> bool {
    (millis..millis + 20).contains(&u64::try_from(at.as_millis()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn cluster_b7_a_container_that_was_never_ready_is_asked_out_of_turn() {
    let twice = || json!({ "failureThreshold": 2 });
    let later = || json!({ "initialDelaySeconds": 5 });
    for (name, kind, given, script, expected) in [
        (
            "the fourth attempt",
            Kind::Readiness,
            json!({}),
            "---+",
            vec![(350, true)],
        ),
        (
            "at least once a second",
            Kind::Readiness,
            json!({ "periodSeconds": 60 }),
            "-------+",
            vec![(3_550, true)],
        ),
        (
            "not before the delay",
            Kind::Readiness,
            later(),
            "-+",
            vec![(5_050, true)],
        ),
        (
            "what could not be tried is tried again",
            Kind::Readiness,
            json!({}),
            "?+",
            vec![(50, true)],
        ),
        (
            "failures out of turn do not count",
            Kind::Readiness,
            twice(),
            "-…",
            (1..=100).map(|turn| (turn * 10_000, false)).collect(),
        ),
        (
            "not once it was ready",
            Kind::Readiness,
            twice(),
            "+--+",
            vec![(0, true), (20_000, false), (30_000, true)],
        ),
        (
            "not for startup",
            Kind::Startup,
            json!({}),
            "-+",
            vec![(10_000, true)],
        ),
    ] {
        let said = probe(kind, settings(given), script).await;
        let near = said.verdicts.len() == expected.len()
            && said
                .verdicts
                .iter()
                .zip(&expected)
                .all(|(seen, wanted)| is_near(seen.0, wanted.0) && seen.1 == wanted.1);
        assert!(near, "{name}: {:?}", said.verdicts);
    }
}

#[tokio::test(start_paused = true)]
async fn cluster_b7_only_attempts_in_turn_make_events() {
    let said = probe(Kind::Readiness, settings(json!({})), "-…").await;
    let turns = (0..).step_by(10_000);
    let near = said
        .told
        .iter()
        .zip(turns)
        .all(|(at, turn)| is_near(*at, turn));
    assert!(near && said.told.len() >= 100, "{:?}", said.told);
}

/// Answers each connection with the next text; gives back what was asked.
async fn server(answers: Vec<String>) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            asked.push(String::from_utf8(request).unwrap().to_lowercase());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    });
    (port, task)
}

fn asking(port: u16) -> http::Request {
    http::Request {
        tls: false,
        host: "127.0.0.1".to_owned(),
        port,
        path: "healthz?full=1".to_owned(),
        headers: vec![("X-Who".to_owned(), "me".to_owned())],
    }
}

fn answer(status: &str, location: &str) -> String {
    let location = match location {
        "" => String::new(),
        location => format!("location: {location}\r\n"),
    };
    format!("HTTP/1.1 {status}\r\n{location}content-length: 0\r\n\r\n")
}

#[tokio::test]
async fn cluster_b7_http_status_decides() {
    for (status, expected) in [
        ("200 OK", Attempt::Success),
        ("204 No Content", Attempt::Success),
        ("399 Odd", Attempt::Success),
        (
            "404 Not Found",
            Attempt::Failure("HTTP probe failed with statuscode: 404".into()),
        ),
        (
            "500 Oops",
            Attempt::Failure("HTTP probe failed with statuscode: 500".into()),
        ),
    ] {
        let (port, server) = server(vec![answer(status, "")]).await;
        assert_eq!(
            http::probe(&asking(port), LIMIT).await,
            expected,
            "{status}"
        );
        let asked = server.await.unwrap().remove(0);
        assert!(
            asked.starts_with("get /healthz?full=1 http/1.1\r\n"),
            "{asked}"
        );
        for header in [
            format!("host: 127.0.0.1:{port}\r\n"),
            "user-agent: kube-probe/".to_owned(),
            "accept: */*\r\n".to_owned(),
            "connection: close\r\n".to_owned(),
            "x-who: me\r\n".to_owned(),
        ] {
            assert!(asked.contains(&header), "{header} in {asked}");
        }
    }
}

#[tokio::test]
async fn cluster_b7_redirects_on_the_same_host_are_followed() {
    let answers = vec![answer("302 Found", "/other"), answer("503 No", "")];
    let (port, server) = server(answers).await;
    let failed = Attempt::Failure("HTTP probe failed with statuscode: 503".into());
    assert_eq!(http::probe(&asking(port), LIMIT).await, failed);
    assert!(server.await.unwrap()[1].starts_with("get /other http/1.1"));
}

#[tokio::test]
async fn cluster_b7_a_redirect_to_another_host_is_a_warning() {
    let (port, _server) = server(vec![answer("302 Found", "http://example.test/x")]).await;
    let attempt = http::probe(&asking(port), LIMIT).await;
    assert!(matches!(attempt, Attempt::Warning(_)), "{attempt:?}");
}

#[tokio::test]
async fn cluster_b7_errors_are_in_the_known_words() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let short = Duration::from_millis(50);
    let url = format!("http://127.0.0.1:{port}/healthz?full=1");
    let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    let attempt = http::probe(&asking(port), short).await;
    assert_eq!(attempt, Attempt::Failure(format!("Get \"{url}\": {late}")));
    drop(listener);
    let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    let attempt = http::probe(&asking(port), LIMIT).await;
    assert_eq!(
        attempt,
        Attempt::Failure(format!("Get \"{url}\": {refused}"))
    );
    let address = (Ipv4Addr::LOCALHOST, port).into();
    assert_eq!(connect(address, LIMIT).await.unwrap_err(), refused);
}

#[test]
fn cluster_b7_named_ports() {
    let container = serde_json::from_value(json!({
        "name": "c", "ports": [{ "name": "http", "containerPort": 8080 }],
    }))
    .unwrap();
    for (text, expected) in [
        (IntOrString::Int(80), Ok(80)),
        (IntOrString::String("http".into()), Ok(8080)),
        (IntOrString::String("81".into()), Ok(81)),
        (IntOrString::Int(0), Err("invalid port number: 0")),
        (
            IntOrString::String("x".into()),
            Err("couldn't find port named \"x\""),
        ),
    ] {
        assert_eq!(port(&text, &container), expected.map_err(str::to_owned));
    }
}
