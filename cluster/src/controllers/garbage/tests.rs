use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::discovery::ApiResource;

use super::*;

fn kind(kind: &str, namespaced: bool) -> Arc<Kind> {
    Arc::new(Kind {
        resource: ApiResource {
            group: String::new(),
            version: "v1".to_owned(),
            api_version: "v1".to_owned(),
            kind: kind.to_owned(),
            plural: format!("{}s", kind.to_lowercase()),
        },
        namespaced,
        collection: true,
    })
}

fn item(uid: &str, owners: &[&str], finalizers: &[&str], going: bool) -> Item {
    let owners = owners
        .iter()
        .map(|owner| OwnerReference {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            name: (*owner).to_owned(),
            uid: (*owner).to_owned(),
            block_owner_deletion: Some(true),
            ..OwnerReference::default()
        })
        .collect();
    let meta = ObjectMeta {
        uid: Some(uid.to_owned()),
        owner_references: Some(owners),
        finalizers: Some(
            finalizers
                .iter()
                .map(|finalizer| (*finalizer).to_owned())
                .collect(),
        ),
        deletion_timestamp: going.then(super::super::clock::now),
        ..ObjectMeta::default()
    };
    Item::of(&kind("ConfigMap", true), Key::new("ns", uid), &meta).unwrap()
}

#[test]
fn cluster_g3_verdicts() {
    use Owner::{Absent, Solid, Unresolvable, Waiting};
    let delete = Verdict::Delete;
    let lose = |uids: &[&str]| Verdict::Disown(uids.iter().map(|uid| (*uid).to_owned()).collect());
    type Case<'a> = (&'a str, &'a [Owner], &'a [&'a str], bool, Verdict);
    let cases: [Case<'_>; 11] = [
        ("owner there", &[Solid], &[], false, Verdict::Keep),
        (
            "owner gone",
            &[Absent],
            &[],
            false,
            delete(Policy::Background),
        ),
        (
            "both gone",
            &[Absent, Absent],
            &[],
            true,
            delete(Policy::Background),
        ),
        (
            "one of two gone",
            &[Absent, Solid],
            &[],
            false,
            lose(&["a"]),
        ),
        (
            "one of two waits",
            &[Solid, Waiting],
            &[],
            false,
            lose(&["b"]),
        ),
        (
            "owner waits",
            &[Waiting],
            &[],
            false,
            delete(Policy::Background),
        ),
        (
            "owner waits, own dependents",
            &[Waiting],
            &[],
            true,
            delete(Policy::Foreground),
        ),
        (
            "orphans its own",
            &[Absent],
            &[ORPHAN],
            true,
            delete(Policy::Orphan),
        ),
        (
            "foreground itself",
            &[Absent],
            &[FOREGROUND],
            true,
            delete(Policy::Foreground),
        ),
        (
            "not resolvable",
            &[Unresolvable, Absent],
            &[],
            false,
            Verdict::Keep,
        ),
        ("no owners", &[], &[], false, Verdict::Keep),
    ];
    for (name, owners, finalizers, has_dependents, expected) in cases {
        let names = &["a", "b"][..owners.len()];
        let item = item("x", names, finalizers, false);
        assert_eq!(verdict(&item, owners, has_dependents), expected, "{name}");
    }
}

#[test]
fn cluster_g3_the_graph_says_what_is_due() {
    let mut graph = Graph::default();
    assert_eq!(graph.set(item("owner", &[], &[], false)), [""; 0]);
    assert_eq!(
        graph.set(item("one", &["owner"], &[], false)),
        ["one"],
        "its owner is to be checked"
    );
    assert_eq!(
        graph.set(item("one", &["owner"], &[], false)),
        [""; 0],
        "nothing changed"
    );
    graph.set(item("two", &["owner"], &[], false));
    assert_eq!(graph.dependents("owner").len(), 2);

    assert_eq!(
        graph.set(item("owner", &[], &[FOREGROUND], true)),
        ["owner"]
    );
    assert_eq!(
        graph.remove("one"),
        ["owner"],
        "a waiting owner hears of a departure"
    );
    assert_eq!(
        graph.set(item("two", &[], &[], false)),
        ["owner"],
        "and of a lost reference"
    );
    assert!(!graph.has_dependents("owner"));

    graph.set(item("three", &["owner"], &[], false));
    assert_eq!(
        graph.remove("owner"),
        ["three"],
        "dependents hear of their owner's departure"
    );
    assert_eq!(graph.remove("owner"), [""; 0]);
}
