//! What is refused, and what is only warned of.

use super::*;

pub(super) fn problems(text: &str, files: &[(&'static str, &'static str)]) -> Vec<String> {
    match parse(text, "Corefile", &World::of(files), Options::default()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn dns_corefile_lines_that_are_refused() {
    for (line, expected) in [
        (
            "foward . 1.1.1.1",
            "unknown directive 'foward'; known are: acl, any, autopath,",
        ),
        (
            "file db.example.org",
            "'file' is not supported: serve the zone with another server",
        ),
        ("dns64", "'dns64' is not supported"),
        (
            "view x",
            "'view' is not supported: give the names that differ zones",
        ),
        (
            "errors\nerrors",
            "'errors' is there twice in this block, first at Corefile:2",
        ),
        (
            "errors stderr",
            "'stderr': errors can only be written to stdout",
        ),
        (
            "errors {\n consolidate 5m\n}",
            "'consolidate' of 'errors' needs a regular expression",
        ),
        (
            "errors {\n consolidate 5m (\n}",
            "'(' is not a regular expression: unclosed group",
        ),
        (
            "health 8080",
            "'8080' is no address; give it as :PORT or IP:PORT",
        ),
        (
            "health {\n lameduck 5\n}",
            "'5' is not a duration such as 500ms, 5s",
        ),
        (
            "health {\n lame 5s\n}",
            "unknown property 'lame' of 'health'; known are: lameduck",
        ),
        (
            "ready {\n monitor x\n}",
            "unknown 'x'; known are: until-ready, continuously",
        ),
        ("prometheus host:1", "'host:1' is no address"),
        (
            "log . x {\n class bogus\n}",
            "unknown class 'bogus'; known are: all, success",
        ),
        ("log \"{remote}\"", "a format needs a zone before it"),
        ("reload 1s", "the interval of 'reload' is at least 2s"),
        (
            "reload 5s 500ms",
            "the jitter of 'reload' is 0s or at least 1s",
        ),
        (
            "bufsize 9000",
            "'9000' is not a whole number from 512 to 4096",
        ),
        (
            "loadbalance weighted f",
            "'loadbalance' is not supported: of its policies",
        ),
        (
            "loadbalance fair",
            "unknown policy 'fair'; known is: round_robin",
        ),
        ("loop x", "'x' is too much for 'loop'"),
        ("loop {\n x\n}", "unknown property 'x' of 'loop'"),
        (
            "bind",
            "'bind' needs an address or the name of an interface",
        ),
        ("bind eth9", "'eth9' is no IP address and no interface"),
        (
            "bind 10.0.0.1 {\n except 10.0.0.1\n}",
            "'bind' leaves no address",
        ),
        ("cache 0", "'0' is not a whole number from 1 to 2147483647"),
        (
            "cache {\n success x\n}",
            "'x' is not a whole number from 0 to 16777216",
        ),
        (
            "cache {\n success 1 0\n}",
            "'0' is not a whole number from 1 to",
        ),
        (
            "cache {\n servfail 6m\n}",
            "'6m' is more than 300s, the longest allowed",
        ),
        (
            "cache {\n prefetch 5 1m 95%\n}",
            "'95%' is no percentage from 10% to 90%",
        ),
        (
            "cache {\n disable all\n}",
            "unknown part 'all'; known are: success, denial",
        ),
        (
            "cache {\n serve_stale 1h later\n}",
            "unknown mode 'later'; known are: immediate, verify",
        ),
        (
            "cache {\n serve_stale_policy prefer_positive\n}",
            "'serve_stale_policy' needs 'serve_stale'",
        ),
        (
            "cache {\n ttl 5\n}",
            "unknown property 'ttl' of 'cache'; known are: success, denial,",
        ),
        ("forward", "'forward' needs a zone and upstreams"),
        ("forward .", "'forward' needs upstreams"),
        (
            "forward . quad9.net",
            "'quad9.net' is neither an IP address nor a file",
        ),
        ("forward . /none", "cannot read /none: "),
        (
            "forward . quic://1.1.1.1",
            "'quic://' is no way to forward; there are dns://",
        ),
        (
            "forward . https://1.1.1.1/x",
            "'https://1.1.1.1/x': give no path",
        ),
        (
            "forward . 1.1.1.1%eth0",
            "'1.1.1.1%eth0': a name behind '%' is for tls:// only",
        ),
        (
            "forward . 1.0.0.1 1.0.0.2 1.0.0.3 1.0.0.4 1.0.0.5 1.0.0.6 1.0.0.7 1.0.0.8 1.0.0.9 \
             1.0.0.10 1.0.0.11 1.0.0.12 1.0.0.13 1.0.0.14 1.0.0.15 1.0.0.16",
            "16 upstreams are more than 15",
        ),
        (
            "forward . 1.1.1.1 {\n policy best\n}",
            "unknown policy 'best'; known are: random,",
        ),
        (
            "forward . 1.1.1.1 {\n next FOO\n}",
            "'FOO' is no response code",
        ),
        (
            "forward . 1.1.1.1 {\n failover NOERROR\n}",
            "'failover' is for codes of failures",
        ),
        (
            "forward . 1.1.1.1 {\n max_age 5s\n}",
            "'max_age' must not be less than 'expire'",
        ),
        (
            "forward . 1.1.1.1 {\n read_timeout 0\n}",
            "'read_timeout' must be more than 0",
        ),
        (
            "forward . 1.1.1.1 {\n health_check 1s x\n}",
            "unknown option 'x'; known are: no_rec",
        ),
        (
            "forward . 1.1.1.1 {\n resolver 1.1.1.1\n}",
            "'resolver' of 'forward' is not supported",
        ),
        (
            "forward . tls://1.1.1.1%a {\n tls_servername b\n}",
            "a name of the certificate is given both by",
        ),
        (
            "kubernetes in-addr.arpa",
            "'kubernetes' needs a zone that is no reverse one",
        ),
        (
            "kubernetes a {\n pods all\n}",
            "unknown mode 'all'; known are: disabled, insecure",
        ),
        (
            "kubernetes a {\n ttl 3601\n}",
            "'3601' is not a whole number from 0 to 3600",
        ),
        (
            "kubernetes a {\n multicluster b\n}",
            "'multicluster' of 'kubernetes' is not supported",
        ),
        (
            "kubernetes a {\n tls a b\n}",
            "'tls' of 'kubernetes' needs three files",
        ),
        (
            "kubernetes a {\n ignore x\n}",
            "'x' cannot be ignored; known is: empty_service",
        ),
        (
            "kubernetes a {\n namespaces x\n namespace_labels y\n}",
            "'namespaces' and 'namespace_labels' exclude each other",
        ),
        (
            "hosts {\n bogus 1\n}",
            "unknown property 'bogus' of 'hosts'; known are: IP NAME…,",
        ),
        (
            "hosts {\n ttl 0\n}",
            "'0' is not a whole number from 1 to 65535",
        ),
        ("hosts {\n 10.0.0.1\n}", "'10.0.0.1' of 'hosts' needs names"),
        ("template", "'template' needs a class and a type"),
        ("template XX ANY", "'XX' is no class; known are: IN,"),
        ("template IN XX", "'XX' is no record type"),
        (
            "template IN A {\n match (\n}",
            "'(' is not a regular expression",
        ),
        ("template IN A {\n rcode X\n}", "'X' is no response code"),
        ("rewrite", "'rewrite' needs a kind"),
        (
            "rewrite edns0 local set 1 2",
            "'rewrite edns0' is not supported",
        ),
        (
            "rewrite name a",
            "'rewrite name' needs a name and what it becomes",
        ),
        (
            "rewrite name fuzzy a b",
            "unknown match 'fuzzy'; known are: exact, prefix",
        ),
        (
            "rewrite name suffix a b answer maybe",
            "'answer' is followed by 'auto'",
        ),
        (
            "rewrite name suffix a b c d",
            "'c' is too much; 'answer' may come here",
        ),
        ("rewrite ttl a -", "'-' is no TTL or range"),
        ("rewrite ttl a 60-30", "'60-30' is no TTL or range"),
        (
            "rewrite colour a b",
            "unknown rewrite 'colour'; known are: name,",
        ),
        (
            "acl {\n permit net *\n}",
            "unknown property 'permit' of 'acl'; known are: allow,",
        ),
        (
            "acl {\n allow net 10.0.0.0/40\n}",
            "'10.0.0.0/40' is no network",
        ),
        (
            "acl {\n allow from 10.0.0.1\n}",
            "'from' is out of place; 'type' or 'net'",
        ),
        (
            "acl {\n allow type\n}",
            "'allow' of 'acl' needs record types",
        ),
        (
            "autopath /etc/resolv.conf",
            "'/etc/resolv.conf' is no source of search paths",
        ),
        (
            "tls",
            "'tls' is not supported: certificates are read from files",
        ),
        ("tls a", "'tls' needs the file of the key"),
        (
            "tls a b {\n client_auth require_and_verify\n}",
            "clients can only be verified",
        ),
        ("timeouts {\n read 500ms\n}", "timeouts are from 1s to 24h"),
        ("timeouts", "'timeouts' needs braces"),
        ("multisocket 0", "'0' is not a whole number from 1 to 1024"),
        ("ratelimit", "'ratelimit' needs queries a second"),
        ("ratelimit 0", "'0' is not a whole number from 1 to 1000000"),
        (
            "ratelimit 5 {\n exempt 10.0.0.0/33\n}",
            "'10.0.0.0/33' is no network such as 10.0.0.0/8",
        ),
        (
            "ratelimit 5 {\n over refuse\n}",
            "'refuse' is neither 'truncate' nor 'drop'",
        ),
        ("compat bind", "unknown server 'bind'; known is: coredns"),
    ] {
        let problems = problems(&format!(".:53 {{\n{line}\n}}\n"), &[]);
        let found = problems.iter().any(|problem| {
            let message = problem.strip_prefix("Corefile:");
            let message = message.and_then(|rest| rest.split_once(" - "));
            message.is_some_and(|(line, text)| line != "1" && text.starts_with(expected))
        });
        assert!(found, "{line:?}: {problems:?}, not {expected}");
    }
}

#[test]
fn dns_corefile_all_that_is_wrong_is_said_at_once() {
    let text = ".:53 {\n  cache {\n    success x\n    bogus\n  }\n  bufsize 1\n  nothing\n}\n\
                .:53 {\n  reload 1s\n}\n";
    let lines: Vec<String> = problems(text, &[])
        .iter()
        .filter_map(|problem| problem.split_once(" - ").map(|(place, _)| place.to_owned()))
        .collect();
    assert_eq!(
        lines,
        [
            "Corefile:3",
            "Corefile:4",
            "Corefile:6",
            "Corefile:7",
            "Corefile:10",
            "Corefile:9"
        ]
    );
}

#[test]
fn dns_corefile_warnings() {
    for (text, expected) in [
        (
            ".:53 {\n errors\n}\n",
            "Corefile:1 - nothing in this block answers",
        ),
        (
            ".:53 {\n whoami\n loop\n}\n",
            "Corefile:3 - 'loop' has no effect without 'forward'",
        ),
        (
            ".:53 {\n forward . 1.1.1.1\n forward example.org 1.1.1.2\n}\n",
            "Corefile:3 - this 'forward' is never asked: the one for . before it",
        ),
        (
            "example.org:53 {\n kubernetes cluster.local\n}\n",
            "Corefile:2 - 'kubernetes' of cluster.local. is never asked: the zone is outside",
        ),
        (
            ".:53 {\n kubernetes cluster.local\n}\ncluster.local:53 {\n forward . 1.1.1.1\n}\n",
            "Corefile:2 - 'kubernetes' of cluster.local. is never asked: the block at Corefile:4",
        ),
        (
            ".:53 {\n whoami\n multisocket 2\n}\n",
            "Corefile:3 - 'multisocket' has no effect",
        ),
        (
            ".:53 {\n whoami\n metadata\n}\n",
            "Corefile:3 - 'metadata' has no effect here",
        ),
        (
            ".:53 {\n whoami\n import x/*.y\n}\n",
            "Corefile:3 - no files match 'x/*.y'",
        ),
        (
            ".:53 {\n hosts /none\n}\n",
            "Corefile:2 - cannot read /none now: ",
        ),
        (
            "{$NONE} .:53 {\n whoami\n}\n",
            "Corefile:1 - the environment variable NONE is not set",
        ),
        (
            ".:53 {\n forward 10.0.0.0/15 1.1.1.1\n}\n",
            "Corefile:2 - '10.0.0.0/15' is several zones, of which only 0.10.in-addr.arpa. is",
        ),
    ] {
        let read = parse(text, "Corefile", &World::of(&[]), Options::default());
        let warnings: Vec<String> = match read {
            Ok(corefile) => corefile.warnings.iter().map(ToString::to_string).collect(),
            Err(problems) => panic!("{text}: {problems:?}"),
        };
        assert!(
            warnings.iter().any(|warning| warning.starts_with(expected)),
            "{text:?}: {warnings:?}, not {expected}"
        );
    }
    for text in [
        // A forward that passes on leaves something to the next one.
        ".:53 {\n forward . 1.1.1.1 {\n  next NXDOMAIN\n }\n forward . 1.1.1.2\n}\n",
        // The other block is elsewhere.
        ".:53 {\n kubernetes cluster.local\n}\ncluster.local:54 {\n forward . 1.1.1.1\n}\n",
        // Only part of the names go to the other block.
        ".:53 {\n kubernetes cluster.local\n}\na.cluster.local:53 {\n forward . 1.1.1.1\n}\n",
    ] {
        assert!(read(text).warnings.is_empty(), "{text}");
    }
}
