//! "Did you mean": the nearest option to a key nobody knows.

use super::{
    option::{OptionInfo, Setting, join},
    schema::Config,
};

/// Names people bring from mosquitto.conf, and what they are called here.
const FROM_MOSQUITTO: [(&str, &str); 26] = [
    ("listener", "[[listeners]] with address = \"0.0.0.0:1883\""),
    ("port", "[[listeners]] with address = \"0.0.0.0:1883\""),
    ("bind_address", "listeners.address"),
    ("socket_domain", "listeners.address"),
    ("certfile", "listeners.tls.certificate"),
    ("keyfile", "listeners.tls.key"),
    ("cafile", "listeners.tls.client_ca"),
    ("require_certificate", "listeners.tls.client_certificate = \"required\""),
    ("tls_version", "listeners.tls.version_min"),
    ("allow_zero_length_clientid", "mqtt.allow_empty_client_id"),
    ("max_connections", "listeners.connections_max or limits.connections_max"),
    ("max_inflight_messages", "mqtt.max_inflight"),
    ("max_keepalive", "mqtt.keep_alive_max"),
    ("max_packet_size", "limits.packet_bytes_max"),
    ("message_size_limit", "limits.packet_bytes_max"),
    ("auto_id_prefix", "mqtt.assigned_client_id_prefix"),
    ("max_qos", "mqtt.maximum_qos"),
    ("max_queued_messages", "queue.messages_max"),
    ("max_queued_bytes", "queue.bytes_max"),
    ("max_topic_alias", "mqtt.topic_alias_max"),
    ("persistent_client_expiration", "mqtt.session_expiry_v3"),
    ("use_identity_as_username", "listeners.tls.user_name = \"common_name\""),
    ("allow_duplicate_messages", "mqtt.overlap = \"each\""),
    ("log_dest", "log.target"),
    ("log_type", "log.level"),
    ("sys_interval", "sys.interval"),
];

/// Alike enough to be a typing mistake (Jaro-Winkler, 1 is equal).
const ALIKE: f64 = 0.85;

/// Whether one name may be the other one, written wrongly.
pub(super) fn is_near(name: &str, other: &str) -> bool {
    strsim::jaro_winkler(name, other) >= ALIKE
}

/// What `name` may have been meant to be; `known` are the names of its section.
pub(super) fn nearest(name: &str, known: &[&'static str]) -> Option<String> {
    let alike = |candidate: &str| match strsim::osa_distance(candidate, name) {
        1 if name.len() > 2 => 0.99,
        _ => strsim::jaro_winkler(candidate, name),
    };
    let best = known
        .iter()
        .map(|known| (alike(known), *known))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((likeness, best)) = best
        && likeness >= ALIKE
    {
        return Some(best.to_owned());
    }
    let mut elsewhere = Vec::new();
    collect("", Config::section().into_options(), &mut elsewhere);
    if let Some(path) = elsewhere.iter().find(|other| other.rsplit('.').next() == Some(name)) {
        return Some(path.clone());
    }
    if let Some((_, ours)) = FROM_MOSQUITTO.iter().find(|(theirs, _)| *theirs == name) {
        return Some((*ours).to_owned());
    }
    elsewhere
        .iter()
        .map(|other| (alike(other.rsplit('.').next().unwrap_or(other)), other))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, other)| other.clone())
}

fn collect(path: &str, options: Vec<OptionInfo>, paths: &mut Vec<String>) {
    for option in options {
        let path = join(path, option.name);
        collect(&path, option.section.into_options(), paths);
        paths.push(path);
    }
}
