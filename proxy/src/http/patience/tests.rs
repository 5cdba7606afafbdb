use std::future::pending;
use std::pin::pin;

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;

use super::super::replay::Rules;
use super::super::services::Shared;
use super::*;
use crate::http::Body;

#[test]
fn proxy_l16_grpc_deadlines_are_understood() {
    let default = Duration::from_secs(60);
    for (content_type, timeout, patience) in [
        ("text/plain", None, Patience::Answer(default)),
        ("text/plain", Some("1S"), Patience::Answer(default)),
        ("application/grpc", None, Patience::Endless),
        (
            "application/grpc+proto",
            Some("2H"),
            Patience::Call(default * 120),
        ),
        ("application/grpc", Some("1M"), Patience::Call(default)),
        (
            "application/grpc",
            Some("7S"),
            Patience::Call(Duration::from_secs(7)),
        ),
        (
            "application/grpc",
            Some("5m"),
            Patience::Call(Duration::from_millis(5)),
        ),
        (
            "application/grpc",
            Some("5u"),
            Patience::Call(Duration::from_micros(5)),
        ),
        (
            "application/grpc",
            Some("99999999n"),
            Patience::Call(Duration::from_nanos(99_999_999)),
        ),
        ("application/grpc", Some("999999999S"), Patience::Endless),
        ("application/grpc", Some("S"), Patience::Endless),
        ("application/grpc", Some("-1S"), Patience::Endless),
        ("application/grpc", Some("1x"), Patience::Endless),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(timeout) = timeout {
            headers.insert("grpc-timeout", HeaderValue::from_static(timeout));
        }
        assert_eq!(
            of(&headers, default),
            patience,
            "{content_type} {timeout:?}"
        );
    }
}

/// How long an endpoint that never answers is waited for, in seconds.
async fn waited(patience: Patience, request: &Original) -> u64 {
    let sent = Instant::now();
    let answer = pin!(pending::<()>());
    let waited = patience.wait(answer, request, sent, NONE).await;
    assert_eq!(waited, Err(Limit::Response));
    sent.elapsed().as_secs()
}

const NONE: Deadlines = Deadlines {
    per_try: Duration::ZERO,
    request: None,
};

fn original(body: Body) -> Original {
    let rules = Rules {
        keep: true,
        most_bytes: 0,
    };
    Original::new(body, &rules, &Shared::default())
}

#[tokio::test(start_paused = true)]
async fn proxy_l16_the_first_limit_ends_an_attempt() {
    let seconds = Duration::from_secs;
    let request = original(Body::empty());
    for (name, response, per_try, whole, after, want) in [
        ("the answer's", 5, 7, 9, 5, Limit::Response),
        ("an attempt's", 5, 3, 9, 3, Limit::Try),
        ("the request's", 5, 3, 2, 2, Limit::Request),
        ("only the request's", 0, 0, 2, 2, Limit::Request),
        ("only an attempt's", 0, 4, 0, 4, Limit::Try),
    ] {
        let sent = Instant::now();
        let deadlines = Deadlines {
            per_try: seconds(per_try),
            request: (whole > 0).then(|| sent + seconds(whole)),
        };
        let patience = of(&HeaderMap::new(), seconds(response));
        let answer = pin!(pending::<()>());
        let waited = patience.wait(answer, &request, sent, deadlines).await;
        assert_eq!(waited, Err(want), "{name}");
        assert_eq!(sent.elapsed(), seconds(after), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn proxy_l16_time_runs_from_the_end_of_the_request() {
    let minute = Patience::Answer(Duration::from_secs(60));
    let none = original(Body::empty());
    assert_eq!(waited(minute, &none).await, 60);

    let upload = original(Body::full(Bytes::from_static(b"hello")));
    let sending = upload.start_over().unwrap();
    let send = async {
        tokio::time::sleep(Duration::from_secs(300)).await;
        sending.collect().await.unwrap();
    };
    let (waited_for, ()) = tokio::join!(waited(minute, &upload), send);
    assert_eq!(waited_for, 360);

    let stuck = original(Body::full(Bytes::from_static(b"hello")));
    let call = Patience::Call(Duration::from_secs(7));
    assert_eq!(waited(call, &stuck).await, 7);
}
