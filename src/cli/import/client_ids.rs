//! `clientid_prefixes`: mosquitto refuses clients whose id does not begin so. Here they may do nothing: every rule that allows is for the others only.

use super::access_files;
use super::files::{self, Folder};
use super::grammar::{Line, MosquittoConf};
use super::outcome::{Outcome, Table, all};
use crate::auth::acl_file::AclFile;
use crate::auth::rule::{Action, Effect, Rule, TopicPattern};

/// What comes of it.
#[derive(Debug, Default)]
pub(super) struct OfClientIds {
    /// `[[auth.rules]]`, in the place of the ACL file, too.
    pub(super) rules: Vec<Table>,
    /// The ACL file that is in them.
    pub(super) acl_file: Option<Line>,
    /// It cannot be carried, so nothing is allowed.
    pub(super) closing: Option<Line>,
}

/// Rules for the clients with such ids. Those of one ACL file for all listeners are carried with it; beside other rules it closes.
pub(super) fn carry(conf: &MosquittoConf, folder: &Folder, out: &mut Outcome) -> OfClientIds {
    let prefixes = conf.broker.get("clientid_prefixes");
    let Some(line) = prefixes.filter(|line| !line.value.is_empty()) else {
        return OfClientIds::default();
    };
    let mine = all(&[format!("{}*", line.value)]);
    let closed = || OfClientIds {
        closing: Some(line.clone()),
        ..OfClientIds::default()
    };
    let has = |name: &str| conf.listeners.iter().any(|section| section.get(name).is_some());
    let is_else = has("acl_file") || has("mount_point") || has("use_username_as_clientid") || !conf.plugins.is_empty();
    let acl_file = conf.broker.get("acl_file");
    let is_else = is_else || conf.broker.get("mount_point").is_some();
    if is_else {
        return closed();
    }
    let Some(acl) = acl_file else {
        let mut rule = Table::new("[[auth.rules]]", "");
        rule.text("effect", "allow", "");
        rule.text("topics", "#", "");
        rule.set("client_ids", mine, &line.place);
        return OfClientIds {
            rules: vec![rule],
            ..OfClientIds::default()
        };
    };
    // What is wrong with the file is said where it is not carried so.
    let mut said = Outcome::default();
    let text = folder
        .file(acl, &mut said)
        .and_then(|path| Some((files::read(&path).ok()?, path)));
    let Some((text, path)) = text else { return closed() };
    let name = path.display().to_string();
    let kept = access_files::rules(&name, &text, &[], &mut said);
    let Ok(read) = AclFile::parse(&name, &kept) else {
        return closed();
    };
    let Some(rules) = read.rules.iter().map(|rule| table(rule, &mine, line)).collect() else {
        return closed();
    };
    out.remarks.append(&mut said.remarks);
    out.note(
        acl,
        format!("its rules are in the configuration, with {} {}", line.name, line.value),
    );
    OfClientIds {
        rules,
        acl_file: Some(acl.clone()),
        closing: None,
    }
}

/// A rule as the configuration has it; `None` for a topic in which a percent sign would mean something there.
fn table(rule: &Rule, client_ids: &str, line: &Line) -> Option<Table> {
    let topics = rule.topics.as_str();
    let is_same = TopicPattern::parse(topics).is_ok_and(|parsed| parsed == rule.topics);
    let mut table = Table::new("[[auth.rules]]", "");
    let is_allowing = rule.effect == Effect::Allow;
    table.text("effect", if is_allowing { "allow" } else { "deny" }, &rule.place);
    let actions = [Action::Publish, Action::Subscribe, Action::Receive];
    let actions: Vec<_> = actions
        .into_iter()
        .filter(|action| rule.actions.contains(*action))
        .map(|action| action.name().to_owned())
        .collect();
    if actions.len() < 3 {
        table.set("actions", all(&actions), "");
    }
    table.text("topics", topics, "");
    if rule.users.anonymous {
        table.set("groups", all(&["anonymous".to_owned()]), "");
    }
    if !rule.users.names.is_empty() {
        let names: Vec<_> = rule.users.names.iter().map(|name| name.to_string()).collect();
        table.set("users", all(&names), "");
    }
    if is_allowing {
        table.set("client_ids", client_ids, &line.place);
    }
    is_same.then_some(table)
}

#[cfg(test)]
mod tests {
    use crate::cli::import::tests::import;

    #[test]
    fn rules_are_for_those_whose_ids_begin_so() {
        let conf = "listener 1883\nallow_anonymous true\nacl_file @/rules\nclientid_prefixes dev-\n";
        let read = |rules: &str| import(&[("mosquitto.conf", conf), ("rules", rules)]).0;
        let configuration = read("topic read a\nuser bob\ntopic deny b/#\npattern write devices/%c\n");
        let rules: Vec<_> = configuration.split("[[auth.rules]]").skip(1).collect();
        assert!(
            rules.len() == 3 && !configuration.contains("acl_file"),
            "{configuration}"
        );
        assert!(rules[0].contains("groups = [\"anonymous\"]") && rules[0].contains("[\"subscribe\", \"receive\"]"));
        assert!(rules[1].contains("effect = \"deny\"") && rules[1].contains("users = [\"bob\"]"));
        assert!(!rules[1].contains("client_ids"), "what is denied is denied to all");
        assert!(rules[2].contains("topics = \"devices/%c\""), "{configuration}");
        for rule in [rules[0], rules[2]] {
            assert!(rule.contains("client_ids = [\"dev-*\"]"), "{configuration}");
        }
        assert!(
            configuration.contains("wide_subscriptions = \"grant\""),
            "{configuration}"
        );
        // A topic with %u that means itself cannot be said in the configuration.
        assert!(read("topic read a/%u\n").contains("acl_file = \"acl\""));
    }

    /// What is not carried because something else is not is named, too.
    #[test]
    fn what_a_closed_listener_had_is_named() {
        let conf = "listener 1883\nacl_file @/rules\nauth_plugin /x/go-auth.so\nauth_opt_backends http\nauth_opt_http_host h\n\
                    auth_opt_http_getuser_uri /u\nauth_opt_http_aclcheck_uri /a\nclientid_prefixes dev-\n";
        let (_, remarks, _) = import(&[("mosquitto.conf", conf), ("rules", "topic a\n")]);
        for line in [2, 3] {
            let begins = format!("mosquitto.conf:{line}: not carried: ");
            let named =
                |remark: &&String| remark.starts_with(&begins) && remark.contains("since clientid_prefixes at ");
            assert!(remarks.iter().any(|remark| named(&remark)), "{line}: {remarks:#?}");
        }
    }
}
