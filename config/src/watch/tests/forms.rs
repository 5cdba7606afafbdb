//! EndpointSlices in JSON and in protobuf.

use std::time::Duration;

use super::server::{Fault, SERVICES, SLICES, Server};
use super::{Running, service, slice};
use crate::Snapshot;

fn endpoints(snapshot: &Snapshot) -> Vec<String> {
    let web = snapshot.service("shop", "web").unwrap();
    let endpoints = web.endpoints.iter();
    endpoints.map(|it| it.addr().to_string()).collect()
}

/// One life of a watch: what there is, changes, a deletion, history that is gone, a refusal.
#[tokio::test(start_paused = true)]
async fn proxy_s25_slices_are_followed_in_either_form() {
    for (name, streams, protobuf) in [
        ("JSON, lists", false, false),
        ("JSON, streams", true, false),
        ("protobuf, lists", false, true),
        ("protobuf, streams", true, true),
    ] {
        let server = Server::default();
        if streams {
            server.stream_lists(None);
        }
        if protobuf {
            server.speak_protobuf();
        }
        server.put(SERVICES, service("web"));
        server.put(SLICES, slice("a", "web", &["10.1.0.1", "10.1.0.2"]));
        let mut running = Running::synced(&server).await;
        let expect = |expected: &'static [&'static str]| {
            move |snapshot: &Snapshot| endpoints(snapshot) == expected
        };
        let first = expect(&["10.1.0.1", "10.1.0.2"]);
        assert!(first(&running.reader.load()), "{name}: what there is");
        server.put(SLICES, slice("a", "web", &["10.1.0.2"]));
        running.until(name, expect(&["10.1.0.2"])).await;
        server.bookmark(SLICES);
        server.put(SLICES, slice("b", "web", &["10.1.0.3"]));
        running.until(name, expect(&["10.1.0.2", "10.1.0.3"])).await;
        server.delete(SLICES, "shop", "a");
        running.until(name, expect(&["10.1.0.3"])).await;
        server.compact();
        server.send_gone(SLICES);
        server.put(SLICES, slice("b", "web", &["10.1.0.4"]));
        running.until(name, expect(&["10.1.0.4"])).await;
        server.fault(SLICES, Some(Fault::WatchStatus(503)));
        server.end_watches();
        tokio::time::sleep(Duration::from_secs(5)).await;
        server.put(SLICES, slice("b", "web", &["10.1.0.5"]));
        server.fault(SLICES, None);
        running.until(name, expect(&["10.1.0.5"])).await;
        let answers = server.protobuf_answers();
        assert_eq!(answers > 3, protobuf, "{name}: {answers} in protobuf");
    }
}
