//! The numbered statements of the two standards: `tests/spec/*.toml` maps each to the test that shows it on a socket, or to the
//! reason why there is none. A tag in the code names a statement: `[MQTT-3.1.2-24]` of MQTT 5.0, `[MQTT311-3.1.2-24]` of 3.1.1.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::source::SourceFile;
use crate::{check, root, rust_files};

/// A list, the prefix of its tags, and how many statements the standard has.
const LISTS: [(&str, &str, usize); 2] = [
    ("mqtt5.toml", "MQTT-", 251),
    ("mqtt311.toml", "MQTT311-", STATEMENTS_311),
];
const STATEMENTS_311: usize = 141;

#[test]
fn every_statement_has_a_test_that_carries_its_tag_or_a_reason_why_not() {
    let files = rust_files();
    let mut faults = Vec::new();
    for (list, prefix, count) in LISTS {
        let statements = read(list);
        if statements.len() != count {
            faults.push(format!(
                "{list}: {} statements, the standard has {count}",
                statements.len()
            ));
        }
        for (id, entry) in statements {
            let tag = format!("[{}]", id.replacen("MQTT-", prefix, 1));
            let field = |name: &str| {
                entry
                    .get(name)
                    .and_then(toml::Value::as_str)
                    .filter(|text| !text.is_empty())
            };
            let fault = match (field("text"), field("test"), field("exception")) {
                (None, ..) => Some("has no text".to_owned()),
                (_, Some(test), None) => fault_of_test(&files, test, &tag),
                (_, None, Some(_)) => None,
                _ => Some("needs either a test or an exception".to_owned()),
            };
            faults.extend(fault.map(|fault| format!("{list}: {id} {fault}")));
        }
    }
    check(
        &faults,
        "a requirement without a test is a wish; a gap is an entry with a reason, not a silence",
    );
}

#[test]
fn every_tag_in_the_code_names_a_statement_of_a_standard() {
    let mut known = BTreeSet::new();
    for (list, prefix, _) in LISTS {
        known.extend(read(list).into_keys().map(|id| id.replacen("MQTT-", prefix, 1)));
    }
    let mut faults = Vec::new();
    for file in rust_files().iter().filter(|file| !file.path.starts_with("tests/tidy")) {
        for (number, line) in file.text.lines().enumerate() {
            for tag in tags_of(line).filter(|tag| !known.contains(*tag)) {
                faults.push(format!("{}:{}: [{tag}]", file.path, number + 1));
            }
        }
    }
    check(
        &faults,
        "a tag is looked up in the standard by the next reader (3.1.1 has tags of its own: [MQTT311-…])",
    );
}

fn read(list: &str) -> BTreeMap<String, toml::Table> {
    let text = fs::read_to_string(root().join("tests/spec").join(list)).unwrap();
    toml::from_str(&text).unwrap_or_else(|error| panic!("tests/spec/{list}: {error}"))
}

/// `it::retained::name` is the test `name` in `tests/it/retained.rs`.
fn fault_of_test(files: &[SourceFile], test: &str, tag: &str) -> Option<String> {
    let (module, name) = test.rsplit_once("::")?;
    let path = format!("tests/{}.rs", module.replace("::", "/"));
    let Some(file) = files.iter().find(|file| file.path == path) else {
        return Some(format!("names {test}, and there is no {path}"));
    };
    match file.doc_of_test(name) {
        None => Some(format!("names {test}, and {path} has no such test")),
        Some(doc) if !doc.contains(tag) => Some(format!("names {test}, which does not carry {tag}")),
        Some(_) => None,
    }
}

/// The tags of a line, without brackets.
fn tags_of(line: &str) -> impl Iterator<Item = &str> {
    let bracketed = line
        .split('[')
        .skip(1)
        .filter_map(|rest| rest.split_once(']'))
        .map(|found| found.0);
    bracketed.filter(|tag| {
        let digits = tag.strip_prefix("MQTT311-").or_else(|| tag.strip_prefix("MQTT-"));
        digits.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}
