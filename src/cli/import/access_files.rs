//! mosquitto's files of passwords and of rules, as Sundew reads them: what it would stumble over is taken out and said.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::grammar::Place;
use super::outcome::{Outcome, Weight};
use crate::auth::acl_file::AclFile;
use crate::auth::filter::overlap;
use crate::auth::password::{PasswordHash, wrong_with_name};
use crate::auth::rule::{Effect, Rule};

/// The lines of a password file that Sundew can use.
///
/// mosquitto reads up to the second colon, passes over lines that are wrong with a warning, and of several lines of a user the last
/// one counts.
pub fn passwords(file: &str, text: &str, out: &mut Outcome) -> String {
    let file: Arc<str> = file.into();
    let mut users: Vec<(String, Option<String>)> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for (number, line) in (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(text).lines()) {
        let place = || {
            Some(Place {
                file: Arc::clone(&file),
                line: number,
            })
        };
        if line.starts_with('#') || line.trim().is_empty() {
            users.push((line.trim_end().to_owned(), None));
            continue;
        }
        let mut parts = line.split(':');
        // A byte order mark is no part of a name, wherever files were put together.
        let is_no_part = |c: char| c.is_whitespace() || c == '\u{feff}';
        let name = parts.next().unwrap_or_default().trim_matches(is_no_part);
        let Some(hash) = parts.next().map(str::trim) else {
            let what = "no colon in this line; mosquitto passes over it, too".to_owned();
            out.remark(Weight::LeftOut, place(), what);
            continue;
        };
        let hash = of_go_auth(hash).unwrap_or_else(|| hash.to_owned());
        if let Some(wrong) = wrong_with_name(name) {
            out.remark(Weight::NotCarried, place(), format!("user {name:?}: {wrong}"));
            continue;
        }
        if let Err(error) = PasswordHash::parse(&hash) {
            let what = format!("user {name:?}: {error}; mosquitto refuses this user, too");
            out.remark(Weight::LeftOut, place(), what);
            continue;
        }
        if let Some(earlier) = known.insert(name.to_owned(), users.len()) {
            let what = format!("user {name:?} has several lines; this one counts");
            out.remark(Weight::LeftOut, place(), what);
            users[earlier] = (String::new(), None);
        }
        users.push((name.to_owned(), Some(hash)));
    }
    let mut kept = String::new();
    for (name, hash) in users {
        match hash {
            Some(hash) => kept.push_str(&format!("{name}:{hash}\n")),
            None if name.is_empty() => {}
            None => kept.push_str(&format!("{name}\n")),
        }
    }
    kept
}

/// `PBKDF2$sha512$ROUNDS$SALT$HASH` of mosquitto-go-auth, which the Home Assistant add-on has, as `$7$` of mosquitto: the same numbers.
fn of_go_auth(hash: &str) -> Option<String> {
    let mut parts = hash.strip_prefix("PBKDF2$sha512$")?.split('$');
    let (rounds, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
    // Its salts are base64, or a text that is taken as it is.
    let salt = match STANDARD.decode(salt) {
        Ok(_) => salt.to_owned(),
        Err(_) => STANDARD.encode(salt),
    };
    Some(format!("$7${rounds}${salt}${hash}"))
}

/// The names of the users in a password file.
pub fn names(passwords: &str) -> Vec<&str> {
    let lines = passwords.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.split_once(':')?.0)).collect()
}

/// The lines of an ACL file, those that Sundew does not read as comments. `users`: who can enter.
pub fn rules(file: &str, text: &str, users: &[&str], out: &mut Outcome) -> String {
    let place = |line| {
        Some(Place {
            file: file.into(),
            line,
        })
    };
    let problems = AclFile::parse(file, text).err().unwrap_or_default();
    let mut kept = String::new();
    // Behind a line that may have been a `user`, nobody knows whose topics those are.
    let mut is_somebodys = true;
    for (number, line) in (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(text).lines()) {
        let mut words = line.split_whitespace();
        let kind = words.next().unwrap_or_default();
        let mut not_carried = |what: &str| {
            out.remark(Weight::NotCarried, place(number), format!("{}: {what}", line.trim()));
            kept.push_str(&format!("# not carried: {line}\n"));
        };
        match problems.iter().find(|problem| problem.line == number) {
            Some(problem) if ["topic", "pattern"].contains(&kind) => {
                let is_deny = words.next() == Some("deny") && words.next().is_some();
                if is_deny && (is_somebodys || kind == "pattern") {
                    let what = format!("{}; everything is denied instead: {}", line.trim(), problem.message);
                    out.remark(Weight::NotCarried, place(number), what);
                    kept.push_str(&format!("{kind} deny #\n"));
                } else {
                    not_carried(&problem.message);
                }
            }
            Some(problem) => {
                is_somebodys = false;
                not_carried(&problem.message);
            }
            None if kind == "topic" && !is_somebodys => not_carried("whose it is, the line above does not say"),
            None => {
                is_somebodys = is_somebodys || kind == "user";
                kept.push_str(&format!("{line}\n"));
            }
        }
    }
    if let Ok(read) = AclFile::parse(file, &kept) {
        read.warnings
            .into_iter()
            .for_each(|warning| out.remark(Weight::Note, place(warning.line), warning.message));
        differences(file, &read.rules, users, out);
    }
    kept
}

/// What the same lines mean elsewhere than in mosquitto.
fn differences(file: &str, rules: &[Rule], users: &[&str], out: &mut Outcome) {
    let place = |rule: &Rule| {
        let line = rule.place.rsplit_once(':').and_then(|(_, line)| line.parse().ok());
        line.map(|line| Place {
            file: file.into(),
            line,
        })
    };
    let any_name = |rule: &Rule| rule.topics.as_str().replace("%u", "+").replace("%c", "+");
    let is_pattern = |rule: &Rule| rule.users.is_everyone();
    for denied in rules
        .iter()
        .filter(|rule| rule.effect == Effect::Deny && is_pattern(rule))
    {
        let opposed = rules.iter().find(|rule| {
            rule.effect == Effect::Allow
                && !is_pattern(rule)
                && overlap(&levels_only(&any_name(denied)), rule.topics.as_str())
        });
        if let Some(allowed) = opposed {
            let what = format!(
                "pattern deny {}: it wins over line {} here; mosquitto asks the topics of a user first, and patterns after them",
                denied.topics.as_str(),
                place(allowed).map_or(0, |place| place.line)
            );
            out.remark(Weight::NotCarried, place(denied), what);
        }
    }
    let slashed: Vec<_> = users.iter().filter(|name| name.contains('/')).collect();
    let allows = |rule: &&Rule| rule.effect == Effect::Allow && rule.topics.has_placeholder();
    for rule in rules.iter().filter(allows) {
        let topics = rule.topics.as_str();
        if topics.contains("%u") && !slashed.is_empty() {
            let what =
                format!("pattern {topics}: nothing is allowed by it to users with a / in their name: {slashed:?}");
            out.remark(Weight::NotCarried, place(rule), what);
        }
        if topics.contains("%c") {
            let what = format!("pattern {topics}: nothing is allowed by it to client ids with a / in them");
            out.remark(Weight::Note, place(rule), what);
        }
    }
}

/// A level in which a wildcard is not alone is any level.
fn levels_only(filter: &str) -> String {
    let levels = filter.split('/');
    let levels: Vec<_> = levels
        .map(|level| {
            if level.len() > 1 && level.contains(['+', '#']) {
                "+"
            } else {
                level
            }
        })
        .collect();
    levels.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$7$101$r02FpQM6Al2pzMki$644//s1o1Wnoh+VSi4K82qd5XhHK4buXE+daF2wEmPq23FrhHIvz89QvBcSuJ8zfqvvTsLFAzirEbEYOEa6Cow==";

    fn remarks(out: &Outcome) -> Vec<String> {
        out.remarks.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn lines_of_passwords_that_mosquitto_passes_over_are_left_out() {
        let mut out = Outcome::default();
        let other = HASH.replacen("101", "102", 1);
        let text =
            format!("# ours\r\nalice:{HASH}\r\n bob :{HASH}:more\nplain:secret\nnothing\nempty:\nalice:{other}\n");
        let kept = passwords("pw", &text, &mut out);
        assert_eq!(kept, format!("# ours\nbob:{HASH}\nalice:{other}\n"));
        assert_eq!(names(&kept), ["bob", "alice"]);
        let said = remarks(&out);
        assert_eq!(said.len(), 4, "{said:?}");
        assert!(
            said[0].starts_with("pw:4: left out: user \"plain\": the password is not hashed"),
            "{said:?}"
        );
        assert!(out.is_whole(), "mosquitto refuses all of them, too");
        assert!(!said.join(" ").contains("secret"), "a password is not shown");
    }

    /// Found by the fuzz run: the broker takes a mark at the beginning off, and would know another name.
    #[test]
    fn a_byte_order_mark_is_no_part_of_a_name() {
        let text = format!("\u{feff}\u{feff}alice:{HASH}\n\u{feff}bob:{HASH}\n");
        let kept = passwords("pw", &text, &mut Outcome::default());
        assert_eq!(names(&kept), ["alice", "bob"]);
    }

    #[test]
    fn hashes_of_go_auth_are_mosquittos_in_other_words() {
        let hash = "644//s1o1Wnoh+VSi4K82qd5XhHK4buXE+daF2wEmPq23FrhHIvz89QvBcSuJ8zfqvvTsLFAzirEbEYOEa6Cow==";
        let text = format!("ha:PBKDF2$sha512$101$r02FpQM6Al2pzMki${hash}\n");
        assert_eq!(passwords("pw", &text, &mut Outcome::default()), format!("ha:{HASH}\n"));
    }

    /// mosquitto does not start with such a file; so nothing may be open that it denies, or be another user's.
    #[test]
    fn a_line_of_rules_that_is_wrong_opens_nothing() {
        let mut out = Outcome::default();
        let text = "user alice\ntopic a\nuser\ntopic secret/#\n\tusr bob\ntopic deny a/#/b\ntopic secret/b\nuser carol\n\
                    topic c/#\ntopic deny c/#/x\npattern deny +x/%u\ntopic deny\n";
        let kept = rules("acl", text, &[], &mut out);
        let left: Vec<_> = kept
            .lines()
            .map(|line| if line.starts_with('#') { "#" } else { line })
            .collect();
        let expected = [
            "user alice",
            "topic a",
            "#",
            "#",
            "#",
            "#",
            "#",
            "user carol",
            "topic c/#",
            "topic deny #",
            "pattern deny #",
            "#",
        ];
        assert_eq!(left, expected);
        let said = remarks(&out);
        assert!(
            said[1].starts_with("acl:4: not carried: topic secret/#: whose it is, "),
            "{said:?}"
        );
        assert!(
            said[5].starts_with("acl:10: not carried: topic deny c/#/x; everything is denied instead: "),
            "{said:?}"
        );
    }

    #[test]
    fn what_rules_mean_differently_is_said() {
        let mut out = Outcome::default();
        let text = "user alice\ntopic readwrite home/#\npattern deny home/%u/secret\npattern deny other/%c\ntopic reed a\n\
                    topic read $share/g/a\npattern read own/%u\n";
        let kept = rules("acl", text, &["alice", "a/b"], &mut out);
        assert!(AclFile::parse("acl", &kept).is_ok(), "{kept}");
        assert_eq!(kept.lines().count(), 7, "lines keep their numbers");
        let said = remarks(&out);
        assert!(said[0].starts_with("acl:5: not carried: topic reed a: "), "{said:?}");
        assert!(
            said[1].starts_with("acl:6: not carried: topic read $share/g/a: "),
            "{said:?}"
        );
        assert!(
            said[2].starts_with("acl:3: not carried: pattern deny home/%u/secret: it wins over line 2"),
            "{said:?}"
        );
        assert!(
            said[3].starts_with("acl:7: not carried: pattern own/%u: nothing is allowed by it to users with a /"),
            "{said:?}"
        );
        assert_eq!(said.len(), 4, "{said:?}");
    }
}
