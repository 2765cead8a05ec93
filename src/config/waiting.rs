//! What of a configuration that was read again counts at the next start only.

use std::collections::BTreeMap;

use ::config::{Value, ValueKind};

use super::option::join;

/// What the operator wrote: each option that is set, with its value as text. `listeners[0].address`.
pub type Written = BTreeMap<String, String>;

/// Options that count when the configuration is read again; all others wait. `listeners.acl_file` is that of any listener.
const TAKEN_OVER: &[&str] = &[
    "auth.allow_anonymous",
    "auth.password_file",
    "auth.acl_file",
    "auth.wide_subscriptions",
    "auth.enhanced_methods",
    "auth.jwt",
    "auth.http",
    "auth.groups",
    "auth.rules",
    "sys.public",
    "tenants",
    "listeners.password_file",
    "listeners.acl_file",
    "listeners.allow_anonymous",
    "listeners.enhanced_methods",
    "listeners.mount_point",
    "listeners.tls.user_name",
];

/// The options that differ and wait for a restart, by name.
pub fn waiting(before: &Written, now: &Written) -> Vec<String> {
    let changed = |(path, value): &(&String, &String)| before.get(*path) != Some(*value);
    let gone = before.keys().filter(|path| !now.contains_key(*path));
    let paths = now.iter().filter(changed).map(|(path, _)| path).chain(gone);
    let mut waiting: Vec<_> = paths.filter(|path| !is_taken_over(path)).cloned().collect();
    waiting.sort_unstable();
    waiting
}

fn is_taken_over(path: &str) -> bool {
    let parts: Vec<_> = path
        .split('.')
        .map(|part| part.split('[').next().unwrap_or(part))
        .collect();
    let path = parts.join(".");
    TAKEN_OVER.iter().any(|taken| {
        let rest = path.strip_prefix(taken);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// Flattens what the layers add up to.
pub(super) fn written(tree: &Value) -> Written {
    let mut written = Written::new();
    collect("", tree, &mut written);
    written
}

fn collect(path: &str, value: &Value, written: &mut Written) {
    match &value.kind {
        ValueKind::Table(table) => {
            for (name, value) in table {
                collect(&join(path, name), value, written);
            }
        }
        ValueKind::Array(values) if values.iter().any(|one| matches!(one.kind, ValueKind::Table(_))) => {
            for (index, value) in values.iter().enumerate() {
                collect(&format!("{path}[{index}]"), value, written);
            }
        }
        kind => {
            written.insert(path.to_owned(), kind.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, read_layers};

    #[test]
    fn options_that_wait_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sundew.toml");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            read_layers(&Layers::new(Some(file.clone()), Vec::new())).written
        };
        let listener = "[[listeners]]\naddress = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n";
        let before = read(&format!(
            "{listener}[limits]\nsessions_max = 7\n[mqtt]\nmaximum_qos = 1\n"
        ));
        assert_eq!(waiting(&before, &before), Vec::<String>::new());
        let now = read(
            "[[listeners]]\naddress = [\"127.0.0.1:1\"]\npassword_file = \"x\"\n[listeners.tls]\nkey = \"k\"\nuser_name = \"subject\"\n\
             [limits]\nsessions_max = 8\n[auth]\nhashing_threads = 2\nacl_file = \"y\"\n\
             [auth.groups]\na = [\"b\"]\n[[auth.rules]]\neffect = \"allow\"\ntopics = [\"#\"]\n",
        );
        let expected = [
            "auth.hashing_threads",
            "limits.sessions_max",
            "listeners[0].address",
            "listeners[0].tls.key",
            "mqtt.maximum_qos",
        ];
        assert_eq!(waiting(&before, &now), expected);
    }
}
