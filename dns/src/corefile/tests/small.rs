//! Every option of the directives but the largest.

use super::*;

#[test]
fn dns_corefile_logs_and_ports() {
    let plugins = plugins_of(
        "errors stdout {
            stacktrace
            consolidate 5m \".* i/o timeout$\" warning show_first
            consolidate 30s \"^Failed\"
        }
        log
        log example.org example.net \"{remote} {combined}\" {
            class denial error
        }
        health localhost:8091 {
            lameduck 0s
        }
        ready 127.0.0.1:8182 {
            monitor continuously
        }
        prometheus",
    );
    let errors = plugins.errors.unwrap();
    assert_eq!(errors.consolidate[0].period, seconds(300));
    assert_eq!(errors.consolidate[0].level, "warning");
    assert!(errors.consolidate[0].show_first && !errors.consolidate[1].show_first);
    assert_eq!(errors.consolidate[1].level, "error");
    assert_eq!(plugins.log[0].format, COMMON_LOG_FORMAT);
    assert_eq!(plugins.log[0].classes, [LogClass::All]);
    assert_eq!(plugins.log[1].zones, names(&["example.org", "example.net"]));
    assert_eq!(plugins.log[1].classes, [LogClass::Denial, LogClass::Error]);
    let format = &plugins.log[1].format;
    assert!(
        format.starts_with("{remote} {remote}:{port} - {>id} \"{type}"),
        "{format}"
    );
    assert!(format.ends_with("{duration} \"{>opcode}\""), "{format}");
    let health = plugins.health.unwrap();
    assert_eq!(health.address, "127.0.0.1:8091".parse().unwrap());
    assert_eq!(health.lameduck, Duration::ZERO);
    assert_eq!(plugins.ready.unwrap().monitor, ReadyMonitor::Continuously);
    assert_eq!(plugins.prometheus, Some("127.0.0.1:9153".parse().unwrap()));
    let plugins = plugins_of("health\nready");
    let health = plugins.health.unwrap();
    assert_eq!(health.address, "[::]:8080".parse().unwrap());
    assert_eq!(health.lameduck, seconds(5));
    assert_eq!(plugins.ready.unwrap().address, "[::]:8181".parse().unwrap());
}

#[test]
fn dns_corefile_hosts_and_templates() {
    let plugins = plugins_of(
        "hosts /etc/resolv.conf example.org {
            10.0.0.1 a.example.org *.b.example.org
            fd00::1 a.example.org
            no_reverse
            ttl 60
            reload 0
            fallthrough example.org
        }
        template IN A example.org {
            match \"^ip-(?P<a>[0-9]+)[.]example[.]org[.]$\" other
            answer \"{{ .Name }} 60 IN A 10.0.0.{{ .Group.a }}\"
            additional \"ns 60 IN A 10.0.0.1\"
            authority \"example.org 60 IN NS ns\"
            rcode NOERROR
            ederror 21 \"Blocked\"
            fallthrough
        }
        template ANY ANY {
            rcode NXDOMAIN
        }",
    );
    let hosts = plugins.hosts.unwrap();
    assert_eq!(hosts.file.as_deref(), Some(Path::new("/etc/resolv.conf")));
    assert_eq!(hosts.inline.len(), 2);
    assert_eq!(
        hosts.inline[0].1,
        names(&["a.example.org", "*.b.example.org"])
    );
    assert_eq!(
        (hosts.ttl, hosts.no_reverse, hosts.reload),
        (60, true, Duration::ZERO)
    );
    assert_eq!(
        hosts.fallthrough,
        Fallthrough::Zones(names(&["example.org"]))
    );
    let template = &plugins.template[0];
    assert_eq!(template.class, Some(1));
    assert_eq!(template.matches.len(), 2);
    assert!(template.matches[0].is_match("ip-7.example.org."));
    assert_eq!(
        template.answer[0].0,
        "{{ .Name }} 60 IN A 10.0.0.{{ .Group.a }}"
    );
    assert_eq!(template.extended_error, Some((21, "Blocked".to_owned())));
    assert_eq!(template.fallthrough, Fallthrough::Zones(vec![Name::root()]));
    let template = &plugins.template[1];
    assert_eq!((template.class, template.record_type), (None, None));
    assert_eq!(template.rcode, ResponseCode::NXDomain);
    assert_eq!(template.zones, [Name::root()]);
    let hosts = plugins_of("hosts {\n 10.0.0.1 a\n}").hosts.unwrap();
    assert_eq!(hosts.file.as_deref(), Some(Path::new("/etc/hosts")));
    assert_eq!((hosts.ttl, hosts.reload), (3600, seconds(5)));
    assert_eq!(hosts.fallthrough, Fallthrough::No);
}

#[test]
fn dns_corefile_rewrites() {
    let plugins = plugins_of(
        "rewrite name Old.example New.example
        rewrite continue {
            name regex (.*)[.]old[.] {1}.new.
            answer name (.*)[.]new[.] {1}.old.
            answer value x y
        }
        rewrite name suffix .a .b answer auto
        rewrite stop type ANY HINFO
        rewrite class CH IN
        rewrite ttl example.org 30-60
        rewrite ttl suffix .org -60
        rewrite rcode prefix x. NXDOMAIN NOERROR",
    );
    let [exact, regex, suffix, kind, class, ttl, at_most, rcode] = &plugins.rewrite[..] else {
        panic!("{:?}", plugins.rewrite);
    };
    assert!(exact.stop && !regex.stop);
    let RewriteWhat::Name {
        matches,
        to,
        answers,
    } = &exact.what
    else {
        panic!("{exact:?}");
    };
    assert!(matches!(matches, NameMatch::Exact(from) if *from == name("old.example")));
    assert_eq!(to, "new.example.");
    assert!(matches!(answers[..], [AnswerRewrite::Auto]));
    let RewriteWhat::Name {
        matches,
        to,
        answers,
    } = &regex.what
    else {
        panic!("{regex:?}");
    };
    assert!(matches!(matches, NameMatch::Regex(_)));
    assert_eq!(to, "{1}.new.");
    assert!(matches!(
        answers[..],
        [AnswerRewrite::Name(..), AnswerRewrite::Value(..)]
    ));
    let RewriteWhat::Name {
        matches,
        to,
        answers,
    } = &suffix.what
    else {
        panic!("{suffix:?}");
    };
    assert!(matches!(matches, NameMatch::Suffix(from) if from == ".a."));
    assert_eq!(to, ".b.");
    assert!(matches!(answers[..], [AnswerRewrite::Auto]));
    assert!(matches!(kind.what, RewriteWhat::Type(..)));
    assert!(matches!(class.what, RewriteWhat::Class(3, 1)));
    assert!(matches!(
        ttl.what,
        RewriteWhat::Ttl {
            min: 30,
            max: 60,
            ..
        }
    ));
    assert!(matches!(
        at_most.what,
        RewriteWhat::Ttl {
            min: 0,
            max: 60,
            ..
        }
    ));
    let RewriteWhat::Rcode { from, to, .. } = rcode.what else {
        panic!("{rcode:?}");
    };
    assert_eq!((from, to), (ResponseCode::NXDomain, ResponseCode::NoError));
}

#[test]
fn dns_corefile_small_directives() {
    let corefile = read(
        "tls://.:853 https://. {
            acl {
                allow type A AAAA net 10.0.0.0/8 fd00::1
                filter type ANY net *
                drop net 192.168.0.0/16
                block
            }
            acl example.org {
                block
            }
            any
            bind eth0 127.0.0.1 {
                except fd00::7
            }
            bufsize
            chaos V1 bob alice bob
            debug
            local
            minimal
            multisocket
            nsid
            autopath cluster.local @kubernetes
            kubernetes cluster.local {
                pods verified
            }
            timeouts {
                read 5s
                idle 20
                maxtcpqueries 100
            }
            tls cert.pem key.pem ca.pem {
                client_auth require_and_verify
            }
            whoami
        }",
    );
    let block = &corefile.config.blocks[0];
    assert_eq!(block.keys[0].scheme, Scheme::Tls);
    assert_eq!(
        block.bind,
        ["10.0.0.7", "127.0.0.1"].map(|ip| ip.parse::<IpAddr>().unwrap())
    );
    let plugins = &block.plugins;
    let actions: Vec<AclAction> = plugins.acl.iter().map(|rule| rule.action).collect();
    assert_eq!(
        actions,
        [
            AclAction::Allow,
            AclAction::Filter,
            AclAction::Drop,
            AclAction::Block,
            AclAction::Block
        ]
    );
    let clients = &plugins.acl[0].clients;
    assert_eq!(clients[0], ("10.0.0.0".parse().unwrap(), 8));
    assert_eq!(clients[1], ("fd00::1".parse().unwrap(), 128));
    assert_eq!(plugins.acl[0].types.len(), 2);
    assert!(plugins.acl[1].clients.is_empty() && plugins.acl[2].types.is_empty());
    assert_eq!(plugins.acl[4].zones, names(&["example.org"]));
    assert!(plugins.any && plugins.debug && plugins.local && plugins.minimal && plugins.whoami);
    assert_eq!(plugins.bufsize, Some(1232));
    let chaos = plugins.chaos.as_ref().unwrap();
    assert_eq!(
        (chaos.version.as_str(), &chaos.authors[..]),
        ("V1", &["alice".to_owned(), "bob".to_owned()][..])
    );
    assert_eq!(plugins.nsid.as_deref(), Some("coredns-1"));
    let autopath = plugins.autopath.as_ref().unwrap();
    assert_eq!(autopath.zones, names(&["cluster.local"]));
    assert_eq!(autopath.host_search, names(&["example.com"]));
    let timeouts = plugins.timeouts.unwrap();
    assert_eq!((timeouts.read, timeouts.write), (Some(seconds(5)), None));
    assert_eq!(
        (timeouts.idle, timeouts.tcp_queries),
        (Some(seconds(20)), Some(100))
    );
    let tls = plugins.tls.as_ref().unwrap();
    assert_eq!(tls.client_ca.as_deref(), Some(Path::new("ca.pem")));
}
