//! Images by name: which local command stands for a container image.
//!
//! A rule is `NAME[:TAG]=COMMAND ARG…`. `*` stands for any run of characters in the name and in the
//! tag; a rule without a tag holds for every tag. Where several rules match, the most specific one
//! wins: a name without `*` before one with it, then the longer literal name, then the same for the
//! tag; between equals the later rule wins, so that a flag overrides a file.
//!
//! Names are compared without the `docker.io/` and `docker.io/library/` prefixes that an image
//! reference may carry.

use std::collections::BTreeMap;

use serde::Deserialize;

mod reference;
mod words;

pub(super) use self::reference::Reference;

/// The rules that map images to commands.
#[derive(Clone, Debug)]
pub struct ImageMap {
    rules: Vec<Rule>,
}

/// Why a rule was refused; the message names the rule.
#[derive(Debug, thiserror::Error)]
pub enum ImageRuleError {
    /// There is no `=`.
    #[error("image rule {rule:?}: expected NAME[:TAG]=COMMAND")]
    NoCommand {
        /// The rule as given.
        rule: String,
    },
    /// The part before `=` is empty or holds spaces.
    #[error("image rule {rule:?}: {pattern:?} is not an image name")]
    BadName {
        /// The rule as given.
        rule: String,
        /// The name in it.
        pattern: String,
    },
    /// The command is empty or its quotes do not close.
    #[error("image rule {rule:?}: {reason}")]
    BadCommand {
        /// The rule as given.
        rule: String,
        /// What is wrong with the command.
        reason: String,
    },
    /// The file is not a map from image names to commands.
    #[error("images file: {0}")]
    BadFile(String),
}

#[derive(Clone, Debug)]
struct Rule {
    name: String,
    tag: Option<String>,
    command: Vec<String>,
}

/// How closely a rule names its images; greater is closer.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Closeness {
    exact_name: bool,
    name_literals: usize,
    exact_tag: bool,
    tag_literals: usize,
    position: usize,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FileCommand {
    Line(String),
    Words(Vec<String>),
}

impl Default for ImageMap {
    fn default() -> Self {
        Self::new()
    }
}

impl ImageMap {
    /// The built-in rules: `sealane:*` is this program, whose subcommand a pod names in `args`, and
    /// `sealane/echo:*` its `echo` command.
    pub fn new() -> Self {
        let rule = |name: &str, command: &[&str]| Rule {
            name: name.into(),
            tag: None,
            command: command.iter().copied().map(Into::into).collect(),
        };
        let rules = vec![
            rule("sealane", &["/proc/self/exe"]),
            rule("sealane/echo", &["/proc/self/exe", "echo"]),
        ];
        Self { rules }
    }

    /// Adds a rule in the form of the `--image` flag; the command is split into words as a shell
    /// would, without expansions.
    pub fn add_flag(&mut self, rule: &str) -> Result<(), ImageRuleError> {
        let (pattern, command) = rule
            .split_once('=')
            .ok_or_else(|| ImageRuleError::NoCommand { rule: rule.into() })?;
        let command = split_command(rule, command)?;
        self.add(rule, pattern, command)
    }

    /// Adds the rules of an `images.yaml`: a map from image names to a command line or a list of
    /// words.
    pub fn add_file(&mut self, text: &str) -> Result<(), ImageRuleError> {
        let rules: BTreeMap<String, FileCommand> = serde_saphyr::from_str(text)
            .map_err(|error| ImageRuleError::BadFile(error.to_string()))?;
        for (pattern, command) in rules {
            let command = match command {
                FileCommand::Line(line) => split_command(&pattern, &line)?,
                FileCommand::Words(words) => words,
            };
            self.add(&pattern, &pattern, command)?;
        }
        Ok(())
    }

    /// The command for an image, if a rule maps it.
    pub fn command(&self, image: &str) -> Option<&[String]> {
        let image = Reference::parse(image)?;
        self.rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| rule.matches(&image))
            .max_by_key(|(position, rule)| rule.closeness(*position))
            .map(|(_, rule)| rule.command.as_slice())
    }

    fn add(
        &mut self,
        rule: &str,
        pattern: &str,
        command: Vec<String>,
    ) -> Result<(), ImageRuleError> {
        let pattern = pattern.trim();
        if pattern.is_empty() || pattern.contains(char::is_whitespace) {
            return Err(ImageRuleError::BadName {
                rule: rule.into(),
                pattern: pattern.into(),
            });
        }
        if command.first().is_none_or(String::is_empty) {
            return Err(ImageRuleError::BadCommand {
                rule: rule.into(),
                reason: "the command is empty".into(),
            });
        }
        let (name, tag) = reference::split_tag(pattern);
        self.rules.push(Rule {
            name: reference::familiar(name).into(),
            tag: tag.map(Into::into),
            command,
        });
        Ok(())
    }
}

impl Rule {
    fn matches(&self, image: &Reference<'_>) -> bool {
        glob(&self.name, image.name)
            && self
                .tag
                .as_deref()
                .is_none_or(|tag| glob(tag, image.tag.unwrap_or("latest")))
    }

    fn closeness(&self, position: usize) -> Closeness {
        let tag = self.tag.as_deref().unwrap_or("*");
        Closeness {
            exact_name: !self.name.contains('*'),
            name_literals: literals(&self.name),
            exact_tag: !tag.contains('*'),
            tag_literals: literals(tag),
            position,
        }
    }
}

fn split_command(rule: &str, command: &str) -> Result<Vec<String>, ImageRuleError> {
    words::split(command).map_err(|reason| ImageRuleError::BadCommand {
        rule: rule.into(),
        reason: reason.into(),
    })
}

fn literals(pattern: &str) -> usize {
    pattern.bytes().filter(|&byte| byte != b'*').count()
}

/// Matches `text` against a pattern in which `*` stands for any run of characters.
///
/// Greedy with one point to fall back to, so the time is bounded by the product of the lengths.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, from)) = star {
            p = at + 1;
            t = from + 1;
            star = Some((at, t));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests;
