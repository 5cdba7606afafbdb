//! What a full cache takes, as the kernel sees it. A process of its own, so that nothing else
//! allocates meanwhile.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first surprise, and the backtrace names it"
)]

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use sealane_dns::Name;
use sealane_dns::answer::Answer;
use sealane_dns::cache::{Cache, Key};
use sealane_dns::config::{CacheSettings, CacheShare};
use sealane_dns::metrics::{CacheMetrics, Metrics};
use sealane_dns::record::{RData, Record, Soa};
use tokio::time::Instant;

const PAGE: usize = 4096;
/// Bytes of each part.
const BYTES: usize = 12 << 20;

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * PAGE
}

fn key(name: &str) -> Key {
    Key {
        name: name.parse().unwrap(),
        record_type: RecordType::A,
        dnssec_ok: false,
        checking_disabled: false,
    }
}

fn address(name: &str) -> Answer {
    let mut answer = Answer::code(ResponseCode::NoError, None);
    let name = name.parse().unwrap();
    answer
        .answers
        .push(Record::address(name, 3600, [10, 0, 0, 1].into()));
    answer
}

fn missing() -> Answer {
    let name: Name = "zone.example".parse().unwrap();
    let soa = Soa {
        mname: "ns.zone.example".parse().unwrap(),
        rname: "hostmaster.zone.example".parse().unwrap(),
        serial: 1,
        refresh: 2,
        retry: 3,
        expire: 4,
        minimum: 3600,
    };
    let mut answer = Answer::code(ResponseCode::NXDomain, None);
    answer.authority.push(Record {
        name,
        ttl: 3600,
        data: RData::Soa(Box::new(soa)),
    });
    answer
}

#[test]
fn dns_cache_size_in_bytes_is_what_the_kernel_sees() {
    let share = CacheShare {
        capacity: 1 << 24,
        max_bytes: BYTES,
        max_ttl: Duration::from_secs(3600),
        min_ttl: Duration::from_secs(5),
    };
    let settings = CacheSettings {
        success: share,
        denial: share,
        ..CacheSettings::default()
    };
    let metrics = CacheMetrics::new(&Metrics::default(), "dns://:53", &settings.zones);
    let before = resident();
    let mut cache = Cache::new(settings, false, metrics);
    let now = Instant::now();
    // Enough to replace everything several times, whatever an entry takes.
    for n in 0..150_000 {
        let name = format!("name-number-{n}.zone.example");
        cache.insert(&key(&name), address(&name), now);
        let name = format!("missing-{n}.zone.example");
        cache.insert(&key(&name), missing(), now);
    }
    let taken = resident() - before;
    assert!(taken <= 2 * BYTES, "{taken} bytes of {}", 2 * BYTES);
    assert!(taken >= BYTES, "{taken} bytes: the cache is full");
}
