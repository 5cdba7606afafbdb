use http_body_util::BodyExt;

use super::*;

/// Reads a body to its end.
async fn read(body: Body) -> Option<Bytes> {
    body.collect().await.ok().map(|c| c.to_bytes())
}

#[tokio::test]
async fn proxy_l15_a_body_is_kept_up_to_64_kib() {
    for (length, keep, again) in [
        (0, false, true),
        (LIMIT, true, true),
        (LIMIT + 1, true, false),
        (10, false, false),
    ] {
        let bytes = Bytes::from(vec![b'x'; length]);
        let original = Original::new(Body::full(bytes.clone()), keep);
        assert!(original.untouched());
        let first = original.start_over().unwrap();
        assert_eq!(read(first).await.unwrap(), bytes);
        assert_eq!(original.untouched(), length == 0);
        let second = original.start_over();
        assert_eq!(second.is_some(), again, "{length} bytes, keep {keep}");
        if let Some(second) = second {
            assert_eq!(second.size_hint().exact(), Some(length as u64));
            assert_eq!(read(second).await.unwrap(), bytes);
        }
    }
}

#[tokio::test]
async fn an_abandoned_reader_gets_nothing() {
    let original = Original::new(Body::full("hello"), true);
    let abandoned = original.start_over().unwrap();
    let current = original.start_over().unwrap();
    assert_eq!(read(abandoned).await, None);
    assert_eq!(read(current).await.unwrap(), "hello");
}
