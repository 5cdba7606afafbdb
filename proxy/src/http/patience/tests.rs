use std::future::pending;
use std::pin::pin;

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::BodyExt;

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
    assert_eq!(patience.wait(answer, request, sent).await, None);
    sent.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn proxy_l16_time_runs_from_the_end_of_the_request() {
    let minute = Patience::Answer(Duration::from_secs(60));
    let none = Original::new(Body::empty(), true);
    assert_eq!(waited(minute, &none).await, 60);

    let upload = Original::new(Body::full(Bytes::from_static(b"hello")), true);
    let sending = upload.start_over().unwrap();
    let send = async {
        tokio::time::sleep(Duration::from_secs(300)).await;
        sending.collect().await.unwrap();
    };
    let (waited_for, ()) = tokio::join!(waited(minute, &upload), send);
    assert_eq!(waited_for, 360);

    let stuck = Original::new(Body::full(Bytes::from_static(b"hello")), true);
    let call = Patience::Call(Duration::from_secs(7));
    assert_eq!(waited(call, &stuck).await, 7);
}
