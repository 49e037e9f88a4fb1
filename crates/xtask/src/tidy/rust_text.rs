//! Splits Rust source into code, comments and the part that is tests, without parsing it.
//!
//! Strings are blanked in the code, so that a rule never trips over its own words in a string.

/// One source file, line by line.
#[derive(Debug)]
pub(crate) struct RustText {
    /// Lines with strings, characters and comments blanked; their length is not kept.
    pub(crate) code: Vec<String>,
    /// The comment text of each line, empty where there is none.
    pub(crate) comments: Vec<String>,
    /// The index of the first line that is test code; the number of lines where there is none.
    pub(crate) tests_from: usize,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Index of the line with `fn`.
    pub(crate) line: usize,
    /// Lines from `fn` to the closing brace, both included.
    pub(crate) length: usize,
}

/// The name of every function of a file, tests included.
pub(crate) fn function_names(text: &str) -> Vec<String> {
    text.lines().filter_map(function_name).collect()
}

impl RustText {
    /// Splits `text`; with `all_tests` every line is test code.
    pub(crate) fn new(text: &str, all_tests: bool) -> Self {
        let (code, comments) = Splitter::default().split(text);
        let tests_from = if all_tests { 0 } else { first_test_line(&code) };
        Self {
            code,
            comments,
            tests_from,
        }
    }

    /// Functions with a body that start before the tests.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        for (line, text) in self.code.iter().enumerate().take(self.tests_from) {
            let Some(name) = function_name(text) else {
                continue;
            };
            if let Some(length) = self.body_length(line, text.find("fn ").unwrap_or(0)) {
                found.push(Function { name, line, length });
            }
        }
        found
    }

    /// Lines from `start` to the brace that closes the first one opened; nothing for a declaration.
    fn body_length(&self, start: usize, column: usize) -> Option<usize> {
        let mut depth = 0usize;
        let mut brackets = 0usize;
        for (offset, text) in self.code.iter().skip(start).enumerate() {
            let text = if offset == 0 {
                text.get(column..)?
            } else {
                text
            };
            for c in text.chars() {
                match c {
                    '(' | '[' => brackets += 1,
                    ')' | ']' => brackets = brackets.saturating_sub(1),
                    ';' if depth == 0 && brackets == 0 => return None,
                    '{' => depth += 1,
                    '}' => {
                        depth = depth.saturating_sub(1);
                        if depth == 0 && brackets == 0 {
                            return Some(offset + 1);
                        }
                    }
                    _ => {}
                }
            }
        }
        None
    }
}

/// The line of the first `#[cfg(test)]` that stands before a module, or the number of lines.
fn first_test_line(code: &[String]) -> usize {
    let is_module = |line: &String| {
        line.trim_start()
            .trim_start_matches("pub(crate) ")
            .starts_with("mod ")
    };
    code.iter()
        .enumerate()
        .position(|(index, line)| {
            let rest = code.get(index + 1..).unwrap_or_default();
            let next = rest
                .iter()
                .find(|line| !line.trim().is_empty() && !line.trim().starts_with("#["));
            line.trim() == "#[cfg(test)]"
                && next.is_some_and(|next| is_module(next) && next.contains('{'))
        })
        .unwrap_or(code.len())
}

fn function_name(code: &str) -> Option<String> {
    let at = code.find("fn ")?;
    let (before, after) = (code.get(..at)?, code.get(at + 3..)?);
    if before
        .chars()
        .next_back()
        .is_some_and(|c| c.is_alphanumeric() || c == '_')
    {
        return None;
    }
    let name: String = after
        .trim_start()
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    (!name.is_empty()).then_some(name)
}

/// What the splitter is inside of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Inside {
    #[default]
    Code,
    LineComment,
    /// How many block comments are open.
    BlockComment(usize),
    Text,
    /// A raw string closed by this many hashes.
    RawText(usize),
}

#[derive(Default)]
struct Splitter {
    inside: Inside,
    code: Vec<String>,
    comments: Vec<String>,
    code_line: String,
    comment_line: String,
}

impl Splitter {
    fn split(mut self, text: &str) -> (Vec<String>, Vec<String>) {
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let taken = match self.inside {
                Inside::Code => self.in_code(rest, c),
                Inside::LineComment => self.in_line_comment(c),
                Inside::BlockComment(depth) => self.in_block_comment(rest, c, depth),
                Inside::Text => self.in_text(rest, c),
                Inside::RawText(hashes) => self.in_raw_text(rest, c, hashes),
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        if !self.code_line.is_empty() || !self.comment_line.is_empty() {
            self.end_line();
        }
        (self.code, self.comments)
    }

    fn end_line(&mut self) {
        self.code.push(std::mem::take(&mut self.code_line));
        self.comments.push(std::mem::take(&mut self.comment_line));
    }

    fn in_code(&mut self, rest: &str, c: char) -> usize {
        if c == '\n' {
            self.end_line();
        } else if rest.starts_with("//") {
            self.inside = Inside::LineComment;
            return 2;
        } else if rest.starts_with("/*") {
            self.inside = Inside::BlockComment(1);
            return 2;
        } else if c == '"' {
            self.code_line.push('"');
            self.inside = Inside::Text;
        } else if let Some((length, hashes)) =
            raw_text_start(rest, self.code_line.chars().next_back())
        {
            self.code_line.push('"');
            self.inside = Inside::RawText(hashes);
            return length;
        } else if let Some(length) = character_length(rest) {
            self.code_line.push_str("' '");
            return length;
        } else {
            self.code_line.push(c);
        }
        c.len_utf8()
    }

    fn in_line_comment(&mut self, c: char) -> usize {
        if c == '\n' {
            self.inside = Inside::Code;
            self.end_line();
        } else {
            self.comment_line.push(c);
        }
        c.len_utf8()
    }

    fn in_block_comment(&mut self, rest: &str, c: char, depth: usize) -> usize {
        if rest.starts_with("/*") {
            self.inside = Inside::BlockComment(depth + 1);
            return 2;
        }
        if rest.starts_with("*/") {
            self.inside = if depth > 1 {
                Inside::BlockComment(depth - 1)
            } else {
                Inside::Code
            };
            return 2;
        }
        if c == '\n' {
            self.end_line();
        } else {
            self.comment_line.push(c);
        }
        c.len_utf8()
    }

    fn in_text(&mut self, rest: &str, c: char) -> usize {
        match c {
            '\n' => self.end_line(),
            '"' => {
                self.code_line.push('"');
                self.inside = Inside::Code;
            }
            '\\' if !rest.starts_with("\\\n") => {
                return rest.chars().take(2).map(char::len_utf8).sum();
            }
            _ => {}
        }
        c.len_utf8()
    }

    fn in_raw_text(&mut self, rest: &str, c: char, hashes: usize) -> usize {
        let close = format!("\"{}", "#".repeat(hashes));
        if rest.starts_with(&close) {
            self.code_line.push('"');
            self.inside = Inside::Code;
            return close.len();
        }
        if c == '\n' {
            self.end_line();
        }
        c.len_utf8()
    }
}

/// Length of `r##"` at the start of `rest` and its hashes, where it is no part of a longer word.
fn raw_text_start(rest: &str, before: Option<char>) -> Option<(usize, usize)> {
    if before.is_some_and(|c| (c.is_alphanumeric() && c != 'b') || c == '_') {
        return None;
    }
    let after = rest.strip_prefix('r')?;
    let hashes = after.chars().take_while(|c| *c == '#').count();
    after
        .get(hashes..)?
        .starts_with('"')
        .then_some((hashes + 2, hashes))
}

/// Length of a character literal at the start of `rest`; a lifetime is none.
fn character_length(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix('\'')?;
    if after.starts_with('\\') {
        let end = after.get(2..)?.find('\'')?;
        return Some(end + 4);
    }
    let c = after.chars().next()?;
    after
        .get(c.len_utf8()..)?
        .starts_with('\'')
        .then_some(c.len_utf8() + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_code_from_comments_and_strings() {
        let text = "let a = \"fn { // no\"; // fn two\nlet b = r#\"} \" fn\"#; /* x\n/* y */ z */ let c = '{';\nlet d: &'a str = '\\'';\n";
        let split = RustText::new(text, false);
        assert_eq!(
            split.code,
            [
                "let a = \"\"; ",
                "let b = \"\"; ",
                " let c = ' ';",
                "let d: &'a str = ' ';"
            ]
        );
        assert_eq!(split.comments[0], " fn two");
        assert_eq!(split.comments[1], " x");
    }

    #[test]
    fn strings_may_run_over_lines() {
        let split = RustText::new("let a = \"one \\\n two { \\\" \";\nlet b;\n", false);
        assert_eq!(split.code, ["let a = \"", "\";", "let b;"]);
    }

    #[test]
    fn finds_where_tests_begin() {
        let text = "fn a() {}\n#[cfg(test)]\nuse b;\n#[cfg(test)]\n#[expect(x)]\nmod tests {\n}\n";
        assert_eq!(RustText::new(text, false).tests_from, 3);
        assert_eq!(RustText::new("fn a() {}\n", false).tests_from, 1);
        assert_eq!(RustText::new("fn a() {}\n", true).tests_from, 0);
    }

    #[test]
    fn measures_functions() {
        let text = "fn one() {\n    if x {\n    }\n}\ntrait T {\n    fn declared(&self) -> [u8; 2];\n}\n\
                    pub async fn two(\n    a: [u8; 3],\n) -> u8 {\n    1\n}\nlet f: fn (u8) = g;\n";
        let found = RustText::new(text, false).functions();
        let shown: Vec<(&str, usize, usize)> = found
            .iter()
            .map(|f| (f.name.as_str(), f.line, f.length))
            .collect();
        assert_eq!(shown, [("one", 0, 4), ("two", 7, 5)]);
    }
}
