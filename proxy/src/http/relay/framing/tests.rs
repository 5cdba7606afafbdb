use super::*;

/// What the client gets of a body that comes in pieces of `step` bytes, and how much was taken.
fn relayed(mut framing: Framing, body: &[u8], step: usize) -> Result<(String, usize), Malformed> {
    let (mut out, mut taken) = (Vec::new(), 0);
    for piece in body.chunks(step) {
        let used = framing.take(piece, &mut out)?;
        taken += used;
        if used < piece.len() {
            break;
        }
    }
    if !framing.is_done() {
        framing.end(&mut out)?;
    }
    Ok((String::from_utf8(out).unwrap(), taken))
}

/// The data of a chunked body that is well-formed.
fn data(mut body: &str) -> String {
    let mut data = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        data.push_str(&rest[..size]);
        body = rest[size..].strip_prefix("\r\n").unwrap();
        if size == 0 {
            assert_eq!(body, "");
            return data;
        }
    }
}

#[test]
fn reliability_b2_chunks_are_framed_anew() {
    for (name, body, expected) in [
        ("one", "2\r\nok\r\n0\r\n\r\n", Some("ok")),
        ("two", "2\r\nok\r\n3\r\nabc\r\n0\r\n\r\n", Some("okabc")),
        ("leading zeros", "0002\r\nok\r\n0\r\n\r\n", Some("ok")),
        (
            "a hexadecimal size",
            "A\r\n0123456789\r\n0\r\n\r\n",
            Some("0123456789"),
        ),
        ("an extension", "2;a=b\r\nok\r\n0;c\r\n\r\n", Some("ok")),
        (
            "trailers",
            "2\r\nok\r\n0\r\nX: y\r\nZ: w\r\n\r\n",
            Some("ok"),
        ),
        ("none", "0\r\n\r\n", Some("")),
        ("no size", "\r\nok\r\n0\r\n\r\n", None),
        ("no number", "zz\r\nok\r\n0\r\n\r\n", None),
        ("a sign", "+2\r\nok\r\n0\r\n\r\n", None),
        ("a prefix", "0x2\r\nok\r\n0\r\n\r\n", None),
        (
            "a size that does not fit",
            "ffffffffffffffffff\r\nok\r\n0\r\n\r\n",
            None,
        ),
        ("a bare line feed", "2\nok\r\n0\r\n\r\n", None),
        (
            "a line feed in an extension",
            "2;a\nb\r\nok\r\n0\r\n\r\n",
            None,
        ),
        ("a bare carriage return", "2\rok\r\n0\r\n\r\n", None),
        ("data that is too long", "2\r\nokay\r\n0\r\n\r\n", None),
        ("cut short", "2\r\nok\r\n", None),
        ("cut in data", "5\r\nok", None),
        ("cut before the last line", "2\r\nok\r\n0\r\n", None),
    ] {
        for step in [1, 2, 3, 1000] {
            let got = relayed(Framing::chunked(), body.as_bytes(), step);
            let got = got.ok().map(|(out, taken)| {
                assert_eq!(taken, body.len(), "{name} by {step}");
                data(&out)
            });
            assert_eq!(got.as_deref(), expected, "{name} by {step}");
        }
    }
}

#[test]
fn reliability_b10_nothing_behind_a_body_is_taken() {
    for (framing, body, taken) in [
        (Framing::chunked(), "2\r\nok\r\n0\r\n\r\nPOISON", 12),
        (Framing::Length(2), "okPOISON", 2),
        (Framing::Nothing, "POISON", 0),
    ] {
        let (out, used) = relayed(framing, body.as_bytes(), 1000).unwrap();
        assert_eq!(used, taken);
        assert!(!out.contains("POISON"));
    }
}

#[test]
fn a_body_without_a_length_ends_with_its_connection() {
    let (out, _) = relayed(Framing::End, b"some text", 4).unwrap();
    assert_eq!(data(&out), "some text");
    assert!(relayed(Framing::Length(3), b"ok", 10).is_err());
}

#[test]
fn reliability_b2_extensions_and_trailers_have_a_limit() {
    let long = "x".repeat(EXTRA as usize + 1);
    for body in [
        format!("2;{long}\r\nok\r\n0\r\n\r\n"),
        format!("0\r\nX: {long}\r\n\r\n"),
    ] {
        assert!(relayed(Framing::chunked(), body.as_bytes(), 1000).is_err());
    }
}

proptest::proptest! {
    #[test]
    fn any_data_in_any_chunks_comes_through(
        chunks in proptest::collection::vec("[a-z]{1,40}", 0..8),
        step in 1usize..50,
    ) {
        let mut body = String::new();
        for chunk in &chunks {
            body.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
        }
        body.push_str("0\r\n\r\n");
        let (out, _) = relayed(Framing::chunked(), body.as_bytes(), step).unwrap();
        assert_eq!(data(&out), chunks.concat());
    }
}
