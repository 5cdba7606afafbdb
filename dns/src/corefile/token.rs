//! Words of a Corefile.
//!
//! White space ends a word, `"` at the start of one makes it last until the next `"` (only `\"` is an
//! escape), `#` hides the rest of the line wherever it stands outside of quotes.

use std::fmt;
use std::sync::Arc;

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A word.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// The word without its quotes.
    pub(super) text: String,
    /// Where it begins.
    pub(super) place: Place,
    /// It is the first of its line.
    pub(super) starts_line: bool,
    is_quoted: bool,
}

impl Token {
    /// The word is this one, not in quotes.
    pub(super) fn is(&self, word: &str) -> bool {
        !self.is_quoted && self.text == word
    }
}

/// The words of a text.
pub(super) fn tokens(text: &str, file: &Arc<str>) -> Vec<Token> {
    let mut lexer = Lexer {
        tokens: Vec::new(),
        file,
        line: 1,
        starts_line: true,
    };
    // An editor's mark that the text is UTF-8.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    lexer.run(text);
    lexer.tokens
}

struct Lexer<'a> {
    tokens: Vec<Token>,
    file: &'a Arc<str>,
    line: u32,
    /// No word of this line was seen yet.
    starts_line: bool,
}

impl Lexer<'_> {
    fn run(&mut self, text: &str) {
        let mut chars = text.chars().peekable();
        while let Some(&next) = chars.peek() {
            match next {
                '\n' => {
                    self.line += 1;
                    self.starts_line = true;
                    chars.next();
                }
                '#' => while chars.next_if(|&c| c != '\n').is_some() {},
                '"' => {
                    chars.next();
                    self.quoted(&mut chars);
                }
                space if space.is_whitespace() => {
                    chars.next();
                }
                _ => {
                    let mut word = String::new();
                    while let Some(c) = chars.next_if(|&c| !c.is_whitespace() && c != '#') {
                        word.push(c);
                    }
                    self.push(word, self.line, false);
                }
            }
        }
    }

    fn quoted(&mut self, chars: &mut impl Iterator<Item = char>) {
        let (begin, mut word, mut is_escaped) = (self.line, String::new(), false);
        for c in chars {
            match c {
                '"' if !is_escaped => break,
                '\\' if !is_escaped => {
                    is_escaped = true;
                    continue;
                }
                '\n' => self.line += 1,
                _ => {}
            }
            if is_escaped && c != '"' {
                word.push('\\');
            }
            is_escaped = false;
            word.push(c);
        }
        self.push(word, begin, true);
    }

    fn push(&mut self, text: String, line: u32, is_quoted: bool) {
        self.tokens.push(Token {
            text,
            place: Place {
                file: Arc::clone(self.file),
                line,
            },
            starts_line: std::mem::take(&mut self.starts_line),
            is_quoted,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_corefile_words() {
        for (name, text, expected) in [
            ("nothing", "  \n\t# all of it\n", ""),
            (
                "lines",
                ".:53 {\n  errors\n}\n",
                "1! .:53|1 {|2! errors|3! }",
            ),
            ("carriage returns", "a b\r\nc\r\n", "1! a|1 b|2! c"),
            ("comment behind a word", "a b # c d\ne", "1! a|1 b|2! e"),
            (
                "comment in a word, as CoreDNS has it",
                "a#b c\nd",
                "1! a|2! d",
            ),
            (
                "quotes",
                "log . \"{remote} # {name}\" x",
                "1! log|1 .|1 {remote} # {name}|1 x",
            ),
            ("escapes", r#"a "b\"c\d\\" e"#, r#"1! a|1 b"c\d\\|1 e"#),
            (
                "quotes over lines",
                "a \"b\nc\" d\ne",
                "1! a|1 b\nc|2 d|3! e",
            ),
            ("quotes within a word are kept", "a\"b c", "1! a\"b|1 c"),
            ("quotes without an end", "a \"b c", "1! a|1 b c"),
            ("empty quotes", "a \"\" b", "1! a|1 |1 b"),
            ("byte order mark", "\u{feff}.:53", "1! .:53"),
        ] {
            let file: Arc<str> = "Corefile".into();
            let words = tokens(text, &file).into_iter().map(|token| {
                let mark = if token.starts_line { "!" } else { "" };
                format!("{}{mark} {}", token.place.line, token.text)
            });
            assert_eq!(words.collect::<Vec<_>>().join("|"), expected, "{name}");
        }
    }
}
