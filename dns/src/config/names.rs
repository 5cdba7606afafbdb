//! Settings of the plugins that answer or change names by themselves.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use regex::Regex;

use super::Fallthrough;
use crate::name::Name;

/// `hosts [FILE [ZONES…]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostsSettings {
    /// The file, in the form of `/etc/hosts`.
    pub file: Option<PathBuf>,
    /// Entries of the Corefile itself.
    pub inline: Vec<(IpAddr, Vec<Name>)>,
    /// Zones in which it answers.
    pub zones: Vec<Name>,
    /// TTL of answers, seconds.
    pub ttl: u32,
    /// No PTR records are made.
    pub no_reverse: bool,
    /// How often the file is looked at; zero: never again.
    pub reload: Duration,
    /// Where unknown names go.
    pub fallthrough: Fallthrough,
}

/// `template CLASS TYPE [ZONES…]`.
#[derive(Clone, Debug)]
pub struct TemplateSettings {
    /// Class; `None` for ANY.
    pub class: Option<u16>,
    /// Type; `None` for ANY.
    pub record_type: Option<RecordType>,
    /// Zones in which it answers.
    pub zones: Vec<Name>,
    /// Expressions on the name with its final dot, one of which must match.
    pub matches: Vec<Regex>,
    /// Records of the answer section.
    pub answer: Vec<TemplateRecord>,
    /// Records of the additional section.
    pub additional: Vec<TemplateRecord>,
    /// Records of the authority section.
    pub authority: Vec<TemplateRecord>,
    /// The code.
    pub rcode: ResponseCode,
    /// Extended error: code and text.
    pub extended_error: Option<(u16, String)>,
    /// Where names go that no expression matches.
    pub fallthrough: Fallthrough,
}

/// A record in zone file form, with `{{ .Name }}`, `{{ .Group.x }}` and the like still to be filled
/// in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateRecord(pub String);

/// `autopath [ZONES…] @kubernetes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutopathSettings {
    /// Zones in which the search path is followed: the cluster's.
    pub zones: Vec<Name>,
    /// What the search path of pods ends with: that of the node, from `/etc/resolv.conf`.
    pub host_search: Vec<Name>,
}

/// Rule of `rewrite`.
#[derive(Clone, Debug)]
pub struct RewriteRule {
    /// What is changed.
    pub what: RewriteWhat,
    /// After a match no further rule is tried (`stop`, the default).
    pub stop: bool,
}

/// What a [`RewriteRule`] changes.
#[derive(Clone, Debug)]
pub enum RewriteWhat {
    /// The name asked for.
    Name {
        /// Which names.
        matches: NameMatch,
        /// What they become; for an expression with `{0}`, `{1}`… for its groups.
        to: String,
        /// What becomes of names in the answer.
        answers: Vec<AnswerRewrite>,
    },
    /// The type asked for.
    Type(RecordType, RecordType),
    /// The class asked for.
    Class(u16, u16),
    /// TTLs of the answer, seconds, at least and at most.
    Ttl {
        /// Which names.
        matches: NameMatch,
        /// At least.
        min: u32,
        /// At most.
        max: u32,
    },
    /// The answer's code.
    Rcode {
        /// Which names.
        matches: NameMatch,
        /// This code.
        from: ResponseCode,
        /// Becomes this one.
        to: ResponseCode,
    },
}

/// Names that a rule is for, in lower case.
#[derive(Clone, Debug)]
pub enum NameMatch {
    /// This name.
    Exact(Name),
    /// Names that begin so.
    Prefix(String),
    /// Names that end so.
    Suffix(String),
    /// Names that contain this.
    Substring(String),
    /// Names that match.
    Regex(Regex),
}

/// What becomes of names in an answer after a name was rewritten.
#[derive(Clone, Debug)]
pub enum AnswerRewrite {
    /// The reverse of the rule (`answer auto`).
    Auto,
    /// Owners that match become this.
    Name(Regex, String),
    /// Names in record data that match become this.
    Value(Regex, String),
}
