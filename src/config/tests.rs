//! What operators see: every message word by word.

use std::{fs, path::PathBuf};

use super::{reference::reference, schema::*, value::*, *};

mod wrong;

/// Loads `text` as `sundew.toml` of a folder of its own; messages say `FOLDER` for it.
fn load_text(text: &str) -> Result<Loaded, Vec<String>> {
    load_layers(text, Layers::default())
}

fn load_layers(text: &str, mut layers: Layers) -> Result<Loaded, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sundew.toml");
    fs::write(&file, text).unwrap();
    layers.file = Some(file);
    load(&layers).map_err(|problems| without_folder(&problems, &folder))
}

fn without_folder(problems: &[Problem], folder: &tempfile::TempDir) -> Vec<String> {
    let folder = format!("{}/", folder.path().display());
    problems
        .iter()
        .map(|problem| problem.to_string().replace(&folder, ""))
        .collect()
}

#[track_caller]
fn assert_refused(text: &str, expected: &[&str]) {
    let problems = load_text(text).expect_err("this configuration is wrong");
    assert_eq!(problems, expected, "in:\n{text}");
}

#[test]
fn every_mistake_is_reported_at_once_with_its_place() {
    assert_refused(
        "[limits]\npacket_bytes_maxx = \"1MiB\"\nclient_id_bytes_max = 7\n\n[queue]\nmessages_max = \"many\"\nbytes_max = true\n\
         [lgo]\nlevel = \"info\"\n",
        &[
            "sundew.toml:2:1: error: unknown key limits.packet_bytes_maxx (did you mean packet_bytes_max?)",
            "sundew.toml:3:1: error: limits.client_id_bytes_max: 7 is out of range, expected 23 to 65535",
            "sundew.toml:6:1: error: queue.messages_max: expected a number or \"unlimited\", found \"many\"",
            "sundew.toml:7:1: error: queue.bytes_max: expected a size such as \"32MiB\", found true",
            "sundew.toml:8:2: error: unknown key lgo (did you mean log?)",
        ],
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_told_what_is_right() {
    for (line, expected) in [
        (
            "mqtt.maximum_qos = 3",
            "mqtt.maximum_qos: 3 is out of range, expected 0 to 2",
        ),
        (
            "mqtt.strict_utf8 = \"yes\"",
            "mqtt.strict_utf8: expected true or false, found \"yes\"",
        ),
        (
            "mqtt.receive_maximum = -1",
            "mqtt.receive_maximum: expected a whole number up to 65535, found -1",
        ),
        (
            "mqtt.overlap = \"twice\"",
            "mqtt.overlap: expected \"once\" or \"each\", found \"twice\"",
        ),
        (
            "sys.interval = 10",
            "sys.interval: expected a duration such as \"30s\", found 10",
        ),
        (
            "sys = 10",
            "sys: expected a section, found 10; write [sys] above its options",
        ),
        (
            "mqtt.session_expiry_v3 = \"2 fortnights\"",
            "mqtt.session_expiry_v3: expected a duration such as \"14days\", or \"never\", found \"2 fortnights\"",
        ),
        (
            "limits.packet_bytes_max = \"1GiB\"",
            "limits.packet_bytes_max: \"1GiB\" is out of range, expected \"32B\" to \"268435460B\"",
        ),
        (
            "auth.allow_anonymous = \"yes\"",
            "auth.allow_anonymous: expected true, false, \"loopback\" or \"auto\", found \"yes\"",
        ),
        (
            "listeners = [{ address = \"localhost\" }]",
            "listeners[0].address[0]: expected an address with a port such as \"0.0.0.0:1883\" or \"[::]:1883\", or \"unix:/path\", \
             found \"localhost\"",
        ),
    ] {
        let problems = load_text(line).expect_err(line);
        let first = problems[0].split_once("error: ").unwrap().1;
        assert_eq!(first, expected, "{line}");
    }
}

#[test]
fn keys_of_mosquitto_and_of_other_sections_are_recognised() {
    assert_refused(
        "max_queued_messages = 8192\npersistent_client_expiration = \"2w\"\nport = 1883\n[limits]\nkeep_alive_max = \"5m\"\n",
        &[
            "sundew.toml:1:1: error: unknown key max_queued_messages (did you mean queue.messages_max?)",
            "sundew.toml:2:1: error: unknown key persistent_client_expiration (did you mean mqtt.session_expiry_v3?)",
            "sundew.toml:3:1: error: unknown key port (did you mean [[listeners]] with address = \"0.0.0.0:1883\"?)",
            "sundew.toml:5:1: error: unknown key limits.keep_alive_max (did you mean mqtt.keep_alive_max?)",
        ],
    );
}

#[test]
fn text_that_is_not_toml_is_refused_with_its_place() {
    assert_refused(
        "[log]\nlevel = info\nformat = \"text\"\n[mqtt\n",
        &[
            "sundew.toml:2:9: error: not TOML: a text needs quotes, write level = \"info\"",
            "sundew.toml:4:6: error: not TOML: unclosed table, expected `]`",
        ],
    );
}

#[test]
fn listeners_that_cannot_work_together_are_refused() {
    assert_refused(
        "[[listeners]]\nname = \"a\"\naddress = \"127.0.0.1:1\"\n\
         [[listeners]]\nname = \"a\"\naddress = [\"127.0.0.1:2\", \"127.0.0.1:1\"]\nwebsocket.path = \"/mqtt\"\n\
         [[listeners]]\nprotocol = \"websocket\"\nallowed_versions = []\n\
         [[listeners]]\naddress = \"127.0.0.1:4\"\n[listeners.proxy_protocol]\n",
        &[
            "sundew.toml:5:1: error: listeners[1].name: another listener is called \"a\" too",
            "sundew.toml:6:1: error: listeners[1].address: 127.0.0.1:1 is the address of listeners[0] already",
            "sundew.toml:7:11: error: listeners[1].websocket.path: this listener speaks mqtt, add protocol = \"websocket\"",
            "sundew.toml:8:1: error: listeners[2]: it has no address, add address = \"0.0.0.0:1883\"",
            "sundew.toml:10:1: error: listeners[2].allowed_versions: no version is left, nobody could connect",
            "sundew.toml:13:12: error: listeners[3].proxy_protocol: nobody is trusted, add trusted = [\"ADDRESS OF THE PROXY\"]",
        ],
    );
}

#[test]
fn tls_without_its_files_is_refused() {
    assert_refused(
        "[[listeners]]\naddress = \"127.0.0.1:1\"\n[listeners.tls]\ncertificate = \"none.crt\"\nclient_certificate = \"required\"\n",
        &[
            "sundew.toml:3:12: error: listeners[0].tls: it has no key, add key = \"FILE\"",
            "sundew.toml:4:1: error: listeners[0].tls.certificate: cannot read none.crt: No such file or directory (os error 2); \
             `sundew certs` makes one for development",
            "sundew.toml:5:1: error: listeners[0].tls.client_certificate: certificates of clients cannot be checked, \
             add client_ca = \"FILE\"",
        ],
    );
}

#[test]
fn a_file_that_does_not_exist_is_fatal_and_named() {
    let problems = load(&Layers {
        file: Some(PathBuf::from("/nowhere/sundew.toml")),
        ..Layers::default()
    })
    .unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "/nowhere/sundew.toml: error: cannot read the configuration: No such file or directory (os error 2); \
         check the path, or leave it out to start with the defaults"
    );
}

#[test]
fn a_listener_nobody_can_use_is_warned_of() {
    let loaded = load_text("[[listeners]]\naddress = \"0.0.0.0:1883\"\n").unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].to_string().ends_with(
        "sundew.toml:1:1: warning: listeners[0]: every client is refused here: there are no users, and auth.allow_anonymous is not true; \
         add auth.password_file"
    ), "{}", loaded.warnings[0]);
}

#[test]
fn a_listener_may_let_in_others_than_the_rest() {
    let loaded = load_text(
        "auth.allow_anonymous = false\n[[listeners]]\naddress = \"0.0.0.0:1883\"\n\
         [[listeners]]\naddress = \"0.0.0.0:1884\"\nallow_anonymous = true\n",
    )
    .unwrap();
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    let lets_in: Vec<_> = loaded
        .config
        .listeners
        .iter()
        .map(|listener| listener.lets_everyone_in(&loaded.config.auth))
        .collect();
    assert_eq!(lets_in, [false, true]);
}

#[test]
fn environment_wins_over_the_file_and_flags_over_both() {
    let file = "[log]\nlevel = \"warn\"\nformat = \"json\"\n[sys]\ninterval = \"1s\"\n";
    let mut layers = Layers {
        environment: vec![
            ("SUNDEW__LOG__LEVEL".into(), "debug".into()),
            ("SUNDEW__SYS__INTERVAL".into(), "2s".into()),
            ("SUNDEW__LISTENERS__0__ADDRESS".into(), "127.0.0.1:7,[::1]:7".into()),
            ("SUNDEW__MQTT__RETAIN_AVAILABLE".into(), "false".into()),
            ("SUNDEW_SERVICE_HOST".into(), "10.0.0.1".into()),
        ],
        ..Layers::default()
    };
    layers.set("--log-level", "log.level", "error");
    let config = load_layers(file, layers).unwrap().config;
    assert_eq!(config.log.level, LogLevel("error".into()), "flag");
    assert_eq!(config.sys.interval.as_secs(), 2, "environment");
    assert_eq!(config.log.format, LogFormat::Json, "file");
    assert!(!config.mqtt.retain_available);
    assert_eq!(config.listeners[0].address.len(), 2);
}

#[test]
fn mistakes_in_tokens_are_found_at_once() {
    let text = r#"
[[listeners]]
name = "mqtt"
address = "127.0.0.1:0"
[[auth.jwt]]
isuer = "https://login.example"
[[auth.jwt]]
key_file = "no.pem"
jwks_file = "no.json"
secret_base64 = true
audience = []
listeners = ["mqt"]
leeway = "1h"
token_in = "header"
[[auth.jwt]]
jwks_url = "http://login.example/jwks.json"
issuer = "https://login.example"
[[auth.jwt]]
jwks_url = "login.example/jwks.json"
issuer = "https://login.example"
[[auth.jwt]]
secret_file = "no"
ca_file = "no.pem"
"#;
    let problems = load_text(text).unwrap_err();
    for part in [
        "unknown key auth.jwt[0].isuer (did you mean issuer?)",
        "auth.jwt[0]: it has no keys, add key_file",
        "auth.jwt[1].jwks_file: there is key_file already",
        "auth.jwt[1].key_file: ",
        "auth.jwt[1].secret_base64: it is about secret_file",
        "auth.jwt[1].audience: it is empty",
        "auth.jwt[1].listeners: there is no \"mqt\" (did you mean \"mqtt\"?)",
        "auth.jwt[1].leeway: \"1h\" is out of range",
        "auth.jwt[1].token_in: expected \"password\" or \"user_name\"",
        "auth.jwt[1]: every token that these keys have signed",
        "warning: auth.jwt[2].jwks_url: whoever is on the way can put in keys",
        "auth.jwt[3].jwks_url: \"login.example/jwks.json\": it ",
        "auth.jwt[4].ca_file: it is about jwks_url",
        "auth.jwt[4].secret_file: ",
    ] {
        assert!(
            problems.iter().any(|problem| problem.contains(part)),
            "{part}: {problems:#?}"
        );
    }
    assert_eq!(problems.len(), 14, "{problems:#?}");
}

#[test]
fn mistakes_in_programs_that_are_asked_are_found_at_once() {
    let text = r#"
[[listeners]]
name = "mqtt"
address = "127.0.0.1:0"
[[auth.http]]
connect_uri = "https://auth.example/"
[[auth.http]]
connect_url = "http://auth.example/${user}"
acl_url = "https://${username}/acl"
listeners = ["mqtt", "other"]
ca_file = "no.pem"
timeout = "1h"
answer = "code"
[auth.http.headers]
"a b" = "c"
[auth.http.connect_fields]
who = "${clientId}"
[[auth.http]]
connect_url = "auth.example"
"#;
    let problems = load_text(text).unwrap_err();
    for part in [
        "unknown key auth.http[0].connect_uri (did you mean connect_url?)",
        "auth.http[0]: it is asked nothing, add connect_url",
        "auth.http[1].connect_url: there is no ${user} (did you mean ${username}?); there are username, ",
        "warning: auth.http[1].connect_url: whoever is on the way reads passwords",
        "auth.http[1].acl_url: what clients say may stand behind the host only",
        "auth.http[1].listeners: there is no \"other\"",
        "auth.http[1].ca_file: ",
        "auth.http[1].timeout: \"1h\" is out of range",
        "auth.http[1].answer: expected \"body\" or \"status\"",
        "auth.http[1].headers.a b: this is no name of a header",
        "auth.http[1].connect_fields.who: there is no ${clientId} (did you mean ${clientid}?)",
        "auth.http[2].connect_url: \"auth.example\": it begins with neither",
    ] {
        assert!(
            problems.iter().any(|problem| problem.contains(part)),
            "{part}: {problems:#?}"
        );
    }
    assert_eq!(problems.len(), 12, "{problems:#?}");
}

/// Whoever came while the program fails would belong to no tenant, and see the topics of all.
#[test]
fn a_program_that_fails_open_is_refused_where_there_are_tenants() {
    let program = "[[listeners]]\naddress = \"127.0.0.1:0\"\n[[auth.http]]\nacl_url = \"https://auth.example/acl\"\non_failure = \"allow\"\n";
    let asks = "connect_url = \"https://auth.example/\"\n";
    let by_name = "[[tenants]]\nname = \"a\"\nusers = [\"a-*\"]\n";
    let by_token = "[[auth.jwt]]\nsecret_file = \"/dev/null\"\ntenant_claim = \"tenant\"\n";
    let is_refused = |text: &str| {
        let problems = load_text(text).err().unwrap_or_default();
        problems.iter().any(|problem| {
            problem.contains("sundew.toml:5:1: error: auth.http[0].on_failure: with \"allow\", whoever comes while")
        })
    };
    assert!(!is_refused(&format!("{program}{asks}")), "nobody is of a tenant");
    assert!(
        !is_refused(&format!("{program}{by_name}")),
        "it is not asked who enters"
    );
    assert!(is_refused(&format!("{program}{asks}{by_name}")));
    assert!(is_refused(&format!("{program}{asks}{by_token}")));
}

#[test]
fn the_environment_is_forgiven_unknown_names_but_not_wrong_values() {
    let environment = |name: &str, value: &str| Layers {
        environment: vec![(name.to_owned(), value.to_owned())],
        ..Layers::default()
    };
    let loaded = load(&environment("SUNDEW__LIMITS__SESSION_MAX", "1")).unwrap();
    assert_eq!(
        loaded.warnings[0].to_string(),
        "environment variable SUNDEW__LIMITS__SESSION_MAX: warning: unknown key limits.session_max (did you mean sessions_max?); \
         it is ignored"
    );
    let problems = load(&environment("SUNDEW__LIMITS__SESSIONS_MAX", "few")).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "environment variable SUNDEW__LIMITS__SESSIONS_MAX: error: limits.sessions_max: expected a number or \"unlimited\", found \"few\""
    );
}

#[test]
fn a_drop_in_wins_over_the_file_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sundew.toml");
    fs::write(&file, "[log]\nlevel = \"warn\"\nformat = \"json\"\n").unwrap();
    fs::create_dir(folder.path().join("conf.d")).unwrap();
    fs::write(folder.path().join("conf.d/50-log.toml"), "\n[log]\nlevel = \"debug\"\n").unwrap();
    let loaded = load(&Layers {
        file: Some(file),
        ..Layers::default()
    })
    .unwrap();
    assert_eq!(loaded.config.log.level, LogLevel("debug".into()));
    assert_eq!(loaded.config.log.format, LogFormat::Json);
    assert_eq!(
        without_folder(&loaded.warnings, &folder),
        ["conf.d/50-log.toml:3:1: warning: log.level was set at sundew.toml:2:1 too; this one counts"]
    );
}

#[test]
fn bom_crlf_comments_and_blanks_are_accepted() {
    let config = load_text("\u{feff}[log] # where\r\nlevel = \" debug \" # loud\r\n")
        .unwrap()
        .config;
    assert_eq!(config.log.level, LogLevel("debug".into()));
}

#[test]
fn paths_are_beside_the_file_they_stand_in() {
    let config = load_text("[log]\nfile = \"logs/sundew.log\"\n").unwrap().config;
    let file = config.log.file.unwrap();
    assert!(
        file.is_absolute() && file.ends_with("logs/sundew.log"),
        "{}",
        file.display()
    );
}

#[test]
fn sizes_and_times_are_read_as_they_are_written() {
    for (text, bytes) in [
        ("0", 0),
        ("7", 7),
        ("32MiB", 32 << 20),
        ("1 GiB", 1 << 30),
        ("2kB", 2000),
    ] {
        assert_eq!(Bytes::from_text(text), Some(Bytes(bytes)), "{text}");
    }
    for text in ["", "MiB", "-1", "1.5MiB", "1XB", "99999999TiB"] {
        assert_eq!(Bytes::from_text(text), None, "{text}");
    }
    for bytes in [0, 1, 1023, 1024, 32 << 20, 5 << 30, 268_435_460] {
        let written = Bytes(bytes).to_toml();
        assert_eq!(Bytes::from_text(written.trim_matches('"')), Some(Bytes(bytes)));
    }
}

#[test]
fn the_reference_is_up_to_date_and_changes_nothing() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/reference.toml");
    let made = reference();
    assert!(
        fs::read_to_string(path).unwrap_or_default() == made,
        "config/reference.toml is stale, run: cargo run -- check --reference > config/reference.toml"
    );
    let loaded = load_text(&made).unwrap();
    let mut defaults = load(&Layers::default()).unwrap().config;
    assert_eq!(loaded.config, defaults);
    defaults.sys.interval = std::time::Duration::ZERO;
    assert_ne!(loaded.config, defaults, "the comparison can fail");
}

#[test]
fn the_reference_is_right_when_everything_is_uncommented() {
    let all = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    let text: String = reference().lines().map(|line| all(line) + "\n").collect();
    let problems = load_text(&text).expect_err("the certificates it names do not exist");
    // They cannot all be set at once: an MQTT listener has no WebSocket path.
    let expected = |problem: &&String| {
        problem.contains("cannot read")
            || problem.contains("this listener speaks mqtt")
            || problem.contains("take one of them")
            || problem.contains(": warning: ")
    };
    let unexpected: Vec<_> = problems.iter().filter(|problem| !expected(problem)).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
}

#[test]
fn every_file_in_the_folder_loads() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let problems = match load(&Layers {
            file: Some(path.clone()),
            ..Layers::default()
        }) {
            Ok(loaded) => loaded.warnings,
            Err(problems) => problems,
        };
        // Certificates are made by the reader; no key is in git.
        let unexpected: Vec<_> = problems
            .iter()
            .filter(|problem| !problem.message.contains("cannot read"))
            .collect();
        assert!(unexpected.is_empty(), "{}: {unexpected:#?}", path.display());
    }
    assert!(
        fs::read_to_string(format!("{folder}/sundew.toml"))
            .unwrap()
            .lines()
            .count()
            <= 15
    );
}

/// Two tenants that one client could belong to, or that see each other, are none.
#[test]
fn tenants_that_keep_nobody_apart_are_refused() {
    let named = "[[listeners]]\nname = \"in\"\naddress = \"127.0.0.1:0\"\n";
    assert_refused(
        &format!(
            "{named}mount_point = \"x/y/\"\n[[tenants]]\nname = \"x\"\nlisteners = [\"inn\"]\nusers = [\"ann\"]\n\
             [[tenants]]\nname = \"z\"\nmount_point = \"z\"\nusers = [\"ann\"]\n"
        ),
        &[
            "sundew.toml:4:1: error: listeners[0].mount_point: its mount point \"x/y/\" and \"x/\" of \"x\" keep nobody apart",
            "sundew.toml:7:1: error: tenants[0].listeners: there is no \"inn\" (did you mean \"in\"?)",
            "sundew.toml:9:1: error: tenants[1]: the user \"ann\" is of \"x\" already",
            "sundew.toml:11:1: error: tenants[1].mount_point: \"z\" does not end with a slash, expected such as \"site-a/\"",
        ],
    );
    for (lines, expected) in [
        (
            "users = [\"a\"]\n",
            "sundew.toml:1:1: error: tenants[0]: it has no name, add name = \"site-a\"",
        ),
        (
            "name = \"$SYS\"\nusers = [\"a\"]\n",
            "sundew.toml:2:1: error: tenants[0].name: \"$SYS\" is no name of a tenant: no / + # and no $ at its begin",
        ),
    ] {
        assert_refused(&format!("[[tenants]]\n{lines}"), &[expected]);
    }
}

/// A listener's mount point is that of a tenant with limits, or makes one.
#[test]
fn listeners_and_tenants_meet_at_their_mount_point() {
    let text = "[[listeners]]\nname = \"one\"\naddress = \"127.0.0.1:0\"\nmount_point = \"x/\"\n\
                [[listeners]]\nname = \"two\"\naddress = \"127.0.0.1:0\"\nmount_point = \"y/\"\n\
                [[tenants]]\nname = \"site\"\nmount_point = \"x/\"\nconnections_max = 7\n";
    let tenants = load_text(text).unwrap().config.access_options().tenants;
    let found: Vec<_> = tenants
        .iter()
        .map(|one| (&*one.name, &*one.mount, &*one.listeners[0], one.limits.connections_max))
        .collect();
    assert_eq!(found, [("site", "x/", "one", 7), ("y", "y/", "two", usize::MAX)]);
}
