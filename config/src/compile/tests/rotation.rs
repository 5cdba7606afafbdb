//! Certificates that are replaced over and over, not always by good ones.

use serde_json::json;

use super::certificates::{pem, secret, served, tls, world};
use super::world::problems;
use crate::model::ProblemKind;

/// What somebody writes into the Secret that is no good.
#[derive(Clone, Copy, Debug)]
enum Mistake {
    HalfWritten,
    WithoutKey,
    KeyOfAnother,
    Removed,
}

#[test]
fn reliability_f39_no_mistake_in_a_rotation_takes_the_last_good_certificate_away() {
    const HOST: &str = "shop.test";
    const MISTAKES: [(Mistake, ProblemKind); 4] = [
        (Mistake::HalfWritten, ProblemKind::BadCertificate),
        (Mistake::WithoutKey, ProblemKind::BadCertificate),
        (Mistake::KeyOfAnother, ProblemKind::BadCertificate),
        (Mistake::Removed, ProblemKind::MissingSecret),
    ];
    let mut world = world(HOST, json!([{"hosts": [HOST], "secretName": "s"}]));
    let mut last = None;
    for round in 0..100 {
        let version = |part: &str| format!("{round}-{part}");
        world.secret("s", tls(&version("good"), &[HOST]));
        let snapshot = world.build();
        let good = served(&snapshot, HOST);
        assert!(
            good.is_some() && good != last,
            "{round}: the new one is served"
        );
        assert!(snapshot.problems.is_empty(), "{round}");

        let (mistake, kind) = MISTAKES[round % MISTAKES.len()];
        let (certificate, key) = pem(&[HOST], 2025..2035);
        let half = |text: &str| text[..text.len() / 2].to_owned();
        let content = match mistake {
            Mistake::HalfWritten => Some((half(&certificate), half(&key))),
            Mistake::WithoutKey => Some((certificate, String::new())),
            Mistake::KeyOfAnother => Some((certificate, pem(&[HOST], 2025..2035).1)),
            Mistake::Removed => None,
        };
        match content {
            Some(pair) => world.secret("s", secret(&version("bad"), "kubernetes.io/tls", pair)),
            None => world.delete_secret("s"),
        }
        let snapshot = world.build();
        assert_eq!(served(&snapshot, HOST), good, "{round}: {mistake:?}");
        let told = problems(&snapshot, kind);
        assert_eq!(
            told.len(),
            1,
            "{round}: {mistake:?}: {:?}",
            snapshot.problems
        );
        last = good;
    }
}

#[test]
fn reliability_f39_an_expired_certificate_is_told_about_and_replaced_by_a_good_one() {
    const HOST: &str = "shop.test";
    let mut world = world(HOST, json!([{"hosts": [HOST], "secretName": "s"}]));
    let expired = pem(&[HOST], 2020..2021);
    world.secret("s", secret("1", "kubernetes.io/tls", expired));
    let snapshot = world.build();
    let first = served(&snapshot, HOST);
    assert!(first.is_some(), "clients are told by it what is wrong");
    assert_eq!(snapshot.problems.len(), 1, "{:?}", snapshot.problems);
    world.secret("s", tls("2", &[HOST]));
    let snapshot = world.build();
    assert_ne!(served(&snapshot, HOST), first);
    assert!(snapshot.problems.is_empty());
}
