//! What is wrong with a configuration, and where.

use std::{collections::HashMap, fmt};

use ::config::{Value, ValueKind};

use super::toml_source::NOT_TOML;

/// One mistake, printed as `file:line:column: error: what (what to do)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `file:line:column`, `environment variable NAME`, `flag NAME`, or empty where nothing more exact is known.
    pub place: String,
    /// Whether the broker starts in spite of it.
    pub severity: Severity,
    /// What is wrong, and what to do about it.
    pub message: String,
}

/// Whether the broker starts in spite of a [`Problem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It does not start.
    Error,
    /// It starts, and says so.
    Warning,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(out, "{}: ", self.place)?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(out, "{severity}: {}", self.message)
    }
}

/// The problems found so far, and where each option was set.
#[derive(Debug, Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
    /// Path of the option, such as `limits.packet_bytes_max` → where it was set. Options at their default are absent.
    places: HashMap<String, String>,
}

impl Problems {
    /// Remembers where the option at `path` was set.
    pub(super) fn set_place(&mut self, path: &str, place: Option<&str>) {
        if let Some(place) = place {
            self.places.insert(path.to_owned(), place.to_owned());
        }
    }

    /// Remembers where the option at `path`, that has this value, was set. Sections lose their place when layers are merged: it is
    /// kept from when the file was parsed.
    pub(super) fn set_place_of(&mut self, path: &str, value: &Value) {
        if value.origin().is_some() || !self.is_set(path) {
            self.set_place(path, place_of(value).as_deref());
        }
    }

    /// Whether the option at `path` was set, rightly or wrongly.
    pub(super) fn is_set(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    /// Whether something in the option at `path` has been found wrong.
    pub(super) fn is_wrong(&self, path: &str) -> bool {
        self.list.iter().any(|problem| problem.message.starts_with(path))
    }

    /// Where `path` was set; the place of the nearest section around it otherwise.
    pub(super) fn place(&self, path: &str) -> String {
        let mut path = path;
        loop {
            if let Some(place) = self.places.get(path) {
                return place.clone();
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return String::new(),
            }
        }
    }

    pub(super) fn error_at(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.push(place.into(), Severity::Error, message.into());
    }

    pub(super) fn warning_at(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.push(place.into(), Severity::Warning, message.into());
    }

    /// An error of the option at `path`, whose name goes before `message`.
    pub(super) fn error(&mut self, path: &str, message: impl fmt::Display) {
        let place = self.place(path);
        self.error_at(place, format!("{path}: {message}"));
    }

    /// A warning about the option at `path`, whose name goes before `message`.
    pub(super) fn warning(&mut self, path: &str, message: impl fmt::Display) {
        let place = self.place(path);
        self.warning_at(place, format!("{path}: {message}"));
    }

    fn push(&mut self, place: String, severity: Severity, message: String) {
        let problem = Problem {
            place,
            severity,
            message,
        };
        if !self.list.contains(&problem) {
            self.list.push(problem);
        }
    }

    /// All problems, in the order of the places they are at.
    pub(super) fn into_sorted(mut self) -> Vec<Problem> {
        // What the parser made of a line that is not TOML is nobody's mistake.
        let line = |problem: &Problem| split_place(&problem.place).map(|(file, line, _)| (file.to_owned(), line));
        let is_syntax = |problem: &Problem| problem.message.starts_with(NOT_TOML);
        let torn: Vec<_> = self
            .list
            .iter()
            .filter(|problem| is_syntax(problem))
            .map(line)
            .collect();
        self.list
            .retain(|problem| is_syntax(problem) || !torn.contains(&line(problem)));
        self.list
            .sort_by_cached_key(|problem| match split_place(&problem.place) {
                Some((file, line, column)) => (0, file.to_owned(), line, column),
                None => (1, problem.place.clone(), 0, 0),
            });
        self.list
    }
}

/// `file:line:column` → its parts; `None` for the environment and for flags.
pub(super) fn split_place(place: &str) -> Option<(&str, usize, usize)> {
    let (rest, column) = place.rsplit_once(':')?;
    let (file, line) = rest.rsplit_once(':')?;
    Some((file, line.parse().ok()?, column.parse().ok()?))
}

/// Where a value was set: its own place, or that of the first value inside it.
pub(super) fn place_of(value: &Value) -> Option<String> {
    if let Some(origin) = value.origin() {
        return Some(origin.to_owned());
    }
    match &value.kind {
        ValueKind::Table(table) => table.values().filter_map(place_of).min(),
        ValueKind::Array(array) => array.iter().find_map(place_of),
        _ => None,
    }
}
