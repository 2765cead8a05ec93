//! The manual of all options, made from [`super::schema`]: `config/reference.toml`.

use core::fmt::Write;

use super::{
    Config,
    option::{OptionInfo, Section, Setting, join},
};

const HEAD: &str = "\
# Every option of Sundew with its default and its cost. Made by `sundew check --reference`: do not edit.
# A configuration needs none of these lines; copy those you change, with the [section] above them.
# Any option can be set in the environment too: SUNDEW__LIMITS__PACKET_BYTES_MAX=64MiB. Flags win over both.
";

/// The text of `config/reference.toml`: a configuration that changes nothing.
pub fn reference() -> String {
    let mut out = HEAD.to_owned();
    sections(&mut out, "", Config::section().into_options(), false);
    out
}

/// Options of one section first, the sections inside it after them: TOML wants it so.
fn sections(out: &mut String, path: &str, options: Vec<OptionInfo>, commented: bool) {
    let (plain, nested): (Vec<_>, Vec<_>) = options
        .into_iter()
        .partition(|option| matches!(option.section, Section::None));
    for option in &plain {
        entry(out, option, path, commented);
    }
    for option in nested {
        let path = join(path, option.name);
        out.push('\n');
        comment(out, option.doc);
        // Sections that are absent by default, and the listeners, would change something if they were there.
        let (header, commented) = match &option.section {
            Section::Many(_) => (format!("[[{path}]]"), true),
            Section::Optional(_) => (format!("[{path}]"), true),
            _ => (format!("[{path}]"), commented),
        };
        let mark = if commented { "#" } else { "" };
        let _ = writeln!(out, "{mark}{header}");
        if matches!(option.section, Section::Named) {
            let _ = writeln!(out, "# {}", option.expected);
        }
        sections(out, &path, option.section.into_options(), commented);
    }
}

fn entry(out: &mut String, option: &OptionInfo, path: &str, commented: bool) {
    out.push('\n');
    comment(out, option.doc);
    let _ = write!(out, "# Expected: {}", option.expected);
    if let Some(range) = &option.range {
        let _ = write!(out, "; {range}");
    }
    out.push('\n');
    match (&option.default, example(path, option.name)) {
        (_, Some(example)) => {
            let _ = writeln!(out, "#{} = {example}", option.name);
        }
        (Some(default), None) => {
            let mark = if commented { "#" } else { "" };
            let _ = writeln!(out, "{mark}{} = {default}", option.name);
        }
        (None, None) => {
            let _ = writeln!(out, "#{} =", option.name);
        }
    }
}

/// What stands in the place of options that have no default.
fn example(path: &str, name: &str) -> Option<&'static str> {
    Some(match (path, name) {
        ("listeners", "name") => "\"mqtt\"",
        ("listeners", "allow_anonymous") => "true",
        ("listeners", "enhanced_methods") => "[\"SCRAM-SHA-256\"]",
        (_, "password_file") => "\"/etc/sundew/users\"",
        (_, "acl_file") => "\"/etc/sundew/acl\"",
        ("auth.rules", "effect") => "\"allow\"",
        ("auth.rules", "topics") => "[\"home/%u/#\"]",
        ("auth.rules", "users") => "[\"alice\"]",
        ("auth.rules", "groups") => "[\"authenticated\"]",
        ("auth.rules", "client_ids") => "[\"sensor-*\"]",
        ("auth.rules", "addresses") => "[\"10.0.0.0/8\"]",
        ("auth.rules", "listeners") => "[\"mqtt\"]",
        (_, "key_file") => "\"/etc/sundew/issuer.pem\"",
        (_, "secret_file") => "\"/etc/sundew/token-secret\"",
        (_, "jwks_file") => "\"/etc/sundew/jwks.json\"",
        (_, "jwks_url") => "\"https://login.example.org/.well-known/jwks.json\"",
        (_, "ca_file") => "\"/etc/sundew/authorities.pem\"",
        (_, "connect_url") => "\"https://auth.example.org/mqtt/connect\"",
        (_, "acl_url") => "\"https://auth.example.org/mqtt/acl\"",
        ("auth.http", "listeners") => "[\"mqtt\"]",
        ("auth.jwt", "issuer") => "\"https://login.example.org\"",
        ("auth.jwt", "audience") => "[\"mqtt\"]",
        ("auth.jwt", "client_id_claim") => "\"client_id\"",
        ("auth.jwt", "acl_claim") => "\"acl\"",
        ("auth.jwt", "tenant_claim") => "\"tenant\"",
        ("auth.jwt", "listeners") => "[\"mqtt\"]",
        (_, "mount_point") => "\"site-a/\"",
        ("tenants", "name") => "\"site-a\"",
        ("tenants", "listeners") => "[\"mqtt\"]",
        ("tenants", "users") => "[\"alice\", \"site-a-*\"]",
        ("tenants", "certificates") => "[\"*.site-a.example\"]",
        ("storage", "directory") => "\"/var/lib/sundew\"",
        ("listeners", "maximum_qos") => "1",
        ("listeners", "address") => "[\"0.0.0.0:1883\", \"[::]:1883\"]",
        ("listeners.websocket", "path") => "\"/mqtt\"",
        ("listeners.proxy_protocol", "trusted") => "[\"10.0.0.0/8\"]",
        (_, "certificate") => "\"server.pem\"",
        (_, "key") => "\"server.key\"",
        (_, "client_ca") => "\"ca.pem\"",
        (_, "client_crl") => "\"revoked.crl\"",
        (_, "fragment_bytes_max") => "4096",
        (_, "publish_bytes_rate_max") => "\"1MiB\"",
        ("listeners.websocket", "origins") => "[\"https://app.example.org\"]",
        ("mqtt", "server_keep_alive") => "\"60s\"",
        ("mqtt", "response_information") => "\"reply/\"",
        ("shutdown", "server_reference") => "\"other.example:1883\"",
        ("log", "file") => "\"/var/log/sundew.log\"",
        _ => return None,
    })
}

fn comment(out: &mut String, lines: &[&str]) {
    for line in lines {
        let _ = writeln!(out, "#{line}");
    }
}
