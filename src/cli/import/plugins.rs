//! Plug-ins: those whose files Sundew can read instead, and all others.

use super::grammar::{Line, MosquittoConf, Section};
use super::outcome::Outcome;

/// What a plug-in comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plugin {
    /// Dynamic security, with its file.
    DynamicSecurity(Line),
    /// A file of passwords.
    Passwords(Line),
    /// A file of rules.
    Rules(Line),
    /// Decides who may enter and what he may do, in a way of its own.
    Other(Line),
}

/// The plug-ins that decide something at a listener. What else there is of them is said where `is_first`: once.
pub(super) fn of_listener(conf: &MosquittoConf, listener: usize) -> Vec<Plugin> {
    let mut silent = Outcome::default();
    let here = conf
        .plugins
        .iter()
        .filter(|plugin| plugin.listener.is_none_or(|own| own == listener));
    here.flat_map(|plugin| read(plugin, &mut silent)).collect()
}

/// Says what there is to say about all of them.
pub(super) fn remarks(conf: &MosquittoConf, out: &mut Outcome) {
    for plugin in &conf.plugins {
        read(plugin, out);
    }
}

fn read(plugin: &Section, out: &mut Outcome) -> Vec<Plugin> {
    let Some(head) = &plugin.head else { return Vec::new() };
    let option = |name: &str| {
        let of = |prefix: &str| plugin.get(&format!("{prefix}{name}"));
        of("plugin_opt_").or_else(|| of("auth_opt_")).cloned()
    };
    let file = head.value.rsplit('/').next().unwrap_or_default();
    if file.contains("dynamic_security") {
        return match option("config_file") {
            Some(line) => vec![Plugin::DynamicSecurity(line)],
            None => closed(head, "it has no plugin_opt_config_file", out),
        };
    }
    if file.contains("password_file") || file.contains("acl_file") {
        let found = [
            option("password_file").map(Plugin::Passwords),
            option("acl_file").map(Plugin::Rules),
        ];
        return found.into_iter().flatten().collect();
    }
    if file.contains("go-auth") {
        return go_auth(plugin, head, &option, out);
    }
    if file.contains("persist") {
        out.left_out(head, "Sundew has a store of its own, see storage.directory");
        return Vec::new();
    }
    closed(
        head,
        "Sundew knows no plug-ins; nobody enters by it. Use a password file (`sundew user`) and [[auth.rules]]",
        out,
    )
}

fn closed(head: &Line, why: &str, out: &mut Outcome) -> Vec<Plugin> {
    out.not_carried(head, why);
    vec![Plugin::Other(head.clone())]
}

/// mosquitto-go-auth, which is in the Home Assistant add-on: its back end `files` has mosquitto's files, nearly.
fn go_auth(plugin: &Section, head: &Line, option: &dyn Fn(&str) -> Option<Line>, out: &mut Outcome) -> Vec<Plugin> {
    let backends = option("backends").map_or_else(String::new, |line| line.value);
    let mut found = Vec::new();
    for backend in backends.split(',').map(str::trim) {
        if backend == "files" {
            let either = |one, other| option(one).or_else(|| option(other));
            found.extend(either("files_password_path", "password_path").map(Plugin::Passwords));
            found.extend(either("files_acl_path", "acl_path").map(Plugin::Rules));
            continue;
        }
        let own = plugin
            .options
            .iter()
            .find(|line| line.name.starts_with(&format!("auth_opt_{backend}_")));
        let instead = "those who enter by it need a user in the password file (`sundew user add`)";
        out.not_carried(
            own.unwrap_or(head),
            format!("the back end {backend} of go-auth; {instead}"),
        );
    }
    if found.iter().any(|one| matches!(one, Plugin::Passwords(_))) {
        found
    } else {
        vec![Plugin::Other(head.clone())]
    }
}
