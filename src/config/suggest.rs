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

/// Words that are alike, of all words of the longer name.
const WORDS_ALIKE: f64 = 0.6;
/// Alike enough for a word out of a few.
const WORD_ALIKE: f64 = 0.8;

/// Whether one name may be the other one, written wrongly.
pub(super) fn is_near(name: &str, other: &str) -> bool {
    strsim::jaro_winkler(name, other) >= ALIKE
}

/// How alike two names are: 1 is equal. One letter that is wrong, missing or too many is nearly that.
fn likeness(name: &str, other: &str) -> f64 {
    match strsim::osa_distance(other, name) {
        1 if name.len() > 2 => 0.99,
        _ => strsim::jaro_winkler(other, name),
    }
}

/// Of words that are alike, how many two names have, whatever their order: `max_packets` and `packet_bytes_max` two of three.
fn words_alike(name: &str, other: &str) -> f64 {
    let words: Vec<_> = name.split('_').collect();
    let others: Vec<_> = other.split('_').collect();
    let is_there = |word: &&&str| word.len() > 2 && others.iter().any(|other| likeness(word, other) >= 0.9);
    let same = words.iter().filter(is_there).count();
    same as f64 / words.len().max(others.len()) as f64
}

/// The most alike, where one is alike enough.
fn best<'a, T: ?Sized>(
    names: impl Iterator<Item = (&'a str, &'a T)>,
    name: &str,
    alike: fn(&str, &str) -> f64,
    enough: f64,
) -> Option<&'a T> {
    let rated = names.map(|(known, what)| (alike(name, known), what));
    let best = rated.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness >= enough).map(|(_, what)| what)
}

/// What `name` may have been meant to be; `known` are the names of its section.
pub(super) fn nearest(name: &str, known: &[&'static str]) -> Option<String> {
    let own = || known.iter().map(|known| (*known, *known));
    if let Some(best) = best(own(), name, likeness, ALIKE) {
        return Some(best.to_owned());
    }
    let mut elsewhere = Vec::new();
    collect("", Config::section().into_options(), &mut elsewhere);
    let elsewhere = || elsewhere.iter().map(|path| (last(path), path.as_str()));
    let mosquittos = || FROM_MOSQUITTO.iter().copied();
    if let Some((_, path)) = elsewhere().find(|(other, _)| *other == name) {
        return Some(path.to_owned());
    }
    let found = best(mosquittos(), name, likeness, 0.95)
        .or_else(|| best(elsewhere(), name, likeness, ALIKE))
        .or_else(|| best(own(), name, words_alike, WORDS_ALIKE))
        .or_else(|| best(mosquittos(), name, likeness, ALIKE))
        .or_else(|| best(elsewhere(), name, words_alike, WORDS_ALIKE));
    found.map(str::to_owned)
}

/// Which of some words was meant, with its quotes, as the end of a message; nothing where none is near.
pub(super) fn word(written: &str, words: &[&'static str]) -> String {
    let written = written.to_lowercase().replace(['-', ' '], "_");
    let all = || words.iter().copied();
    let mut longer = all().filter(|word| !written.is_empty() && word.starts_with(&written));
    let near = match (longer.next(), longer.next()) {
        (Some(only), None) => Some(only),
        _ => best(all().map(|word| (word, word)), &written, likeness, WORD_ALIKE),
    };
    near.map_or_else(String::new, |near| format!(" (did you mean {near:?}?)"))
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

fn collect(path: &str, options: Vec<OptionInfo>, paths: &mut Vec<String>) {
    for option in options {
        let path = join(path, option.name);
        collect(&path, option.section.into_options(), paths);
        paths.push(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every option, one typing mistake at a time.
    #[test]
    fn an_option_is_found_however_it_is_mistyped() {
        let mut count = 0;
        check(Config::section().into_options(), "", &mut count);
        assert!(count > 2000, "{count} mistakes");
    }

    fn check(options: Vec<OptionInfo>, path: &str, count: &mut usize) {
        let names: Vec<_> = options.iter().map(|option| option.name).collect();
        for name in &names {
            for wrong in mistyped(name)
                .into_iter()
                .filter(|wrong| !names.contains(&wrong.as_str()))
            {
                let found = nearest(&wrong, &names).unwrap_or_default();
                // Some names are a letter from each other: then it is either.
                let is_as_near = strsim::osa_distance(&found, &wrong) <= strsim::osa_distance(name, &wrong);
                assert!(found == *name || is_as_near, "{path}: {wrong} is {name}, not {found:?}");
                *count += 1;
            }
        }
        for option in options {
            check(option.section.into_options(), &join(path, option.name), count);
        }
    }

    /// A letter is missing, doubled, another one, or two have changed places; another word is at the end.
    fn mistyped(name: &str) -> Vec<String> {
        let mut all = Vec::new();
        for at in 1..name.len() {
            let (before, from) = name.split_at(at);
            let (letter, behind) = from.split_at(1);
            all.push(format!("{before}{behind}"));
            all.push(format!("{before}{letter}{letter}{behind}"));
            all.push(format!("{before}x{behind}"));
            let (next, behind) = behind.split_at(usize::from(!behind.is_empty()));
            all.push(format!("{before}{next}{letter}{behind}"));
        }
        all.push(format!("{name}s"));
        all.push(name.replace('_', ""));
        all.retain(|wrong| wrong != name && name.len() > 3);
        all
    }

    #[test]
    fn names_of_other_brokers_are_known_though_they_are_mistyped() {
        for (wrong, expected) in [
            ("max_packet_sise", "limits.packet_bytes_max"),
            ("max_keep_alive", "mqtt.keep_alive_max"),
            ("max_queued_mesages", "queue.messages_max"),
            ("max_clients", ""),
            ("log_level", ""),
        ] {
            let found = nearest(wrong, &["messages", "level_min"]).unwrap_or_default();
            assert!(expected.is_empty() || found == expected, "{wrong}: {found}");
        }
        assert_eq!(
            nearest("max_packet_bytes", &["packet_bytes_max", "levels_max"]).unwrap(),
            "packet_bytes_max"
        );
        assert_eq!(nearest("qwertz", &["packet_bytes_max"]), None);
    }

    #[test]
    fn a_word_that_is_mistyped_is_found() {
        let words = ["drop_oldest", "drop_newest", "disconnect"];
        for (wrong, expected) in [
            ("drop-oldest", "drop_oldest"),
            ("Disconnect", "disconnect"),
            ("disconect", "disconnect"),
            ("drop_newst", "drop_newest"),
        ] {
            assert_eq!(word(wrong, &words), format!(" (did you mean {expected:?}?)"), "{wrong}");
        }
        assert_eq!(word("twice", &["once", "each"]), "");
    }
}
