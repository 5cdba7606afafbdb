#![no_main]
//! PROXY headers: read bit by bit they come to the same as whole, nothing behind them is looked at,
//! and no more is ever waited for than the longest header has.

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
    // What was told of a part holds for all that begins with it, but a line has to end there.
    let again = parse(&data[..filled]);
    assert_eq!(again.is_ok(), outcome.is_ok());
    if let Ok((_, rest)) = outcome {
        assert!(rest <= usize::from(u16::MAX));
    }
});
