//! Codes and their pages.

use std::collections::BTreeSet;

use super::{codes, page};

#[test]
fn every_code_has_its_section_and_every_section_its_code() {
    let documented = page::documented();
    let sections: BTreeSet<&str> = documented.iter().map(|(id, _)| *id).collect();
    let known: BTreeSet<&str> = codes::ALL.iter().map(|code| code.id).collect();
    assert_eq!(sections, known);
    for (id, title) in documented {
        let code = codes::find(id).unwrap();
        assert_eq!(code.title, title, "{id}");
        let text = page::section(id).unwrap();
        for part in ["Means: ", "Example:", "Fix: "] {
            assert!(text.contains(part), "{id} lacks {part}");
        }
    }
}

#[test]
fn codes_are_unique_and_in_order() {
    let ids: Vec<&str> = codes::ALL.iter().map(|code| code.id).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    assert!(codes::ALL.iter().all(|code| !code.advice.is_empty()));
    assert_eq!(codes::find("sl0301"), Some(codes::NO_SERVICE));
    assert_eq!(codes::find("SL9999"), None);
}
