//! The Corefiles that clusters come with.

use super::*;

const KUBEADM: &str = ".:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
";

#[test]
fn dns_corefile_of_kubeadm() {
    let corefile = read(KUBEADM);
    assert!(corefile.warnings.is_empty(), "{:?}", corefile.warnings);
    assert_eq!(keys(&corefile), ["Dns . 53"]);
    assert_eq!(corefile.config.reload, Some(Reload::default()));
    let block = &corefile.config.blocks[0];
    assert_eq!(block.place, "/etc/coredns/Corefile:1");
    assert!(block.bind.is_empty());
    let plugins = &block.plugins;
    assert!(plugins.errors.is_some() && plugins.log.is_empty());
    assert_eq!(plugins.health.unwrap().lameduck, seconds(5));
    assert_eq!(plugins.ready.unwrap().monitor, ReadyMonitor::UntilReady);
    let kubernetes = plugins.kubernetes.as_ref().unwrap();
    assert_eq!(kubernetes.zones, names(&["cluster.local"]));
    let reverse = names(&["in-addr.arpa", "ip6.arpa"]);
    assert_eq!(kubernetes.reverse_zones, reverse);
    assert_eq!(kubernetes.fallthrough, Fallthrough::Zones(reverse));
    assert_eq!((kubernetes.pods, kubernetes.ttl), (PodsMode::Insecure, 30));
    assert_eq!(
        kubernetes.own_addresses,
        ["10.0.0.7".parse::<IpAddr>().unwrap()]
    );
    assert_eq!(plugins.prometheus, Some("[::]:9153".parse().unwrap()));
    let [forward] = &plugins.forward[..] else {
        panic!("{:?}", plugins.forward);
    };
    assert_eq!(
        (&forward.from, forward.max_concurrent),
        (&Name::root(), 1000)
    );
    assert_eq!(forward.files, [PathBuf::from("/etc/resolv.conf")]);
    assert_eq!((forward.policy, forward.max_fails), (Policy::Random, 2));
    let cache = plugins.cache.as_ref().unwrap();
    assert_eq!(
        (cache.success.max_ttl, cache.denial.max_ttl),
        (seconds(30), seconds(30))
    );
    assert_eq!(cache.disable_success, names(&["cluster.local"]));
    assert_eq!(cache.disable_denial, names(&["cluster.local"]));
    assert!(plugins.loop_detection && plugins.loadbalance);
}

#[test]
fn dns_corefile_of_k3s() {
    let text = ".:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
      pods insecure
      fallthrough in-addr.arpa ip6.arpa
    }
    hosts /etc/coredns/NodeHosts {
      ttl 60
      reload 15s
      fallthrough
    }
    prometheus :9153
    cache 30
    loop
    reload
    loadbalance
    import /etc/coredns/custom/*.override
    forward . /etc/resolv.conf
}
import /etc/coredns/custom/*.server
";
    let bare = [("/etc/coredns/NodeHosts", "10.0.0.1 node-1\n")];
    let corefile = read_with(text, &bare);
    assert_eq!(corefile.warnings.len(), 2, "both patterns have no files");
    let hosts = corefile.config.blocks[0].plugins.hosts.clone().unwrap();
    assert_eq!(
        hosts.file.as_deref(),
        Some(Path::new("/etc/coredns/NodeHosts"))
    );
    assert_eq!((hosts.ttl, hosts.reload), (60, seconds(15)));
    assert_eq!(hosts.fallthrough, Fallthrough::Zones(vec![Name::root()]));
    let custom = [
        bare[0],
        ("/etc/coredns/custom/log.override", "log\n"),
        (
            "/etc/coredns/custom/stub.server",
            "stub.test:53 {\n  forward . 10.0.0.1\n}\n",
        ),
    ];
    let corefile = read_with(text, &custom);
    assert!(corefile.warnings.is_empty(), "{:?}", corefile.warnings);
    assert_eq!(corefile.config.blocks[0].plugins.log.len(), 1);
    assert_eq!(keys(&corefile), ["Dns . 53", "Dns stub.test. 53"]);
}

#[test]
fn dns_corefile_of_aks() {
    let text = r#".:53 {
    errors
    ready
    health {
      lameduck 5s
    }
    kubernetes cluster.local in-addr.arpa ip6.arpa {
      pods insecure
      fallthrough in-addr.arpa ip6.arpa
      ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf
    cache 30
    loop
    reload
    loadbalance
    import custom/*.override
    template ANY ANY internal.cloudapp.net {
      match "^(?:[^.]+\.){4,}internal\.cloudapp\.net\.$"
      rcode NXDOMAIN
      fallthrough
    }
    template ANY ANY reddog.microsoft.com {
      rcode NXDOMAIN
    }
}
import custom/*.server
"#;
    let custom = [(
        "/etc/coredns/custom/stub.server",
        "# stub\nstub.test:53 {\n  errors\n  cache 30\n  forward . 10.0.0.1\n}\n",
    )];
    let corefile = read_with(text, &custom);
    assert_eq!(keys(&corefile), ["Dns . 53", "Dns stub.test. 53"]);
    let [first, second] = &corefile.config.blocks[0].plugins.template[..] else {
        panic!("two templates");
    };
    assert_eq!(first.zones, names(&["internal.cloudapp.net"]));
    assert!(first.matches[0].is_match("a.default.svc.cluster.local.x.internal.cloudapp.net."));
    assert!(!first.matches[0].is_match("vm-1.x.internal.cloudapp.net."));
    assert_eq!(first.rcode, ResponseCode::NXDomain);
    assert!(second.matches.is_empty() && second.fallthrough == Fallthrough::No);
}

#[test]
fn dns_corefile_of_openshift() {
    let text = "# server-a
example.com:5353 {
    prometheus 127.0.0.1:9153
    forward . 1.1.1.1 2.2.2.2:5353 {
        policy random
    }
    errors
    log . {
        class error
    }
    bufsize 1232
    cache 900 {
        denial 9984 30
    }
}
.:5353 {
    bufsize 1232
    errors
    log . {
        class error
    }
    health {
        lameduck 20s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
    }
    prometheus 127.0.0.1:9153
    forward . /etc/resolv.conf {
        policy sequential
    }
    cache 900 {
        denial 9984 30
    }
    reload
}
hostname.bind:5353 {
    chaos
}
";
    let corefile = read(text);
    assert!(corefile.warnings.is_empty(), "{:?}", corefile.warnings);
    assert_eq!(
        keys(&corefile),
        [
            "Dns example.com. 5353",
            "Dns . 5353",
            "Dns hostname.bind. 5353"
        ]
    );
    let plugins = &corefile.config.blocks[1].plugins;
    assert_eq!(plugins.bufsize, Some(1232));
    assert_eq!(plugins.log[0].classes, [LogClass::Error]);
    assert_eq!(plugins.health.unwrap().lameduck, seconds(20));
    assert_eq!(plugins.forward[0].policy, Policy::Sequential);
    let cache = plugins.cache.as_ref().unwrap();
    assert_eq!(
        (cache.success.max_ttl, cache.denial.max_ttl),
        (seconds(900), seconds(30))
    );
    assert!(corefile.config.blocks[2].plugins.chaos.is_some());
}

#[test]
fn dns_corefile_of_node_local() {
    let text = "cluster.local:53 {
    errors
    cache {
            success 9984 30
            denial 9984 5
    }
    reload
    loop
    bind 169.254.20.10 10.96.0.10
    forward . 10.96.0.11 {
            force_tcp
    }
    prometheus :9253
    health 169.254.20.10:8080
    }
in-addr.arpa:53 {
    errors
    cache 30
    reload
    loop
    bind 169.254.20.10 10.96.0.10
    forward . 10.96.0.11 {
            force_tcp
    }
    prometheus :9253
    }
.:53 {
    errors
    cache 30
    reload
    loop
    bind 169.254.20.10 10.96.0.10
    forward . /etc/resolv.conf
    prometheus :9253
    }
";
    let corefile = read(text);
    assert!(corefile.warnings.is_empty(), "{:?}", corefile.warnings);
    assert_eq!(
        keys(&corefile),
        ["Dns cluster.local. 53", "Dns in-addr.arpa. 53", "Dns . 53"]
    );
    assert!(corefile.config.kubernetes().next().is_none());
    let block = &corefile.config.blocks[0];
    let bind = ["169.254.20.10", "10.96.0.10"].map(|ip| ip.parse::<IpAddr>().unwrap());
    assert_eq!(block.bind, bind);
    assert_eq!(block.plugins.forward[0].protocol, Protocol::Tcp);
    let cache = block.plugins.cache.as_ref().unwrap();
    assert_eq!(
        (cache.success.max_ttl, cache.denial.max_ttl),
        (seconds(30), seconds(5))
    );
    let health = block.plugins.health.unwrap();
    assert_eq!(health.address, "169.254.20.10:8080".parse().unwrap());
    assert_eq!(corefile.config.listeners().len(), 2, "one an address");
}
