//! Options of the whole broker: one table of those that nothing is to be done for, and a function for the others.

use super::grammar::{Line, MosquittoConf};
use super::outcome::{Outcome, Table};

/// What nothing is lost without, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    (
        "autosave_interval",
        "Sundew writes every change at once, storage.sync says how safely",
    ),
    (
        "autosave_on_changes",
        "Sundew writes every change at once, storage.sync says how safely",
    ),
    ("bind_address", "the listeners say where they listen"),
    ("dhparamfile", "Sundew's TLS agrees on keys by elliptic curves only"),
    ("enable_control_api", "Sundew is asked by its command line"),
    ("log_facility", "the journal has lines of standard error without one"),
    (
        "log_timestamp",
        "every line has its time; under systemd the journal adds it",
    ),
    ("log_timestamp_format", "times are ISO 8601"),
    ("max_topic_alias_broker", "see mqtt.topic_alias_max_out"),
    ("packet_buffer_size", "requests of WebSocket clients may have 8 KiB"),
    (
        "persistence_file",
        "Sundew has a store of its own, see storage.directory",
    ),
    (
        "persistence_location",
        "Sundew has a store of its own, see storage.directory; --live copies what is retained",
    ),
    (
        "pid_file",
        "service managers know the process; `sundew reload` finds it by its data directory",
    ),
    ("port", "the listeners say where they listen"),
    (
        "retry_interval",
        "messages are sent again when their client comes back, never before [MQTT-4.4.0-1]",
    ),
    ("set_tcp_nodelay", "small packets always go out at once"),
    ("store_clean_interval", "what nobody needs any more is let go at once"),
    ("user", "who runs Sundew is up to the service manager"),
    (
        "websockets_headers_size",
        "requests of WebSocket clients may have 8 KiB",
    ),
    ("websockets_log_level", "see log.level"),
];

/// What Sundew does not have: what it did, and what to use instead.
const NOT_CARRIED: &[(&str, &str)] = &[
    (
        "ciphers",
        "the choice of ciphers; Sundew's TLS has none but AEAD with forward secrecy",
    ),
    (
        "ciphers_tls1.3",
        "the choice of ciphers; Sundew's TLS has AES-GCM and ChaCha20-Poly1305",
    ),
    (
        "clientid_prefixes",
        "other clients are not refused: they may do nothing",
    ),
    (
        "disable_client_cert_date_checks",
        "certificates of clients that have expired are refused: issue new ones",
    ),
    ("http_dir", "Sundew serves no files: let a web server do it"),
    (
        "max_inflight_bytes",
        "only messages under way are counted: mqtt.max_inflight",
    ),
    (
        "memory_limit",
        "there is a limit for each thing that takes memory: see [limits] and [queue]",
    ),
    (
        "proxy_protocol_v2_require_tls",
        "what a proxy says of TLS is not asked for",
    ),
    (
        "psk_file",
        "TLS with pre-shared keys: Sundew's TLS has none; use client certificates (`sundew certs`)",
    ),
    (
        "psk_hint",
        "TLS with pre-shared keys: Sundew's TLS has none; use client certificates (`sundew certs`)",
    ),
    (
        "retain_expiry_interval",
        "retained messages stay until they are replaced, or expire as their publisher said",
    ),
    ("tls_engine", "keys are read from files only"),
    ("tls_engine_kpass_sha1", "keys are read from files only"),
    (
        "use_username_as_clientid",
        "client ids stay what clients say: %c is %u in rules, and a session is for the user who made it",
    ),
];

/// Says of a line that nothing comes of it. False where something should.
pub(super) fn is_passed_over(line: &Line, out: &mut Outcome) -> bool {
    let reason =
        |table: &[(&str, &'static str)]| table.iter().find(|(name, _)| *name == line.name).map(|(_, why)| *why);
    let is_off = line.is_true() == Some(false);
    if let Some(why) = reason(LEFT_OUT) {
        out.left_out(line, why);
    } else if let Some(why) = reason(NOT_CARRIED) {
        if is_off {
            out.left_out(line, "Sundew does nothing else");
        } else {
            out.not_carried(line, why);
        }
    } else {
        return false;
    }
    true
}

/// The options of the whole broker, but for who may enter. `more`: of `[mqtt]`, what the listeners agree in.
pub(super) fn carry(
    conf: &MosquittoConf,
    more: &[(&'static str, String, String)],
    is_sys_public: bool,
    out: &mut Outcome,
) {
    let mut tables = Tables {
        limits: Table::new("[limits]", ""),
        mqtt: Table::new("[mqtt]", ""),
        queue: Table::new("[queue]", ""),
        storage: Table::new("[storage]", ""),
        log: Table::new("[log]", ""),
        sys: Table::new("[sys]", ""),
    };
    for line in &conf.broker.options {
        if conf.broker.get(&line.name) != Some(line) && !matches!(line.name.as_str(), "log_dest" | "log_type") {
            out.left_out(line, "it is set again further down, and that counts");
        } else if !is_passed_over(line, out)
            && tables.of_messages(line, out).is_none()
            && tables.of_clients(line, out).is_none()
        {
            out.not_carried(line, "its value is not one that mosquitto takes");
        }
    }
    more.iter()
        .for_each(|(key, value, from)| tables.mqtt.set(key, value, from));
    if is_sys_public {
        tables
            .sys
            .set("public", true, "mosquitto's default: every client may read $SYS");
    }
    tables.log(conf, out);
    let Tables {
        limits,
        mqtt,
        queue,
        storage,
        log,
        sys,
    } = tables;
    out.tables.extend([limits, mqtt, queue, storage, log, sys]);
    for line in &conf.unknown {
        out.not_carried(line, "mosquitto does not know it here, and does not start with it");
    }
    for (line, why) in &conf.not_included {
        out.not_carried(line, why);
    }
    for bridge in &conf.bridges {
        bridge_for_later(bridge, out);
    }
}

/// Bridges are kept as comments: what they say is wanted again one day.
fn bridge_for_later(bridge: &super::grammar::Section, out: &mut Outcome) {
    let Some(head) = &bridge.head else { return };
    let to = ["address", "addresses"].iter().find_map(|name| bridge.get(name));
    let to = to.map_or("another broker", |line| &line.value);
    let instead = "Sundew has no bridges yet; let a mosquitto beside it do it, connected to both brokers";
    out.not_carried(head, format!("a bridge to {to}; {instead}"));
    out.later
        .push(format!("Not carried yet, the bridge of {}:", head.place));
    for line in [head].into_iter().chain(&bridge.options) {
        let value = if super::outcome::is_secret(&line.name) {
            "(a password)"
        } else {
            &line.value
        };
        out.later.push(format!("  {} {value}", line.name));
    }
}

struct Tables {
    limits: Table,
    mqtt: Table,
    queue: Table,
    storage: Table,
    log: Table,
    sys: Table,
}

impl Tables {
    /// Messages and queues. `None` where it is another option, or its value is none.
    fn of_messages(&mut self, line: &Line, out: &mut Outcome) -> Option<()> {
        let from = &line.place;
        let number = || line.word().parse::<i64>().ok();
        match line.name.as_str() {
            "max_queued_messages" => {
                let most = number()?;
                self.queue.set("messages_max", limit(most), from);
                self.policy(line);
            }
            "max_queued_bytes" => {
                let most = number()?;
                if most > 0 {
                    self.queue
                        .set("bytes_max", format!("\"{}B\"", most.clamp(1024, 1 << 40)), from);
                    self.policy(line);
                } else {
                    out.left_out(
                        line,
                        "no limit, as mosquitto has it by default; Sundew's is 1 GiB: queue.bytes_max",
                    );
                }
            }
            "max_inflight_messages" => {
                let most = number()?;
                self.mqtt
                    .set("max_inflight", if most <= 0 { 65_535 } else { most.min(65_535) }, from);
            }
            "max_packet_size" => self.packet_bytes(number()?, from),
            "message_size_limit" => {
                let payload = number()?;
                // Topic and head of the packet come on top; without properties they take no more than this.
                self.packet_bytes(if payload <= 0 { i64::MAX } else { payload + 65_545 }, from);
                if payload > 0 {
                    out.note(
                        line,
                        "it is for whole packets here, topics included; who sends a larger one is disconnected",
                    );
                }
            }
            "queue_qos0_messages" => self.mqtt_bool(line, "qos0_offline", false)?,
            "retain_available" => self.mqtt_bool(line, "retain_available", true)?,
            "upgrade_outgoing_qos" if line.is_true()? => {
                out.not_carried(line, "messages keep the QoS they were published with [MQTT-3.8.4-8]");
            }
            "upgrade_outgoing_qos" => out.left_out(line, "Sundew does nothing else"),
            "allow_duplicate_messages" => {
                if line.is_true()? {
                    self.mqtt.text("overlap", "each", from);
                } else {
                    out.left_out(line, "one copy is Sundew's default");
                }
            }
            "persistence" | "retained_persistence" => {
                if line.is_true()? {
                    out.left_out(line, "Sundew keeps everything by default: storage.enabled");
                } else {
                    self.storage.set("enabled", "false", from);
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Clients and what they see.
    fn of_clients(&mut self, line: &Line, out: &mut Outcome) -> Option<()> {
        let from = &line.place;
        let number = || line.word().parse::<i64>().ok();
        match line.name.as_str() {
            "max_keepalive" => {
                let seconds = number()?;
                self.mqtt
                    .text("keep_alive_max", &format!("{}s", seconds.clamp(0, 65_535)), from);
                out.note(
                    line,
                    "clients before MQTT 5 that ask for more are left alone; mosquitto refuses them",
                );
            }
            "persistent_client_expiration" => {
                let time = expiration(line.word())?;
                self.mqtt.text("session_expiry_max", &time, from);
                self.mqtt.text("session_expiry_v3", &time, from);
            }
            "global_max_connections" => self.limits.set("connections_max", limit(number()?), from),
            "global_max_clients" => self.limits.set("sessions_max", limit(number()?), from),
            "sys_interval" => self
                .sys
                .text("interval", &format!("{}s", number()?.clamp(0, 86_400)), from),
            "check_retain_source" if line.is_true()? => out.left_out(line, "Sundew's default"),
            "connection_messages" | "log_dest" | "log_type" => {}
            // Looked at with the listeners.
            "check_retain_source"
            | "acl_file"
            | "allow_anonymous"
            | "password_file"
            | "allow_zero_length_clientid"
            | "auto_id_prefix" => {}
            _ => return None,
        }
        Some(())
    }

    fn mqtt_bool(&mut self, line: &Line, key: &str, default: bool) -> Option<()> {
        let value = line.is_true()?;
        let table = if key == "qos0_offline" {
            &mut self.queue
        } else {
            &mut self.mqtt
        };
        if value != default {
            table.set(key, value, &line.place);
        }
        Some(())
    }

    fn packet_bytes(&mut self, bytes: i64, from: &super::grammar::Place) {
        let bytes = bytes.clamp(32, 268_435_460);
        self.limits.set("packet_bytes_max", format!("\"{bytes}B\""), from);
    }

    /// A queue that is full drops what comes; said once.
    fn policy(&mut self, line: &Line) {
        if !self.queue.has("policy") {
            let from = format!("{}: mosquitto drops what comes then", line.place);
            self.queue.text("policy", "drop_newest", from);
        }
    }

    fn log(&mut self, conf: &MosquittoConf, out: &mut Outcome) {
        let all = |name: &'static str| conf.broker.options.iter().filter(move |line| line.name == name);
        let is_file = |line: &&Line| line.word() == "file" && line.value.len() > 5;
        let file = all("log_dest").find(is_file);
        let stdout = all("log_dest").find(|line| line.word() == "stdout");
        let chosen = file.or(stdout);
        for line in all("log_dest") {
            match line.word() {
                "file" if Some(line) == chosen => {
                    self.log.text("target", "file", &line.place);
                    self.log.text("file", line.value[4..].trim(), &line.place);
                    out.note(
                        line,
                        "have logrotate use copytruncate, the file is not opened again at SIGHUP",
                    );
                }
                "stdout" if Some(line) == chosen => self.log.text("target", "stdout", &line.place),
                "stderr" if chosen.is_none() => {}
                "stderr" | "stdout" | "file" => out.left_out(line, "lines go to one place"),
                "syslog" => out.left_out(
                    line,
                    "what is on standard error is in the journal, and from there in syslog",
                ),
                "none" => self.log.text("level", "error", &line.place),
                "topic" => out.not_carried(
                    line,
                    "no topics are made of log lines: log.format = \"json\" is for programs",
                ),
                _ => out.not_carried(line, "lines go to standard error, standard output or a file"),
            }
        }
        self.level(conf, &all("log_type").collect::<Vec<_>>(), out);
    }

    fn level(&mut self, conf: &MosquittoConf, types: &[&Line], out: &mut Outcome) {
        let quiet = conf
            .broker
            .get("connection_messages")
            .filter(|line| line.is_true() == Some(false));
        let level = types
            .iter()
            .filter_map(|line| level_of(line.word()).map(|level| (level, *line)))
            .max_by_key(|(level, _)| *level);
        for line in types.iter().filter(|line| level_of(line.word()).is_none()) {
            out.left_out(line, "there is no such part of the log; see log.level");
        }
        let from: Vec<_> = level
            .iter()
            .map(|(_, line)| *line)
            .chain(quiet)
            .map(|line| line.place.to_string())
            .collect();
        let name = level.map_or("info", |(level, _)| ["error", "warn", "info", "debug"][level]);
        let level = match quiet {
            Some(_) if matches!(name, "info" | "debug") => format!("{name},sundew::broker::endings=warn"),
            _ => name.to_owned(),
        };
        if level != "info" && !self.log.has("level") {
            self.log.text("level", &level, from.join(", "));
        }
    }
}

/// Of a `log_type`: 0 errors, 1 warnings, 2 information, 3 everything.
fn level_of(word: &str) -> Option<usize> {
    match word {
        "none" | "error" => Some(0),
        "warning" => Some(1),
        "notice" | "information" => Some(2),
        "all" | "debug" => Some(3),
        _ => None,
    }
}

/// 0 and less is no limit.
fn limit(number: i64) -> String {
    if number <= 0 {
        "\"unlimited\"".to_owned()
    } else {
        number.to_string()
    }
}

/// `14d` as a duration; a month has 30 days, a year 365.
fn expiration(text: &str) -> Option<String> {
    let hours_of = |unit| match unit {
        b'h' => Some(1),
        b'd' => Some(24),
        b'w' => Some(24 * 7),
        b'm' => Some(24 * 30),
        b'y' => Some(24 * 365),
        _ => None,
    };
    let unit = hours_of(*text.as_bytes().last()?)?;
    let number: u64 = text[..text.len() - 1].parse().ok()?;
    let hours = number
        .checked_mul(unit)
        .filter(|hours| (1..=24 * 36_500).contains(hours))?;
    Some(if hours % 24 == 0 {
        format!("{}days", hours / 24)
    } else {
        format!("{hours}h")
    })
}
