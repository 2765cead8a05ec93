//! Plug-ins: those whose files Sundew can read instead, and all others.

use super::grammar::{Line, MosquittoConf, Section};
use super::outcome::{Outcome, Table};

/// What a plug-in comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plugin {
    /// Dynamic security, with its file.
    DynamicSecurity(Line),
    /// A file of passwords.
    Passwords(Line),
    /// A file of rules.
    Rules(Line),
    /// Asks a program: `[[auth.http]]`; the line that loads it.
    Http(Line, Table),
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

/// mosquitto-go-auth, which is in the Home Assistant add-on: its back end `files` has mosquitto's files, nearly, and `http` asks a
/// program as Sundew does.
fn go_auth(plugin: &Section, head: &Line, option: Find<'_>, out: &mut Outcome) -> Vec<Plugin> {
    let backends = option("backends").map_or_else(String::new, |line| line.value);
    let either = |one, other| option(one).or_else(|| option(other));
    let has_files = backends.split(',').any(|backend| backend.trim() == "files");
    let rules = either("files_acl_path", "acl_path").filter(|_| has_files);
    let mut found = Vec::new();
    for backend in backends.split(',').map(str::trim) {
        if backend == "files" {
            found.extend(either("files_password_path", "password_path").map(Plugin::Passwords));
            found.extend(rules.clone().map(Plugin::Rules));
            continue;
        }
        if backend == "http" && plugin.listener.is_none() {
            // Files without rules allow everything to everybody, and one back end is enough.
            let asked = http(option, !has_files || rules.is_some(), head, out);
            found.push(match asked {
                Some(table) => Plugin::Http(head.clone(), table),
                None => Plugin::Other(head.clone()),
            });
            continue;
        }
        let of_it = format!("auth_opt_{backend}_");
        let own = plugin.options.iter().find(|line| line.name.starts_with(&of_it));
        let instead = "those who enter by it need a user in the password file (`sundew user add`)";
        let what = format!("the back end {backend} of go-auth; {instead}");
        out.not_carried(own.unwrap_or(head), what);
    }
    if found
        .iter()
        .any(|one| matches!(one, Plugin::Passwords(_) | Plugin::Http(..)))
    {
        found
    } else {
        vec![Plugin::Other(head.clone())]
    }
}

/// Looks for an option of a plug-in.
type Find<'a> = &'a dyn Fn(&str) -> Option<Line>;

/// The program that the back end `http` of go-auth asks.
fn http(option: Find<'_>, asks_rights: bool, head: &Line, out: &mut Outcome) -> Option<Table> {
    let get = |name: &str| option(&format!("http_{name}"));
    let is = |name: &str, value: &str| get(name).filter(|line| line.word().eq_ignore_ascii_case(value));
    for name in ["host", "getuser_uri", "aclcheck_uri"] {
        if get(name).is_none() && (asks_rights || name != "aclcheck_uri") {
            let what = format!(
                "the back end http of go-auth has no http_{name}, and go-auth does not start so; nobody enters by it"
            );
            out.not_carried(head, what);
            return None;
        }
    }
    let (host, connect) = (get("host")?, get("getuser_uri")?);
    let scheme = if is("with_tls", "true").is_some() {
        "https"
    } else {
        "http"
    };
    let port = get("port").map_or_else(String::new, |line| format!(":{}", line.word()));
    let url = |path: &Line| {
        format!(
            "{scheme}://{}{port}/{}",
            host.word(),
            path.word().trim_start_matches('/')
        )
    };
    let mut table = Table::new("[[auth.http]]", &host.place);
    table.text("connect_url", &url(&connect), &connect.place);
    match get("aclcheck_uri") {
        Some(line) if asks_rights => table.text("acl_url", &url(&line), &line.place),
        Some(line) => out.left_out(
            &line,
            "the back end files has no rules (files_acl_path), so go-auth allows everything to everybody and never asks",
        ),
        None => {}
    }
    if let Some(line) = is("method", "get") {
        table.text("method", "get", &line.place);
    }
    if let Some(line) = is("params_mode", "form") {
        table.text("format", "form", &line.place);
    }
    match get("response_mode") {
        None => table.text("answer", "status", "go-auth's default"),
        Some(line) if line.word() == "status" => table.text("answer", "status", &line.place),
        Some(_) => {}
    }
    if let Some(line) = get("timeout")
        && let Ok(seconds) = line.word().parse::<u32>()
    {
        table.text("timeout", &format!("{}s", seconds.clamp(1, 14)), &line.place);
    }
    if let Some(line) = get("superuser_uri").filter(|_| asks_rights) {
        out.not_carried(
            &line,
            "who may do everything is not asked for; let the program say so for each topic",
        );
    }
    if let Some(line) = is("verify_peer", "false").filter(|_| scheme == "https") {
        out.not_carried(&line, "certificates are always checked; name the authority in ca_file");
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use crate::cli::import::tests::import;

    /// It would be asked who may enter, and nobody what he may do.
    #[test]
    fn a_program_without_its_address_for_rights_is_not_asked() {
        let conf = "auth_plugin go-auth.so\nauth_opt_backends http\nauth_opt_http_host 127.0.0.1\n\
                    auth_opt_http_getuser_uri /user\nlistener 1883\n";
        let (configuration, remarks, out) = import(&[("mosquitto.conf", conf)]);
        assert!(!configuration.contains("auth.http"), "{configuration}");
        assert!(
            configuration.contains("acl_file = \"acl\"") && !configuration.contains("allow_anonymous = true"),
            "{configuration}"
        );
        assert!(
            !out.is_whole() && remarks[0].contains("has no http_aclcheck_uri"),
            "{remarks:?}"
        );
    }

    #[test]
    fn an_address_that_go_auth_never_asks_is_named() {
        let conf = "listener 1883\nauth_plugin /x/go-auth.so\nauth_opt_backends files,http\nauth_opt_files_password_path @/pw\n\
                    auth_opt_http_host h\nauth_opt_http_getuser_uri /u\nauth_opt_http_aclcheck_uri /a\n";
        let (configuration, remarks, _) = import(&[("mosquitto.conf", conf), ("pw", "# none\n")]);
        assert!(!configuration.contains("acl_url"), "{configuration}");
        let named = remarks
            .iter()
            .find(|remark| remark.starts_with("mosquitto.conf:7: left out: "));
        assert!(
            named.is_some_and(|remark| remark.contains("never asks")),
            "{remarks:#?}"
        );
    }
}
