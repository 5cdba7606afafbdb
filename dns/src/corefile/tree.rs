//! From words to server blocks with lines, imports and environment variables filled in.
//!
//! `import` is replaced wherever it begins a line, by a snippet (`(name) { … }`) that was defined
//! before, or by files. What an import brings may import again; depth and the sum of words are
//! bounded, since a snippet that imports another one twice doubles it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::problem::{Problem, ProblemKind, Result};
use super::token::{Token, tokens};
use super::{Loader, Warnings};

/// How deep imports may be in each other.
const DEPTH: usize = 16;
/// Words of a configuration with everything that it imports.
const WORDS: usize = 200_000;

/// A server block.
#[derive(Debug)]
pub(super) struct Block {
    /// Its names, at least one.
    pub(super) keys: Vec<Token>,
    /// Its lines.
    pub(super) directives: Vec<Directive>,
}

/// A line of a server block.
#[derive(Debug)]
pub(super) struct Directive {
    /// The plugin.
    pub(super) name: Token,
    /// The words behind it.
    pub(super) args: Vec<Token>,
    /// The lines of its braces.
    pub(super) lines: Vec<Line>,
    /// A brace within its braces. Nothing that is supported has such.
    pub(super) nested: Option<Token>,
}

/// A line in the braces of a directive.
#[derive(Debug)]
pub(super) struct Line {
    /// The property.
    pub(super) name: Token,
    /// The words behind it.
    pub(super) args: Vec<Token>,
}

/// Reads the blocks of a text.
pub(super) fn blocks(
    text: &str,
    file: &str,
    loader: &dyn Loader,
    warnings: &mut Warnings,
) -> Result<Vec<Block>> {
    let mut expander = Expander {
        loader,
        warnings,
        snippets: HashMap::new(),
        nesting: 0,
        out: Vec::new(),
    };
    expander.expand(tokens(text, &file.into()), 0)?;
    let mut parser = Parser {
        tokens: expander.out.into_iter().peekable(),
    };
    parser.blocks()
}

struct Expander<'a> {
    loader: &'a dyn Loader,
    warnings: &'a mut Warnings,
    snippets: HashMap<String, Vec<Token>>,
    /// Braces that are open.
    nesting: usize,
    out: Vec<Token>,
}

type Tokens = std::iter::Peekable<std::vec::IntoIter<Token>>;

/// The rest of a line.
fn rest_of_line(tokens: &mut Tokens) -> Vec<Token> {
    std::iter::from_fn(|| tokens.next_if(|next| !next.starts_line)).collect()
}

impl Expander<'_> {
    fn expand(&mut self, tokens: Vec<Token>, depth: usize) -> Result<()> {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(mut token) = tokens.next() {
            if token.starts_line && token.is("import") {
                let args = rest_of_line(&mut tokens);
                self.import(&token, args, depth)?;
                continue;
            }
            if let Some(name) = self.snippet_name(&token, &mut tokens) {
                let body = snippet_body(&token, &mut tokens)?;
                if self.snippets.insert(name.clone(), body).is_some() {
                    return Err(token.problem(
                        ProblemKind::Syntax,
                        format!(
                            "there is a snippet '({name})' already; give this one another name"
                        ),
                    ));
                }
                continue;
            }
            token.text = self.fill_in(&token);
            if token.is("{") {
                self.nesting += 1;
            } else if token.is("}") {
                self.nesting = self.nesting.saturating_sub(1);
            }
            if self.out.len() == WORDS {
                let message = format!("with its imports the Corefile has over {WORDS} words");
                return Err(token.problem(ProblemKind::Syntax, message));
            }
            self.out.push(token);
        }
        Ok(())
    }

    /// The name of a snippet that is defined here.
    fn snippet_name(&self, token: &Token, tokens: &mut Tokens) -> Option<String> {
        let name = token.text.strip_prefix('(')?.strip_suffix(')')?;
        let is_one = self.nesting == 0
            && token.starts_line
            && tokens.peek().is_some_and(|next| next.is("{"));
        is_one.then(|| name.to_owned())
    }

    fn import(&mut self, import: &Token, args: Vec<Token>, depth: usize) -> Result<()> {
        let syntax = |message: String| Err(import.problem(ProblemKind::Syntax, message));
        let [what] = args.as_slice() else {
            return syntax(
                "'import' takes one argument: a snippet, a file or a pattern of files".to_owned(),
            );
        };
        let what = self.fill_in(what);
        if what.is_empty() {
            return syntax("'import' needs a snippet, a file or a pattern of files".to_owned());
        }
        if depth == DEPTH {
            return syntax(format!(
                "imports are over {DEPTH} deep; does one import itself?"
            ));
        }
        if let Some(snippet) = self.snippets.get(&what) {
            return self.expand(snippet.clone(), depth + 1);
        }
        let path = Path::new(&*import.place.file);
        let pattern = path.parent().unwrap_or(Path::new("")).join(&what);
        for file in self.files(import, &what, &pattern)? {
            let read = self.loader.read(&file);
            let text = read.map_err(|error| {
                let message = format!("cannot import {}: {error}", file.display());
                import.problem(ProblemKind::Syntax, message)
            })?;
            let file: Arc<str> = file.to_string_lossy().into();
            self.expand(tokens(&text, &file), depth + 1)?;
        }
        Ok(())
    }

    /// The files that are meant.
    fn files(&mut self, import: &Token, what: &str, pattern: &Path) -> Result<Vec<PathBuf>> {
        let has = |wild: char| what.matches(wild).count();
        if has('*') + has('?') > 1 || has('[') > 0 {
            return Err(import.problem(
                ProblemKind::Syntax,
                format!("'import {what}': a pattern may have one wildcard, '*' or '?'"),
            ));
        }
        if has('*') + has('?') == 0 {
            return Ok(vec![pattern.to_owned()]);
        }
        let found = self.loader.glob(pattern).map_err(|error| {
            let message = format!("cannot import {what}: {error}");
            import.problem(ProblemKind::Syntax, message)
        })?;
        if found.is_empty() {
            let message = format!("no files match '{what}', so nothing is imported");
            self.warnings
                .push(import.problem(ProblemKind::NoEffect, message));
        }
        Ok(found)
    }

    /// The word with `{$NAME}` and `{%NAME%}` replaced; what they are replaced by is not looked at
    /// again.
    fn fill_in(&mut self, token: &Token) -> String {
        let mut rest = token.text.as_str();
        let mut out = String::new();
        while let Some(begin) = rest.find("{$").into_iter().chain(rest.find("{%")).min() {
            let (before, reference) = rest.split_at(begin);
            let end = if reference.starts_with("{$") {
                "}"
            } else {
                "%}"
            };
            let Some((name, after)) = reference[2..]
                .split_once(end)
                .filter(|(name, _)| !name.is_empty())
            else {
                break;
            };
            out.push_str(before);
            match self.loader.env(name) {
                Some(value) => out.push_str(&value),
                None => self.warnings.push(token.problem(
                    ProblemKind::NoEffect,
                    format!("the environment variable {name} is not set, so it stands for nothing"),
                )),
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }
}

/// The words between the braces of a snippet.
fn snippet_body(name: &Token, tokens: &mut Tokens) -> Result<Vec<Token>> {
    let mut body = Vec::new();
    let mut nesting = 0;
    for token in tokens {
        if token.is("{") {
            nesting += 1;
            if nesting == 1 {
                continue;
            }
        } else if token.is("}") {
            nesting -= 1;
            if nesting == 0 {
                // What is imported begins a line, wherever it was written.
                if let Some(first) = body.first_mut() {
                    let first: &mut Token = first;
                    first.starts_line = true;
                }
                return Ok(body);
            }
        }
        body.push(token);
    }
    Err(unclosed(name))
}

fn unclosed(opened_by: &Token) -> Problem {
    let message = format!("the '{{' of '{}' is never closed", opened_by.text);
    opened_by.problem(ProblemKind::Syntax, message)
}

/// A closing brace that is not where it has to be.
fn misplaced(brace: &Token) -> Problem {
    brace.problem(ProblemKind::Syntax, "'}' must stand on a line of its own")
}

struct Parser {
    tokens: Tokens,
}

impl Parser {
    fn blocks(&mut self) -> Result<Vec<Block>> {
        let mut blocks = Vec::new();
        while self.tokens.peek().is_some() {
            let keys = self.keys()?;
            let Some(first) = keys.first().cloned() else {
                continue;
            };
            let has_braces = self.tokens.next_if(|next| next.is("{")).is_some();
            let directives = self.directives(&first, has_braces)?;
            blocks.push(Block { keys, directives });
        }
        Ok(blocks)
    }

    /// The names before a block: those of a line, and of the next one if a comma ends it.
    fn keys(&mut self) -> Result<Vec<Token>> {
        let mut keys: Vec<Token> = Vec::new();
        let mut comma: Option<Token> = None;
        while let Some(next) = self.tokens.peek() {
            if next.is("{") {
                if let Some(comma) = &comma {
                    let message = "a name has to follow the comma";
                    return Err(comma.problem(ProblemKind::Syntax, message));
                }
                if keys.is_empty() {
                    let message = "a block needs a name before its '{', such as '.:53'";
                    return Err(next.problem(ProblemKind::Syntax, message));
                }
                break;
            }
            if next.is("}") {
                let message = "there is no '{' that this '}' closes";
                return Err(next.problem(ProblemKind::Syntax, message));
            }
            if next.starts_line && !keys.is_empty() && comma.is_none() {
                break;
            }
            let Some(mut key) = self.tokens.next() else {
                break;
            };
            comma = key.text.ends_with(',').then(|| key.clone());
            if comma.is_some() {
                key.text.pop();
            }
            // A variable that is not set leaves nothing.
            if !key.text.is_empty() {
                keys.push(key);
            }
        }
        match comma {
            Some(comma) if self.tokens.peek().is_none() => {
                let message = "a name has to follow the comma";
                Err(comma.problem(ProblemKind::Syntax, message))
            }
            _ => Ok(keys),
        }
    }

    /// The lines of a block; without braces, all that are left.
    fn directives(&mut self, key: &Token, has_braces: bool) -> Result<Vec<Directive>> {
        let mut directives = Vec::new();
        while let Some(name) = self.tokens.next() {
            if name.is("}") {
                if has_braces {
                    return Ok(directives);
                }
                let message = "there is no '{' that this '}' closes";
                return Err(name.problem(ProblemKind::Syntax, message));
            }
            if name.is("{") {
                let message = "'{' must stand on the line of what it belongs to";
                return Err(name.problem(ProblemKind::Syntax, message));
            }
            directives.push(self.directive(name)?);
        }
        if has_braces {
            return Err(unclosed(key));
        }
        Ok(directives)
    }

    fn directive(&mut self, name: Token) -> Result<Directive> {
        let mut args = rest_of_line(&mut self.tokens);
        let opening = args.iter().position(|arg| arg.is("{"));
        if let Some(brace) = args.iter().find(|arg| arg.is("}")) {
            return Err(misplaced(brace));
        }
        let mut directive = Directive {
            name,
            args: Vec::new(),
            lines: Vec::new(),
            nested: None,
        };
        if let Some(opening) = opening {
            if let Some(brace) = args[opening + 1..].iter().find(|arg| arg.is("{")) {
                let message = "one '{' is open on this line already";
                return Err(brace.problem(ProblemKind::Syntax, message));
            }
            // A property may stand behind the brace.
            let mut behind = args.split_off(opening).into_iter().skip(1);
            if let Some(property) = behind.next() {
                let args = behind.collect();
                directive.lines.push(Line {
                    name: property,
                    args,
                });
            }
            self.lines(&mut directive)?;
        }
        directive.args = args;
        Ok(directive)
    }

    fn lines(&mut self, directive: &mut Directive) -> Result<()> {
        let mut nesting = 1;
        while let Some(name) = self.tokens.next() {
            if name.is("}") {
                nesting -= 1;
                if nesting == 0 {
                    return Ok(());
                }
                continue;
            }
            let args = rest_of_line(&mut self.tokens);
            if let Some(brace) = args.iter().find(|arg| arg.is("}")) {
                return Err(misplaced(brace));
            }
            let braces = args.iter().chain([&name]).filter(|arg| arg.is("{"));
            let braces: Vec<&Token> = braces.collect();
            if let Some(brace) = braces.first() {
                nesting += braces.len();
                directive.nested.get_or_insert_with(|| (*brace).clone());
            }
            directive.lines.push(Line { name, args });
        }
        Err(unclosed(&directive.name))
    }
}
