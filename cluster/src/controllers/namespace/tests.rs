use super::*;

#[test]
fn cluster_g4_conditions_say_what_is_left() {
    let namespace = Namespace::default();
    let remaining = Remaining {
        objects: [("configmaps.".to_owned(), 1)].into(),
        finalizers: [("x.io/hold".to_owned(), 1)].into(),
    };
    let held = conditions(&namespace, None, None, Some(&remaining));
    let texts: Vec<(&str, &str, &str)> = held
        .iter()
        .map(|condition| {
            (
                condition.type_.as_str(),
                condition.status.as_str(),
                condition.reason.as_deref().unwrap_or_default(),
            )
        })
        .collect();
    assert_eq!(
        texts,
        [
            (
                "NamespaceDeletionDiscoveryFailure",
                "False",
                "ResourcesDiscovered"
            ),
            (
                "NamespaceDeletionGroupVersionParsingFailure",
                "False",
                "ParsedGroupVersions"
            ),
            ("NamespaceDeletionContentFailure", "False", "ContentDeleted"),
            ("NamespaceContentRemaining", "True", "SomeResourcesRemain"),
            (
                "NamespaceFinalizersRemaining",
                "True",
                "SomeFinalizersRemain"
            ),
        ]
    );
    assert_eq!(
        held[3].message.as_deref(),
        Some("Some resources are remaining: configmaps. has 1 resource instances")
    );
    let empty = conditions(&namespace, None, None, Some(&Remaining::default()));
    assert!(empty.iter().all(|condition| condition.status == "False"));
}
