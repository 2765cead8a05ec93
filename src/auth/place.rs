//! Files of users and rules are read line by line; what is wrong is told with the line.

/// What is wrong with one line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// From 1.
    pub line: u32,
    /// What, and what to do about it.
    pub message: String,
}

/// The lines of a file with their numbers from 1, without blanks at the end. CRLF and a byte order mark are fine.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (u32, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    (1..).zip(text.lines().map(str::trim_end))
}
