//! mosquitto's `acl_file`, read as it is.
//!
//! ```text
//! # before the first `user`: clients without a user name
//! topic read public/#
//! user alice                                    until the next `user`: she
//! topic [read|write|readwrite|deny] home/#      readwrite where nothing is said
//! pattern write devices/%c/#                    everyone; %u is the user name, %c the client id
//! ```
//!
//! One thing is different: `deny` wins over everything, a `pattern deny` over the `topic` of a user, too. mosquitto asks the patterns last.

use super::place::{FileProblem, lines};
use super::rule::{Actions, Effect, Rule, TopicPattern, Users};

/// The rules of a file, and what is strange about it.
#[derive(Clone, Debug, Default)]
pub struct AclFile {
    /// In the order of the file.
    pub rules: Vec<Rule>,
    /// Lines that mean something else than one might think.
    pub warnings: Vec<FileProblem>,
}

impl AclFile {
    /// Reads a whole file; `name` is what places in it begin with.
    ///
    /// # Errors
    /// Every line that is wrong.
    pub fn parse(name: &str, text: &str) -> Result<Self, Vec<FileProblem>> {
        let mut file = Self::default();
        let mut problems = Vec::new();
        let mut user: Option<Box<str>> = None;
        for (number, line) in lines(text) {
            // Blanks before it, tabs too: a line that was passed over could be the one that denies.
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (word, rest) = split_word(line);
            let read = match word {
                "user" if rest.is_empty() => Err("no user name behind `user`".to_owned()),
                "user" => {
                    user = Some(rest.into());
                    Ok(())
                }
                "topic" => file.add(name, number, rest, Some(user.as_deref())),
                "pattern" => file.add(name, number, rest, None),
                _ => Err(format!("{word:?} is not known, expected user, topic or pattern")),
            };
            if let Err(message) = read {
                problems.push(FileProblem { line: number, message });
            }
        }
        if problems.is_empty() { Ok(file) } else { Err(problems) }
    }

    /// A line without its first word. `user`: whom it is for; `None` for a pattern, which is for all.
    fn add(&mut self, name: &str, number: u32, rest: &str, user: Option<Option<&str>>) -> Result<(), String> {
        let (word, behind) = split_word(rest);
        if behind.is_empty() && ["read", "write", "readwrite", "deny"].contains(&word) {
            return Err(format!(
                "no topic behind {word:?}; for a topic of this name write: readwrite {word}"
            ));
        }
        let (access, topic) = if behind.is_empty() {
            ("readwrite", word)
        } else {
            (word, behind)
        };
        let (effect, actions) = match access {
            "read" => (Effect::Allow, Actions::READ),
            "write" => (Effect::Allow, Actions::WRITE),
            "readwrite" => (Effect::Allow, Actions::ALL),
            "deny" => (Effect::Deny, Actions::ALL),
            _ => {
                return Err(format!(
                    "the access {access:?} is not known, expected read, write, readwrite or deny before the topic"
                ));
            }
        };
        if topic.is_empty() {
            return Err("no topic in this line".to_owned());
        }
        let topics = if user.is_some() {
            TopicPattern::plain(topic)
        } else {
            TopicPattern::parse(topic)
        };
        let topics = topics.map_err(|error| format!("the topic {topic:?} {error}"))?;
        if user.is_none() && !topics.has_placeholder() {
            let message = format!("the pattern {topic:?} has neither %u nor %c: it is for everyone");
            self.warnings.push(FileProblem { line: number, message });
        } else if user.is_some()
            && topic.contains(['%'])
            && TopicPattern::parse(topic).is_ok_and(|t| t.has_placeholder())
        {
            let message = format!("%u and %c stand for themselves in a `topic` line; write: pattern {access} {topic}");
            self.warnings.push(FileProblem { line: number, message });
        }
        if let Some(doubt) = TopicPattern::doubt(topic).filter(|_| user.is_none()) {
            let message = format!("the pattern {topic:?}: {doubt}");
            self.warnings.push(FileProblem { line: number, message });
        }
        let mut rule = Rule::new(effect, actions, topics, format!("{name}:{number}"));
        rule.users = match user {
            None => Users::default(),
            Some(None) => Users {
                anonymous: true,
                ..Users::default()
            },
            Some(Some(user)) => Users {
                names: [user.into()].into(),
                ..Users::default()
            },
        };
        self.rules.push(rule);
        Ok(())
    }
}

/// The first word and what follows it, blanks around that taken off.
fn split_word(text: &str) -> (&str, &str) {
    match text.split_once([' ', '\t']) {
        Some((word, rest)) => (word, rest.trim()),
        None => (text, ""),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::rule::Action;

    #[test]
    fn the_shapes_that_are_seen_are_read() {
        let text = "\u{feff}# ours\r\n\r\ntopic read  public/#  \nuser Frau Müller\ntopic readwrite home/my lamp\n topic deny home/safe\n\
                    pattern write devices/%c/+\n";
        let file = AclFile::parse("acl", text).unwrap();
        let shown: Vec<_> = file
            .rules
            .iter()
            .map(|rule| (rule.effect, rule.topics.as_str(), &*rule.place))
            .collect();
        assert_eq!(
            shown,
            [
                (Effect::Allow, "public/#", "acl:3"),
                (Effect::Allow, "home/my lamp", "acl:5"),
                (Effect::Deny, "home/safe", "acl:6"),
                (Effect::Allow, "devices/%c/+", "acl:7"),
            ]
        );
        assert!(file.rules[0].users.anonymous);
        assert!(file.rules[1].users.names.contains("Frau Müller"));
        assert!(file.rules[1].actions.contains(Action::Publish) && file.rules[1].actions.contains(Action::Receive));
        assert!(!file.rules[0].actions.contains(Action::Publish));
        assert!(file.rules[3].users.is_everyone());
        assert!(file.warnings.is_empty());
    }

    /// A line that is passed over silently gives rights to the wrong user, or takes none away.
    #[test]
    fn blanks_before_a_line_change_nothing() {
        let text =
            "user alice\ntopic read a\n\tuser bob\n \t topic readwrite #\n\ttopic deny secret/#\n\t# a comment\n\t\n";
        let rules = AclFile::parse("acl", text).unwrap().rules;
        let shown: Vec<_> = rules
            .iter()
            .map(|rule| (&**rule.users.names.first().unwrap(), rule.effect, &*rule.place))
            .collect();
        assert_eq!(
            shown,
            [
                ("alice", Effect::Allow, "acl:2"),
                ("bob", Effect::Allow, "acl:4"),
                ("bob", Effect::Deny, "acl:5"),
            ]
        );
    }

    #[test]
    fn every_line_that_is_wrong_is_told() {
        let table: &[(&str, &str)] = &[
            ("user", "no user name"),
            ("topic", "no topic"),
            ("topic deny", "no topic behind \"deny\""),
            ("pattern  write ", "no topic behind \"write\""),
            ("topic reed a/b", "\"reed\" is not known"),
            ("topic read a#", "not its whole last level"),
            ("pattern a/b+/%u", "not a whole level"),
            ("topic $share/g/a", "$share"),
            ("topics a/b", "expected user, topic or pattern"),
        ];
        let text: String = table.iter().map(|(line, _)| format!("{line}\n")).collect();
        let problems = AclFile::parse("acl", &text).unwrap_err();
        assert_eq!(problems.len(), table.len());
        for (problem, (line, message)) in problems.iter().zip(table) {
            assert!(problem.message.contains(message), "{line}: {}", problem.message);
        }
    }

    #[test]
    fn what_surprises_is_said() {
        let file = AclFile::parse("acl", "pattern read a/b\nuser u\ntopic read a/%u\npattern read %user\n").unwrap();
        assert_eq!(file.warnings.len(), 3);
        assert!(
            file.warnings[2]
                .message
                .contains("%user is %u, the user name, with \"ser\"")
        );
        for (topic, expected) in [
            ("a/%u/%c/%{sub}/%", None),
            ("%u_1/%u-%c", None),
            ("100%/x", None),
            ("a/%i", Some("%i stands for itself")),
            ("a/%client", Some("is %c, the client id")),
            ("a/%{sub", Some("no } behind it")),
            ("a/%{}", Some("names no claim")),
        ] {
            let doubt = TopicPattern::doubt(topic);
            assert_eq!(doubt.is_some(), expected.is_some(), "{topic}: {doubt:?}");
            assert!(
                doubt.unwrap_or_default().contains(expected.unwrap_or_default()),
                "{topic}"
            );
        }
        assert_eq!((file.warnings[0].line, file.warnings[1].line), (1, 3));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a/#+%uc\t $\ntopicreadserpatn]{0,80}") {
            let _ = AclFile::parse("acl", &text);
        }
    }
}
