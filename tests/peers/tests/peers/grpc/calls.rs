//! Calls of all four kinds, what they carry, and where they go.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use tonic::Code;

use super::*;

#[tokio::test]
async fn proxy_l6_unary_calls_carry_messages_and_metadata() {
    for way in WAYS {
        let world = World::new(way, 1).await;
        let mut request = Request::new(Bytes::from_static(b"hello"));
        let metadata = request.metadata_mut();
        metadata.insert("echo-this", "a value".parse().unwrap());
        let answer = world.client.unary_request(request).await.unwrap();
        assert_eq!(answer.metadata().get("echo-this").unwrap(), "a value");
        assert_eq!(who(&answer), world.backend().name());
        assert_eq!(answer.into_inner(), "hello", "{way:?}");
        let empty = world.client.unary("").await.unwrap();
        assert_eq!(empty.into_inner(), "", "{way:?}");
    }
}

#[tokio::test]
async fn proxy_l6_big_messages_pass_in_both_directions() {
    // More than any window on the way.
    let big = Bytes::from(vec![7; 3 * 1024 * 1024]);
    for way in WAYS {
        let world = World::new(way, 1).await;
        let answer = world.client.unary(big.clone()).await.unwrap();
        assert!(answer.into_inner() == big, "{way:?}");
    }
}

#[tokio::test]
async fn proxy_l6_a_server_streams() {
    for way in WAYS {
        let world = World::new(way, 1).await;
        let answer = world.client.down("200 5000").await.unwrap();
        let messages: Vec<Bytes> = answer.into_inner().try_collect().await.unwrap();
        assert_eq!(messages.len(), 200, "{way:?}");
        let in_order = messages.iter().enumerate();
        assert!(
            in_order
                .clone()
                .all(|(i, m)| m.len() == 5000 && m[0] == i as u8)
        );
    }
}

#[tokio::test]
async fn proxy_l6_a_client_streams() {
    for way in WAYS {
        let world = World::new(way, 1).await;
        let message = Bytes::from(vec![1; 5000]);
        let messages = stream::iter(vec![message; 200]);
        let answer = world.client.up(messages).await.unwrap();
        assert_eq!(answer.into_inner(), "200 1000000", "{way:?}");
    }
}

#[tokio::test]
async fn proxy_l6_both_sides_stream_and_take_turns() {
    for way in WAYS {
        let world = World::new(way, 1).await;
        let (send, receive) = tokio::sync::mpsc::channel(1);
        let messages = stream::unfold(receive, |mut receive| async {
            receive.recv().await.map(|message| (message, receive))
        });
        let mut answers = world.client.both(messages).await.unwrap().into_inner();
        for number in 0..50 {
            // The next is sent when the last was answered: nothing may be held back on the way.
            let message = Bytes::from(format!("message {number}"));
            send.send(message.clone()).await.unwrap();
            let answer = tokio::time::timeout(Duration::from_secs(5), answers.next()).await;
            let answer = answer.expect("an answer in time").unwrap().unwrap();
            assert_eq!(answer, message, "{way:?}");
        }
        drop(send);
        assert!(answers.next().await.is_none(), "{way:?}");
    }
}

#[tokio::test]
async fn proxy_l6_every_status_comes_with_its_message_details_and_trailers() {
    for way in WAYS {
        let world = World::new(way, 3).await;
        for code in 1..=16 {
            let expected = backend::failure(code);
            let unary = world.client.unary(format!("fail {code}")).await;
            let stream = world.client.down(&format!("3 10 {code}")).await.unwrap();
            let mut stream = stream.into_inner();
            for _ in 0..3 {
                assert_eq!(stream.next().await.unwrap().unwrap().len(), 10);
            }
            let streamed = stream.next().await.unwrap();
            for status in [unary.unwrap_err(), streamed.unwrap_err()] {
                assert_eq!(status.code(), Code::from_i32(code), "{way:?}: {status:?}");
                assert_eq!(status.message(), expected.message(), "{way:?}");
                assert_eq!(status.details(), expected.details(), "{way:?}");
                assert_eq!(status.metadata().get("reason").unwrap(), "told to");
                let detail = status.metadata().get_bin("detail-bin").unwrap();
                assert_eq!(detail.to_bytes().unwrap(), &[0, 255, 7][..]);
            }
        }
        let good = world.client.unary("good").await;
        assert!(good.is_ok(), "{way:?}: the connection goes on");
    }
}

#[tokio::test]
async fn proxy_l7_calls_of_one_connection_are_spread_over_the_endpoints() {
    for way in WAYS {
        let world = World::new(way, 3).await;
        let mut answered = BTreeMap::new();
        for _ in 0..300 {
            let answer = world.client.unary("who").await.unwrap();
            *answered.entry(who(&answer)).or_insert(0) += 1;
        }
        // A third is 100; on a busy machine one endpoint may really be slower for a while.
        assert_eq!(answered.len(), 3, "{way:?}: {answered:?}");
        assert!(answered.values().all(|n| *n >= 40), "{way:?}: {answered:?}");
    }
}
