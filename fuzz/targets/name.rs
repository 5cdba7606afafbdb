#![no_main]
//! Names as text: what is read can be shown, and every part of it keeps to the limits of RFC 1035.

use libfuzzer_sys::fuzz_target;
use sealane_dns::Name;
use sealane_dns::name::{MAX_LABEL, MAX_NAME};

fn check(name: &Name) {
    let wire = name.wire();
    assert!(wire.len() <= MAX_NAME && wire.last() == Some(&0));
    let labels: Vec<_> = name.labels().collect();
    assert!(
        labels
            .iter()
            .all(|label| (1..=MAX_LABEL).contains(&label.len()))
    );
    let length: usize = labels.iter().map(|label| label.len() + 1).sum();
    assert_eq!(length + 1, wire.len());
}

fuzz_target!(|data: (&str, &str)| {
    let (text, zone) = data;
    let Ok(name) = text.parse::<Name>() else {
        return;
    };
    check(&name);
    let lower = name.to_lowercase();
    check(&lower);
    assert!(lower.eq_ignore_case(&name) && name.is_within(&lower));
    check(&name.with_case((0..).map(|bit| bit % 3 == 0)));
    let shown = name.to_string();
    assert!(shown.bytes().all(|byte| byte.is_ascii_graphic()));
    if !shown.contains('\\') {
        assert_eq!(shown.parse().as_ref(), Ok(&name));
    }
    let Ok(zone) = zone.parse::<Name>() else {
        return;
    };
    if let Some((left, typed)) = name.split_zone(&zone) {
        check(&typed);
        assert!(typed.eq_ignore_case(&zone));
        assert_eq!(left + typed.labels().count(), name.labels().count());
    }
    if let Some(longer) = Name::prepend(text.split('.'), &zone) {
        check(&longer);
        assert!(longer.is_within(&zone));
    }
});
