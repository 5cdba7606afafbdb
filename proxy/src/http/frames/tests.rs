use super::*;

const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

fn frame(kind: u8, length: usize) -> Vec<u8> {
    let [.., a, b, c] = (length as u64).to_be_bytes();
    let mut frame = vec![a, b, c, kind, 0, 0, 0, 0, 1];
    frame.resize(HEAD + length, 0);
    frame
}

fn connection() -> Frames {
    let mut frames = Frames::new();
    frames.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    frames
}

/// How many of them pass.
fn passing(frames: &mut Frames, frame: &[u8], most: usize) -> usize {
    (0..most).take_while(|_| frames.read(frame).is_ok()).count()
}

#[tokio::test(start_paused = true)]
async fn reliability_b11_frames_of_no_use_are_counted_however_they_are_cut() {
    let free = usize::try_from(FREE).unwrap();
    for (name, kind, length) in [
        ("SETTINGS", SETTINGS, 0),
        ("PING", PING, 8),
        ("WINDOW_UPDATE", WINDOW_UPDATE, 4),
        ("PRIORITY", 2, 5),
        ("RST_STREAM", 3, 4),
        ("CONTINUATION", 9, 100),
        ("empty DATA", DATA, 0),
        ("unknown", 0x2a, 70_000),
    ] {
        let frame = frame(kind, length);
        let passed = passing(&mut connection(), &frame, 2 * free);
        assert_eq!(passed, free, "{name}");
    }
    let all: Vec<u8> = (0..free).flat_map(|_| frame(PING, 8)).collect();
    for size in [1, 5, 9, 17, 4096, all.len()] {
        let mut frames = connection();
        assert!(
            all.chunks(size).all(|part| frames.read(part).is_ok()),
            "{size}"
        );
        assert!(frames.read(&frame(PING, 8)).is_err(), "{size}");
    }
}

#[tokio::test(start_paused = true)]
async fn reliability_b11_good_clients_are_excused() {
    // A request, and acknowledgements of what came back, a thousand times a second.
    let mut frames = connection();
    for _ in 0..100_000 {
        frames.read(&frame(HEADERS, 40)).unwrap();
        frames.read(&frame(WINDOW_UPDATE, 4)).unwrap();
        frames.read(&frame(WINDOW_UPDATE, 4)).unwrap();
        frames.read(&frame(PING, 8)).unwrap();
    }
    // A download of a gigabyte that is acknowledged every 4 KiB, twice.
    let mut frames = connection();
    for _ in 0..(1 << 30) / 4096 {
        frames.wrote(4096);
        frames.read(&frame(WINDOW_UPDATE, 4)).unwrap();
        frames.read(&frame(WINDOW_UPDATE, 4)).unwrap();
    }
    // A little at a time, for ever.
    let mut frames = connection();
    for _ in 0..100_000 {
        frames.read(&frame(PING, 8)).unwrap();
        tokio::time::advance(WINDOW / u32::try_from(FREE).unwrap()).await;
    }
    // But not for nothing: answers to PINGs are no excuse for them.
    let mut frames = connection();
    let flooding = (0..20_000).take_while(|_| {
        frames.wrote(17);
        frames.read(&frame(PING, 8)).is_ok()
    });
    assert!(flooding.count() < 11_000);
}
