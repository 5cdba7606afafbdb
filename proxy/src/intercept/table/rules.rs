//! The chains of the table and their rules.
//!
//! What happens to a packet that comes in, in this order:
//!
//! 1. it came in through `lo` with our mark: a connection of this node's own processes to a Service,
//!    delivered to the proxy
//! 2. it came in through `lo` otherwise: passes, so that our own connections are never caught
//! 3. it is TCP for a transparent socket of ours: delivered. Connections go on whatever became of the
//!    Service in the meantime (S19), also those whose handshake is not over yet; and replies to
//!    connections that were made from a client's address come back (S23)
//! 4. another program has redirected its connection, which is then older than this table: passes.
//!    Only on a real node, where connection tracking is on anyhow
//! 5. it is for a Service port of a load balancer that is not open to its source: lost (S9)
//! 6. it is for a Service port with endpoints: delivered to the proxy
//! 7. it is for a Service port without: refused at once (S4)
//! 8. it is for a Service port whose policy allows only endpoints on this node, of which there are
//!    none: lost (S5), except that pods reach endpoints elsewhere by other addresses than the
//!    cluster IP (S6)
//! 9. it is for an address of this node: passes
//! 10. it is for another port of a Service's address: refused; for an address of the Service CIDR
//!     that no Service has: lost (S1)
//! 11. it is from a pod or for one, and a datagram for a transparent socket of ours, or an ICMP error
//!     about one: delivered. Only endpoints' answers come here, to pods (S23) and to clients outside
//!     (S6): what clients send to a Service was dealt with above, so that a Service that is gone
//!     takes no more datagrams of old flows (S18). Otherwise, if it is for a pod: passes
//! 12. it is TCP to an address that is no destination outside, such as loopback or link-local:
//!     refused
//! 13. other TCP: delivered to the proxy, which is the way out
//!
//! 12 and 13 only with [`InterceptOptions::egress`].
//!
//! What the node's own processes send takes 5 to 10 on its way out if
//! [`InterceptOptions::own_mark`] is given; instead of being delivered it is marked, which leads it
//! around through `lo` to rule 1. A datagram that is refused or lost on its way out fails with "not
//! permitted", as with kube-proxy. Packets with the own mark, those of the proxy itself, pass.
//!
//! While no proxy listens (it was killed, and the next one is not there yet) what would be delivered
//! is refused: it neither vanishes nor reaches anything else.

use ipnet::IpNet;
use nix::libc;

use super::super::netlink::Batch;
use super::super::rule::{Family, Rule};
use super::super::state::Set;
use super::super::{InterceptOptions, Lost, Method, NEVER_OUTSIDE};
use super::chain::{LOOPBACK, NAT_PRIORITY, add_rule, base_chain, from, regular_chain, within};
use super::set_name;

const ENTRY: &str = "prerouting";
const REDIRECT: &str = "redirect";
const EXIT: &str = "output";
const EXIT_REDIRECT: &str = "output-redirect";

const CAPTURE: &str = "capture";
const REFUSE: &str = "refuse";
const CUT_OFF: &str = "cut-off";
const INSIDE_ONLY: &str = "inside-only";
const FILTERED: &str = "source-ranges";
/// TCP for transparent sockets.
const SOCKETS: &str = "sockets";
/// Where packets of the node itself are led to the proxy.
const LEAD: &str = "lead";
/// Later segments of the node itself.
const LATER: &str = "output-later";

/// `NF_IP_PRI_MANGLE`: before the routing decision, so that the mark counts for it.
const PRIORITY: i32 = -150;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Creates chains and rules in a table whose sets exist.
pub(super) fn create(batch: &mut Batch, table: &str, options: &InterceptOptions) {
    let mut chains = Chains { batch, table };
    for chain in [
        CAPTURE,
        REFUSE,
        CUT_OFF,
        INSIDE_ONLY,
        FILTERED,
        SOCKETS,
        LEAD,
        LATER,
    ] {
        regular_chain(chains.batch, table, chain);
    }
    let incoming = libc::NF_INET_PRE_ROUTING;
    chains.base(ENTRY, "filter", incoming, PRIORITY);
    if options.method == Method::Redirect {
        chains.base(REDIRECT, "nat", incoming, NAT_PRIORITY);
    }
    chains.verdicts(options);
    chains.incoming(options);
    let Some(own_mark) = options.own_mark else {
        return;
    };
    let outgoing = libc::NF_INET_LOCAL_OUT;
    match options.method {
        // Marks are looked at again after a chain of this type.
        Method::Transparent => chains.base(EXIT, "route", outgoing, PRIORITY),
        Method::Redirect => {
            chains.base(EXIT, "filter", outgoing, PRIORITY);
            chains.base(EXIT_REDIRECT, "nat", outgoing, NAT_PRIORITY);
        }
    }
    chains.outgoing(options, own_mark);
}

struct Chains<'a> {
    batch: &'a mut Batch,
    table: &'a str,
}

impl Chains<'_> {
    fn base(&mut self, name: &str, kind: &str, hook: i32, priority: i32) {
        base_chain(self.batch, self.table, name, kind, (hook, priority));
    }

    fn add(&mut self, chain: &str, rule: Rule) {
        add_rule(self.batch, self.table, chain, &rule);
    }

    /// The chains in which packets end.
    fn verdicts(&mut self, options: &InterceptOptions) {
        let rule = Rule::default;
        let deliver = |rule: Rule| rule.set_mark(options.mark).accept();
        match options.method {
            Method::Transparent => {
                self.add(CAPTURE, deliver(rule().tproxy(options.port)));
                // Nobody listens.
                self.add(CAPTURE, rule().goto(REFUSE));
                self.add(LEAD, deliver(rule()));
            }
            // The next chain gets it, because the mark is on.
            Method::Redirect => {
                self.add(CAPTURE, deliver(rule()));
                self.add(LEAD, deliver(rule()));
            }
        }
        self.add(REFUSE, rule().tcp().reject_with_reset());
        self.add(REFUSE, rule().reject_port_unreachable());
        for (family, cidr) in of_both(&options.pod_cidrs) {
            let pods = from(rule().family(family), &cidr);
            self.add(INSIDE_ONLY, pods.goto(CAPTURE));
        }
        for (chain, lost) in [
            (CUT_OFF, Lost::NoLocalInternal),
            (INSIDE_ONLY, Lost::NoLocalExternal),
            (FILTERED, Lost::SourceRanges),
        ] {
            let counted = rule().count(lost.label());
            self.add(
                chain,
                if options.refuse_instead_of_drop {
                    counted.goto(REFUSE)
                } else {
                    counted.drop()
                },
            );
        }
    }

    fn incoming(&mut self, options: &InterceptOptions) {
        let rule = Rule::default;
        let from_here = || rule().input_device(LOOPBACK);
        match options.method {
            Method::Transparent => {
                if options.own_mark.is_some() {
                    let led = from_here().marked(options.mark);
                    self.add(ENTRY, led.goto(CAPTURE));
                }
                self.add(ENTRY, from_here().accept());
                self.add(ENTRY, rule().tcp().transparent_socket().jump(SOCKETS));
                self.sockets(options);
                if options.own_mark.is_some() {
                    self.add(ENTRY, rule().redirected().accept());
                }
            }
            Method::Redirect => {
                self.add(ENTRY, from_here().accept());
                self.add(ENTRY, rule().redirected().accept());
                self.redirect_marked(options);
            }
        }
        for family in FAMILIES {
            self.services(ENTRY, family, CAPTURE, INSIDE_ONLY);
            self.addresses(ENTRY, family, options);
            let of_family = || rule().family(family);
            let pods: Vec<_> = of(&options.pod_cidrs, family).collect();
            for cidr in &pods {
                if options.method == Method::Transparent {
                    for place in [within, from] {
                        for answer in [of_family().udp(), of_family().icmp(family)] {
                            let answer = place(answer, cidr).for_transparent_socket();
                            self.add(ENTRY, answer.set_mark(options.mark).accept());
                        }
                    }
                }
                self.add(ENTRY, within(of_family(), cidr).accept());
            }
            if pods.is_empty() || !options.egress {
                continue;
            }
            for cidr in of(&NEVER_OUTSIDE, family) {
                self.add(ENTRY, within(of_family().tcp(), &cidr).goto(REFUSE));
            }
            self.add(ENTRY, of_family().tcp().goto(CAPTURE));
        }
    }

    /// Rule 3. A listener gets nothing by it that is not for a Service. What is left then is of connections
    /// that are half open, and of those that are closed, whose address a new one may have.
    fn sockets(&mut self, options: &InterceptOptions) {
        let rule = Rule::default;
        let deliver = |rule: Rule| rule.set_mark(options.mark).accept();
        self.add(SOCKETS, deliver(rule().bound_to_one_address(true)));
        self.add(SOCKETS, rule().bound_to_one_address(false).back());
        self.add(SOCKETS, deliver(rule().later_segments()));
    }

    /// What the `capture` chain has marked goes to the node's own address: `redirect` would take one
    /// of the device that the packet came in through, which routed pods' devices lack.
    fn redirect_marked(&mut self, options: &InterceptOptions) {
        for family in FAMILIES {
            let own = options.node_ips.current();
            let own = own.iter().find(|ip| Family::of(**ip) == family);
            let marked = Rule::default().marked(options.mark).family(family).tcp();
            if let Some(ip) = own {
                self.add(REDIRECT, marked.destination_nat(*ip, options.port));
            }
        }
    }

    fn outgoing(&mut self, options: &InterceptOptions, own_mark: u32) {
        let rule = Rule::default;
        self.add(EXIT, rule().marked(own_mark).accept());
        self.add(EXIT, rule().redirected().accept());
        if options.method == Method::Redirect {
            let captured = rule().marked(options.mark).tcp();
            self.add(EXIT_REDIRECT, captured.redirect(options.port));
        }
        self.add(EXIT, rule().later_segments().goto(LATER));
        for family in FAMILIES {
            self.services(EXIT, family, LEAD, LEAD);
            self.addresses(EXIT, family, options);
            self.later(family, options);
        }
    }

    /// Later segments to a Service are led around, whatever has become of it (S19).
    fn later(&mut self, family: Family, options: &InterceptOptions) {
        let of_family = || Rule::default().family(family);
        for set in [
            Set::Capture(family),
            Set::InsideOnly(family),
            Set::Refuse(family),
            Set::CutOff(family),
        ] {
            let known = of_family().service_in_set(family, set_name(set));
            self.add(LATER, known.goto(LEAD));
        }
        for cidr in of(&options.service_cidrs, family) {
            self.add(LATER, within(of_family(), &cidr).goto(LEAD));
        }
    }

    /// Rules 5 to 8.
    fn services(&mut self, chain: &str, family: Family, served: &str, inside_only: &str) {
        let of_family = || Rule::default().family(family);
        let matching = |set| of_family().service_in_set(family, set_name(set));
        let admitted = set_name(Set::Admitted(family));
        let restricted = matching(Set::Restricted(family));
        let filtered = restricted.service_and_source_not_in_set(family, admitted);
        self.add(chain, filtered.goto(FILTERED));
        self.add(chain, matching(Set::Capture(family)).goto(served));
        self.add(chain, matching(Set::Refuse(family)).goto(REFUSE));
        self.add(chain, matching(Set::CutOff(family)).goto(CUT_OFF));
        self.add(chain, matching(Set::InsideOnly(family)).goto(inside_only));
    }

    /// Rules 9 and 10.
    fn addresses(&mut self, chain: &str, family: Family, options: &InterceptOptions) {
        let of_family = || Rule::default().family(family);
        let matching = |set| of_family().destination_in_set(family, set_name(set));
        self.add(chain, matching(Set::NodeAddresses(family)).accept());
        self.add(chain, matching(Set::ServiceAddresses(family)).goto(REFUSE));
        for cidr in of(&options.service_cidrs, family) {
            self.add(chain, within(of_family(), &cidr).drop());
        }
    }
}

fn of(cidrs: &[IpNet], family: Family) -> impl Iterator<Item = IpNet> {
    let wanted = cidrs.iter().copied();
    wanted.filter(move |cidr| Family::of(cidr.addr()) == family)
}

fn of_both(cidrs: &[IpNet]) -> impl Iterator<Item = (Family, IpNet)> {
    cidrs.iter().map(|cidr| (Family::of(cidr.addr()), *cidr))
}
