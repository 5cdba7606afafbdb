use super::*;

fn sample(cost: f64) -> Sample {
    Sample {
        user: cost,
        ..Sample::default()
    }
}

#[test]
fn every_change_counts_by_its_geometric_mean() {
    let round = |millis: &[u64]| {
        let each = millis.iter().map(|it| Duration::from_millis(*it)).collect();
        let served = Served {
            requests: millis.len() as u64,
            time: Duration::from_secs(1),
            p50: None,
            p99: None,
            closed: 0,
            each,
        };
        Sample::load(Usage::default(), Usage::default(), served)
    };
    let ours = vec![round(&[8, 8]), round(&[1, 4]), round(&[1, 1])];
    let theirs = vec![round(&[1000]), round(&[1000, 1000]), round(&[1000])];
    let mut report = Report::default();
    let variant = &Case::EndpointsChange.variants(true)[0];
    let results = [(Peer::Sealane, ours), (Peer::KubeProxy, theirs)];
    report.add(Case::EndpointsChange, variant, &results);
    let mean = report.rows[0].ratio[0].mean;
    assert!((mean - 0.002).abs() < 1e-9, "of 8, 2 and 1 ms: {mean}");
}

#[test]
fn the_starts_of_a_round_are_one() {
    let starts = [3.0, 72.0, 1.0].map(|user| Sample {
        count: 1,
        each: vec![user],
        middle: user * 1e3,
        ..sample(user)
    });
    let round = Sample::of_starts(&starts);
    assert_eq!((round.cost(Measure::Cpu), round.count), (3.0, 3));
    let time = round.cost(Measure::Time);
    assert!((time - 6.0).abs() < 1e-9, "the geometric mean: {time}");
    assert_eq!(round.each, [3.0, 72.0, 1.0], "percentiles are of all");
}

fn report() -> (Report, String) {
    let mut report = Report::default();
    let variant = &Case::Http1.variants(false)[0];
    // The machine was ten times slower in the second round.
    let ours = [2.0, 30.0, 1.0].map(sample).to_vec();
    let theirs = [4.0, 40.0, 8.0].map(sample).to_vec();
    let results = [(Peer::Sealane, ours), (Peer::Nginx, theirs)];
    let text = report.add(Case::Http1, variant, &results);
    (report, text)
}

#[test]
fn a_ratio_is_of_the_rounds_in_which_the_machine_was_fastest() {
    let (report, text) = report();
    let [ratio] = &report.rows[0].ratio[..] else {
        panic!("{:?}", report.rows[0].ratio);
    };
    assert_eq!((ratio.low, ratio.high), (0.125, 0.5));
    assert_eq!(report.rows[0].rounds, [2.0, 30.0, 1.0], "all, in order");
    assert!(
        text.contains("0.25 nginx (0.12–0.50)") && text.contains("4.00 sealane"),
        "{text}"
    );
}

#[test]
fn a_run_is_written_three_ways_and_read_again() {
    let (report, _) = report();
    let dir = tempfile::tempdir().expect("a directory");
    report.write(dir.path()).expect("it is written");
    let text = |name| std::fs::read_to_string(dir.path().join(name)).expect("a file");
    assert!(text("compare.md").contains("| nginx | **8.00** µs of CPU | 4.00–40.00 |"));
    assert!(text("compare.md").contains("| 0.25 × |"));
    let svg = text("compare.svg");
    assert_eq!(svg.matches("<rect x=").count(), 2);
    assert!(svg.contains("Sealane takes 0.25 ×"), "{svg}");
    let earlier = read(&dir.path().join("compare.json")).expect("what was written");
    let same = report.against(&earlier).expect("the same ratios");
    assert_eq!((same.compared, same.apart.len()), (1, 0));
    std::fs::write(dir.path().join("other.json"), "[{}]").expect("a file");
    assert!(read(&dir.path().join("other.json")).is_err());
}

#[test]
fn a_stalled_round_does_not_move_the_ratio_of_times() {
    let rounds = |times: &[f64]| -> Vec<Sample> {
        let round = |time: &f64| Sample {
            middle: *time * 1e3,
            ..Sample::default()
        };
        times.iter().map(round).collect()
    };
    let variant = &Case::Edits.variants(false)[0];
    for ours in [[1.0, 1.0, 1.0], [1.0, 900.0, 1.0]] {
        let results = [
            (Peer::Sealane, rounds(&ours)),
            (Peer::Nginx, rounds(&[4.0, 5.0, 4.0])),
        ];
        let made = results
            .iter()
            .map(|(peer, of)| row(Case::Edits, variant, *peer, of, &results));
        let ratios: Vec<f64> = made.map(|row| row.ratio[0].mean).collect();
        assert_eq!(ratios, [0.25, 4.0], "{ours:?}");
    }
}

#[test]
fn the_99th_of_times_is_of_all_rounds() {
    let round = |times: &[f64]| Sample {
        middle: times[times.len() / 2] * 1e3,
        each: times.iter().map(|time| time * 1e3).collect(),
        count: times.len() as u64,
        ..Sample::default()
    };
    let variant = &Case::Edits.variants(false)[0];
    let rounds = vec![round(&[1.0, 2.0, 3.0]), round(&[2.0, 3.0, 90.0])];
    let made = row(
        Case::Edits,
        variant,
        Peer::Sealane,
        &rounds,
        &[(Peer::Sealane, rounds.clone())],
    );
    assert_eq!((made.cost, made.unit.as_str(), made.count), (3.0, "ms", 6));
    assert_eq!(made.p99_micros, Some(90_000.0));
}
