//! The command line as CoreDNS has it: flags with one dash, and no subcommand.
//!
//! So a Deployment that was written for CoreDNS needs another image only.

use std::ffi::OsString;
use std::path::Path;

/// CoreDNS's flags with long names.
const FLAGS: [&str; 6] = ["conf", "dns.port", "quiet", "pidfile", "version", "plugins"];
/// Those of them that take no value.
const SWITCHES: [&str; 3] = ["quiet", "version", "plugins"];

/// The same command line as `sealane` reads it.
pub(crate) fn translate(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let is_coredns = args.first().is_some_and(|program| {
        let name = Path::new(program).file_name();
        name.is_some_and(|name| name == "coredns")
    });
    let has_its_flag = args.get(1).is_some_and(|first| {
        let text = first.to_str().unwrap_or_default();
        text == "-p"
            || flag(text).is_some_and(|(name, _)| name != "version" || !text.starts_with("--"))
    });
    if is_coredns || has_its_flag {
        args.insert(1, "dns".into());
    }
    if args.get(1).is_none_or(|command| command != "dns") {
        return args;
    }
    let options = args.split_off(2).into_iter();
    args.extend(options.filter_map(|arg| match arg.to_str().and_then(flag) {
        Some((name, Some("true"))) if SWITCHES.contains(&name) => Some(format!("--{name}").into()),
        Some((name, Some("false"))) if SWITCHES.contains(&name) => None,
        Some((name, Some(value))) => Some(format!("--{name}={value}").into()),
        Some((name, None)) => Some(format!("--{name}").into()),
        None => Some(arg),
    }));
    args
}

/// The name and value of one of CoreDNS's flags; Go takes one dash or two.
fn flag(arg: &str) -> Option<(&str, Option<&str>)> {
    let flag = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'))?;
    let (name, value) = match flag.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (flag, None),
    };
    FLAGS.contains(&name).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_corefile_flags_of_coredns_are_understood() {
        for (given, expected) in [
            (
                "sealane -conf /etc/coredns/Corefile",
                "sealane dns --conf /etc/coredns/Corefile",
            ),
            ("/coredns -conf=x -quiet", "/coredns dns --conf=x --quiet"),
            ("/coredns", "/coredns dns"),
            (
                "sealane dns -conf x -dns.port 54",
                "sealane dns --conf x --dns.port 54",
            ),
            (
                "sealane dns -p 54 -pidfile=y",
                "sealane dns -p 54 --pidfile=y",
            ),
            ("sealane -p 54", "sealane dns -p 54"),
            (
                "sealane dns --conf x -quiet=true -plugins=false",
                "sealane dns --conf x --quiet",
            ),
            ("sealane -version", "sealane dns --version"),
            ("sealane --version", "sealane --version"),
            (
                "sealane dns --dns 127.0.0.1:53",
                "sealane dns --dns 127.0.0.1:53",
            ),
            ("sealane up -f x", "sealane up -f x"),
            ("sealane", "sealane"),
        ] {
            let given = given.split(' ').map(OsString::from);
            let expected: Vec<OsString> = expected.split(' ').map(OsString::from).collect();
            assert_eq!(translate(given), expected);
        }
    }
}
