//! What is written back to the Kubernetes API: the status of Ingresses and of Gateway API's objects,
//! and Events about what cannot be served as written.
//!
//! Any number of gateways may run; the holder of a Lease writes, the others stand by ([`lease`]).
//! Nothing is written to objects that are not ours. All writes are paced, repeated with growing
//! pauses when they fail, and left alone when they would change nothing.

mod addresses;
mod bucket;
mod conditions;
mod events;
pub mod lease;
mod notices;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Reader;
use crate::compile::ObjectKey;
use crate::model::PublishedAddress;
use lease::LeaseOptions;

/// Status code for what RBAC does not allow.
const FORBIDDEN: u16 = 403;

/// What to report, and as who.
#[derive(Clone, Debug)]
pub struct ReportOptions {
    /// The Lease of which the holder writes.
    pub lease: LeaseOptions,
    /// Where the gateway is reached, which becomes the status of Ingresses.
    pub publish: Publish,
}

/// Where the addresses in the status of Ingresses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Publish {
    /// Nowhere: status is not touched.
    Nothing,
    /// They are these.
    Addresses(Vec<PublishedAddress>),
    /// They are those of the Service in front of the gateway.
    Service(ObjectKey),
    /// They are those of the nodes on which the gateway's pods run: pods of this namespace with these
    /// labels (a label selector as the API takes it).
    Nodes {
        /// Namespace of the gateway's pods.
        namespace: String,
        /// Selects them.
        selector: String,
    },
}

/// Takes part in the election and reports while leading, until `shutdown`.
///
/// Failures are logged and retried with growing pauses, without end.
pub async fn run(
    client: Client,
    reader: Reader,
    options: ReportOptions,
    shutdown: CancellationToken,
) {
    describe_metrics();
    // The Lease is given up only after the last write.
    let stop_election = CancellationToken::new();
    let instance = options.lease.identity.clone();
    let (leadership, election) = lease::elect(client.clone(), options.lease, stop_election.clone());
    let (found, addresses) = watch::channel(None);
    let (contested, fights) = watch::channel(Arc::default());
    let following = addresses::follow(client.clone(), options.publish, leadership.clone(), found);
    let keeper = status::Keeper::new(client.clone(), leadership.clone(), contested);
    let conditions = conditions::Writer::new(client.clone(), leadership.clone());
    let writer = events::Writer::new(client, leadership, instance);
    let reporting = async {
        tokio::join!(
            shutdown.run_until_cancelled(following),
            shutdown.run_until_cancelled(keeper.run(reader.clone(), addresses.clone())),
            shutdown.run_until_cancelled(conditions.run(reader.clone(), addresses)),
            shutdown.run_until_cancelled(writer.run(reader, fights)),
        );
        stop_election.cancel();
    };
    tokio::join!(Box::pin(reporting), election);
}

fn describe_metrics() {
    use metrics::describe_counter;
    describe_counter!(
        "sealane_report_status_writes_total",
        "Writes of an Ingress' status, by result"
    );
    describe_counter!("sealane_report_events_total", "Events, by result");
}

/// Why the API server did not do what it was asked for, and what to do about that.
fn refusal(error: &kube::Error, verbs: &str, resource: &str) -> String {
    match error {
        kube::Error::Api(status) if status.code == FORBIDDEN => {
            format!(
                "forbidden; the role needs {verbs} on {resource} ({})",
                status.message
            )
        }
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        error => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// The beginning of `text`, at most `limit` bytes.
fn shorten(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or_default()]
}
