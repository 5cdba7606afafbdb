//! `rewrite [continue|stop] KIND …`.

use crate::config::{AnswerRewrite, NameMatch, RewriteRule, RewriteWhat};
use crate::corefile::block::Scope;
use crate::corefile::problem::{ProblemKind, Result};
use crate::corefile::token::Token;
use crate::corefile::tree::Directive;
use crate::corefile::words;

/// Largest TTL (RFC 2181 section 8).
const MAX_TTL: u32 = (1 << 31) - 1;

pub(in crate::corefile) fn read(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    // In braces a rule may be spread over lines.
    let mut tokens: Vec<&Token> = directive.args.iter().collect();
    for line in &directive.lines {
        tokens.push(&line.name);
        tokens.extend(&line.args);
    }
    let lower = |token: &Token| token.text.to_ascii_lowercase();
    let mut rest = tokens.as_slice();
    let mut stop = true;
    if let [first, after @ ..] = rest
        && ["continue", "stop"].contains(&&*lower(first))
    {
        stop = lower(first) == "stop";
        rest = after;
    }
    let Some((kind, args)) = rest.split_first() else {
        let message = "'rewrite' needs a kind: name, type, class, ttl or rcode";
        return Err(directive.name.bad(message));
    };
    let what = match (&*lower(kind), args) {
        ("name", args) => name(kind, args)?,
        ("type", [from, to]) => {
            RewriteWhat::Type(words::record_type(from)?, words::record_type(to)?)
        }
        ("class", [from, to]) => RewriteWhat::Class(words::class(from)?, words::class(to)?),
        ("ttl", [matching @ .., range]) => {
            let (min, max) = ttl_range(range)?;
            let matches = name_match(kind, matching)?;
            RewriteWhat::Ttl { matches, min, max }
        }
        ("rcode", [matching @ .., from, to]) => RewriteWhat::Rcode {
            matches: name_match(kind, matching)?,
            from: words::rcode(from)?,
            to: words::rcode(to)?,
        },
        ("answer", _) => {
            let message = "'answer' belongs behind a 'name' rule, on its line or in its braces";
            return Err(kind.bad(message));
        }
        (unsupported @ ("edns0" | "cname"), _) => {
            let message = format!("'rewrite {unsupported}' is not supported: remove the rule");
            return Err(kind.problem(ProblemKind::Unsupported, message));
        }
        (known @ ("type" | "class" | "ttl" | "rcode"), _) => {
            let message =
                format!("'rewrite {known}' needs what it is to match and what comes instead");
            return Err(kind.bad(message));
        }
        (other, _) => {
            let message =
                format!("unknown rewrite '{other}'; known are: name, type, class, ttl, rcode");
            return Err(kind.problem(ProblemKind::Unknown, message));
        }
    };
    scope.plugins.rewrite.push(RewriteRule { what, stop });
    Ok(())
}

/// `[exact|prefix|suffix|substring|regex] FROM TO [answer …]`.
fn name(kind: &Token, args: &[&Token]) -> Result<RewriteWhat> {
    let (matching, to, answers) = match args {
        [from, to] => (vec![*from], to, &[][..]),
        [how, from, to, answers @ ..] => (vec![*how, *from], to, answers),
        _ => return Err(kind.bad("'rewrite name' needs a name and what it becomes")),
    };
    let matches = name_match(kind, &matching)?;
    let mut rewrites = answer_rewrites(answers)?;
    if let NameMatch::Exact(_) = matches {
        // The reverse of one name is never in doubt.
        rewrites.insert(0, AnswerRewrite::Auto);
    }
    Ok(RewriteWhat::Name {
        to: match &matches {
            NameMatch::Exact(_) => words::name(to)?.to_string(),
            _ => with_dot(&to.text),
        },
        matches,
        answers: rewrites,
    })
}

/// `[HOW] NAME`, in which HOW is `exact` unless it is given.
fn name_match(kind: &Token, args: &[&Token]) -> Result<NameMatch> {
    let (how, name) = match args {
        [name] => return words::name(name).map(NameMatch::Exact),
        [how, name] => (how, name),
        _ => return Err(kind.bad(format!("'rewrite {}' needs one name to match", kind.text))),
    };
    Ok(match how.text.to_ascii_lowercase().as_str() {
        "exact" => NameMatch::Exact(words::name(name)?),
        "prefix" => NameMatch::Prefix(with_dot(&name.text)),
        "suffix" => NameMatch::Suffix(with_dot(&name.text)),
        "substring" => NameMatch::Substring(with_dot(&name.text)),
        "regex" => NameMatch::Regex(words::regex(name)?),
        other => {
            return Err(how.bad(format!(
                "unknown match '{other}'; known are: exact, prefix, suffix, substring, regex"
            )));
        }
    })
}

/// In lower case and with a final dot, which CoreDNS adds to whatever is matched.
fn with_dot(text: &str) -> String {
    let mut text = text.to_ascii_lowercase();
    if !text.ends_with('.') {
        text.push('.');
    }
    text
}

/// `answer auto`, `answer name FROM TO`, `answer value FROM TO`, in a row; the second `answer` may
/// be left out.
fn answer_rewrites(mut args: &[&Token]) -> Result<Vec<AnswerRewrite>> {
    let mut rewrites = Vec::new();
    let (mut is_auto, mut name_rule) = (false, None);
    while let [first, after @ ..] = args {
        let is_answer = first.text == "answer";
        if !is_answer && rewrites.is_empty() {
            let message = format!("'{}' is too much; 'answer' may come here", first.text);
            return Err(first.bad(message));
        }
        let rest = if is_answer { after } else { args };
        args = match rest {
            [auto, rest @ ..] if auto.text == "auto" => {
                is_auto = true;
                rewrites.push(AnswerRewrite::Auto);
                rest
            }
            [what, from, to, rest @ ..] if what.text == "name" || what.text == "value" => {
                let (from, to) = (words::regex(from)?, with_dot(&to.text));
                rewrites.push(match what.text.as_str() {
                    "name" => {
                        name_rule = Some(*what);
                        AnswerRewrite::Name(from, to)
                    }
                    _ => AnswerRewrite::Value(from, to),
                });
                rest
            }
            _ => {
                let message = "'answer' is followed by 'auto', 'name FROM TO' or 'value FROM TO'";
                return Err(first.bad(message));
            }
        };
    }
    match name_rule {
        Some(rule) if is_auto => {
            Err(rule.bad("'answer auto' and 'answer name' exclude each other"))
        }
        _ => Ok(rewrites),
    }
}

/// `TTL`, `LEAST-MOST`, `LEAST-`, `-MOST`.
fn ttl_range(token: &Token) -> Result<(u32, u32)> {
    let bound = |text: &str, open: u32| match text {
        "" => Some(open),
        text => text.parse().ok().filter(|&ttl| ttl <= MAX_TTL),
    };
    let range = match token.text.split_once('-') {
        None => token.text.parse().ok().map(|ttl| (ttl, ttl)),
        Some(("", "")) => None,
        Some((least, most)) => bound(least, 0).zip(bound(most, MAX_TTL)),
    };
    let range = range.filter(|(least, most)| least <= most && *most <= MAX_TTL);
    range.ok_or_else(|| {
        let message = format!(
            "'{}' is no TTL or range such as 30, 5-60, 5-, -60",
            token.text
        );
        token.bad(message)
    })
}
