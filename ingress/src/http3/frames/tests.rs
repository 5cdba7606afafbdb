use super::*;

const LONGEST: u64 = 100;

/// A frame, its numbers in two bytes each.
fn frame(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    for number in [kind, payload.len() as u16] {
        frame.extend_from_slice(&(number | 0x4000).to_be_bytes());
    }
    frame.extend_from_slice(payload);
    frame
}

/// What is passed on of a stream that comes in pieces of so many bytes, and how that ended.
fn passed(mut frames: Frames, stream: &[u8], piece: usize) -> Result<Vec<u8>, Fault> {
    let mut passed = Vec::new();
    for bytes in stream.chunks(piece) {
        frames.came(Bytes::copy_from_slice(bytes))?;
        while let Some(bytes) = frames.next() {
            passed.extend_from_slice(&bytes);
        }
    }
    frames.end().map(|()| passed)
}

#[test]
fn ingress_t5_frames_without_a_meaning_are_left_out() {
    let (head, data) = (frame(1, b"head"), frame(0, &[b'x'; 300]));
    let all = [head.clone(), data.clone(), head.clone()].concat();
    for (name, stream, wanted) in [
        ("nothing", Vec::new(), Vec::new()),
        ("a request", all.clone(), all.clone()),
        (
            "empty data",
            [&head, &frame(0, b""), &data, &frame(0, b""), &head]
                .map(|it| &**it)
                .concat(),
            all.clone(),
        ),
        (
            "unknown types",
            [
                &frame(0x21, b"grease"),
                &head,
                &frame(0x40, b""),
                &data,
                &head,
            ]
            .map(|it| &**it)
            .concat(),
            all.clone(),
        ),
        ("forbidden types", frame(6, b"ping"), frame(6, b"ping")),
        (
            "numbers of other lengths",
            vec![0x80, 0, 0, 1, 2, 7, 7],
            vec![0x80, 0, 0, 1, 2, 7, 7],
        ),
    ] {
        for piece in [1, 3, 7, 1000] {
            let got = passed(Frames::of_request(LONGEST), &stream, piece);
            assert_eq!(got.as_ref(), Ok(&wanted), "{name} in pieces of {piece}");
        }
    }
}

#[test]
fn ingress_t5_frames_are_bounded_and_whole() {
    let long = |kind| frame(kind, &[0; 101]);
    let huge = [1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff].to_vec();
    for (name, stream, wanted) in [
        ("as long as may be", frame(1, &[0; 100]), Ok(104)),
        ("longer", long(1), Err(Fault::TooLong)),
        ("longer, without a meaning", long(0x21), Err(Fault::TooLong)),
        ("longer than can be", huge, Err(Fault::TooLong)),
        ("data", long(0), Ok(105)),
        ("half a number", vec![0x40], Err(Fault::Incomplete)),
        ("half a head", vec![1], Err(Fault::Incomplete)),
        (
            "half a frame",
            frame(1, b"1234")[..6].to_vec(),
            Err(Fault::Incomplete),
        ),
        ("nothing of it", vec![0, 5], Err(Fault::Incomplete)),
    ] {
        for piece in [1, 1000] {
            let got = passed(Frames::of_request(LONGEST), &stream, piece);
            assert_eq!(
                got.map(|it| it.len()),
                wanted,
                "{name} in pieces of {piece}"
            );
        }
    }
}

#[test]
fn ingress_t5_only_the_control_stream_is_looked_into() {
    let control = [&[0][..], &frame(4, b"settings"), &frame(0x21, b"x")].concat();
    let wanted = [&[0][..], &frame(4, b"settings")].concat();
    let encoder = [&[2][..], &[0xff; 40_000]].concat();
    for piece in [1, 1000] {
        let got = passed(Frames::of_unidirectional(), &control, piece);
        assert_eq!(got.as_ref(), Ok(&wanted));
        let got = passed(Frames::of_unidirectional(), &encoder, piece);
        assert_eq!(got.as_ref(), Ok(&encoder));
    }
    let long = [&[0, 4][..], &[0x80, 0, 0x40, 1]].concat();
    let got = passed(Frames::of_unidirectional(), &long, 1);
    assert_eq!(got, Err(Fault::TooLong));
}
