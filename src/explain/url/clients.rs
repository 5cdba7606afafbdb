//! Certificates that a host asks its clients for.

use sealane_config::Snapshot;
use sealane_config::model::ClientVerification;
use sealane_ingress::decide::Asked;

use crate::explain::model::{Mark, Phase, Trail};

pub(super) fn explain(trail: &mut Trail, snapshot: &Snapshot, asked: &Asked<'_>) {
    let routes = snapshot.routes.host(&asked.host);
    let Some(client) = routes.and_then(|routes| routes.tls.client.as_ref()) else {
        return;
    };
    let (mark, why) = match (&client.authorities, client.verify) {
        (None, _) => (
            Mark::Failed,
            "the Secret with the authorities is of no use, so nobody comes in",
        ),
        (_, ClientVerification::Required) => (Mark::Note, "only clients with a good one come in"),
        (_, ClientVerification::Optional) => (
            Mark::Note,
            "clients with a good one come in, and those without",
        ),
        (_, ClientVerification::OptionalAnyIssuer) => (
            Mark::Note,
            "clients come in with one, whoever vouches for it, and without",
        ),
        (_, ClientVerification::Off) => (Mark::Note, "none is asked for"),
    };
    let step = trail.step(Phase::Certificate, mark, "certificates of clients", why);
    step.of(&client.source, "");
}
