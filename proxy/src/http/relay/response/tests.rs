use super::*;

/// What the client gets of a head, without `Date`.
fn translated(head: &str, is_head: bool) -> Option<(String, Answer)> {
    let mut out = Vec::new();
    match read(head.as_bytes(), is_head, false, (None, None), &mut out) {
        Ok(Read::Final(answer)) => {
            let text = String::from_utf8(out).unwrap();
            let lines = text
                .split_inclusive("\r\n")
                .filter(|l| !l.starts_with("date: "));
            Some((lines.collect(), answer))
        }
        Ok(other) => panic!("{other:?}"),
        Err(Malformed) => None,
    }
}

#[test]
fn reliability_b10_answers_have_one_way_to_end() {
    for (name, head, expected) in [
        (
            "a length",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            Some("Length(2)"),
        ),
        (
            "the same twice",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
            Some("Length(2)"),
        ),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
            None,
        ),
        (
            "a list",
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n",
            None,
        ),
        (
            "no number",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            None,
        ),
        (
            "chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Some("Chunked"),
        ),
        (
            "chunks and a length",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
            Some("Chunked"),
        ),
        (
            "chunked twice",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            None,
        ),
        (
            "another coding",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            None,
        ),
        (
            "chunks of HTTP/1.0",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            None,
        ),
        ("nothing said", "HTTP/1.1 200 OK\r\n\r\n", Some("End")),
        (
            "204",
            "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n",
            Some("Nothing"),
        ),
        (
            "304",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
            Some("Nothing"),
        ),
        (
            "an upgrade nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            None,
        ),
        ("a status that is none", "HTTP/1.1 099 X\r\n\r\n", None),
        ("another protocol", "SSH-2.0-OpenSSH_9.2\r\n\r\n", None),
        ("NUL", "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", None),
    ] {
        let framing = translated(head, false).map(|(_, answer)| format!("{:?}", answer.framing));
        match (framing, expected) {
            (Some(framing), Some(expected)) => {
                assert!(framing.starts_with(expected), "{name}: {framing}");
            }
            (framing, expected) => assert_eq!(framing.as_deref(), expected, "{name}"),
        }
    }
}

#[test]
fn proxy_l3_an_answers_head_is_written_anew() {
    for (name, head, is_head, expected) in [
        (
            "fields about the connection",
            "HTTP/1.1 200 Fine\nServer: x\r\nConnection: keep-alive, X-Hop\r\nX-Hop: y\r\nKeep-Alive: a\r\n\
             Proxy-Connection: b\r\nTE: c\r\nUpgrade: h2c\r\nContent-Length: 02\r\n\r\n",
            false,
            "HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 2\r\n\r\n",
        ),
        (
            "a field that nobody may take away",
            "HTTP/1.1 200 OK\r\nConnection: Content-Type\r\nContent-Type: a/b\r\nContent-Length: 0\r\n\r\n",
            false,
            "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "until the end",
            "HTTP/1.0 404 Not Found\r\n\r\n",
            false,
            "HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        (
            "HEAD keeps the length",
            "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
            true,
            "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n",
        ),
        (
            "204 has none",
            "HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n",
            false,
            "HTTP/1.1 204 No Content\r\n\r\n",
        ),
    ] {
        let (text, answer) = translated(head, is_head).unwrap();
        assert_eq!(text, expected, "{name}");
        assert_eq!(answer.length, head.len(), "{name}");
    }
}

#[test]
fn an_answer_has_a_date_and_says_when_the_connection_ends() {
    let mut out = Vec::new();
    read(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        false,
        true,
        (None, None),
        &mut out,
    )
    .unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.contains("\r\ndate: ") && text.ends_with(" GMT\r\nconnection: close\r\n\r\n"),
        "{text}"
    );
    let dated = b"HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 0\r\n\r\n";
    let mut out = Vec::new();
    read(dated, false, false, (None, None), &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap().matches("ate: ").count(), 1);
}

#[test]
fn proxy_l17_a_connection_is_kept_only_if_both_say_so() {
    for (head, keep) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            false,
        ),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\n\r\n", false),
        (
            "HTTP/1.1 204 No\r\nKeep-Alive: max=9, timeout=60\r\n\r\n",
            true,
        ),
        ("HTTP/1.1 204 No\r\nKeep-Alive: timeout=1\r\n\r\n", false),
    ] {
        let kept = translated(head, false).unwrap().1.keep != Keep::NOT;
        assert_eq!(kept, keep, "{head:?}");
    }
}

#[test]
fn interim_answers_are_dropped_and_half_ones_waited_for() {
    let mut out = Vec::new();
    let early = read(
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP",
        false,
        false,
        (None, None),
        &mut out,
    );
    assert!(matches!(early, Ok(Read::Interim(37))), "{early:?}");
    let half = read(
        b"HTTP/1.1 200 OK\r\nX: ",
        false,
        false,
        (None, None),
        &mut out,
    );
    assert!(matches!(half, Ok(Read::Partial)));
    let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD));
    assert!(read(long.as_bytes(), false, false, (None, None), &mut out).is_err());
    assert!(out.is_empty());
}

#[test]
fn ingress_a21_a_field_of_our_own_takes_the_place_of_the_endpoints() {
    let own = Some(("strict-transport-security", &b"max-age=1"[..]));
    let theirs = "Strict-Transport-Security: max-age=2\r\n";
    for fields in ["", theirs, &theirs.repeat(2)] {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}Date: x\r\nContent-Length: 0\r\n\r\n");
        let mut out = Vec::new();
        read(head.as_bytes(), false, false, (own, None), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let line = "strict-transport-security: max-age=1\r\n";
        assert_eq!(text.matches(line).count(), 1, "{text}");
        assert!(!text.contains("max-age=2"), "{text}");
    }
}

#[test]
fn ingress_t5_a_field_is_added_unless_the_endpoint_has_its_own() {
    let added = Some(("alt-svc", &b"h3=\":443\""[..]));
    for (fields, wanted) in [
        ("", "alt-svc: h3=\":443\"\r\n"),
        ("Alt-Svc: clear\r\n", "Alt-Svc: clear\r\n"),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}Date: x\r\nContent-Length: 0\r\n\r\n");
        let mut out = Vec::new();
        read(head.as_bytes(), false, false, (None, added), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(wanted), "{text}");
        assert_eq!(text.to_ascii_lowercase().matches("alt-svc").count(), 1);
    }
}
