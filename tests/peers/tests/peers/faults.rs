//! Faults of networks and of dying peers, and what the client on the other side sees of them, over
//! HTTP/1.1, HTTP/2 and plain TCP (proxy T9; reliability F5 to F10).

mod client;
mod downstream;
mod elsewhere;
mod upstream;

use std::net::SocketAddr;
use std::time::Duration;

use http::Response;
use sealane_config::model::{AppProtocol, HttpPolicy, Timeouts};
use sealane_proxy::http::EngineOptions;
use sealane_proxy::testing::{Origin, full};
use sealane_test_peers::Front;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// How long an endpoint may take to answer here.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);

/// A test that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is spoken from end to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoken {
    Http1,
    Http2,
    Tcp,
}

const ALL: [Spoken; 3] = [Spoken::Http1, Spoken::Http2, Spoken::Tcp];

impl Spoken {
    fn protocol(self) -> AppProtocol {
        match self {
            Self::Http1 => AppProtocol::Detect,
            Self::Http2 => AppProtocol::Http2,
            Self::Tcp => AppProtocol::Tcp,
        }
    }
}

/// An endpoint that answers with as many bytes as its client asks for: `/COUNT` of HTTP, a line with
/// the number of anything else.
async fn origin(spoken: Spoken) -> Origin {
    if spoken != Spoken::Tcp {
        return Origin::start(|seen| {
            let count = seen.target[1..].parse().unwrap_or_default();
            Response::new(full(vec![b'x'; count]))
        })
        .await;
    }
    Origin::raw(|stream, _| {
        Box::pin(async move {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            if stream.read_line(&mut line).await.is_ok() {
                let count = line.trim().parse().unwrap_or_default();
                // Whether the client takes all of it is the test's business.
                let _ = stream.write_all(&vec![b'x'; count]).await;
            }
        })
    })
    .await
}

/// The node proxy in front of these endpoints.
async fn front(spoken: Spoken, endpoints: &[SocketAddr]) -> Front {
    let mut front = Front::with(EngineOptions::default());
    front.set_policy(HttpPolicy {
        timeouts: Timeouts {
            response: RESPONSE_TIMEOUT,
            ..Timeouts::default()
        },
        ..HttpPolicy::default()
    });
    front.service(spoken.protocol(), endpoints);
    client::listening(front.vip).await;
    front
}

/// Milliseconds.
fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}
