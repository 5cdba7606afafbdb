#![no_main]
//! PROXY headers: no part of one is taken for a whole one, and no more is ever waited for than the
//! longest header has.

use libfuzzer_sys::fuzz_target;
use sealane_ingress::proxy_protocol::{Malformed, Progress, parse};

/// The longest line of version 1, which is longer than what is looked at of version 2.
const LONGEST: usize = 107;

fuzz_target!(|data: &[u8]| {
    let mut filled = 0;
    let outcome = loop {
        match parse(&data[..filled]) {
            Ok(Progress::Needs(more)) => {
                assert!(more > 0 && filled + more <= LONGEST);
                if filled + more > data.len() {
                    return;
                }
                filled += more;
            }
            Ok(Progress::Done(header, rest)) => break Ok((header, rest)),
            Err(Malformed) => break Err(Malformed),
        }
    };
    if let Ok((_, rest)) = outcome {
        assert!(rest <= usize::from(u16::MAX));
        // It says itself where it ends, so no part of it is taken for a whole one.
        for end in 0..filled {
            assert!(matches!(parse(&data[..end]), Ok(Progress::Needs(_))));
        }
    }
});
