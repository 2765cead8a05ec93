//! What comes of an import: a configuration in which each line says where it comes from, files beside it, and remarks.

use std::fmt;
use std::path::{Path, PathBuf};

use super::grammar::{Line, Place};

/// How much a remark weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Sundew does not do what the line said.
    NotCarried,
    /// Sundew does, but there is something to know.
    Note,
    /// Nothing is lost without it.
    LeftOut,
}

/// Something about a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// How much it weighs.
    pub weight: Weight,
    /// About which.
    pub place: Option<Place>,
    /// The line, what it did, and what to use instead.
    pub text: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(match self.weight {
            Weight::NotCarried => "not carried: ",
            Weight::Note => "note: ",
            Weight::LeftOut => "left out: ",
        })?;
        f.write_str(&one_line(&self.text))
    }
}

/// A file to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// Beside the configuration.
    pub name: String,
    /// What is in it.
    pub text: String,
    /// What it was made of.
    pub from: Option<PathBuf>,
    /// Nobody else may read it.
    pub is_secret: bool,
    /// The line that names it.
    pub made_for: Option<Place>,
}

/// `key = value`, with where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    text: String,
    from: String,
}

impl Entry {
    fn is_of(&self, key: &str) -> bool {
        self.text.split_once(" = ").is_some_and(|(name, _)| name == key)
    }
}

/// A table of TOML.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    header: String,
    from: String,
    entries: Vec<Entry>,
}

impl Table {
    /// `[auth]` or `[[listeners]]`; `from` is said behind it where it is not empty.
    pub fn new(header: &str, from: impl fmt::Display) -> Self {
        Self {
            header: header.to_owned(),
            from: from.to_string(),
            entries: Vec::new(),
        }
    }

    /// Sets an option, once: the last value counts. The value as TOML.
    pub fn set(&mut self, key: &str, value: impl fmt::Display, from: impl fmt::Display) {
        let entry = Entry {
            text: format!("{key} = {value}"),
            from: from.to_string(),
        };
        match self.entries.iter_mut().find(|entry| entry.is_of(key)) {
            Some(there) => *there = entry,
            None => self.entries.push(entry),
        }
    }

    /// Whether it has an option.
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.is_of(key))
    }

    /// The same with a text as value.
    pub fn text(&mut self, key: &str, value: &str, from: impl fmt::Display) {
        self.set(key, quoted(value), from);
    }
}

/// What comes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// In the order in which they are written; those without entries are left out, but for listeners.
    pub tables: Vec<Table>,
    /// Beside the configuration.
    pub files: Vec<NewFile>,
    /// In no order.
    pub remarks: Vec<Remark>,
    /// Lines at the end, as comments.
    pub later: Vec<String>,
}

impl Outcome {
    /// Says that a line is not carried.
    pub fn not_carried(&mut self, line: &Line, why: impl fmt::Display) {
        self.about(Weight::NotCarried, line, why);
    }

    /// Says something about a line.
    pub fn note(&mut self, line: &Line, what: impl fmt::Display) {
        self.about(Weight::Note, line, what);
    }

    /// Says that a line is not needed.
    pub fn left_out(&mut self, line: &Line, why: impl fmt::Display) {
        self.about(Weight::LeftOut, line, why);
    }

    fn about(&mut self, weight: Weight, line: &Line, text: impl fmt::Display) {
        let shown = if line.value.is_empty() || is_secret(&line.name) {
            line.name.clone()
        } else {
            format!("{} {}", line.name, line.value)
        };
        self.remark(weight, Some(line.place.clone()), format!("{shown}: {text}"));
    }

    /// Says something.
    pub fn remark(&mut self, weight: Weight, place: Option<Place>, text: String) {
        self.remarks.push(Remark { weight, place, text });
    }

    /// Adds a file under its own name, or, where another one has that, with a number; the name it got.
    pub fn add_file(&mut self, wanted: &str, text: String, from: Option<&Path>, is_secret: bool) -> String {
        let same = |file: &&NewFile| from.is_some() && file.from.as_deref() == from;
        if let Some(there) = self.files.iter().find(same) {
            return there.name.clone();
        }
        let is_free = |name: &String| name != CONFIGURATION && self.files.iter().all(|file| file.name != *name);
        let numbered = (2..).map(|number| format!("{wanted}-{number}"));
        let name = std::iter::once(wanted.to_owned()).chain(numbered).find(is_free);
        let name = name.unwrap_or_default(); // an endless list has a free one
        self.files.push(NewFile {
            name: name.clone(),
            text,
            from: from.map(Path::to_owned),
            is_secret,
            made_for: None,
        });
        name
    }

    /// Remembers the line that a file is made for.
    pub fn set_made_for(&mut self, name: &str, place: &Place) {
        for file in self.files.iter_mut().filter(|file| file.name == name) {
            file.made_for = Some(place.clone());
        }
    }

    /// True where nothing is lost.
    pub fn is_whole(&self) -> bool {
        self.remarks.iter().all(|remark| remark.weight != Weight::NotCarried)
    }

    /// The configuration.
    pub fn configuration(&self, of: &str) -> String {
        let mut text = format!(
            "# Made by `sundew import mosquitto` of {}: what differs from Sundew's defaults.\n",
            one_line(of)
        );
        let is_needed = |table: &&Table| !table.entries.is_empty();
        for table in self.tables.iter().filter(is_needed) {
            text.push('\n');
            let widest = table.entries.iter().map(|entry| entry.text.chars().count());
            let width = widest.filter(|width| *width <= COMMENT_COLUMN_MAX).max().unwrap_or(0);
            commented(&mut text, &table.header, width.max(table.header.len()), &table.from);
            for entry in &table.entries {
                commented(&mut text, &entry.text, width.max(table.header.len()), &entry.from);
            }
        }
        if !self.later.is_empty() {
            text.push('\n');
        }
        for line in &self.later {
            text.push_str(&format!("# {}\n", one_line(line)));
        }
        text
    }
}

/// Name of the configuration in the directory that is written.
pub const CONFIGURATION: &str = "sundew.toml";

/// Longer lines have their comment right behind them.
const COMMENT_COLUMN_MAX: usize = 60;

fn commented(text: &mut String, line: &str, width: usize, from: &str) {
    if from.is_empty() {
        text.push_str(&format!("{line}\n"));
    } else {
        let from = one_line(from);
        text.push_str(&format!("{line:width$}  # {from}\n"));
    }
}

/// A comment, and what is told, ends with its line, whatever somebody put into a value.
fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

/// Options that hold a password.
pub fn is_secret(name: &str) -> bool {
    let is_of_a_file = ["password_file", "password_path"].iter().any(|end| name.ends_with(end));
    !is_of_a_file
        && ["pass", "psk", "secret", "token"]
            .iter()
            .any(|word| name.contains(word))
}

/// A text as TOML.
pub fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A list of texts as TOML: one alone is no list.
pub fn list(texts: &[String]) -> String {
    match texts {
        [one] => quoted(one),
        texts => all(texts),
    }
}

/// The same, a list always.
pub fn all(texts: &[String]) -> String {
    let quoted: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", quoted.join(", "))
}
