//! Whatever happens to Services, endpoints and the node's addresses: comparing what was touched leads
//! to the same sets as comparing everything.
//!
//! Few names and addresses, so that Services claim each other's addresses, node ports and the node.

use proptest::prelude::*;
use sealane_config::compile::{
    Change as Event, Compiler, Delta, GatewayOptions, Names, NodeIdentity, ObjectKey,
    ServiceRecord, SliceRecord,
};
use serde_json::{Value, json};

use super::super::Written;
use super::*;

const SERVICES: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    Service(usize, usize),
    DeleteService(usize),
    /// The slice of a Service and a family.
    Slice(usize, bool, usize),
    DeleteSlice(usize, bool),
    NodeAddresses(usize),
    /// Compiled, but the kernel is not told of this one.
    Missed,
    /// Time passes, and the kernel is brought up to date.
    Apply(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let service = 0..SERVICES;
    prop_oneof![
        4 => (service.clone(), 0..specs().len()).prop_map(|(name, spec)| Step::Service(name, spec)),
        1 => service.clone().prop_map(Step::DeleteService),
        4 => (service.clone(), any::<bool>(), 0..6_usize).prop_map(|(s, v4, e)| Step::Slice(s, v4, e)),
        1 => (service, any::<bool>()).prop_map(|(name, v4)| Step::DeleteSlice(name, v4)),
        1 => (0..4_usize).prop_map(Step::NodeAddresses),
        1 => Just(Step::Missed),
        6 => prop_oneof![Just(0), Just(100)].prop_map(Step::Apply),
    ]
}

fn specs() -> Vec<Value> {
    let http = || json!([{"name": "http", "port": 80}]);
    let with_node_port = || json!([{"name": "http", "port": 80, "nodePort": 30080}]);
    let both = || json!(["10.96.0.2", "fd00:96::2"]);
    let balancer = |ranges: &[&str]| {
        json!({"type": "LoadBalancer", "clusterIP": "10.96.0.3", "clusterIPs": ["10.96.0.3"],
            "ports": with_node_port(), "loadBalancerSourceRanges": ranges})
    };
    let on = |ip: &str, ports: Value| json!({"clusterIP": ip, "clusterIPs": [ip], "ports": ports});
    let mut specs = vec![
        on("10.96.0.1", http()),
        json!({"clusterIP": "10.96.0.2", "clusterIPs": both(), "ports": http(),
            "internalTrafficPolicy": "Local"}),
        json!({"type": "NodePort", "clusterIP": "10.96.0.2", "clusterIPs": both(),
            "ports": with_node_port(), "externalTrafficPolicy": "Local"}),
        balancer(&["10.0.0.0/8"]),
        balancer(&["10.128.0.0/9", "203.0.113.0/24", "10.244.0.0/16"]),
        balancer(&[]),
        on(
            "10.96.0.10",
            json!([{"name": "dns", "port": 53, "protocol": "UDP"}]),
        ),
        on("None", http()),
        on("172.30.0.1", http()),
    ];
    for external in ["10.244.0.1", "10.96.0.1", "192.0.2.80"] {
        let mut spec = on(
            "10.96.0.4",
            json!([{"name": "http", "port": 80}, {"name": "web", "port": 30080}]),
        );
        spec["externalIPs"] = json!([external]);
        specs.push(spec);
    }
    specs
}

struct World {
    compiler: Compiler,
    now: Instant,
    options: InterceptOptions,
    /// As in the [`Interceptor`].
    written: Option<Written>,
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

impl World {
    fn new(external_ips: bool) -> Self {
        let here = NodeIdentity {
            name: "here".into(),
        };
        Self {
            compiler: Compiler::new(GatewayOptions::default(), Some(here)),
            now: Instant::now(),
            options: InterceptOptions {
                external_ips,
                ..options()
            },
            written: None,
        }
    }

    fn step(&mut self, step: &Step) {
        let event = match *step {
            Step::Service(name, spec) => service_event(name, &specs()[spec]),
            Step::DeleteService(name) => Event::Services(Delta::Remove(key(&format!("s{name}")))),
            Step::Slice(name, is_v4, endpoints) => slice_event(name, is_v4, endpoints),
            Step::DeleteSlice(name, is_v4) => {
                Event::Slices(Delta::Remove(key(&format!("s{name}-{is_v4}"))))
            }
            Step::NodeAddresses(which) => {
                let all = [
                    NODE,
                    "192.0.2.80".parse().unwrap(),
                    "fd00::7".parse().unwrap(),
                ];
                self.options.node_ips = all[..which].to_vec().into();
                return;
            }
            Step::Missed => {
                self.compiler.build(self.now, 0);
                return;
            }
            Step::Apply(millis) => {
                self.now += Duration::from_millis(millis);
                return self.apply();
            }
        };
        self.compiler.apply(event, self.now);
    }

    fn apply(&mut self) {
        let snapshot = self.compiler.build(self.now, 0).snapshot;
        let wanted = Wanted::new(&snapshot, &self.options);
        let (changes, mut elements) = match self.written.take() {
            Some(written) => {
                let touched = snapshot.history.since(written.place.as_ref());
                let is_first = written.place.is_none();
                assert_eq!(touched.is_none(), is_first, "it is known what was touched");
                (written.difference(&wanted, &snapshot), written.elements)
            }
            None => (wanted.difference(&Elements::new()), Elements::new()),
        };
        for change in &changes {
            // The kernel refuses to remove what is not there.
            let had = match change.add {
                true => elements.insert(change.element, change.set),
                false => elements.remove(&change.element),
            };
            assert_eq!(had, (!change.add).then_some(change.set), "{change:?}");
        }
        let mut anew = Elements::new();
        record(&mut anew, &wanted.difference(&Elements::new()));
        assert_eq!(elements, anew);
        assert_eq!(wanted.difference(&elements), []);
        self.written = Some(Written {
            elements,
            node_ips: Arc::clone(wanted.node_ips()),
            place: snapshot.history.place(),
        });
    }
}

fn service_event(name: usize, spec: &Value) -> Event {
    // Names decide between two of the same age.
    let created = format!("2026-01-01T00:00:{:02}Z", name / 2 % 60);
    let name = format!("s{name}");
    let ip = json!({"ip": "192.0.2.80"});
    let object = json!({
        "metadata": {"name": name, "namespace": "default", "creationTimestamp": created},
        "spec": spec,
        "status": {"loadBalancer": {"ingress": if spec["type"] == "LoadBalancer" { json!([ip]) } else { json!([]) }}},
    });
    let object = serde_json::from_value(object).unwrap();
    let record = ServiceRecord::read(&key(&name), object, &mut Names::default());
    Event::Services(Delta::Set(key(&name), Ok(Some(record))))
}

fn slice_event(service: usize, is_v4: bool, endpoints: usize) -> Event {
    let ip = |last: usize| match (is_v4, last) {
        // What the cluster's own DNS is at.
        (true, 0) => NODE.to_string(),
        (true, last) => format!("10.244.1.{last}"),
        (false, last) => format!("fd00:244::{last}"),
    };
    let endpoint = |last, node| json!({"addresses": [ip(last)], "nodeName": node});
    let endpoints = match endpoints {
        0 => json!([]),
        1 => json!([endpoint(1, "here")]),
        2 => json!([endpoint(2, "there")]),
        3 => json!([endpoint(1, "here"), endpoint(2, "there")]),
        4 => json!([endpoint(0, "here")]),
        _ => json!([{"addresses": [ip(3)], "conditions": {"ready": false}}]),
    };
    let name = format!("s{service}-{is_v4}");
    let object = json!({
        "metadata": {"name": name, "namespace": "default",
            "labels": {"kubernetes.io/service-name": format!("s{service}")}},
        "addressType": if is_v4 { "IPv4" } else { "IPv6" },
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080}, {"name": "web", "port": 8081},
            {"name": "dns", "port": 53, "protocol": "UDP"}],
    });
    let object = serde_json::from_value(object).unwrap();
    let record = SliceRecord::read(&key(&name), object, &mut Names::default());
    Event::Slices(Delta::Set(key(&name), Ok(record)))
}

proptest! {
    #[test]
    fn proxy_s20_comparing_what_was_touched_is_comparing_everything(
        external_ips in any::<bool>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(external_ips);
        for step in &steps {
            world.step(step);
        }
        world.step(&Step::Apply(100));
    }
}

#[test]
fn proxy_s27_a_change_among_many_services_is_compared_alone() {
    let mut world = World::new(true);
    for index in 0..1_000 {
        let spec = json!({"clusterIP": format!("10.96.{}.{}", 1 + index / 250, index % 250),
            "ports": [{"name": "http", "port": 80}]});
        world.compiler.apply(service_event(index, &spec), world.now);
    }
    world.apply();
    world.step(&Step::Slice(7, true, 1));
    let place = world.written.as_ref().and_then(|it| it.place.clone());
    let snapshot = world.compiler.build(world.now, 0).snapshot;
    let touched: Vec<_> = snapshot.history.since(place.as_ref()).unwrap().collect();
    let vips: Vec<_> = touched.iter().flat_map(|it| &it.vips).collect();
    let ip: IpAddr = "10.96.1.7".parse().unwrap();
    assert!(
        vips.iter().all(|vip| **vip == (ip, Protocol::Tcp, 80)),
        "{vips:?}"
    );
    let wanted = Wanted::new(&snapshot, &world.options);
    let elements = &world.written.as_ref().unwrap().elements;
    let changes = wanted.difference_since(elements, touched.into_iter());
    let element = Element::Service(ip, Protocol::Tcp, 80);
    let change = |set, add| Change { set, element, add };
    let (refuse, capture) = (Set::Refuse(Family::V4), Set::Capture(Family::V4));
    assert_eq!(changes, [change(refuse, false), change(capture, true)]);
}
