use super::*;

fn note(message: &str) -> Note {
    Note {
        component: "deployment-controller",
        object: ObjectReference {
            kind: Some("Deployment".to_owned()),
            namespace: Some("ns".to_owned()),
            name: Some("web".to_owned()),
            ..ObjectReference::default()
        },
        kind: Kind::Normal,
        reason: "ScalingReplicaSet",
        message: message.to_owned(),
    }
}

fn step(memory: &mut Memory, message: &str, now: Instant) -> Option<(String, i32)> {
    let step = memory.step(note(message), now)?;
    memory.written(&step);
    Some((step.note.message, step.count))
}

#[tokio::test(start_paused = true)]
async fn cluster_d6_the_tenth_similar_event_in_ten_minutes_starts_a_combined_one() {
    let mut memory = Memory::default();
    let now = Instant::now();
    for number in 1..10 {
        let message = format!("m{number}");
        assert_eq!(step(&mut memory, &message, now), Some((message, 1)));
    }
    assert_eq!(
        step(&mut memory, "m10", now),
        Some((format!("{COMBINED}m10"), 1))
    );
    assert_eq!(
        step(&mut memory, "m11", now),
        Some((format!("{COMBINED}m11"), 2))
    );
    let later = now + SIMILAR_WINDOW + Duration::from_secs(1);
    assert_eq!(step(&mut memory, "m12", later), Some(("m12".to_owned(), 1)));
}

#[tokio::test(start_paused = true)]
async fn the_same_event_counts_up_and_floods_are_cut() {
    let mut memory = Memory::default();
    let now = Instant::now();
    for count in 1..=25 {
        assert_eq!(
            step(&mut memory, "same", now),
            Some(("same".to_owned(), count))
        );
    }
    assert_eq!(step(&mut memory, "same", now), None);
    let later = now + REFILL;
    assert_eq!(
        step(&mut memory, "same", later),
        Some(("same".to_owned(), 26))
    );
    assert_eq!(step(&mut memory, "same", later), None);
}
