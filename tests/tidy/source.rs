//! A Rust file as tidy sees it: its text, and its code with comments and literals blanked out.

use std::fs;
use std::path::Path;

/// One Rust file.
pub(crate) struct SourceFile {
    /// From the top of the package, with `/`.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    /// Same lines, but comments and the insides of literals are blank.
    code: String,
}

impl SourceFile {
    /// Reads a file.
    pub(crate) fn read(root: &Path, path: String) -> Self {
        let text = fs::read_to_string(root.join(&path)).unwrap();
        let code = code_of(&text);
        Self { path, text, code }
    }

    /// `src/codec/reader.rs` → `codec/reader`, `src/codec/mod.rs` → `codec`.
    pub(crate) fn module_path(&self) -> String {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        path.trim_end_matches("/mod").to_owned()
    }

    /// Every path into the crate that the code names, as a module path, with its line: `crate::codec::Reader` →
    /// `codec/Reader`; `super::` is resolved against the file. Of a list in braces, each entry.
    pub(crate) fn crate_paths(&self) -> Vec<(usize, String)> {
        let own: Vec<&str> = self
            .path
            .trim_start_matches("src/")
            .trim_end_matches(".rs")
            .split('/')
            .collect();
        let mut found = Vec::new();
        for (at, _) in self
            .code
            .match_indices("crate::")
            .chain(self.code.match_indices("super::"))
        {
            let before = self.code[..at].chars().next_back();
            if before.is_some_and(|c| c == ':' || c.is_alphanumeric() || c == '_') {
                continue;
            }
            let rest = &self.code[at..];
            let (mut base, mut rest) = match rest.strip_prefix("crate::") {
                Some(rest) => (Vec::new(), rest),
                None => (own.clone(), rest),
            };
            while let Some(after) = rest.strip_prefix("super::") {
                base.pop();
                rest = after;
            }
            let line = self.code[..at].matches('\n').count() + 1;
            let names = names_at(rest);
            found.extend(names.into_iter().map(|name| (line, [base.join("/"), name].join("/"))));
        }
        found
            .into_iter()
            .map(|(line, path)| (line, path.trim_start_matches('/').to_owned()))
            .collect()
    }

    /// Each banned word that the code contains, with the reason.
    pub(crate) fn findings(&self, banned: &[(&str, &str)]) -> Vec<String> {
        let mut found = Vec::new();
        for (number, line) in self.code.lines().enumerate() {
            for (word, reason) in banned {
                // What follows may go on: `tokio_rustls` is as banned as `tokio`.
                let is_whole = |at: usize| {
                    let before = line[..at].chars().next_back();
                    word.starts_with('.') || !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
                };
                if line.match_indices(word).any(|(at, _)| is_whole(at)) {
                    found.push(format!("{}:{}: {word} ({reason})", self.path, number + 1));
                }
            }
        }
        found
    }

    /// Every function with a body: the line it starts at, its name, how many lines it has.
    pub(crate) fn functions(&self) -> Vec<(usize, String, usize)> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            let before = self.code[..at].chars().next_back();
            if before.is_some_and(|c| !c.is_whitespace() && c != '(') {
                continue;
            }
            let rest = &self.code[at + 3..];
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(open) = body_start(rest).filter(|_| !name.is_empty()) else {
                continue;
            };
            let body = body_at(&rest[open..]);
            let length = rest[..open].matches('\n').count() + body.matches('\n').count() + 1;
            found.push((self.code[..at].matches('\n').count() + 1, name, length));
        }
        found
    }

    /// The doc comment above a test function of that name, if there is such a test.
    pub(crate) fn doc_of_test(&self, name: &str) -> Option<String> {
        let lines: Vec<&str> = self.text.lines().collect();
        let at = lines
            .iter()
            .position(|line| line.trim_start().starts_with(&format!("fn {name}(")))?;
        let above = |line: &&&str| line.trim_start().starts_with("///") || line.trim_start().starts_with("#[");
        let mut head: Vec<&str> = lines[..at].iter().rev().take_while(above).copied().collect();
        head.reverse();
        head.iter()
            .any(|line| line.trim() == "#[test]")
            .then(|| head.join("\n"))
    }
}

/// The names that a path can go on with: one, or each of a list in braces.
fn names_at(rest: &str) -> Vec<String> {
    let name = |text: &str| {
        let path = text.trim().replace("::", "/");
        path.chars()
            .take_while(|c| c.is_alphanumeric() || "_/".contains(*c))
            .collect::<String>()
    };
    match rest.strip_prefix('{') {
        Some(list) => list
            .split('}')
            .next()
            .unwrap_or_default()
            .split(',')
            .map(name)
            .collect(),
        None => vec![name(rest)],
    }
}

/// Where the body of a function opens; `None` for a declaration. The semicolon of `[u8; 4]` ends nothing.
fn body_start(signature: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in signature.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(at),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// From an opening brace to the one that closes it.
fn body_at(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return &text[..=at],
            '}' => depth -= 1,
            _ => {}
        }
    }
    text
}

/// The code of a file: every character of comments and inside literals becomes a blank, lines stay lines.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = literal_or_comment(rest, code.chars().next_back());
        match skipped {
            0 => {
                code.push(c);
                rest = &rest[c.len_utf8()..];
            }
            length => {
                code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
                rest = &rest[length..];
            }
        }
    }
    code
}

/// How many bytes of a literal or a comment start here; 0 for code.
fn literal_or_comment(text: &str, before: Option<char>) -> usize {
    let to_end_of = |end: &str, from: usize| text[from..].find(end).map_or(text.len(), |at| from + at + end.len());
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return to_end_of("*/", 2);
    }
    let is_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let unprefixed = text.strip_prefix('b').unwrap_or(text);
    if let Some(raw) = unprefixed.strip_prefix('r').filter(|_| !is_word) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let start = text.len() - raw.len() + hashes + 1;
            return to_end_of(&format!("\"{}", "#".repeat(hashes)), start);
        }
    }
    if text.starts_with('"') {
        return closing(text, '"');
    }
    // A quote starts a character unless it is a lifetime: 'a' against 'a.
    let mut chars = text.chars();
    match (chars.next(), chars.next(), chars.next()) {
        (Some('\''), Some('\\'), _) => closing(text, '\''),
        (Some('\''), Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 0,
    }
}

/// Bytes up to and with the closing quote, escapes jumped over.
fn closing(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}
