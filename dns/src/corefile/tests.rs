//! Corefiles that clusters have, what is wrong with others, and that no text is too much.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use proptest::prelude::*;

use super::{Corefile, Loader, Options, parse};
use crate::config::{
    AclAction, AnswerRewrite, COMMON_LOG_FORMAT, Fallthrough, LogClass, NameMatch, Plugins, Policy,
    Protocol, ReadyMonitor, Reload, RewriteWhat, Scheme, StaleRefresh, Upstream,
};
use crate::name::Name;
use crate::settings::PodsMode;

mod clusters;
mod options;
mod refused;
mod small;
mod structure;

/// Files and variables that are there.
#[derive(Debug, Default)]
struct World(HashMap<&'static str, &'static str>);

const RESOLV_CONF: (&str, &str) = (
    "/etc/resolv.conf",
    "search example.com\nnameserver 1.1.1.1\n",
);

impl World {
    fn of(files: &[(&'static str, &'static str)]) -> Self {
        Self(files.iter().copied().chain([RESOLV_CONF]).collect())
    }
}

impl Loader for World {
    fn read(&self, path: &Path) -> io::Result<String> {
        let text = path.to_str().and_then(|path| self.0.get(path));
        let text = text.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok((*text).to_owned())
    }

    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        let pattern = pattern.to_str().unwrap();
        let (before, after) = pattern.split_once('*').unwrap();
        let matching = |path: &&&str| {
            let middle = path
                .strip_prefix(before)
                .and_then(|rest| rest.strip_suffix(after));
            middle.is_some_and(|middle| !middle.contains('/'))
        };
        let mut files: Vec<PathBuf> = self.0.keys().filter(matching).map(PathBuf::from).collect();
        files.sort();
        Ok(files)
    }

    fn env(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|value| (*value).to_owned())
    }

    fn interface(&self, name: &str) -> Option<Vec<IpAddr>> {
        let addresses = ["10.0.0.7", "fd00::7"].map(|ip| ip.parse().unwrap());
        (name == "eth0").then(|| addresses.to_vec())
    }

    fn addresses(&self) -> Vec<IpAddr> {
        vec!["10.0.0.7".parse().unwrap()]
    }

    fn host_name(&self) -> String {
        "coredns-1".to_owned()
    }
}

fn read(text: &str) -> Corefile {
    read_with(text, &[])
}

#[track_caller]
fn read_with(text: &str, files: &[(&'static str, &'static str)]) -> Corefile {
    let read = parse(
        text,
        "/etc/coredns/Corefile",
        &World::of(files),
        Options::default(),
    );
    read.unwrap_or_else(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        panic!("{}", lines.join("\n"))
    })
}

/// The plugins of a block for every name with these lines.
#[track_caller]
fn plugins_of(lines: &str) -> Plugins {
    let corefile = read(&format!(".:53 {{\n{lines}\n}}\n"));
    corefile.config.blocks[0].plugins.clone()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn names(texts: &[&str]) -> Vec<Name> {
    texts.iter().map(|text| name(text)).collect()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn keys(corefile: &Corefile) -> Vec<String> {
    let keys = corefile.config.blocks.iter().flat_map(|block| &block.keys);
    keys.map(|key| format!("{:?} {} {}", key.scheme, key.zone, key.port))
        .collect()
}

#[test]
fn dns_corefile_keys() {
    for (text, expected) in [
        (".", &["Dns . 53"][..]),
        (".:1053", &["Dns . 1053"]),
        ("Example.ORG", &["Dns example.org. 53"]),
        ("dns://example.org.:54", &["Dns example.org. 54"]),
        ("tls://.", &["Tls . 853"]),
        ("https://example.org", &["Https example.org. 443"]),
        ("quic://.:8853", &["Quic . 8853"]),
        ("a b, c", &["Dns a. 53", "Dns b. 53", "Dns c. 53"]),
        ("a,\nb", &["Dns a. 53", "Dns b. 53"]),
        ("10.1.0.0/16:54", &["Dns 1.10.in-addr.arpa. 54"]),
        (
            "10.4.0.0/15",
            &["Dns 4.10.in-addr.arpa. 53", "Dns 5.10.in-addr.arpa. 53"],
        ),
        ("2001:db8::/32", &["Dns 8.b.d.0.1.0.0.2.ip6.arpa. 53"]),
        ("{$ZONE}:{%PORT%} {$NOTHING}", &["Dns example.net. 5353"]),
    ] {
        let files = [("ZONE", "example.net"), ("PORT", "5353")];
        let corefile = read_with(&format!("{text} {{\n  whoami\n}}\n"), &files);
        assert_eq!(keys(&corefile), expected, "{text}");
    }
    let options = Options {
        dns_port: 1053,
        ..Options::default()
    };
    let text = ". {\n whoami\n}\ntls://. {\n whoami\n}\na:53 {\n whoami\n}\n";
    let corefile = parse(text, "Corefile", &World::of(&[]), options).unwrap();
    assert_eq!(keys(&corefile), ["Dns . 1053", "Tls . 853", "Dns a. 53"]);
}

#[test]
fn dns_corefile_blocks_without_braces_and_of_no_lines() {
    let corefile = read(".:53\nwhoami\nerrors\n");
    let plugins = &corefile.config.blocks[0].plugins;
    assert!(plugins.whoami && plugins.errors.is_some());
    let corefile = read("example.org");
    assert_eq!(keys(&corefile), ["Dns example.org. 53"]);
    let corefile = read("example.org\n{\n  whoami\n}\n");
    assert!(corefile.config.blocks[0].plugins.whoami);
}

#[test]
fn dns_corefile_snippets_and_imports() {
    let text = "
(logging) {
    log
    errors {
        stacktrace
    }
}
(all) {
    import logging
    import parts/cache
}
.:53 {
    import all
    cache {
        import shares
    }
    forward . {$UPSTREAM}
}
import servers/*.conf
import none/*.conf
";
    let files = [
        ("/etc/coredns/parts/cache", "loop\nimport more\n"),
        (
            "/etc/coredns/parts/more",
            "loadbalance # next to the file that imports it\n",
        ),
        ("/etc/coredns/shares", "success 2000 60\n"),
        ("/etc/coredns/servers/b.conf", "b.example {\n whoami\n}\n"),
        ("/etc/coredns/servers/a.conf", "a.example {\n whoami\n}\n"),
        ("/etc/coredns/servers/a.conf.old", "{"),
        ("UPSTREAM", "10.0.0.1"),
    ];
    let corefile = read_with(text, &files);
    assert_eq!(
        keys(&corefile),
        ["Dns . 53", "Dns a.example. 53", "Dns b.example. 53"]
    );
    let plugins = &corefile.config.blocks[0].plugins;
    assert_eq!(plugins.log.len(), 1);
    assert!(plugins.errors.is_some() && plugins.loop_detection && plugins.loadbalance);
    let cache = plugins.cache.as_ref().unwrap();
    assert_eq!(
        (cache.success.capacity, cache.success.max_ttl),
        (2000, seconds(60))
    );
    let upstream = Upstream::Plain("10.0.0.1:53".parse().unwrap());
    assert_eq!(plugins.forward[0].upstreams, [upstream]);
    assert_eq!(
        corefile.config.blocks[1].place,
        "/etc/coredns/servers/a.conf:1"
    );
    let warnings: Vec<String> = corefile.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        ["/etc/coredns/Corefile:20 - no files match 'none/*.conf', so nothing is imported"]
    );
}

#[test]
fn dns_corefile_lenient_skips_what_it_does_not_know() {
    let text = ".:53 {\n  fastdns {\n    a {\n    }\n  }\n  cache {\n    bogus 1\n    keepttl\n  }\n  \
                dnstap x\n  forward . 1.1.1.1\n}\n";
    let options = Options {
        lenient: true,
        ..Options::default()
    };
    let corefile = parse(text, "Corefile", &World::of(&[]), options).unwrap();
    assert!(
        corefile.config.blocks[0]
            .plugins
            .cache
            .as_ref()
            .unwrap()
            .keep_ttl
    );
    let lines: Vec<u32> = corefile.warnings.iter().map(|it| it.place.line).collect();
    assert_eq!(lines, [2, 7, 10]);
    assert!(
        corefile
            .warnings
            .iter()
            .all(|it| it.message.ends_with("; skipped"))
    );
    // A value that cannot be is no matter of knowledge.
    let text = ".:53 {\n  bufsize 9\n}\n";
    assert!(parse(text, "Corefile", &World::of(&[]), options).is_err());
}

#[test]
fn dns_corefile_reload() {
    for (line, interval, jitter) in [
        ("reload", 30, 15),
        ("reload 10s", 10, 5),
        ("reload 1m 20s", 60, 20),
        ("reload 2s 0s", 2, 0),
    ] {
        let corefile = read(&format!(".:53 {{\n  whoami\n  {line}\n}}\n"));
        let expected = Reload {
            interval: seconds(interval),
            jitter: seconds(jitter),
        };
        assert_eq!(corefile.config.reload, Some(expected), "{line}");
    }
    assert_eq!(read(".:53 {\n whoami\n}\n").config.reload, None);
}

/// A word that has a meaning somewhere.
fn word() -> impl Strategy<Value = String> {
    let known = [
        "{",
        "}",
        "\n",
        "\n",
        ".",
        ".:53",
        "import",
        "(a)",
        "a",
        "b*",
        "cluster.local",
        "cache",
        "30",
        "success",
        "disable",
        "denial",
        "forward",
        "1.1.1.1",
        "tls://1.1.1.1%x",
        "policy",
        "random",
        "kubernetes",
        "pods",
        "insecure",
        "hosts",
        "fallthrough",
        "template",
        "ANY",
        "match",
        "(.*",
        "rewrite",
        "name",
        "regex",
        "answer",
        "auto",
        "log",
        "class",
        "error",
        "errors",
        "consolidate",
        "5s",
        "health",
        "bind",
        "eth0",
        "\"",
        "\"x y\"",
        "\\",
        "#",
        "{$A}",
        "{%A%}",
        "{$",
        "10.0.0.0/7",
        "::/1",
        "acl",
        "net",
        "*",
        "reload",
        "ttl",
        "5-",
        "max_fails",
        "-1",
        "99999999999999999999",
        "a,",
        "tls",
        "timeouts",
        "é",
        "\u{feff}",
        "..",
    ];
    proptest::sample::select(known.to_vec()).prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn dns_corefile_any_text_is_read_or_refused(text in "\\PC{0,200}") {
        let _ = parse(&text, "Corefile", &World::of(&[]), Options::default());
    }

    #[test]
    fn dns_corefile_any_words_are_read_or_refused(
        words in proptest::collection::vec(word(), 0..60),
        lenient: bool,
    ) {
        let files = [("a", "import a\n"), ("b1", "import b*\nimport b*\n"), ("A", "{$A} x")];
        let options = Options { lenient, ..Options::default() };
        for text in [words.join(" "), format!(".:53 {{\n{}\n}}\n", words.join(" "))] {
            if let Err(problems) = parse(&text, "Corefile", &World::of(&files), options) {
                prop_assert!(!problems.is_empty());
            }
        }
    }
}
