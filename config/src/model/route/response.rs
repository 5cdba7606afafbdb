//! What is changed of a backend's answers.

use super::Template;

/// Changes of an answer's fields that name places as the backend sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerRules {
    /// `Domain` of cookies: the name, with or without a dot before it, in lower case.
    pub cookie_domain: Option<Replacement>,
    /// `Path` of cookies: how it begins.
    pub cookie_path: Option<Replacement>,
    /// `Location` and `Refresh`: how the URL begins, and what it begins with instead.
    pub redirect: Option<(Box<str>, Template)>,
}

/// Text in place of other text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// What is replaced.
    pub from: Box<str>,
    /// What it is replaced by.
    pub to: Box<str>,
}
