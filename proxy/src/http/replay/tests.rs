use http_body_util::BodyExt;

use super::super::services::MAX_REPLAY;
use super::*;

fn original(body: Body, keep: bool) -> Original {
    let rules = Rules {
        keep,
        most_bytes: 0,
    };
    Original::new(body, &rules, &Shared::default())
}

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
        let original = original(Body::full(bytes.clone()), keep);
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
    let original = original(Body::full("hello"), true);
    let abandoned = original.start_over().unwrap();
    let current = original.start_over().unwrap();
    assert_eq!(read(abandoned).await, None);
    assert_eq!(read(current).await.unwrap(), "hello");
}

#[tokio::test]
async fn proxy_l15_what_is_kept_is_counted_and_given_back() {
    let memory = Shared::default();
    let rules = Rules {
        keep: true,
        most_bytes: 0,
    };
    assert!(memory.keep(MAX_REPLAY - 6));
    let first = Original::new(Body::full("hello"), &rules, &memory);
    read(first.start_over().unwrap()).await.unwrap();
    let second = Original::new(Body::full("hello"), &rules, &memory);
    read(second.start_over().unwrap()).await.unwrap();
    assert!(first.start_over().is_some());
    assert!(second.start_over().is_none(), "no memory is left for it");
    drop(first);
    assert!(memory.keep(6) && !memory.keep(1));
}

#[tokio::test]
async fn a_body_may_be_so_long_and_no_longer() {
    for (most, fault) in [(4, Some(Fault::TooLong)), (5, None), (0, None)] {
        let rules = Rules {
            keep: true,
            most_bytes: most,
        };
        let original = Original::new(Body::full("hello"), &rules, &Shared::default());
        let body = read(original.start_over().unwrap()).await;
        assert_eq!((body.is_none(), original.fault()), (fault.is_some(), fault));
    }
}
