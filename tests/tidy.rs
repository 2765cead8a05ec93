//! The rules of the house that no compiler checks, as tests: layers, bans, budgets, tags, links. Fast: it only reads files.
//!
//! A rule's failure says why the rule is there. Exceptions are short lists that may only shrink.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/statements.rs"]
mod statements;

use source::SourceFile;

/// Every part of `src/` and its layer. The longest path that matches a file counts.
const LAYERS: &[(&str, u8)] = &[
    ("protocol", 0),
    ("codec", 1),
    ("router", 1),
    ("metrics", 1),
    ("scram", 1),
    ("session", 2),
    ("auth", 3),
    ("storage", 3),
    ("client", 3),
    ("delivery", 4),
    ("broker", 5),
    ("storage/disk", 6),
    ("transport", 6),
    ("backends", 6),
    ("http", 6),
    ("logging", 6),
    ("config", 7),
    ("server", 8),
    ("cli", 9),
];

/// Layers up to this one are the protocol half.
const PROTOCOL_HALF_MAX: u8 = 5;

/// What the protocol half must not name.
const BANNED_IN_PROTOCOL_HALF: &[(&str, &str)] = &[
    ("tokio", "the protocol half compiles without the reactor"),
    ("std::net", "sockets belong to transport/; addresses are core::net"),
    ("std::fs", "files belong to storage/disk, config/ and cli/"),
    ("Instant::now", "time is an argument: protocol::time::Time"),
    ("SystemTime", "time is an argument: protocol::time::Time"),
    (".await", "the protocol half answers at once or says Pending(token)"),
];

/// What the protocol half names all the same: path and word. May only shrink.
const ALLOWED_IN_PROTOCOL_HALF: &[(&str, &str)] = &[
    // Only in the model that loom checks, which has a thread that waits.
    ("src/delivery/mailbox.rs", ".await"),
];

/// What no file may contain, tests included.
const BANNED_EVERYWHERE: &[(&str, &str)] = &[
    ("dbg!", "debugging is over before a commit"),
    ("todo!", "what is not there yet is not in the code"),
    ("unimplemented!", "what is not there yet is not in the code"),
];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Files over the budget: path, lines they may have. May only shrink.
const LONG_FILES: &[(&str, usize)] = &[];

/// Functions over the budget: path, name, lines they may have. May only shrink.
const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[];

/// What may stand at the top of the package, besides hidden files and what `.gitignore` names.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "src",
    "tests",
    "certs",
    "config",
    "examples",
    "README.md",
    "CHANGELOG.md",
];

#[test]
fn a_file_imports_only_lower_layers_and_its_own_folder() {
    let mut faults = Vec::new();
    for file in sources("src") {
        let Some((own_part, own_layer)) = layer_of(&file.module_path()) else {
            if !matches!(file.path.as_str(), "src/lib.rs" | "src/main.rs") {
                faults.push(format!("{}: no layer for it in the table of tests/tidy.rs", file.path));
            }
            continue;
        };
        for (line, imported) in file.crate_paths() {
            let Some((part, layer)) = layer_of(&imported) else {
                continue;
            };
            if part != own_part && layer >= own_layer {
                faults.push(format!(
                    "{}:{line}: {own_part} (layer {own_layer}) imports {part} (layer {layer})",
                    file.path
                ));
            }
        }
    }
    check(
        &faults,
        "calls go down and values come back: a layer that knows one above it can neither be read nor tested alone",
    );
}

#[test]
fn the_protocol_half_has_no_io_and_no_clock() {
    let mut faults = Vec::new();
    for file in sources("src") {
        let Some((_, layer)) = layer_of(&file.module_path()) else {
            continue;
        };
        if layer <= PROTOCOL_HALF_MAX {
            let is_allowed = |word: &str| ALLOWED_IN_PROTOCOL_HALF.contains(&(file.path.as_str(), word));
            let banned: Vec<_> = BANNED_IN_PROTOCOL_HALF
                .iter()
                .filter(|(word, _)| !is_allowed(word))
                .copied()
                .collect();
            faults.extend(file.findings(&banned));
        }
    }
    check(
        &faults,
        "layers 0 to 5 run in a unit test in microseconds, with time and bytes as arguments",
    );
}

#[test]
fn no_leftovers_of_debugging() {
    let faults: Vec<_> = rust_files()
        .iter()
        .flat_map(|file| file.findings(BANNED_EVERYWHERE))
        .collect();
    check(&faults, "a commit is finished work");
}

#[test]
fn files_and_functions_stay_within_their_budgets() {
    let mut faults = Vec::new();
    for file in rust_files() {
        let lines = file.text.lines().count();
        let allowed = LONG_FILES
            .iter()
            .find(|(path, _)| *path == file.path)
            .map_or(FILE_LINES_MAX, |found| found.1);
        if lines > allowed {
            faults.push(format!("{}: {lines} lines, the budget is {allowed}", file.path));
        }
        for (line, name, length) in file.functions() {
            let exception = LONG_FUNCTIONS
                .iter()
                .find(|entry| entry.0 == file.path && entry.1 == name);
            let allowed = exception.map_or(FUNCTION_LINES_MAX, |found| found.2);
            if length > allowed {
                faults.push(format!(
                    "{}:{line}: fn {name} has {length} lines, the budget is {allowed}",
                    file.path
                ));
            }
        }
    }
    check(&faults, "a file is read in one sitting, a function on one screen");
}

#[test]
fn exceptions_to_the_budgets_are_still_needed() {
    let mut faults = Vec::new();
    let files = rust_files();
    for (path, allowed) in LONG_FILES {
        let lines = files
            .iter()
            .find(|file| file.path == *path)
            .map_or(0, |file| file.text.lines().count());
        if lines <= FILE_LINES_MAX || lines < *allowed {
            faults.push(format!("{path}: {lines} lines now, the exception says {allowed}"));
        }
    }
    for (path, name, allowed) in LONG_FUNCTIONS {
        let functions = files
            .iter()
            .find(|file| file.path == *path)
            .map_or_else(Vec::new, SourceFile::functions);
        let length = functions
            .iter()
            .find(|entry| entry.1 == *name)
            .map_or(0, |entry| entry.2);
        if length <= FUNCTION_LINES_MAX || length < *allowed {
            faults.push(format!(
                "{path}: fn {name} has {length} lines now, the exception says {allowed}"
            ));
        }
    }
    check(&faults, "an exception may only shrink");
}

#[test]
fn the_top_level_is_exactly_what_the_plan_says() {
    let ignored = ignored_at_top();
    let is_planned = |name: &str| {
        TOP_LEVEL.contains(&name) || name.starts_with('.') || name.starts_with("LICENSE") || ignored.contains(name)
    };
    let entries = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut faults: Vec<_> = entries
        .filter(|name| !is_planned(name))
        .map(|name| format!("{name}: not planned"))
        .collect();
    let missing = TOP_LEVEL.iter().filter(|name| !root().join(name).exists());
    faults.extend(missing.map(|name| format!("{name}: missing")));
    check(&faults, "a stranger finds the way from the top level alone");
}

#[test]
fn no_private_key_and_no_path_of_one_machine() {
    let places = [
        ["/ro", "ot/"].concat(),
        ["/wo", "rk/"].concat(),
        ["/ho", "me/"].concat(),
        ["/tmp/", "wt"].concat(),
    ];
    let mut faults = Vec::new();
    for path in text_files() {
        let text = fs::read_to_string(root().join(&path)).unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("-----BEGIN") && line.contains("PRIVATE KEY-----") {
                faults.push(format!("{path}:{}: a private key", number + 1));
            }
            // `broker.example/home/lamp` is a topic; a path of a machine begins at its slash.
            let begins = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric());
            let is_named = |place: &&String| line.match_indices(place.as_str()).any(|(at, _)| begins(at));
            if let Some(place) = places.iter().find(is_named) {
                faults.push(format!("{path}:{}: names {place}", number + 1));
            }
        }
    }
    check(&faults, "what is in git is public and works on every machine");
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    let mut faults = Vec::new();
    for path in text_files().iter().filter(|path| path.ends_with(".md")) {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let folder = Path::new(path).parent().unwrap();
        for (number, line) in text.lines().enumerate() {
            for target in line
                .split("](")
                .skip(1)
                .filter_map(|rest| rest.split([')', '#', ' ']).next())
            {
                let is_local = !target.is_empty() && !target.contains("://") && !target.contains("::");
                if is_local && !root().join(folder).join(target).exists() {
                    faults.push(format!("{path}:{}: {target} does not exist", number + 1));
                }
            }
        }
    }
    check(&faults, "a broken link is a lie to a newcomer");
}

/// The part of the tree that a module path lies in, and its layer.
fn layer_of(module_path: &str) -> Option<(&'static str, u8)> {
    let lies_in = |part: &str| module_path == part || module_path.starts_with(&format!("{part}/"));
    LAYERS
        .iter()
        .filter(|(part, _)| lies_in(part))
        .max_by_key(|(part, _)| part.len())
        .copied()
}

fn check(faults: &[String], reason: &str) {
    assert!(faults.is_empty(), "{reason}\n  {}\n", faults.join("\n  "));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn ignored_at_top() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(".gitignore")).unwrap_or_default();
    text.lines()
        .filter_map(|line| Some(line.strip_prefix('/')?.trim_end_matches('/').to_owned()))
        .collect()
}

/// Every Rust file of the package.
fn rust_files() -> Vec<SourceFile> {
    ["src", "tests", "examples"].into_iter().flat_map(sources).collect()
}

/// The Rust files below a folder.
fn sources(folder: &str) -> Vec<SourceFile> {
    let paths = files_below(Path::new(folder));
    paths
        .into_iter()
        .filter(|path| path.ends_with(".rs"))
        .map(|path| SourceFile::read(root(), path))
        .collect()
}

/// Every file that is text, as a path from the top, with `/`.
fn text_files() -> Vec<String> {
    let ignored = ignored_at_top();
    let mut found = Vec::new();
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name != ".git" && name != "Cargo.lock" && !ignored.contains(&name) {
            found.extend(files_below(Path::new(&name)));
        }
    }
    found.retain(|path| fs::read(root().join(path)).is_ok_and(|bytes| std::str::from_utf8(&bytes).is_ok()));
    found
}

fn files_below(path: &Path) -> Vec<String> {
    let absolute: PathBuf = root().join(path);
    if absolute.is_file() {
        return vec![path.to_str().unwrap().to_owned()];
    }
    let Ok(entries) = fs::read_dir(&absolute) else {
        return Vec::new();
    };
    let names: BTreeMap<_, _> = entries.map(|entry| (entry.unwrap().file_name(), ())).collect();
    let is_generated = |name: &str| matches!(name, "target" | "node_modules" | "__pycache__");
    names
        .into_keys()
        .filter(|name| !is_generated(&name.to_string_lossy()))
        .flat_map(|name| files_below(&path.join(name)))
        .collect()
}
