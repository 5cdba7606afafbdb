use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::*;
use crate::record::Srv;

fn regex(text: &str) -> Regex {
    Regex::new(text).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn rule(what: RewriteWhat) -> RewriteRule {
    RewriteRule { what, stop: true }
}

fn rename(matches: NameMatch, to: &str, answers: &[AnswerRewrite]) -> RewriteRule {
    rule(RewriteWhat::Name {
        matches,
        to: to.to_owned(),
        answers: answers.to_vec(),
    })
}

fn ask(text: &str) -> Question {
    Question::new(name(text), RecordType::A)
}

#[test]
fn dns_rewrite_names() {
    for (case, matches, to, asked, expected) in [
        (
            "exact",
            NameMatch::Exact(name("a.test")),
            "b.test.",
            "A.test",
            Some("b.test."),
        ),
        (
            "exact is not below",
            NameMatch::Exact(name("a.test")),
            "b.test.",
            "x.a.test",
            None,
        ),
        (
            "prefix",
            NameMatch::Prefix("foo.".into()),
            "bar.",
            "foo.test",
            Some("bar.test."),
        ),
        (
            "suffix",
            NameMatch::Suffix(".old.test.".into()),
            ".new.",
            "a.OLD.test",
            Some("a.new."),
        ),
        (
            "substring",
            NameMatch::Substring("mid.".into()),
            "x.",
            "a.mid.test",
            Some("a.x.test."),
        ),
        (
            "regex with groups",
            NameMatch::Regex(regex(r"(.*)-(us|eu)\.test\.")),
            "{1}.{2}.test",
            "api-eu.test",
            Some("api.eu.test."),
        ),
        (
            "no match",
            NameMatch::Regex(regex("^x$")),
            "y",
            "api.test",
            None,
        ),
    ] {
        let rules = [rename(matches, to, &[])];
        let rewritten = rewrite(&rules, &ask(asked)).unwrap();
        let found = rewritten.map(|it| it.question.name.to_string());
        assert_eq!(found.as_deref(), expected, "{case}");
    }
    let rules = [rename(NameMatch::Exact(name("a.test")), "b..test", &[])];
    let error = rewrite(&rules, &ask("a.test")).unwrap_err();
    assert_eq!(error.to_string(), "invalid name after rewrite: b..test");
}

#[test]
fn dns_rewrite_names_with_odd_bytes_survive() {
    let odd = Name::from_checked_wire(b"\x03a.b\x03old\x00");
    let rules = [rename(
        NameMatch::Suffix("old.".into()),
        "new.",
        &[AnswerRewrite::Auto],
    )];
    let question = Question::new(odd.clone(), RecordType::A);
    let rewritten = rewrite(&rules, &question).unwrap().unwrap();
    assert_eq!(rewritten.question.name.wire(), b"\x03a.b\x03new\x00");
    let mut answer = Answer::local(ResponseCode::NoError);
    let owner = rewritten.question.name.clone();
    answer
        .answers
        .push(Record::address(owner, 5, [192, 0, 2, 1].into()));
    rewritten.undo(&mut answer);
    assert_eq!(answer.answers[0].name, odd);
}

#[test]
fn dns_rewrite_stop_and_continue() {
    let mut rules = [
        rename(
            NameMatch::Exact(name("a.test")),
            "b.test",
            &[AnswerRewrite::Auto],
        ),
        rename(
            NameMatch::Exact(name("b.test")),
            "c.test",
            &[AnswerRewrite::Auto],
        ),
        rule(RewriteWhat::Type(RecordType::A, RecordType::AAAA)),
        rule(RewriteWhat::Class(1, 3)),
    ];
    let found = |rules: &[RewriteRule]| {
        let rewritten = rewrite(rules, &ask("a.test")).unwrap().unwrap();
        let Question {
            name,
            record_type,
            class,
        } = &rewritten.question;
        let shown = format!("{name} {record_type} {class}");
        let mut answer = Answer::local(ResponseCode::NoError);
        answer
            .answers
            .push(Record::address(name.clone(), 5, [192, 0, 2, 1].into()));
        rewritten.undo(&mut answer);
        (shown, answer.answers[0].name.to_string())
    };
    assert_eq!(found(&rules), ("b.test. A 1".into(), "a.test.".into()));
    rules[0].stop = false;
    assert_eq!(found(&rules), ("c.test. A 1".into(), "a.test.".into()));
    rules[1].stop = false;
    assert_eq!(found(&rules), ("c.test. AAAA 1".into(), "a.test.".into()));
    rules[2].stop = false;
    assert_eq!(found(&rules), ("c.test. AAAA 3".into(), "a.test.".into()));
}

/// Records as text after the answer to `asked` was changed back.
fn undone(rules: &[RewriteRule], asked: &str, records: Vec<(&str, RData)>) -> Vec<String> {
    let rewritten = rewrite(rules, &ask(asked)).unwrap().unwrap();
    let mut answer = Answer::local(ResponseCode::NXDomain);
    answer.answers = records
        .into_iter()
        .map(|(owner, data)| Record {
            name: name(owner),
            ttl: 100,
            data,
        })
        .collect();
    rewritten.undo(&mut answer);
    let mut lines = vec![answer.rcode.to_string()];
    lines.extend(answer.answers.iter().map(ToString::to_string));
    lines
}

#[test]
fn dns_rewrite_answers_are_changed_back() {
    let address = || RData::A([192, 0, 2, 1].into());
    let srv = |target: &str| {
        RData::Srv(Srv {
            priority: 0,
            weight: 1,
            port: 80,
            target: name(target),
        })
    };
    let nx = "Non-Existent Domain";
    let auto = [AnswerRewrite::Auto];
    let exact = [rename(NameMatch::Exact(name("a.test")), "b.test", &auto)];
    assert_eq!(
        undone(
            &exact,
            "A.test",
            vec![
                ("B.test", address()),
                ("c.test", srv("x.b.test")),
                ("xb.test", address())
            ]
        ),
        [
            nx,
            "A.test. 100 IN A 192.0.2.1",
            "c.test. 100 IN SRV 0 1 80 x.A.test.",
            "xb.test. 100 IN A 192.0.2.1",
        ],
        "owners and values, at labels"
    );
    let suffix = [rename(NameMatch::Suffix("old.test.".into()), "new.", &auto)];
    assert_eq!(
        undone(
            &suffix,
            "a.old.test",
            vec![("a.new", RData::Cname(name("b.c.NEW")))]
        ),
        [nx, "a.old.test. 100 IN CNAME b.c.old.test."]
    );
    let explicit = [rename(
        NameMatch::Regex(regex(r"(.*)\.old\.$")),
        "{1}.new.",
        &[
            AnswerRewrite::Name(regex(r"(.*)\.new\.$"), "{1}.old.".into()),
            AnswerRewrite::Value(regex(r"(.*)\.inner\.$"), "{1}.outer.".into()),
        ],
    )];
    assert_eq!(
        undone(
            &explicit,
            "a.old",
            vec![("a.new", RData::Cname(name("z.inner")))]
        ),
        [nx, "a.old. 100 IN CNAME z.outer."]
    );
    let plain = [rename(NameMatch::Prefix("a.".into()), "b.", &[])];
    assert_eq!(
        undone(&plain, "a.test", vec![("b.test", address())]),
        [nx, "b.test. 100 IN A 192.0.2.1"],
        "nothing without 'answer'"
    );
}

#[test]
fn dns_rewrite_ttl_and_code() {
    let suffix = || NameMatch::Suffix("test.".into());
    let ttl = |min, max| {
        let rule = rule(RewriteWhat::Ttl {
            matches: suffix(),
            min,
            max,
        });
        let address = RData::A([192, 0, 2, 1].into());
        undone(&[rule], "a.test", vec![("a.test", address)])[1].clone()
    };
    assert_eq!(ttl(5, 30), "a.test. 30 IN A 192.0.2.1");
    assert_eq!(ttl(200, 300), "a.test. 200 IN A 192.0.2.1");
    assert_eq!(ttl(5, 300), "a.test. 100 IN A 192.0.2.1");
    let rcode = [rule(RewriteWhat::Rcode {
        matches: suffix(),
        from: ResponseCode::NXDomain,
        to: ResponseCode::NoError,
    })];
    assert_eq!(undone(&rcode, "a.test", Vec::new()), ["No Error"]);
    assert!(rewrite(&rcode, &ask("a.other")).unwrap().is_none());
}
