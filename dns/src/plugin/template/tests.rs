use regex::Regex;

use super::*;
use crate::config::Fallthrough;
use crate::name::Name;

fn settings(matches: &[&str], answer: &[&str]) -> TemplateSettings {
    TemplateSettings {
        class: None,
        record_type: None,
        zones: vec![Name::root()],
        matches: matches
            .iter()
            .map(|text| Regex::new(text).unwrap())
            .collect(),
        answer: answer
            .iter()
            .map(|&text| TemplateRecord(text.to_owned()))
            .collect(),
        additional: Vec::new(),
        authority: Vec::new(),
        rcode: ResponseCode::NoError,
        extended_error: None,
        fallthrough: Fallthrough::No,
    }
}

fn all() -> Fallthrough {
    Fallthrough::Zones(vec![Name::root()])
}

fn ask(settings: &[TemplateSettings], name: &str, record_type: RecordType) -> String {
    let templates = Templates::new(settings).unwrap();
    let question = Question::new(name.parse().unwrap(), record_type);
    let shown = |answer: Answer| {
        let sections = [answer.answers, answer.authority, answer.additional];
        let mut lines = vec![answer.rcode.to_string()];
        lines.extend(sections.iter().flatten().map(ToString::to_string));
        lines.extend(
            answer
                .error
                .map(|error| format!("[{} {}]", error.code, error.text)),
        );
        lines.join("; ")
    };
    match templates
        .answer(&question, "192.0.2.9".parse().unwrap())
        .local
    {
        Local::Pass => "pass".to_owned(),
        Local::Alias(answer, target) => format!("{}; to {target}", shown(answer)),
        Local::Done(answer) => shown(answer),
    }
}

#[test]
fn dns_template_makes_records_from_the_question() {
    for (case, matching, answer, name, expected) in [
        (
            "groups by name",
            r"^ip-(?P<a>\d+)-(?P<b>\d+)-(?P<c>\d+)-(?P<d>\d+)\.example\.$",
            "{{ .Name }} 60 IN A {{ .Group.a }}.{{ .Group.b }}.{{ .Group.c }}.{{ .Group.d }}",
            "IP-10-1-2-3.example",
            "No Error; ip-10-1-2-3.example. 60 IN A 10.1.2.3",
        ),
        (
            "groups by number",
            r"^(\w+)\.(\w+)\.$",
            r#"{{index .Match 0}} IN TXT "{{ index .Match 1 }}" "{{ .Group.2 }}" "{{ index .Group "1" }}""#,
            "a.b",
            "No Error; a.b. 3600 IN TXT \"a\"\"b\"\"a\"",
        ),
        (
            "everything else",
            ".*",
            r#"{{ .Question.Name }} 5m IN TXT "{{ .Type }} {{ .Class }} {{ .Zone }} {{ .Regex }} {{ .Remote }}""#,
            "A.test",
            "No Error; A.test. 300 IN TXT \"TXT IN . .* 192.0.2.9\"",
        ),
        (
            "comments, trimmed space and strings",
            ".*",
            r#"{{/* note */}}{{ "a.test." -}}   {{- " 7" }} CH IN SRV 1 2 3 {{.Name}}"#,
            "x",
            "No Error; a.test. 7 IN SRV 1 2 3 x.",
        ),
        (
            "a group that is not there is empty",
            ".*",
            "a{{ .Group.x }}.test. IN MX 10 m{{ .Group.7 }}.test.",
            "x",
            "No Error; a.test. 3600 IN MX \\# 10 000a016d047465737400",
        ),
        (
            "a number that is not there fails",
            "^(a)",
            "{{ index .Match 2 }} IN A 10.0.0.1",
            "a",
            "Server Failure; [0 template: the match has no group 2]",
        ),
        (
            "no record",
            "^(?P<x>.*)$",
            "{{ .Name }} IN A {{ .Group.x }}",
            "a",
            "Server Failure; [0 template: no record: a. IN A a.]",
        ),
    ] {
        let record_type = if expected.contains("TXT") {
            RecordType::TXT
        } else {
            RecordType::A
        };
        assert_eq!(
            ask(&[settings(&[matching], &[answer])], name, record_type),
            expected,
            "{case}"
        );
    }
}

#[test]
fn dns_template_order_types_zones_and_fallthrough() {
    let mut first = settings(&[r"^a\."], &["a. IN A 10.0.0.1"]);
    first.record_type = Some(RecordType::A);
    first.zones = vec!["test".parse().unwrap()];
    let mut second = settings(&[r"^b\.", r"^c\."], &["b. IN A 10.0.0.2"]);
    second.class = Some(class::IN);
    let table = [
        (
            "first",
            "a.test",
            RecordType::A,
            "No Error; a. 3600 IN A 10.0.0.1",
        ),
        (
            "first stops",
            "b.test",
            RecordType::A,
            "Non-Existent Domain",
        ),
        (
            "not the type",
            "b.test",
            RecordType::AAAA,
            "No Error; b. 3600 IN A 10.0.0.2",
        ),
        (
            "not the zone",
            "c.other",
            RecordType::A,
            "No Error; b. 3600 IN A 10.0.0.2",
        ),
        ("nothing", "d.other", RecordType::A, "Non-Existent Domain"),
    ];
    let templates = [first.clone(), second.clone()];
    for (case, name, record_type, expected) in table {
        assert_eq!(ask(&templates, name, record_type), expected, "{case}");
    }
    first.fallthrough = all();
    second.fallthrough = Fallthrough::Zones(vec!["test".parse().unwrap()]);
    let templates = [first, second];
    let everything = settings(&[], &["{{ .Name }} IN A 10.0.0.3"]);
    let found = ask(&[everything], "x", RecordType::A);
    assert_eq!(
        found, "No Error; x. 3600 IN A 10.0.0.3",
        "without expression"
    );
    for (name, expected) in [
        ("b.test", "No Error; b. 3600 IN A 10.0.0.2"),
        ("d.test", "pass"),
        ("d.other", "Non-Existent Domain"),
    ] {
        assert_eq!(ask(&templates, name, RecordType::A), expected, "{name}");
    }
}

#[test]
fn dns_template_of_managed_clusters() {
    // What AKS ships.
    let mut guard = settings(&[r"^(?:[^.]+\.){4,}internal\.cloudapp\.net\.$"], &[]);
    guard.zones = vec!["internal.cloudapp.net".parse().unwrap()];
    guard.rcode = ResponseCode::NXDomain;
    guard.fallthrough = all();
    for (name, expected) in [
        (
            "www.google.com.reddog.microsoft.internal.cloudapp.net",
            "Non-Existent Domain",
        ),
        ("vm.xyz.internal.cloudapp.net", "pass"),
        ("www.google.com", "pass"),
    ] {
        assert_eq!(
            ask(std::slice::from_ref(&guard), name, RecordType::AAAA),
            expected,
            "{name}"
        );
    }
}

#[test]
fn dns_template_sections_aliases_and_errors() {
    let record = |text: &str| vec![TemplateRecord(text.to_owned())];
    let mut template = settings(&[".*"], &["{{ .Name }} 5 IN CNAME target.test."]);
    template.authority = record("test. 60 IN SOA ns.test. admin.test. 1 60 60 60 60");
    template.additional = record("ns.test. IN AAAA fd00::1");
    template.extended_error = Some((4, "made up".to_owned()));
    let sections = "No Error; a. 5 IN CNAME target.test.; \
        test. 60 IN SOA ns.test. admin.test. 1 60 60 60 60; ns.test. 3600 IN AAAA fd00::1; [4 made up]";
    let ask = |template: &TemplateSettings, record_type| {
        ask(std::slice::from_ref(template), "a", record_type)
    };
    assert_eq!(
        ask(&template, RecordType::A),
        format!("{sections}; to target.test.")
    );
    assert_eq!(ask(&template, RecordType::TXT), sections);
    template.rcode = ResponseCode::ServFail;
    assert_eq!(
        ask(&template, RecordType::A),
        "Server Failure; [0 a template says so]"
    );
}

#[test]
fn dns_template_what_is_not_supported_is_refused() {
    for (text, error) in [
        ("{{ .Name", "'{{' without '}}'"),
        ("{{ .Meta \"x\" }}", "'{{ .Meta \"x\" }}' is not supported"),
        (
            "{{ if .Name }}x{{ end }}",
            "'{{ if .Name }}' is not supported",
        ),
        (
            "{{ .Name | printf \"%s\" }}",
            "'{{ .Name | printf \"%s\" }}' is not supported",
        ),
        (
            "{{ index .Match x }}",
            "'{{ index .Match x }}' is not supported",
        ),
        ("{{ .Group. }}", "'{{ .Group. }}' is not supported"),
        ("{{ \"a\\n\" }}", "'{{ \"a\\n\" }}' is not supported"),
    ] {
        let found = TemplateRecord(text.to_owned())
            .check()
            .unwrap_err()
            .to_string();
        assert!(found.starts_with(error), "{text}: {found}");
        assert!(Templates::new(&[settings(&[".*"], &[text])]).is_err());
    }
    assert_eq!(
        TemplateRecord("{{ .Name }} IN A 10.0.0.1".to_owned()).check(),
        Ok(())
    );
}

#[test]
fn dns_template_names_of_queries_cannot_smuggle_anything_in() {
    let template = settings(
        &["^(.*)$"],
        &["{{ index .Match 1 }} IN CNAME x.{{ .Name }}"],
    );
    let odd = Name::from_checked_wire(b"\x09a b.c;(\"\xff\x04test\x00");
    let templates = Templates::new(&[template]).unwrap();
    let question = Question::new(odd.clone(), RecordType::CNAME);
    let said = templates.answer(&question, "192.0.2.9".parse().unwrap());
    let Local::Done(answer) = said.local else {
        panic!("{said:?}");
    };
    assert!(said.is_match);
    match &answer.answers[..] {
        [record] => assert_eq!(record.name, odd),
        records => assert_eq!((answer.rcode, records.len()), (ResponseCode::ServFail, 0)),
    }
}
