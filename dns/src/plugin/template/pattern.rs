//! Patterns: text with actions between `{{` and `}}`, filled in for each query.
//!
//! | action | value |
//! |---|---|
//! | `.Name` | the name in lower case, with its final dot |
//! | `.Type`, `.Class` | as text |
//! | `.Zone` | the template's zone that the name is in |
//! | `.Regex` | the expression that matched |
//! | `.Remote` | the client's address |
//! | `.Question.Name` | the name as it was typed |
//! | `.Group.NAME`, `.Group.1`, `index .Group "NAME"` | a group of the match; empty if there is none |
//! | `index .Match 1` | a group by number; there has to be one |
//! | `"text"` | itself |
//!
//! `{{-` and `-}}` take white space away on their side, `{{/* … */}}` is a comment. Everything else of
//! Go's templates, and `.Meta`, is refused.

use std::net::IpAddr;
use std::str::FromStr;

use hickory_proto::rr::RecordType;
use regex::{Captures, Regex};

/// Longest text that comes of a pattern: a record's data is at most 64 KiB, and four characters a
/// byte at worst.
const MAX_TEXT: usize = 4 * 65_535;

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// `{{` without an end.
    #[error("'{{{{' without '}}}}'")]
    Open,
    /// Something that is not supported.
    #[error(
        "'{{{{ {0} }}}}' is not supported; known are .Name, .Type, .Class, .Zone, .Regex, .Remote, \
         .Question.Name, .Group.NAME, index .Group \"NAME\" and index .Match NUMBER"
    )]
    Unsupported(String),
}

/// Why a pattern cannot be filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FillError {
    #[error("the match has no group {0}")]
    NoGroup(usize),
    #[error("the record is too long")]
    TooLong,
}

/// A pattern that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Name,
    Type,
    Class,
    Zone,
    Regex,
    Remote,
    QuestionName,
    Group(String),
    Match(usize),
}

/// What a pattern is filled in with.
#[derive(Debug)]
pub(super) struct Data<'a> {
    pub(super) name: &'a str,
    pub(super) question_name: String,
    pub(super) zone: String,
    pub(super) class: &'static str,
    pub(super) record_type: RecordType,
    pub(super) remote: IpAddr,
    pub(super) regex: &'a Regex,
    pub(super) captures: Captures<'a>,
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        let mut trims_start = false;
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, after) = after.split_once("}}").ok_or(PatternError::Open)?;
            let (action, trims_before) = match action.strip_prefix('-') {
                Some(action) if action.starts_with(char::is_whitespace) => (action, true),
                _ => (action, false),
            };
            let (action, trims_after) = match action.strip_suffix('-') {
                Some(action) if action.ends_with(char::is_whitespace) => (action, true),
                _ => (action, false),
            };
            push_text(&mut pieces, before, trims_start, trims_before);
            pieces.extend(Piece::of(action.trim())?);
            trims_start = trims_after;
            rest = after;
        }
        push_text(&mut pieces, rest, trims_start, false);
        Ok(Self(pieces))
    }
}

fn push_text(pieces: &mut Vec<Piece>, mut text: &str, trims_start: bool, trims_end: bool) {
    if trims_start {
        text = text.trim_start();
    }
    if trims_end {
        text = text.trim_end();
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

impl Piece {
    /// What an action stands for; nothing for a comment.
    fn of(action: &str) -> Result<Option<Self>, PatternError> {
        let unsupported = || PatternError::Unsupported(action.to_owned());
        if action.starts_with("/*") && action.ends_with("*/") {
            return Ok(None);
        }
        let words: Vec<&str> = action.split_whitespace().collect();
        let piece = match words[..] {
            [".Name"] => Self::Name,
            [".Type"] => Self::Type,
            [".Class"] => Self::Class,
            [".Zone"] => Self::Zone,
            [".Regex"] => Self::Regex,
            [".Remote"] => Self::Remote,
            [".Question.Name"] => Self::QuestionName,
            ["index", ".Match", number] => {
                Self::Match(number.parse().map_err(|_not_a_number| unsupported())?)
            }
            ["index", ".Group", name] => Self::Group(quoted(name).ok_or_else(unsupported)?),
            [word] => match word.strip_prefix(".Group.") {
                Some(name) if !name.is_empty() && name.chars().all(is_part_of_name) => {
                    Self::Group(name.to_owned())
                }
                _ => Self::Text(quoted(action).ok_or_else(unsupported)?),
            },
            _ => Self::Text(quoted(action).ok_or_else(unsupported)?),
        };
        Ok(Some(piece))
    }
}

fn is_part_of_name(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// What stands between quotes. Escapes are not supported.
fn quoted(text: &str) -> Option<String> {
    let double = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    let raw = || {
        text.strip_prefix('`')
            .and_then(|text| text.strip_suffix('`'))
    };
    let inner = double.or_else(raw)?;
    (!inner.contains(['"', '`', '\\'])).then(|| inner.to_owned())
}

impl Pattern {
    pub(super) fn fill(&self, data: &Data<'_>) -> Result<String, FillError> {
        let mut filled = String::with_capacity(64);
        let group = |number| data.captures.get(number).map_or("", |group| group.as_str());
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Name => filled.push_str(data.name),
                Piece::Type => filled.push_str(&data.record_type.to_string()),
                Piece::Class => filled.push_str(data.class),
                Piece::Zone => filled.push_str(&data.zone),
                Piece::Regex => filled.push_str(data.regex.as_str()),
                Piece::Remote => filled.push_str(&data.remote.to_string()),
                Piece::QuestionName => filled.push_str(&data.question_name),
                Piece::Match(number) if *number >= data.captures.len() => {
                    return Err(FillError::NoGroup(*number));
                }
                Piece::Match(number) => filled.push_str(group(*number)),
                Piece::Group(name) => {
                    let named = data.captures.name(name).map(|group| group.as_str());
                    let numbered = || name.parse().map_or("", group);
                    filled.push_str(named.unwrap_or_else(numbered));
                }
            }
            if filled.len() > MAX_TEXT {
                return Err(FillError::TooLong);
            }
        }
        Ok(filled)
    }
}
