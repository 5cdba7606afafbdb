use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::config::Fallthrough;
use crate::name::Name;

fn settings() -> HostsSettings {
    HostsSettings {
        file: None,
        inline: Vec::new(),
        zones: vec![Name::root()],
        ttl: 3600,
        no_reverse: false,
        reload: Duration::from_secs(5),
        fallthrough: Fallthrough::No,
    }
}

/// A file that goes with the test.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hosts-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // Nothing depends on it.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn ask(hosts: &Hosts, name: &str, record_type: RecordType) -> String {
    match hosts.answer(&Question::new(name.parse().unwrap(), record_type)) {
        Local::Pass => "pass".to_owned(),
        Local::Alias(..) => "alias".to_owned(),
        Local::Done(answer) if answer.rcode == ResponseCode::NoError => {
            assert!(answer.authoritative);
            let records = answer.answers.iter();
            let records =
                records.map(|record| format!("{} {} {}", record.name, record.ttl, record.data));
            records.collect::<Vec<_>>().join(", ")
        }
        Local::Done(answer) => answer.rcode.to_string(),
    }
}

const TEXT: &str = "\
# comment
10.0.0.1 a.test b.test # more
10.0.0.2\ta.test
fe80::1%eth0 a.test
::1 localhost
bad.address c.test
10.0.0.3
10.0.0.4 *.w.test deep.x.w.test ..bad
10.0.0.5 other.zone
";

#[test]
fn dns_hosts_answers_from_a_file_and_the_corefile() {
    let file = File::new("answers", TEXT);
    let mut settings = settings();
    settings.file = Some(file.0.clone());
    settings.zones = vec!["test".parse().unwrap(), "localhost".parse().unwrap()];
    settings.inline = vec![([10, 1, 0, 1].into(), vec!["inline.test".parse().unwrap()])];
    settings.ttl = 60;
    let hosts = Hosts::new(&settings, &Metrics::default());
    for (name, record_type, expected) in [
        (
            "A.test",
            RecordType::A,
            "A.test. 60 10.0.0.1, A.test. 60 10.0.0.2",
        ),
        ("a.test", RecordType::AAAA, "a.test. 60 fe80::1"),
        ("b.test", RecordType::AAAA, ""),
        ("b.test", RecordType::MX, ""),
        ("inline.test", RecordType::A, "inline.test. 60 10.1.0.1"),
        ("x.w.test", RecordType::A, "x.w.test. 60 10.0.0.4"),
        ("y.x.w.test", RecordType::A, "y.x.w.test. 60 10.0.0.4"),
        ("deep.x.w.test", RecordType::AAAA, ""),
        ("w.test", RecordType::A, "Server Failure"),
        ("c.test", RecordType::A, "Server Failure"),
        ("other.zone", RecordType::A, "pass"),
        (
            "1.0.0.10.in-addr.arpa",
            RecordType::PTR,
            "1.0.0.10.in-addr.arpa. 60 a.test., 1.0.0.10.in-addr.arpa. 60 b.test.",
        ),
        (
            "4.0.0.10.in-addr.arpa",
            RecordType::PTR,
            "4.0.0.10.in-addr.arpa. 60 deep.x.w.test.",
        ),
        ("5.0.0.10.in-addr.arpa", RecordType::PTR, "pass"),
        ("a.test", RecordType::PTR, "pass"),
    ] {
        assert_eq!(
            ask(&hosts, name, record_type),
            expected,
            "{name} {record_type}"
        );
    }
}

#[test]
fn dns_hosts_fallthrough_and_no_reverse() {
    let mut settings = settings();
    settings.inline = vec![([10, 1, 0, 1].into(), vec!["a.test".parse().unwrap()])];
    settings.no_reverse = true;
    settings.fallthrough = Fallthrough::Zones(vec!["test".parse().unwrap()]);
    let hosts = Hosts::new(&settings, &Metrics::default());
    assert_eq!(ask(&hosts, "x.test", RecordType::A), "pass");
    assert_eq!(ask(&hosts, "x.other", RecordType::A), "Server Failure");
    assert_eq!(
        ask(&hosts, "1.0.1.10.in-addr.arpa", RecordType::PTR),
        "pass"
    );
}

#[tokio::test(start_paused = true)]
async fn dns_hosts_reads_a_file_again_when_it_has_changed() {
    let file = File::new("reload", "10.0.0.1 a.test\n");
    let mut settings = settings();
    settings.file = Some(file.0.clone());
    let metrics = Metrics::default();
    let hosts = [(); 2].map(|()| Hosts::new(&settings, &metrics));
    let entries = || {
        let text = metrics.render();
        let line = text
            .lines()
            .find(|line| line.starts_with("coredns_hosts_entries{"));
        line.and_then(|line| line.rsplit_once(' '))
            .map(|(_, value)| value.to_owned())
    };
    assert_eq!(
        ask(&hosts[1], "a.test", RecordType::A),
        "a.test. 3600 10.0.0.1"
    );
    assert_eq!(entries().as_deref(), Some("1"), "shared tables count once");
    std::fs::write(&file.0, "10.0.0.22 a.test b.test\n").unwrap();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if hosts[1].source.version.load(Ordering::Acquire) != hosts[1].version.get() {
            break;
        }
    }
    for hosts in &hosts {
        assert_eq!(
            ask(hosts, "a.test", RecordType::A),
            "a.test. 3600 10.0.0.22"
        );
    }
    assert_eq!(entries().as_deref(), Some("2"));
    // What cannot be read leaves what is known.
    std::fs::remove_file(&file.0).unwrap();
    hosts[0].source.refresh();
    assert_eq!(
        ask(&hosts[1], "a.test", RecordType::A),
        "a.test. 3600 10.0.0.22"
    );
    drop(hosts);
    assert_eq!(entries(), None);
}

#[test]
fn dns_hosts_of_a_hundred_thousand_names_is_read_quickly() {
    use std::fmt::Write as _;
    let mut text = String::new();
    for number in 0..100_000 {
        let _ = writeln!(text, "0.0.0.0 host-{number}.blocked.test");
    }
    let started = std::time::Instant::now();
    let mut settings = settings();
    settings.no_reverse = true;
    let table = Table::new(&settings, &text);
    assert_eq!(table.entries, 100_000);
    assert!(
        table
            .addresses(&"host-99999.blocked.test".parse().unwrap())
            .is_some()
    );
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "{:?}",
        started.elapsed()
    );
}
