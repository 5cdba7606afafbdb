use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use regex::Regex;

use super::*;
use crate::answer::Answer;
use crate::config::{Consolidate, ErrorsSettings, LogClass};
use crate::message::flag;
use crate::name::Name;
use crate::record::{RData, Record, Soa};

/// Hands on what is written.
struct Pipe(Sender<u8>);

impl io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = bytes.iter().try_for_each(|&byte| self.0.send(byte));
        sent.map(|()| bytes.len()).map_err(io::Error::other)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn sink() -> (LogSink, Receiver<u8>) {
    let (sender, receiver) = channel();
    (LogSink::to(Pipe(sender)).unwrap(), receiver)
}

/// All that is written until the sink is gone.
fn lines(sink: LogSink, written: &Receiver<u8>) -> Vec<String> {
    drop(sink);
    let mut bytes = Vec::new();
    while let Ok(byte) = written.recv_timeout(Duration::from_secs(10)) {
        bytes.push(byte);
    }
    String::from_utf8(bytes)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

const COMMON: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} \
    {>bufsize}\" {rcode} {>rflags} {rsize} {duration}";

fn entry(format: &str) -> Entry {
    Entry {
        format: Arc::new(Format::new(format)),
        client: "10.1.2.3:4242".parse().unwrap(),
        is_udp: true,
        id: 23_583,
        name: "Example.org".parse().unwrap(),
        record_type: RecordType::AAAA,
        class: 1,
        edns: Some((4096, true)),
        request_size: 41,
        rcode: ResponseCode::NXDomain,
        flags: flag::QR | flag::AA | flag::RD | flag::RA,
        response_size: 134,
        duration: Duration::from_nanos(1_303_270),
    }
}

#[test]
fn dns_log_lines_are_those_of_coredns() {
    let v6 = Entry {
        client: "[2001:db8::1]:53".parse().unwrap(),
        is_udp: false,
        edns: None,
        class: 3,
        rcode: ResponseCode::NoError,
        flags: flag::QR | flag::TC | flag::AD | flag::CD,
        duration: Duration::from_micros(5),
        record_type: RecordType::Unknown(65_280),
        ..entry(COMMON)
    };
    let mapped = Entry {
        client: "[::ffff:10.0.0.1]:1".parse().unwrap(),
        ..entry("{remote} } {x} {{name} {local} {/a/b} {>opcode}")
    };
    for (entry, expected) in [
        (
            entry(COMMON),
            "[INFO] 10.1.2.3:4242 - 23583 \"AAAA IN example.org. udp 41 true 4096\" NXDOMAIN \
             qr,aa,rd,ra 134 0.00130327s",
        ),
        (
            v6,
            "[INFO] [2001:db8::1]:53 - 23583 \"TYPE65280 CH example.org. tcp 41 false 65535\" \
             NOERROR qr,tc,ad,cd 134 0.000005s",
        ),
        (mapped, "[INFO] 10.0.0.1 } {x} {example.org. - - 0"),
    ] {
        assert_eq!(entry.line(), expected);
    }
}

#[test]
fn dns_log_nothing_from_the_wire_ends_a_line() {
    let (sink, written) = sink();
    let name = Name::from_checked_wire(b"\x0dx\n[INFO] \"\x1b\x07\x00\x00");
    let entry = Entry {
        name: name.clone(),
        ..entry("\"{name}\"")
    };
    assert!(sink.send(Line::Query(Box::new(entry))));
    assert!(sink.send(Line::Failure(Box::new(Failure {
        settings: Arc::default(),
        rcode: ResponseCode::ServFail,
        name,
        record_type: RecordType::A,
        message: "upstream says\r\n[INFO] \x1b[2J".to_owned(),
    }))));
    let name = r#"x\010[info]\032\"\027\007\000."#;
    assert_eq!(
        lines(sink, &written),
        [
            format!("[INFO] \"{name}\""),
            format!(r"[ERROR] plugin/errors: 2 {name} A: upstream says\r\n[INFO] \u{{1b}}[2J"),
        ]
    );
}

#[test]
fn dns_log_classes_of_answers() {
    let record = |data| Record {
        name: Name::root(),
        ttl: 5,
        data,
    };
    let soa = record(RData::Soa(Box::new(Soa {
        mname: Name::root(),
        rname: Name::root(),
        serial: 1,
        refresh: 1,
        retry: 1,
        expire: 1,
        minimum: 1,
    })));
    let address = record(RData::A([10, 0, 0, 1].into()));
    for (rcode, has_address, has_soa, expected) in [
        (ResponseCode::NoError, true, false, LogClass::Success),
        (ResponseCode::NoError, true, true, LogClass::Success),
        (ResponseCode::NoError, false, true, LogClass::Denial),
        (ResponseCode::NoError, false, false, LogClass::Success),
        (ResponseCode::NXDomain, false, true, LogClass::Denial),
        (ResponseCode::NXDomain, true, true, LogClass::Denial),
        (ResponseCode::NXDomain, false, false, LogClass::Error),
        (ResponseCode::ServFail, false, true, LogClass::Error),
        (ResponseCode::Refused, false, false, LogClass::Error),
    ] {
        let mut answer = Answer::local(rcode);
        answer.answers.extend(has_address.then(|| address.clone()));
        answer.authority.extend(has_soa.then(|| soa.clone()));
        assert_eq!(
            class_of(&answer),
            expected,
            "{rcode} {has_address} {has_soa}"
        );
    }
}

fn failure(settings: &Arc<ErrorsSettings>, message: &str) -> Line {
    Line::Failure(Box::new(Failure {
        settings: Arc::clone(settings),
        rcode: ResponseCode::ServFail,
        name: "Example.org".parse().unwrap(),
        record_type: RecordType::A,
        message: message.to_owned(),
    }))
}

#[test]
fn dns_errors_are_logged_and_consolidated_as_by_coredns() {
    let pattern = |period, pattern: &str, level: &str, show_first| Consolidate {
        period: Duration::from_millis(period),
        pattern: Regex::new(pattern).unwrap(),
        level: level.to_owned(),
        show_first,
    };
    let settings = Arc::new(ErrorsSettings {
        consolidate: vec![
            pattern(300_000, "timeout$", "warning", false),
            pattern(3_600_000, "^refused", "error", true),
        ],
    });
    let (sink, written) = sink();
    for message in [
        "i/o timeout",
        "other",
        "refused by peer",
        "a timeout",
        "refused",
    ] {
        assert!(sink.send(failure(&settings, message)));
    }
    sink.flush(Duration::from_secs(10));
    let plain = "[ERROR] plugin/errors: 2 example.org. A:";
    assert_eq!(
        lines(sink, &written),
        [
            format!("{plain} other"),
            format!("{plain} refused by peer"),
            "[WARNING] plugin/errors: 2 errors like 'timeout$' occurred in last 5m0s".to_owned(),
            "[ERROR] plugin/errors: 2 errors like '^refused' occurred in last 1h0m0s".to_owned(),
        ]
    );
}

#[test]
fn dns_errors_are_told_when_their_time_is_over() {
    let settings = Arc::new(ErrorsSettings {
        consolidate: vec![Consolidate {
            period: Duration::from_millis(50),
            pattern: Regex::new(".*").unwrap(),
            level: "error".to_owned(),
            show_first: false,
        }],
    });
    let (sink, written) = sink();
    assert!(sink.send(failure(&settings, "x")));
    let first = written.recv_timeout(Duration::from_secs(10)).unwrap();
    let line = lines(sink, &written);
    assert_eq!(first, b'[');
    assert_eq!(
        line,
        ["ERROR] plugin/errors: 1 errors like '.*' occurred in last 50ms"]
    );
}

#[test]
fn dns_metrics_say_what_is_configured() {
    use crate::config::Upstream;
    let metrics = Metrics::default();
    let config = DnsConfig::cluster(Default::default(), vec!["10.0.0.1:53".parse().unwrap()]);
    let upstreams = &config.blocks[0].plugins.forward[0].upstreams;
    assert!(matches!(upstreams[..], [Upstream::Plain(_)]));
    let told = ConfigMetrics::new(&metrics, &config);
    let text = metrics.render();
    for plugin in ["kubernetes", "forward", "cache", "loadbalance"] {
        let line = format!(
            "coredns_plugin_enabled{{server=\"dns://:53\",zone=\".\",view=\"\",name=\"{plugin}\"}} 1"
        );
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
    assert!(text.contains("coredns_build_info{version=\""), "{text}");
    drop(told);
    assert!(
        !metrics.render().contains("coredns_plugin_enabled{"),
        "gone with it"
    );
}

#[test]
fn dns_log_a_writer_that_hangs_costs_lines_and_not_queries() {
    let (sender, gate) = channel::<()>();
    struct Stuck(Receiver<()>);
    impl io::Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Until the test lets go.
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let sink = LogSink::to(Stuck(gate)).unwrap();
    let sent = (0..100_000).filter(|_| sink.send(Line::Query(Box::new(entry(COMMON)))));
    let sent = sent.count();
    assert!((8192..100_000).contains(&sent), "{sent}");
    drop(sender);
}
