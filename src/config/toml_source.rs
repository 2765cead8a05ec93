//! One TOML file as a layer for the `config` crate in which every value knows its file, line and column.

use ::config::{ConfigError, Map, Source, Value, ValueKind};
use toml::de::{DeTable, DeValue};

use super::problem::Problems;

/// What a syntax error begins with.
pub(super) const NOT_TOML: &str = "not TOML: ";

/// A parsed file.
#[derive(Clone, Debug)]
pub(super) struct TomlSource {
    values: Map<String, Value>,
}

impl TomlSource {
    /// Parses `text`; `file` is its name in messages. Every syntax error goes to `problems`. A byte order mark and CRLF are fine.
    pub(super) fn parse(file: &str, text: &str, problems: &mut Problems) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let places = Places { file, text };
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            let message = places.unquoted(at).unwrap_or_else(|| error.message().to_owned());
            problems.error_at(places.of(at), format!("{NOT_TOML}{message}"));
        }
        Self {
            values: places.table(document.get_ref(), "", problems),
        }
    }

    /// Every option set in this file with its place, sections left out.
    pub(super) fn leaves(&self) -> Vec<(String, String)> {
        let mut leaves = Vec::new();
        collect_leaves("", &self.values, &mut leaves);
        leaves
    }
}

impl Source for TomlSource {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.values.clone())
    }
}

fn collect_leaves(path: &str, table: &Map<String, Value>, leaves: &mut Vec<(String, String)>) {
    for (name, value) in table {
        let path = super::option::join(path, name);
        match &value.kind {
            ValueKind::Table(table) => collect_leaves(&path, table, leaves),
            _ => leaves.push((path, super::problem::place_of(value).unwrap_or_default())),
        }
    }
}

/// Turns offsets into places.
struct Places<'a> {
    file: &'a str,
    text: &'a str,
}

impl Places<'_> {
    /// Line and column count from 1, columns in characters.
    fn of(&self, offset: usize) -> String {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
        format!("{}:{line}:{column}", self.file)
    }

    /// The most frequent mistake deserves better words than the parser has for it: `level = info`.
    fn unquoted(&self, offset: usize) -> Option<String> {
        let line_start = self.text.get(..offset)?.rfind('\n').map_or(0, |end| end + 1);
        let (name, value) = self.text.get(line_start..)?.lines().next()?.split_once('=')?;
        let value = value.split('#').next()?.trim();
        let is_bare = value.starts_with(|first: char| first.is_alphabetic()) && !value.contains(['"', '\'', '[', '{']);
        match value.to_ascii_lowercase().as_str() {
            // TOML itself is content with these: the mistake is another one.
            "true" | "false" if value.chars().all(char::is_lowercase) => None,
            "true" | "yes" | "on" => Some(format!("yes or no is true or false, write {} = true", name.trim())),
            "false" | "no" | "off" => Some(format!("yes or no is true or false, write {} = false", name.trim())),
            _ => is_bare.then(|| format!("a text needs quotes, write {} = {value:?}", name.trim())),
        }
    }

    /// The place of a value with a name is that of its name: this is where an editor should jump to.
    fn table(&self, table: &DeTable<'_>, path: &str, problems: &mut Problems) -> Map<String, Value> {
        let mut values = Map::new();
        for (key, value) in table {
            let name = key.get_ref().to_string();
            let place = self.of(key.span().start);
            let path = super::option::join(path, &name);
            if value.get_ref().is_table() {
                problems.set_place(&path, Some(&place));
            }
            if let Some(value) = self.value(value.get_ref(), place, &path, problems) {
                values.insert(name, value);
            }
        }
        values
    }

    fn value(&self, value: &DeValue<'_>, place: String, path: &str, problems: &mut Problems) -> Option<Value> {
        let kind = match value {
            DeValue::String(text) => ValueKind::String(text.to_string()),
            DeValue::Boolean(flag) => ValueKind::Boolean(*flag),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => ValueKind::I64(number),
                Err(_) => {
                    problems.error_at(place, format!("{path}: the number {number} is too large"));
                    return None;
                }
            },
            DeValue::Float(number) => ValueKind::String(number.to_string()),
            DeValue::Datetime(moment) => ValueKind::String(moment.to_string()),
            DeValue::Array(values) => ValueKind::Array(
                values
                    .iter()
                    .enumerate()
                    .filter_map(|(index, value)| {
                        let place = self.of(value.span().start);
                        self.value(value.get_ref(), place, &format!("{path}[{index}]"), problems)
                    })
                    .collect(),
            ),
            DeValue::Table(table) => ValueKind::Table(self.table(table, path, problems)),
        };
        Some(Value::new(Some(&place), kind))
    }
}
