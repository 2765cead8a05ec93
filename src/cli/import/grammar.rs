//! Reading `mosquitto.conf`: what stands where, and to which part of the broker it belongs.
//!
//! ```text
//! # a comment, where # is the first character
//! allow_anonymous false          a name, blanks, a value
//! include_dir /etc/conf.d        its *.conf, each of which begins with the default listener again
//! listener 8883                  what follows belongs to it, until the next one or the end of the file
//! connection cloud               a bridge, likewise
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As it is to be shown.
    pub file: Arc<str>,
    /// From 1.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// An option with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it stands.
    pub place: Place,
    /// Its first word.
    pub name: String,
    /// What follows, without blanks around it; may be empty.
    pub value: String,
}

impl Line {
    /// The first word of the value: of most options mosquitto reads no more.
    pub fn word(&self) -> &str {
        self.value.split(BLANKS).next().unwrap_or_default()
    }

    /// `true` or `false`, as mosquitto writes them.
    pub fn is_true(&self) -> Option<bool> {
        match self.word() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        }
    }
}

const BLANKS: [char; 2] = [' ', '\t'];

/// Every option of a text. Comments and blank lines are left out; CRLF and a byte order mark are fine.
pub fn lines(file: &Arc<str>, text: &str) -> Vec<Line> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let numbered = (1..).zip(text.lines().map(str::trim));
    let options = numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    options
        .map(|(number, line)| {
            let (name, value) = line.split_once(BLANKS).unwrap_or((line, ""));
            Line {
                place: Place {
                    file: Arc::clone(file),
                    line: number,
                },
                name: name.to_owned(),
                value: value.trim().to_owned(),
            }
        })
        .collect()
}

/// A listener, a bridge or a plug-in with its options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// `listener …`, `connection …`, `plugin …`; the default listener has none.
    pub head: Option<Line>,
    /// In their order.
    pub options: Vec<Line>,
    /// Of a plug-in: the number of the listener that it is for; `None`: for all.
    pub listener: Option<usize>,
}

impl Section {
    fn of(head: Line) -> Self {
        Self {
            head: Some(head),
            ..Self::default()
        }
    }

    /// An option; of several the last.
    pub fn get(&self, name: &str) -> Option<&Line> {
        self.options.iter().rev().find(|line| line.name == name)
    }

    /// An option that is `true`.
    pub fn is_set(&self, name: &str) -> Option<&Line> {
        self.get(name).filter(|line| line.is_true() == Some(true))
    }
}

/// A whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MosquittoConf {
    /// Options of the whole broker.
    pub broker: Section,
    /// The first is the default listener, whether it is used or not.
    pub listeners: Vec<Section>,
    /// Bridges to other brokers.
    pub bridges: Vec<Section>,
    /// Plug-ins.
    pub plugins: Vec<Section>,
    /// `per_listener_settings true`.
    pub per_listener: Option<Line>,
    /// `include_dir` where mosquitto does not look at it, and directories that cannot be read.
    pub not_included: Vec<(Line, String)>,
    /// Options that mosquitto does not know.
    pub unknown: Vec<Line>,
}

/// Reads directories: their `*.conf` in mosquitto's order, each with its text.
pub type ReadDirectory<'a> = &'a dyn Fn(&Path) -> Result<Vec<(PathBuf, String)>, String>;

impl MosquittoConf {
    /// Reads a main file and what it includes.
    pub fn parse(name: &str, text: &str, read_directory: ReadDirectory<'_>) -> Self {
        let mut conf = Self {
            listeners: vec![Section::default()],
            ..Self::default()
        };
        conf.file(name, text, Some(read_directory));
        conf
    }

    fn file(&mut self, name: &str, text: &str, read_directory: Option<ReadDirectory<'_>>) {
        let (mut listener, mut bridge, mut plugin) = (0, None, None);
        for line in lines(&name.into(), text) {
            match (belongs(&line.name), line.name.as_str()) {
                (_, "include_dir") => self.include(line, read_directory),
                (_, "per_listener_settings") => self.per_listener = Some(line).filter(|l| l.is_true() == Some(true)),
                (_, "listener") => {
                    listener = self.listeners.len();
                    self.listeners.push(Section::of(line));
                }
                (_, "connection") => {
                    bridge = Some(self.bridges.len());
                    self.bridges.push(Section::of(line));
                }
                (_, "plugin" | "auth_plugin" | "global_plugin" | "plugin_load") => {
                    let is_global = matches!(line.name.as_str(), "global_plugin" | "plugin_load");
                    plugin = Some(self.plugins.len());
                    self.plugins.push(Section {
                        listener: self.per_listener.as_ref().filter(|_| !is_global).map(|_| listener),
                        ..Section::of(line)
                    });
                }
                (Some(Belongs::Broker), _) => self.broker.options.push(line),
                (Some(Belongs::Access), _) if self.per_listener.is_none() => self.broker.options.push(line),
                (Some(Belongs::Listener | Belongs::Access), _) => self.listeners[listener].options.push(line),
                (Some(Belongs::Bridge), _) => match bridge {
                    Some(number) => self.bridges[number].options.push(line),
                    None => self.unknown.push(line),
                },
                (Some(Belongs::Plugin), _) => match plugin {
                    Some(number) => self.plugins[number].options.push(line),
                    None => self.unknown.push(line),
                },
                (None, _) => self.unknown.push(line),
            }
        }
    }

    fn include(&mut self, line: Line, read_directory: Option<ReadDirectory<'_>>) {
        let Some(read) = read_directory else {
            self.not_included
                .push((line, "mosquitto looks at it in the main file only".into()));
            return;
        };
        match read(Path::new(&line.value)) {
            Ok(files) => {
                for (path, text) in files {
                    self.file(&path.display().to_string(), &text, None);
                }
            }
            Err(error) => self.not_included.push((line, error)),
        }
    }
}

/// The order in which mosquitto reads the files of a directory.
pub fn in_mosquittos_order(names: &mut [PathBuf]) {
    names.sort_by_key(|path| {
        let text = path.display().to_string();
        (text.to_lowercase(), text)
    });
}

/// To what an option belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belongs {
    Broker,
    Listener,
    /// To the broker, or with `per_listener_settings` to the listener.
    Access,
    Bridge,
    Plugin,
}

fn belongs(name: &str) -> Option<Belongs> {
    let is_plugins = ["auth_opt_", "plugin_opt_"]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    Some(match name {
        _ if is_plugins || matches!(name, "auth_plugin_deny_special_chars" | "plugin_use") => Belongs::Plugin,
        _ if BROKER.contains(&name) => Belongs::Broker,
        _ if LISTENER.contains(&name) => Belongs::Listener,
        _ if ACCESS.contains(&name) => Belongs::Access,
        _ if BRIDGE.contains(&name) || name.starts_with("bridge_") => Belongs::Bridge,
        "include_dir" | "per_listener_settings" | "listener" | "connection" => Belongs::Broker,
        "plugin" | "auth_plugin" | "global_plugin" | "plugin_load" => Belongs::Plugin,
        _ => return None,
    })
}

/// Every option of the tables below.
#[cfg(test)]
pub(super) fn every_option() -> impl Iterator<Item = &'static str> {
    [ACCESS, BROKER, LISTENER, BRIDGE].into_iter().flatten().copied()
}

const ACCESS: &[&str] = &[
    "acl_file",
    "allow_anonymous",
    "allow_zero_length_clientid",
    "auto_id_prefix",
    "password_file",
    "psk_file",
];

const BROKER: &[&str] = &[
    "allow_duplicate_messages",
    "autosave_interval",
    "autosave_on_changes",
    "check_retain_source",
    "clientid_prefixes",
    "connection_messages",
    "enable_control_api",
    "global_max_clients",
    "global_max_connections",
    "log_dest",
    "log_facility",
    "log_timestamp",
    "log_timestamp_format",
    "log_type",
    "max_inflight_bytes",
    "max_inflight_messages",
    "max_keepalive",
    "max_packet_size",
    "max_queued_bytes",
    "max_queued_messages",
    "memory_limit",
    "message_size_limit",
    "packet_buffer_size",
    "persistence",
    "persistence_file",
    "persistence_location",
    "persistent_client_expiration",
    "pid_file",
    "queue_qos0_messages",
    "retain_available",
    "retain_expiry_interval",
    "retained_persistence",
    "retry_interval",
    "set_tcp_nodelay",
    "store_clean_interval",
    "sys_interval",
    "upgrade_outgoing_qos",
    "user",
    "websockets_headers_size",
    "websockets_log_level",
];

const LISTENER: &[&str] = &[
    "accept_protocol_versions",
    "bind_address",
    "bind_interface",
    "cafile",
    "capath",
    "certfile",
    "ciphers",
    "ciphers_tls1.3",
    "crlfile",
    "dhparamfile",
    "disable_client_cert_date_checks",
    "enable_proxy_protocol",
    "http_dir",
    "keyfile",
    "listener_allow_anonymous",
    "listener_auto_id_prefix",
    "max_connections",
    "max_qos",
    "max_topic_alias",
    "max_topic_alias_broker",
    "maximum_qos",
    "mount_point",
    "port",
    "protocol",
    "proxy_protocol_v2_require_tls",
    "psk_hint",
    "require_certificate",
    "socket_domain",
    "tls_engine",
    "tls_engine_kpass_sha1",
    "tls_keyform",
    "tls_version",
    "use_identity_as_username",
    "use_subject_as_username",
    "use_username_as_clientid",
    "websockets_origin",
];

const BRIDGE: &[&str] = &[
    "address",
    "addresses",
    "cleansession",
    "clientid",
    "idle_timeout",
    "keepalive_interval",
    "local_cleansession",
    "local_clientid",
    "local_password",
    "local_username",
    "notification_topic",
    "notifications",
    "notifications_local_only",
    "password",
    "remote_clientid",
    "remote_password",
    "remote_username",
    "restart_timeout",
    "round_robin",
    "start_type",
    "threshold",
    "topic",
    "try_private",
    "username",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, included: &[(&str, &str)]) -> MosquittoConf {
        let files: Vec<_> = included
            .iter()
            .map(|(name, text)| (PathBuf::from(name), (*text).to_owned()))
            .collect();
        MosquittoConf::parse("m.conf", text, &|_| Ok(files.clone()))
    }

    fn shown(section: &Section) -> Vec<String> {
        let head = section.head.iter();
        head.chain(&section.options)
            .map(|line| format!("{} {}={}", line.place, line.name, line.value))
            .collect()
    }

    #[test]
    fn options_belong_to_what_stands_before_them() {
        let text = "\u{feff}# a comment\r\nuser root\r\nport 1884\npassword_file /a b/passwd \n\n\
                    listener 8883 # TLS\n  certfile c.pem\nallow_anonymous false\nconnection cloud\naddress a:1\n\
                    max_connections 5\nlistener 9001\nprotocol websockets\n#port 3\n";
        let conf = parse(text, &[]);
        assert_eq!(
            shown(&conf.broker),
            [
                "m.conf:2 user=root",
                "m.conf:4 password_file=/a b/passwd",
                "m.conf:8 allow_anonymous=false"
            ]
        );
        assert_eq!(shown(&conf.listeners[0]), ["m.conf:3 port=1884"]);
        assert_eq!(
            shown(&conf.listeners[1]),
            [
                "m.conf:6 listener=8883 # TLS",
                "m.conf:7 certfile=c.pem",
                "m.conf:11 max_connections=5"
            ]
        );
        assert_eq!(shown(&conf.listeners[2]).len(), 2);
        assert_eq!(
            shown(&conf.bridges[0]),
            ["m.conf:9 connection=cloud", "m.conf:10 address=a:1"]
        );
        assert!(conf.unknown.is_empty());
    }

    #[test]
    fn settings_of_a_listener_are_its_own_where_that_is_asked_for() {
        let text = "per_listener_settings true\nallow_anonymous true\nlistener 1\npassword_file p\nplugin x.so\n\
                    plugin_opt_a b\nlistener 2\nacl_file q\nflobble\ntopic # out\n";
        let conf = parse(text, &[]);
        assert_eq!(shown(&conf.listeners[0]), ["m.conf:2 allow_anonymous=true"]);
        assert_eq!(
            shown(&conf.listeners[1]),
            ["m.conf:3 listener=1", "m.conf:4 password_file=p"]
        );
        assert_eq!(
            shown(&conf.listeners[2]),
            ["m.conf:7 listener=2", "m.conf:8 acl_file=q"]
        );
        assert_eq!(
            shown(&conf.plugins[0]),
            ["m.conf:5 plugin=x.so", "m.conf:6 plugin_opt_a=b"]
        );
        assert_eq!(conf.plugins[0].listener, Some(1));
        let unknown: Vec<_> = conf.unknown.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(unknown, ["flobble", "topic"]);
    }

    /// As in mosquitto's `config__read_file_core`, whose current listener is a local variable.
    #[test]
    fn an_included_file_begins_with_the_default_listener() {
        let conf = parse(
            "listener 1\ninclude_dir d\ncertfile of-1\n",
            &[
                ("d/a.conf", "protocol websockets\nlistener 2\n"),
                ("d/b.conf", "max_qos 1\ninclude_dir e\n"),
            ],
        );
        assert_eq!(
            shown(&conf.listeners[0]),
            ["d/a.conf:1 protocol=websockets", "d/b.conf:1 max_qos=1"]
        );
        assert_eq!(
            shown(&conf.listeners[1]),
            ["m.conf:1 listener=1", "m.conf:3 certfile=of-1"]
        );
        assert_eq!(shown(&conf.listeners[2]), ["d/a.conf:2 listener=2"]);
        assert_eq!(conf.not_included.len(), 1, "one level only");
        let mut names = ["b", "A", "01", "a", "B", "00"].map(|name| PathBuf::from(format!("{name}.conf")));
        in_mosquittos_order(&mut names);
        let names = names.map(|name| name.display().to_string()).join(" ");
        assert_eq!(names, "00.conf 01.conf A.conf a.conf B.conf b.conf");
    }
}
