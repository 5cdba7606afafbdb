use super::*;

fn read(pairs: &[(&str, &str)]) -> (HttpPolicy, Vec<(String, Option<String>)>) {
    let annotations = pairs
        .iter()
        .map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned()))
        .collect();
    let mut problems = Vec::new();
    let policy = HttpPolicy::read(&annotations, |name, why| {
        problems.push((name.to_owned(), why));
    });
    (policy, problems)
}

#[test]
fn every_setting_takes_what_it_prints() {
    let changed: &[(&str, &str)] = &[
        ("request-timeout", "1m30s"),
        ("response-timeout", "0s"),
        ("per-try-timeout", "250ms"),
        ("idle-timeout", "5m"),
        ("connect-timeout", "100ms"),
        ("retry-on", "reset,5xx,429,502-503,cancelled,unavailable"),
        ("retries", "3"),
        ("retry-backoff", "10ms-2s"),
        ("retry-budget-percent", "50"),
        ("retry-budget-per-second", "0"),
        ("load-balancer", "least-request"),
        ("slow-start", "30s"),
        ("ejection", "off"),
        ("ejection-failures", "7"),
        ("ejection-success-rate", "0"),
        ("ejection-time", "30s"),
        ("ejection-max-time", "5m"),
        ("max-body-bytes", "10Mi"),
        ("max-header-bytes", "8Ki"),
        ("max-header-fields", "100"),
        ("max-requests-per-endpoint", "100"),
        ("max-queued-requests", "0"),
        ("queue-timeout", "10ms"),
        ("send-proxy-protocol", "on"),
    ];
    assert_eq!(changed.len(), SETTINGS.len());
    let (policy, problems) = read(changed);
    assert_eq!(problems, []);
    for (name, value) in changed {
        let setting = SETTINGS.iter().find(|it| it.name == *name).unwrap();
        assert_eq!(setting.text(&policy), *value, "{name}");
        assert_ne!(setting.default_text(), *value, "{name}");
        let (alone, _) = read(&[(name, value)]);
        assert_ne!(alone, HttpPolicy::default(), "{name} changes something");
    }
    let defaults: Vec<(&str, String)> = SETTINGS
        .iter()
        .map(|s| (s.name, s.default_text()))
        .collect();
    let defaults: Vec<(&str, &str)> = defaults.iter().map(|(n, v)| (*n, v.as_str())).collect();
    assert_eq!(read(&defaults), (HttpPolicy::default(), Vec::new()));
}

#[test]
fn what_cannot_be_used_leaves_the_default() {
    for (name, value, why) in [
        ("request-timeout", "5", "not a duration"),
        ("request-timeout", "", "not a duration"),
        ("request-timeout", "-5s", "not a duration"),
        ("request-timeout", "25h", "0s or 1ms to 24h"),
        ("connect-timeout", "0s", "10ms to 30s"),
        ("connect-timeout", "99999999999999999h", "not a duration"),
        ("retries", "11", "0 to 10"),
        ("retries", "-1", "0 to 10"),
        ("retry-on", "", "neither a reason nor a status"),
        ("retry-on", "503,oops", "`oops`"),
        ("retry-on", "200", "400 to 599"),
        ("retry-on", "504-502", "400 to 599"),
        ("retry-backoff", "2s-1s", "ends before it begins"),
        ("retry-backoff", "0s-1s", "1ms to 1m"),
        ("load-balancer", "ring-hash", "peak-ewma, least-request"),
        ("ejection", "maybe", "on, off"),
        ("max-header-bytes", "2Mi", "1Ki to 1Mi"),
        ("max-body-bytes", "99999999999Ti", "0 to 1Ti"),
    ] {
        let (policy, problems) = read(&[(name, value)]);
        assert_eq!(policy, HttpPolicy::default(), "{name}: {value}");
        let [(field, Some(message))] = problems.as_slice() else {
            panic!("{name}: {value}: {problems:?}");
        };
        assert_eq!(*field, format!("{PREFIX}{name}"));
        assert!(message.contains(why), "{name}: {message}");
        assert!(message.contains("stays in force"), "{message}");
    }
    let (_, problems) = read(&[("request-timout", "5s")]);
    assert_eq!(problems, [("sealane.dev/request-timout".to_owned(), None)]);
}

/// Name, default and range of each row of the page's table.
#[test]
fn the_page_says_what_the_code_does() {
    let page = include_str!("../../../../../docs/services.md");
    let table = page.split_once("| `sealane.dev/…`").unwrap().1;
    let rows = table
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<String>> = rows
        .skip(1)
        .map(|line| {
            let cells = line.split('|').skip(1).take(3);
            cells.map(|cell| cell.trim().replace('`', "")).collect()
        })
        .collect();
    let settings = SETTINGS.iter();
    let settings: Vec<Vec<String>> = settings
        .map(|it| vec![it.name.to_owned(), it.default_text(), it.range()])
        .collect();
    assert_eq!(rows, settings);
}
