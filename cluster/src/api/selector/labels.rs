//! Label selectors.

use std::iter::Peekable;
use std::str::Chars;

use serde_json::Value;

use crate::api::status::ApiError;

/// A parsed label selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    NotExists,
    Greater,
    Less,
}

impl LabelSelector {
    /// Parses a selector; the empty text selects everything.
    ///
    /// # Errors
    /// 400 with the place of the mistake.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let mut lexer = Lexer(text.chars().peekable());
        let mut requirements = Vec::new();
        if lexer.peek() == Token::End {
            return Ok(Self(requirements));
        }
        loop {
            requirements.push(requirement(&mut lexer)?);
            match lexer.next() {
                Token::End => return Ok(Self(requirements)),
                Token::Symbol(",") => match lexer.peek() {
                    Token::Word(_) | Token::Symbol("!") => {}
                    found => return Err(unexpected(&found, "identifier after ','")),
                },
                found => return Err(unexpected(&found, "',' or 'end of string'")),
            }
        }
    }

    /// Whether everything is selected.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `metadata.labels` satisfies every requirement.
    pub(crate) fn matches(&self, labels: &Value) -> bool {
        self.0.iter().all(|requirement| {
            requirement.matches(labels.get(&requirement.key).and_then(Value::as_str))
        })
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|wanted| wanted == value);
        let bound = || self.values.first()?.parse::<i64>().ok();
        match (self.operator, value) {
            (Operator::Exists, value) => value.is_some(),
            (Operator::NotExists, value) => value.is_none(),
            (Operator::In, value) => value.is_some_and(listed),
            (Operator::NotIn, value) => !value.is_some_and(listed),
            (Operator::Greater, Some(value)) => value
                .parse::<i64>()
                .ok()
                .zip(bound())
                .is_some_and(|(a, b)| a > b),
            (Operator::Less, Some(value)) => value
                .parse::<i64>()
                .ok()
                .zip(bound())
                .is_some_and(|(a, b)| a < b),
            (Operator::Greater | Operator::Less, None) => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Symbol(&'static str),
    End,
}

struct Lexer<'a>(Peekable<Chars<'a>>);

impl Lexer<'_> {
    fn peek(&self) -> Token {
        Lexer(self.0.clone()).next()
    }

    fn next(&mut self) -> Token {
        while self.0.next_if(|c| c.is_whitespace()).is_some() {}
        let Some(first) = self.0.peek().copied() else {
            return Token::End;
        };
        let symbol = match first {
            ',' => ",",
            '(' => "(",
            ')' => ")",
            '>' => ">",
            '<' => "<",
            '!' => "!",
            '=' => "=",
            _ => {
                let mut word = String::new();
                while let Some(c) = self
                    .0
                    .next_if(|c| !c.is_whitespace() && !",()=!<>".contains(*c))
                {
                    word.push(c);
                }
                return Token::Word(word);
            }
        };
        self.0.next();
        let followed = matches!(symbol, "!" | "=") && self.0.next_if_eq(&'=').is_some();
        Token::Symbol(match (symbol, followed) {
            ("!", true) => "!=",
            (_, true) => "==",
            (symbol, false) => symbol,
        })
    }
}

fn requirement(lexer: &mut Lexer<'_>) -> Result<Requirement, ApiError> {
    let (key, negated) = match lexer.next() {
        Token::Word(key) => (key, false),
        Token::Symbol("!") => match lexer.next() {
            Token::Word(key) => (key, true),
            found => return Err(unexpected(&found, "identifier")),
        },
        found => return Err(unexpected(&found, "identifier")),
    };
    if negated {
        return Ok(simple(key, Operator::NotExists));
    }
    match lexer.peek() {
        Token::End | Token::Symbol(",") => Ok(simple(key, Operator::Exists)),
        Token::Symbol(symbol @ ("=" | "==" | "!=" | ">" | "<")) => {
            lexer.next();
            let operator = match symbol {
                "!=" => Operator::NotIn,
                ">" => Operator::Greater,
                "<" => Operator::Less,
                _ => Operator::In,
            };
            Ok(Requirement {
                key,
                operator,
                values: vec![value(lexer)?],
            })
        }
        Token::Word(word) if word == "in" || word == "notin" => {
            lexer.next();
            let operator = if word == "in" {
                Operator::In
            } else {
                Operator::NotIn
            };
            Ok(Requirement {
                key,
                operator,
                values: set(lexer)?,
            })
        }
        found => Err(unexpected(
            &found,
            "in, notin, =, ==, !=, gt, lt or end of string",
        )),
    }
}

fn simple(key: String, operator: Operator) -> Requirement {
    Requirement {
        key,
        operator,
        values: Vec::new(),
    }
}

/// A value may be empty: `a=` and `a=,b` select empty values.
fn value(lexer: &mut Lexer<'_>) -> Result<String, ApiError> {
    match lexer.peek() {
        Token::Word(word) => {
            lexer.next();
            Ok(word)
        }
        Token::End | Token::Symbol(",") => Ok(String::new()),
        found @ Token::Symbol(_) => Err(unexpected(&found, "identifier")),
    }
}

fn set(lexer: &mut Lexer<'_>) -> Result<Vec<String>, ApiError> {
    match lexer.next() {
        Token::Symbol("(") => {}
        found => return Err(unexpected(&found, "'('")),
    }
    let mut values = Vec::new();
    loop {
        match lexer.next() {
            Token::Word(word) => {
                values.push(word);
                match lexer.next() {
                    Token::Symbol(",") => {}
                    Token::Symbol(")") => return Ok(values),
                    found => return Err(unexpected(&found, "',' or ')'")),
                }
            }
            Token::Symbol(")") => {
                values.push(String::new());
                return Ok(values);
            }
            Token::Symbol(",") => values.push(String::new()),
            found => return Err(unexpected(&found, "',', ')' or identifier")),
        }
    }
}

fn unexpected(found: &Token, expected: &str) -> ApiError {
    let found = match found {
        Token::Word(word) => word.as_str(),
        Token::Symbol(symbol) => symbol,
        Token::End => "",
    };
    ApiError::bad_request(format!(
        "unable to parse requirement: found '{found}', expected: {expected}"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cluster_f2_label_selectors_select() {
        let labels = json!({"app": "web", "tier": "front", "n": "5", "empty": ""});
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (web, api)", true),
            ("app in (api)", false),
            ("app notin (api),tier=front", true),
            ("app notin (web)", false),
            ("absent notin (x)", true),
            ("app", true),
            ("absent", false),
            ("!absent", true),
            ("!app", false),
            ("empty=", true),
            ("empty=,app", true),
            ("empty in ()", true),
            ("n>4,n<6", true),
            ("n>5", false),
        ] {
            let parsed =
                LabelSelector::parse(selector).unwrap_or_else(|e| panic!("{selector}: {e}"));
            assert_eq!(parsed.matches(&labels), expected, "{selector}");
        }
    }

    #[test]
    fn cluster_e4_bad_label_selectors_are_refused() {
        for selector in ["=", "a=b=c", "a in b", "a in (b", "a,", "!", "a b"] {
            let error = LabelSelector::parse(selector).expect_err(selector);
            assert_eq!(error.code, 400, "{selector}");
        }
        assert_eq!(
            LabelSelector::parse("=").expect_err("bad").message,
            "unable to parse requirement: found '=', expected: identifier"
        );
    }
}
