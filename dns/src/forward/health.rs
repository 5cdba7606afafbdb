//! Health checks: run on error only, until one is answered.

use std::rc::{Rc, Weak};
use std::time::Duration;

use hickory_proto::rr::RecordType;
use tokio::time::{sleep, timeout};

use super::exchange::{Asked, Links, exchange};
use super::upstream::Upstream;
use super::{ForwardError, Via};
use crate::cache::Key;

/// How long a check waits for a reply.
const PATIENCE: Duration = Duration::from_secs(1);

/// Checks the upstream until it answers or is not used any more. Does nothing if that runs already,
/// or if `max_fails` is 0.
pub(super) fn watch(links: &Rc<Links>, upstream: &Rc<Upstream>) {
    if links.settings.max_fails == 0 || upstream.checked.replace(true) {
        return;
    }
    let (links, upstream) = (Rc::clone(links), Rc::downgrade(upstream));
    tokio::task::spawn_local(async move { check_until_passed(&links, &upstream).await });
}

async fn check_until_passed(links: &Rc<Links>, upstream: &Weak<Upstream>) {
    let check = &links.settings.health_check;
    let asked = Asked {
        key: Key {
            name: check.domain.to_lowercase(),
            record_type: RecordType::NS,
            dnssec_ok: false,
            checking_disabled: false,
        },
        recursion_desired: check.recursion_desired,
    };
    while let Some(upstream) = upstream.upgrade() {
        let addr = upstream.target.addr;
        let reply = timeout(PATIENCE, exchange(links, &upstream, &asked, Via::Datagram)).await;
        // Whatever it says, it is there.
        if let Ok(Ok(_) | Err(ForwardError::BadReply)) = reply {
            if upstream.is_down(links.settings.max_fails) {
                tracing::info!(upstream = %addr, "upstream answers again");
            }
            upstream.check_passed();
            upstream.checked.set(false);
            return;
        }
        upstream.metrics.health_check_failed();
        if upstream.check_failed(links.settings.max_fails) {
            tracing::warn!(upstream = %addr, "upstream is down: health checks fail");
        }
        drop(upstream);
        sleep(check.interval).await;
    }
}
